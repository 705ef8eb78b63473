//! Steps whose samples are computed in parts, one after the other.

use scrimp::comm::{Ranks, threads};
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::error::Result;
use scrimp::methods::partial_ce::{Params, PartialCe};
use scrimp::methods::{Passes, Recipe, Setup};
use scrimp::native::global_sum;
use scrimp::random::Key;
use scrimp::shares::local_share;
use scrimp::train::learner::{Learner, LearnerConfig, LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{FetchedNumbers, ForwardMode, Method, Objective, StepContext, step_in_parts};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

const PIXELS: i64 = 16;
const SAMPLES: usize = 7;

fn setup() -> LearnerSetup {
    LearnerSetup {
        key: Key::new(1),
        kind: Kind::Double,
        computed: Kind::Double,
        device: Device::Cpu,
        moments: Moments::Whole,
    }
}

/// Fits one number to each pixel, and lets a follower trail behind.
struct Fit {
    learner: Learner,
    pixels: Tensor,
    follower: Learner,
}

impl Fit {
    fn new() -> Self {
        let config: LearnerConfig = toml::from_str(
            "lr = 0.1\nschedule = \"constant\"\nclip_norm = 0.5\noptimizer = { adamw = {} }",
        )
        .unwrap();
        let (learner, pixels) =
            Learner::new("fit", config, setup(), |scope| scope.uniform("pixels", &[PIXELS], 1.0))
                .unwrap();
        let (follower, _) =
            Learner::follower("trail", setup(), |scope| scope.uniform("pixels", &[PIXELS], 1.0));
        Self { learner, pixels, follower }
    }

    fn weights(&self) -> Vec<f64> {
        let flat = |learner: &Learner| {
            Vec::<f64>::try_from(learner.flat_parts()[0].tensor.detach()).unwrap()
        };
        [flat(&self.learner), flat(&self.follower)].concat()
    }
}

impl Method for Fit {
    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let images = batch.main().image.view([-1, PIXELS]);
        let samples = batch.global_size as f64;
        let objective = Objective::new().term("square", 2.0, || {
            global_sum(&(images - &self.pixels).square().sum(Kind::Double), cx.group()) / samples
        });
        self.learner.update(objective, cx)?;
        cx.observe("samples", |_| Tensor::from(samples));
        self.follower.follow(&self.learner, &Tensor::from(0.5), cx)
    }
    fn forward(&self, image: &Tensor, _mode: ForwardMode) -> Result<Tensor> {
        Ok(image.shallow_clone())
    }
    fn learners(&self) -> Vec<&Learner> {
        vec![&self.learner, &self.follower]
    }
}

/// The samples at `mine` of the batch of a step, as part of `samples` of all ranks.
fn batch(step: u64, mine: Range<usize>, samples: usize) -> Batch {
    let values = mine.clone().flat_map(|position| {
        let mut draws = Key::new(3).number(step).number(position as u64).draws();
        (0..PIXELS).map(move |_| draws.uniform()).collect::<Vec<_>>()
    });
    let image = Tensor::from_slice(&values.collect::<Vec<f64>>()).view([-1, 1, 1, PIXELS]);
    let annotation = Tensor::zeros([mine.len() as i64, 1, PIXELS], (Kind::Int64, Device::Cpu));
    let positions = mine.clone().map(|position| position as u64).collect();
    let items = mine.map(|position| Item::slice(position, 0, [1, 1])).collect();
    Batch::new(Samples { image, annotation, looked_for: None, items, positions }, samples)
}

/// Weights and numbers after three steps of so many micro-batches on one of the ranks.
fn trained(micro_batches: usize, ranks: &Ranks) -> (Vec<f64>, Vec<FetchedNumbers>) {
    let mut fit = Fit::new();
    let steps = (1..=3).map(|step| {
        let parts = (0..micro_batches).map(|number| local_share(SAMPLES, micro_batches, number));
        let parts = parts.map(|part| {
            let share = local_share(part.len(), ranks.ranks(), ranks.rank());
            batch(step, part.start + share.start..part.start + share.end, part.len())
        });
        let mut cx = StepContext::new(StepPoint::new(step, 3, Key::new(1)), ranks);
        step_in_parts(&mut fit, &parts.collect::<Vec<_>>(), &mut cx).unwrap();
        cx.into_report().fetch().unwrap()
    });
    let steps = steps.collect();
    (fit.weights(), steps)
}

fn assert_near(found: &[f64], expected: &[f64]) {
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    assert!(found.len() == expected.len() && differences.fold(0.0, f64::max) < 1e-12);
}

#[test]
fn gradients_of_micro_batches_add_up_to_that_of_their_batch() {
    let solo = Ranks::alone();
    let (weights, steps) = trained(1, &solo);
    for micro_batches in [2, 3, 7] {
        let (found, found_steps) = trained(micro_batches, &solo);
        assert_near(&found, &weights);
        for (found, expected) in found_steps.iter().zip(&steps) {
            assert_eq!(found.losses.len(), 1);
            assert_near(&[found.losses[0].1], &[expected.losses[0].1]);
            assert_near(&[found.learners[0].2], &[expected.learners[0].2]);
            // The mean over the samples of the sizes of their micro-batches.
            assert!(found.observations[0].1 < expected.observations[0].1);
        }
    }
}

#[test]
fn micro_batches_are_shared_out_over_the_ranks() {
    let solo = Ranks::alone();
    for micro_batches in [2, 3] {
        let (weights, _) = trained(micro_batches, &solo);
        for found in threads::run(2, |comm| Ok(trained(micro_batches, &comm).0)) {
            assert_near(&found.unwrap(), &weights);
        }
    }
}

/// Rows and columns of the samples that a network sees: two at its bottom, where one alone would be as good
/// as its mean, and rounding would decide which way it bends.
const SIZE: i64 = 32;

/// Partial cross-entropy with every term whose value is a sum or a mean over samples or pixels.
fn with_all_terms() -> PartialCe {
    let params: Params = toml::from_str(
        "entropy = 0.3\ncontour_length = { weight = 0.7 }\nmumford_shah = { weight = 0.01 }\n\
         intensity_variance = { weight = 0.5, ramp_units = 0 }\ngated_crf = { weight = 0.2, radius = 2 }\n\
         learner = { lr = 0.1, optimizer = { sgd = {} } }",
    )
    .unwrap();
    let setup = Setup {
        learner: setup(),
        classes: 3,
        channels: 1,
        passes: Passes::new(false, None),
        slices: Vec::new(),
        sample: [1, SIZE as usize, SIZE as usize],
        spacing_mm: None,
        levels: Vec::new(),
    };
    PartialCe::build(params, &setup).unwrap()
}

/// The samples at `mine`: one image for all, so that the statistics of every micro-batch are the same,
/// and annotation of 0 to 6 rows, so that no two micro-batches have as many pixels of it.
fn annotated(mine: &Range<usize>, samples: usize) -> Batch {
    let pixels = Tensor::arange(SIZE * SIZE, (Kind::Double, Device::Cpu));
    let image = (pixels * 0.37).sin().square().view([1, 1, SIZE, SIZE]);
    let count = mine.len() as i64;
    let place = |start: i64| Tensor::arange_start(start, start + SIZE, (Kind::Int64, Device::Cpu));
    let annotation: Vec<Tensor> = mine
        .clone()
        .map(|position| {
            let classes = place(position as i64).remainder(3).expand([SIZE, SIZE], false);
            let is_open = place(0).ge(position as i64).unsqueeze(1);
            classes.masked_fill(&is_open, 255)
        })
        .collect();
    let none = Tensor::zeros([0, SIZE, SIZE], (Kind::Int64, Device::Cpu));
    let annotation = if count == 0 { none } else { Tensor::stack(&annotation, 0) };
    let image = image.expand([count, 1, SIZE, SIZE], false).contiguous();
    let positions = mine.clone().map(|position| position as u64).collect();
    let items = mine.clone().map(|position| Item::slice(position, 0, [1, 1])).collect();
    Batch::new(Samples { image, annotation, looked_for: None, items, positions }, samples)
}

/// Weights and numbers after one step of so many micro-batches on one of the ranks.
fn regularised(micro_batches: usize, ranks: &Ranks) -> (Vec<f64>, FetchedNumbers) {
    let mut method = with_all_terms();
    let parts = (0..micro_batches).map(|number| local_share(SAMPLES, micro_batches, number));
    let parts = parts.map(|part| {
        let share = local_share(part.len(), ranks.ranks(), ranks.rank());
        annotated(&(part.start + share.start..part.start + share.end), part.len())
    });
    let mut cx = StepContext::new(StepPoint::new(1, 3, Key::new(1)), ranks);
    step_in_parts(&mut method, &parts.collect::<Vec<_>>(), &mut cx).unwrap();
    let flat = method.learners()[0].flat_parts()[0].tensor.detach();
    (Vec::try_from(flat).unwrap(), cx.into_report().fetch().unwrap())
}

#[test]
fn every_term_is_normalised_over_the_batch_however_it_is_cut() {
    tch::set_num_threads(1);
    let solo = Ranks::alone();
    let (weights, numbers) = regularised(1, &solo);
    assert_eq!(numbers.losses.len(), 6);
    let check = |(found, found_numbers): (Vec<f64>, FetchedNumbers), what: &str| {
        for ((name, found), (_, expected)) in found_numbers.losses.iter().zip(&numbers.losses) {
            let difference = (found - expected).abs();
            assert!(
                difference <= 1e-10 * expected.abs().max(1.0),
                "{name} of {what}: {found} {expected}"
            );
        }
        let differences = found.iter().zip(&weights).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f64::max);
        assert!(largest < 1e-9, "weights of {what} differ by {largest:e}");
    };
    for micro_batches in [2, 3, 7] {
        check(regularised(micro_batches, &solo), &format!("{micro_batches} parts"));
    }
    for found in threads::run(2, |comm| Ok(regularised(3, &comm))) {
        check(found.unwrap(), "3 parts on 2 ranks");
    }
}
