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
    insta::assert_snapshot!(said(&checked), @"");
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
    insta::assert_snapshot!(complained(&fold, &folder), @"");
    let annotation = check(&path, &["--fold", "2", "--annotation", "points"]);
    insta::assert_snapshot!(complained(&annotation, &folder), @"");
    for case in &mut dataset.cases {
        case.annotations.remove(DENSE);
        case.annotations.get_mut(SCRIBBLE).unwrap().fill(IGNORE);
    }
    let path = packed(&dataset, &folder);
    let output = check(&path, &[]);
    insta::assert_snapshot!(complained(&output, &folder), @"");
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
