//! What breaks a run ends it, on every rank, with one explanation, and leaves it fit to go on.

use crate::running::{Ended, SMOKE, Train, signal};
use crate::skips::skipped;
use scrimp::runlog::io::Tail;
use scrimp::runlog::{RunEvent, RunStatus};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Within this time after the loss of a rank, everything has ended.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(20);

/// Lines of `text` with `part` in them.
pub(crate) fn mentions(text: &str, part: &str) -> usize {
    text.lines().filter(|line| line.contains(part)).count()
}

#[test]
fn the_loss_of_a_rank_ends_the_others() {
    let folder = TempDir::new().unwrap();
    for lost_rank in [0, 1] {
        let run = folder.path().join(format!("without-{lost_rank}"));
        let mut running =
            Train::new(SMOKE, &run).set("train.total_steps=100000").under_mpirun(2).start();
        running.wait_for(|event| matches!(event, RunEvent::Step(_)));
        let ranks = running.rank_pids();
        let root = running.run.writer().expect("the run is alive").pid;
        let lost = ranks.iter().find(|&&pid| (pid == root) == (lost_rank == 0)).unwrap();
        let killed = Instant::now();
        signal("KILL", &[*lost]);
        let ended = running.end_of(&ranks);
        assert!(killed.elapsed() < END_LIMIT, "{:?}", killed.elapsed());
        assert!(ended.code.is_some_and(|code| code != 0), "{}", ended.stderr);
        assert_eq!(ranks.len(), 2);
        assert_eq!(ended.run.writer(), None);
        // What mpirun sends to the others is not taken for a request to stop.
        assert_eq!(ended.status(), None);
    }
}

#[test]
fn a_gradient_that_is_not_finite_ends_the_run_with_one_message() {
    let folder = TempDir::new().unwrap();
    for ranks in [1, 2] {
        let run = folder.path().join(format!("on-{ranks}"));
        let train = Train::new(SMOKE, &run).set("method.params.learner.lr=1e30");
        let ended = train.on_ranks(ranks).finish();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert_eq!(mentions(&ended.stderr, "error: "), 1, "{}", ended.stderr);
        assert_eq!(mentions(&ended.stderr, "hint: lower `method.params.learner.lr`"), 1);
        let Some(RunEvent::RunEnded { status, step, message }) = ended.events().pop() else {
            panic!("the log does not end with the end of the run");
        };
        assert_eq!((status, step), (RunStatus::Failed, 2));
        assert_eq!(message, "the gradient of step 2 was not finite; it changed no weights");
    }
}

/// A run that has 4 steps to do and the checkpoint after 2.
fn half_done(run: &Path) {
    let plan = ["train.total_steps=4", "train.save_every=2", "train.evaluate_every=4"];
    Train::new(SMOKE, run).sets(&plan).succeed();
    fs::remove_dir_all(run.join("checkpoints/step-00000004")).unwrap();
}

fn checkpoints(ended: &Ended) -> Vec<String> {
    let entries = ended.run.checkpoints().read_dir().unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_fails_the_run_and_leaves_the_previous_checkpoint() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    half_done(&run);
    // The log fits, the 14 MB of a checkpoint do not.
    let failed = Train::again(&run).with_largest_file_kib(4_000).finish();
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert_eq!(failed.status(), Some(RunStatus::Failed));
    let (_, complaint) = failed.stderr.split_once("error: ").expect("an error");
    insta::assert_snapshot!(complaint.replace(folder.path().to_str().unwrap(), "FOLDER"), @r"
    cannot save checkpoint `FOLDER/run/checkpoints/step-00000004`
      caused by: cannot write `FOLDER/run/checkpoints/step-00000004.tmp/shard-0000-of-0001.safetensors`: File too large (os error 27)

    hint: make room there; the same command goes on from the newest checkpoint
    ");
    assert_eq!(checkpoints(&failed), ["step-00000002"]);
    let resumed = Train::again(&run).succeed();
    assert_eq!(resumed.resumed_from(), Some(2));
    assert_eq!(checkpoints(&resumed), ["step-00000002", "step-00000004"]);
}

#[test]
fn what_fails_on_another_rank_or_before_the_first_step_stands_in_a_log() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let train = Train::new(SMOKE, &run).with_on_rank_1("--set data.shapes.path=/nowhere");
    let failed = train.under_mpirun(2).finish();
    assert_eq!(mentions(&failed.stderr, "error: "), 1, "{}", failed.stderr);
    let last = |rank: usize| Tail::new(failed.run.rank_events(rank)).read().unwrap().pop();
    assert_eq!(last(0), None);
    let Some(RunEvent::RunEnded { status, step, message }) = last(1).map(|record| record.event)
    else {
        panic!("rank 1 does not say why it failed: {}", failed.stderr);
    };
    assert_eq!((status, step), (RunStatus::Failed, 0));
    assert!(message.contains("/nowhere"), "{message}");
    assert_eq!(failed.run.writer(), None);
}

/// A file system of its own size in the folder, taken away at the end.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// `None`, said on stdout, where this process may not mount anything.
    fn mount(folder: &'a Path, megabytes: u32) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let this = Self(folder);
        if this.command(&["mount", "-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]) {
            return Some(this);
        }
        std::mem::forget(this);
        skipped("only root may mount a file system");
        None
    }

    fn resize(&self, megabytes: u32) {
        assert!(self.command(&["mount", "-o", &format!("remount,size={megabytes}m")]));
    }

    fn command(&self, words: &[&str]) -> bool {
        let ended = Command::new(words[0]).args(&words[1..]).arg(self.0).output();
        ended.is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        self.command(&["umount", "-l"]);
    }
}

#[test]
fn a_disk_that_fills_up_costs_the_checkpoints_that_do_not_fit() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let room = run.join("checkpoints");
    // Two of 14 MB fit beside each other, and then nothing fits before one of them is removed.
    let Some(disk) = SmallDisk::mount(&room, 36) else { return };
    let plan = ["train.total_steps=8", "train.save_every=2", "train.evaluate_every=8"];
    let failed = Train::new(SMOKE, &run).sets(&plan).under_mpirun(2).finish();
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert_eq!((failed.status(), failed.steps().len()), (Some(RunStatus::Failed), 8));
    let warnings = failed.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["cannot save checkpoint `", "No space left on device", "; training goes on"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
    assert_eq!(mentions(&failed.stderr, "error: cannot save checkpoint"), 1, "{}", failed.stderr);
    assert_eq!(checkpoints(&failed), ["step-00000002", "step-00000004"]);
    let verified = crate::cli::scrimp(&["checkpoint", "verify", run.to_str().unwrap()]);
    assert!(verified.status.success());
    disk.resize(100);
    let resumed = Train::again(&run).under_mpirun(2).succeed();
    assert_eq!(resumed.resumed_from(), Some(4));
    assert_eq!(checkpoints(&resumed), ["step-00000006", "step-00000008"]);
}

#[test]
fn a_log_that_cannot_be_written_is_a_warning() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    fs::create_dir_all(run.join("events")).unwrap();
    // The log is larger than a file may be, the 14 MB of a checkpoint are not.
    let log = fs::File::create(run.join("events/rank-0000.jsonl")).unwrap();
    log.write_all_at(b"\n", 20 << 20).unwrap();
    let train = Train::new(SMOKE, &run).set("train.total_steps=2");
    let ended = train.with_largest_file_kib(16 << 10).succeed();
    assert_eq!(mentions(&ended.stderr, "cannot write the run log"), 1, "{}", ended.stderr);
    assert_eq!(checkpoints(&ended), ["step-00000002"]);
}
