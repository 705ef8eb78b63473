//! `scrimp launch` passes requests on, starts again after failures, and returns the run's exit code.

use crate::cli::{complaint, scrimp};
use crate::faults::mentions;
use crate::resume::exported;
use crate::running::{SMOKE, Train, signal};
use scrimp::runlog::{RunEvent, RunStatus};
use std::path::Path;
use tempfile::TempDir;

fn thirty_steps(run: &Path) -> Train {
    Train::new(SMOKE, run).sets(&[
        "train.total_steps=30",
        "train.save_every=5",
        "train.evaluate_every=30",
    ])
}

#[test]
fn a_lost_rank_is_followed_by_a_restart_and_the_same_weights() {
    let folder = TempDir::new().unwrap();
    let [whole, lost] = ["whole", "lost"].map(|name| folder.path().join(name));
    thirty_steps(&whole).on_ranks(2).succeed();
    let mut running = thirty_steps(&lost).launched(2, &["--restarts", "2"]).start();
    running.wait_for_checkpoint(5);
    let root = running.run.writer().expect("the run is alive").pid;
    signal("KILL", &[root]);
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(mentions(&ended.stderr, "mpirun -n 2 --bind-to none"), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("the run ended with 137; starts again from step "));
    assert!(ended.resumed_from().is_some_and(|step| step >= 5));
    assert!(exported(&lost) == exported(&whole), "other weights");
}

#[test]
fn a_request_to_end_becomes_one_to_stop() {
    let folder = TempDir::new().unwrap();
    let mut running =
        thirty_steps(folder.path()).set("train.total_steps=100000").launched(2, &[]).start();
    running.wait_for(|event| matches!(event, RunEvent::Step(_)));
    signal("TERM", &[running.pid()]);
    let ended = running.end();
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
    assert_eq!(ended.status(), Some(RunStatus::Stopped));
    assert!(ended.stderr.contains("SIGTERM: asks all ranks to save and stop"));
    let resumed = Train::again(folder.path()).set("train.total_steps=5").finish();
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
}

#[test]
fn whoever_insists_gets_an_end_at_once() {
    let folder = TempDir::new().unwrap();
    let mut running = thirty_steps(folder.path())
        .sets(&["data.size=512", "train.batch_size=12"])
        .launched(2, &["--restarts", "5"])
        .start();
    running.wait_for(|event| matches!(event, RunEvent::RunStarted(_)));
    let ended = running.insist("TERM");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(mentions(&ended.stderr, "SIGTERM again: ends all ranks at once"), 1);
    assert_eq!(ended.status(), None);
}

#[test]
fn a_run_that_fails_without_progress_is_given_up() {
    let folder = TempDir::new().unwrap();
    let launch = thirty_steps(folder.path()).set("method.params.learner.lr=1e30");
    let ended = launch.launched(2, &["--restarts", "5", "--min-ranks", "1"]).finish();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let reason = "the run ended with 1; no checkpoint was reached after that of the start";
    assert_eq!(mentions(&ended.stderr, reason), 1, "{}", ended.stderr);
    let starts = [2, 1].map(|n| mentions(&ended.stderr, &format!("mpirun -n {n} ")));
    assert_eq!(starts, [2, 1]);
}

#[test]
fn what_cannot_be_started_is_refused_before_mpirun() {
    let refused = |arguments: &[&str]| {
        let launch = ["launch", "configs/smoke/partial-ce.toml", "-n"];
        complaint(&scrimp(&[&launch[..], arguments].concat()))
    };
    insta::assert_snapshot!(refused(&["2", "--min-ranks", "3"]), @r"
    exit code 2
    error: `--min-ranks` is 3, expected 1 to 2, the number of ranks
    ");
    let too_many = refused(&["9"]);
    let expected = "exit code 2\nerror: world size 9 is larger than the batch of 4\n";
    assert!(too_many.starts_with(expected), "{too_many}");
}
