//! The networks against the reference implementations: outputs, running statistics, gradients.

use crate::golden::{Golden, assert_close, assert_rows_close, device, fill, sums};
use scrimp::losses::partial_cross_entropy;
use scrimp::native::Alone;
use scrimp::nets::Pass;
use scrimp::nets::unet::{UNet, UNetCct, channel_dropout, feature_dropout};
use scrimp::parameters::{Flat, Leaves, Parameters, Role};
use scrimp::random::Key;
use std::sync::Arc;
use tch::{Kind, Tensor};

fn train() -> Pass {
    Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 }
}

fn parameters() -> Parameters {
    parameters_of(Kind::Float)
}

fn parameters_of(kind: Kind) -> Parameters {
    Parameters::new(Key::new(0), kind, device())
}

fn floating(parameters: &Parameters) -> impl Iterator<Item = &Tensor> {
    parameters.entries().iter().map(|entry| &entry.tensor).filter(|t| t.kind() != Kind::Int64)
}

#[test]
fn golden_unet_matches_the_reference() {
    let golden = Golden::open("base-unet");
    let mut parameters = parameters();
    let net = UNet::new(&mut parameters.root(), 1, 4);
    assert_eq!(parameters.trainable_count(), 1_813_764);
    fill(parameters.entries());
    assert_close("fill", &sums(floating(&parameters)), &golden.get("unet.fill.stats"), 1e-6);

    let x = golden.get("unet.in.x");
    golden.assert_close("unet.out.eval", &net.forward(&x, &Pass::Evaluate).unwrap(), 1e-5);

    let logits = net.forward(&x, &train()).unwrap();
    golden.assert_close("unet.out.train", &logits, 1e-5);
    let loss = partial_cross_entropy(&logits, &golden.labels("unet.in.label"), &Alone);
    golden.assert_close("unet.train.loss_pce", &loss.detach(), 1e-5);
    let (found, expected) = (sums(floating(&parameters)), golden.get("unet.train.state_stats"));
    assert_rows_close("state after one training pass", (&found, &expected), 1e-5);
}

// In double precision: an input of a leaky rectification next to zero gets the one slope or the
// other by its rounding, and a single such element moves the gradients of whole layers.
#[test]
fn golden_unet_gradients_match_the_reference() {
    let golden = Golden::open("base-unet");
    let mut parameters = parameters_of(Kind::Double);
    let net = UNet::new(&mut parameters.root(), 1, 4);
    fill(parameters.entries());
    let flat = Flat::new(&parameters);
    let (leaves, all) = (Leaves::of(&parameters, &flat), flat.gradients());
    let x = golden.get("unet.in.x").to_kind(Kind::Double);
    let logits = net.forward(&x, &train()).unwrap();
    partial_cross_entropy(&logits, &golden.labels("unet.in.label"), &Alone).backward();
    leaves.gather_all(&all, false).unwrap();
    let gradients: Vec<Tensor> = flat.slots.iter().map(|slot| slot.view(&all)).collect();
    compare_gradients(&flat, &sums(gradients.iter()), &golden.get("unet.train.grad_stats"));
}

/// The reference's own rounding: at most 1e-4, but up to 1e-2 where it took another slope.
const GRADIENT_TOLERANCE: f64 = 2e-2;

/// Sums of squares parameter by parameter; the bias of a convolution in front of a normalisation
/// has no gradient but the reference's rounding, and must have none.
fn compare_gradients(flat: &Flat, actual: &Tensor, expected: &Tensor) {
    let largest = f64::try_from(expected.select(1, 1).max()).unwrap();
    for (row, slot) in flat.slots.iter().enumerate() {
        let (actual, expected) = (actual.get(row as i64), expected.get(row as i64));
        let [sum, square] = [0, 1].map(|i| f64::try_from(actual.get(i)).unwrap());
        let [sum_expected, square_expected] =
            [0, 1].map(|i| f64::try_from(expected.get(i)).unwrap());
        let normalised_away = slot.name.ends_with("bias")
            && (slot.name.contains("conv_conv.0") || slot.name.contains("conv_conv.4"));
        if normalised_away {
            assert!(square_expected < 1e-9 * largest && square == 0.0, "{}: {square:e}", slot.name);
            continue;
        }
        let name = &slot.name;
        assert!(
            (square - square_expected).abs()
                <= GRADIENT_TOLERANCE * square_expected + 1e-12 * largest,
            "{name}: {square:e}, expected {square_expected:e}"
        );
        let magnitude = (square_expected * slot.count() as f64).sqrt();
        assert!(
            (sum - sum_expected).abs() <= GRADIENT_TOLERANCE * magnitude,
            "{name}: {sum:e}, expected {sum_expected:e}"
        );
    }
}

#[test]
fn golden_unet_cct_matches_the_reference_under_each_perturbation() {
    let golden = Golden::open("base-unet");
    let x = golden.get("cct.in.x");
    let factors = golden.get("cct.in.fd_factor");
    for (mode, evaluate) in [("eval", true), ("train", false)] {
        for perturbation in ["off", "fd", "drop2d"] {
            let mut parameters = parameters();
            let net = UNetCct::new(&mut parameters.root(), 1, 4);
            assert_eq!(parameters.trainable_count(), 2_447_064);
            fill(parameters.entries());
            let perturb = |level: usize, features: &Tensor| match perturbation {
                "fd" => feature_dropout(features, factors.double_value(&[level as i64])),
                "drop2d" => channel_dropout(features, &golden.get(&format!("cct.in.keep{level}"))),
                _ => features.shallow_clone(),
            };
            let pass = if evaluate { Pass::Evaluate } else { train() };
            let (main, auxiliary) = net.forward(&x, &pass, perturb).unwrap();
            golden.assert_close(&format!("cct.out.main.{mode}"), &main, 1e-5);
            golden.assert_close(&format!("cct.out.aux_{perturbation}.{mode}"), &auxiliary, 1e-5);
        }
    }
}

#[test]
fn golden_feature_dropout_zeroes_the_most_active_positions() {
    let golden = Golden::open("base-unet");
    let factor = golden.get("fdrop.in.factor").double_value(&[]);
    golden.assert_close("fdrop.out.y", &feature_dropout(&golden.get("fdrop.in.x"), factor), 1e-6);
}

#[test]
fn state_names_follow_the_reference_order() {
    let mut parameters = parameters();
    UNet::new(&mut parameters.root(), 1, 4);
    let names: Vec<&str> = parameters.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(
        names[..7],
        [
            "encoder.in_conv.conv_conv.0.weight",
            "encoder.in_conv.conv_conv.0.bias",
            "encoder.in_conv.conv_conv.1.weight",
            "encoder.in_conv.conv_conv.1.bias",
            "encoder.in_conv.conv_conv.1.running_mean",
            "encoder.in_conv.conv_conv.1.running_var",
            "encoder.in_conv.conv_conv.1.num_batches_tracked",
        ]
    );
    assert_eq!(names[names.len() - 1], "decoder.out_conv.bias");
    let counters = parameters.entries().iter().filter(|e| e.tensor.kind() == Kind::Int64).count();
    assert_eq!(names.len() - counters, 118);
    assert!(
        parameters
            .entries()
            .iter()
            .all(|entry| entry.role == Role::Buffer || entry.tensor.requires_grad())
    );
}
