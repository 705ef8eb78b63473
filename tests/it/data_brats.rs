//! BraTS volumes: which slices become which cases, whose they are, and what is refused.

use crate::data::{text, write_nifti};
use scrimp::data::import::Source;
use scrimp::data::import::brats::{Volumes, open};
use scrimp::data::{DENSE, Dataset, IMAGE_LABEL};
use scrimp::error::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Slices, rows, columns: squares of 20 x 20 are cut out of the middle.
const SHAPE: [usize; 3] = [20, 20, 24];
const SPACING_MM: [f32; 3] = [3.0, 1.0, 1.0];

/// Voxels by slice, row and column.
fn voxels(value: impl Fn(usize, usize, usize) -> i16) -> Vec<i16> {
    let [_, rows, columns] = SHAPE;
    let place = |i: usize| (i / (rows * columns), i / columns % rows, i % columns);
    (0..SHAPE.iter().product()).map(place).map(|(s, r, c)| value(s, r, c)).collect()
}

/// A brain of 16 x 16 with a tumour of labels 1, 2 and 4: 12 voxels in slices 4 to 9, 2 in slice 10.
fn volume(folder: &Path, name: &str, brightness: i16) {
    fs::create_dir_all(folder).unwrap();
    let inside = |row: usize, column: usize| (2..18).contains(&row) && (4..20).contains(&column);
    let image = voxels(|slice, row, column| {
        let level = brightness + (slice + 3 * row + 7 * column) as i16;
        if inside(row, column) { level } else { 0 }
    });
    let segmentation = voxels(|slice, row, column| match (slice, row, column) {
        (4..=9, 6..=8, 8..=11) => [1, 2, 4][row - 6],
        (10, 6, 8..=9) => 2,
        _ => 0,
    });
    write_nifti(&folder.join(format!("{name}_flair.nii")), SHAPE, SPACING_MM, &image);
    write_nifti(&folder.join(format!("{name}_seg.nii")), SHAPE, SPACING_MM, &segmentation);
}

/// Seven volumes of six patients, in the tree of the challenge and flat.
fn package() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (place, name) in [
        ("HGG/Brats18_A_1", "Brats18_A_1"),
        ("HGG/Brats18_B_1", "Brats18_B_1"),
        ("LGG/BraTS19_A_1", "BraTS19_A_1"),
        ("LGG/Brats18_C_1", "Brats18_C_1"),
        ("flat", "Brats18_D_1"),
        ("flat", "Brats18_E_1"),
        ("flat", "Brats18_F_1"),
    ] {
        volume(&folder.path().join(place), name, 100);
    }
    folder
}

fn wanted(folder: &Path) -> Volumes {
    Volumes {
        folder: folder.to_owned(),
        size: 16,
        min_lesion: 4,
        every: 2,
        depth_percent: [30, 80],
        held_out_shares: [0.15, 0.15],
        seed: 1,
    }
}

fn import(volumes: &Volumes) -> Result<Dataset> {
    let source = open(volumes)?;
    let count = source.case_count;
    let dataset = Source::collect(source)?;
    assert_eq!(dataset.test_fold, Some(2));
    assert_eq!(dataset.cases.len(), count);
    Ok(dataset)
}

#[test]
fn slices_are_diseased_healthy_or_left_out() {
    let folder = package();
    let dataset = import(&wanted(folder.path())).unwrap();
    let mut slices = BTreeMap::<_, BTreeSet<_>>::new();
    for case in &dataset.cases {
        case.check(dataset.classes.len()).unwrap();
        assert_eq!((case.scan.grid.shape, case.scan.channels), ([1, 16, 16], 3));
        assert_eq!(case.scan.grid.spacing_mm, Some([3.0, 1.25, 1.25]));
        let (volume, slice) = case.name.rsplit_once('_').unwrap();
        let (kind, labels) = case.annotations.iter().next().unwrap();
        let class =
            if kind == IMAGE_LABEL { labels[0] } else { labels.iter().copied().max().unwrap() };
        let part = volume.split_once('-').unwrap().0;
        slices.entry((part, kind.as_str(), class, case.fold)).or_default().insert(slice);
    }
    // From slice 6, 30 % of 20, to 16, 80 %; slice 10 has a lesion of two pixels only.
    let expected = [
        (("test", DENSE, 1, 2), ["006", "008"].into()),
        (("train", IMAGE_LABEL, 0, 0), ["012", "014", "016"].into()),
        (("train", IMAGE_LABEL, 1, 0), ["006", "008"].into()),
        (("val", DENSE, 1, 1), ["006", "008"].into()),
    ];
    assert_eq!(slices, expected.into());
    assert!(dataset.cases.windows(2).all(|pair| pair[0].name < pair[1].name));
}

#[test]
fn patients_are_on_one_side_whatever_the_year() {
    let folder = package();
    let mut splits = BTreeSet::new();
    for seed in 0..6 {
        let dataset = import(&Volumes { seed, ..wanted(folder.path()) }).unwrap();
        let mut folds = BTreeMap::<&str, BTreeSet<u32>>::new();
        for case in &dataset.cases {
            folds.entry(&case.patient).or_default().insert(case.fold);
        }
        assert!(folds.keys().copied().eq(["A_1", "B_1", "C_1", "D_1", "E_1", "F_1"]));
        assert!(folds.values().all(|folds| folds.len() == 1), "{folds:?}");
        let held_out = folds.values().filter(|folds| !folds.contains(&0)).count();
        assert_eq!(held_out, 2);
        splits.insert(folds.into_values().flatten().collect::<Vec<_>>());
    }
    assert!(splits.len() > 1, "another seed is another split");
    let again = || import(&wanted(folder.path())).unwrap();
    assert_eq!(again(), again());
}

#[test]
fn brightness_does_not_tell_the_class_and_black_is_background_alone() {
    let folder = package();
    let plain = import(&wanted(folder.path())).unwrap();
    volume(&folder.path().join("flat"), "Brats18_D_1", 4000);
    let brighter = import(&wanted(folder.path())).unwrap();
    assert_eq!(plain.cases, brighter.cases, "every volume has its own scale");
    let image = &plain.cases[0].scan.voxels;
    assert_eq!(image[..256], image[512..], "three equal channels");
    // Two columns beside the brain and the square's own corner stay black, the brain does not.
    assert_eq!((image[0], image[8 * 16]), (0.0, 0.0));
    assert!((3..13).all(|i| image[i * 16 + 8] > 0.0));
}

/// What is said of a package after `damage`.
fn damaged(damage: impl FnOnce(&Path, &mut Volumes)) -> String {
    let folder = package();
    let mut volumes = wanted(folder.path());
    damage(folder.path(), &mut volumes);
    text(import(&volumes), folder.path())
}

#[test]
fn volumes_and_segmentations_without_the_other_are_named() {
    let flat =
        |name: &'static str| move |folder: &Path| -> PathBuf { folder.join("flat").join(name) };
    let (image, segmentation) = (flat("Brats18_D_1_flair.nii"), flat("Brats18_D_1_seg.nii"));
    insta::assert_snapshot!(damaged(|folder, _| fs::remove_file(image(folder)).unwrap()), @r"
    error: segmentation `FOLDER/flat/Brats18_D_1_seg.nii` has no volume

    hint: put the FLAIR volume beside it, or remove it
    ");
    insta::assert_snapshot!(damaged(|folder, _| fs::remove_file(segmentation(folder)).unwrap()), @r"
    error: volume `FOLDER/flat/Brats18_D_1_flair.nii` has no segmentation

    hint: looked for `Brats18_D_1_seg.nii.gz` or `Brats18_D_1-seg.nii.gz` beside it
    hint: only the training set of the challenge has segmentations
    ");
    // Which of the two is named first depends on the file system.
    let twice = damaged(|folder, _| volume(&folder.join("HGG"), "Brats18_D_1", 7));
    assert!(twice.ends_with("have the same name, expected each volume once"), "{twice}");
    insta::assert_snapshot!(damaged(|folder, volumes| {
        volumes.folder = folder.join("empty");
        fs::create_dir(&volumes.folder).unwrap();
    }), @r"
    error: no FLAIR volumes in `FOLDER/empty`

    hint: `--from` takes the folder of the challenge's training set, in which, at any depth, `CASE_flair.nii.gz` and `CASE_seg.nii.gz` lie side by side
    ");
}

#[test]
fn volumes_that_cannot_be_used_are_named() {
    insta::assert_snapshot!(damaged(|folder, _| {
        let path = folder.join("flat/Brats18_D_1_seg.nii");
        write_nifti(&path, SHAPE, SPACING_MM, &voxels(|_, _, column| column as i16));
    }), @"error: `FOLDER/flat/Brats18_D_1_seg.nii` holds label 5 in slice 0 at row 0, column 5, expected 0 to 4");
    insta::assert_snapshot!(damaged(|folder, _| {
        let path = folder.join("flat/Brats18_D_1_seg.nii");
        write_nifti(&path, [20, 24, 20], SPACING_MM, &voxels(|slice, _, _| i16::from(slice == 6)));
    }), @r"
    error: `FOLDER/flat/Brats18_D_1_seg.nii` has shape [20, 24, 20] along the axes of its image, expected [20, 20, 24]

    hint: draw or resample the labels on the image itself
    ");
    insta::assert_snapshot!(damaged(|folder, _| {
        let path = folder.join("flat/Brats18_D_1_flair.nii");
        write_nifti(&path, SHAPE, SPACING_MM, &voxels(|_, _, _| 7));
    }), @r"
    error: cannot scale `FOLDER/flat/Brats18_D_1_flair.nii`
      caused by: nearly all voxels of the image that are not 0 are 7, expected more than one intensity
    ");
    insta::assert_snapshot!(damaged(|folder, _| {
        let path = folder.join("flat/Brats18_D_1_flair.nii");
        fs::write(&path, &fs::read(&path).unwrap()[..5000]).unwrap();
    }), @r"
    error: `FOLDER/flat/Brats18_D_1_flair.nii` is cut off: it holds 4648 of the 19200 bytes of its voxels

    hint: copy it again
    ");
}

#[test]
fn splits_and_slices_of_nothing_are_refused() {
    insta::assert_snapshot!(damaged(|_, volumes| volumes.min_lesion = 13), @r"
    error: the 4 patients to train on have no slice with 13 lesion pixels or more

    hint: take more slices with `--every`, `--depth-from` and `--depth-to`, or another `--min-lesion`
    hint: another `--seed` splits the patients in another way
    ");
    insta::assert_snapshot!(damaged(|_, volumes| volumes.depth_percent = [30, 48]), @r"
    error: the 4 patients to train on have no slice without any lesion

    hint: take more slices with `--every`, `--depth-from` and `--depth-to`, or another `--min-lesion`
    hint: another `--seed` splits the patients in another way
    ");
    insta::assert_snapshot!(damaged(|_, volumes| volumes.depth_percent = [80, 30]), @r"
    error: there are no slices from 80 to 30 per cent of the depth

    hint: `scrimp prepare brats --help` says what is assumed otherwise
    ");
    insta::assert_snapshot!(damaged(|_, volumes| volumes.held_out_shares = [0.5, 0.5]), @r"
    error: shares of 0.5 to validate and 0.5 to test leave no patients to train on or to validate with

    hint: `scrimp prepare brats --help` says what is assumed otherwise
    ");
    insta::assert_snapshot!(damaged(|folder, volumes| volumes.folder = folder.join("LGG")), @r"
    error: 2 patients cannot be split into 1 to validate, 1 to test and others to train on

    hint: add volumes, or hold out fewer with `--val-share` and `--test-share`
    ");
    insta::assert_snapshot!(damaged(|_, volumes| volumes.every = 0), @r"
    error: `--min-lesion` and `--every` must be at least 1

    hint: `scrimp prepare brats --help` says what is assumed otherwise
    ");
}
