//! A run that is asked to stop saves, exits with 75 on every rank, and goes on as if it had not been.

use crate::faults::END_LIMIT;
use crate::resume::exported;
use crate::running::{Ended, Running, SMOKE, Train, signal};
use scrimp::runlog::{RunEvent, RunStatus};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Twenty short steps, each of them logged.
fn twenty_steps(run: &Path) -> Train {
    Train::new(SMOKE, run).sets(&[
        "train.total_steps=20",
        "train.save_every=20",
        "train.evaluate_every=20",
    ])
}

/// The last sentence of a run, which stopped in good order.
fn stopped(ended: &Ended) -> String {
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
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
        assert_eq!(stopped(&ended), format!("stopped by SIG{name}"));
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
    assert_eq!(stopped(&ended), "stopped by SIGINT");
    let said = "SIGINT: saves and stops after this step; again: stops at once";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let folder = TempDir::new().unwrap();
    // One step of this takes many seconds.
    let mut running =
        twenty_steps(folder.path()).sets(&["data.size=512", "train.batch_size=12"]).start();
    running.wait_for(|event| matches!(event, RunEvent::RunStarted(_)));
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
    assert!(ended.code.is_none_or(|code| ![0, 75].contains(&code)), "{:?}", ended.code);
    assert_eq!(ended.status(), None);
    assert_eq!(ranks.len(), 2);
}

#[test]
fn a_run_stops_before_its_time_is_over() {
    let folder = TempDir::new().unwrap();
    let limit = Duration::from_secs(25);
    let started = Instant::now();
    let train = twenty_steps(folder.path()).set("train.total_steps=100000");
    let ended = train.sets(&["train.log_every=50", "train.time_limit=25s"]).on_ranks(2).finish();
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    assert_eq!(stopped(&ended), "stopped before the time limit");
    let again = Train::again(folder.path()).set("train.time_limit=1s").finish();
    assert_eq!(again.code, Some(75), "{}", again.stderr);
    assert!(again.resumed_from().is_some());
}
