//! WORD in its own folder: which case comes from which files, which organs and which box are kept, and what is refused.

use crate::data::{text, write_nifti};
use scrimp::data::import::{Source, word};
use scrimp::data::simulated::{Drawing, Simulation};
use scrimp::data::{DENSE, Dataset, IGNORE, SCRIBBLE};
use scrimp::error::Result;
use scrimp::preparation::{Crop, Intensities};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SHAPE: [usize; 3] = [26, 30, 50];
const SPACING_MM: [f32; 3] = [3.0, 1.0, 0.5];
const SIMULATION: Simulation =
    Simulation { drawing: Drawing::Walk { halvings: 0 }, every: 2, seed: 1 };

/// Voxels by slice, row and column.
fn voxels(value: impl Fn([usize; 3]) -> i16) -> Vec<i16> {
    let [_, rows, columns] = SHAPE;
    let place = |i: usize| [i / (rows * columns), i / columns % rows, i % columns];
    (0..SHAPE.iter().product()).map(place).map(value).collect()
}

fn write(folder: &Path, path: &str, values: &[i16]) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_nifti(&path, SHAPE, SPACING_MM, values);
}

/// Hounsfield units that say where a voxel is.
fn image() -> Vec<i16> {
    voxels(|[slice, row, column]| -200 + (slice + 10 * row + column) as i16)
}

/// A liver and, next to it, a pancreas; an oesophagus, which is background here, in a corner.
fn dense() -> Vec<i16> {
    voxels(|at| match at {
        [22..=24, 8..=15, 22..=26] => 1,
        [22..=24, 8..=15, 27..=29] => 8,
        [0, 0, 0] => 7,
        _ => 0,
    })
}

/// What somebody drew of it.
fn scribble() -> Vec<i16> {
    voxels(|at| match at {
        [23, 10, 22..=26] => 1,
        [23, 12, 27..=29] => 8,
        [0, 0, 0] => 7,
        [23, 20, 10..=20] => 0,
        _ => 255,
    })
}

/// Two cases to train on, one to validate and one to test with, in the folder of the data set.
fn package() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (part, number) in [("Tr", 1), ("Tr", 10), ("Val", 3), ("Ts", 2)] {
        let name = format!("word_{number:04}.nii");
        write(folder.path(), &format!("images{part}/{name}"), &image());
        write(folder.path(), &format!("labels{part}/{name}"), &dense());
        if part == "Tr" {
            write(folder.path(), &format!("scribblesTr/{name}"), &scribble());
        }
    }
    folder
}

fn import(folder: &Path, simulation: Option<Simulation>) -> Result<(Dataset, Vec<String>)> {
    let source = word::open(folder, simulation)?;
    let (count, notes) = (source.case_count, source.notes.clone());
    let dataset = Source::collect(source)?;
    assert_eq!(dataset.test_fold, Some(2));
    assert_eq!(dataset.cases.len(), count);
    let clean = |note: String| note.replace(folder.to_str().unwrap(), "FOLDER");
    Ok((dataset, notes.take().into_iter().map(clean).collect()))
}

#[test]
fn organs_are_kept_with_what_lies_around_them() {
    let folder = package();
    let (dataset, notes) = import(folder.path(), None).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let described = dataset.cases.iter().map(|case| {
        let kinds: Vec<&str> = case.annotations.keys().map(String::as_str).collect();
        (case.name.as_str(), case.fold, kinds)
    });
    assert_eq!(
        described.collect::<Vec<_>>(),
        [
            ("word_0001", 0, vec![DENSE, SCRIBBLE]),
            ("word_0002", 2, vec![DENSE]),
            ("word_0003", 1, vec![DENSE]),
            ("word_0010", 0, vec![DENSE, SCRIBBLE]),
        ]
    );
    // Of slices 22 to 24, rows 8 to 15, columns 22 to 29: 20 before the first, 19 behind the last.
    let first = [2, 0, 2];
    for case in &dataset.cases {
        case.check(dataset.classes.len()).unwrap();
        let grid = &case.scan.grid;
        assert_eq!((grid.shape, grid.spacing_mm), ([24, 30, 47], Some([3.0, 1.0, 0.5])));
        assert_eq!(grid.position_mm([0.0; 3]), Some([1.0, 0.0, 6.0]));
        let at = |[slice, row, column]: [usize; 3]| {
            ((slice - first[0]) * 30 + row - first[1]) * 47 + column - first[2]
        };
        // -200 + 2 + 2 is cut, -200 + 24 + 150 + 22 is not, 250 is reached nowhere.
        assert_eq!(case.scan.voxels[at([2, 0, 2])], 0.0);
        let expected = (-4.0 + 150.0) / 400.0;
        assert!((f64::from(case.scan.voxels[at([24, 15, 22])]) - expected).abs() < 1e-7);
        let label = |kind: &str, place| case.annotations[kind][at(place)];
        assert_eq!([[23, 9, 22], [22, 8, 29], [2, 0, 2]].map(|p| label(DENSE, p)), [1, 7, 0]);
        if case.fold == 0 {
            let places = [[23, 10, 22], [23, 12, 27], [23, 20, 10], [23, 20, 21]];
            assert_eq!(places.map(|p| label(SCRIBBLE, p)), [1, 7, 0, IGNORE]);
        }
    }
    let preparation = dataset.preparation.unwrap();
    assert_eq!(preparation.crop, Crop::None, "no new scan has labels");
    let window = Intensities::Window { low: -150.0, high: 250.0 };
    assert_eq!(preparation.channels[0].intensities, window);
}

#[test]
fn scribbles_are_found_under_other_names_and_dense_labels_may_be_missing() {
    let folder = package();
    let path = |name: &str| folder.path().join(name);
    let (expected, _) = import(folder.path(), None).unwrap();
    for name in ["word_0001", "word_0010"] {
        let [from, to] = ["", "_scribble"].map(|more| format!("scribblesTr/{name}{more}.nii"));
        fs::rename(path(&from), path(&to)).unwrap();
    }
    fs::rename(path("scribblesTr"), path("Scribble")).unwrap();
    fs::remove_dir_all(path("labelsTr")).unwrap();
    fs::remove_file(path("labelsTs/word_0002.nii")).unwrap();
    let inside = path("WORD-V0.1.0");
    fs::create_dir(&inside).unwrap();
    for part in ["imagesTr", "Scribble", "imagesVal", "labelsVal", "imagesTs", "labelsTs"] {
        fs::rename(path(part), inside.join(part)).unwrap();
    }
    let (dataset, notes) = import(folder.path(), None).unwrap();
    assert_eq!(
        notes,
        [
            "left out, for there are no labels to score with: `FOLDER/WORD-V0.1.0/imagesTs/word_0002.nii`"
        ]
    );
    let names: Vec<&str> = dataset.cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["word_0001", "word_0003", "word_0010"]);
    let [drawn, all] = [&dataset, &expected].map(|dataset| &dataset.cases[0]);
    assert!(!drawn.annotations.contains_key(DENSE));
    // The box of what is drawn: one slice, rows 10 to 12, the same columns.
    assert_eq!((drawn.scan.grid.shape, all.scan.grid.shape), ([23, 30, 47], [24, 30, 47]));
}

#[test]
fn simulated_scribbles_are_those_of_cases_to_train_on() {
    let folder = package();
    fs::remove_dir_all(folder.path().join("scribblesTr")).unwrap();
    insta::assert_snapshot!(text(import(folder.path(), None), folder.path()), @r"
    error: no folder of scribbles in `FOLDER`

    hint: looked for `scribblesTr`, or another folder with `scribble` in its name
    hint: `--simulate` draws scribbles from the dense labels of `labelsTr`
    ");
    let (dataset, _) = import(folder.path(), Some(SIMULATION)).unwrap();
    assert_eq!(dataset.cases, import(folder.path(), Some(SIMULATION)).unwrap().0.cases);
    let last = dataset.provenance.lines().last().unwrap();
    assert!(last.ends_with("on one slice of every 2, seed 1."), "{last}");
    for case in &dataset.cases {
        let Some(drawn) = case.annotations.get(SCRIBBLE) else {
            assert!(case.fold > 0);
            continue;
        };
        assert_eq!(case.fold, 0);
        let dense = &case.annotations[DENSE];
        let pixels = case.scan.grid.pixels();
        let known = drawn.iter().enumerate().filter(|(_, label)| **label != IGNORE);
        assert!(known.clone().all(|(voxel, label)| dense[voxel] == *label));
        assert!(known.clone().all(|(voxel, _)| (voxel / pixels) % 2 == 0));
        assert!(known.clone().any(|(_, label)| *label == 1));
        assert!(known.clone().any(|(_, label)| *label == 0));
    }
    // Drawn anew they are still those of cases to train on.
    let mut again = dataset.clone();
    let other = Simulation { drawing: Drawing::Points { count: 1 }, ..SIMULATION };
    other.annotate(&mut again, 1, &|| ()).unwrap();
    for (before, after) in dataset.cases.iter().zip(&again.cases) {
        let [before, after] = [before, after].map(|case| case.annotations.get(SCRIBBLE));
        assert_eq!(before.is_some(), after.is_some());
        assert!(before.is_none() || before != after);
    }
    fs::remove_file(folder.path().join("labelsTr/word_0010.nii")).unwrap();
    insta::assert_snapshot!(text(import(folder.path(), Some(SIMULATION)), folder.path()), @r"
    error: image `FOLDER/imagesTr/word_0010.nii` has no labels to draw scribbles from

    hint: looked for `word_0010.nii.gz` in `labelsTr`
    ");
}

/// What is said of a folder after `damage`.
fn damaged(damage: impl FnOnce(&Path)) -> String {
    let folder = package();
    damage(folder.path());
    text(import(folder.path(), None), folder.path())
}

#[test]
fn folders_that_are_something_else_are_refused_in_words() {
    let remove =
        |path: &'static str| move |folder: &Path| fs::remove_file(folder.join(path)).unwrap();
    insta::assert_snapshot!(damaged(remove("scribblesTr/word_0010.nii")), @r"
    error: image `FOLDER/imagesTr/word_0010.nii` has no scribbles

    hint: looked for `word_0010.nii.gz` in `FOLDER/scribblesTr`
    hint: `--simulate` draws scribbles for all images from their dense labels
    ");
    insta::assert_snapshot!(damaged(remove("labelsVal/word_0003.nii")), @r"
    error: image `FOLDER/imagesVal/word_0003.nii` has no labels

    hint: looked for `word_0003.nii.gz` in `labelsVal`
    ");
    insta::assert_snapshot!(damaged(remove("imagesTr/word_0001.nii")), @r"
    error: labels `FOLDER/labelsTr/word_0001.nii` have no image

    hint: put the image into `imagesTr`, or remove them
    ");
    insta::assert_snapshot!(damaged(|folder| {
        write(folder, "imagesVal/word_0001.nii", &image());
        write(folder, "labelsVal/word_0001.nii", &dense());
    }), @r"
    error: `FOLDER/imagesTr/word_0001.nii` is in `imagesVal` too

    hint: remove one: it cannot be held out and trained on
    ");
    insta::assert_snapshot!(damaged(|folder| {
        fs::create_dir(folder.join("other_scribbles")).unwrap();
    }), @r"
    error: `FOLDER/other_scribbles` and `FOLDER/scribblesTr` both seem to hold scribbles to train on, expected one folder

    hint: move one of them away
    ");
    insta::assert_snapshot!(damaged(|folder| {
        write(folder, "scribblesTr/word_0001.nii", &voxels(|[_, _, column]| column as i16));
    }), @"error: `FOLDER/scribblesTr/word_0001.nii` holds label 17 in slice 0 at row 0, column 17, expected 0 to 16 or 255 for unlabelled");
    let nothing = damaged(|folder| fs::remove_dir_all(folder.join("imagesTr")).unwrap());
    assert!(nothing.starts_with("error: cannot list `FOLDER/imagesTr`"), "{nothing}");
    assert!(nothing.contains("with `imagesTr`, `labelsTr` and `scribblesTr`"), "{nothing}");
}

#[test]
fn a_scan_without_organs_is_kept_whole() {
    let folder = package();
    write(folder.path(), "labelsVal/word_0003.nii", &voxels(|_| 9));
    let (dataset, notes) = import(folder.path(), None).unwrap();
    assert_eq!(dataset.cases[2].scan.grid.shape, SHAPE);
    assert_eq!(notes, ["without any of the organs, and kept whole: `word_0003`"]);
}
