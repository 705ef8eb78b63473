//! Batches that are made where the data set lies on a device are those that are made on the host.
//!
//! Devices are the CPU and, where there is one, the first GPU.

use crate::skips::gpu_is_there;
use scrimp::comm::Ranks;
use scrimp::config;
use scrimp::config::sampling::Sampling;
use scrimp::data::augment::{Draw, Resample, zoom_labels};
use scrimp::data::batch::Batch;
use scrimp::data::import::lesion_phantom::{self, LesionPhantom};
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::shapes::{MaskVolume, Shapes};
use scrimp::data::stream::{ANNOTATED, HEALTHY, SHAPES as MASKS};
use scrimp::data::{Case, Dataset, IGNORE, IMAGE_LABEL, SCRIBBLE};
use scrimp::methods::{self, Passes, Setup};
use scrimp::random::{Draws, Key};
use scrimp::scan::{Grid, Scan};
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{FetchedNumbers, StepContext};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind};

fn devices() -> Vec<Device> {
    let gpu = gpu_is_there().then_some(Device::Cuda(0));
    std::iter::once(Device::Cpu).chain(gpu).collect()
}

/// Smaller and larger than the samples, on their sides, and with extents of one pixel.
const SHAPES: [[usize; 2]; 11] = [
    [40, 30],
    [30, 40],
    [13, 47],
    [64, 64],
    [33, 33],
    [7, 5],
    [2, 2],
    [50, 1],
    [1, 50],
    [1, 1],
    [3, 61],
];

/// Labels below 4, and with `unknown` also those of nobody.
fn labels(count: usize, unknown: bool, draws: &mut Draws) -> Vec<u8> {
    let classes = [0, 1, 2, 3, IGNORE];
    (0..count).map(|_| classes[draws.below(4 + u64::from(unknown)) as usize]).collect()
}

/// Two slices of noise for each shape; every other case has unknown pixels.
fn odd_shapes(channels: usize) -> Arc<Dataset> {
    let cases = SHAPES.iter().enumerate().map(|(number, &[rows, columns])| {
        let mut draws = Key::new(5).number(number as u64).draws();
        let pixels = 2 * rows * columns;
        let voxels = (0..pixels * channels).map(|_| draws.uniform() as f32).collect();
        let scribble = labels(pixels, number % 2 == 0, &mut draws);
        Case {
            name: format!("case{number:02}"),
            patient: format!("patient{number:02}"),
            frame: 0,
            modality: String::new(),
            classes_annotated: Vec::new(),
            fold: 0,
            scan: Scan { grid: Grid::unplaced([2, rows, columns], None), channels, voxels },
            annotations: BTreeMap::from([(SCRIBBLE.to_owned(), scribble)]),
        }
    });
    let classes = ["background", "a", "b", "c"].map(str::to_owned).to_vec();
    let (name, provenance) = ("odd".to_owned(), "noise".to_owned());
    let (preparation, levels) = (None, Vec::new());
    Arc::new(Dataset {
        name,
        classes,
        provenance,
        preparation,
        levels,
        test_fold: None,
        cases: cases.collect(),
    })
}

/// A volume of masks for each shape, the first of one slice, the second of two.
fn odd_masks() -> Shapes {
    let volumes = SHAPES.iter().enumerate().map(|(number, &[rows, columns])| {
        let shape = [1 + number % 3, rows, columns];
        let mut draws = Key::new(6).number(number as u64).draws();
        let labels = labels(shape.iter().product(), false, &mut draws);
        MaskVolume { name: format!("mask{number}"), patient: None, shape, labels }
    });
    Shapes::new("a test", volumes.collect()).unwrap()
}

fn plan() -> LoaderPlan {
    LoaderPlan {
        fold: 0,
        annotation: SCRIBBLE.into(),
        batch_size: 2 * SHAPES.len(),
        drop_last: false,
        streams: ANNOTATED,
        sampling: Sampling::Slices { size: 32 },
        augment: Resample::Reference,
        outside: IGNORE,
        seed: 7,
    }
}

/// Enough for everything here.
const BUDGET_BYTES: u64 = 1 << 30;

fn resident(loader: Loader, device: Device) -> Loader {
    let loader = loader.resident_on(device, BUDGET_BYTES);
    assert!(loader.is_resident());
    loader
}

fn assert_equal(found: &Batch, expected: &Batch, device: Device, what: &str) {
    assert_eq!(found.global_size, expected.global_size);
    assert_eq!(found.main().items, expected.main().items);
    assert_eq!(found.main().positions, expected.main().positions);
    let pairs = [
        (&found.main().image, &expected.main().image),
        (&found.main().annotation, &expected.main().annotation),
    ];
    let masks = [found, expected].map(|batch| batch.masks_of(MASKS).ok());
    assert_eq!(masks[0].is_some(), masks[1].is_some());
    for (found, expected) in pairs.into_iter().chain(masks[0].zip(masks[1])) {
        assert_eq!(found.device(), device);
        assert_eq!((found.kind(), found.size()), (expected.kind(), expected.size()), "{what}");
        assert_eq!(found.to_device(Device::Cpu), *expected, "{what}");
    }
}

/// Compares so many steps of a resident loader with those of a plain one.
fn assert_same_steps(make: impl Fn() -> Loader, steps: u64, what: &str) {
    for device in devices() {
        let (mut host, mut resident) = (make(), resident(make(), device));
        for step in 1..=steps {
            let [expected, found] =
                [&mut host, &mut resident].map(|loader| loader.micro_batches(step).unwrap());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert_equal(
                    found,
                    expected,
                    device,
                    &format!("{what} on {device:?}, step {step}"),
                );
            }
        }
    }
}

/// A rounding error leaves the last line of these empty.
fn loses_a_line(from: usize, to: usize) -> bool {
    zoom_labels(&vec![1; from], [from, 1], [to, 1]).last() == Some(&0)
}

#[test]
fn every_draw_of_every_shape_is_the_same_pixel_for_pixel() {
    let steps = 8;
    let sizes = (20..90).filter(|&size| SHAPES.iter().any(|&[rows, _]| loses_a_line(rows, size)));
    let sizes: Vec<usize> = [1, 8, 32].into_iter().chain(sizes.take(2)).collect();
    assert_eq!(sizes.len(), 5, "some sizes lose a line");
    let mut drawn = BTreeSet::new();
    for (number, &size) in sizes.iter().enumerate() {
        let outside = if number % 2 == 0 { IGNORE } else { 0 };
        let plan = LoaderPlan { outside, seed: number as u64, ..plan() };
        let augments = [
            Resample::Reference,
            Resample::Bilinear,
            Resample::FullRotation,
            Resample::Flips,
            Resample::None,
        ];
        for augment in augments {
            let resized = Sampling::Slices { size };
            for (sampling, channels) in
                [(resized, 1), (resized, 3), (Sampling::Cropped { size }, 2)]
            {
                let (dataset, plan) =
                    (odd_shapes(channels), LoaderPlan { sampling, augment, ..plan.clone() });
                let make = || {
                    let loader = Loader::new(&dataset, plan.clone(), 0, 1).unwrap();
                    loader.with_shapes(odd_masks())
                };
                let steps = if sampling == resized { steps } else { 2 };
                assert_same_steps(make, steps, &format!("{sampling:?} {augment:?} {channels}"));
            }
        }
        let order = Loader::new(&odd_shapes(1), plan.clone(), 0, 1).unwrap().order();
        for (step, position) in (1..=steps).flat_map(|s| (0..plan.batch_size).map(move |p| (s, p)))
        {
            let draw = Draw::sample(&mut order.augmentation(step, position).draws());
            drawn.insert(format!("{draw:?}"));
        }
    }
    assert!(drawn.len() > 40, "8 turns, most of the 40 angles and nothing: {drawn:?}");
}

fn phantom() -> Arc<Dataset> {
    let difficulty = Difficulty::Easy;
    Arc::new(generate(&Phantom { cases: 4, slices: 3, size: 40, difficulty, seed: 3 }).unwrap())
}

#[test]
fn shares_and_parts_of_batches_are_the_same_with_and_without_masks() {
    let dataset = phantom();
    // Step 3 ends the epoch with 2 of 12 slices: with 3 ranks or more some have none.
    for (ranks, micro_batches, masks) in [(1, 1, false), (2, 2, true), (3, 1, true), (5, 3, false)]
    {
        for rank in 0..ranks {
            let make = || {
                let plan = LoaderPlan { batch_size: 5, ..plan() };
                let loader = Loader::new(&dataset, plan, rank, ranks).unwrap();
                let loader = if masks { loader.with_shapes(odd_masks()) } else { loader };
                loader.in_micro_batches(micro_batches).prepared_by(1 + rank)
            };
            assert_same_steps(make, 4, &format!("rank {rank} of {ranks}"));
        }
    }
}

#[test]
fn jumping_changes_nothing_and_samples_know_their_origin() {
    let dataset = phantom();
    let make = || Loader::new(&dataset, LoaderPlan { batch_size: 5, ..plan() }, 0, 1).unwrap();
    let codes = vec![1; 1600];
    for device in devices() {
        let mut resident = resident(make(), device);
        for step in [1, 2, 9, 10, 2, 2] {
            let [found, expected] =
                [&mut resident, &mut make()].map(|loader| loader.batch(step).unwrap());
            assert_equal(&found, &expected, device, "after a jump");
            let [placed, expected_places] =
                [&found, &expected].map(|b| b.origin().unwrap().place(|_| &codes).unwrap());
            assert_eq!(placed, expected_places);
            let found = found.to(Kind::Double, device);
            assert_eq!(found.main().image.kind(), Kind::Double);
            assert_eq!(found.main().annotation.kind(), Kind::Int64);
        }
    }
}

#[test]
fn what_does_not_fit_stays_on_the_host() {
    let make = || Loader::new(&odd_shapes(3), plan(), 0, 1).unwrap();
    let pixels: usize = SHAPES.iter().map(|[rows, columns]| 2 * rows * columns).sum();
    let bytes = make().resident_bytes();
    assert_eq!(bytes, 13 * pixels as u64);
    assert!(make().resident_on(Device::Cpu, bytes).is_resident());
    let mut small = make().resident_on(Device::Cpu, bytes - 1);
    assert!(!small.is_resident());
    assert_equal(&small.batch(1).unwrap(), &make().batch(1).unwrap(), Device::Cpu, "on the host");
    let masks: usize = odd_masks().volumes().iter().map(|volume| volume.labels.len()).sum();
    assert_eq!(make().with_shapes(odd_masks()).resident_bytes(), bytes + masks as u64);
    let mut later = resident(make(), Device::Cpu).with_shapes(odd_masks());
    assert!(!later.is_resident());
    assert!(later.batch(1).unwrap().masks_of(MASKS).is_ok());
}

#[test]
fn healthy_images_beside_keep_all_on_the_host() {
    let phantom = LesionPhantom { cases: 8, healthy: 8, validation: 1, test: 1, size: 32, seed: 1 };
    let dataset = Arc::new(lesion_phantom::generate(&phantom).unwrap());
    let annotation = IMAGE_LABEL.into();
    let plan = LoaderPlan {
        annotation,
        streams: methods::find("cltn").unwrap().streams,
        batch_size: 2,
        ..plan()
    };
    let loader = Loader::new(&dataset, plan, 0, 1).unwrap();
    let mut loader = loader.resident_on(Device::Cpu, BUDGET_BYTES);
    assert!(!loader.is_resident());
    assert!(loader.batch(1).unwrap().of(HEALTHY).is_ok());
}

/// The numbers of four steps of the smoke configuration on `device`, fed by `feed`.
fn trained(device: Device, feed: impl Fn(Loader) -> Loader) -> Vec<FetchedNumbers> {
    let config = config::read(Path::new("configs/smoke/partial-ce.toml"), &[]).unwrap();
    let definition = methods::find(&config.method.name).unwrap();
    let learner = LearnerSetup {
        key: Key::new(1).purpose("weights"),
        kind: Kind::Float,
        computed: Kind::Float,
        device,
        moments: Moments::Whole,
    };
    let (passes, slices) = (Passes::new(false, None), Vec::new());
    let setup = Setup {
        learner,
        classes: 4,
        channels: 1,
        passes,
        slices,
        sample: [1, 0, 0],
        spacing_mm: None,
        levels: Vec::new(),
    };
    let params = (definition.check)(&config).unwrap();
    let mut method = (definition.build)(&params, &setup).unwrap();
    let plan = LoaderPlan { batch_size: 4, ..plan() };
    let mut loader = feed(Loader::new(&phantom(), plan, 0, 1).unwrap());
    let solo = Ranks::alone();
    let steps = (1..=4).map(|step| {
        let batch = loader.batch(step).unwrap().to(Kind::Float, device);
        let mut context = StepContext::new(StepPoint::new(step, 4, Key::new(1)), &solo);
        method.step(&batch, &mut context).unwrap();
        context.into_report().fetch().unwrap()
    });
    steps.collect()
}

#[test]
fn a_run_on_resident_data_has_the_losses_of_one_on_the_host() {
    let losses = trained(Device::Cpu, |loader| resident(loader, Device::Cpu));
    assert!(losses[0].losses[0].1 > 0.0);
    assert_eq!(losses, trained(Device::Cpu, |loader| loader));
    for device in devices().into_iter().filter(|device| device.is_cuda()) {
        let first = |steps: Vec<FetchedNumbers>| steps[0].losses[0].1;
        let here = first(trained(device, |loader| resident(loader, device)));
        assert!((here - first(trained(device, |loader| loader))).abs() < 1e-4);
    }
}
