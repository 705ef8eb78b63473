//! Three whole training iterations against the reference: losses, weights, running statistics.

use crate::golden::{Golden, assert_close, fill, sums};
use scrimp::comm::Ranks;
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::methods::Recipe;
use scrimp::methods::partial_ce::{Params, PartialCe};
use scrimp::random::Key;
use scrimp::train::learner::Learner;
use scrimp::train::point::StepPoint;
use scrimp::train::schedule::Schedule;
use scrimp::train::{Method, StepContext};
use tch::{Kind, Tensor};

/// How far the sums may be from the reference's: 5e-6 by its rounding in single precision, 1e-4
/// where that rounding gives an input of a leaky rectification next to zero the other slope.
const MOVE_TOLERANCE: f64 = 1e-4;
/// The steps after which the reference's schedule would end.
const TOTAL_STEPS: u64 = 100;

/// The method with `terms` of its parameters, filled as the reference's network.
fn method(terms: &str, learning_rate: f64) -> PartialCe {
    let learner = format!("learner = {{ lr = {learning_rate}, optimizer = {{ sgd = {{}} }} }}");
    let params: Params = toml::from_str(&format!("{learner}\n{terms}")).unwrap();
    let setup = crate::golden::setup(Kind::Double, [1, 0, 0]);
    let method = PartialCe::build(params, &setup).unwrap();
    fill(method.learners()[0].entries());
    method
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

fn batch(golden: &Golden, labels: &str) -> Batch {
    let image = golden.get("step.in.image").to_kind(Kind::Double);
    let count = image.size()[0] as usize;
    let samples = Samples {
        image,
        annotation: golden.labels(labels),
        looked_for: None,
        items: vec![Item::slice(0, 0, [1, 1]); count],
        positions: (0..count as u64).collect(),
    };
    Batch::new(samples, count)
}

/// Runs the three iterations of `step.NAME` with `terms` of the parameters.
fn check(name: &str, labels: &str, terms: &str, learning_rate: f64) {
    let golden = Golden::open("baseline-losses");
    let mut method = method(terms, learning_rate);
    let initial = golden.get("step.init.params");
    let sums_now = |method: &PartialCe| parameter_sums(method.learners()[0]);
    assert_close("initial weights", &sums_now(&method), &initial, 1e-7);
    let batch = batch(&golden, labels);
    let communicator = Ranks::alone();
    for iteration in 0..3 {
        let step = iteration as u64 + 1;
        let mut cx =
            StepContext::new(StepPoint::new(step, TOTAL_STEPS, Key::new(0)), &communicator);
        method.step(&batch, &mut cx).unwrap();
        let losses: Vec<f64> =
            cx.into_report().fetch().unwrap().losses.iter().map(|(_, value)| *value).collect();
        let expected = golden.get(&format!("step.{name}.out.losses")).get(iteration);
        assert_eq!(expected.size(), [losses.len() as i64 + 1], "the terms, and their sum");
        for (term, value) in losses.iter().enumerate() {
            let expected = expected.get(term as i64);
            assert_close(&format!("{name}: term {term}"), &Tensor::from(*value), &expected, 1e-5);
        }
        let expected = golden.get(&format!("step.{name}.out.params")).get(iteration);
        let moved = sums_now(&method) - &initial;
        let difference = (moved - (expected - &initial)).abs().max().double_value(&[]);
        assert!(
            difference < MOVE_TOLERANCE,
            "{name}: weights differ by {difference:e} in their sums"
        );
        let expected = golden.get(&format!("step.{name}.out.bn")).get(iteration);
        let statistics = statistics_sums(method.learners()[0]);
        assert_close(&format!("{name}: statistics"), &statistics, &expected, 1e-5);
    }
}

#[test]
fn golden_three_steps_of_partial_cross_entropy() {
    check("pce", "step.in.scribble", "", 0.03);
}

#[test]
fn golden_three_steps_of_full_supervision() {
    check("fully", "step.in.label", "cross_entropy = 0.5\ndice = 0.5", 0.03);
}

#[test]
fn golden_three_steps_of_each_regulariser() {
    for (name, terms) in [
        ("entropy", "entropy = 0.1"),
        ("tv", "contour_length = { weight = 0.01 }"),
        ("gatedcrf", "gated_crf = { weight = 0.1 }"),
        ("mumford_published", "mumford_shah = { weight = 1e-6 }"),
        ("mumford_head", "mumford_shah = { weight = 1e-6, energy = \"head\" }"),
        ("ivm", "intensity_variance = { weight = 0.1 }"),
    ] {
        check(name, "step.in.scribble", terms, 0.01);
    }
}

/// Of a run of the published length, where `iteration` counts from 0.
fn rate(base: f64, iteration: i64) -> f64 {
    let point = StepPoint::new(iteration as u64 + 1, 60_000, Key::new(0));
    Schedule::Poly.learning_rate(base, &point)
}

#[test]
fn golden_learning_rates_lag_one_step() {
    let golden = Golden::open("base-unet");
    let iterations: Vec<i64> = Vec::try_from(golden.get("poly.in.t")).unwrap();
    let rates: Vec<f64> = iterations.iter().map(|&iteration| rate(0.01, iteration)).collect();
    golden.assert_close("poly.out.lr", &Tensor::from_slice(&rates), 1e-14);
}

#[test]
fn golden_learning_rates_of_the_baselines() {
    let golden = Golden::open("baseline-losses");
    let iterations: Vec<i64> = Vec::try_from(golden.get("lr.in.iter")).unwrap();
    let rows =
        [0.01, 0.03].map(|base| iterations.iter().map(|i| rate(base, *i)).collect::<Vec<_>>());
    golden.assert_close("lr.out.used", &Tensor::from_slice(&rows.concat()), 1e-14);
}
