//! CMC on volumes of two modalities: any number of ranks, what unlabelled volumes send, pairs and single modalities.

use crate::golden::assert_close;
use scrimp::comm::{Ranks, threads};
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::methods::cmc::{CT_UNLABELLED, Cmc, MR, MR_UNLABELLED};
use scrimp::methods::{Passes, Recipe, Setup};
use scrimp::native::GroupSum;
use scrimp::random::Key;
use scrimp::shares::local_share;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{FetchedNumbers, Method, StepContext};
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const SAMPLES: usize = 3;
/// Of one of them; the deepest level has two voxels of each.
const EXTENT: [i64; 3] = [8, 16, 8];
const STEPS: u64 = 10;
const LEARNER: &str = "learner = { lr = 0.01, optimizer = { sgd = {} } }";

fn method(params: &str, ranks: &Ranks) -> Cmc {
    let setup = Setup {
        learner: LearnerSetup {
            key: Key::new(3),
            kind: Kind::Double,
            computed: Kind::Double,
            device: Device::Cpu,
            moments: Moments::Whole,
        },
        classes: 3,
        channels: 1,
        passes: Passes::new(true, Some(Arc::clone(ranks.tensors()) as Arc<dyn GroupSum>)),
        slices: Vec::new(),
        sample: EXTENT.map(|extent| extent as usize),
        spacing_mm: None,
        levels: Vec::new(),
    };
    let params = format!("width = 2\n{params}\n{LEARNER}");
    Cmc::build(toml::from_str(&params).unwrap(), &setup).unwrap()
}

/// Volumes and labels of one stream, of which these are at positions `mine`.
fn samples(rate: f64, mine: &Range<usize>) -> Samples {
    let [slices, rows, columns] = EXTENT;
    let count = SAMPLES as i64 * slices * rows * columns;
    let numbers = Tensor::arange(count, (Kind::Double, Device::Cpu));
    let image = (&numbers * rate).sin().square().view([-1, 1, slices, rows, columns]);
    let labels = (&numbers * (rate + 4.0)).remainder(7.0).to_kind(Kind::Int64);
    let labels = labels.masked_fill(&labels.gt(2), 255).view([-1, slices, rows, columns]);
    let cut = |all: Tensor| all.narrow(0, mine.start as i64, mine.len() as i64).contiguous();
    Samples {
        image: cut(image),
        annotation: cut(labels),
        looked_for: None,
        items: mine.clone().map(|position| Item::slice(position, 0, [1, 1])).collect(),
        positions: mine.clone().map(|position| position as u64).collect(),
    }
}

fn batch(mine: &Range<usize>) -> Batch {
    Batch::new(samples(0.37, mine), SAMPLES)
        .with(MR, samples(0.53, mine))
        .with(CT_UNLABELLED, samples(0.29, mine))
        .with(MR_UNLABELLED, samples(0.71, mine))
}

fn step(method: &mut Cmc, step: u64, ranks: &Ranks) -> FetchedNumbers {
    let mine = local_share(SAMPLES, ranks.ranks(), ranks.rank());
    let mut cx = StepContext::new(StepPoint::new(step, STEPS, Key::new(5)), ranks);
    method.step(&batch(&mine), &mut cx).unwrap();
    cx.into_report().fetch().unwrap()
}

fn weights(method: &Cmc) -> Tensor {
    method.learners()[0].flat_parts()[0].tensor.copy()
}

/// Losses of the steps of the second half, which see all four streams, and the weights afterwards.
fn trained(params: &str, ranks: &Ranks) -> (Vec<f64>, Tensor) {
    let mut method = method(params, ranks);
    let losses = (6..=8).flat_map(|number| step(&mut method, number, ranks).losses);
    let losses = losses.map(|(_, value)| value).collect();
    (losses, weights(&method))
}

#[test]
fn four_streams_are_trained_on_alike_by_any_number_of_ranks() {
    tch::set_num_threads(1);
    // With the last number of ranks one has no sample.
    for params in ["begins_at = 0.5\nalone = 0.5", "begins_at = 0.0\nunlabelled = \"as_released\""]
    {
        let (losses, expected) = trained(params, &Ranks::alone());
        assert_eq!(losses.len(), 12);
        assert!(losses.iter().all(|loss| loss.is_finite()));
        for count in 2..=4 {
            for found in threads::run(count, |ranks| Ok(trained(params, &ranks))) {
                let (found_losses, found) = found.unwrap();
                let differences = found_losses.iter().zip(&losses).map(|(a, b)| (a - b).abs());
                let of_losses = differences.fold(0.0, f64::max);
                assert!(of_losses < 1e-9, "losses on {count} ranks differ by {of_losses:e}");
                let of_weights = (found - &expected).abs().max().double_value(&[]);
                assert!(of_weights < 1e-9, "weights on {count} ranks differ by {of_weights:e}");
            }
        }
    }
}

#[test]
fn steps_fuse_pairs_and_single_modalities_in_forms_of_their_own() {
    let method = method("begins_at = 0.5\nalone = 0.5", &Ranks::alone());
    let forms = |range: std::ops::RangeInclusive<u64>| {
        range.map(|step| method.form(&StepPoint::new(step, 100, Key::new(5))).unwrap())
    };
    let mut first: Vec<u32> = forms(1..=50).collect();
    let alone = first.iter().filter(|form| **form == 2).count();
    assert!((15..=35).contains(&alone), "{alone}");
    first.sort_unstable();
    first.dedup();
    assert_eq!(first, [0, 2]);
    let second: std::collections::BTreeSet<u32> = forms(51..=100).collect();
    assert_eq!(second.into_iter().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn unlabelled_volumes_send_a_gradient_and_as_released_none() {
    let ranks = Ranks::alone();
    let after = |params: &str| {
        let mut method = method(&format!("begins_at = 0.5\nalone = 0.0\n{params}"), &ranks);
        let numbers = step(&mut method, 8, &ranks);
        let names: Vec<_> = numbers.losses.iter().map(|(name, _)| name.clone()).collect();
        let of = |name: &str| {
            let found = numbers.losses.iter().find(|(term, _)| term.contains(name));
            found.map(|(_, value)| *value)
        };
        let consistency = [of("semantic_consistency"), of("anatomical_consistency")];
        assert_eq!(names.len(), 2 + consistency.iter().flatten().count(), "{names:?}");
        (weights(&method), consistency)
    };
    let (supervised, [None, None]) = after("unlabelled = \"none\"") else { panic!("terms") };
    let (released, [Some(_), Some(_)]) = after("unlabelled = \"as_released\"") else {
        panic!("no terms")
    };
    assert!(released.equal(&supervised));
    let (semantic, [Some(_), None]) = after("anatomical_consistency = 0.0") else {
        panic!("other terms")
    };
    let (anatomical, [None, Some(apart)]) = after("semantic_consistency = 0.0") else {
        panic!("other terms")
    };
    assert!((0.0..=1.0).contains(&apart), "{apart}");
    let (both, _) = after("");
    let moved = [&semantic, &anatomical, &both].map(|weights| weights - &supervised);
    assert!(moved.iter().all(|moved| moved.abs().max().double_value(&[]) > 1e-9));
    // Gradient descent without momentum adds up.
    assert_close("moves", &(&moved[0] + &moved[1]), &moved[2], 1e-9);
}

#[test]
fn a_modality_is_predicted_alone_and_a_pair_together() {
    let mut method = method("begins_at = 0.5", &Ranks::alone());
    let _ = step(&mut method, 1, &Ranks::alone());
    let [ct, mr] = [0.37, 0.53].map(|rate| samples(rate, &(0..2)).image);
    let alone = method.predict(&ct).unwrap();
    let pair = method.predict(&Tensor::cat(&[&ct, &mr], 1)).unwrap();
    for found in [&alone, &pair] {
        assert_eq!(found.size(), [2, 3, 8, 16, 8]);
        let total = found.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        assert_close("probabilities", &total, &total.ones_like(), 1e-12);
    }
    assert!((&alone - &pair).abs().max().double_value(&[]) > 1e-6);
    let itself = method.predict(&Tensor::cat(&[&ct, &ct], 1)).unwrap();
    assert_close("a volume beside itself", &itself, &alone, 1e-12);
    // Nothing is predicted by what is kept of other volumes.
    method.adapt_statistics(&(mr * 3.0), 1.0).unwrap();
    assert!(method.predict(&ct).unwrap().equal(&alone));
}
