//! A rank that no longer gets on is named, and all ranks end, with exit code 76.

use crate::faults::mentions;
use crate::running::{SMOKE, Train, signal};
use scrimp::runlog::RunEvent;
use scrimp::runlog::flight::FlightReport;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Within this time after a rank stands still, everything has ended, also where a median step of a
/// busy machine takes a second.
const END_LIMIT: Duration = Duration::from_mins(1);

fn endless(run: &Path) -> Train {
    Train::new(SMOKE, run).sets(&[
        "train.total_steps=100000",
        "train.save_every=100000",
        "train.evaluate_every=100000",
        "train.hang_limit=4s",
    ])
}

#[test]
fn a_rank_that_stands_still_is_named_and_all_end() {
    let folder = TempDir::new().unwrap();
    for victim in [0, 1] {
        let run = folder.path().join(format!("without-{victim}"));
        let mut running = endless(&run).under_mpirun(2).start();
        running.wait_for(|event| matches!(event, RunEvent::Step(step) if step.step == 5));
        let ranks = running.rank_pids();
        // The other rank may be about to write its first one.
        let pids = [0, 1].map(|rank| running.wait_for_report(rank).pid);
        assert!(ranks.len() == 2 && ranks.iter().all(|pid| pids.contains(pid)));
        let stopped = Instant::now();
        signal("STOP", &[pids[victim]]);
        let ended = running.end_of(&ranks);
        assert!(stopped.elapsed() < END_LIMIT, "{:?}", stopped.elapsed());
        assert_eq!(ended.code, Some(76), "{}", ended.stderr);
        assert_eq!(mentions(&ended.stderr, "error: "), 1, "{}", ended.stderr);
        let named = format!("error: rank {victim} stopped answering while ");
        assert_eq!(mentions(&ended.stderr, &named), 1, "{}", ended.stderr);
        let other = FlightReport::read(&ended.run, 1 - victim).unwrap();
        assert!(other.open_call().is_some(), "{other:?}");
    }
}

#[test]
fn a_job_that_was_suspended_as_a_whole_goes_on() {
    let folder = TempDir::new().unwrap();
    let mut running = endless(folder.path()).under_mpirun(2).start();
    running.wait_for(|event| matches!(event, RunEvent::Step(step) if step.step == 5));
    let ranks = running.rank_pids();
    signal("STOP", &ranks);
    // The suspension itself, longer than the limit.
    std::thread::sleep(Duration::from_secs(8));
    signal("CONT", &ranks);
    let suspended_at = *running.steps().last_key_value().unwrap().0;
    running.wait_for(|event| matches!(event, RunEvent::Step(step) if step.step > suspended_at + 5));
    running.run.request_stop().unwrap();
    assert_eq!(running.end().code, Some(77));
}

#[test]
fn a_step_that_takes_long_and_gets_on_is_no_hang() {
    let folder = TempDir::new().unwrap();
    // The fifth step begins with predictions of hundreds of slices, the others take moments.
    let train = Train::new("configs/smoke/scribble2label.toml", folder.path()).sets(&[
        "data.phantom.cases=70",
        "data.phantom.slices=8",
        "method.params.period=4",
        "train.total_steps=5",
        "train.evaluate_every=5",
        "train.hang_limit=1s",
    ]);
    assert_eq!(train.succeed().steps().len(), 5);
}
