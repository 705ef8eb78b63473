//! Streams of several modalities, with and without labels: each has as many samples as the others, of its own cases,
//! and says nothing of what nobody annotated.

use scrimp::config::sampling::Sampling;
use scrimp::data::augment::Resample;
use scrimp::data::batch::Batch;
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::samples::Samples;
use scrimp::data::stream::{MAIN, Select, StreamSpec, seen_cases};
use scrimp::data::{Case, DENSE, Dataset, IGNORE, store};
use scrimp::random::Key;
use scrimp::scan::{Grid, Scan};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const STREAMS: &[StreamSpec] = &[
    StreamSpec::new(MAIN, Select::Annotated).of("ct"),
    StreamSpec::new("mr", Select::Annotated).of("mr"),
    StreamSpec::new("ct_unlabelled", Select::Unlabelled).of("ct"),
    StreamSpec::new("mr_unlabelled", Select::Unlabelled).of("mr"),
];

/// A case in whose middle third along rows and columns are numbers, and 0 around.
fn case(number: usize, modality: &str, is_labelled: bool, fold: u32) -> Case {
    let shape = [6, 21 + number, 30 - number];
    let mut draws = Key::new(3).number(number as u64).draws();
    let third = |at: usize, extent: usize| (extent / 3..2 * extent / 3).contains(&at);
    let voxels = (0..shape.iter().product()).map(|index: usize| {
        let (row, column) = (index / shape[2] % shape[1], index % shape[2]);
        let value = 0.1 + draws.uniform() as f32;
        if third(row, shape[1]) && third(column, shape[2]) { value } else { 0.0 }
    });
    let voxels: Vec<f32> = voxels.collect();
    let labels = voxels.iter().map(|value| u8::from(*value > 0.4) + u8::from(*value > 0.8));
    let dense = (DENSE.to_owned(), labels.collect());
    Case {
        name: format!("case{number:02}"),
        patient: format!("patient{number:02}"),
        frame: 0,
        fold,
        modality: modality.to_owned(),
        classes_annotated: Vec::new(),
        scan: Scan { grid: Grid::unplaced(shape, None), channels: 1, voxels },
        annotations: if is_labelled { BTreeMap::from([dense]) } else { BTreeMap::new() },
    }
}

/// Three cases that are held out, and three of each modality, of which the first is labelled.
fn dataset() -> Dataset {
    let cases = (0..9).map(|number| {
        let modality = ["ct", "mr", "pet"][number % 3];
        case(number, modality, !(3..=5).contains(&number), u32::from(number > 5))
    });
    let more = [(9, "ct"), (10, "mr")].map(|(number, modality)| case(number, modality, false, 0));
    Dataset {
        name: "two".to_owned(),
        classes: ["background", "a", "b"].map(str::to_owned).to_vec(),
        provenance: String::new(),
        levels: Vec::new(),
        test_fold: None,
        preparation: None,
        cases: cases.chain(more).collect(),
    }
}

fn plan(sampling: Sampling) -> LoaderPlan {
    LoaderPlan {
        fold: 1,
        annotation: DENSE.into(),
        batch_size: 4,
        drop_last: false,
        streams: STREAMS,
        sampling,
        augment: match sampling {
            Sampling::Patches { .. } => Resample::Mild,
            _ => Resample::Reference,
        },
        outside: IGNORE,
        seed: 11,
    }
}

fn patches(extent: [usize; 3]) -> Sampling {
    Sampling::Patches { extent, per_case: 5, foreground_share: 0.5 }
}

fn loader(sampling: Sampling, rank: usize, ranks: usize) -> Loader {
    Loader::new(&Arc::new(dataset()), plan(sampling), rank, ranks).unwrap()
}

fn streams(batch: &Batch) -> Vec<&Samples> {
    let beside = STREAMS[1..].iter().map(|stream| batch.of(stream.name).unwrap());
    std::iter::once(batch.main()).chain(beside).collect()
}

const SAMPLINGS: [Sampling; 4] = [
    Sampling::Patches { extent: [4, 8, 6], per_case: 5, foreground_share: 0.5 },
    Sampling::Patches { extent: [1, 16, 16], per_case: 5, foreground_share: 0.5 },
    // At this size the published zoom leaves out a line.
    Sampling::Slices { size: 31 },
    Sampling::Cropped { size: 24 },
];

#[test]
fn every_stream_has_its_own_cases_and_unlabelled_ones_say_nothing() {
    let cases = dataset().cases;
    let mut seen = vec![BTreeSet::new(); STREAMS.len()];
    for sampling in SAMPLINGS {
        let mut loader = loader(sampling, 0, 1);
        for step in 1..=6 {
            let batch = loader.batch(step).unwrap();
            let unlike: BTreeSet<String> =
                streams(&batch).iter().map(|samples| format!("{:?}", samples.items)).collect();
            assert_eq!(unlike.len(), STREAMS.len());
            for ((stream, samples), seen) in STREAMS.iter().zip(streams(&batch)).zip(&mut seen) {
                assert_eq!(samples.image.size()[0], 4, "{}", stream.name);
                assert_eq!(samples.image.size()[2..], samples.annotation.size()[1..]);
                for item in &samples.items {
                    let case = &cases[item.case];
                    assert_eq!(Some(&*case.modality), stream.modality);
                    assert_eq!(case.fold, 0, "what is held out is not looked at");
                    let wants_labels = stream.select == Select::Annotated;
                    assert_eq!(!case.annotations.is_empty(), wants_labels);
                    seen.insert(item.case);
                }
                let known = samples.annotation.not_equal(i64::from(IGNORE));
                let is_known = known.any().int64_value(&[]) == 1;
                assert_eq!(is_known, stream.select == Select::Annotated, "{}", stream.name);
            }
        }
    }
    let expected = [vec![0], vec![1], vec![3, 9], vec![4, 10]];
    assert_eq!(seen, expected.clone().map(BTreeSet::from_iter));
    let all: BTreeSet<usize> = expected.into_iter().flatten().collect();
    assert_eq!(seen_cases(&dataset(), (1, DENSE), STREAMS), all);
}

#[test]
fn patches_without_labels_lie_where_the_image_shows_something() {
    let cases = dataset().cases;
    let mut loader = loader(patches([1, 1, 1]), 0, 1);
    let mut places = BTreeSet::new();
    for step in 1..=40 {
        let batch = loader.batch(step).unwrap();
        for samples in &streams(&batch)[2..] {
            for item in &samples.items {
                let (scan, [slice, row, column]) =
                    (&cases[item.case].scan, item.first.map(|at| at as usize));
                assert!(scan.slice(slice)[row * scan.grid.shape[2] + column] > 0.0, "{item:?}");
                places.insert((item.case, item.first));
            }
        }
    }
    assert!(places.len() > 200, "{}", places.len());
}

fn joined(parts: &[Batch], of: impl Fn(&Samples) -> Tensor) -> Vec<Tensor> {
    let of_stream = |stream: usize| {
        Tensor::cat(&parts.iter().map(|part| of(streams(part)[stream])).collect::<Vec<_>>(), 0)
    };
    (0..STREAMS.len()).map(of_stream).collect()
}

#[test]
fn streams_do_not_depend_on_ranks_or_on_where_one_begins() {
    for sampling in SAMPLINGS {
        let mut alone = loader(sampling, 0, 1);
        for ranks in [2, 3] {
            let mut loaders: Vec<Loader> =
                (0..ranks).map(|rank| loader(sampling, rank, ranks).prepared_by(2)).collect();
            for step in [3, 4, 1, 9] {
                let whole = [alone.batch(step).unwrap()];
                let parts: Vec<Batch> =
                    loaders.iter_mut().map(|loader| loader.batch(step).unwrap()).collect();
                let image = |samples: &Samples| samples.image.shallow_clone();
                let labels = |samples: &Samples| samples.annotation.shallow_clone();
                assert_eq!(joined(&parts, image), joined(&whole, image));
                assert_eq!(joined(&parts, labels), joined(&whole, labels));
            }
        }
    }
}

#[test]
fn streams_that_lie_on_a_device_are_those_of_the_host() {
    for sampling in [Sampling::Slices { size: 31 }, Sampling::Cropped { size: 24 }] {
        let gpu = crate::skips::gpu_is_there().then_some(Device::Cuda(0));
        for device in std::iter::once(Device::Cpu).chain(gpu) {
            let mut host = loader(sampling, 1, 2).in_micro_batches(2);
            let mut resident =
                loader(sampling, 1, 2).in_micro_batches(2).resident_on(device, 1 << 30);
            assert!(resident.is_resident());
            assert!(resident.resident_bytes() > 0);
            for step in 1..=3 {
                let expected = host.micro_batches(step).unwrap();
                let found = resident.micro_batches(step).unwrap();
                for (found, expected) in found.iter().zip(&expected) {
                    for (found, expected) in streams(found).into_iter().zip(streams(expected)) {
                        assert_eq!(found.items, expected.items);
                        assert_eq!(found.image.to_device(Device::Cpu), expected.image);
                        assert_eq!(found.annotation.to_device(Device::Cpu), expected.annotation);
                        assert_eq!(found.annotation.kind(), Kind::Uint8);
                    }
                }
            }
        }
    }
}

#[test]
fn streams_that_nothing_can_be_made_of_are_refused() {
    let refused = |change: &dyn Fn(&mut Dataset)| {
        let mut dataset = dataset();
        change(&mut dataset);
        Loader::new(&Arc::new(dataset), plan(patches([4, 8, 8])), 0, 1).err().unwrap().to_string()
    };
    insta::assert_snapshot!(refused(&|set| set.cases.retain(|case| case.modality != "mr")), @"
    error: `two` has no annotated cases of modality `mr` to train on, which stream `mr` is made of

    hint: pack one that says what cases were taken with: `scrimp prepare amos` or `two-modality-phantom`
    ");
    let label_all = |set: &mut Dataset| {
        for case in &mut set.cases {
            let labels = vec![1; case.scan.grid.voxels()];
            case.annotations.entry(DENSE.to_owned()).or_insert(labels);
        }
    };
    insta::assert_snapshot!(refused(&label_all), @"
    error: `two` has no unlabelled cases of modality `ct` to train on, which stream `ct_unlabelled` is made of

    hint: pack it again with a smaller `--labelled-share`
    ");
    insta::assert_snapshot!(refused(&|set| set.cases[0].annotations.clear()), @"
    error: `two` has no annotated cases of modality `ct` to train on, which stream `main` is made of

    hint: pack it again with a larger `--labelled-share`
    ");
}

#[test]
fn a_packed_file_says_what_cases_were_taken_with() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("two.h5");
    store::write(&path, &dataset()).unwrap();
    assert_eq!(store::read(&path).unwrap(), dataset());
    let mut plain = dataset();
    plain.cases.iter_mut().for_each(|case| case.modality.clear());
    store::write(&path, &plain).unwrap();
    assert_eq!(store::read(&path).unwrap(), plain);
    // Files of before say nothing of it, and so does this one.
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(10).any(|part| part == b"modalities"));
    plain.cases[2].modality = "ä".repeat(200);
    let said = store::write(&path, &plain).unwrap_err().to_string();
    assert!(said.contains("expected at most 256"), "{said}");
}
