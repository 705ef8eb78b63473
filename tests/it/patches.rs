//! Patches: boxes of voxels around annotated ones, each a function of seed, step and position.

use scrimp::config::sampling::Sampling;
use scrimp::data::augment::{Draw, FullRotation, Resample, Sample, Slice, Transform};
use scrimp::data::batch::Batch;
use scrimp::data::item::{Item, PatchDraw, PatchSample, PatchSource};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::stream::ANNOTATED;
use scrimp::data::{Case, Dataset, IGNORE, SCRIBBLE};
use scrimp::random::Key;
use scrimp::scan::{Grid, Scan};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// A case of noise of which one voxel in `one_in` is annotated.
fn case(number: usize, shape: [usize; 3], channels: usize, one_in: u64) -> Case {
    let mut draws = Key::new(5).number(number as u64).draws();
    let count: usize = shape.iter().product();
    let voxels = (0..count * channels).map(|_| 0.1 + 0.9 * draws.uniform() as f32).collect();
    let labels = (0..count).map(|_| match draws.below(one_in) {
        0 => [0, 0, 0, 0, 0, 0, 1, 1, 1, 2][draws.below(10) as usize],
        _ => IGNORE,
    });
    Case {
        name: format!("case{number}"),
        patient: format!("patient{number}"),
        frame: 0,
        modality: String::new(),
        classes_annotated: Vec::new(),
        fold: 0,
        annotations: BTreeMap::from([(SCRIBBLE.to_owned(), labels.collect())]),
        scan: Scan { grid: Grid::unplaced(shape, None), channels, voxels },
    }
}

/// Three cases: one larger than the patches here, one smaller along each axis, one of a single slice.
fn dataset(channels: usize) -> Dataset {
    let shapes = [[9, 30, 26], [3, 11, 13], [1, 20, 40]];
    let cases = shapes.into_iter().enumerate();
    Dataset {
        name: "noise".to_owned(),
        classes: ["background", "a", "b"].map(str::to_owned).to_vec(),
        provenance: String::new(),
        preparation: None,
        levels: Vec::new(),
        test_fold: None,
        cases: cases.map(|(number, shape)| case(number, shape, channels, 20)).collect(),
    }
}

fn plan(extent: [usize; 3]) -> LoaderPlan {
    LoaderPlan {
        fold: 0,
        annotation: SCRIBBLE.into(),
        batch_size: 5,
        drop_last: false,
        streams: ANNOTATED,
        sampling: Sampling::Patches { extent, per_case: 4, foreground_share: 0.5 },
        augment: Resample::Bilinear,
        outside: IGNORE,
        seed: 7,
    }
}

fn loader(plan: &LoaderPlan, rank: usize, ranks: usize) -> Loader {
    Loader::new(&Arc::new(dataset(3)), plan.clone(), rank, ranks).unwrap()
}

fn joined<'a>(parts: &'a [Batch], of: impl Fn(&'a Batch) -> &'a Tensor) -> Tensor {
    Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 0)
}

#[test]
fn any_number_of_ranks_and_any_first_step_give_the_batches_of_one() {
    for extent in [[4, 16, 12], [1, 16, 16]] {
        let plan = plan(extent);
        let mut alone = loader(&plan, 0, 1);
        for ranks in 2..=4 {
            let mut loaders: Vec<Loader> =
                (0..ranks).map(|rank| loader(&plan, rank, ranks).prepared_by(1 + rank)).collect();
            // Step 3 ends the epoch with 2 of 12 patches.
            for step in [3, 1, 2, 3, 9, 2] {
                let whole = alone.batch(step).unwrap();
                let parts: Vec<Batch> =
                    loaders.iter_mut().map(|loader| loader.batch(step).unwrap()).collect();
                assert_eq!(joined(&parts, |part| &part.main().image), whole.main().image);
                assert_eq!(joined(&parts, |part| &part.main().annotation), whole.main().annotation);
                let items = parts.iter().flat_map(|part| part.main().items.clone());
                assert!(items.eq(whole.main().items.iter().copied()));
            }
        }
    }
}

#[test]
fn batches_have_the_promised_form_and_stay_on_the_host() {
    let deep = loader(&plan([4, 16, 12]), 0, 1).resident_on(tch::Device::Cpu, 1 << 30);
    assert!(!deep.is_resident());
    for (mut loader, axes) in
        [(deep, vec![4, 16, 12]), (loader(&plan([1, 16, 16]), 0, 1), vec![16, 16])]
    {
        let batch = loader.batch(1).unwrap();
        let size = |first: &[i64]| [first, &axes].concat();
        assert_eq!(batch.main().image.size(), size(&[5, 3]));
        assert_eq!(batch.main().annotation.size(), size(&[5]));
        assert_eq!(batch.main().annotation.kind(), Kind::Uint8);
        assert!(batch.origin().is_err(), "patches are no slices");
        assert_eq!(loader.slices(1).len(), 5);
    }
    let mut parts = loader(&plan([4, 16, 12]), 0, 1).in_micro_batches(2);
    let parts = parts.micro_batches(1).unwrap();
    let whole = loader(&plan([4, 16, 12]), 0, 1).batch(1).unwrap();
    assert_eq!(joined(&parts, |part| &part.main().image), whole.main().image);
}

/// Every item of so many steps.
fn items(plan: &LoaderPlan, steps: u64) -> Vec<Item> {
    let mut loader = loader(plan, 0, 1);
    (1..=steps).flat_map(|step| loader.batch(step).unwrap().main().items.clone()).collect()
}

#[test]
fn each_epoch_shows_each_case_equally_often_in_an_order_of_its_own() {
    let plan = plan([2, 8, 8]);
    let cases: Vec<usize> = items(&plan, 6).iter().map(|item| item.case).collect();
    for epoch in [&cases[..12], &cases[12..]] {
        assert!((0..3).all(|case| epoch.iter().filter(|&&seen| seen == case).count() == 4));
    }
    assert_ne!(cases[..12], cases[12..]);
}

/// What is annotated at a voxel.
fn label(case: &Case, [slice, row, column]: [usize; 3]) -> u8 {
    let [_, rows, columns] = case.scan.grid.shape;
    case.annotations[SCRIBBLE][(slice * rows + row) * columns + column]
}

/// How many labels name the class.
fn number_of(class: u8, labels: &[u8]) -> f64 {
    labels.iter().map(|&label| f64::from(u8::from(label == class))).sum()
}

#[test]
fn patches_lie_around_annotated_voxels_and_structures_have_their_share() {
    // One voxel deep, wide and high, so that a patch is its middle.
    let sampling = Sampling::Patches { extent: [1, 1, 1], per_case: 4, foreground_share: 0.5 };
    let plan = LoaderPlan { sampling, ..plan([1, 1, 1]) };
    let dataset = dataset(3);
    let found: Vec<(usize, u8)> = items(&plan, 1200)
        .iter()
        .map(|item| {
            let voxel = item.first.map(|first| usize::try_from(first).unwrap());
            (item.case, label(&dataset.cases[item.case], voxel))
        })
        .collect();
    assert!(found.iter().all(|(_, label)| *label != IGNORE));
    for (index, case) in dataset.cases.iter().enumerate() {
        let labels = &case.annotations[SCRIBBLE];
        let count = |class: u8| number_of(class, labels);
        let annotated = count(0) + count(1) + count(2);
        let of_case: Vec<u8> =
            found.iter().filter(|(case, _)| *case == index).map(|(_, label)| *label).collect();
        let total = of_case.len() as f64;
        for class in 0..3 {
            let of_structures = if class == 0 { 0.0 } else { 0.25 };
            let expected = of_structures + 0.5 * count(class) / annotated;
            let sigma = (expected * (1.0 - expected) / total).sqrt();
            let share = number_of(class, &of_case) / total;
            assert!((share - expected).abs() < 3.0 * sigma, "{index} {class}: {share} {expected}");
        }
    }
}

#[test]
fn every_patch_shows_an_annotated_voxel_and_lies_within_a_scan_that_is_larger() {
    let dataset = dataset(3);
    for item in items(&plan([4, 16, 12]), 30) {
        let case = &dataset.cases[item.case];
        let [slices, rows, columns] = case.scan.grid.shape;
        let all = (0..slices)
            .flat_map(|z| (0..rows).flat_map(move |y| (0..columns).map(move |x| [z, y, x])));
        let mut known = all.filter(|&voxel| label(case, voxel) != IGNORE);
        assert!(known.any(|voxel| item.holds(voxel)), "{item:?}");
        for axis in 0..3 {
            let (shape, extent) = (case.scan.grid.shape[axis] as i64, item.extent[axis] as i64);
            let end = item.first[axis] + extent;
            if shape >= extent {
                assert!(item.first[axis] >= 0 && end <= shape, "{item:?}");
            } else {
                assert!(item.first[axis] <= 0 && end >= shape, "{item:?}");
            }
        }
    }
}

/// Image and labels of `item`.
fn cut(case: &Case, item: &Item, resample: Resample, draw: PatchDraw) -> (Vec<f32>, Vec<u8>) {
    let count: usize = item.extent.iter().product();
    let mut image = vec![f32::NAN; count * case.scan.channels];
    let mut annotation = vec![77; count];
    let source = PatchSource { case, labels: &case.annotations[SCRIBBLE], resample };
    let mut sample = PatchSample { image: &mut image, annotation: &mut annotation };
    source.cut(item, draw, &mut sample);
    (image, annotation)
}

const KEEP: PatchDraw = PatchDraw { in_plane: Draw::Keep, reverses: false };

#[test]
fn what_lies_outside_of_a_scan_is_dark_and_unknown() {
    let case = case(1, [2, 3, 4], 3, 1);
    let item = Item { case: 0, first: [-1, -1, -2], extent: [4, 6, 7] };
    let (image, labels) = cut(&case, &item, Resample::Bilinear, KEEP);
    let (mut known, mut unknown) = (0, 0);
    for (index, &found) in labels.iter().enumerate() {
        let at = [index / 42, index / 7 % 6, index % 7];
        let voxel = [0, 1, 2].map(|axis| at[axis] as i64 + item.first[axis]);
        let inside =
            voxel.iter().zip(case.scan.grid.shape).all(|(&v, n)| (0..n as i64).contains(&v));
        for channel in 0..3 {
            let pixel = image[channel * 168 + index];
            let expected = if inside {
                let [slice, row, column] = voxel.map(|at| at as usize);
                case.scan.slice(slice)[(channel * 3 + row) * 4 + column]
            } else {
                0.0
            };
            assert_eq!(pixel.to_bits(), expected.to_bits());
        }
        let expected = if inside { label(&case, voxel.map(|at| at as usize)) } else { IGNORE };
        assert_eq!(found, expected);
        *if inside { &mut known } else { &mut unknown } += 1;
    }
    assert_eq!((known, unknown), (24, 144));
}

#[test]
fn a_patch_as_large_as_its_scan_is_turned_and_flipped_as_a_slice_is() {
    let case = case(2, [3, 24, 24], 1, 2);
    let item = Item { case: 0, first: [0, 0, 0], extent: [3, 24, 24] };
    for resample in [Resample::Reference, Resample::Bilinear] {
        for number in 0..14 {
            let full = |degrees| FullRotation { flips: [true, false], quarter_turns: 3, degrees };
            let in_plane = match number {
                0..8 => Draw::Turn { quarter_turns: number % 4, flip_axis: number / 4 },
                8 => Draw::Keep,
                9..12 => Draw::Rotate { degrees: i32::from(number) * 6 - 70 },
                _ => Draw::Full(full(f64::from(number) * 67.0)),
            };
            let reverses = number % 2 == 1;
            let (image, labels) = cut(&case, &item, resample, PatchDraw { in_plane, reverses });
            for plane in 0..3 {
                let slice = if reverses { 2 - plane } else { plane };
                let (pixels, known) =
                    (case.scan.slice(slice), case.annotation_slice(SCRIBBLE, slice).unwrap());
                let source =
                    Slice { shape: [24, 24], image: pixels, annotation: known, outside: IGNORE };
                let (mut expected, mut expected_labels) = (vec![0.0; 576], vec![0; 576]);
                let mut sample = Sample {
                    shape: [24, 24],
                    image: &mut expected,
                    annotation: &mut expected_labels,
                };
                Transform::resizing(resample, in_plane).apply(&source, &mut sample);
                let found = &image[plane * 576..][..576];
                let found_labels = &labels[plane * 576..][..576];
                // Further from the middle a rotation reads beyond the scan, where a slice has its rim.
                let is_inner = |pixel: usize| {
                    let from_middle = |at: usize| (at as f64 - 11.5).abs();
                    number < 9 || from_middle(pixel / 24).max(from_middle(pixel % 24)) < 8.0
                };
                for pixel in (0..576).filter(|&pixel| is_inner(pixel)) {
                    assert!((found[pixel] - expected[pixel]).abs() < 1e-5, "{in_plane:?} {pixel}");
                    assert_eq!(found_labels[pixel], expected_labels[pixel], "{in_plane:?} {pixel}");
                }
            }
        }
    }
}

#[test]
fn a_rotation_brings_in_what_lies_around_a_patch() {
    // Brighter down and across, so that no turn about the middle of any patch shows the dark outside.
    let mut case = case(3, [1, 60, 60], 1, 1);
    for (index, voxel) in case.scan.voxels.iter_mut().enumerate() {
        *voxel = 1.0 + (index / 60) as f32 + 0.01 * (index % 60) as f32;
    }
    for degrees in [-20, 19] {
        for extent in [[1, 16, 32], [1, 16, 16]] {
            let item = Item { case: 0, first: [0, 20, 14], extent };
            let draw = PatchDraw { in_plane: Draw::Rotate { degrees }, reverses: false };
            let (image, labels) = cut(&case, &item, Resample::Bilinear, draw);
            let mean =
                image.iter().map(|&pixel| f64::from(pixel)).sum::<f64>() / image.len() as f64;
            let middle = 1.0 + 27.5 + 0.01 * (14.0 + (extent[2] as f64 - 1.0) / 2.0);
            assert!((mean - middle).abs() < 1e-4, "{degrees}: {mean} {middle}");
            assert!(image.iter().all(|&pixel| pixel > 15.0), "nothing dark came in");
            assert!(labels.iter().all(|&label| label != IGNORE));
        }
    }
    assert_eq!(
        cut(
            &case,
            &Item { case: 0, first: [0, 3, 3], extent: [1, 16, 16] },
            Resample::None,
            PatchDraw { in_plane: Draw::Rotate { degrees: 9 }, reverses: false }
        ),
        cut(&case, &Item { case: 0, first: [0, 3, 3], extent: [1, 16, 16] }, Resample::None, KEEP)
    );
}

#[test]
fn cases_without_annotated_voxels_are_left_out() {
    let mut dataset = dataset(1);
    dataset.cases[1].annotations.get_mut(SCRIBBLE).unwrap().fill(IGNORE);
    let make = |dataset: &Dataset, plan: LoaderPlan| {
        Loader::new(&Arc::new(dataset.clone()), plan, 0, 1).map(|loader| loader.order().slice_count)
    };
    assert_eq!(make(&dataset, plan([2, 8, 8])).unwrap(), 8);
    let full = LoaderPlan { drop_last: true, batch_size: 9, ..plan([2, 8, 8]) };
    assert_eq!(
        make(&dataset, full).unwrap_err().message(),
        "there is no full batch of 9 in 8 training patches"
    );
}
