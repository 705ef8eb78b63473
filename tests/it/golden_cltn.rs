//! CLTN: two whole iterations against the released training loop.

use crate::golden::{Golden, assert_close, device, fill_by_rule_b, sums};
use scrimp::comm::Ranks;
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::data::stream::HEALTHY;
use scrimp::methods::cltn::{Cltn, Params};
use scrimp::methods::{Passes, Recipe, Setup};
use scrimp::parameters::{Entry, Role};
use scrimp::random::Key;
use scrimp::train::learner::{Learner, LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{FetchedNumbers, Method, StepContext};
use std::ops::Range;
use tch::{Kind, Tensor};

/// The networks in the order of their learners, with the number of their first entry.
const NETWORKS: [[(&str, usize); 4]; 2] = [
    [("genA2B", 0), ("genB2A", 1000), ("", 0), ("", 0)],
    [("disGA", 2000), ("disGB", 3000), ("disLA", 4000), ("disLB", 5000)],
];

fn method() -> Cltn {
    let adam = "optimizer = { adam = { beta1 = 0.5, weight_decay = 2e-5 } }";
    let params: Params = toml::from_str(&format!(
        "width = 8\njudge_width = 8\ncycle = 5.0\nidentity = 50.0\nclass_score = 1400.0\n\
         learner = {{ lr = 1e-4, {adam} }}\ndiscriminator = {{ lr = 1e-4, {adam} }}"
    ))
    .unwrap();
    let setup = Setup {
        learner: LearnerSetup {
            key: Key::new(0),
            kind: Kind::Double,
            computed: Kind::Double,
            device: device(),
            moments: Moments::Whole,
        },
        classes: 2,
        channels: 1,
        passes: Passes::new(false, None),
        slices: Vec::new(),
        sample: [1, 96, 96],
        spacing_mm: None,
        levels: Vec::new(),
    };
    let method = Cltn::build(params, &setup).unwrap();
    for (network, first, learner, range) in networks(&method) {
        assert!(!range.is_empty(), "{network}");
        fill_by_rule_b(&method.learners()[learner].entries()[range], first);
    }
    method
}

/// Name, number of the first entry, learner, and place among its entries.
fn networks(method: &Cltn) -> Vec<(&'static str, usize, usize, Range<usize>)> {
    let learners = method.learners();
    let all =
        NETWORKS.iter().zip(&learners).enumerate().flat_map(|(number, (networks, learner))| {
            networks.iter().filter(|(name, _)| !name.is_empty()).map(move |&(name, first)| {
                let is_own = |entry: &Entry| entry.name.starts_with(name);
                let start = learner.entries().iter().position(is_own).unwrap();
                let count = learner.entries().iter().filter(|entry| is_own(entry)).count();
                (name, first, number, start..start + count)
            })
        });
    all.collect()
}

fn samples(image: &Tensor) -> Samples {
    Samples {
        image: (image.to_kind(Kind::Double) + 1.0) / 2.0,
        annotation: Tensor::zeros([1, 96, 96], (Kind::Int64, device())),
        looked_for: None,
        items: vec![Item::slice(0, 0, [1, 1])],
        positions: vec![0],
    }
}

/// `[sum, sum of squares]` over all of `tensors`.
fn checksum(tensors: &[Tensor]) -> Tensor {
    sums(tensors.iter()).sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
}

fn assert_losses(golden: &Golden, iteration: u8, numbers: &FetchedNumbers) {
    let tolerance = if iteration == 1 { 5e-6 } else { 1e-4 };
    let stored = |name: &str| golden.get(&format!("iter.{iteration}.{name}")).to_kind(Kind::Double);
    let own = |name: &str| {
        let found = numbers.losses.iter().find(|(key, _)| key == name);
        Tensor::from(found.unwrap_or_else(|| panic!("no loss `{name}`")).1)
    };
    for (letter, class) in [("A", "diseased"), ("B", "healthy")] {
        for (large, size) in [("G", "global"), ("L", "local")] {
            let expected = stored(&format!("D_ad_{large}{letter}"))
                + stored(&format!("D_cam_{large}{letter}"));
            let name = format!("discriminators/{size}_{class}");
            assert_close(&name, &own(&name), &expected, tolerance);
        }
        for (key, term) in [
            ("adv_#", "adversarial"),
            ("adv_#_f", "composed"),
            ("cycle_#", "cycle"),
            ("identity_#", "identity"),
            ("cam_#", "class"),
            ("recon_#", "reconstruction"),
        ] {
            let name = format!("generators/{term}_{class}");
            assert_close(&name, &own(&name), &stored(&key.replace('#', letter)), tolerance);
        }
    }
    for (key, name) in
        [("maskmean_A2B", "generators/healing_mask"), ("maskmean_B2A", "generators/harming_mask")]
    {
        let found = numbers.observations.iter().find(|(key, _)| key == name).unwrap().1;
        assert_close(name, &Tensor::from(found), &stored(key), tolerance);
    }
}

/// The gradients of those of these tensors that are trained.
fn gradients_of(learner: &Learner, entries: &[Entry]) -> Vec<Tensor> {
    let gradients = learner.gradients();
    let of = |entry: &Entry| {
        learner
            .slots()
            .iter()
            .position(|slot| slot.name == entry.name)
            .map(|at| gradients[at].copy())
    };
    entries.iter().filter_map(of).collect()
}

fn assert_networks(golden: &Golden, iteration: u8, method: &Cltn) {
    let learners = method.learners();
    for (network, _, learner, range) in networks(method) {
        let entries = &learners[learner].entries()[range];
        let stored = |what: &str| {
            golden.get(&format!("iter.{iteration}.{what}.{network}")).to_kind(Kind::Double)
        };
        let of = |is_in: &dyn Fn(&Entry) -> bool| {
            let entries = entries.iter().filter(|entry| is_in(entry));
            entries.map(|entry| entry.tensor.shallow_clone()).collect::<Vec<_>>()
        };
        let trainable = of(&|entry| entry.role != Role::Buffer);
        let count: usize = trainable.iter().map(Tensor::numel).sum();
        let gradients = checksum(&gradients_of(learners[learner], entries));
        let expected = stored("grad");
        assert_close(network, &gradients.get(1), &expected.get(1), 5e-4);
        let allowed = 1e-4 * (count as f64 * expected.double_value(&[1])).sqrt();
        let apart = (gradients.double_value(&[0]) - expected.double_value(&[0])).abs();
        assert!(apart <= allowed, "gradients of {network}: {apart:e}, allowed {allowed:e}");
        let is_vector =
            |entry: &Entry| entry.name.ends_with("weight_u") || entry.name.ends_with("weight_v");
        // Parameters of the reference include those that nothing uses.
        let parameters = checksum(&of(&|entry| !is_vector(entry)));
        assert_close(network, &parameters, &stored("param"), 5e-6);
        if network.starts_with("gen") {
            let shares = checksum(&of(&|entry| entry.role == Role::Share));
            assert_close(&format!("rho of {network}"), &shares, &stored("rho"), 5e-6);
        } else {
            let vectors = checksum(&of(&is_vector));
            assert_close(&format!("u, v of {network}"), &vectors, &stored("snbuf"), 1e-5);
        }
    }
}

#[test]
fn golden_two_iterations_of_label_transfer() {
    let golden = Golden::open("cltn");
    let mut method = method();
    for iteration in [1, 2] {
        let image = |key: &str| {
            let image = golden.get(&format!("iter.in.{key}"));
            if iteration == 1 { image } else { image.flip([-1]) }
        };
        let batch =
            Batch::new(samples(&image("real_A")), 1).with(HEALTHY, samples(&image("real_B")));
        let communicator = Ranks::alone();
        let mut cx = StepContext::new(
            StepPoint::new(u64::from(iteration), 7000, Key::new(0)),
            &communicator,
        );
        method.step(&batch, &mut cx).unwrap();
        let numbers = cx.into_report().fetch().unwrap();
        assert_losses(&golden, iteration, &numbers);
        assert_networks(&golden, iteration, &method);
    }
}
