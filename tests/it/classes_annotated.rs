//! Cases in which somebody looked for some of the classes alone: what batches say of it, that training is the same on
//! any number of ranks, and what scores, tables and labels of networks make of such cases.

use crate::annotating::without_phantom;
use crate::cli::{complaint, scrimp};
use crate::running::{SMOKE, Train};
use scrimp::comm::{Ranks, TensorSums, threads};
use scrimp::config::sampling::Sampling;
use scrimp::data::augment::Resample;
use scrimp::data::batch::Batch;
use scrimp::data::import::lesion_phantom::{self, LesionPhantom};
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::item::Item;
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::pseudo::{Labelling, NETWORK, RANDOM_WALKER};
use scrimp::data::samples::Samples;
use scrimp::data::shapes::Shapes;
use scrimp::data::stream::ANNOTATED;
use scrimp::data::{Dataset, IGNORE, SCRIBBLE, store};
use scrimp::methods::{self, Passes, Setup};
use scrimp::native::GroupSum;
use scrimp::random::Key;
use scrimp::shares::local_share;
use scrimp::train::StepContext;
use scrimp::train::checkpoint::read_manifest;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

fn whole() -> Dataset {
    let difficulty = Difficulty::Easy;
    generate(&Phantom { cases: 10, slices: 2, size: 32, difficulty, seed: 5 }).unwrap()
}

/// Nobody looked for class 2 in these cases.
const LACKING: [usize; 3] = [0, 3, 6];

/// [`whole`] without class 2 in some cases; cases 0 and 1 are fold 1.
fn lacking() -> Dataset {
    let mut dataset = whole();
    for index in LACKING {
        let case = &mut dataset.cases[index];
        case.classes_annotated = vec![0, 1, 3];
        for labels in case.annotations.values_mut() {
            labels.iter_mut().filter(|label| **label == 2).for_each(|label| *label = 0);
        }
    }
    dataset
}

fn loader(dataset: Dataset, sampling: Sampling, (rank, ranks): (usize, usize)) -> Loader {
    let plan = LoaderPlan {
        fold: 1,
        annotation: SCRIBBLE.into(),
        batch_size: 5,
        drop_last: false,
        streams: ANNOTATED,
        sampling,
        augment: Resample::Reference,
        outside: IGNORE,
        seed: 1,
    };
    Loader::new(&Arc::new(dataset), plan, rank, ranks).unwrap()
}

fn flags(samples: &Samples) -> Vec<u8> {
    Vec::try_from(samples.looked_for.as_ref().unwrap().view([-1])).unwrap()
}

const SAMPLINGS: [Sampling; 4] = [
    Sampling::Slices { size: 32 },
    Sampling::Cropped { size: 16 },
    Sampling::Patches { extent: [1, 16, 16], per_case: 3, foreground_share: 0.5 },
    Sampling::Patches { extent: [2, 16, 16], per_case: 3, foreground_share: 0.5 },
];

#[test]
fn batches_say_of_each_sample_which_classes_were_looked_for() {
    for sampling in SAMPLINGS {
        let mut alone = loader(lacking(), sampling, (0, 1));
        let mut shared = [0, 1].map(|rank| loader(lacking(), sampling, (rank, 2)));
        let mut counts = [0, 0];
        for step in 1..=4 {
            let batch = alone.batch(step).unwrap();
            let found = flags(batch.main());
            assert_eq!(found.len(), 4 * batch.main().items.len());
            for (item, found) in batch.main().items.iter().zip(found.chunks_exact(4)) {
                let is_whole = !LACKING.contains(&item.case);
                assert_eq!(found, [1, 1, u8::from(is_whole), 1], "{sampling:?}");
                counts[usize::from(is_whole)] += 1;
            }
            let parts = shared.each_mut().map(|loader| flags(loader.batch(step).unwrap().main()));
            assert_eq!(parts.concat(), found, "{sampling:?}");
        }
        assert!(counts.iter().all(|&count| count > 2), "{counts:?}");
    }
}

#[test]
fn batches_on_a_device_say_it_too_and_are_taken_in() {
    let gpu = crate::skips::gpu_is_there().then_some(Device::Cuda(0));
    for device in std::iter::once(Device::Cpu).chain(gpu) {
        for sampling in &SAMPLINGS[..2] {
            let mut host = loader(lacking(), *sampling, (0, 1));
            let mut resident = loader(lacking(), *sampling, (0, 1)).resident_on(device, 1 << 30);
            assert!(resident.is_resident());
            let mut kept: Option<Batch> = None;
            for step in 1..=3 {
                let expected = flags(host.batch(step).unwrap().main());
                let batch = resident.batch(step).unwrap().to(Kind::Float, device);
                let looked_for = batch.main().looked_for.as_ref().unwrap();
                assert_eq!((looked_for.kind(), looked_for.device()), (Kind::Bool, device));
                let found = |batch: &Batch| -> Vec<u8> {
                    let flags = batch.main().looked_for.as_ref().unwrap().to_kind(Kind::Uint8);
                    Vec::try_from(flags.to_device(Device::Cpu).view([-1])).unwrap()
                };
                assert_eq!(found(&batch), expected);
                let kept =
                    kept.get_or_insert_with(|| resident.batch(9).unwrap().to(Kind::Float, device));
                if kept.is_like(&batch) {
                    kept.take_in(&batch);
                    assert_eq!(found(kept), expected);
                }
                let plain = loader(whole(), *sampling, (0, 1)).batch(step).unwrap();
                assert!(!plain.to(Kind::Float, device).is_like(&batch));
            }
        }
    }
}

#[test]
fn where_all_classes_were_looked_for_in_what_is_trained_on_batches_say_nothing() {
    let mut held_out_alone = lacking();
    for index in LACKING.into_iter().skip(1) {
        held_out_alone.cases[index] = whole().cases.swap_remove(index);
    }
    let mut all_named = whole();
    all_named.cases[3].classes_annotated = vec![0, 1, 2, 3];
    for dataset in [whole(), held_out_alone, all_named] {
        for sampling in SAMPLINGS {
            let batch = loader(dataset.clone(), sampling, (0, 1)).batch(1).unwrap();
            assert!(batch.main().looked_for.is_none());
        }
    }
}

#[test]
fn a_random_walker_waits_for_no_scribble_of_a_class_that_nobody_looked_for() {
    let labelled = |mut dataset: Dataset| {
        let labelling = Labelling::of(&dataset, RANDOM_WALKER, None).unwrap();
        let share = labelling.share(&dataset, (0, 1), 1, &|| ()).unwrap();
        labelling.put(&mut dataset, &[share]).unwrap();
        dataset.cases.swap_remove(3).annotations.remove(RANDOM_WALKER).unwrap()
    };
    let mut unsaid = lacking();
    unsaid.cases[3].classes_annotated.clear();
    assert!(labelled(unsaid).iter().all(|&label| label == 0), "a structure has no scribble");
    let labels = labelled(lacking());
    assert!(labels.contains(&1) && labels.contains(&3) && !labels.contains(&2));
}

#[test]
fn masks_of_other_patients_show_all_classes() {
    let count = |dataset: Dataset| Shapes::of(dataset, 4).unwrap().volumes().len();
    assert_eq!((count(whole()), count(lacking())), (10, 7));
}

const SAMPLES: usize = 5;

/// For each sample which of three classes were looked for.
const LOOKED_FOR: [[bool; 3]; SAMPLES] =
    [[true; 3], [true, true, false], [true, false, true], [true, false, false], [true; 3]];

fn wave(size: &[i64], factor: f64) -> Tensor {
    let count = size.iter().product::<i64>();
    (Tensor::arange(count, (Kind::Double, Device::Cpu)) * factor).sin().view(size)
}

/// The samples at `mine`, and whether they say which classes were looked for.
fn batch(mine: &Range<usize>, extents: &[i64], says: bool) -> Batch {
    let of_mine = |all: Tensor| all.narrow(0, mine.start as i64, mine.len() as i64).contiguous();
    let size = |front: &[i64]| [front, extents].concat();
    let looked_for = Tensor::from_slice(LOOKED_FOR.as_flattened()).view([SAMPLES as i64, 3]);
    let labels = (wave(&size(&[SAMPLES as i64]), 0.53) * 2.5 + 2.5).to_kind(Kind::Int64);
    let is_known = labels.lt(3);
    let class = labels.clamp_max(2).view([SAMPLES as i64, -1]);
    let is_seen = looked_for.gather(1, &class, false).view_as(&labels);
    let labels = labels.where_scalarother(&is_seen, 0).where_scalarother(&is_known, 255);
    let samples = Samples {
        image: of_mine(wave(&size(&[SAMPLES as i64, 1]), 0.37).square()),
        annotation: of_mine(labels),
        looked_for: says.then(|| of_mine(looked_for)),
        items: mine.clone().map(|position| Item::slice(position, 0, [1, 1])).collect(),
        positions: mine.clone().map(|position| position as u64).collect(),
    };
    Batch::new(samples, SAMPLES)
}

/// Losses of a step, then weights and running statistics.
fn trained((name, terms): (&str, &str), extents: &[i64], says: bool, ranks: &Ranks) -> Vec<f64> {
    let learner = "learner = { lr = 0.1, optimizer = { sgd = {} } }";
    let params: toml::Table = format!("{terms}\n{learner}").parse().unwrap();
    let statistics: Arc<dyn GroupSum> = Arc::<dyn TensorSums>::clone(ranks.tensors());
    let sample = match *extents {
        [rows, columns] => [1, rows as usize, columns as usize],
        _ => [extents[0], extents[1], extents[2]].map(|extent| extent as usize),
    };
    let setup = Setup {
        learner: LearnerSetup {
            key: Key::new(1),
            kind: Kind::Double,
            computed: Kind::Double,
            device: Device::Cpu,
            moments: Moments::Whole,
        },
        classes: 3,
        channels: 1,
        passes: Passes::new(false, Some(statistics)),
        slices: Vec::new(),
        sample,
        spacing_mm: None,
        levels: Vec::new(),
    };
    let mut method = (methods::find(name).unwrap().build)(&params, &setup).unwrap();
    let batch = batch(&local_share(SAMPLES, ranks.ranks(), ranks.rank()), extents, says);
    let mut cx = StepContext::new(StepPoint::new(1, 3, Key::new(38)), ranks);
    method.step(&batch, &mut cx).unwrap();
    let losses = cx.into_report().fetch().unwrap().losses.into_iter().map(|(_, loss)| loss);
    let mut numbers: Vec<f64> = losses.collect();
    for entry in method.learners()[0].entries() {
        let values = entry.tensor.detach().to_kind(Kind::Double).contiguous().view([-1]);
        numbers.extend(Vec::<f64>::try_from(values).unwrap());
    }
    numbers
}

#[test]
fn classes_that_nobody_looked_for_train_the_same_on_any_number_of_ranks() {
    tch::set_num_threads(1);
    let with_terms = "dice = 1.0\nentropy = 0.1";
    for (method, extents) in [
        (("partial-ce", with_terms), &[32, 32][..]),
        (("partial-ce", "dice = 1.0"), &[4, 16, 16]),
        (("partial-ce", "mixing = \"cutmix\""), &[32, 32]),
        (("cyclemix", "network = \"unet\"\nocclusion = 4"), &[32, 32]),
    ] {
        let alone = trained(method, extents, true, &Ranks::alone());
        let unsaid = trained(method, extents, false, &Ranks::alone());
        assert!(alone[0] < unsaid[0] - 1e-3, "{method:?}: {} {}", alone[0], unsaid[0]);
        for found in threads::run(2, |comm| Ok(trained(method, extents, true, &comm))) {
            let found = found.unwrap();
            assert_eq!(found.len(), alone.len());
            let differences = found.iter().zip(&alone).map(|(a, b)| (a - b).abs());
            let largest = differences.fold(0.0, f64::max);
            assert!(largest < 1e-9, "{method:?} {extents:?}: {largest:e}");
        }
    }
}

/// Replayed steps, scores, tables and a second stage.
#[test]
fn a_run_learns_around_what_nobody_looked_for_and_does_not_score_it() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    store::write(Path::new(&path("set.h5")), &lacking()).unwrap();
    let config = without_phantom(SMOKE, &folder);
    let data = format!("data.path={}", path("set.h5"));
    let [computed, replayed] = ["false", "true"].map(|graph| {
        let train = Train::new(&config, Path::new(&path(graph))).set(&data);
        let train = train.sets(&["train.total_steps=8", "train.save_every=8", "train.log_every=8"]);
        let train = train.sets(&["train.evaluate_every=8", "method.params.dice=1.0"]);
        train.set(&format!("train.graph={graph}")).succeed()
    });
    let saved = |run: &crate::running::Ended| {
        read_manifest(&run.run.checkpoints().join("step-00000008")).unwrap().manifest.files
    };
    assert_eq!(saved(&computed), saved(&replayed));
    let evaluated = scrimp(&["evaluate", &path("false"), "--to", &path("scores.csv")]);
    assert!(evaluated.status.success(), "{}", complaint(&evaluated));
    let means = String::from_utf8(evaluated.stdout).unwrap();
    let last = |line: &str| line.split_whitespace().last().unwrap().to_owned();
    let of_cases: Vec<String> = means.lines().take(4).map(last).collect();
    assert_eq!(of_cases, ["cases", "2", "1", "2"], "{means}");
    let table = std::fs::read_to_string(path("scores.csv")).unwrap();
    let lines = |start: &str| table.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((lines("phantom0001,"), lines("phantom0002,")), (2, 3), "{table}");
    assert_eq!(lines("phantom0001,myocardium"), 0);
    let words = ["prepare", "pseudo-labels", "--with", "network", "--run"];
    let labelled = scrimp(&[&words[..], &[&path("false"), "--to", &path("second.h5")]].concat());
    assert!(labelled.status.success(), "{}", complaint(&labelled));
    let second = store::read(Path::new(&path("second.h5"))).unwrap();
    let (mut told, mut kept) = (0, 0);
    for (number, case) in second.cases.iter().enumerate() {
        let lacks = LACKING.contains(&number);
        assert_eq!(case.classes_annotated.is_empty(), !lacks);
        let Some(labels) = case.annotations.get(NETWORK) else { continue };
        kept += usize::from(lacks);
        assert!(!(lacks && labels.contains(&2)));
        told += labels.len();
    }
    assert!(kept == 2 && told > 0);
}

#[test]
fn a_method_that_cannot_learn_around_them_refuses_such_data_on_all_ranks() {
    let folder = TempDir::new().unwrap();
    let phantom = LesionPhantom { cases: 4, healthy: 4, validation: 2, test: 0, size: 32, seed: 1 };
    let mut dataset = lesion_phantom::generate(&phantom).unwrap();
    let is_healthy = |case: &&mut scrimp::data::Case| {
        case.annotations.get("image_label").is_some_and(|labels| labels[0] == 0)
    };
    dataset.cases.iter_mut().find(is_healthy).unwrap().classes_annotated = vec![0];
    let set = folder.path().join("lesions.h5");
    store::write(&set, &dataset).unwrap();
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/smoke/cltn.toml"),
    )
    .unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    table["data"].as_table_mut().unwrap().remove("lesion_phantom");
    let config = folder.path().join("cltn.toml");
    std::fs::write(&config, table.to_string()).unwrap();
    let train = Train::new(config.to_str().unwrap(), &folder.path().join("run"));
    let ended = train.set(&format!("data.path={}", set.display())).under_mpirun(2).finish();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let expected = "`cltn` takes all that is background for background, and in some cases of these data not all \
                    classes were looked for";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
}
