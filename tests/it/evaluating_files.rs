//! `scrimp evaluate --predictions --labels`: finished label files of any program are scored, and what would
//! give wrong numbers is refused.

use crate::cli::{complaint, scrimp};
use crate::data::write_nifti;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

const SHAPE: [usize; 3] = [2, 3, 4];
const SPACING_MM: [f32; 3] = [8.0, 2.0, 1.5];

/// Two slices of three rows, with these numbers in the middle row of the first one.
fn volume(folder: &Path, name: &str, row: [i16; 4]) {
    let mut values = [0; 24];
    values[4..8].copy_from_slice(&row);
    write_nifti(&folder.join(name), SHAPE, SPACING_MM, &values);
}

fn picture(folder: &Path, name: &str, pixels: [u8; 4]) {
    let picture = image::GrayImage::from_raw(2, 2, pixels.to_vec()).unwrap();
    picture.save(folder.join(name)).unwrap();
}

/// Empty folders of predictions and labels.
fn folders() -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["predictions", "labels"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    folder
}

fn evaluate(folder: &Path, words: &[&str]) -> Output {
    let [predictions, labels] =
        ["predictions", "labels"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    let own = ["evaluate", "--predictions", &predictions, "--labels", &labels];
    scrimp(&[&own[..], words].concat())
}

fn named(text: &str, folder: &Path) -> String {
    text.replace(folder.to_str().unwrap(), "FOLDER")
}

/// What is said of a refusal, and that no table is written.
fn refusal(folder: &TempDir, words: &[&str]) -> String {
    let output = evaluate(folder.path(), words);
    assert!(!folder.path().join("predictions/scores.csv").exists());
    named(&complaint(&output), folder.path())
}

#[test]
fn volumes_are_scored_in_their_units_and_everything_else_in_the_folders_is_passed_over() {
    let folder = folders();
    let [predictions, labels] = ["predictions", "labels"].map(|name| folder.path().join(name));
    volume(&predictions, "a.nii", [1, 1, 0, 2]);
    volume(&labels, "a.nii", [0, 1, 1, 2]);
    volume(&predictions, "b.nii", [1, 1, 1, 1]);
    volume(&labels, "b.nii", [0, 0, 0, 2]);
    // What `scrimp predict` writes beside its labels, and somebody's notes.
    volume(&predictions, "b.uncertainty.nii", [7, 8, 9, 9]);
    fs::write(predictions.join("summary.json"), "{}").unwrap();
    fs::write(labels.join("._a.nii"), "").unwrap();
    let words = ["--classes", "background,liver,cyst", "--tolerance", "1.5"];
    let output = evaluate(folder.path(), &words);
    assert!(output.status.success(), "{}", complaint(&output));
    assert_eq!(complaint(&output), "exit code 0\n");
    let stdout = String::from_utf8_lossy(&output.stdout);
    insta::assert_snapshot!(named(&stdout, folder.path()), @"
    structure             Dice     IoU  HD95, mm  ASD, mm  NSD at 1.5 mm  volume error, ml    in %   cases  one-sided
    liver               0.2500  0.1667      1.50     0.75         0.5000             +0.05    +0.0       2          1
    cyst                0.5000  0.5000      0.00     0.00         0.5000             -0.01   -50.0       2          1
    mean                0.3750  0.3333      0.75     0.38         0.5000
    where one side lacks the structure, Dice, IoU and NSD are 0 and distances undefined; where both do, everything is undefined and left out of the means
    2 cases in `FOLDER/predictions/scores.csv`
    ");
    let table = fs::read_to_string(predictions.join("scores.csv")).unwrap();
    insta::assert_snapshot!(table, @"
    case,structure,dice,iou,hd95,asd,nsd,volume_error,volume_error_percent,unit,volume_unit,nsd_tolerance
    a,liver,0.5,0.3333333333333333,1.5,0.75,1,0,0,mm,ml,1.5
    a,cyst,1,1,0,0,1,0,0,mm,ml,1.5
    b,liver,0,0,,,0,0.096,,mm,ml,1.5
    b,cyst,0,0,,,0,-0.024,-100,mm,ml,1.5
    ");
    // A second time the table is replaced, as it is one. The means are those of the text above.
    let output = evaluate(folder.path(), &[&words[..], &["--json"]].concat());
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&facts["cases"], &facts["mean"]["dice"]), (&2.into(), &0.375.into()));
    let [liver, cyst] = [&facts["structures"][0], &facts["structures"][1]];
    assert_eq!((&liver["name"], &liver["hd95"]), (&"liver".into(), &1.5.into()));
    assert_eq!((&cyst["one_sided_cases"], &facts["unit"]), (&1.into(), &"mm".into()));
    assert!(facts["mean"]["volume_error"].is_null());
    // Dice by hand: of `a` 1/2 and 1, of `b` 0 and 0, of `c` there is nothing.
    volume(&predictions, "c.nii", [0; 4]);
    volume(&labels, "c.nii", [0; 4]);
    let output =
        evaluate(folder.path(), &[&words[..2], &["--convention", "scribblebench"]].concat());
    let stdout = String::from_utf8_lossy(&output.stdout);
    insta::assert_snapshot!(named(&stdout, folder.path()), @"
    structure             Dice   cases
    liver               0.2500       2
    cyst                0.5000       2
    mean of cases       0.3750       2
    1 case is left out of the mean: neither prediction nor truth has a structure
    3 cases in `FOLDER/predictions/scores.csv`
    ");
    let output = evaluate(folder.path(), &["--convention", "published"]);
    insta::assert_snapshot!(complaint(&output), @"
    exit code 2
    error: `--convention published` is a yardstick of folds, and these are files

    hint: take `native`, the default, or `scribblebench`
    ");
}

#[test]
fn masks_are_scored_in_pixels_by_the_values_that_they_have() {
    let folder = folders();
    picture(&folder.path().join("predictions"), "a.png", [0, 255, 255, 0]);
    picture(&folder.path().join("labels"), "a.PNG", [0, 255, 0, 0]);
    insta::assert_snapshot!(refusal(&folder, &[]), @"
    exit code 1
    error: cannot score `a`
      caused by: `FOLDER/predictions/a.png` holds label 255 in slice 0 at row 0, column 1, expected 0 to 254

    hint: say what values mean, as in `--classes 0=background,255=lesion`
    ");
    let table = folder.path().join("table.csv");
    let words = ["--classes", "0=background,255=lesion", "--to", table.to_str().unwrap()];
    let output = evaluate(folder.path(), &words);
    assert!(output.status.success(), "{}", complaint(&output));
    insta::assert_snapshot!(fs::read_to_string(table).unwrap(), @"
    case,structure,dice,iou,hd95,asd,nsd,volume_error,volume_error_percent,unit,volume_unit,nsd_tolerance
    a,lesion,0.6666666666666666,0.5,1.2727922061357855,0.7071067811865476,0.6666666666666666,1,100,voxel,voxel,1
    ");
}

#[test]
fn what_has_no_like_or_lies_elsewhere_is_refused() {
    let folder = folders();
    let [predictions, labels] = ["predictions", "labels"].map(|name| folder.path().join(name));
    insta::assert_snapshot!(refusal(&folder, &[]), @"
    exit code 2
    error: no label files in `FOLDER/predictions`, expected some that end in `.nii.gz`, `.nii`, `.hdr`, `.hdr.gz`, `.seg.nrrd`, `.nrrd`, `.nhdr`, `.mha`, `.mhd`, `.png`, `.bmp`, `.tif`, `.tiff`, `.npy`, `.npz`

    hint: name the folder that the files themselves lie in
    ");
    volume(&predictions, "a.nii", [0, 1, 1, 0]);
    volume(&predictions, "b.nii", [0, 1, 1, 0]);
    volume(&labels, "a_gt.nii", [0, 1, 1, 0]);
    insta::assert_snapshot!(refusal(&folder, &[]), @"
    exit code 2
    error: prediction `FOLDER/predictions/a.nii` and 1 more have no labels

    hint: labels need the names of the predictions; without prediction are `a_gt`
    ");
    volume(&labels, "a.nii", [0, 1, 1, 0]);
    volume(&labels, "b.nii", [0, 1, 1, 3]);
    insta::assert_snapshot!(refusal(&folder, &[]), @"
    exit code 2
    error: labels `FOLDER/labels/a_gt.nii` have no prediction

    hint: add each prediction that is missing, or move its labels elsewhere: means over fewer cases say less
    ");
    fs::remove_file(labels.join("a_gt.nii")).unwrap();
    insta::assert_snapshot!(refusal(&folder, &["--classes", "background,liver"]), @"
    exit code 1
    error: cannot score `b`
      caused by: `FOLDER/labels/b.nii` holds label 3 in slice 0 at row 1, column 3, expected 0 to 1

    hint: name every value in `--classes`, the background among them
    ");
    write_nifti(&labels.join("b.nii"), [1, 3, 4], SPACING_MM, &[1; 12]);
    insta::assert_snapshot!(refusal(&folder, &[]), @"
    exit code 1
    error: cannot score `b`
      caused by: `FOLDER/labels/b.nii` has shape [1, 3, 4], expected [2, 3, 4] as its image has

    hint: draw or resample the labels on the image itself
    ");
    write_nifti(&labels.join("b.nii"), SHAPE, [8.0, 2.0, 2.0], &[1; 24]);
    insta::assert_snapshot!(refusal(&folder, &[]), @"
    exit code 1
    error: cannot score `b`
      caused by: `FOLDER/labels/b.nii` has spacing [8.0, 2.0, 2.0], expected [8.0, 2.0, 1.5] as its image has

    hint: draw or resample the labels on the image itself
    ");
    fs::write(labels.join("b.nii"), "no image").unwrap();
    assert!(refusal(&folder, &[]).contains("`FOLDER/labels/b.nii`"));
}

#[test]
fn the_command_line_takes_a_run_or_two_folders() {
    let folder = folders();
    let said = |words: &[&str]| {
        let output = scrimp(&[&["evaluate"], words].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned()
    };
    let path = folder.path().to_str().unwrap();
    assert!(said(&[]).contains("required"));
    assert!(said(&["--predictions", path]).contains("required"));
    for of_files in [&["--labels", path][..], &["--tolerance", "2"], &["--images", path]] {
        let words = [&["runs/a"], of_files].concat();
        assert!(said(&words).contains("required"), "{of_files:?}");
    }
    let (images, files) = (["--images", path], ["--predictions", path, "--labels", path]);
    assert!(said(&[&images[..], &["--labels", path]].concat()).contains("required"));
    let of_a_fold = ["runs/a", "--labels", path, "--fold", "1"];
    for (one, other) in [(&["runs/a"][..], &files[..]), (&images, &files), (&images, &of_a_fold)] {
        assert!(said(&[one, other].concat()).contains("cannot be used with"), "{one:?} {other:?}");
    }
    for wrong in ["-1", "nan", "inf", "far"] {
        let tolerance = format!("--tolerance={wrong}");
        let words = ["--predictions", path, "--labels", path, &tolerance];
        assert!(said(&words).contains("invalid value"), "{wrong}");
    }
}
