//! A run directory has one owner, which keeps it while it is suspended, and which ends when it loses it.

use crate::running::{SMOKE, Train, signal};
use crate::skips::skipped;
use scrimp::runlog::RunEvent;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn endless(run: &Path) -> Train {
    Train::new(SMOKE, run).sets(&[
        "train.total_steps=100000",
        "train.save_every=100000",
        "train.evaluate_every=100000",
    ])
}

/// The exit code and the complaint of a second start.
fn second_start(run: &Path) -> (Option<i32>, String) {
    let ended = endless(run).finish();
    (ended.code, ended.stderr)
}

/// The same in a container's numbering of processes; none where this user may not make one.
fn second_start_in_a_container(run: &Path) -> Option<(Option<i32>, String)> {
    let unshare = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", program]);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    };
    if !unshare("true").status().is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = unshare(env!("CARGO_BIN_EXE_scrimp"));
    let output = command.args(["train", SMOKE, "--run", run.to_str().unwrap()]).output().unwrap();
    Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn an_owner_that_is_suspended_keeps_its_directory_and_one_that_loses_it_ends() {
    let folder = TempDir::new().unwrap();
    let (run, moved) = (folder.path().join("run"), folder.path().join("moved"));
    let mut running = endless(&run).start();
    running.wait_for(|event| matches!(event, RunEvent::Step(step) if step.step == 3));
    let own = running.run.writer().expect("it is alive");
    signal("STOP", &[own.pid]);
    let named = format!("belongs to a run that is alive on `{}`, process {}", own.host, own.pid);
    let (code, said) = second_start(&run);
    assert!(code == Some(1) && said.contains(&named), "{code:?}: {said}");
    match second_start_in_a_container(&run) {
        Some((code, said)) => {
            assert!(code == Some(1) && said.contains(&named), "{code:?}: {said}");
        }
        None => skipped("a second start in a container, as `unshare` is not permitted"),
    }
    fs::remove_dir_all(running.run.control()).unwrap();
    let (code, said) = second_start(&run);
    assert!(code == Some(1) && said.contains("belongs to another process"), "{code:?}: {said}");
    let suspended_at = *running.steps().last_key_value().unwrap().0;
    signal("CONT", &[own.pid]);
    let sign = running.run.alive();
    running.wait_for_file(&sign);
    assert_eq!(running.run.writer(), Some(own));
    running.wait_for(|event| matches!(event, RunEvent::Step(step) if step.step > suspended_at));
    fs::rename(&run, &moved).unwrap();
    let ended = running.end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let said = "error: `RUN` was removed or renamed while the run was writing it";
    let stderr = ended.stderr.replace(run.to_str().unwrap(), "RUN");
    assert!(stderr.contains(said), "{stderr}");
    assert!(!run.exists(), "it came back");
}
