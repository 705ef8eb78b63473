//! `scrimp bench`, as somebody runs it before anything else.

use crate::cli::{complaint, scrimp};
use crate::running::SMOKE;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::tempdir;

/// Runs `scrimp bench` on two ranks in `folder`, which has to succeed.
fn on_two_ranks(folder: &Path, arguments: &[&str]) -> Output {
    let output = mpirun(folder, arguments);
    assert!(output.status.success(), "{}", complaint(&output));
    output
}

/// The same, however it ends.
fn mpirun(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("mpirun")
        .args(["--oversubscribe", "-n", "2", env!("CARGO_BIN_EXE_scrimp"), "bench"])
        .args(arguments)
        .current_dir(folder)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .output()
        .unwrap()
}

#[test]
fn sums_want_somebody_to_sum_with() {
    insta::assert_snapshot!(complaint(&scrimp(&["bench", "comm", "--quick"])), @r"
    exit code 2
    error: sums over ranks need at least 2 ranks, started on 1

    hint: run `mpirun -n 2 scrimp bench comm`
    ");
}

#[test]
fn sums_are_timed_from_short_to_long_and_told_once() {
    let output = on_two_ranks(Path::new("/"), &["comm", "--quick"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(2)
        .map(|line| line.split_whitespace().map(|number| number.parse().unwrap()).collect())
        .collect();
    let sizes: Vec<f64> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(sizes, [1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0]);
    for row in rows {
        let bus = row[0] / (row[1] * 1e-6) / 1e9;
        assert!(row[1] > 0.0 && (row[2] - bus).abs() <= 0.006 + 0.1 * bus, "{row:?}");
    }
}

#[test]
fn steps_and_batches_are_timed_without_a_run() {
    let folder = tempdir().unwrap();
    let config = format!("{}/{SMOKE}", env!("CARGO_MANIFEST_DIR"));
    // 24 slices, so that every fifth batch would be one of 4.
    let sets = ["train.threads=1", "train.device=cpu", "train.batch_size=5", "train.graph=true"];
    let sets = sets.map(|set| format!("--set={set}"));
    for (what, expected) in [("step", "a step of `partial-ce`, 5 slices"), ("data", "a batch of 5")]
    {
        let settings = [&["--quick"][..], &sets.each_ref().map(String::as_str)].concat();
        let output =
            on_two_ranks(folder.path(), &[&[what, config.as_str()], &settings[..]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let [machine, line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(machine.starts_with("2 ranks, 1 threads each, on Cpu: a rank copies"), "{text}");
        assert!(line.starts_with(expected) && line.contains("on 2 ranks"), "{text}");
        assert_eq!(line.ends_with(", replayed"), what == "step", "{text}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn checkpoints_are_timed_beside_plain_files_and_leave_nothing() {
    let folder = tempdir().unwrap();
    let config = format!("{}/{SMOKE}", env!("CARGO_MANIFEST_DIR"));
    let arguments = ["checkpoint", &config, "--quick", "--set", "train.device=cpu"];
    let output = on_two_ranks(folder.path(), &arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let [saves, plain] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    // Weights and momentum of 1 813 764 parameters in single precision, and some words about them.
    assert!(saves.starts_with("a checkpoint of `partial-ce`, 14.5 MB from 2 ranks"), "{text}");
    assert!(plain.starts_with("as many bytes in plain files"), "{text}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    std::fs::create_dir(folder.path().join("bench-checkpoint")).unwrap();
    let to = folder.path().to_str().unwrap();
    let refused = scrimp(&["bench", "checkpoint", &config, "--quick", "--to", to]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(complaint(&refused).contains("cannot make the folder"), "{}", complaint(&refused));
    assert!(folder.path().join("bench-checkpoint").is_dir());
}

#[test]
fn a_model_wants_two_ranks_to_measure_and_equal_shares() {
    let config = format!("{}/{SMOKE}", env!("CARGO_MANIFEST_DIR"));
    insta::assert_snapshot!(complaint(&scrimp(&["bench", "scale", &config, "--quick"])), @r"
    exit code 2
    error: what sums cost is measured between at least 2 ranks, started on 1

    hint: run `mpirun -n 2 scrimp bench scale CONFIG`
    ");
    let settings = ["--set", "train.device=cpu", "--set", "train.batch_size=5"];
    let refused = mpirun(Path::new("/"), &[&["scale", config.as_str()], &settings[..]].concat());
    // What each rank returns; `mpirun` ends with one of them.
    assert_eq!(refused.status.code(), Some(2), "{}", complaint(&refused));
    let complaint = complaint(&refused);
    assert!(
        complaint.contains("5 slices are not the same number on each of 2 ranks"),
        "{complaint}"
    );
    assert!(complaint.contains("train.batch_size=6"), "{complaint}");
}

#[test]
fn a_model_of_many_ranks_says_that_it_is_one_and_what_it_assumes() {
    let folder = tempdir().unwrap();
    let config = format!("{}/{SMOKE}", env!("CARGO_MANIFEST_DIR"));
    let settings = ["--quick", "--set", "train.threads=1", "--set", "train.device=cpu"];
    let output =
        on_two_ranks(folder.path(), &[&["scale", config.as_str()], &settings[..]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "a model, not a measurement: a step of `partial-ce` on up to 1024 processes, \
                    2 slices of 32 x 32 on each";
    assert_eq!(text.lines().next(), Some(expected), "{text}");
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(2)
        .take_while(|line| line.ends_with('%'))
        .map(|line| line.trim_end_matches('%').split_whitespace().map(|n| n.parse().unwrap()))
        .map(Iterator::collect)
        .collect();
    let ranks: Vec<f64> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(ranks, [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0], "{text}");
    for row in &rows {
        let [ranks, slices, ms, images, efficiency] = row[..] else { panic!("{text}") };
        assert!((slices - 2.0 * ranks).abs() < 1e-9 && ms >= rows[0][2], "{text}");
        // Printed with one decimal, of which few are left on a slow machine.
        let expected = 1e3 * slices / ms;
        assert!((images - expected).abs() < 0.06 + 0.01 * expected, "{text}");
        let expected = 100.0 * rows[0][2] / ms;
        assert!((efficiency - expected).abs() < 0.06 + 0.01 * expected, "{text}");
    }
    // Weights of 1 813 764 parameters in single precision, some of whose parts are filled up.
    let sums = text.lines().find(|line| line.starts_with("- sums of a step: ")).unwrap();
    assert!(sums.contains("of gradients beside backward, 7.2"), "{text}");
    for words in ["made of what 2 processes measured here:", "assumed:", "- weak scaling:"] {
        assert!(text.lines().any(|line| line.starts_with(words)), "{text}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
