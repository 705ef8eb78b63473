//! BraTS in four modalities: channels, box, classes, split and simulated scribbles, and what is refused.

use crate::data::{text, write_nifti};
use scrimp::data::import::Source;
use scrimp::data::import::brats_scribbles::{Volumes, open};
use scrimp::data::simulated::{Drawing, Simulation};
use scrimp::data::{DENSE, Dataset, IGNORE, SCRIBBLE};
use scrimp::error::Result;
use scrimp::preparation::intensities::scale;
use scrimp::preparation::{Crop, Intensities};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SHAPE: [usize; 3] = [6, 24, 26];
const SPACING_MM: [f32; 3] = [2.0, 1.0, 1.5];
/// The channels by what the names of their files end with.
const ENDINGS: [&str; 4] = ["t1", "t1ce", "t2", "flair"];

/// Voxels by slice, row and column.
fn voxels(value: impl Fn([usize; 3]) -> i16) -> Vec<i16> {
    let [_, rows, columns] = SHAPE;
    let place = |i: usize| [i / (rows * columns), i / columns % rows, i % columns];
    (0..SHAPE.iter().product()).map(place).map(value).collect()
}

/// A brain in slices 1 to 4 (of FLAIR 5), rows 2 to 20, columns 3 to 22, each channel with numbers of its own.
fn channel(index: usize) -> Vec<i16> {
    let last = if index == 3 { 5 } else { 4 };
    voxels(|[slice, row, column]| {
        let is_inside =
            (1..=last).contains(&slice) && (2..=20).contains(&row) && (3..=22).contains(&column);
        let level = 100 * (index + 1) + (slice * 31 + row * 7 + column * 3) % 97;
        if is_inside { level as i16 } else { 0 }
    })
}

fn volume(folder: &Path, name: &str) {
    fs::create_dir_all(folder).unwrap();
    let file = |ending: &str| folder.join(format!("{name}_{ending}.nii"));
    for (index, ending) in ENDINGS.into_iter().enumerate() {
        write_nifti(&file(ending), SHAPE, SPACING_MM, &channel(index));
    }
    let segmentation = voxels(|at| match at {
        [2..=3, 5..=9, 5..=8] => 1,
        [2..=3, 5..=9, 9..=12] => 4,
        [2..=3, 10..=15, 5..=12] => 2,
        _ => 0,
    });
    write_nifti(&file("seg"), SHAPE, SPACING_MM, &segmentation);
}

fn package() -> TempDir {
    let folder = TempDir::new().unwrap();
    for number in 1..=6 {
        let name = format!("BraTS20_Training_{number:03}");
        volume(&folder.path().join(&name), &name);
    }
    folder
}

fn wanted(folder: &Path) -> Volumes {
    let simulation = Simulation { drawing: Drawing::Walk { halvings: 0 }, every: 1, seed: 5 };
    Volumes { folder: folder.to_owned(), held_out_shares: [0.2, 0.2], simulation }
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
fn four_modalities_lie_over_each_other_within_the_box_of_all() {
    let folder = package();
    let dataset = import(&wanted(folder.path())).unwrap();
    assert_eq!(dataset.classes, ["background", "tumour core", "oedema"]);
    // Of slices 1 to 5, rows 2 to 20 and columns 3 to 22 without the last ones.
    let shape = [4, 18, 19];
    let expected = [0, 1, 2, 3].map(|index| {
        let values: Vec<f32> = channel(index).into_iter().map(f32::from).collect();
        let at = |[slice, row, column]: [usize; 3]| (slice * 24 + row) * 26 + column;
        let kept = (1..5).flat_map(|z| (2..20).flat_map(move |y| (3..22).map(move |x| [z, y, x])));
        let kept: Vec<f32> = kept.map(|voxel| values[at(voxel)]).collect();
        scale(Intensities::PublishedBrats, &kept).unwrap()
    });
    for case in &dataset.cases {
        case.check(3).unwrap();
        let grid = &case.scan.grid;
        assert_eq!((grid.shape, case.scan.channels), (shape, 4));
        assert_eq!(grid.position_mm([0.0; 3]), Some([4.5, 2.0, 2.0]));
        let plane = grid.pixels();
        for slice in 0..4 {
            let wanted: Vec<f32> =
                expected.iter().flat_map(|of| of[slice * plane..][..plane].to_vec()).collect();
            assert_eq!(case.scan.slice(slice), wanted);
        }
        let dense = |slice: usize, row: usize, column: usize| {
            case.annotations[DENSE][((slice - 1) * 18 + row - 2) * 19 + column - 3]
        };
        let found = [dense(2, 5, 5), dense(3, 9, 12), dense(2, 15, 12), dense(1, 5, 5)];
        assert_eq!(found, [1, 1, 2, 0]);
    }
    let preparation = dataset.preparation.unwrap();
    let names: Vec<&str> = preparation.channels.iter().map(|c| c.name.as_str()).collect();
    assert_eq!((preparation.crop, names.as_slice()), (Crop::NonzeroButLast, &ENDINGS[..]));
}

#[test]
fn only_cases_to_train_on_have_scribbles_and_seeds_say_which() {
    let folder = package();
    let mut splits = BTreeSet::new();
    for seed in 0..6 {
        let mut volumes = wanted(folder.path());
        volumes.simulation.seed = seed;
        let dataset = import(&volumes).unwrap();
        let folds: Vec<u32> = dataset.cases.iter().map(|case| case.fold).collect();
        let count = |fold: u32| folds.iter().filter(|&&other| other == fold).count();
        assert_eq!([0, 1, 2].map(count), [4, 1, 1]);
        for case in &dataset.cases {
            let drawn = case.annotations.get(SCRIBBLE);
            assert_eq!(drawn.is_some(), case.fold == 0);
            let dense = &case.annotations[DENSE];
            let labels = drawn.into_iter().flatten().zip(dense);
            let known: Vec<_> = labels.filter(|(label, _)| **label != IGNORE).collect();
            assert!(known.iter().all(|(label, truth)| label == truth));
            if case.fold == 0 {
                let shown: BTreeSet<u8> = known.iter().map(|(label, _)| **label).collect();
                assert_eq!(shown, [0, 1, 2].into());
            }
        }
        assert_eq!(dataset, import(&volumes).unwrap());
        splits.insert(folds);
    }
    assert!(splits.len() > 1, "another seed is another split");
}

#[test]
fn what_is_missing_is_named() {
    let said = |damage: &dyn Fn(&Path, &mut Volumes)| {
        let folder = package();
        let mut volumes = wanted(folder.path());
        damage(folder.path(), &mut volumes);
        text(import(&volumes), folder.path())
    };
    let file = |folder: &Path, ending: &str| {
        folder.join(format!("BraTS20_Training_003/BraTS20_Training_003_{ending}.nii"))
    };
    insta::assert_snapshot!(said(&|folder, _| fs::remove_file(file(folder, "t1ce")).unwrap()), @r"
    error: case `BraTS20_Training_003` has no T1ce volume

    hint: looked for `BraTS20_Training_003_t1ce.nii.gz` or `BraTS20_Training_003-t1c.nii.gz` at any depth
    ");
    insta::assert_snapshot!(said(&|folder, _| fs::remove_file(file(folder, "seg")).unwrap()), @r"
    error: volume `FOLDER/BraTS20_Training_003/BraTS20_Training_003_flair.nii` has no segmentation

    hint: looked for `BraTS20_Training_003_seg.nii.gz` or `BraTS20_Training_003-seg.nii.gz` beside it
    hint: only the training set of the challenge has segmentations
    ");
    insta::assert_snapshot!(said(&|folder, _| {
        for ending in ENDINGS {
            fs::remove_file(file(folder, ending)).unwrap();
        }
    }), @r"
    error: segmentation `FOLDER/BraTS20_Training_003/BraTS20_Training_003_seg.nii` has no volume

    hint: put the T1, T1ce, T2 and FLAIR volumes beside it, or remove it
    ");
    insta::assert_snapshot!(said(&|folder, volumes| {
        volumes.folder = folder.join("empty");
        fs::create_dir(&volumes.folder).unwrap();
    }), @r"
    error: no T1, T1ce, T2 and FLAIR volumes in `FOLDER/empty`

    hint: `--from` takes the folder of the challenge's training set, in which, at any depth, `CASE_t1.nii.gz`, `CASE_t1ce.nii.gz`, `CASE_t2.nii.gz`, `CASE_flair.nii.gz` and `CASE_seg.nii.gz` lie side by side
    ");
    insta::assert_snapshot!(said(&|folder, _| {
        write_nifti(&file(folder, "t2"), SHAPE, SPACING_MM, &voxels(|[slice, ..]| i16::from(slice == 2) * 7));
    }), @r"
    error: cannot prepare `FOLDER/BraTS20_Training_003/BraTS20_Training_003_t1.nii`
      caused by: cannot scale channel `t2`
      caused by: all voxels of the image above 0 are 7, expected more than one intensity
    ");
    insta::assert_snapshot!(said(&|_, volumes| volumes.held_out_shares = [0.0, 0.5]), @r"
    error: shares of 0 to validate and 0.5 to test leave no patients to train on or to validate with

    hint: `scrimp prepare brats-scribbles --help` says what is assumed otherwise
    ");
}
