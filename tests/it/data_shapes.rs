//! Masks of other patients: which files are taken, which are refused, and what a batch gets of them.

use crate::data::{text, write_nifti};
use crate::skips::skipped;
use scrimp::data::augment::zoom_labels;
use scrimp::data::import::masks;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::shapes::{MaskVolume, Shapes};
use scrimp::data::{DENSE, Dataset};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SHAPE: [usize; 3] = [1, 2, 3];
const SPACING_MM: [f32; 3] = [5.0, 0.75, 0.75];

fn phantom(seed: u64) -> Dataset {
    let difficulty = Difficulty::Easy;
    generate(&Phantom { cases: 5, slices: 3, size: 40, difficulty, seed }).unwrap()
}

/// A folder with one NIfTI file of six voxels for each path and its labels.
fn folder(files: &[(&str, [i16; 6])]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (path, labels) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_nifti(&path, SHAPE, SPACING_MM, labels);
    }
    folder
}

const SHAPES: [i16; 6] = [0, 1, 2, 3, 0, 0];

#[test]
fn masks_are_those_of_a_folder_and_of_the_label_folders_in_it() {
    let folder = folder(&[
        ("own.nii", SHAPES),
        ("labels/a_manual.nii", SHAPES),
        ("val/labels/b_manual.nii", SHAPES),
        ("val/images/b.nii", [317; 6]),
        ("train/labels/c_scribble.nii", [4, 4, 4, 4, 4, 1]),
        ("other/b.nii", SHAPES),
        ("a/deep/labels/b.nii", SHAPES),
    ]);
    fs::write(folder.path().join("labels/readme.txt"), "").unwrap();
    let names = |path: &Path| -> Vec<String> {
        let shapes = masks::read(path, 4).unwrap();
        shapes.volumes().iter().map(|volume| volume.name.clone()).collect()
    };
    assert_eq!(names(folder.path()), ["own", "a_manual", "b_manual"]);
    assert_eq!(names(&folder.path().join("val")), ["b_manual"]);
    assert_eq!(names(&folder.path().join("val/labels")), ["b_manual"]);
}

#[test]
fn rows_of_a_mask_run_along_y_and_the_coding_of_the_challenge_is_known() {
    // On disk x is fastest: 3 columns, 2 rows.
    let folder = folder(&[("a.nii", [0, 200, 500, 600, 0, 0]), ("b.nii", [0, 0, 0, 0, 1, 2])]);
    let shapes = masks::read(folder.path(), 4).unwrap();
    let labels: Vec<_> = shapes.volumes().iter().map(|mask| (mask.shape, &*mask.labels)).collect();
    assert_eq!(labels, [(SHAPE, &[0, 2, 3, 1, 0, 0][..]), (SHAPE, &[0, 0, 0, 0, 1, 2])]);
}

/// What is said to a folder of these files, of which the first is called `a.nii`.
fn refused(labels: &[i16; 6], class_count: usize) -> String {
    let folder = folder(&[("a.nii", *labels), ("b.nii", SHAPES)]);
    text(masks::read(folder.path(), class_count), folder.path())
}

#[test]
fn files_that_are_no_dense_masks_are_refused_by_name() {
    insta::assert_snapshot!(refused(&[4, 4, 4, 4, 1, 0], 4), @r"
    error: `FOLDER/a.nii` holds 4 at 66.7 % of its voxels: these are scribbles, expected dense masks

    hint: the dense masks of MSCMR as CycleMix packs it are in `val/labels` and `TestSet/labels`; those in `train/labels` are scribbles
    ");
    insta::assert_snapshot!(refused(&[0, 0, 317, 12, 1, 0], 4), @r"
    error: `FOLDER/a.nii` holds label 317 in slice 0 at row 0, column 2, expected 0 to 3, or 0, 200, 500, 600 as MS-CMRSeg has them

    hint: the folder of masks must hold no images and no scribbles
    ");
    insta::assert_snapshot!(refused(&[0, 0, 1, 2, 3, 5], 4), @r"
    error: `FOLDER/a.nii` holds label 5 in slice 0 at row 1, column 2, expected 0 to 3, or 0, 200, 500, 600 as MS-CMRSeg has them

    hint: the folder of masks must hold no images and no scribbles
    ");
    insta::assert_snapshot!(refused(&[0, 0, 200, 500, 3, 600], 4), @r"
    error: `FOLDER/a.nii` holds label 3 in slice 0 at row 1, column 1, expected 0 to 3, or 0, 200, 500, 600 as MS-CMRSeg has them

    hint: the folder of masks must hold no images and no scribbles
    ");
    insta::assert_snapshot!(refused(&[0, 0, 200, 200, 0, 200], 2), @r"
    error: `FOLDER/a.nii` holds label 200 in slice 0 at row 0, column 2, expected 0 to 1

    hint: the folder of masks must hold no images and no scribbles
    ");
}

#[test]
fn folders_without_masks_are_refused() {
    let empty = TempDir::new().unwrap();
    insta::assert_snapshot!(text(masks::read(empty.path(), 4), empty.path()), @r"
    error: there are no masks in `FOLDER`, expected dense label volumes

    hint: files with `scribble` in their names are passed over, here 0
    hint: looked for `.nii` and `.nii.gz` files there, in `labels` and in `*/labels`
    hint: the dense masks of MSCMR as CycleMix packs it are in `val/labels` and `TestSet/labels`; those in `train/labels` are scribbles
    ");
    let scribbles = folder(&[("train/labels/a_Scribble.nii", SHAPES)]);
    insta::assert_snapshot!(text(masks::read(scribbles.path(), 4), scribbles.path()), @r"
    error: there are no masks in `FOLDER`, expected dense label volumes

    hint: files with `scribble` in their names are passed over, here 1
    hint: looked for `.nii` and `.nii.gz` files there, in `labels` and in `*/labels`
    hint: the dense masks of MSCMR as CycleMix packs it are in `val/labels` and `TestSet/labels`; those in `train/labels` are scribbles
    ");
    let background = folder(&[("a.nii", [0; 6])]);
    insta::assert_snapshot!(text(masks::read(background.path(), 4), background.path()), @"error: all masks of `FOLDER` show background only, expected shapes to learn from");
    let cut = folder(&[("a.nii", SHAPES)]);
    let file = cut.path().join("a.nii");
    fs::write(&file, &fs::read(&file).unwrap()[..356]).unwrap();
    insta::assert_snapshot!(text(masks::read(cut.path(), 4), cut.path()), @r"
    error: `FOLDER/a.nii` is cut off: it holds 4 of the 12 bytes of its voxels

    hint: copy it again
    ");
}

fn of(dataset: Dataset) -> Shapes {
    Shapes::of(dataset, 4).unwrap()
}

#[test]
fn masks_of_the_training_data_are_refused_however_they_are_called() {
    let own = |shapes: &Shapes| text(shapes.refuse_own(&phantom(1)), Path::new("/nowhere"));
    insta::assert_snapshot!(own(&of(phantom(1))), @r"
    error: mask `phantom0001` is of patient `seed1-phantom0001`, who is in the training data `phantom` too, and 4 more masks are like that

    hint: name masks of other people in `[data.shapes]`
    hint: or set `data.shapes.allow_own = true` to show a run its own truth
    ");
    // A file is of the patient whose name it begins with.
    let named = |name: &str| {
        let mask = of(phantom(2)).volumes()[0].clone();
        Shapes::new("a test", vec![MaskVolume { name: name.into(), patient: None, ..mask }])
            .unwrap()
    };
    assert!(own(&named("seed1-phantom0003_manual")).contains("`seed1-phantom0003`, who"));
    assert!(named("seed1-phantom00031").refuse_own(&phantom(1)).is_ok());
    // One that was renamed is known by its labels.
    let mut renamed = phantom(1);
    renamed.cases.truncate(1);
    renamed.cases[0].patient = "anna".into();
    assert!(own(&of(renamed)).contains("mask `phantom0001` is of patient `seed1-phantom0001`"));
    assert!(of(phantom(2)).refuse_own(&phantom(1)).is_ok());
}

#[test]
fn data_sets_give_the_masks_that_they_have() {
    let mut dataset = phantom(1);
    dataset.cases[1].annotations.remove(DENSE);
    assert_eq!(of(dataset.clone()).volumes().len(), 4);
    let refusal = |dataset| text(Shapes::of(dataset, 4), Path::new("/nowhere"));
    dataset.cases.iter_mut().for_each(|case| drop(case.annotations.remove(DENSE)));
    insta::assert_snapshot!(refusal(dataset.clone()), @r"
    error: no case of `phantom` has `dense` labels

    hint: pack a data set with dense labels, or name a folder of NIfTI masks
    ");
    dataset.classes.pop();
    insta::assert_snapshot!(refusal(dataset), @"error: the masks of `phantom` have 3 classes, the training data 4, expected the same ones");
}

#[test]
fn a_mask_is_turned_as_numpy_turns_it_and_then_resized() {
    use scrimp::data::augment::{Draw, Mask, Resample, Transform};
    let labels = [1, 2, 3, 4, 5, 6];
    let mask = Mask { shape: [2, 3], labels: &labels };
    let made = |resample, draw| {
        let mut out = vec![9; 36];
        Transform::resizing(resample, draw).apply_to_mask(mask, (6, &mut out));
        out
    };
    let resized = |turned: &[u8], shape| zoom_labels(turned, shape, [6, 6]);
    let turn = |quarter_turns, flip_axis| Draw::Turn { quarter_turns, flip_axis };
    // numpy: np.flip(np.rot90(mask, k), axis) of [[1, 2, 3], [4, 5, 6]].
    let turned: [(Draw, [u8; 6], [usize; 2]); 5] = [
        (turn(0, 0), [4, 5, 6, 1, 2, 3], [2, 3]),
        (turn(1, 0), [1, 4, 2, 5, 3, 6], [3, 2]),
        (turn(1, 1), [6, 3, 5, 2, 4, 1], [3, 2]),
        (turn(2, 1), [4, 5, 6, 1, 2, 3], [2, 3]),
        (turn(3, 0), [6, 3, 5, 2, 4, 1], [3, 2]),
    ];
    for (draw, turned, shape) in turned {
        for resample in [Resample::Reference, Resample::Bilinear] {
            assert_eq!(made(resample, draw), resized(&turned, shape), "{draw:?}");
        }
        assert_eq!(made(Resample::None, draw), resized(&labels, [2, 3]), "{draw:?}");
    }
    for draw in [Draw::Keep, Draw::Rotate { degrees: 17 }] {
        assert_eq!(made(Resample::Reference, draw), resized(&labels, [2, 3]), "{draw:?}");
    }
}

#[test]
fn real_masks_of_mscmr_are_those_of_the_package() {
    let Some(folder) = std::env::var_os("SCRIMP_DATA_DIR") else {
        skipped("SCRIMP_DATA_DIR does not say where real data are");
        return;
    };
    let shapes = masks::read(&PathBuf::from(folder).join("MSCMR_dataset"), 4).unwrap();
    assert_eq!(shapes.volumes().len(), 20);
    let (mut slices, mut empty, mut pixels) = (0, 0, [0usize; 4]);
    for volume in shapes.volumes() {
        slices += volume.shape[0];
        for slice in volume.labels.chunks_exact(volume.shape[1] * volume.shape[2]) {
            empty += usize::from(slice.iter().all(|&label| label == 0));
        }
        volume.labels.iter().for_each(|&label| pixels[usize::from(label)] += 1);
    }
    assert_eq!((slices, empty), (304, 6));
    let share = |class: usize| pixels[class] as f64 / pixels.iter().sum::<usize>() as f64;
    let published = [0.9636, 0.0114, 0.0131, 0.0118];
    for (class, expected) in published.into_iter().enumerate() {
        assert!((share(class) - expected).abs() < 5e-5, "class {class}: {}", share(class));
    }
}

#[cfg(feature = "torch")]
mod batches {
    use super::{of, phantom};
    use scrimp::config::sampling::Sampling;
    use scrimp::data::augment::{Draw, Resample, zoom_labels};
    use scrimp::data::batch::Batch;
    use scrimp::data::loader::{Loader, LoaderPlan};
    use scrimp::data::stream::{ANNOTATED, SHAPES};
    use scrimp::data::{DENSE, Dataset};
    use std::sync::Arc;
    use tch::{Device, Kind, Tensor};

    fn plan() -> LoaderPlan {
        LoaderPlan {
            fold: 0,
            annotation: DENSE.into(),
            batch_size: 5,
            drop_last: false,
            streams: ANNOTATED,
            sampling: Sampling::Slices { size: 32 },
            augment: Resample::Reference,
            outside: scrimp::data::IGNORE,
            seed: 7,
        }
    }

    fn loader(augment: Resample, rank: usize, ranks: usize) -> Loader {
        let plan = LoaderPlan { augment, ..plan() };
        let loader = Loader::new(&Arc::new(phantom(1)), plan, rank, ranks).unwrap();
        loader.with_shapes(of(phantom(2)))
    }

    #[test]
    fn any_number_of_ranks_sees_the_masks_of_one() {
        for augment in [Resample::Reference, Resample::Bilinear, Resample::None] {
            let mut alone = loader(augment, 0, 1);
            for ranks in 2..=5 {
                let mut loaders: Vec<_> = (0..ranks).map(|r| loader(augment, r, ranks)).collect();
                // Asked for in order and not: prepared ahead or made on the spot.
                for step in [1, 2, 3, 9, 2] {
                    let whole = alone.batch(step).unwrap();
                    let parts: Vec<Batch> =
                        loaders.iter_mut().map(|loader| loader.batch(step).unwrap()).collect();
                    let parts: Vec<&Tensor> =
                        parts.iter().map(|p| p.masks_of(SHAPES).unwrap()).collect();
                    assert_eq!(Tensor::cat(&parts, 0), *whole.masks_of(SHAPES).unwrap());
                }
            }
        }
    }

    #[test]
    fn masks_come_as_classes_and_only_where_they_are_asked_for() {
        let batch = loader(Resample::Reference, 0, 1).batch(1).unwrap();
        let masks = batch.masks_of(SHAPES).unwrap();
        assert_eq!((masks.size(), masks.kind()), (vec![5, 32, 32], Kind::Uint8));
        assert_eq!(masks.max().int64_value(&[]), 3);
        let moved = batch.to(Kind::Double, Device::Cpu);
        assert_eq!(moved.masks_of(SHAPES).unwrap().kind(), Kind::Int64);
        let without = Loader::new(&Arc::new(phantom(1)), plan(), 0, 1).unwrap().batch(1).unwrap();
        insta::assert_snapshot!(without.masks_of(SHAPES).unwrap_err(), @r"
        error: the batch has no masks of other patients

        hint: say where they are in `[data.shapes]`, for example `--set data.shapes.path=DIR`
        ");
    }

    #[test]
    fn masks_and_seeds_of_masks_leave_the_samples_as_they_are() {
        let with = loader(Resample::Reference, 0, 1).batch(2).unwrap();
        let without = Loader::new(&Arc::new(phantom(1)), plan(), 0, 1).unwrap().batch(2).unwrap();
        assert_eq!(with.main().image, without.main().image);
        assert_eq!(with.main().annotation, without.main().annotation);
    }

    /// One slice only, so that the mask of a sample is the truth of its own image.
    fn single() -> Dataset {
        let mut dataset = phantom(1);
        dataset.cases.truncate(1);
        let case = &mut dataset.cases[0];
        case.scan.grid.shape[0] = 1;
        case.scan.voxels.truncate(1600);
        case.annotations.values_mut().for_each(|labels| labels.truncate(1600));
        dataset
    }

    #[test]
    fn a_mask_is_turned_and_flipped_as_the_image_beside_it_but_not_rotated() {
        let dataset = Arc::new(single());
        let plan = LoaderPlan { batch_size: 1, ..plan() };
        let loader = Loader::new(&dataset, plan, 0, 1).unwrap();
        let order = loader.order();
        let mut loader = loader.with_shapes(of(Dataset::clone(&dataset)));
        let plain = zoom_labels(&dataset.cases[0].annotations[DENSE], [40, 40], [32, 32]);
        let (mut turned, mut rotated) = (0, 0);
        for step in 1..=40 {
            let batch = loader.batch(step).unwrap();
            let mask = batch.masks_of(SHAPES).unwrap();
            match Draw::sample(&mut order.augmentation(step, 0).draws()) {
                Draw::Rotate { .. } => {
                    assert_eq!(Vec::<u8>::try_from(mask.view(-1)).unwrap(), plain);
                    rotated += 1;
                }
                draw => {
                    assert_eq!(*mask, batch.main().annotation, "{draw:?}");
                    turned += usize::from(draw != Draw::Keep);
                }
            }
        }
        assert!(turned > 10 && rotated > 3, "{turned} {rotated}");
    }
}
