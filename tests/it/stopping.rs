//! A run that is asked to stop saves, says on every rank by its exit code whether that was wanted, and goes on as
//! if it had not been.

use crate::faults::END_LIMIT;
use crate::resume::exported;
use crate::running::{Ended, Running, SMOKE, Train, signal};
use scrimp::runlog::{RunEvent, RunStatus};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Within this time after `SIGTERM` a command has ended that has nothing to save, on a busy machine too: on
/// an idle one it takes no second, and `mpirun` one more.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Within this time after the end of `mpirun` its ranks have ended. Open MPI alone takes three seconds.
const ORPHANED: Duration = Duration::from_secs(2);

/// Twenty short steps, each of them logged.
fn twenty_steps(run: &Path) -> Train {
    Train::new(SMOKE, run).sets(&[
        "train.total_steps=20",
        "train.save_every=20",
        "train.evaluate_every=20",
    ])
}

/// The exit code that says that the signal of this name has stopped a run.
fn code_of(name: &str) -> i32 {
    if name.starts_with("USR") { 75 } else { 77 }
}

/// The last sentence of a run, which stopped in good order with this exit code.
fn stopped(ended: &Ended, code: i32) -> String {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    match ended.events().pop() {
        Some(RunEvent::RunEnded { status: RunStatus::Stopped, message, .. }) => message,
        last => panic!("{last:?}"),
    }
}

fn first_step(running: &mut Running) {
    running.wait_for(|event| matches!(event, RunEvent::Step(_)));
}

#[test]
fn signals_stop_a_run_which_then_ends_as_if_it_had_not_been_stopped() {
    type Receivers = fn(&Running) -> Vec<u32>;
    let folder = TempDir::new().unwrap();
    let whole = folder.path().join("whole");
    twenty_steps(&whole).on_ranks(2).succeed();
    let to_mpirun = |running: &Running| vec![running.pid()];
    let to_ranks = |running: &Running| running.rank_pids();
    let ways: [(&str, Receivers); 4] =
        [("USR1", to_mpirun), ("USR2", to_mpirun), ("TERM", to_ranks), ("INT", to_ranks)];
    for (name, receivers) in ways {
        let run = folder.path().join(name);
        let mut running = twenty_steps(&run).on_ranks(2).start();
        first_step(&mut running);
        signal(name, &receivers(&running));
        let ended = running.end();
        assert_eq!(stopped(&ended, code_of(name)), format!("stopped by SIG{name}"));
        let at = *ended.steps().last_key_value().unwrap().0;
        assert!(at < 20, "the signal came too late to be seen");
        if ["USR1", "TERM"].contains(&name) {
            let resumed = Train::again(&run).on_ranks(2).succeed();
            assert_eq!(resumed.resumed_from(), Some(at));
            assert!(exported(&run) == exported(&whole), "other weights after SIG{name}");
        }
    }
}

#[test]
fn ctrl_c_stops_a_run_of_one_process() {
    let folder = TempDir::new().unwrap();
    let mut running = twenty_steps(folder.path()).start();
    first_step(&mut running);
    signal("INT", &[running.pid()]);
    let ended = running.end();
    assert_eq!(stopped(&ended, 77), "stopped by SIGINT");
    let said = "SIGINT: saves and stops after this step; again: stops at once";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let folder = TempDir::new().unwrap();
    // One step of this takes many seconds.
    let mut running =
        twenty_steps(folder.path()).sets(&["data.size=512", "train.batch_size=12"]).start();
    running.wait_until_in_step();
    let ended = running.insist("INT");
    assert_eq!(ended.code, None, "{}", ended.stderr);
    assert!(ended.steps().is_empty(), "it had finished its step");
    let resumed = Train::again(folder.path()).sets(&["data.size=32", "train.batch_size=4"]);
    resumed.set("train.total_steps=2").succeed();
}

#[test]
fn mpirun_clearing_away_is_no_stop_in_good_order() {
    let folder = TempDir::new().unwrap();
    let mut running =
        twenty_steps(folder.path()).set("train.total_steps=100000").on_ranks(2).start();
    first_step(&mut running);
    let ranks = running.rank_pids();
    let asked = Instant::now();
    signal("TERM", &[running.pid()]);
    let ended = running.end_of(&ranks);
    assert!(asked.elapsed() < END_LIMIT, "{:?}", asked.elapsed());
    assert!(ended.code.is_none_or(|code| ![0, 75, 77].contains(&code)), "{:?}", ended.code);
    assert_eq!(ended.status(), None);
    assert_eq!(ranks.len(), 2);
}

#[test]
fn ranks_end_with_mpirun() {
    let folder = TempDir::new().unwrap();
    let mut running =
        twenty_steps(folder.path()).set("train.total_steps=100000").on_ranks(2).start();
    first_step(&mut running);
    let ranks = running.rank_pids();
    let killed = Instant::now();
    signal("KILL", &[running.pid()]);
    running.end_of(&ranks);
    assert!(killed.elapsed() < ORPHANED, "{:?}", killed.elapsed());
    assert_eq!(ranks.len(), 2);
}

/// Data that take minutes to make.
const MUCH_DATA: [&str; 2] = ["data.phantom.cases=500", "data.phantom.size=512"];

#[test]
fn a_run_that_has_not_begun_has_nothing_to_save() {
    let folder = TempDir::new().unwrap();
    for (ranks, name) in [(1, "TERM"), (2, "USR1")] {
        let run = folder.path().join(name);
        let mut running = twenty_steps(&run).sets(&MUCH_DATA).on_ranks(ranks).start();
        running.wait_for_file(&running.run.alive());
        let asked = Instant::now();
        signal(name, &[running.pid()]);
        let ended = running.end();
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        assert_eq!(ended.code, Some(code_of(name)), "{}", ended.stderr);
        let said = format!("SIG{name}: ends before the first step");
        assert!(ended.stderr.contains(&said), "{}", ended.stderr);
        let again = Train::again(&run).argument(SMOKE).set("train.total_steps=1").finish();
        assert_eq!(again.code, Some(0), "{}", again.stderr);
    }
}

/// A command at work: it has computed for a while.
fn at_work(arguments: &[&str], folder: &Path) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_scrimp"))
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ticks = |pid: u32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split_whitespace();
        fields.nth(11).map_or(0, |ticks| ticks.parse().unwrap())
    };
    while ticks(child.id()) < 20 {
        assert!(child.try_wait().unwrap().is_none(), "{arguments:?} ended before");
        std::thread::yield_now();
    }
    child
}

#[test]
fn every_command_ends_at_once_when_it_is_asked_to() {
    let folder = TempDir::new().unwrap();
    let config = format!("{}/{SMOKE}", env!("CARGO_MANIFEST_DIR"));
    let cases: [&[&str]; 4] = [
        &["prepare", "phantom", "--cases", "500", "--size", "512", "--to", "new.h5"],
        &["bench", "step", &config, "--set", "data.size=512", "--set", "train.device=cpu"],
        &[
            "bench",
            "data",
            &config,
            "--set",
            MUCH_DATA[0],
            "--set",
            MUCH_DATA[1],
            "--set",
            "train.device=cpu",
        ],
        &["bench", "checkpoint", &config, "--set", "train.device=cpu"],
    ];
    for arguments in cases {
        let mut child = at_work(arguments, folder.path());
        let asked = Instant::now();
        signal("TERM", &[child.id()]);
        let status = child.wait().unwrap();
        assert!(asked.elapsed() < AT_ONCE, "{arguments:?}: {:?}", asked.elapsed());
        assert!(!status.success(), "{arguments:?}");
    }
    assert!(!folder.path().join("new.h5").exists());
    assert!(!folder.path().join("bench-checkpoint").exists());
}

#[test]
fn the_end_of_a_job_that_is_over_is_named_and_ignored() {
    let folder = TempDir::new().unwrap();
    let train = twenty_steps(folder.path()).set("train.total_steps=3");
    let ended = train.variable("SLURM_JOB_END_TIME", "1700000000").succeed();
    assert_eq!(ended.steps().len(), 3);
    let warnings = ended.warnings();
    let named = "`SLURM_JOB_END_TIME` says that the job ended ";
    assert!(warnings.len() == 1 && warnings[0].starts_with(named), "{warnings:?}");
}

#[test]
fn a_run_stops_before_its_time_is_over() {
    let folder = TempDir::new().unwrap();
    let limit = Duration::from_secs(25);
    let started = Instant::now();
    let train = twenty_steps(folder.path()).set("train.total_steps=100000");
    let ended = train.sets(&["train.log_every=50", "train.time_limit=25s"]).on_ranks(2).finish();
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    assert_eq!(stopped(&ended, 75), "stopped before the time limit (`train.time_limit`)");
    let again = Train::again(folder.path()).set("train.time_limit=1s").finish();
    assert_eq!(again.code, Some(75), "{}", again.stderr);
    assert!(again.resumed_from().is_some());
}
