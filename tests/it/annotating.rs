//! `scrimp prepare pseudo-labels` and `scribbles`: what they write, on any number of ranks, and what
//! they refuse.

use crate::cli::{complaint, scrimp};
use crate::running::Train;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::pseudo::EXPANDED;
use scrimp::data::{DENSE, Dataset, IGNORE, SCRIBBLE, store};
use scrimp::random::Key;
use scrimp::scribbles::{scribblebench, shorten};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn small() -> Dataset {
    let difficulty = Difficulty::Easy;
    generate(&Phantom { cases: 5, slices: 2, size: 32, difficulty, seed: 5 }).unwrap()
}

/// A folder with `dataset` packed as `from.h5`.
fn folder_with(dataset: &Dataset) -> TempDir {
    let folder = TempDir::new().unwrap();
    store::write(&folder.path().join("from.h5"), dataset).unwrap();
    folder
}

/// `scrimp prepare WORDS --from FOLDER/from.h5 --to FOLDER/TO`, alone or under `mpirun`.
fn prepare(folder: &Path, words: &[&str], to: &str, ranks: usize) -> Output {
    let [from, to] = ["from.h5", to].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let words = [&["prepare"], words, &["--from", &from, "--to", &to]].concat();
    if ranks == 1 { scrimp(&words) } else { mpirun(ranks, &words) }
}

/// What `scrimp` with `words` says on so many processes.
pub(crate) fn mpirun(ranks: usize, words: &[&str]) -> Output {
    Command::new("mpirun")
        .args(["--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string()])
        .arg(env!("CARGO_BIN_EXE_scrimp"))
        .args(words)
        .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")])
        .env("OMPI_MCA_mpi_yield_when_idle", "1")
        .output()
        .expect("mpirun starts")
}

const WALKER: &[&str] = &["pseudo-labels", "--with", "random-walker"];

/// The file that `words` write, which is the same on one rank and on two.
fn written(folder: &Path, words: &[&str]) -> Dataset {
    let files: Vec<PathBuf> = (1..=2)
        .map(|ranks| {
            let to = format!("to-{ranks}.h5");
            let output = prepare(folder, words, &to, ranks);
            assert!(output.status.success(), "{}", complaint(&output));
            folder.join(to)
        })
        .collect();
    assert!(std::fs::read(&files[0]).unwrap() == std::fs::read(&files[1]).unwrap());
    store::read(&files[0]).unwrap()
}

#[test]
fn random_walker_labels_stand_beside_everything_else() {
    let mut dataset = small();
    dataset.cases[3].annotations.remove(SCRIBBLE);
    let folder = folder_with(&dataset);
    let labelled = written(folder.path(), WALKER);
    assert!(labelled.provenance.contains("random walker"), "{}", labelled.provenance);
    for (case, origin) in labelled.cases.iter().zip(&dataset.cases) {
        assert_eq!(case.scan.voxels, origin.scan.voxels);
        let mut annotations = case.annotations.clone();
        let labels = annotations.remove("random_walker");
        assert_eq!(annotations, origin.annotations);
        assert_eq!(labels.is_some(), origin.annotations.contains_key(SCRIBBLE), "{}", case.name);
        let Some(labels) = labels else { continue };
        let truth = &origin.annotations[DENSE];
        let right = labels.iter().zip(truth).filter(|(label, truth)| label == truth).count();
        assert!(!labels.contains(&IGNORE) && right * 10 > labels.len() * 8, "{right}");
    }
}

#[test]
fn a_run_makes_the_labels_that_a_file_would_hold() {
    let folder = folder_with(&small());
    assert!(prepare(folder.path(), WALKER, "to.h5", 1).status.success());
    let losses = |file: &str, run: &str, ranks: usize| {
        let path = format!("data.path={}", folder.path().join(file).display());
        let run = folder.path().join(run);
        let settings = ["data.annotation=random_walker", "data.size=32", "train.total_steps=2"];
        let settings = [&settings[..], &["train.batch_size=4", "train.precision=fp64", &path]];
        let config = "configs/acdc-random-walker.toml";
        let train = Train::new(config, &run).sets(&settings.concat()).set("train.log_every=1");
        train
            .on_ranks(ranks)
            .succeed()
            .steps()
            .values()
            .map(|step| step.loss.values().sum())
            .collect()
    };
    let stored: Vec<f64> = losses("to.h5", "stored", 1);
    assert_eq!(losses("from.h5", "made", 1), stored);
    let made = folder.path().join("made");
    let scored = scrimp(&["evaluate", made.to_str().unwrap(), "--convention", "scribblebench"]);
    assert!(scored.status.success(), "{}", complaint(&scored));
    let said = String::from_utf8_lossy(&scored.stdout);
    assert!(said.contains("mean of cases") && !said.contains("HD95"), "{said}");
    let table =
        std::fs::read_to_string(made.join("scores/evaluate-last-scribblebench.csv")).unwrap();
    assert_eq!(table.lines().next(), Some("case,structure,dice"));
    assert_eq!(table.lines().count(), 1 + 3, "one case is held out");
    let shared: Vec<f64> = losses("from.h5", "shared", 2);
    let same = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9 * b.abs();
    assert!(shared.iter().zip(&stored).all(same), "{shared:?} {stored:?}");
}

#[test]
fn drawn_scribbles_replace_those_that_were_there() {
    let dataset = small();
    let folder = folder_with(&dataset);
    let drawn = written(folder.path(), &["scribbles", "--every", "2", "--shorten", "1"]);
    for (case, origin) in drawn.cases.iter().zip(&dataset.cases) {
        assert_eq!(
            (&case.scan.voxels, &case.annotations[DENSE]),
            (&origin.scan.voxels, &origin.annotations[DENSE])
        );
        let [first, second] = [0, 1].map(|slice| case.annotation_slice(SCRIBBLE, slice).unwrap());
        assert!(first.iter().any(|&label| label != IGNORE), "{}", case.name);
        assert!(second.iter().all(|&label| label == IGNORE));
    }
    let other =
        prepare(folder.path(), &["scribbles", "--kind", "points", "--count", "2"], "p.h5", 1);
    assert!(other.status.success(), "{}", complaint(&other));
    for case in store::read(&folder.path().join("p.h5")).unwrap().cases {
        let [points, truth] = [SCRIBBLE, DENSE].map(|kind| case.annotation_slice(kind, 1).unwrap());
        for class in 0..4 {
            let count =
                |labels: &[u8]| labels.iter().filter(|label| [class].contains(label)).count();
            assert_eq!(count(points), count(truth).min(2), "{}", case.name);
        }
    }
}

#[test]
fn strokes_of_scribblebench_are_a_function_of_seed_case_class_and_slice() {
    let dataset = small();
    let folder = folder_with(&dataset);
    let words = ["scribbles", "--kind", "scribblebench", "--seed", "7"];
    let drawn = written(folder.path(), &words);
    let key = Key::new(7).purpose("scribbles");
    for case in &drawn.cases {
        for slice in 0..2 {
            let [found, truth] =
                [SCRIBBLE, DENSE].map(|kind| case.annotation_slice(kind, slice).unwrap());
            let mut expected = vec![IGNORE; truth.len()];
            for class in 0..4 {
                let key = key.purpose(&case.name).number(u64::from(class)).number(slice as u64);
                scribblebench(truth, 32, class, &mut key.draws(), &mut expected);
            }
            assert!(found == expected, "slice {slice} of {}", case.name);
        }
    }
    let last = drawn.provenance.lines().last().unwrap();
    assert_eq!(
        last,
        "Scribbles by the recipe of ScribbleBench drawn by a program from the dense labels on every slice, seed 7."
    );
}

/// What is said on one rank and on two, which is the same; nothing is left behind.
fn refusal(dataset: &Dataset, words: &[&str], to: &str, damage: impl Fn(&Path)) -> String {
    let folder = folder_with(dataset);
    damage(folder.path());
    let before = folder.path().read_dir().unwrap().count();
    let [alone, together] = [1, 2].map(|ranks| {
        let output = prepare(folder.path(), words, to, ranks);
        let text = complaint(&output).replace(folder.path().to_str().unwrap(), "FOLDER");
        // What mpirun adds about ranks that ended with an error.
        text.split("\n--------").next().unwrap().trim_end().to_owned()
    });
    assert_eq!(folder.path().read_dir().unwrap().count(), before, "it left something behind");
    assert_eq!(alone, together);
    alone
}

#[test]
fn what_cannot_be_annotated_is_refused() {
    let nothing = |_: &Path| ();
    let mut bare = small();
    bare.cases.iter_mut().for_each(|case| case.annotations.retain(|kind, _| kind != SCRIBBLE));
    insta::assert_snapshot!(refusal(&bare, WALKER, "to.h5", nothing), @r"
    exit code 2
    error: no case of `FOLDER/from.h5` has annotation `scribble` to make labels of

    hint: draw some with `scrimp prepare scribbles`, or pack a data set that has them
    ");
    let mut blind = small();
    blind.cases[2].annotations.remove(DENSE);
    insta::assert_snapshot!(refusal(&blind, &["scribbles"], "to.h5", nothing), @r"
    exit code 2
    error: case `phantom0003` of `phantom` has no `dense` labels to draw scribbles from

    hint: pack a data set in which every case has dense labels
    ");
    for words in [WALKER, &["scribbles"]] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(refusal(&small(), words, "from.h5", nothing), @r"
    exit code 2
    error: `FOLDER/from.h5` exists already

    hint: name another file with `--to FILE`, or remove this one first
    ");
            insta::assert_snapshot!(refusal(&small(), words, "to.h5", |folder| {
                std::fs::remove_file(folder.join("from.h5")).unwrap();
            }), @r"
    exit code 1
    error: no packed data set at `FOLDER/from.h5`

    hint: make one, for example `scrimp prepare phantom --to FOLDER/from.h5`
    hint: `scrimp prepare --help` lists the other sources
    ");
            insta::assert_snapshot!(refusal(&small(), words, "to.h5", |folder| {
                std::fs::write(folder.join("from.h5"), "[data]").unwrap();
            }), @r"
    exit code 1
    error: `FOLDER/from.h5` is no packed data set: it begins neither as `scrimp prepare` writes them nor as HDF5

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
            insta::assert_snapshot!(refusal(&small(), words, "from.h5/to.h5", nothing), @r"
    exit code 1
    error: cannot write `FOLDER/from.h5/to.h5`
      caused by: File exists (os error 17)

    hint: name a file in a folder that can be written to with `--to FILE`
    ");
        }
    }
    // One rank says for all that one is enough.
    let output =
        mpirun(2, &["prepare", "pseudo-labels", "--with", "network", "--run", "a", "--to", "b"]);
    let said = complaint(&output);
    assert_eq!(said.matches("a network labels on one process").count(), 1, "{said}");
    assert!(said.starts_with("exit code 2\n"), "{said}");
    let many = scrimp(&["prepare", "scribbles", "--count", "4", "--from", "a", "--to", "b"]);
    assert_eq!(many.status.code(), Some(2));
}

#[test]
fn what_cannot_be_shortened_is_refused() {
    let nothing = |_: &Path| ();
    let points = ["scribbles", "--kind", "points", "--shorten", "1"];
    insta::assert_snapshot!(refusal(&small(), &points, "to.h5", nothing), @r"
    exit code 2
    error: `--shorten` halves strokes, and points are none

    hint: leave it out, or use `--kind walk`
    ");
    let shorter = ["scribbles", "--kind", "scribblebench", "--shorten", "1"];
    insta::assert_snapshot!(refusal(&small(), &shorter, "to.h5", nothing), @r"
    exit code 2
    error: `--kind scribblebench` draws strokes as long as published

    hint: leave `--shorten` out, or shorten the file that it writes: `--kind existing --shorten TIMES`
    ");
    let existing = ["scribbles", "--kind", "existing"];
    insta::assert_snapshot!(refusal(&small(), &existing, "to.h5", nothing), @r"
    exit code 2
    error: `--kind existing` alone leaves all scribbles as they are

    hint: halve them with `--shorten TIMES`, or keep some slices with `--every SLICES`
    ");
    let mut bare = small();
    bare.cases.iter_mut().for_each(|case| case.annotations.retain(|kind, _| kind != SCRIBBLE));
    let shorter = ["scribbles", "--kind", "existing", "--shorten", "1"];
    insta::assert_snapshot!(refusal(&bare, &shorter, "to.h5", nothing), @r"
    exit code 2
    error: no case of `phantom` has annotation `scribble` to shorten

    hint: leave `--kind existing` out to draw scribbles from dense labels
    ");
}

/// The training images of runs with what their networks are sure of, and what is said of it.
fn expanded(runs: &[&Path], to: &Path, options: &[&str]) -> (Dataset, String) {
    let mut words = vec!["prepare", "pseudo-labels", "--with", "network"];
    words.extend(runs.iter().flat_map(|run| ["--run", run.to_str().unwrap()]));
    let output = scrimp(&[&words[..], &["--to", to.to_str().unwrap()], options].concat());
    assert!(output.status.success(), "{}", complaint(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let told = said.lines().find(|line| line.contains("leaves open")).unwrap_or_default();
    (store::read(to).unwrap(), told.to_owned())
}

#[test]
fn what_a_network_is_sure_of_is_annotation_for_a_second_stage() {
    // After two steps networks over images know nothing, and say so.
    for (config, share) in
        [("configs/smoke/dmsps.toml", "1"), ("configs/smoke/dmsps-3d.toml", "0.99")]
    {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [first, other, second] = ["first", "other", "second"].map(path);
        let train = |run: &Path| Train::new(config, run).set("train.total_steps=2");
        train(&first).succeed();
        train(&other).set("train.seed=3").succeed();
        let everything = ["--uncertainty", "1", "--unsure", "background"];
        let (all, _) = expanded(&[&first], &path("all.h5"), &everything);
        let options = ["--uncertainty", share, "--mirrors"];
        let (some, told) = expanded(&[&first, &other], &path("some.h5"), &options);
        let (mut known, mut open, mut held_out) = (0, 0, 0);
        for (of_all, of_some) in all.cases.iter().zip(&some.cases) {
            let Some(labels) = of_some.annotations.get(EXPANDED) else {
                assert_eq!(of_some.fold, 1);
                held_out += 1;
                continue;
            };
            assert!(!of_all.annotations[EXPANDED].contains(&IGNORE), "all of it is said");
            assert!(of_some.annotations.contains_key(SCRIBBLE), "it stands beside the scribble");
            assert_eq!(labels.len(), of_some.scan.grid.voxels());
            open += usize::from(labels.contains(&IGNORE));
            known += labels.iter().filter(|&&label| label < 4).count();
        }
        assert!(known > 0 && open > 0 && held_out > 0, "{config}: {known} {open} {held_out}");
        assert!(
            told.contains("voxels that `scribble` leaves open") && told.contains("`dense`"),
            "{told}"
        );
        assert!(
            some.provenance.contains("`expanded` predicted by")
                && some.provenance.contains("other")
        );
        let keys = [format!("data.path={}", path("some.h5").display())];
        // A packed file takes the place of the phantom.
        let again = Train::new(&without_phantom(config, &folder), &second).set(&keys[0]);
        let ended = again.sets(&["data.annotation=expanded", "train.total_steps=2"]).succeed();
        assert_eq!(ended.steps().len(), 2, "{config}");
    }
}

/// The configuration without its phantom, as a file of the folder.
pub(crate) fn without_phantom(config: &str, folder: &TempDir) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(config)).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    table["data"].as_table_mut().unwrap().remove("phantom");
    let file = folder.path().join("second.toml");
    std::fs::write(&file, table.to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn networks_that_see_different_things_do_not_label_together() {
    let folder = TempDir::new().unwrap();
    let run = |name: &str, config: &str| {
        let run = folder.path().join(name);
        Train::new(config, &run).set("train.total_steps=1").succeed();
        run.to_str().unwrap().to_owned()
    };
    let [flat, deep] =
        [run("flat", "configs/smoke/dmsps.toml"), run("deep", "configs/smoke/dmsps-3d.toml")];
    let to = folder.path().join("to.h5");
    let words = ["prepare", "pseudo-labels", "--with", "network", "--uncertainty", "0.1", "--to"];
    let words = [&words[..], &[to.to_str().unwrap(), "--run", &flat, "--run", &deep]].concat();
    let said = complaint(&scrimp(&words)).replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(said, @r"
    exit code 2
    error: `FOLDER/flat` and `FOLDER/deep` cannot label together: they see slices of 32 x 32 and patches of 16 x 32 x 32

    hint: label with one of them
    ");
}

#[test]
fn a_run_without_scribbles_to_make_labels_of_is_refused() {
    let mut bare = small();
    bare.cases.iter_mut().for_each(|case| case.annotations.retain(|kind, _| kind != SCRIBBLE));
    let folder = folder_with(&bare);
    let path = format!("data.path={}", folder.path().join("from.h5").display());
    let run = folder.path().join("run");
    let train = Train::new("configs/acdc-random-walker.toml", &run).sets(&[&path, "data.size=32"]);
    insta::assert_snapshot!(train.under_mpirun(2).finish().complaint(), @r#"
    exit code 2
    error: case `phantom0002` has no annotation `random_walker`, only ["dense"]

    hint: set `data.annotation` to one of these
    "#);
}

#[test]
fn what_is_there_to_be_scored_stays_out_of_both_stages() {
    let mut dataset = small();
    // To test with, in a fold of its own; and a patient who is held out has a second scan.
    dataset.cases[1].annotations.retain(|kind, _| kind == DENSE);
    dataset.cases[2].patient = dataset.cases[0].patient.clone();
    let folder = folder_with(&dataset);
    let path = |name: &str| folder.path().join(name);
    let from = format!("data.path={}", path("from.h5").display());
    let settings = [&from, "data.size=32", "train.batch_size=4", "train.total_steps=1"];
    let config = "configs/acdc-dmsps.toml";
    let trained = Train::new(config, &path("run")).sets(&settings).succeed();
    let warning = "of 1 of the 1 patients that fold 1 holds out, other scans are trained on: scores say little about new patients";
    assert_eq!(trained.warnings(), [warning]);
    let (labelled, _) = expanded(&[&path("run")], &path("to.h5"), &["--uncertainty", "1"]);
    let has = labelled.cases.iter().map(|case| case.annotations.contains_key(EXPANDED));
    assert_eq!(has.collect::<Vec<_>>(), [false, false, true, true, true]);
    let check = |more: &[&str]| {
        let words = settings.iter().chain(more).flat_map(|key| ["--set", key]);
        scrimp(&["config", "check", config].into_iter().chain(words).collect::<Vec<_>>())
    };
    let checked = check(&[]);
    assert!(checked.status.success());
    assert_eq!(String::from_utf8_lossy(&checked.stderr), format!("warning: {warning}\n"));
    let refused = complaint(&check(&["data.split=dmsps"]));
    let expected = "exit code 2\nerror: split `dmsps` parts the 200 volumes of ACDC, and case `phantom0001` of `phantom` is none of them\n";
    assert!(refused.starts_with(expected), "{refused}");
}

#[test]
fn scribbles_that_are_there_are_shortened() {
    let mut dataset = small();
    dataset.cases[1].annotations.remove(SCRIBBLE);
    dataset.cases[2].annotations.remove(DENSE);
    dataset.cases[3].annotations.insert(EXPANDED.to_owned(), vec![0; 2 * 32 * 32]);
    let folder = folder_with(&dataset);
    let words = ["scribbles", "--kind", "existing", "--shorten", "2", "--every", "2"];
    let shorter = written(folder.path(), &words);
    let mut expected = dataset.clone();
    for case in &mut expected.cases {
        case.annotations.remove(EXPANDED);
        let Some(scribble) = case.annotations.get_mut(SCRIBBLE) else { continue };
        let (first, second) = scribble.split_at_mut(32 * 32);
        (0..2).for_each(|_| shorten(first, 32, 4));
        second.fill(IGNORE);
    }
    assert!(shorter.cases == expected.cases);
    assert!(shorter.cases[0].annotations[SCRIBBLE].iter().any(|&label| label != IGNORE));
    let last = shorter.provenance.lines().last().unwrap();
    assert_eq!(last, "Scribbles halved 2 times by a program, kept on one slice of every 2.");
}
