//! DMSPS against the released code: losses with gradients, the network over volumes, three whole updates.

use crate::golden::{Golden, assert_close, device, fill, sums};
use scrimp::comm::Ranks;
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::losses::consistency::soft_cross_entropy;
use scrimp::losses::partial_cross_entropy;
use scrimp::methods::dmsps::{Chance, Dmsps};
use scrimp::methods::{Recipe, Setup, weighted_mean};
use scrimp::native::Alone;
use scrimp::nets::Pass;
use scrimp::nets::topology::Topology;
use scrimp::nets::unet::UNetCct;
use scrimp::nets::volumetric_cct::VolumetricCct;
use scrimp::parameters::{Entry, Flat, Leaves, Parameters};
use scrimp::random::Key;
use scrimp::train::point::StepPoint;
use scrimp::train::schedule::Schedule;
use scrimp::train::{Method, StepContext};
use std::sync::Arc;
use tch::{Kind, Tensor};

const FILE: &str = "dmsps";
/// Rounding of the reference in single precision, relative to the largest magnitude.
const TOLERANCE: f64 = 1e-5;
/// The same of the deepest features over volumes, which are normalised over four voxels: PyTorch in double
/// precision is 1.2e-5 away.
const OF_FOUR_VOXELS: f64 = 3e-5;
/// The same of gradients of that network, some of which rounding lets through another side of a rectification:
/// PyTorch in double precision is 2.7e-4 away.
const OF_GRADIENTS: f64 = 5e-4;
/// The weight of the pseudo label as published.
const WEIGHT: f64 = 8.0;

/// Labels of which the number of classes means that nobody annotated.
fn labels(golden: &Golden, key: &str, classes: i64) -> Tensor {
    let labels = golden.get(key).to_kind(Kind::Int64);
    labels.where_scalarother(&labels.ne(classes), 255)
}

fn mean([first, second]: [Tensor; 2]) -> Tensor {
    (first + second) * 0.5
}

#[test]
fn golden_dmsps_losses_of_images_and_volumes() {
    let golden = Golden::open(FILE);
    for name in ["sps", "sps_a1", "sps3d"] {
        let share = golden.get(&format!("{name}.in.alpha")).view([]);
        let logits = || {
            ["main", "aux"].map(|decoder| {
                let logits = golden.get(&format!("{name}.in.logits_{decoder}"));
                logits.to_kind(Kind::Double).set_requires_grad(true)
            })
        };
        let softmax = |z: &Tensor| z.softmax(1, Kind::Double);
        let soft = |compared: &[Tensor; 2], pseudo: &Tensor| {
            let samples = pseudo.size()[0] as usize;
            mean(compared.each_ref().map(|z| soft_cross_entropy(z, pseudo, samples, &Alone)))
        };

        let z = logits();
        let probabilities = z.each_ref().map(softmax);
        let pseudo = weighted_mean(&probabilities, &share);
        let annotation = labels(&golden, &format!("{name}.in.scribble"), z[0].size()[1]);
        let ce = mean(z.each_ref().map(|z| partial_cross_entropy(z, &annotation, &Alone)));
        let soft_ce = soft(&probabilities, &pseudo);
        let total = &ce + &soft_ce * WEIGHT;
        let losses = Tensor::stack(&[&ce, &soft_ce, &total], 0);
        golden.assert_close(&format!("{name}.out.losses"), &losses, TOLERANCE);
        total.backward();
        golden.assert_close(&format!("{name}.grad.logits_main"), &z[0].grad(), TOLERANCE);
        golden.assert_close(&format!("{name}.grad.logits_aux"), &z[1].grad(), TOLERANCE);

        // With one softmax, which nobody has published.
        let z = logits();
        let pseudo = weighted_mean(&z.each_ref().map(softmax), &share);
        let loss = soft(&z, &pseudo);
        golden.assert_close(&format!("ext_{name}.out.loss"), &loss, TOLERANCE);
        loss.backward();
        golden.assert_close(&format!("ext_{name}.grad.logits_main"), &z[0].grad(), TOLERANCE);
    }
}

#[test]
fn predictions_without_doubt_have_finite_losses_and_gradients() {
    let z = Tensor::from_slice(&[200.0f32, -200.0, -200.0, 200.0]).view([1, 2, 1, 2]);
    let z = z.to_device(device()).set_requires_grad(true);
    let wrong = z.flip([1]).softmax(1, Kind::Float);
    let loss = soft_cross_entropy(&z, &wrong, 1, &Alone);
    loss.backward();
    assert!((loss.double_value(&[]) - 400.0).abs() < 1e-3);
    assert!((z.grad().abs().max().double_value(&[]) - 0.5).abs() < 1e-6);
}

/// Every second voxel along each axis.
fn every_second(maps: &Tensor) -> Tensor {
    maps.slice(2, 0, None, 2).slice(3, 0, None, 2).slice(4, 0, None, 2).contiguous()
}

fn total_sums(tensors: &[&Tensor]) -> Tensor {
    sums(tensors.iter().copied()).sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
}

#[test]
fn golden_network_over_volumes() {
    let golden = Golden::open(FILE);
    let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
    let net = VolumetricCct::new(&mut parameters.root(), 1, 8);
    assert_eq!(parameters.trainable_count(), 8_234_848);
    assert_eq!(parameters.entries().len(), 56);
    fill(parameters.entries());
    let flat = Flat::new(&parameters);
    let x = golden.get("cct3.in.x").to_kind(Kind::Double);
    let whole = |_: usize, features: &Tensor| features.shallow_clone();
    let train = Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 };
    for (mode, pass) in [("eval", &Pass::Evaluate), ("train", &train)] {
        let key = |of: &str| format!("cct3.{mode}.out.{of}");
        let center = net.features(&x, pass).unwrap().pop().unwrap();
        golden.assert_close(&key("center"), &center, OF_FOUR_VOXELS);
        let (main, auxiliary) = net.forward(&x, pass, whole).unwrap();
        golden.assert_close(&key("main_s2"), &every_second(&main), TOLERANCE);
        golden.assert_close(&key("aux_s2"), &every_second(&auxiliary), TOLERANCE);
        let found = sums([&main, &auxiliary].into_iter());
        golden.assert_close(&key("sums"), &found.view([-1]), TOLERANCE);
    }
    let (main, auxiliary) = net.forward(&x, &train, whole).unwrap();
    let annotation = labels(&golden, "cct3.in.label", 8);
    let loss = mean([main, auxiliary].map(|z| partial_cross_entropy(&z, &annotation, &Alone)));
    golden.assert_close("cct3.out.loss", &loss.detach(), TOLERANCE);
    loss.backward();
    let gradients = flat.gradients();
    Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
    let of_part = |part: &str| {
        let slots = flat.slots.iter().filter(|slot| slot.name.starts_with(part));
        let gradients: Vec<Tensor> = slots.map(|slot| slot.view(&gradients)).collect();
        total_sums(&gradients.iter().collect::<Vec<_>>())
    };
    let found = Tensor::stack(&["encoder", "main_decoder", "aux_decoder1"].map(of_part), 0);
    let expected = golden.get("cct3.out.grad_sums");
    for column in [0, 1] {
        let part = |table: &Tensor| table.select(1, column);
        assert_close("gradients", &part(&found), &part(&expected), OF_GRADIENTS);
    }
}

#[test]
fn networks_have_the_published_names_and_sizes() {
    let counted = |build: &dyn Fn(&mut Parameters)| {
        let mut parameters = Parameters::new(Key::new(0), Kind::Float, device());
        build(&mut parameters);
        parameters
    };
    let volumes = |channels, classes| {
        counted(&|all| drop(VolumetricCct::new(&mut all.root(), channels, classes)))
    };
    assert_eq!(volumes(4, 3).trainable_count(), 8_235_974);
    let of_one = volumes(1, 8);
    let names: Vec<&str> = of_one.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(
        names[..5],
        [
            "encoder.conv1.conv1.0.weight",
            "encoder.conv1.conv1.0.bias",
            "encoder.conv1.conv2.0.weight",
            "encoder.conv1.conv2.0.bias",
            "encoder.conv2.conv1.0.weight",
        ]
    );
    assert_eq!(names[16], "encoder.center.conv1.0.weight");
    assert_eq!(names[20], "main_decoder.up_concat4.conv.conv1.0.weight");
    assert_eq!(names[37], "main_decoder.final.bias");
    assert_eq!(names[55], "aux_decoder1.final.bias");
    assert_eq!(of_one.entries()[20].tensor.size(), [128, 384, 3, 3, 3]);
    assert_eq!(of_one.entries()[54].tensor.size(), [8, 16, 1, 1, 1]);
    let pymic = counted(&|all| {
        drop(UNetCct::shaped(&mut all.root(), 1, 4, &Topology::pymic()));
    });
    assert_eq!(pymic.trainable_count(), 2_446_040);
}

fn setup() -> Setup {
    crate::golden::setup(Kind::Double, [1, 32, 48])
}

/// `[encoder, main decoder, auxiliary decoder, running statistics][sum, sum of squares]`.
fn state(entries: &[Entry]) -> Tensor {
    let floating = || entries.iter().filter(|entry| entry.tensor.kind() != Kind::Int64);
    let of_part = |part: &str| {
        let chosen = floating().filter(|e| e.name.starts_with(part) && e.tensor.requires_grad());
        total_sums(&chosen.map(|entry| &entry.tensor).collect::<Vec<_>>())
    };
    let statistics = floating().filter(|entry| !entry.tensor.requires_grad());
    let statistics = total_sums(&statistics.map(|entry| &entry.tensor).collect::<Vec<_>>());
    let [encoder, main, auxiliary] = ["encoder", "main_decoder", "aux_decoder1"].map(of_part);
    Tensor::stack(&[encoder, main, auxiliary, statistics], 0)
}

#[test]
fn golden_three_updates_of_dmsps() {
    const TOTAL_STEPS: u64 = 10;
    let golden = Golden::open(FILE);
    let text =
        "learner = { lr = 0.01, optimizer = { sgd = { momentum = 0.9, weight_decay = 1e-4 } } }";
    let mut method = Dmsps::build(toml::from_str(text).unwrap(), &setup()).unwrap();
    fill(method.learners()[0].entries());
    let image = golden.get("step.in.image").to_kind(Kind::Double);
    let count = image.size()[0] as usize;
    let samples = Samples {
        image,
        annotation: golden.labels("step.in.scribble"),
        looked_for: None,
        items: vec![Item::slice(0, 0, [1, 1]); count],
        positions: (0..count as u64).collect(),
    };
    let batch = Batch::new(samples, count);
    let before = state(method.learners()[0].entries());
    let communicator = Ranks::alone();
    for iteration in 0..3 {
        let step = iteration as u64 + 1;
        let point = StepPoint::new(step, TOTAL_STEPS, Key::new(0));
        let mut cx = StepContext::new(point, &communicator);
        let share = golden.get("step.in.alpha").get(iteration);
        method.iterate(&batch, &Chance { kept: None, share }, &mut cx).unwrap();
        let report = cx.into_report().fetch().unwrap();
        let term = |name: &str| {
            let found = report.losses.iter().filter(|(term, _)| term.contains(name));
            found.map(|(_, value)| value / 2.0).sum::<f64>()
        };
        let (ce, soft) = (term("partial_ce"), term("pseudo_ce"));
        let losses = Tensor::from_slice(&[ce, soft, ce + WEIGHT * soft]);
        let expected = golden.get("step.out.losses").get(iteration);
        assert_close("losses", &losses, &expected, TOLERANCE);
        let rate = Schedule::Poly.learning_rate(0.01, &point);
        let expected = golden.get("step.out.lr").double_value(&[iteration]);
        assert!((rate - expected).abs() < 1e-12);

        let found = state(method.learners()[0].entries());
        let expected = golden.get("step.out.checksums").get(iteration);
        assert_close("statistics", &found.get(3), &expected.get(3), TOLERANCE);
        let moved = (found.narrow(0, 0, 3) - before.narrow(0, 0, 3)).abs();
        assert!(moved.min().double_value(&[]) > 1e-5, "otherwise nothing moves");
        let apart = (found - &expected).narrow(0, 0, 3).abs().max().double_value(&[]);
        assert!(apart < 1e-4, "weights differ by {apart:e} in their sums");
    }
}
