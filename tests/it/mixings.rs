//! Partial cross-entropy on mixed samples: the same on any number of ranks, what it refuses, what it shows.

use crate::cli::{complaint, scrimp};
use crate::golden::Golden;
use scrimp::comm::{Ranks, TensorSums, threads};
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::methods::partial_ce::{Params, PartialCe};
use scrimp::methods::{Passes, Recipe, Setup};
use scrimp::mixing::boxes::{around, corners, inside};
use scrimp::native::GroupSum;
use scrimp::random::Key;
use scrimp::shares::local_share;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{Drawing, Method, StepContext};
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const MIXINGS: [&str; 4] = ["mixup", "cutmix", "cutout", "puzzle"];
const SAMPLES: usize = 5;
const SIZE: i64 = 32;
/// Of a run whose first step mixes something of both samples.
const KEY: u64 = 38;

fn method(terms: &str, sample: [usize; 3], ranks: &Ranks) -> PartialCe {
    let learner = "learner = { lr = 0.1, optimizer = { sgd = {} } }";
    let params: Params = toml::from_str(&format!("{terms}\n{learner}")).unwrap();
    let statistics: Arc<dyn GroupSum> = Arc::<dyn TensorSums>::clone(ranks.tensors());
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
        passes: Passes::new(true, Some(statistics)),
        slices: Vec::new(),
        sample,
        spacing_mm: None,
        levels: Vec::new(),
    };
    PartialCe::build(params, &setup).unwrap()
}

fn wave(size: &[i64], factor: f64) -> Tensor {
    let count = size.iter().product::<i64>();
    (Tensor::arange(count, (Kind::Double, Device::Cpu)) * factor).sin().view(size)
}

/// The samples at `mine` of a batch of so many extents, of which a part is annotated.
fn batch(mine: &Range<usize>, extents: &[i64]) -> Batch {
    let of_mine = |all: Tensor| all.narrow(0, mine.start as i64, mine.len() as i64).contiguous();
    let size = |front: &[i64]| [front, extents].concat();
    let labels = (wave(&size(&[SAMPLES as i64]), 0.53) * 2.5 + 2.5).to_kind(Kind::Int64);
    let samples = Samples {
        image: of_mine(wave(&size(&[SAMPLES as i64, 1]), 0.37).square()),
        annotation: of_mine(labels.where_scalarother(&labels.lt(3), 255)),
        looked_for: None,
        items: mine.clone().map(|position| Item::slice(position, 0, [1, 1])).collect(),
        positions: mine.clone().map(|position| position as u64).collect(),
    };
    Batch::new(samples, SAMPLES)
}

/// Losses of two steps, then weights and running statistics.
fn trained(mixing: &str, extents: &[i64], ranks: &Ranks) -> Vec<f64> {
    let sample = match *extents {
        [rows, columns] => [1, rows as usize, columns as usize],
        _ => [extents[0], extents[1], extents[2]].map(|extent| extent as usize),
    };
    let mut method = method(&format!("mixing = \"{mixing}\""), sample, ranks);
    let batch = batch(&local_share(SAMPLES, ranks.ranks(), ranks.rank()), extents);
    let mut numbers = Vec::new();
    for step in 1..=2 {
        let mut cx = StepContext::new(StepPoint::new(step, 3, Key::new(KEY)), ranks);
        method.step(&batch, &mut cx).unwrap();
        numbers.extend(cx.into_report().fetch().unwrap().losses.into_iter().map(|(_, loss)| loss));
    }
    for entry in method.learners()[0].entries() {
        let values = entry.tensor.detach().to_kind(Kind::Double).contiguous().view([-1]);
        numbers.extend(Vec::<f64>::try_from(values).unwrap());
    }
    numbers
}

#[test]
fn every_mixing_trains_the_same_on_any_number_of_ranks() {
    tch::set_num_threads(1);
    let images = MIXINGS.map(|mixing| (mixing, vec![SIZE, SIZE]));
    let plain = trained("none", &[SIZE, SIZE], &Ranks::alone());
    for (mixing, extents) in images.into_iter().chain([("cutmix", vec![4, 16, 16])]) {
        let alone = trained(mixing, &extents, &Ranks::alone());
        assert!((alone[0] - plain[0]).abs() > 1e-6, "{mixing} changes nothing");
        for ranks in [2, 3] {
            for found in threads::run(ranks, |comm| Ok(trained(mixing, &extents, &comm))) {
                let found = found.unwrap();
                assert_eq!(found.len(), alone.len());
                let differences = found.iter().zip(&alone).map(|(a, b)| (a - b).abs());
                let largest = differences.fold(0.0, f64::max);
                assert!(largest < 1e-9, "{mixing} {extents:?} on {ranks} ranks: {largest:e}");
            }
        }
    }
}

#[test]
fn what_is_shown_of_a_mixing_leaves_the_network_as_it_is() {
    let alone = Ranks::alone();
    let slices = batch(&(0..SAMPLES), &[SIZE, SIZE]);
    let (image, annotation) = (&slices.main().image, &slices.main().annotation);
    let statistics = |method: &PartialCe| -> Vec<Tensor> {
        method.learners()[0].buffers().map(|buffer| buffer.tensor.copy()).collect()
    };
    let plain = method("", [1, 32, 32], &alone);
    assert!(plain.pictures(image, annotation).unwrap().is_empty());
    for mixing in MIXINGS {
        let method = method(&format!("mixing = \"{mixing}\""), [1, 32, 32], &alone);
        let before = statistics(&method);
        let drawn = method.pictures(image, annotation).unwrap();
        let after = statistics(&method);
        assert!(before.iter().zip(&after).all(|(before, after)| before.equal(after)), "{mixing}");
        let names: Vec<&str> = drawn.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["mixed", "label", "mask"]);
        let Drawing::Shares(mask) = &drawn[2].1 else { panic!("{mixing}") };
        let mean = mask.mean(Kind::Double).double_value(&[]);
        // Something of both is to be seen.
        assert!((0.15..0.85).contains(&mean), "{mixing}: {mean}");
        let again = method.pictures(image, annotation).unwrap();
        let Drawing::Shares(again) = &again[2].1 else { panic!("{mixing}") };
        assert!(mask.equal(again));
    }
}

#[test]
fn what_cannot_be_mixed_is_refused_with_its_reason() {
    let refused = |config: &str, sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let ended = scrimp(&[&["config", "check", config], &sets[..]].concat());
        assert_eq!(ended.status.code(), Some(2));
        complaint(&ended)
    };
    let smoke = "configs/smoke/partial-ce.toml";
    insta::assert_snapshot!(
        refused(smoke, &["method.params.mixing=cutmix", "train.micro_batches=2"]),
        @r#"
    exit code 2
    error: `mixing = "cutmix"` takes no micro-batches: samples are mixed with any of their batch
      --> configs/smoke/partial-ce.toml:23:9
       |
    23 | [method.params.learner]
       |         ^^^^^^

    hint: use `--set train.micro_batches=1` with a smaller `train.batch_size`, or more processes
    "#
    );
    insta::assert_snapshot!(
        refused("configs/smoke/partial-ce-3d.toml", &["method.params.mixing=puzzle"]),
        @r"
    exit code 2
    error: puzzles are made of images, and these samples are 8 x 16 x 24
      --> configs/smoke/partial-ce-3d.toml:29:9
       |
    29 | [method.params.learner]
       |         ^^^^^^

    hint: cut samples of one slice, or use `mixup`, `cutmix` or `cutout`, which mix volumes too
    "
    );
    insta::assert_snapshot!(
        refused(smoke, &["method.params.mixing=mixup", "method.params.entropy=0.1"]),
        @r#"
    exit code 2
    error: `entropy` is of samples as they are, and `mixing = "mixup"` trains on mixed ones alone
      --> configs/smoke/partial-ce.toml:23:9
       |
    23 | [method.params.learner]
       |         ^^^^^^

    hint: leave one of them out: `--set method.params.entropy=0.0` or `--set method.params.mixing=none`
    "#
    );
}

#[test]
fn golden_holes_are_those_of_the_released_code() {
    let golden = Golden::open("cyclemix");
    let image = golden.get("cut.in.image").to_kind(Kind::Double);
    let centres = Vec::<Vec<i64>>::try_from(golden.get("cut.in.center")).unwrap();
    let holes = centres.iter().flat_map(|centre| {
        let centre = [centre[0] as usize, centre[1] as usize];
        corners(&around(centre, [48, 48], [16, 16]))
    });
    let holes = Tensor::from_slice(&holes.collect::<Vec<_>>()).to_device(image.device());
    let kept = 1.0 - inside(&holes, &image);
    golden.assert_close("cut.out.mask", &kept, 0.0);
    golden.assert_close("cut.out.image", &(image * kept), 0.0);
}
