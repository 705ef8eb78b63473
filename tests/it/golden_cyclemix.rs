//! CycleMix against its released code: the network, its losses, and the rotation of maps.

use crate::golden::{Golden, assert_close, assert_rows_close, device, fill, sums};
use scrimp::losses::mixed::{cosine_distance, partial_cross_entropy_of_probabilities};
use scrimp::losses::one_hot;
use scrimp::mixing::rotation::rotated;
use scrimp::native::Alone;
use scrimp::nets::Pass;
use scrimp::nets::valid_unet::ValidUNet;
use scrimp::parameters::Parameters;
use scrimp::random::Key;
use std::sync::Arc;
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 1e-5;
/// What single precision leaves of the network's outputs, whose 23 convolutions sum up to 9288 products for a
/// number: in double precision they are within 7e-6 of the stored ones.
const OF_NETWORK: f64 = 1e-4;
/// Weight of both consistency terms in the stored losses.
const CONSISTENCY: f64 = 0.1;

/// Every fourth row and column.
fn thinned(maps: &Tensor) -> Tensor {
    maps.slice(2, 0, None, 4).slice(3, 0, None, 4)
}

#[test]
fn golden_network_with_valid_convolutions() {
    let golden = Golden::open("cyclemix-net");
    let mut parameters = Parameters::new(Key::new(0), Kind::Float, device());
    let net = ValidUNet::new(&mut parameters.root(), 1, 4);
    fill(parameters.entries());
    let image = golden.get("in.image");
    let train = Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 };
    for (mode, pass) in [("eval", Pass::Evaluate), ("train", train)] {
        let logits = tch::no_grad(|| net.logits(&image, &pass)).unwrap();
        let key = |what: &str| format!("net.{mode}.out.{what}");
        golden.assert_close(&key("logit_s4"), &thinned(&logits), OF_NETWORK);
        let (found, expected) = (sums([&logits].into_iter()), golden.get(&key("logit_sums")));
        assert_rows_close(&key("logit_sums"), (&found, &expected), TOLERANCE);
        // Logits of the untrained running statistics are so large that their rounding decides single pixels.
        let probabilities = thinned(&logits.softmax(1, Kind::Float));
        let apart = (probabilities - golden.get(&key("prob_s4"))).abs();
        assert!(apart.mean(Kind::Double).double_value(&[]) < OF_NETWORK, "{mode}");
    }
    for (key, name) in [
        ("running_mean.Conv1_first", "UNet.Conv1.conv.2.running_mean"),
        ("running_mean.Norm", "UNet.Norm.running_mean"),
        ("running_var.Conv5", "UNet.Conv5.conv.5.running_var"),
        ("running_var.Norm", "UNet.Norm.running_var"),
    ] {
        let expected = golden.get(&format!("net.train.out.{key}"));
        let entry = parameters.entries().iter().find(|entry| entry.name == name).unwrap();
        let found = entry.tensor.narrow(0, 0, expected.size()[0]);
        assert_close(key, &found, &expected, TOLERANCE);
    }
}

fn leaf(golden: &Golden, key: &str) -> Tensor {
    golden.get(key).copy().set_requires_grad(true)
}

#[test]
fn golden_cross_entropy_of_mixed_labels() {
    let golden = Golden::open("cyclemix");
    let p = leaf(&golden, "pce.in.prob");
    // The last channel is what nobody annotated.
    let target = golden.get("pce.in.target").narrow(1, 0, p.size()[1]);
    let loss = partial_cross_entropy_of_probabilities(&p, &target, p.size()[0] as usize, &Alone);
    loss.backward();
    golden.assert_close("pce.out.loss", &loss.detach(), TOLERANCE);
    golden.assert_close("pce.grad.prob", &p.grad(), TOLERANCE);
}

#[test]
fn golden_local_consistency() {
    let golden = Golden::open("cyclemix");
    let p = leaf(&golden, "local.in.prob");
    let target = one_hot(&golden.labels("local.mid.label"), &p);
    let loss = cosine_distance(&p, &target, p.size()[0] as usize, &Alone) * CONSISTENCY;
    loss.backward();
    golden.assert_close("local.out.loss", &loss.detach(), TOLERANCE);
    golden.assert_close("local.grad.prob", &p.grad(), TOLERANCE);
}

// The stored gradient of a prediction that is zero is formal and of the size 1e4: no network has such a
// prediction, whose zeros are what a rotation did not find. Ours is zero there.
#[test]
fn golden_global_consistency() {
    let golden = Golden::open("cyclemix");
    let (plain, mixed) =
        (leaf(&golden, "global.in.prob_orig"), leaf(&golden, "global.in.prob_cut"));
    let share = golden.get("global.in.mask");
    let partners = plain.index_select(0, &golden.get("global.in.indices"));
    let keep = golden.get("global.in.cutmask").to_kind(plain.kind());
    let expected = (&plain * &share + partners * (1.0 - &share)) * keep;
    let samples = plain.size()[0] as usize;
    let loss = cosine_distance(&mixed, &expected, samples, &Alone) * CONSISTENCY;
    loss.backward();
    golden.assert_close("global.out.loss", &loss.detach(), TOLERANCE);
    golden.assert_close("global.grad.prob_orig", &plain.grad(), TOLERANCE);
    let is_there =
        mixed.detach().abs().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).gt(0.0);
    let stored = golden.get("global.grad.prob_cut").where_scalarother(&is_there, 0.0);
    assert_close("global.grad.prob_cut", &mixed.grad(), &stored, TOLERANCE);
}

#[test]
fn golden_rotations_of_maps() {
    let golden = Golden::open("cyclemix");
    let options = (Kind::Float, device());
    let grid = Tensor::arange(64, options).view([1, 1, 8, 8]);
    for degrees in [45u16, 90, 180, 270] {
        let key = format!("rot.grid8.out.{degrees}");
        golden.assert_close(&key, &rotated(&grid, &[f64::from(degrees)]), 0.0);
    }
    for set in ["even", "odd"] {
        let key = |what: &str| format!("rot.{set}.{what}");
        let angles = Vec::<f64>::try_from(golden.get(&key("in.angle"))).unwrap();
        let back: Vec<f64> = angles.iter().map(|angle| -angle).collect();
        for (maps, there_and_back) in
            [("in.image", ["out.image", "out.back"]), ("in.label", ["out.label", "out.label_back"])]
        {
            let there = rotated(&golden.get(&key(maps)), &angles);
            golden.assert_close(&key(there_and_back[0]), &there, 0.0);
            golden.assert_close(&key(there_and_back[1]), &rotated(&there, &back), 0.0);
        }
    }
}
