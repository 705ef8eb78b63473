//! `launch/gpu-report`: what it calls good is good, and what is not fails its stage.
//!
//! Logs are written by hand; runs that make them are started elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::{TempDir, tempdir};

/// Runs it with these arguments.
fn report(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("launch/gpu-report");
    Command::new("python3").arg(script).args(arguments).output().unwrap()
}

fn words(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap())
}

/// Writes the log of a run: a loss for each step, then further events.
fn run(folder: &TempDir, name: &str, losses: &[&str], events: &[&str]) -> PathBuf {
    let run = folder.path().join(name);
    std::fs::create_dir_all(run.join("events")).unwrap();
    let mut lines = vec![r#"{"event":"run_started","total_steps":60000}"#.to_owned()];
    for (step, loss) in losses.iter().enumerate() {
        let step = step + 1;
        lines.push(format!(
            r#"{{"event":"step","step":{step},"loss":{{"s/ce":{loss}}},"grad_norm":{{"s":1.0}},"step_ms":4.0}}"#
        ));
    }
    lines.extend(events.iter().map(|&event| event.to_owned()));
    std::fs::write(run.join("events/rank-0000.jsonl"), lines.join("\n") + "\n").unwrap();
    run
}

#[test]
fn numbers_are_equal_up_to_rounding_or_bad() {
    let folder = tempdir().unwrap();
    let warning = r#"{"event":"warning","message":"`train.graph`: steps cannot be recorded"}"#;
    run(&folder, "one", &["0.5", "0.25"], &[]);
    run(&folder, "rounded", &["0.5000000000001", "0.25"], &[]);
    run(&folder, "apart", &["0.5", "0.2500001"], &[]);
    run(&folder, "short", &["0.5"], &[]);
    run(&folder, "none", &["0.5", "null"], &[]);
    run(&folder, "warned", &["0.5", "0.25"], &[warning]);
    run(&folder, "empty", &[], &[]);
    let compared = |pair: &str| words(&report(&["numbers", folder.path().to_str().unwrap(), pair]));
    for (pair, code) in [
        ("one=one", 0),
        ("one=rounded", 0),
        ("one=apart", 1),
        ("one=short", 1),
        ("one=none", 1),
        ("none=none", 1),
        ("one=warned", 1),
        ("empty=empty", 1),
        ("one=missing", 1),
    ] {
        let (found, text) = compared(pair);
        assert_eq!(found, Some(code), "{pair}: {text}");
        assert_eq!(text.contains("BAD"), code != 0, "{pair}: {text}");
    }
}

#[test]
fn a_training_is_told_by_its_speed_its_losses_and_its_last_score() {
    let folder = tempdir().unwrap();
    let score = r#"{"event":"evaluated","step":3,"mean_dice":0.75,"best_mean_dice":0.8}"#;
    let good = run(&folder, "good", &["1.5", "0.5", "0.25"], &[score]);
    insta::assert_snapshot!(words(&report(&["training", good.to_str().unwrap()])).1, @r"
    3 of 60000 steps, 250 steps/s (4.00 ms a step)
    losses at step 1: s/ce 1.5
    losses at step 3: s/ce 0.25
    mean Dice after step 3: 0.7500 (best 0.8000)
    ");
    for losses in [&["1.5", "null"][..], &[]] {
        let bad = run(&folder, "bad", losses, &[]);
        assert_eq!(words(&report(&["training", bad.to_str().unwrap()])).0, Some(1));
    }
}

#[test]
fn a_table_has_medians_and_ratios_and_a_row_for_what_failed() {
    let folder = tempdir().unwrap();
    let [rows, machine] = ["rows", "machine"].map(|name| folder.path().join(name));
    std::fs::write(&machine, "A card.\n").unwrap();
    let ours = "a step of `m`, 12 slices of 8 x 8 on 1 ranks: 2.00 ms, 6000.0 images/s, 0.1 ms of it waiting \
                for data; median of 10 times 5 steps, replayed, with own kernels";
    let theirs =
        r#"{"form": "bf16", "loss": 1.0, "step_ms": [9.0, 4.0, 3.0], "memory_bytes": 2000000000}"#;
    let failed = r#"{"form": "max-autotune", "error": "TimeoutError: longer than --limit"}"#;
    let told = |lines: &[(&str, &str)]| {
        let lines = lines.iter().map(|(name, printed)| format!("m\t{name}\t{printed}\n"));
        std::fs::write(&rows, lines.collect::<String>()).unwrap();
        words(&report(&["table", rows.to_str().unwrap(), machine.to_str().unwrap()]))
    };
    let good = [("scrimp, bf16, replayed", ours), ("PyTorch", theirs)];
    let (code, text) = told(&good);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(text, @r"
    A card.

    `m`:

    | | time of a step, ms | images/s | ratio | |
    |---|---|---|---|---|
    | scrimp, bf16, replayed | 2.00 | 6000 | 1.00 | replayed, with own kernels |
    | PyTorch, bf16, channels last | 4.00 | 3000 | 0.50 | at most 2.00 GB in tensors |
    ");
    // PyTorch's compiler is its own affair.
    let (code, text) = told(&[&good[..], &[("PyTorch", failed)]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("(`max-autotune-no-cudagraphs`) | failed |"), "{text}");
    let (code, text) = told(&[("scrimp, fp32", "error: no GPU")]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("| scrimp, fp32 | failed | | | error: no GPU |"), "{text}");
    assert_eq!(told(&[]).0, Some(1));
    for spoilt in
        ["not replayed (they differ), with", "47 of 50 replayed, with", "replayed, without"]
    {
        let row = ours.replace("replayed, with", spoilt);
        assert_eq!(told(&[("scrimp, bf16, replayed", &row)]).0, Some(1), "{spoilt}");
    }
}
