//! The layers and networks of CLTN against their released code.

use crate::golden::{Golden, assert_close, device, fill, fill_by_rule_b, sums};
use scrimp::losses::adversarial::{squared_verdict, verdict};
use scrimp::losses::consistency::mean_absolute;
use scrimp::native::Alone;
use scrimp::nets::Arithmetic;
use scrimp::nets::label_transfer::{
    Attention, Generator, GeneratorSize, Judge, attention_mask, blend, blended, class_scores,
    enlarged, heat_of,
};
use scrimp::nets::spectral::{self, Power, SpectralNorm};
use scrimp::parameters::{Entry, Parameters, Role};
use scrimp::random::Key;
use tch::{Kind, Tensor};

const FILE: &str = "cltn";
/// Rounding of the reference in single precision, relative to the largest magnitude.
const TOLERANCE: f64 = 1e-5;
/// The same through a whole network.
const NETWORK_TOLERANCE: f64 = 1e-4;

/// Stored inputs of one group as leaves in double precision.
struct Group {
    golden: Golden,
    name: &'static str,
}

impl Group {
    fn open(name: &'static str) -> Self {
        Self { golden: Golden::open(FILE), name }
    }

    fn leaf(&self, input: &str) -> Tensor {
        self.plain(input).set_requires_grad(true)
    }

    fn plain(&self, input: &str) -> Tensor {
        self.golden.get(&format!("{}.in.{input}", self.name)).to_kind(Kind::Double)
    }

    fn output(&self, key: &str, value: &Tensor) {
        self.golden.assert_close(&format!("{}.out.{key}", self.name), value, TOLERANCE);
    }

    /// The loss, and its gradient with respect to every named leaf.
    fn gradients(&self, loss: &Tensor, leaves: &[(&str, &Tensor)]) {
        self.output("loss", loss);
        let inputs: Vec<&Tensor> = leaves.iter().map(|(_, leaf)| *leaf).collect();
        let gradients = Tensor::run_backward(&[loss], &inputs, true, false);
        for ((name, _), gradient) in leaves.iter().zip(gradients) {
            let key = format!("{}.grad.{name}", self.name);
            self.golden.assert_close(&key, &gradient, TOLERANCE);
        }
    }
}

fn total(x: &Tensor) -> Tensor {
    x.sum(Kind::Double)
}

fn mean_square(x: &Tensor) -> Tensor {
    x.square().mean(Kind::Double)
}

#[test]
fn golden_blended_normalisations() {
    for name in ["iln", "adailn"] {
        let group = Group::open(name);
        let [x, rho, gamma, beta] = ["x", "rho", "gamma", "beta"].map(|key| group.leaf(key));
        let per_channel = |t: &Tensor| {
            if t.dim() == 4 { t.shallow_clone() } else { t.unsqueeze(-1).unsqueeze(-1) }
        };
        let y = blended(&x, &rho, &per_channel(&gamma), &per_channel(&beta));
        group.output("y", &y);
        let loss = total(&(y * group.plain("w")));
        group.gradients(&loss, &[("x", &x), ("rho", &rho), ("gamma", &gamma), ("beta", &beta)]);
    }
}

#[test]
fn golden_class_scores_and_their_features() {
    let group = Group::open("cam");
    let keys = ["x", "gap_w", "gmp_w", "conv_w", "conv_b"];
    let [x, gap, gmp, weight, bias] = keys.map(|key| group.leaf(key));
    let scores = class_scores(&x, [&gap, &gmp]);
    let arithmetic = Arithmetic { computed: x.kind() };
    let (weights, biases) = (weight.shallow_clone(), bias.shallow_clone());
    let attention = Attention { weight: weights, bias: biases, arithmetic };
    let features = attention.forward(&x, [&gap, &gmp]).relu();
    group.output("cam_logit", &scores);
    group.output("feat", &features);
    group.output("heatmap", &heat_of(&features));
    let told = verdict(&scores, true, 2, &Alone);
    let loss = total(&(features * group.plain("w"))) + told;
    let leaves = [&x, &gap, &gmp, &weight, &bias];
    group.gradients(&loss, &keys.into_iter().zip(leaves).collect::<Vec<_>>());
}

#[test]
fn golden_masks_blend_features_and_images() {
    let group = Group::open("mask");
    let [features, weight, painted] = ["feat", "conv_w", "image_out1"].map(|key| group.leaf(key));
    let mask = attention_mask(&features, &weight);
    let blended = blend(&group.plain("dec"), &group.plain("rec"), &mask);
    let large = enlarged(&enlarged(&mask));
    let composed = blend(&painted, &group.plain("input"), &large);
    group.output("att", &mask);
    group.output("blend", &blended);
    group.output("mask", &large.expand([-1, 3, -1, -1], false).contiguous());
    group.output("image_out2", &composed);
    let loss = mean_square(&composed) + mean_square(&blended);
    let leaves = [("feat", &features), ("conv_w", &weight), ("image_out1", &painted)];
    group.gradients(&loss, &leaves);
}

#[test]
fn golden_spectral_norms() {
    let group = Group::open("sn");
    let (weight, bias, x) = (group.leaf("weight_orig"), group.plain("bias"), group.plain("x"));
    let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
    let norm = SpectralNorm::new(&mut parameters.root(), 5, 48);
    for (entry, input) in parameters.entries().iter().zip(["u", "v"]) {
        entry.tensor.shallow_clone().copy_(&group.plain(input));
    }
    let divide = |power| spectral::divided(&[norm.of(&weight)], power).unwrap().remove(0);
    let run = |power| {
        let divided = divide(power);
        x.conv2d(&divided, Some(&bias), [2; 2], [0; 2], [1; 2], 1)
    };
    let vectors = |pass: u8| {
        for (entry, name) in parameters.entries().iter().zip(["u", "v"]) {
            group.output(&format!("{name}{pass}"), &entry.tensor);
        }
    };
    let first = run(Power::Iterate);
    group.output("y1", &first);
    vectors(1);
    let divided = divide(Power::Hold);
    group.output("sigma1", &(&weight / divided).mean(Kind::Double));
    let loss = total(&(first * group.plain("w")));
    let gradient = Tensor::run_backward(&[loss], &[&weight], false, false);
    group.golden.assert_close("sn.grad.weight_orig", &gradient[0], TOLERANCE);
    group.output("y2", &run(Power::Iterate));
    vectors(2);
    group.output("y_eval", &run(Power::Hold));
}

#[test]
fn golden_losses_of_label_transfer() {
    let group = Group::open("lsgan_d");
    let [real, fake] = ["real", "fake"].map(|key| group.leaf(key));
    let of = |outputs, is_real| squared_verdict(outputs, is_real, 2, &Alone);
    group.gradients(&(of(&real, true) + of(&fake, false)), &[("real", &real), ("fake", &fake)]);
    let group = Group::open("lsgan_g");
    let fake = group.leaf("fake");
    group.gradients(&of(&fake, true), &[("fake", &fake)]);
    let group = Group::open("l1");
    let prediction = group.leaf("pred");
    let loss = mean_absolute(&prediction, &group.plain("target"), 2, &Alone);
    group.gradients(&loss, &[("pred", &prediction)]);
    let group = Group::open("cam_bce");
    let [one, zero] = ["logit_one", "logit_zero"].map(|key| group.leaf(key));
    let loss = verdict(&one, true, 2, &Alone) + verdict(&zero, false, 2, &Alone);
    group.gradients(&loss, &[("logit_one", &one), ("logit_zero", &zero)]);
}

/// `[sum, sum of squares]` of the gradients of all trainable tensors.
fn gradient_sums(entries: &[Entry]) -> Tensor {
    let trainable = entries.iter().filter(|entry| entry.role != Role::Buffer);
    let gradients: Vec<Tensor> = trainable.map(|entry| entry.tensor.grad()).collect();
    sums(gradients.iter()).sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
}

/// Fails where a gradient's sums are off by more than rounding can explain: the plain sum cancels.
fn assert_gradient_sums(golden: &Golden, key: &str, entries: &[Entry]) {
    let (found, expected) = (gradient_sums(entries), golden.get(key).to_kind(Kind::Double));
    assert_close(key, &found.get(1), &expected.get(1), 5e-4);
    let count: usize = entries.iter().map(|entry| entry.tensor.numel()).sum();
    let allowed = 1e-4 * (count as f64 * expected.double_value(&[1])).sqrt();
    let apart = found.double_value(&[0]) - expected.double_value(&[0]);
    assert!(apart.abs() <= allowed, "{key}: {apart:e}, allowed {allowed:e}");
}

const GENERATORS: [(&str, GeneratorSize); 3] = [
    ("gen_light", GeneratorSize { width: 8, full_for: None }),
    ("gen_full", GeneratorSize { width: 4, full_for: Some(32) }),
    ("gen_b", GeneratorSize { width: 8, full_for: None }),
];

#[test]
fn golden_generators() {
    let golden = Golden::open(FILE);
    for (name, size) in GENERATORS {
        let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
        let net = Generator::new(&mut parameters.root(), size);
        let by_rule_b = name == "gen_b";
        if by_rule_b {
            fill_by_rule_b(parameters.entries(), 0);
        } else {
            fill(parameters.entries());
        }
        let input = if golden.has(&format!("{name}.in.x")) { name } else { "gen_light" };
        let x = golden.get(&format!("{input}.in.x")).to_kind(Kind::Double).set_requires_grad(true);
        let out = net.forward(&x);
        let outputs = [
            ("image_out1", &out.painted),
            ("cam_logit", &out.scores),
            ("heatmap", &out.heat),
            ("mask", &out.mask),
            ("image_out2", &out.composed),
            ("input_r", &out.restored),
        ];
        for (key, value) in outputs {
            golden.assert_close(&format!("{name}.out.{key}"), value, NETWORK_TOLERANCE);
        }
        assert!(net.mask(&x).equal(&out.mask));
        let squares = [&out.painted, &out.scores, &out.composed, &out.restored, &out.heat];
        let loss = squares.map(mean_square).iter().sum::<Tensor>() + out.mask.mean(Kind::Double);
        golden.assert_close(&format!("{name}.out.loss"), &loss, NETWORK_TOLERANCE);
        loss.backward();
        golden.assert_close(&format!("{name}.grad.x"), &x.grad(), NETWORK_TOLERANCE);
        for entry in parameters.entries() {
            let key = format!("{name}.grad.{}", entry.name);
            if golden.has(&key) {
                golden.assert_close(&key, &entry.tensor.grad(), NETWORK_TOLERANCE);
            }
        }
        assert_gradient_sums(&golden, &format!("{name}.grad_sum"), parameters.entries());
    }
}

#[test]
fn golden_judges() {
    let golden = Golden::open(FILE);
    for (name, layers, width) in
        [("dis_local", 5, 8), ("dis_global", 7, 4), ("dis_local_b", 5, 8), ("dis_global_b", 7, 4)]
    {
        let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
        let net = Judge::new(&mut parameters.root(), layers, width);
        let entries = parameters.entries();
        if name.ends_with("_b") {
            fill_by_rule_b(entries, 0);
        } else {
            fill(entries);
        }
        let input = format!("{}.in.x", name.trim_end_matches("_b"));
        let x = golden.get(&input).to_kind(Kind::Double).set_requires_grad(true);
        for (pass, power) in [("train", Power::Iterate), ("eval", Power::Hold)] {
            let said = net.forward(&x, power).unwrap();
            let outputs =
                [("logit", &said.patches), ("cam_logit", &said.scores), ("heatmap", &said.heat)];
            for (key, value) in outputs {
                golden.assert_close(&format!("{name}.{pass}.{key}"), value, NETWORK_TOLERANCE);
            }
            if power == Power::Hold {
                continue;
            }
            let count = x.size()[0] as usize;
            let doubt = |outputs| squared_verdict(outputs, true, count, &Alone);
            let loss = doubt(&said.patches) + doubt(&said.scores);
            golden.assert_close(&format!("{name}.train.loss"), &loss, NETWORK_TOLERANCE);
            loss.backward();
            // Matrices of rank two make this gradient all but cancel: what the reference has is rounding.
            let tolerance = if name == "dis_global" { 0.2 } else { NETWORK_TOLERANCE };
            golden.assert_close(&format!("{name}.grad.x"), &x.grad(), tolerance);
            assert_gradient_sums(&golden, &format!("{name}.grad_sum"), entries);
            let vectors = entries.iter().filter(|entry| entry.role == Role::Buffer);
            let vectors = sums(vectors.map(|entry| &entry.tensor));
            let vectors = vectors.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
            golden.assert_close(&format!("{name}.buf_sum"), &vectors, NETWORK_TOLERANCE);
        }
    }
}

#[test]
fn networks_have_the_published_size() {
    let count = |entries: &[Entry], with_unused: bool| -> usize {
        let kept = entries.iter().filter(|entry| {
            let is_vector = entry.name.ends_with("weight_u") || entry.name.ends_with("weight_v");
            entry.role != Role::Buffer || (with_unused && !is_vector)
        });
        kept.map(|entry| entry.tensor.numel()).sum()
    };
    let mut light = Parameters::new(Key::new(0), Kind::Float, device());
    Generator::new(&mut light.root(), GeneratorSize { width: 54, full_for: None });
    assert_eq!(light.trainable_count(), 11_267_370);
    assert_eq!(count(light.entries(), true), 12_480_426);
    for (layers, expected) in [(7, 37_830_186), (5, 2_344_410)] {
        let mut judge = Parameters::new(Key::new(0), Kind::Float, device());
        Judge::new(&mut judge.root(), layers, 54);
        assert_eq!(judge.trainable_count(), expected);
    }
}
