//! MSCMR in the folders of CycleMix: which case comes from which files, and what is refused.

use crate::data::{text, write_nifti};
use crate::nifti_files::{File, VOXELS, file};
use crate::skips::skipped;
use scrimp::data::import::{Source, Steps, mscmr};
use scrimp::data::{DENSE, Dataset, IGNORE, SCRIBBLE};
use scrimp::error::Result;
use scrimp::preparation::intensities::scale;
use scrimp::preparation::{Intensities, Interpolation, Over, Scaling, Spacing};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SHAPE: [usize; 3] = [1, 2, 3];
const SPACING_MM: [f32; 3] = [5.0, 0.75, 0.5];
const IMAGE: [i16; 6] = [10, 20, 30, 40, 50, 60];

fn write(folder: &Path, path: &str, values: [i16; 6]) -> PathBuf {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_nifti(&path, SHAPE, SPACING_MM, &values);
    path
}

/// Two patients to train on, one to score with, and a mask without image.
fn package() -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["subject2", "subject10"] {
        write(folder.path(), &format!("train/images/{name}_DE.nii"), IMAGE);
        let scribble = [0, 1, 2, 3, 4, 4];
        write(folder.path(), &format!("train/labels/{name}_DE_scribble.nii"), scribble);
    }
    write(folder.path(), "val/images/subject1_DE.nii", IMAGE);
    write(folder.path(), "val/labels/subject1_DE_manual.nii", [0, 1, 2, 3, 0, 0]);
    write(folder.path(), "TestSet/labels/subject3_DE_manual.nii", [0, 1, 2, 3, 0, 0]);
    folder
}

fn import(folder: &Path) -> Result<Dataset> {
    let dataset = mscmr::open(folder, &Steps::as_published()).and_then(Source::collect)?;
    assert_eq!(dataset.test_fold, Some(2));
    Ok(dataset)
}

/// The labels of `TestSet` that no case is made of.
fn left_out(folder: &Path) -> Vec<String> {
    let source = mscmr::open(folder, &Steps::as_published()).unwrap();
    let inside = format!("`{}/TestSet/labels/", folder.display());
    let name = |what: &str| what.strip_prefix(&inside).unwrap().trim_end_matches('`').to_owned();
    source.notes.take_left_out().iter().map(|one| name(&one.what)).collect()
}

#[test]
fn train_has_scribbles_and_val_is_held_out() {
    let folder = package();
    let dataset = import(folder.path()).unwrap();
    let described = dataset.cases.iter().map(|case| {
        let kinds: Vec<&str> = case.annotations.keys().map(String::as_str).collect();
        (case.name.as_str(), case.patient.as_str(), case.fold, kinds)
    });
    assert_eq!(
        described.collect::<Vec<_>>(),
        [
            ("subject10_DE", "subject10", 0, vec![SCRIBBLE]),
            ("subject1_DE", "subject1", 1, vec![DENSE]),
            ("subject2_DE", "subject2", 0, vec![SCRIBBLE]),
        ]
    );
    for case in &dataset.cases {
        case.check(dataset.classes.len()).unwrap();
        assert_eq!(
            (case.scan.grid.shape, case.scan.grid.spacing_mm),
            (SHAPE, Some([5.0, 0.75, 0.5]))
        );
        assert_eq!(case.scan.voxels, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
    }
    assert_eq!(dataset.cases[0].annotations[SCRIBBLE], [0, 1, 2, 3, IGNORE, IGNORE]);
    assert_eq!(dataset.cases[1].annotations[DENSE], [0, 1, 2, 3, 0, 0]);
    assert_eq!(left_out(folder.path()), ["subject3_DE_manual.nii"]);
}

#[test]
fn tests_are_cases_where_their_images_are_there() {
    let folder = package();
    write(folder.path(), "TestSet/images/subject3_DE.nii", IMAGE);
    write(folder.path(), "TestSet/labels/subject5_DE_manual.nii", [0; 6]);
    let dataset = import(folder.path()).unwrap();
    let case = dataset.cases.iter().find(|case| case.name == "subject3_DE").unwrap();
    assert_eq!((case.patient.as_str(), case.fold), ("subject3", 2));
    assert_eq!(case.annotations[DENSE], [0, 1, 2, 3, 0, 0]);
    assert_eq!(dataset.cases.len(), 4);
    assert_eq!(left_out(folder.path()), ["subject5_DE_manual.nii"]);
    assert!(
        dataset.provenance.contains("val (dense labels, fold 1), TestSet (dense labels, fold 2)")
    );
    let said = damaged(|folder| drop(write(folder, "TestSet/images/subject2_DE.nii", IMAGE)));
    assert!(said.contains("image `FOLDER/TestSet/images/subject2_DE.nii` has no labels"), "{said}");
    let said = damaged(|folder| {
        write(folder, "TestSet/images/subject1_DE.nii", IMAGE);
        write(folder, "TestSet/labels/subject1_DE_manual.nii", [0; 6]);
    });
    assert!(said.contains("`FOLDER/val/images/subject1_DE.nii` is in `TestSet` too"), "{said}");
}

#[test]
fn another_spacing_and_other_intensities_can_be_wished_for() {
    let folder = package();
    let z_score = Intensities::ZScore { over: Over::All };
    let steps = Steps {
        spacing: Spacing::InPlane([0.75, 1.5]),
        interpolation: Interpolation::Linear,
        scaling: vec![Scaling::By(z_score)],
        ..Steps::as_published()
    };
    let dataset = mscmr::open(folder.path(), &steps).and_then(Source::collect).unwrap();
    let preparation = dataset.preparation.unwrap();
    assert_eq!(preparation.interpolation, Interpolation::Linear);
    assert_eq!(preparation.channels[0].intensities, z_score);
    for case in &dataset.cases {
        case.check(4).unwrap();
        assert_eq!(case.scan.grid.shape, [1, 2, 1]);
        assert_eq!(case.scan.grid.spacing_mm, Some([5.0, 0.75, 1.5]));
        // The mean was 0 before three columns became one, of which the middle counts most.
        assert!((case.scan.voxels[0] + case.scan.voxels[1]).abs() < 1e-6);
    }
    // The middle column holds the label of the only one that is left.
    assert_eq!(dataset.cases[0].annotations[SCRIBBLE], [1, IGNORE]);
    assert_eq!(dataset.cases[1].annotations[DENSE], [1, 0]);
    assert!(!dataset.provenance.contains("0.99"), "{}", dataset.provenance);
}

#[test]
fn numbers_that_their_file_scales_keep_their_precision_until_they_are_prepared() {
    let folder = package();
    let stored: Vec<f64> = (0..VOXELS).map(|voxel| (voxel * voxel * 7) as f64).collect();
    let slope = 2.212_497f32;
    let image = File { scaling: [slope, 0.0], ..file(&stored) };
    let at = |path: &str| folder.path().join(path);
    fs::write(at("val/images/subject1_DE.nii"), image.bytes()).unwrap();
    let labels = file(&[0.0; VOXELS]).bytes();
    fs::write(at("val/labels/subject1_DE_manual.nii"), labels).unwrap();
    let voxels = import(folder.path()).unwrap().cases.swap_remove(1).scan.voxels;
    let exact: Vec<f64> = stored.iter().map(|value| value * f64::from(slope)).collect();
    let rounded: Vec<f32> = exact.iter().map(|&value| value as f32).collect();
    assert_eq!(voxels, scale(Intensities::Published, &exact).unwrap());
    assert_ne!(voxels, scale(Intensities::Published, &rounded).unwrap());
}

/// What is said after `damage` was done to a sound package.
fn damaged(damage: impl FnOnce(&Path)) -> String {
    let folder = package();
    damage(folder.path());
    text(import(folder.path()), folder.path())
}

#[test]
fn folders_and_files_that_are_missing_are_named() {
    let remove = |path: &'static str| {
        move |folder: &Path| match folder.join(path) {
            path if path.is_dir() => fs::remove_dir_all(path).unwrap(),
            path => fs::remove_file(path).unwrap(),
        }
    };
    insta::assert_snapshot!(damaged(remove("val/labels")), @r"
    error: cannot list `FOLDER/val/labels`
      caused by: No such file or directory (os error 2)

    hint: `--from` takes the folder with `train` and `val` in it, each with `images` such as `subject2_DE.nii.gz` and `labels` such as `subject2_DE_scribble.nii.gz`, in `val` `_manual.nii.gz`
    ");
    insta::assert_snapshot!(damaged(remove("train/labels/subject2_DE_scribble.nii")), @r"
    error: image `FOLDER/train/images/subject2_DE.nii` has no labels

    hint: looked for `subject2_DE_scribble.nii.gz` in `train/labels`
    ");
    insta::assert_snapshot!(damaged(remove("val/images/subject1_DE.nii")), @r"
    error: labels `FOLDER/val/labels/subject1_DE_manual.nii` have no image

    hint: put the image into `val/images`, or remove them
    ");
    insta::assert_snapshot!(damaged(|folder| {
        remove("val/labels/subject1_DE_manual.nii")(folder);
        remove("val/images/subject1_DE.nii")(folder);
    }), @r"
    error: no images in `FOLDER/val/images`

    hint: `--from` takes the folder with `train` and `val` in it, each with `images` such as `subject2_DE.nii.gz` and `labels` such as `subject2_DE_scribble.nii.gz`, in `val` `_manual.nii.gz`
    ");
}

#[test]
fn nobody_is_trained_on_and_held_out() {
    insta::assert_snapshot!(damaged(|folder| {
        write(folder, "val/images/subject2_DE.nii", IMAGE);
        write(folder, "val/labels/subject2_DE_manual.nii", [0; 6]);
    }), @r"
    error: `FOLDER/train/images/subject2_DE.nii` is in `val` too

    hint: remove one: it cannot be held out and trained on
    ");
}

#[test]
fn broken_files_are_named() {
    let scribble = "train/labels/subject2_DE_scribble.nii";
    insta::assert_snapshot!(damaged(|folder| {
        write(folder, scribble, [0, 1, 2, 3, 5, 4]);
    }), @"error: `FOLDER/train/labels/subject2_DE_scribble.nii` holds label 5 in slice 0 at row 1, column 1, expected 0 to 3 or 4 for unlabelled");
    insta::assert_snapshot!(damaged(|folder| {
        write(folder, "val/labels/subject1_DE_manual.nii", [0, 1, 2, 3, 4, 4]);
    }), @"error: `FOLDER/val/labels/subject1_DE_manual.nii` holds label 4 in slice 0 at row 1, column 1, expected 0 to 3");
    insta::assert_snapshot!(damaged(|folder| {
        write_nifti(&folder.join(scribble), [1, 3, 2], SPACING_MM, &[0; 6]);
    }), @r"
    error: `FOLDER/train/labels/subject2_DE_scribble.nii` has shape [1, 3, 2] along the axes of its image, expected [1, 2, 3]

    hint: draw or resample the labels on the image itself
    ");
    insta::assert_snapshot!(damaged(|folder| {
        let path = folder.join("train/images/subject2_DE.nii");
        fs::write(&path, &fs::read(&path).unwrap()[..355]).unwrap();
    }), @r"
    error: `FOLDER/train/images/subject2_DE.nii` is cut off: it holds 3 of the 12 bytes of its voxels

    hint: copy it again
    ");
    insta::assert_snapshot!(damaged(|folder| {
        let path = folder.join("train/images/subject2_DE.nii");
        let header = fs::read(&path).unwrap()[..300].to_vec();
        fs::remove_file(&path).unwrap();
        // A gzip member with one stored block of 364 bytes, of which 64 are missing.
        let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1, 0x6c, 0x01, 0x93, 0xfe];
        fs::write(path.with_extension("nii.gz"), [&gzip[..], &header].concat()).unwrap();
    }), @r"
    error: `FOLDER/train/images/subject2_DE.nii.gz` is damaged
      caused by: incomplete deflate stream
    ");
    insta::assert_snapshot!(damaged(|folder| {
        write(folder, "train/images/subject2_DE.nii", [7; 6]);
    }), @r"
    error: cannot prepare `FOLDER/train/images/subject2_DE.nii`
      caused by: all voxels of the image are 7, expected more than one intensity
    ");
}

#[test]
fn the_real_package_has_its_cases() {
    let Some(folder) = std::env::var_os("SCRIMP_DATA_DIR") else {
        skipped("SCRIMP_DATA_DIR does not say where real data are");
        return;
    };
    let folder = PathBuf::from(folder).join("MSCMR_dataset");
    let source = mscmr::open(&folder, &Steps::as_published()).unwrap();
    assert_eq!((source.case_count, left_out(&folder).len()), (30, 15));
    let (mut slices, mut scribbled, mut pixels) = ([0, 0], [0usize; 256], 0);
    for case in source.cases {
        let case = case.unwrap();
        case.check(4).unwrap();
        slices[case.fold as usize] += case.scan.grid.shape[0];
        for &label in case.annotations.get(SCRIBBLE).into_iter().flatten() {
            scribbled[usize::from(label)] += 1;
            pixels += 1;
        }
    }
    assert_eq!(slices, [382, 75]);
    let share = |label: usize| scribbled[label] as f64 / f64::from(pixels);
    let published =
        [(0, 0.03295), (1, 0.00306), (2, 0.00398), (3, 0.00294), (usize::from(IGNORE), 0.95707)];
    for (label, expected) in published {
        assert!((share(label) - expected).abs() < 1e-5, "label {label}: {}", share(label));
    }
}
