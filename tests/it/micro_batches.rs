//! Steps whose samples are computed in parts, one after the other.

use scrimp::comm::{Communicator, Solo, threads};
use scrimp::data::batch::{Batch, Samples};
use scrimp::error::Result;
use scrimp::native::global_sum;
use scrimp::random::Key;
use scrimp::shares::local_share;
use scrimp::train::learner::{Learner, LearnerConfig, LearnerSetup, Moments};
use scrimp::train::moment::Moment;
use scrimp::train::{Method, Objective, StepContext, StepNumbers, step_in_parts};
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const PIXELS: i64 = 16;
const SAMPLES: usize = 7;

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
        let setup = LearnerSetup {
            key: Key::new(1),
            kind: Kind::Double,
            computed: Kind::Double,
            device: Device::Cpu,
            moments: Moments::Whole,
        };
        let (learner, pixels) =
            Learner::new("fit", config, setup, |scope| scope.uniform("pixels", &[PIXELS], 1.0))
                .unwrap();
        let (follower, _) =
            Learner::follower("trail", setup, |scope| scope.uniform("pixels", &[PIXELS], 1.0));
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
    fn predict(&self, image: &Tensor) -> Result<Tensor> {
        Ok(image.shallow_clone())
    }
    fn adapt_statistics(&self, _: &Tensor, _: f64) -> Result<()> {
        Ok(())
    }
    fn learners(&self) -> Vec<&Learner> {
        vec![&self.learner, &self.follower]
    }
    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        vec![&mut self.learner, &mut self.follower]
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
    let cases = mine.map(|position| (position, 0)).collect();
    Batch::new(Samples { image, annotation, cases, positions }, samples)
}

/// Weights and numbers after three steps of so many micro-batches on one of the ranks.
fn trained(micro_batches: usize, ranks: &Arc<dyn Communicator>) -> (Vec<f64>, Vec<StepNumbers>) {
    let mut fit = Fit::new();
    let steps = (1..=3).map(|step| {
        let parts = (0..micro_batches).map(|number| local_share(SAMPLES, micro_batches, number));
        let parts = parts.map(|part| {
            let share = local_share(part.len(), ranks.ranks(), ranks.rank());
            batch(step, part.start + share.start..part.start + share.end, part.len())
        });
        let mut cx = StepContext::new(Moment::new(step, 3, Key::new(1)), ranks);
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
    let solo: Arc<dyn Communicator> = Arc::new(Solo);
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
    let solo: Arc<dyn Communicator> = Arc::new(Solo);
    for micro_batches in [2, 3] {
        let (weights, _) = trained(micro_batches, &solo);
        for found in threads::run(2, |comm| Ok(trained(micro_batches, &comm).0)) {
            assert_near(&found.unwrap(), &weights);
        }
    }
}
