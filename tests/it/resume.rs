//! A run that was interrupted ends as if it had not been.
//!
//! Interrupted means killed, stopped on request, or left with a checkpoint that is damaged.

use crate::cli::{complaint, scrimp};
use crate::running::{SMOKE, Train};
use scrimp::runlog::{RunEvent, RunStatus};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Twelve steps, long enough to be interrupted between the checkpoints after 6 and 12.
fn twelve_steps(run: &Path) -> Train {
    Train::new(SMOKE, run).sets(&[
        "train.total_steps=12",
        "train.save_every=6",
        "train.evaluate_every=12",
        "train.batch_size=12",
    ])
}

/// The bytes of the exported weights.
pub(crate) fn exported(run: &Path) -> Vec<u8> {
    let file = run.with_extension("safetensors");
    let [from, to] = [run, &file].map(|path| path.to_str().unwrap());
    let output = scrimp(&["checkpoint", "export", from, "--to", to]);
    assert!(output.status.success(), "{}", complaint(&output));
    fs::read(file).unwrap()
}

#[test]
fn a_killed_run_ends_with_the_weights_of_one_that_was_not() {
    let folder = TempDir::new().unwrap();
    for ranks in [1, 2] {
        let [whole, killed] =
            ["whole", "killed"].map(|name| folder.path().join(format!("{name}-on-{ranks}")));
        twelve_steps(&whole).on_ranks(ranks).succeed();
        let mut first = twelve_steps(&killed).on_ranks(ranks).start();
        first.wait_for_checkpoint(6);
        let first = first.kill();
        assert_eq!(first.code, None, "it ended before it could be killed: {}", first.stderr);
        let second = Train::again(&killed).on_ranks(ranks).succeed();
        assert_eq!(second.resumed_from(), Some(6));
        assert!(exported(&killed) == exported(&whole), "other weights on {ranks} ranks");
    }
}

#[test]
fn a_finished_run_says_so() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    Train::new(SMOKE, &run).set("train.total_steps=2").succeed();
    for ranks in [1, 2] {
        let again = Train::again(&run).on_ranks(ranks).succeed();
        let said = again.complaint().replace(folder.path().to_str().unwrap(), "FOLDER");
        assert_eq!(said, "exit code 0\n`FOLDER/run` is finished: all steps are done");
        assert_eq!(again.status(), Some(RunStatus::Finished));
    }
}

#[test]
fn a_fresh_start_wants_an_empty_directory() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    let never = || Train::new(SMOKE, &run).set("train.total_steps=1").argument("--resume=never");
    never().succeed();
    let refused = never().finish().complaint().replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(refused, @r"
    exit code 2
    error: `FOLDER/run` is not empty, and `--resume never` starts afresh

    hint: choose another `--run DIR`, or remove it with `rm -r FOLDER/run`
    ");
}

#[test]
fn a_stop_on_request_can_be_continued() {
    let folder = TempDir::new().unwrap();
    for ranks in [1, 2] {
        let run = folder.path().join(format!("on-{ranks}"));
        let mut running = twelve_steps(&run).on_ranks(ranks).start();
        running.wait_for(|event| matches!(event, RunEvent::Step(_)));
        running.run.request_stop().unwrap();
        let stopped = running.end();
        assert_eq!(stopped.code, Some(75), "{}", stopped.stderr);
        assert_eq!(stopped.status(), Some(RunStatus::Stopped));
        let last = *stopped.steps().last_key_value().unwrap().0;
        let resumed = Train::again(&run).on_ranks(ranks).succeed();
        assert_eq!(resumed.resumed_from(), Some(last));
        assert_eq!(resumed.steps().len(), 12);
    }
}

/// A finished run of 4 steps whose newest checkpoint is damaged, and how it goes on.
fn goes_on_after(damage: impl Fn(&Path)) {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let plan = ["train.total_steps=4", "train.save_every=2", "train.evaluate_every=4"];
    Train::new(SMOKE, &run).sets(&plan).succeed();
    let weights = exported(&run);
    let newest = run.join("checkpoints/step-00000004");
    damage(&newest);
    let resumed = Train::again(&run).under_mpirun(2).succeed();
    assert_eq!(resumed.resumed_from(), Some(2));
    let name = newest.to_str().unwrap();
    let warnings = resumed.stderr.lines().filter(|line| line.contains(name)).count();
    assert_eq!(warnings, 1, "{}", resumed.stderr);
    let is_warning = |event: &RunEvent| matches!(event, RunEvent::Warning { .. });
    assert_eq!(resumed.events().into_iter().filter(is_warning).count(), 1);
    assert!(exported(&run).len() == weights.len());
}

fn shard(checkpoint: &Path) -> PathBuf {
    checkpoint.join("shard-0000-of-0001.safetensors")
}

#[test]
fn a_checkpoint_that_was_cut_short_is_passed_over() {
    goes_on_after(|checkpoint| {
        let bytes = fs::read(shard(checkpoint)).unwrap();
        fs::write(shard(checkpoint), &bytes[..bytes.len() - 1]).unwrap();
    });
}

#[test]
fn a_checkpoint_with_one_wrong_byte_is_passed_over() {
    goes_on_after(|checkpoint| {
        let mut bytes = fs::read(shard(checkpoint)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(shard(checkpoint), bytes).unwrap();
    });
}

#[test]
fn a_checkpoint_without_manifest_is_passed_over() {
    goes_on_after(|checkpoint| fs::remove_file(checkpoint.join("manifest.json")).unwrap());
}
