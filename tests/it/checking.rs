//! `scrimp prepare check` as a shell sees it: the report of what was packed, why it cannot be trained on, and damage.

use crate::cli::{complaint, scrimp};
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::{DENSE, Dataset, IGNORE, SCRIBBLE, store};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

fn small() -> Dataset {
    let difficulty = Difficulty::Easy;
    generate(&Phantom { cases: 5, slices: 2, size: 32, difficulty, seed: 5 }).unwrap()
}

fn packed(dataset: &Dataset, folder: &TempDir) -> PathBuf {
    let path = folder.path().join("set.h5");
    store::write(&path, dataset).unwrap();
    path
}

fn check(file: &Path, options: &[&str]) -> Output {
    scrimp(&[&["prepare", "check", file.to_str().unwrap()], options].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complained(output: &Output, folder: &TempDir) -> String {
    complaint(output).replace(folder.path().to_str().unwrap(), "FOLDER")
}

#[test]
fn a_packed_file_is_reported_on_as_when_it_was_packed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("set.h5");
    let words = ["prepare", "phantom", "--cases", "5", "--slices", "2", "--size", "32", "--to"];
    let prepared = scrimp(&[&words[..], &[path.to_str().unwrap()]].concat());
    assert_eq!(complaint(&prepared), "exit code 0\n");
    let checked = check(&path, &[]);
    assert_eq!(complaint(&checked), "exit code 0\n");
    insta::assert_snapshot!(said(&checked), @r"
    data set    phantom
    cases       5 of 5 patients
    slices      10
    channels    1
    classes     background, right ventricle, myocardium, left ventricle
    folds       1 in 1, 1 in 2, 1 in 3, 1 in 4, 1 in 5

    voxels   min  median  max  min mm  median mm  max mm
    slices     2       2    2  10.000     10.000  10.000
    rows      32      32   32   6.000      6.000   6.000
    columns   32      32   32   6.000      6.000   6.000

    dense            cases  slices  voxels  of annotated
    background           5      10    9676       94.49 %
    right ventricle      0       0       0        0.00 %
    myocardium           5      10     350        3.42 %
    left ventricle       5      10     214        2.09 %

    scribble         cases  slices  voxels  of annotated
    background           5      10     183       78.88 %
    right ventricle      0       0       0        0.00 %
    myocardium           5      10      13        5.60 %
    left ventricle       5      10      36       15.52 %
    annotated are 2.27 % of the voxels, 10 of 10 slices, 5 of 5 cases

    warning: no pixel of any case is `right ventricle` in `dense`
    warning: no pixel of any case is `right ventricle` in `scribble`
    ");
    let report = said(&prepared);
    let (first, report) = report.split_once("\n\n").unwrap();
    assert!(first.starts_with("packed 5 cases with 10 slices into "), "{first}");
    assert_eq!(report, said(&checked));
    let json = check(&path, &["--json", "--fold", "1", "--annotation", "random_walker"]);
    assert_eq!(complaint(&json), "exit code 0\n");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["schema"], "scrimp data report 1");
    assert_eq!((&json["is_trainable"], &json["cases"]), (&true.into(), &5.into()));
    assert_eq!(json["annotations"][1]["kind"], SCRIBBLE);
    assert_eq!(json["axes"][0]["voxels"]["median"], 2);
}

#[test]
fn what_cannot_be_trained_on_fails_with_the_reasons() {
    let folder = TempDir::new().unwrap();
    let mut dataset = small();
    let path = packed(&dataset, &folder);
    let fold = check(&path, &["--fold", "9"]);
    insta::assert_snapshot!(complained(&fold, &folder), @r"
    exit code 1
    error: `FOLDER/set.h5` cannot be trained on
      caused by: fold 9 holds out no cases, expected `1`, `2`, `3`, `4` or `5`

    hint: choose another fold, or pack more cases
    ");
    let annotation = check(&path, &["--fold", "2", "--annotation", "points"]);
    insta::assert_snapshot!(complained(&annotation, &folder), @r"
    exit code 1
    error: `FOLDER/set.h5` cannot be trained on
      caused by: no case that fold 2 does not hold out has annotation `points` to learn from

    hint: choose another annotation, or pack the data set with this one
    ");
    for case in &mut dataset.cases {
        case.annotations.remove(DENSE);
        case.annotations.get_mut(SCRIBBLE).unwrap().fill(IGNORE);
    }
    let path = packed(&dataset, &folder);
    let output = check(&path, &[]);
    insta::assert_snapshot!(complained(&output, &folder), @r"
    exit code 1
    error: `FOLDER/set.h5` cannot be trained on
      caused by: no voxel of any case is annotated in `scribble`

    hint: look whether the labels were packed with the right values for classes and for unlabelled pixels; `--unlabelled` names the value of pixels that nobody annotated
    ");
    assert!(said(&output).contains("\nrefused: no voxel of any case"), "{}", said(&output));
    let json: serde_json::Value =
        serde_json::from_slice(&check(&path, &["--json"]).stdout).unwrap();
    assert_eq!(json["is_trainable"], false);
    assert_eq!(json["findings"][0]["severity"], "refused");
    assert_eq!(json["findings"][0]["about"], "nothing_annotated");
}

#[test]
fn a_damaged_file_is_refused_before_anything_is_said_of_it() {
    let folder = TempDir::new().unwrap();
    let path = packed(&small(), &folder);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let output = check(&path, &["--json"]);
    assert!(output.stdout.is_empty());
    let complaint = complained(&output, &folder);
    assert!(complaint.starts_with("exit code 1\nerror: `FOLDER/set.h5` is damaged"), "{complaint}");
}
