//! The last steps of a run done again: whether their numbers are the same, and what is refused.

use crate::cli::complaint;
use crate::running::{SMOKE, Train};
use scrimp::runlog::directory::RunDirectory;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Eight steps with checkpoints after 2, 4, 6 and 8, and a score after 4.
fn trained(folder: &Path, ranks: usize) -> PathBuf {
    let run = folder.join(format!("on-{ranks}"));
    let plan = [
        "train.total_steps=8",
        "train.save_every=2",
        "train.evaluate_every=4",
        "train.keep_checkpoints=4",
    ];
    Train::new(SMOKE, &run).sets(&plan).on_ranks(ranks).succeed();
    run
}

/// `scrimp resume RUN` with further words, on so many processes.
fn resume(run: &Path, words: &[&str], ranks: usize) -> Output {
    let program = env!("CARGO_BIN_EXE_scrimp");
    let mut command = if ranks == 1 { Command::new(program) } else { Command::new("mpirun") };
    if ranks > 1 {
        let ranks = ranks.to_string();
        command.args(["--oversubscribe", "--bind-to", "none", "-n", &ranks, program]);
    }
    let command = command
        .args(["resume", run.to_str().unwrap()])
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_mpi_yield_when_idle", "1");
    command.output().unwrap()
}

fn verdict(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", complaint(output)))
}

/// Every file below a folder, with what it holds.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

/// Changes the text of a file of a run; something must change.
fn edit(file: &Path, from: &str, to: &str) -> String {
    let before = fs::read_to_string(file).unwrap();
    let after = before.replace(from, to);
    assert_ne!(after, before, "`{from}` is not in `{}`", file.display());
    fs::write(file, after).unwrap();
    before
}

/// What was refused, with exit code 2, in one line.
fn refusal(output: &Output, folder: &Path) -> String {
    assert!(output.stdout.is_empty());
    assert_eq!(output.status.code(), Some(2), "{}", complaint(output));
    let said = complaint(output).replace(folder.to_str().unwrap(), "FOLDER");
    said.lines().find_map(|line| line.strip_prefix("error: ")).expect(&said).to_owned()
}

#[test]
fn steps_are_repeated_bit_for_bit_beside_a_run_that_lives_and_write_nothing() {
    let folder = TempDir::new().unwrap();
    let run = trained(folder.path(), 1);
    // As a run does that is alive.
    let claim = RunDirectory::new(&run).claim().unwrap();
    let before = files(&run);
    // From the checkpoint after step 2, over the evaluation after step 4.
    let output = resume(&run, &["--verify", "5", "--json"], 1);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let found = verdict(&output);
    assert_eq!(found["is_same"], true);
    assert_eq!((found["first_step"].as_u64(), found["last_step"].as_u64()), (Some(4), Some(8)));
    assert_eq!((found["logged_steps"].as_u64(), found["numbers"].as_u64()), (Some(5), Some(15)));
    assert_eq!(found["relative_tolerance"], 0.0);
    assert!(found["checkpoint"].as_str().unwrap().ends_with("step-00000002"), "{found}");
    assert!(before == files(&run), "something was written");
    drop(claim);
    // Another number of threads adds in another order, which is told beside what comes of it.
    edit(&run.join("config.toml"), "threads = 1", "threads = 2");
    let output = resume(&run, &["--verify", "1", "--json"], 1);
    let found = verdict(&output);
    let expected = i32::from(found["is_same"] != true);
    assert_eq!(output.status.code(), Some(expected), "{}", complaint(&output));
    let notes = found["notes"].as_array().unwrap();
    assert!(notes[0].as_str().unwrap().ends_with("`train.threads` was 1, is 2"), "{notes:?}");
    assert!(notes[1].as_str().unwrap().contains("is not the configuration with which the steps"));
    let within = resume(&run, &["--verify", "1", "--tolerance", "1e-3"], 1);
    let said = String::from_utf8(within.stdout.clone()).unwrap();
    assert_eq!(within.status.code(), Some(0), "{said}{}", complaint(&within));
    let expected =
        "the same: 3 numbers of 1 logged steps, 8 to 8, to 1e-3 of the larger one, from `";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn the_first_number_that_differs_is_named_and_what_cannot_be_compared_is_refused() {
    let folder = TempDir::new().unwrap();
    let run = trained(folder.path(), 1);
    let refused = |words: &[&str], ranks| refusal(&resume(&run, words, ranks), folder.path());
    assert_eq!(
        refused(&["--verify", "9"], 1),
        "`FOLDER/on-1` has logged 8 steps, expected at least the 9 of `--verify`"
    );
    let early = resume(&run, &["--verify", "7"], 1);
    assert_eq!(
        refusal(&early, folder.path()),
        "no checkpoint of `FOLDER/on-1` lies before step 2, the first of its last 7 logged steps"
    );
    let said = complaint(&early);
    assert!(said.contains("hint: use `--verify 6` at most"), "{said}");
    assert!(said.contains("train.keep_every"), "{said}");
    assert_eq!(
        refused(&["--verify", "2"], 2),
        "these steps of `FOLDER/on-1` were trained on 1 process, started on 2 processes"
    );
    let config = run.join("config.toml");
    // The seed of the images, and not that of the training.
    let whole = edit(&config, "seed = 1\n", "seed = 3\n");
    assert!(refused(&["--verify", "2"], 1).contains("learnt from data set `phantom` with digest"));
    fs::write(&config, whole).unwrap();
    let log = run.join("events/rank-0000.jsonl");
    let version = format!("\"code_version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    let whole = edit(&log, &version, "\"code_version\":\"0.0.1\"");
    assert!(
        refused(&["--verify", "2"], 1).starts_with("`FOLDER/on-1` was trained by scrimp 0.0.1")
    );
    fs::write(&log, whole).unwrap();
    // A digit of the gradient of step 7.
    let lines = fs::read_to_string(&log).unwrap();
    let line = lines.lines().find(|line| line.contains("\"event\":\"step\",\"step\":7,")).unwrap();
    let mut record: Value = serde_json::from_str(line).unwrap();
    let norm = record["grad_norm"]["segmenter"].as_f64().unwrap();
    record["grad_norm"]["segmenter"] = (norm * (1.0 + 1e-6)).into();
    edit(&log, line, &record.to_string());
    let output = resume(&run, &["--verify", "3", "--json"], 1);
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    let found = verdict(&output);
    assert_eq!((&found["is_same"], &found["differing_numbers"]), (&false.into(), &1.into()));
    let first = &found["first_difference"];
    assert_eq!((&first["step"], &first["key"]), (&7.into(), &"grad_norm.segmenter".into()));
    assert_eq!(first["repeated"].as_f64(), Some(norm));
    let said = resume(&run, &["--verify", "3"], 1);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.starts_with(
        "not the same: step 7 differs first, in `grad_norm.segmenter`: the log says "
    ));
    assert!(
        said.contains("1.0e-6 of the larger one apart\n1 of 9 numbers of 3 logged steps"),
        "{said}"
    );
    let within = resume(&run, &["--verify", "3", "--tolerance", "1e-5"], 1);
    assert_eq!(within.status.code(), Some(0), "{}", complaint(&within));
}

#[test]
fn steps_of_two_processes_are_repeated_on_two_and_within_a_tolerance_on_one() {
    let folder = TempDir::new().unwrap();
    let run = trained(folder.path(), 2);
    let output = resume(&run, &["--verify", "3", "--json"], 2);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    // One of them speaks.
    assert_eq!(verdict(&output)["ranks"], 2);
    let alone = resume(&run, &["--verify", "3", "--tolerance", "1e-3", "--json"], 1);
    assert_eq!(alone.status.code(), Some(0), "{}", complaint(&alone));
    let log = run.join("events/rank-0000.jsonl");
    edit(&log, "\"lr\":{\"segmenter\":", "\"lr\":{\"segmenter\":1");
    let output = resume(&run, &["--verify", "3", "--json"], 2);
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    assert_eq!(verdict(&output)["first_difference"]["key"], "lr.segmenter");
}
