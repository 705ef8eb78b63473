//! CMC against the released code: losses with gradients, attention, the whole network, weights over the run.

use crate::golden::{Golden, device, fill_by_rule_b};
use scrimp::losses::cross_modality::{
    Rows, anatomical_similarity, contrast, dice_cross_entropy, semantic_inconsistency,
};
use scrimp::native::Alone;
use scrimp::nets::Pass;
use scrimp::nets::cross_modality::{CrossModality, FusedWith, WIDTH, attend};
use scrimp::parameters::Parameters;
use scrimp::random::Key;
use scrimp::train::point::StepPoint;
use scrimp::train::schedule::{Schedule, WarmUp, fall, ramp_up};
use std::sync::Arc;
use tch::{Kind, Tensor};

const FILE: &str = "cmc";
/// Rounding of the reference in single precision, relative to the largest magnitude.
const TOLERANCE: f64 = 1e-5;
/// The same of a whole network.
const OF_NETWORK: f64 = 1e-4;
/// Epochs of the reference, of which the first 50 warm up.
const EPOCHS: u64 = 500;

fn leaf(golden: &Golden, key: &str) -> Tensor {
    golden.get(key).to_kind(Kind::Double).set_requires_grad(true)
}

/// Compares the value of a loss of two tensors, and the gradients with regard to both.
fn check(golden: &Golden, name: &str, keys: [&str; 2], loss: impl Fn([&Tensor; 2]) -> Tensor) {
    let of_inputs = name.replace("_channel", "");
    let at = keys.map(|key| leaf(golden, &format!("{of_inputs}.in.{key}")));
    let value = loss(at.each_ref());
    value.backward();
    golden.assert_close(&format!("{name}.out.loss"), &value.detach(), TOLERANCE);
    for (key, at) in keys.iter().zip(at) {
        golden.assert_close(&format!("{name}.grad.{key}"), &at.grad(), TOLERANCE);
    }
}

#[test]
fn golden_losses_of_two_modalities() {
    let golden = Golden::open(FILE);
    let samples = golden.get("csc.in.ct").size()[0] as usize;
    for (name, rows) in [("csc", Rows::Consecutive), ("csc_channel", Rows::Channels)] {
        check(&golden, name, ["ct", "mri"], |features| {
            semantic_inconsistency(features, rows, samples, &Alone)
        });
    }
    check(&golden, "ntxent", ["x", "y"], |[x, y]| {
        contrast(&x.unsqueeze(0), &y.unsqueeze(0)).squeeze()
    });
    let samples = golden.get("cac.in.ct").size()[0] as usize;
    check(&golden, "cac", ["ct", "mri"], |maps| anatomical_similarity(maps, samples, &Alone));
    let nothing = golden.get("cac.in.ct").zeros_like();
    let of_nothing = anatomical_similarity([&nothing, &nothing], samples, &Alone);
    golden.assert_close("cac.out.zero", &of_nothing, TOLERANCE);

    let logits = leaf(&golden, "dicece.in.logits");
    let labels = golden.get("dicece.in.label").squeeze_dim(1).to_kind(Kind::Int64);
    let loss = dice_cross_entropy(&logits, &labels, logits.size()[0] as usize, &Alone);
    golden.assert_close("dicece.out.loss", &loss.detach(), TOLERANCE);
    loss.backward();
    golden.assert_close("dicece.grad.logits", &logits.grad(), TOLERANCE);
}

#[test]
fn golden_attention_between_channels() {
    let golden = Golden::open(FILE);
    let x = leaf(&golden, "mia.in.x");
    let gamma = Tensor::full([1], 0.3, (Kind::Double, device())).set_requires_grad(true);
    let y = attend(&x, &gamma);
    golden.assert_close("mia.out.y", &y.detach(), TOLERANCE);
    let loss = (y * golden.get("mia.in.w").to_kind(Kind::Double)).sum(Kind::Double);
    golden.assert_close("mia.out.loss", &loss.detach(), TOLERANCE);
    loss.backward();
    golden.assert_close("mia.grad.x", &x.grad(), TOLERANCE);
    golden.assert_close("mia.grad.gamma", &gamma.grad(), TOLERANCE);
}

/// Sum and sum of squares of all entries of these names together.
fn total(parameters: &Parameters, name: &str) -> Tensor {
    let entries = parameters.entries().iter().filter(|entry| entry.name.ends_with(name));
    let all: Vec<Tensor> = entries.map(|entry| entry.tensor.view(-1)).collect();
    let all = Tensor::cat(&all, 0);
    Tensor::stack(&[all.sum(Kind::Double), all.square().sum(Kind::Double)], 0)
}

#[test]
fn golden_network_over_two_modalities() {
    let golden = Golden::open(FILE);
    let mut parameters = Parameters::new(Key::new(0), Kind::Float, device());
    let net = CrossModality::new(&mut parameters.root(), WIDTH, 14);
    assert_eq!(parameters.trainable_count(), 40_838_095);
    let entries = parameters.entries();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let first = "image_encoder.down_tr64.ops.0";
    for (number, name) in [
        (0, format!("{first}.conv1.weight")),
        (1, format!("{first}.conv1.bias")),
        (2, format!("{first}.bn1.weight")),
        (6, format!("{first}.bn1.num_batches_tracked")),
        (56, "decoder.up_tr256.up_conv.weight".to_owned()),
        (104, "decoder.out_tr.conv.conv.weight".to_owned()),
        (106, "MIA_module.gamma".to_owned()),
        (107, "fusion_layer.layer1.conv1.weight".to_owned()),
        (121, "conv3d_convert.0.weight".to_owned()),
        (124, "conv3d_convert.2.bias".to_owned()),
    ] {
        assert_eq!(names[number], name, "{number}");
    }
    assert_eq!(names.len(), 125);
    assert_eq!(entries[104].tensor.size(), [14, 64, 1, 1, 1]);
    fill_by_rule_b(entries, 0);
    let [ct, mr] = ["ct", "mri"].map(|name| golden.get(&format!("net.in.{name}")));
    let pass = Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 };
    let seen = tch::no_grad(|| net.forward([&ct, &mr], FusedWith::Partner, &pass)).unwrap();
    for (name, seen) in ["ct", "mri"].iter().zip(&seen) {
        let channels = seen.features.slice(1, 0, None, 32);
        golden.assert_close(&format!("net.out.{name}_feat"), &channels, OF_NETWORK);
        let mut logits = seen.logits.shallow_clone();
        for axis in 2..5 {
            logits = logits.slice(axis, 0, None, 2);
        }
        golden.assert_close(&format!("net.out.{name}_logits"), &logits, OF_NETWORK);
    }
    for (statistic, key) in [("running_mean", "mean"), ("running_var", "var")] {
        let found = total(&parameters, statistic);
        golden.assert_close(&format!("net.out.running_{key}_sum"), &found, OF_NETWORK);
    }
}

#[test]
fn golden_learning_rates_and_weights_of_cmc() {
    let golden = Golden::open(FILE);
    let schedule = Schedule::WarmUpCosine(WarmUp { warm_up: 0.1 });
    let point = |step| StepPoint::new(step, EPOCHS, Key::new(0));
    let rates = (1..=EPOCHS).map(|step| schedule.learning_rate(1e-4, &point(step)));
    golden.assert_close("lr.out", &Tensor::from_slice(&rates.collect::<Vec<f64>>()), 1e-7);
    let progress = || (0..EPOCHS).step_by(10).map(|epoch| epoch as f64 / EPOCHS as f64);
    let of = |weight: fn(f64) -> f64| progress().map(weight).collect::<Vec<f64>>();
    golden.assert_close("ramp.csc", &Tensor::from_slice(&of(ramp_up)), 1e-6);
    golden.assert_close("ramp.cac", &Tensor::from_slice(&of(fall)), 1e-6);
}
