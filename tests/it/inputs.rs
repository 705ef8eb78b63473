//! Every wrong input ends every rank with the same explanation, given once.

use crate::cli::{complaint, scrimp};
use crate::running::{SMOKE, Train};
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::{Case, DENSE, Dataset, IGNORE, SCRIBBLE, store};
use scrimp::runlog::RunEvent;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A configuration that trains on a packed file.
const ON_A_FILE: &str = "configs/acdc-partial-ce.toml";

/// What `train` complains of, which is the same on one rank and on two.
fn refusal(folder: &Path, train: impl Fn() -> Train) -> String {
    let [alone, together] = [train().finish(), train().under_mpirun(2).finish()]
        .map(|ended| ended.complaint().replace(folder.to_str().unwrap(), "FOLDER"));
    assert_eq!(alone, together);
    alone
}

/// The same configuration and data through `scrimp config check`, without the run.
fn checked(config: &str, overrides: &[&str]) -> (Option<i32>, String) {
    let words = overrides.iter().flat_map(|override_| ["--set", override_]);
    let output = scrimp(&["config", "check", config].into_iter().chain(words).collect::<Vec<_>>());
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn what_a_run_would_refuse_is_refused_by_the_check_of_its_configuration() {
    let folder = TempDir::new().unwrap();
    let packed = folder.path().join("set.h5");
    let mut dataset = small();
    store::write(&packed, &dataset).unwrap();
    let path = format!("data.path={}", packed.display());
    let sound = checked(ON_A_FILE, &[&path]);
    assert_eq!((sound.0, sound.1.contains("and so are its data")), (Some(0), true), "{}", sound.1);
    for (override_, message) in [
        ("data.fold=7", "fold 7 of `phantom` holds out no cases"),
        ("data.annotation=points", "has no annotation `points`"),
        ("data.shapes.path=/nowhere/masks", "there is no `/nowhere/masks`"),
    ] {
        let (code, said) = checked(ON_A_FILE, &[&path, override_]);
        let expected = if message.starts_with("there") { 0 } else { 2 };
        assert!(code == Some(expected) && said.contains(message), "{said}");
        assert!(!said.contains("is sound"), "{said}");
    }
    for case in &mut dataset.cases {
        case.annotations.get_mut(SCRIBBLE).unwrap().fill(IGNORE);
    }
    fs::remove_file(&packed).unwrap();
    store::write(&packed, &dataset).unwrap();
    let (code, said) = checked(ON_A_FILE, &[&path]);
    assert!(code == Some(2) && said.contains("no pixel of `scribble` is annotated"), "{said}");
    let (code, said) = checked(ON_A_FILE, &["data.path=nowhere.h5"]);
    let expected = "its data were not looked at, since there is no `nowhere.h5`";
    assert!(code == Some(0) && said.contains(expected), "{said}");
}

fn refusal_of_config(config: &str, overrides: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let text = refusal(folder.path(), || Train::new(config, &run).sets(overrides));
    assert!(!run.join("checkpoints").exists());
    text
}

fn small() -> Dataset {
    let difficulty = Difficulty::Easy;
    generate(&Phantom { cases: 5, slices: 2, size: 32, difficulty, seed: 5 }).unwrap()
}

/// What is said to a packed file after `damage` was done to it.
fn refusal_of_data(dataset: &Dataset, damage: impl Fn(&Path)) -> String {
    let folder = TempDir::new().unwrap();
    let packed = folder.path().join("set.h5");
    store::write(&packed, dataset).unwrap();
    damage(&packed);
    let path = format!("data.path={}", packed.display());
    let run = folder.path().join("run");
    let text = refusal(folder.path(), || {
        Train::new(ON_A_FILE, &run).sets(&[&path, "data.size=32", "train.total_steps=1"])
    });
    // How large a file is depends on the version of HDF5.
    let sizes = regex::Regex::new(r"\d+ bytes behind its first 512, expected \d+").unwrap();
    sizes.replace(&text, "SIZE bytes behind its first 512, expected SIZE").into_owned()
}

#[test]
fn an_unknown_key() {
    insta::assert_snapshot!(refusal_of_config("tests/it/invalid/unknown_key.toml", &[]), @r"
    exit code 2
    error: unknown key `train.totl_steps`
      --> tests/it/invalid/unknown_key.toml:9:1
      |
    9 | totl_steps = 100
      | ^^^^^^^^^^

    hint: did you mean `total_steps`?
    ");
}

#[test]
fn a_value_of_the_wrong_type() {
    insta::assert_snapshot!(refusal_of_config("tests/it/invalid/wrong_type.toml", &[]), @r#"
    exit code 2
    error: `train.total_steps` is the string `many`, expected a whole number
      --> tests/it/invalid/wrong_type.toml:8:15
      |
    8 | total_steps = "many"
      |               ^^^^^^
    "#);
}

#[test]
fn an_unknown_key_of_the_method() {
    insta::assert_snapshot!(refusal_of_config(SMOKE, &["method.params.dise=1"]), @r"
    exit code 2
    error: unknown key `method.params.dise`
      --> --set method.params.dise=1

    hint: did you mean `dice`?
    ");
}

#[test]
fn a_fold_that_does_not_exist() {
    insta::assert_snapshot!(refusal_of_config(SMOKE, &["data.fold=9"]), @r"
    exit code 2
    error: fold 9 of `phantom` holds out no cases, expected one of {1, 2, 3, 4, 5}

    hint: set `data.fold` to one of these
    ");
}

#[test]
fn an_annotation_that_does_not_exist() {
    insta::assert_snapshot!(refusal_of_config(SMOKE, &["data.annotation=points"]), @r#"
    exit code 2
    error: case `phantom0003` has no annotation `points`, only ["dense", "scribble"]

    hint: set `data.annotation` to one of these
    "#);
}

#[test]
fn a_fold_that_leaves_nothing_to_train_on() {
    let mut dataset = small();
    dataset.cases.iter_mut().for_each(|case| case.fold = 1);
    insta::assert_snapshot!(refusal_of_data(&dataset, |_| {}), @r"
    exit code 2
    error: fold 1 holds out every case of `phantom`, expected some to train on

    hint: set `data.fold` to another fold, or pack more cases
    ");
}

#[test]
fn held_out_cases_that_nothing_can_be_said_of() {
    let mut dataset = small();
    dataset.cases[0].annotations.remove(DENSE);
    insta::assert_snapshot!(refusal_of_data(&dataset, |_| {}), @r"
    exit code 2
    error: held-out case `phantom0001` has no `dense` annotation to evaluate with

    hint: pack dense labels too, for example `scrimp prepare own-data --dense DIR ...`
    hint: or train on all cases without evaluations: `--set data.fold=0`
    ");
}

#[test]
fn a_missing_file() {
    insta::assert_snapshot!(refusal_of_data(&small(), |path| fs::remove_file(path).unwrap()), @r"
    exit code 1
    error: no packed data set at `FOLDER/set.h5`

    hint: make one, for example `scrimp prepare phantom --to FOLDER/set.h5`
    hint: `scrimp prepare --help` lists the other sources
    ");
}

#[test]
fn a_truncated_file() {
    insta::assert_snapshot!(refusal_of_data(&small(), |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }), @r"
    exit code 1
    error: `FOLDER/set.h5` has SIZE bytes behind its first 512, expected SIZE as these say: it is not whole

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

#[test]
fn an_array_of_another_shape() {
    insta::assert_snapshot!(refusal_of_data(&small(), |path| {
        changed(path, |file| {
            let group = file.group("volumes/phantom0003").unwrap();
            group.unlink("scribble").unwrap();
            group.new_dataset::<u8>().shape((2, 32, 31)).create("scribble").unwrap();
        });
    }), @r"
    exit code 1
    error: `/volumes/phantom0003/scribble` of `FOLDER/set.h5` has shape [2, 32, 31], expected [2, 32, 32] as table `/cases` says

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

/// Changes a packed file and makes the length and the digest in its first 512 bytes right again.
fn changed(path: &Path, change: impl Fn(&hdf5::File)) {
    change(&hdf5::File::open_rw(path).unwrap());
    let mut bytes = fs::read(path).unwrap();
    let rest = bytes.split_off(512);
    let text = String::from_utf8(bytes).unwrap();
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    lines[1] = format!("bytes {:020}", rest.len());
    lines[2] = format!("xxh3-128 {:032x}", xxhash_rust::xxh3::xxh3_128(&rest));
    fs::write(path, [lines.join("\n").into_bytes(), rest].concat()).unwrap();
}

/// Replaces the intensities by ones that nobody could have packed, with their checksum.
fn put_nan(file: &hdf5::File) {
    let group = file.group("volumes/phantom0002").unwrap();
    let mut image = small().cases[1].scan.voxels.clone();
    image[1024 + 40] = f32::NAN;
    let bytes: Vec<u8> = image.iter().flat_map(|value| value.to_le_bytes()).collect();
    group.unlink("image").unwrap();
    let array = group.new_dataset::<f32>().shape((2, 32, 32)).create("image").unwrap();
    array.write_raw(&image).unwrap();
    let checksum = array.new_attr::<u64>().create("xxh3").unwrap();
    checksum.write_scalar(&xxhash_rust::xxh3::xxh3_64(&bytes)).unwrap();
}

#[test]
fn an_image_with_a_number_that_is_none() {
    insta::assert_snapshot!(refusal_of_data(&small(), |path| changed(path, put_nan)), @r"
    exit code 1
    error: cannot read `/volumes/phantom0002` of `FOLDER/set.h5`
      caused by: `image` of case `phantom0002` holds NaN in slice 1 at row 1, column 8, expected finite intensities

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

#[test]
fn a_label_that_the_table_of_classes_does_not_have() {
    insta::assert_snapshot!(refusal_of_data(&small(), |path| {
        changed(path, |file| {
            let array = file.dataset("volumes/phantom0004/scribble").unwrap();
            let mut labels = array.read_raw::<u8>().unwrap();
            labels[40] = 9;
            array.write_raw(&labels).unwrap();
            let checksum = array.attr("xxh3").unwrap();
            checksum.write_scalar(&xxhash_rust::xxh3::xxh3_64(&labels)).unwrap();
        });
    }), @r"
    exit code 1
    error: cannot read `/volumes/phantom0004` of `FOLDER/set.h5`
      caused by: `scribble` of case `phantom0004` holds label 9 in slice 0 at row 1, column 8, expected classes 0 to 3 or the ignore value 255

    hint: write it again with `scrimp prepare` (`scrimp prepare --help` lists the sources)
    ");
}

/// One volume in the form of WSL4MIS, where 4 means unlabelled, and what packing it says.
fn refusal_of_source(case: &Case, unlabelled: u16) -> String {
    let folder = TempDir::new().unwrap();
    let file = hdf5::File::create(folder.path().join("patient001_frame01.h5")).unwrap();
    let image = file.new_dataset::<f32>().shape(case.scan.grid.shape).create("image").unwrap();
    image.write_raw(&case.scan.voxels).unwrap();
    let dense = file.new_dataset::<u8>().shape(case.scan.grid.shape).create("label").unwrap();
    dense.write_raw(&case.annotations[DENSE]).unwrap();
    let label = |&label: &u8| if label == IGNORE { unlabelled } else { u16::from(label) };
    let labels: Vec<u16> = case.annotations[SCRIBBLE].iter().map(label).collect();
    let scribble =
        file.new_dataset::<u16>().shape(case.scan.grid.shape).create("scribble").unwrap();
    scribble.write_raw(&labels).unwrap();
    drop((image, dense, scribble, file));
    let to = folder.path().join("set.h5");
    let [from, to] = [folder.path(), &to].map(|path| path.to_str().unwrap());
    let output = scrimp(&["prepare", "acdc", "--from", from, "--to", to]);
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "it left something behind");
    complaint(&output).replace(folder.path().to_str().unwrap(), "FOLDER")
}

#[test]
fn a_source_with_a_number_that_is_none() {
    let mut case = small().cases.remove(0);
    case.scan.voxels[40] = f32::NAN;
    insta::assert_snapshot!(refusal_of_source(&case, 4), @r"
    exit code 1
    error: `image` of `FOLDER/patient001_frame01.h5` holds NaN in slice 0 at row 1, column 8, expected finite intensities in [0, 1]

    hint: mend or remove the named file, then run the same command again
    ");
}

#[test]
fn a_source_with_a_label_outside_its_coding() {
    insta::assert_snapshot!(refusal_of_source(&small().cases[0], 5), @r"
    exit code 1
    error: `scribble` of `FOLDER/patient001_frame01.h5` holds label 5 in slice 0 at row 0, column 0, expected 0 to 3 or 4 for unlabelled

    hint: mend or remove the named file, then run the same command again
    ");
}

#[test]
fn more_ranks_than_a_batch_has_samples() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let train = Train::new(SMOKE, &run).set("train.batch_size=2").under_mpirun(3);
    insta::assert_snapshot!(train.finish().complaint(), @r"
    exit code 2
    error: world size 3 is larger than the batch of 2
      --> --set train.batch_size=2

    hint: start at most 2 processes, or use `--set train.batch_size=3`
    ");
}

#[test]
fn a_configuration_that_somebody_wrote_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("config.toml");
    fs::copy(SMOKE, &own).unwrap();
    let own = own.to_str().unwrap();
    for config in [own, SMOKE] {
        let ended = Train::new(config, folder.path()).set("train.total_steps=1").finish();
        let said = ended.complaint();
        assert!(said.starts_with("exit code 2\n"), "{said}");
        assert!(said.contains("it exists and is something else, which would be lost"), "{said}");
    }
    assert_eq!(fs::read(own).unwrap(), fs::read(SMOKE).unwrap());
}

#[test]
fn a_run_directory_that_is_a_file() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    fs::write(&run, "").unwrap();
    insta::assert_snapshot!(refusal(folder.path(), || Train::new(SMOKE, &run)), @r"
    exit code 1
    error: cannot use `FOLDER/run` as run directory
      caused by: Not a directory (os error 20)

    hint: choose another directory with `--run DIR`
    ");
}

#[test]
fn a_run_directory_where_none_can_be() {
    let folder = TempDir::new().unwrap();
    let run = Path::new("/proc/run");
    insta::assert_snapshot!(refusal(folder.path(), || Train::new(SMOKE, run)), @r"
    exit code 1
    error: cannot use `/proc/run` as run directory
      caused by: No such file or directory (os error 2)

    hint: choose another directory with `--run DIR`
    ");
}

#[test]
fn a_run_directory_whose_run_is_alive() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let mut running = Train::new(SMOKE, &run).set("train.total_steps=100000").start();
    running.wait_for(|event| matches!(event, RunEvent::Step(_)));
    let writer = running.run.writer().expect("the run is alive");
    let text = refusal(folder.path(), || Train::new(SMOKE, &run));
    running.kill();
    let text = text.replace(&writer.pid.to_string(), "PID").replace(&writer.host, "HOST");
    insta::assert_snapshot!(text, @r"
    exit code 1
    error: `FOLDER/run` belongs to a run that is alive on `HOST`, process PID

    hint: look at it with `scrimp watch FOLDER/run`
    hint: end it with `touch FOLDER/run/control/stop`
    ");
}

#[test]
fn masks_of_the_run_itself() {
    let own = ["data.shapes.phantom.seed=1"];
    insta::assert_snapshot!(refusal_of_config(SMOKE, &own), @r"
    exit code 2
    error: masks and training data are the same phantom, both of seed 1
      --> configs/smoke/partial-ce.toml

    hint: give the masks another one, for example `--set data.shapes.phantom.seed=7`
    hint: or set `data.shapes.allow_own = true` to show a run its own truth
    ");
}

#[test]
fn masks_that_are_nowhere() {
    let absent = ["data.shapes.path=absent/masks"];
    insta::assert_snapshot!(refusal_of_config(SMOKE, &absent), @r"
    exit code 2
    error: `data.shapes.path` is `absent/masks`, where nothing is

    hint: name a folder of NIfTI label volumes, or a packed file with dense labels
    ");
}

#[test]
fn masks_from_the_file_that_is_trained_on() {
    let folder = TempDir::new().unwrap();
    let packed = folder.path().join("set.h5");
    store::write(&packed, &small()).unwrap();
    let paths = ["data", "data.shapes"].map(|key| format!("{key}.path={}", packed.display()));
    let run = folder.path().join("run");
    let train = || Train::new(ON_A_FILE, &run).sets(&[&paths[0], &paths[1], "data.size=32"]);
    insta::assert_snapshot!(refusal(folder.path(), train), @r"
    exit code 2
    error: mask `phantom0001` is of patient `seed5-phantom0001`, who is in the training data `phantom` too, and 4 more masks are like that

    hint: name masks of other people in `[data.shapes]`
    hint: or set `data.shapes.allow_own = true` to show a run its own truth
    ");
    let allowed = train().sets(&["data.shapes.allow_own=true", "train.total_steps=1"]);
    allowed.set("train.batch_size=2").under_mpirun(2).succeed();
}

#[test]
fn masks_that_are_said_twice() {
    let twice = ["data.shapes.phantom.seed=2", "data.shapes.path=masks"];
    insta::assert_snapshot!(refusal_of_config(SMOKE, &twice), @r"
    exit code 2
    error: both `data.shapes.path` and `[data.shapes.phantom]` say where masks are
      --> --set data.shapes.path=masks

    hint: remove one of them
    ");
    insta::assert_snapshot!(refusal_of_config(SMOKE, &["data.shapes.allow_own=true"]), @r#"
    exit code 2
    error: neither `data.shapes.path` nor `[data.shapes.phantom]` says where masks are
      --> configs/smoke/partial-ce.toml

    hint: add `path = "DIR"`, a folder of NIfTI label volumes, to `[data.shapes]`
    "#);
}
