//! Three whole training iterations against the reference: losses, weights, running statistics.

use crate::golden::{Golden, assert_close, fill, sums};
use scrimp::comm::{Communicator, Solo};
use scrimp::losses::{Masking, partial_cross_entropy, partial_dice};
use scrimp::native::Alone;
use scrimp::nets::Pass;
use scrimp::nets::unet::UNet;
use scrimp::random::Key;
use scrimp::train::learner::{Learner, LearnerConfig, LearnerSetup};
use scrimp::train::optimizer::{OptimizerConfig, SgdConfig};
use scrimp::train::schedule::Schedule;
use scrimp::train::{Objective, StepContext};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// How far the sums may be from the reference's: 5e-6 by its rounding in single precision, 1e-4
/// where that rounding gives an input of a leaky rectification next to zero the other slope.
const MOVE_TOLERANCE: f64 = 1e-4;
/// The steps after which the reference's schedule would end.
const TOTAL_STEPS: u64 = 100;

fn learner() -> (Learner, UNet) {
    let config = LearnerConfig {
        lr: 0.03,
        schedule: Schedule::Poly,
        clip_norm: 0.0,
        optimizer: OptimizerConfig::Sgd(SgdConfig { momentum: 0.9, weight_decay: 1e-4 }),
    };
    let setup = LearnerSetup { key: Key::new(0), kind: Kind::Double, device: Device::Cpu };
    let (learner, net) =
        Learner::new("segmenter", config, setup, |scope| UNet::new(scope, 1, 4)).unwrap();
    fill(learner.entries());
    (learner, net)
}

/// `[encoder, decoder][sum, sum of squares]` of the trainable tensors.
fn parameter_sums(learner: &Learner) -> Tensor {
    let part = |prefix: &str| {
        let of_part = learner.entries().iter().filter(|entry| entry.name.starts_with(prefix));
        sums(of_part.filter(|entry| entry.tensor.requires_grad()).map(|entry| &entry.tensor))
            .sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
    };
    Tensor::stack(&[part("encoder"), part("decoder")], 0)
}

fn statistics_sums(learner: &Learner) -> Tensor {
    let statistics = learner.buffers().map(|entry| &entry.tensor);
    sums(statistics.filter(|tensor| tensor.kind() != Kind::Int64)).sum_dim_intlist(
        [0i64].as_slice(),
        false,
        Kind::Double,
    )
}

/// Runs the three iterations of `step.NAME` with the weights of cross-entropy and Dice.
fn check(name: &str, labels: &str, weights: [f64; 2]) {
    let golden = Golden::open("baseline-losses");
    let (mut learner, net) = learner();
    let initial = golden.get("step.init.params");
    assert_close("initial weights", &parameter_sums(&learner), &initial, 1e-7);
    let image = golden.get("step.in.image").to_kind(Kind::Double);
    let labels = golden.labels(labels);
    let communicator: Arc<dyn Communicator> = Arc::new(Solo);
    for iteration in 0..3 {
        let pass = Pass::Train { group: Arc::new(Alone), keys: Vec::new() };
        let logits = net.forward(&image, &pass).unwrap();
        let objective = Objective::new()
            .term("ce", weights[0], || partial_cross_entropy(&logits, &labels, &Alone))
            .term("dice", weights[1], || {
                let probabilities = logits.softmax(1, Kind::Double);
                partial_dice(&probabilities, &labels, Masking::PerSample, &Alone)
            });
        let step = iteration as u64 + 1;
        let mut cx = StepContext::new(step, TOTAL_STEPS, Key::new(0), &communicator);
        learner.update(objective, &mut cx).unwrap();
        let losses: Vec<f64> =
            cx.into_report().fetch().unwrap().losses.iter().map(|(_, value)| *value).collect();
        let expected = golden.get(&format!("step.{name}.out.losses")).get(iteration);
        let terms = expected.narrow(0, 0, losses.len() as i64);
        assert_close(&format!("{name}: losses"), &Tensor::from_slice(&losses), &terms, 1e-5);
        let expected = golden.get(&format!("step.{name}.out.params")).get(iteration);
        let moved = parameter_sums(&learner) - &initial;
        let difference = (moved - (expected - &initial)).abs().max().double_value(&[]);
        assert!(
            difference < MOVE_TOLERANCE,
            "{name}: weights differ by {difference:e} in their sums"
        );
        let expected = golden.get(&format!("step.{name}.out.bn")).get(iteration);
        assert_close(&format!("{name}: statistics"), &statistics_sums(&learner), &expected, 1e-5);
    }
}

#[test]
fn golden_three_steps_of_partial_cross_entropy() {
    check("pce", "step.in.scribble", [1.0, 0.0]);
}

#[test]
fn golden_three_steps_of_full_supervision() {
    check("fully", "step.in.label", [0.5, 0.5]);
}

#[test]
fn golden_learning_rates_lag_one_step() {
    let golden = Golden::open("base-unet");
    let iterations: Vec<i64> = Vec::try_from(golden.get("poly.in.t")).unwrap();
    let rates: Vec<f64> = iterations
        .iter()
        .map(|&iteration| Schedule::Poly.learning_rate(0.01, iteration as u64 + 1, 60_000))
        .collect();
    golden.assert_close("poly.out.lr", &Tensor::from_slice(&rates), 1e-14);
}
