//! A run that was interrupted ends as if it had not been.
//!
//! Interrupted means killed, stopped on request, or left with a checkpoint that is damaged.

use crate::cli::{complaint, scrimp};
use crate::running::{SMOKE, Train};
use scrimp::preparation::{Intensities, Preparation};
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::{RunEvent, RunStatus};
use scrimp::train::checkpoint::read_manifest;
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
fn a_killed_run_on_patches_goes_on_with_the_patches_that_it_would_have_had() {
    for config in ["configs/smoke/partial-ce-3d.toml", "configs/smoke/dmsps-3d.toml"] {
        let folder = TempDir::new().unwrap();
        let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
        let train = |run: &Path| {
            let saves = ["train.save_every=2", "train.evaluate_every=6"];
            Train::new(config, run).sets(&saves)
        };
        train(&whole).succeed();
        let mut first = train(&parts).start();
        first.wait_for_checkpoint(2);
        let first = first.kill();
        assert_eq!(first.code, None, "it ended before it could be killed: {}", first.stderr);
        let second = Train::again(&parts).succeed();
        assert!(matches!(second.resumed_from(), Some(2 | 4)), "{:?}", second.resumed_from());
        assert!(exported(&parts) == exported(&whole), "{config}");
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
        assert_eq!(stopped.code, Some(77), "{}", stopped.stderr);
        assert_eq!(stopped.status(), Some(RunStatus::Stopped));
        let last = *stopped.steps().last_key_value().unwrap().0;
        let resumed = Train::again(&run).on_ranks(ranks).succeed();
        assert_eq!(resumed.resumed_from(), Some(last));
        assert_eq!(resumed.steps().len(), 12);
    }
}

/// A finished run of 4 steps on 2 ranks whose newest checkpoint is damaged: what says so, and how it
/// goes on. What others keep in its folder stays.
fn goes_on_after(damage: impl Fn(&Path)) {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let plan = ["train.total_steps=4", "train.save_every=2", "train.evaluate_every=4"];
    Train::new(SMOKE, &run).sets(&plan).under_mpirun(2).succeed();
    assert_eq!(verified(&run).status.code(), Some(0));
    let weights = exported(&run);
    let newest = run.join("checkpoints/step-00000004");
    damage(&newest);
    let found = verified(&run);
    assert_eq!(found.status.code(), Some(1));
    let verdicts = String::from_utf8(found.stdout).unwrap();
    let sound: Vec<bool> = verdicts.lines().map(|line| line.ends_with("  sound")).collect();
    assert_eq!(sound, [true, false], "{verdicts}");
    let to = folder.path().join("none");
    for words in [["evaluate", "--to"].as_slice(), &["checkpoint", "export", "--to"]] {
        let run = [run.to_str().unwrap(), to.to_str().unwrap()];
        let (last, first) = words.split_last().unwrap();
        let refused = scrimp(&[first, &[run[0], last, run[1]]].concat());
        let said = complaint(&refused);
        assert!(
            said.starts_with("exit code 1\n") && said.contains(newest.to_str().unwrap()),
            "{said}"
        );
        assert!(!to.exists());
    }
    let checkpoints = run.join("checkpoints");
    fs::create_dir(checkpoints.join("mine.tmp")).unwrap();
    fs::write(checkpoints.join("notes.tmp"), "mine").unwrap();
    fs::write(checkpoints.join("step-00000040"), "mine").unwrap();
    let resumed = Train::again(&run).under_mpirun(2).succeed();
    assert_eq!(resumed.resumed_from(), Some(2));
    let said = resumed.warnings();
    let file = checkpoints.join("step-00000040");
    let parts = [
        ("passed over a checkpoint: ", file.as_path()),
        ("passed over a checkpoint: ", &newest),
        ("set ", &newest),
        ("set ", &file),
    ];
    for (warning, (start, name)) in said.iter().zip(parts) {
        let name = name.to_str().unwrap();
        assert!(warning.starts_with(start) && warning.contains(name), "{warning}");
        assert_eq!(resumed.stderr.matches(warning.as_str()).count(), 1, "{}", resumed.stderr);
    }
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(exported(&run) == weights);
    let sound = ["mine.tmp", "notes.tmp", "step-00000002", "step-00000004"];
    let aside = ["step-00000004.set-aside", "step-00000040.set-aside"];
    assert_eq!(files(&checkpoints), [&sound[..], &aside].concat());
    let claim = RunDirectory::new(&run).claim().unwrap();
    let refused = scrimp(&["checkpoint", "prune", run.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{}", complaint(&refused));
    drop(claim);
    let pruned = scrimp(&["checkpoint", "prune", run.to_str().unwrap()]);
    assert!(pruned.status.success(), "{}", complaint(&pruned));
    assert_eq!(files(&checkpoints), [&sound[..], &aside[1..]].concat());
}

fn verified(run: &Path) -> std::process::Output {
    scrimp(&["checkpoint", "verify", run.to_str().unwrap()])
}

/// The names in a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| name(entry).into_string().unwrap()).collect();
    names.sort();
    names
}

/// Changes the bytes of a file.
fn rewrite(file: PathBuf, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(&file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

const SHARD: &str = "shard-0001-of-0002.safetensors";

#[test]
fn a_checkpoint_with_one_wrong_byte_is_passed_over() {
    goes_on_after(|checkpoint| {
        rewrite(checkpoint.join(SHARD), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    });
}

#[test]
fn a_checkpoint_whose_manifest_is_torn_is_passed_over() {
    goes_on_after(|checkpoint| {
        rewrite(checkpoint.join("manifest.json"), |bytes| bytes.truncate(bytes.len() / 2));
    });
}

/// Changes the text of a manifest and the digest at its end.
fn forge(manifest: PathBuf, from: &str, to: &str) {
    rewrite(manifest, |bytes| {
        let text = String::from_utf8(std::mem::take(bytes)).unwrap();
        let (body, _) = text.rsplit_once(",\n").unwrap();
        assert!(body.contains(from), "{body}");
        let body = body.replacen(from, to, 1);
        let digest = xxhash_rust::xxh3::xxh3_64(body.as_bytes());
        *bytes = format!("{body},\n  \"xxh3\": \"{digest:016x}\"\n}}\n").into_bytes();
    });
}

/// A finished run of two steps, saved after each.
fn two_steps(run: &Path) {
    let plan = ["train.total_steps=2", "train.save_every=1", "train.evaluate_every=2"];
    Train::new(SMOKE, run).sets(&plan).succeed();
}

#[test]
fn what_a_killed_process_was_writing_is_removed() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    two_steps(&run);
    let stale = run.join("checkpoints/step-00000003.tmp");
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("shard-0000-of-0001.safetensors"), "half of").unwrap();
    let resumed = Train::again(&run).set("train.total_steps=3").succeed();
    assert_eq!(resumed.resumed_from(), Some(2));
    let message =
        format!("removed `{}`, which another process left unfinished", stale.to_str().unwrap());
    assert_eq!(resumed.warnings().last(), Some(&message), "{}", resumed.stderr);
    assert_eq!(files(&run.join("checkpoints")), ["step-00000002", "step-00000003"]);
}

#[test]
fn a_run_that_goes_on_otherwise_says_what_changed() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    two_steps(&run);
    let changes = ["train.total_steps=3", "method.params.learner.lr=0.01"];
    let resumed = Train::again(&run).sets(&changes).succeed();
    let said = resumed.warnings().join("\n").replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(said, @r"
    the configuration is not that of `FOLDER/run/checkpoints/step-00000002`: `method.params.learner.lr` was 0.03, is 0.01
    the configuration is not that of `FOLDER/run/checkpoints/step-00000002`: `train.total_steps` was 2, is 3
    ");
}

#[test]
fn a_checkpoint_of_another_method_is_refused() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    two_steps(&run);
    let newest = run.join("checkpoints/step-00000002");
    forge(newest.join("manifest.json"), "\"partial-ce\"", "\"tea-leaves\"");
    let refused = Train::again(&run).set("train.total_steps=3").under_mpirun(2).finish();
    let said = refused.complaint().replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(said, @r#"
    exit code 2
    error: checkpoint `FOLDER/run/checkpoints/step-00000002` is of method `tea-leaves`, the configuration says `partial-ce`

    hint: set `method.name = "tea-leaves"` to continue
    hint: or begin another run with `--run DIR`
    "#);
    assert_eq!(files(&run.join("checkpoints")), ["step-00000001", "step-00000002"]);
}

#[test]
fn a_run_that_goes_back_sets_aside_what_was_later() {
    let folder = TempDir::new().unwrap();
    let [run, other] = ["run", "other"].map(|name| folder.path().join(name));
    two_steps(&run);
    let first = run.join("checkpoints/step-00000001");
    let back = || ["--resume", first.to_str().unwrap()].map(str::to_owned);
    let [word, path] = back();
    let again = Train::again(&run).argument(&word).argument(&path).succeed();
    assert_eq!(again.resumed_from(), Some(1));
    let aside = "step-00000002.set-aside";
    assert_eq!(files(&run.join("checkpoints")), ["step-00000001", "step-00000002", aside]);
    // Into another directory: what it begins from becomes its own.
    let [word, path] = back();
    let moved = Train::new(SMOKE, &other).set("train.total_steps=2").argument(&word);
    let moved = moved.argument(&path).succeed();
    assert_eq!(moved.resumed_from(), Some(1));
    assert_eq!(files(&other.join("checkpoints")), ["step-00000001", "step-00000002"]);
    let weights = [&run, &other].map(|run| exported(run));
    assert!(weights[0] == weights[1]);
}

/// The checkpoint alone says how a scan that nobody has seen is prepared, and what comes of it.
fn says_what_new_scans_have_to_go_through(checkpoint: &Path) {
    let saved = read_manifest(checkpoint).unwrap().manifest;
    let config = scrimp::config::parse(&saved.config, "manifest", &[]).unwrap();
    assert_eq!(config.data.preparation, Some(Preparation::grey(Intensities::Published)));
    assert_eq!(saved.classes, ["background", "right ventricle", "myocardium", "left ventricle"]);
}

#[test]
fn a_run_knows_what_it_learnt_from() {
    let folder = TempDir::new().unwrap();
    let [run, other] = ["run", "other"].map(|name| folder.path().join(name));
    two_steps(&run);
    let said = |text: &str| {
        let hidden = regex::Regex::new("digest [0-9a-f]{16}").unwrap();
        let text = hidden.replace_all(text, "digest DIGEST");
        text.replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    let refused = |override_: &str| {
        let train = Train::again(&run).set("train.total_steps=3").set(override_);
        said(&train.finish().complaint())
    };
    insta::assert_snapshot!(refused("data.fold=2"), @r"
    exit code 2
    error: checkpoint `FOLDER/run/checkpoints/step-00000002` learnt with fold 1 held out, the configuration says 2

    hint: set `data.fold = 1` to continue
    hint: or begin another run with its weights: `scrimp train CONFIG --run DIR --resume FOLDER/run/checkpoints/step-00000002`
    ");
    insta::assert_snapshot!(refused("data.phantom.seed=5"), @r"
    exit code 2
    error: checkpoint `FOLDER/run/checkpoints/step-00000002` learnt from data set `phantom` with digest DIGEST, the configuration names `phantom` with digest DIGEST

    hint: name the same data in `[data]` to continue
    hint: or begin another run with its weights: `scrimp train CONFIG --run DIR --resume FOLDER/run/checkpoints/step-00000002`
    ");
    insta::assert_snapshot!(refused("data.preparation.crop=nonzero"), @r"
    exit code 2
    error: `data.preparation.crop` is `'nonzero'`, the scans of data set `phantom` were prepared with `'none'`

    hint: remove `[data.preparation]`, which says how scans were prepared and prepares none
    hint: or pack the data in that way: `scrimp prepare --help`
    ");
    assert_eq!(files(&run.join("checkpoints")), ["step-00000001", "step-00000002"]);
    says_what_new_scans_have_to_go_through(&run.join("checkpoints/step-00000002"));
    let evaluate = |run: &Path| scrimp(&["evaluate", run.to_str().unwrap()]);
    assert!(evaluate(&run).status.success());
    // Whatever the configuration says by now.
    rewrite(run.join("config.toml"), |bytes| {
        let text = String::from_utf8(std::mem::take(bytes)).unwrap();
        *bytes = text.replacen("fold = 1", "fold = 2", 1).into_bytes();
    });
    insta::assert_snapshot!(said(&complaint(&evaluate(&run))), @r"
    exit code 2
    error: the run has trained on case `phantom0003` of fold 2, so that its score would mean nothing

    hint: `FOLDER/run/checkpoints/step-00000002` was trained with fold 1 held out, and not only: begin another run for fold 2
    ");
    // Another run may begin with the weights, and knows what they had seen.
    let from = run.join("checkpoints/step-00000002");
    let begun = Train::new(SMOKE, &other).sets(&["train.total_steps=3", "data.fold=2"]);
    let begun = begun.argument("--resume").argument(from.to_str().unwrap()).succeed();
    let warned =
        begun.warnings().iter().filter(|said| said.contains("has learnt from case")).count();
    assert_eq!(warned, 1, "{:?}", begun.warnings());
    assert_eq!(evaluate(&other).status.code(), Some(2));
    let manifest = read_manifest(&other.join("checkpoints/step-00000003")).unwrap().manifest;
    let folds: Vec<u32> = manifest.learnt_from.iter().map(|learnt| learnt.fold).collect();
    assert_eq!(folds, [1, 2]);
    assert_eq!(manifest.run.best.iter().map(|best| best.step).collect::<Vec<_>>(), [3]);
    assert!(Train::again(&other).set("train.total_steps=4").finish().code == Some(0));
    let started = begun.events().into_iter().find_map(|event| match event {
        RunEvent::RunStarted(started) => Some(started.data_digest),
        _ => None,
    });
    assert_eq!(started.as_deref(), Some(manifest.learnt_from[1].digest.as_str()));
}
