//! Losses against the reference implementations: value and gradient.

use crate::golden::Golden;
use scrimp::losses::{Masking, SMOOTH, dice, partial_cross_entropy, partial_dice};
use scrimp::native::Alone;
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 1e-5;

/// Compares `loss(logits)` and its gradient with `PREFIX.out.loss` and `PREFIX.grad.logits`.
fn check(golden: &Golden, prefix: &str, logits: &str, loss: impl Fn(&Tensor) -> Tensor) {
    let logits = golden.get(logits).copy().set_requires_grad(true);
    let value = loss(&logits);
    value.backward();
    golden.assert_close(&format!("{prefix}.out.loss"), &value.detach(), TOLERANCE);
    golden.assert_close(&format!("{prefix}.grad.logits"), &logits.grad(), TOLERANCE);
}

fn softmax(logits: &Tensor) -> Tensor {
    logits.softmax(1, Kind::Float)
}

fn supervised(logits: &Tensor, labels: &Tensor) -> Tensor {
    (partial_cross_entropy(logits, labels, &Alone) + dice(&softmax(logits), labels, SMOOTH, &Alone))
        * 0.5
}

#[test]
fn golden_base_losses() {
    let golden = Golden::open("base-unet");
    let labels = |prefix: &str| golden.labels(&format!("{prefix}.in.label"));
    check(&golden, "pce", "pce.in.logits", |z| partial_cross_entropy(z, &labels("pce"), &Alone));
    check(&golden, "dice", "dice.in.logits", |z| {
        dice(&softmax(z), &labels("dice"), SMOOTH, &Alone)
    });
    check(&golden, "sup", "sup.in.logits", |z| supervised(z, &labels("sup")));
    for (prefix, masking) in [
        ("pdice", Masking::AcrossBatch),
        ("pdice_ign", Masking::AcrossBatch),
        ("ext_pdice_fixed", Masking::PerSample),
    ] {
        check(&golden, prefix, &format!("{prefix}.in.logits"), |z| {
            partial_dice(&softmax(z), &labels(prefix), masking, &Alone)
        });
    }
}

#[test]
fn golden_baseline_losses() {
    let golden = Golden::open("baseline-losses");
    let scribble = golden.labels("in.scribble");
    let dense = golden.labels("in.label");
    let pdice =
        |z: &Tensor, labels: &Tensor, masking| partial_dice(&softmax(z), labels, masking, &Alone);
    check(&golden, "pce", "in.logits", |z| partial_cross_entropy(z, &scribble, &Alone));
    check(&golden, "ce_dense", "in.logits", |z| partial_cross_entropy(z, &dense, &Alone));
    check(&golden, "dice", "in.logits", |z| dice(&softmax(z), &dense, SMOOTH, &Alone));
    check(&golden, "pdice", "in.logits", |z| pdice(z, &scribble, Masking::AcrossBatch));
    check(&golden, "pdice_dense", "in.logits", |z| pdice(z, &dense, Masking::AcrossBatch));
    check(&golden, "pdice_fixed", "in.logits", |z| pdice(z, &scribble, Masking::PerSample));
}

#[test]
fn a_batch_without_annotation_has_no_loss_and_no_gradient() {
    let logits =
        Tensor::ones([2, 4, 3, 3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    let nothing = Tensor::full([2, 3, 3], 255, (Kind::Int64, tch::Device::Cpu));
    let loss = partial_cross_entropy(&logits, &nothing, &Alone);
    loss.backward();
    assert_eq!(loss.double_value(&[]), 0.0);
    assert_eq!(logits.grad().abs().max().double_value(&[]), 0.0);
}
