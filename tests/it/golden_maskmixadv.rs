//! MaskMixAdv against its released code: operator, losses, networks and two whole iterations.

use crate::golden::{Golden, assert_close, assert_rows_close, device, fill, sums};
use scrimp::comm::Ranks;
use scrimp::data::augment::zoom_labels;
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::data::stream::SHAPES;
use scrimp::losses::adversarial::verdict;
use scrimp::losses::{SMOOTH, dice, masked_mean_square, one_hot, partial_cross_entropy};
use scrimp::methods::Recipe;
use scrimp::methods::maskmixadv::{MaskMixAdv, Params};
use scrimp::mixing::{CellMasks, divided, expected_class, label_map, mix};
use scrimp::native::Alone;
use scrimp::nets::Pass;
use scrimp::nets::gan::{Discriminator, Judge};
use scrimp::nets::unet::UNetMae;
use scrimp::parameters::{Entry, Parameters};
use scrimp::random::Key;
use scrimp::train::point::StepPoint;
use scrimp::train::{FetchedNumbers, Method, StepContext};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Kind, Tensor};

const FILE: &str = "maskmixadv";
/// Rounding of the reference in single precision, relative to the largest magnitude.
const TOLERANCE: f64 = 1e-5;
/// How far the squares of a gradient may be from the reference's. Its rounding grows on the way back through
/// the layers, to 1e-4 of single rows; a gradient that is wrong by 1e-3 has squares that are by 2e-3.
const GRADIENT_TOLERANCE: f64 = 1e-3;

fn order(perm: &Tensor) -> Vec<usize> {
    let perm: Vec<i64> = Vec::try_from(perm).unwrap();
    perm.into_iter().map(|place| place as usize).collect()
}

fn masks(perm: &Tensor, ratio: f64) -> CellMasks {
    CellMasks::of(&Tensor::from_slice(&divided(&order(perm), ratio)).to_device(device()))
}

fn blank(size: i64) -> Tensor {
    Tensor::zeros([1, 1, size, size], (Kind::Float, device()))
}

#[test]
fn golden_masks_show_the_cells_of_the_permutation() {
    let golden = Golden::open(FILE);
    let perm = golden.get("maskgen.in.perm");
    let equal = |key: &str, ratio: f64, size: i64| {
        let [mask, _] = masks(&perm, ratio).at_size_of(&blank(size));
        assert!(
            mask.to_kind(Kind::Uint8).view_as(&golden.get(key)).equal(&golden.get(key)),
            "{key}"
        );
    };
    equal("maskgen.out.mask1", 0.5, 64);
    equal("maskgen.out.mask1_256_r50", 0.5, 256);
    equal("maskgen.out.cells_r25", 0.25, 32);
    equal("maskgen.out.cells_r75", 0.75, 32);
    let x = golden.get("maskgen.in.x");
    let [first, second] = masks(&perm, 0.5).at_size_of(&x);
    golden.assert_close("maskgen.out.masked1", &(&x * first), 0.0);
    golden.assert_close("maskgen.out.masked2", &(&x * second), 0.0);
}

#[test]
fn golden_feature_masks_fit_every_level() {
    let golden = Golden::open(FILE);
    for level in 0..5 {
        let masks = masks(&golden.get("featmask.in.perm").get(level), 0.5);
        let key = format!("featmask.out.mask{level}");
        golden.assert_close(&key, &masks.at_size_of(&blank(256 >> level))[0], 0.0);
    }
}

/// The inputs of the loss keys, in double precision.
struct LossInputs {
    golden: Golden,
    logits: [Tensor; 2],
    mask: Tensor,
    restored: Tensor,
    image: Tensor,
    annotation: Tensor,
}

impl LossInputs {
    fn open() -> Self {
        let golden = Golden::open(FILE);
        let leaf = |key: &str| golden.get(key).to_kind(Kind::Double).set_requires_grad(true);
        Self {
            logits: [leaf("loss.in.logits1"), leaf("loss.in.logits2")],
            mask: golden.get("loss.in.mask1").to_kind(Kind::Double).unsqueeze(0),
            restored: leaf("loss.in.restore"),
            image: golden.get("loss.in.image").to_kind(Kind::Double),
            annotation: golden.labels("loss.in.label"),
            golden,
        }
    }

    fn softmax(&self) -> [Tensor; 2] {
        self.logits.each_ref().map(|z| z.softmax(1, Kind::Double))
    }

    fn mixed(&self) -> Tensor {
        let [first, second] = self.softmax();
        mix([&first, &second], &self.masks())
    }

    fn masks(&self) -> [Tensor; 2] {
        [self.mask.shallow_clone(), 1.0 - &self.mask]
    }

    fn cross_entropy(&self) -> Tensor {
        let [first, second] =
            self.logits.each_ref().map(|z| partial_cross_entropy(z, &self.annotation, &Alone));
        (first + second) * 0.5
    }

    fn pseudo_dice(&self) -> Tensor {
        let pseudo = label_map(&self.mixed());
        let smooth = SMOOTH / self.image.size()[0] as f64;
        let [first, second] = self.softmax().map(|p| dice(&p, &pseudo, smooth, &Alone));
        (first + second) * 0.5
    }

    fn reconstruction(&self) -> Tensor {
        let hidden: Tensor = 1.0 - &self.mask;
        masked_mean_square(&self.restored, &self.image, &hidden, &Alone)
    }

    /// Value, and gradients with respect to every input that has one.
    fn check(&self, name: &str, loss: &Tensor, inputs: &[(&str, &Tensor)]) {
        self.golden.assert_close(&format!("{name}.out.loss"), loss, TOLERANCE);
        let leaves: Vec<&Tensor> = inputs.iter().map(|(_, leaf)| *leaf).collect();
        let gradients = Tensor::run_backward(&[loss], &leaves, true, false);
        for ((input, _), gradient) in inputs.iter().zip(gradients) {
            self.golden.assert_close(&format!("{name}.grad.{input}"), &gradient, TOLERANCE);
        }
    }
}

#[test]
fn golden_losses_and_their_sum() {
    let given = LossInputs::open();
    let [first, second] = &given.logits;
    let logits = [("logits1", first), ("logits2", second)];
    given.check("ce", &given.cross_entropy(), &logits);
    given.check("pse", &given.pseudo_dice(), &logits);
    given.check("mae", &given.reconstruction(), &[("restore", &given.restored)]);
    let total =
        given.cross_entropy() * 10.0 + given.pseudo_dice() * 0.5 + given.reconstruction() * 10.0;
    given.check("total", &total, &[logits[0], logits[1], ("restore", &given.restored)]);
    let of_mixed =
        partial_cross_entropy(&mix([first, second], &given.masks()), &given.annotation, &Alone);
    given.check("hist_ce3", &of_mixed, &logits);
}

#[test]
fn golden_mixed_predictions_and_pseudo_labels() {
    let given = LossInputs::open();
    let mixed = given.mixed();
    given.golden.assert_close("mix.out.prob", &mixed, TOLERANCE);
    let pseudo = label_map(&mixed);
    assert!(pseudo.unsqueeze(1).to_kind(Kind::Uint8).equal(&given.golden.get("mix.out.pseudo")));
    assert!(!pseudo.requires_grad());
}

fn discriminator(channels: i64, judge: Judge) -> (Parameters, Discriminator) {
    let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
    let net = Discriminator::new(&mut parameters.root(), channels, judge, false);
    fill(parameters.entries());
    (parameters, net)
}

#[test]
fn golden_adversarial_terms_send_their_gradient_to_both_branches() {
    let given = LossInputs::open();
    let [first, second] = &given.logits;
    let logits = [("logits1", first), ("logits2", second)];
    let mixed = given.mixed();
    let mean = expected_class(&mixed);
    let numbers = label_map(&mixed).unsqueeze(1).to_kind(Kind::Double);
    let straight = numbers + (&mean - mean.detach());
    for (name, channels, maps) in
        [("ext_adv_prob4", 4, &mixed), ("ext_adv_soft", 1, &mean), ("ext_adv_st", 1, &straight)]
    {
        let (_parameters, net) = discriminator(channels, Judge::Patches);
        let loss = verdict(&net.frozen().forward(maps).unwrap(), true, 2, &Alone) * 0.1;
        given.check(name, &loss, &logits);
    }
}

#[test]
fn golden_discriminators() {
    let golden = Golden::open(FILE);
    let (parameters, net) = discriminator(1, Judge::Patches);
    golden.assert_close("dis.fill.stats", &sums(tensors(parameters.entries())), 1e-6);
    let maps = golden.get("dis.in.x").to_kind(Kind::Double).set_requires_grad(true);
    let logits = net.forward(&maps).unwrap();
    golden.assert_close("dis.out.logits", &logits, TOLERANCE);
    let small: Vec<u8> = Vec::try_from(golden.get("dis.in.x").view([-1])).unwrap();
    // The recipe enlarges as the data path does.
    let slices = small.chunks_exact(64 * 64);
    let large: Vec<u8> = slices.flat_map(|s| zoom_labels(s, [64, 64], [256, 256])).collect();
    let large = Tensor::from_slice(&large).view([2, 1, 256, 256]).to_kind(Kind::Double);
    let large = large.to_device(device());
    golden.assert_close("dis.out.logits_256", &net.forward(&large).unwrap(), TOLERANCE);
    golden.assert_close("dis.out.bce_fake", &verdict(&logits, false, 2, &Alone), TOLERANCE);
    let real = verdict(&logits, true, 2, &Alone);
    golden.assert_close("dis.out.bce_real", &real, TOLERANCE);
    real.backward();
    golden.assert_close("dis.grad.x", &maps.grad(), TOLERANCE);
    let gradients: Vec<Tensor> = tensors(parameters.entries()).map(Tensor::grad).collect();
    let found = sums(gradients.iter());
    assert_rows_close(
        "dis.grad_stats",
        (&found, &golden.get("dis.grad_stats")),
        GRADIENT_TOLERANCE,
    );
    let (_parameters, net) = discriminator(1, Judge::Wholes);
    golden.assert_close("disin.out.y", &net.forward(&maps).unwrap(), TOLERANCE);
}

/// The floating tensors in the order of the state dictionary.
fn tensors(entries: &[Entry]) -> impl Iterator<Item = &Tensor> {
    entries.iter().map(|entry| &entry.tensor).filter(|tensor| tensor.kind() != Kind::Int64)
}

#[test]
fn golden_network_segments_and_reconstructs() {
    let golden = Golden::open(FILE);
    let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
    let net = UNetMae::new(&mut parameters.root(), 1, 4, false);
    assert_eq!(parameters.trainable_count(), 2_446_629);
    fill(parameters.entries());
    golden.assert_close("net.fill.stats", &sums(tensors(parameters.entries())), 1e-6);
    let x = golden.get("net.in.x").to_kind(Kind::Double);
    // Evaluation first: training moves the running statistics.
    let train = Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 };
    for (pass, name) in [(Pass::Evaluate, "eval"), (train, "train")] {
        let features = tch::no_grad(|| net.features(&x, &pass)).unwrap();
        let logits = tch::no_grad(|| net.segment(&features, &pass)).unwrap();
        golden.assert_close(&format!("net.out.seg.{name}"), &logits, TOLERANCE);
        let restored = tch::no_grad(|| net.restore(&features, &pass)).unwrap();
        golden.assert_close(&format!("net.out.rec.{name}"), &restored, TOLERANCE);
    }
}

/// The released method, filled, and the stored batches.
struct Iterations {
    golden: Golden,
    method: MaskMixAdv,
}

impl Iterations {
    fn new() -> Self {
        let params: Params = toml::from_str(
            "adversary = \"detached\"\nmasks = \"shared\"\n\
             learner = { lr = 0.01, schedule = \"poly\", optimizer = { sgd = {} } }",
        )
        .unwrap();
        let setup = crate::golden::setup(Kind::Double, [1, 0, 0]);
        let method = MaskMixAdv::build(params, &setup).unwrap();
        for learner in method.learners() {
            fill(learner.entries());
        }
        Self { golden: Golden::open(FILE), method }
    }

    fn run(&mut self, iteration: i64) -> FetchedNumbers {
        let stored = |key: &str| self.golden.get(key).get(iteration);
        let labels = stored("iter.in.label").to_kind(Kind::Int64);
        let samples = Samples {
            image: stored("iter.in.image").to_kind(Kind::Double),
            annotation: labels.where_scalarother(&labels.ne(4), 255),
            looked_for: None,
            items: vec![Item::slice(0, 0, [1, 1]); 2],
            positions: vec![0, 1],
        };
        let shapes = stored("iter.in.real").to_kind(Kind::Int64);
        let batch = Batch::new(samples, 2).with_masks(SHAPES, shapes);
        let masks = masks(&stored("iter.in.perm"), 0.5);
        let communicator = Ranks::alone();
        let step = iteration as u64 + 1;
        let mut cx = StepContext::new(StepPoint::new(step, 60_000, Key::new(0)), &communicator);
        self.method.iterate(&batch, &[masks], &mut cx).unwrap();
        cx.into_report().fetch().unwrap()
    }

    /// `[7, 2]`: parameters of the three parts of the network, their running statistics, and the
    /// parameters of the discriminator.
    fn checksum(&self) -> Tensor {
        let learners = self.method.learners();
        let part = |prefix: &str, trainable: bool| {
            let entries = learners[0].entries().iter().filter(|e| e.name.starts_with(prefix));
            let tensors = entries.map(|entry| &entry.tensor).filter(|tensor| {
                tensor.kind() != Kind::Int64 && tensor.requires_grad() == trainable
            });
            sums(tensors).sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
        };
        let mut rows = Vec::new();
        for trainable in [true, false] {
            for prefix in ["encoder", "seg_decoder", "mae_decoder"] {
                rows.push(part(prefix, trainable));
            }
        }
        let judge = sums(tensors(learners[1].entries()));
        rows.push(judge.sum_dim_intlist([0i64].as_slice(), false, Kind::Double));
        Tensor::stack(&rows, 0)
    }
}

/// The reference's ten numbers of one iteration from ours.
fn ten_losses(numbers: &FetchedNumbers) -> Tensor {
    let all = numbers.losses.iter().chain(&numbers.observations).cloned();
    let loss: BTreeMap<String, f64> = all.collect();
    let of = |name: &str| loss[name];
    let first = of("segmenter/partial_ce_first");
    let second = of("segmenter/partial_ce_second");
    let ce = f64::midpoint(first, second);
    let mae = of("segmenter/reconstruction");
    let pse = f64::midpoint(of("segmenter/pseudo_dice_first"), of("segmenter/pseudo_dice_second"));
    let (real, fake) = (of("discriminator/real"), of("discriminator/fake"));
    let fooling = 0.1 * of("segmenter/adversarial");
    let total = 10.0 * ce + 0.5 * pse + 10.0 * mae;
    Tensor::from_slice(&[
        first,
        second,
        ce,
        mae,
        pse,
        total,
        fooling,
        real,
        fake,
        0.05 * (real + fake),
    ])
}

#[test]
fn golden_two_iterations_as_released() {
    let mut iterations = Iterations::new();
    for iteration in 0..2 {
        let numbers = iterations.run(iteration);
        let golden = &iterations.golden;
        let expected = golden.get("iter.out.losses").get(iteration);
        for (index, (ours, theirs)) in Vec::<f64>::try_from(ten_losses(&numbers))
            .unwrap()
            .into_iter()
            .zip(Vec::<f64>::try_from(expected).unwrap())
            .enumerate()
        {
            // A pixel of the pseudo label may flip where two classes are within rounding.
            assert!((ours - theirs).abs() <= 1e-4 * theirs.abs(), "loss {index}: {ours} {theirs}");
        }
        let rate = golden.get("iter.out.lr").get(iteration).double_value(&[]);
        assert!((numbers.learners[0].1 - rate).abs() < 1e-12);
        let expected = golden.get("iter.out.checksum").get(iteration);
        assert_rows_close("checksums", (&iterations.checksum(), &expected), 1e-5);
    }
    let golden = &iterations.golden;
    let learners = iterations.method.learners();
    let state = |learner: usize| sums(tensors(learners[learner].entries()));
    for (learner, key) in [(0, "iter.out.state_stats_g"), (1, "iter.out.state_stats_d")] {
        assert_rows_close(key, (&state(learner), &golden.get(key)), 1e-5);
    }
    let image = golden.get("iter.in.image").get(0).narrow(0, 0, 1).to_kind(Kind::Double);
    let probabilities = iterations.method.predict(&image).unwrap();
    let expected = golden.get("iter.out.eval_logits").softmax(1, Kind::Double);
    assert_close("probabilities", &probabilities, &expected, 1e-4);
}

#[test]
fn golden_pseudo_label_of_the_first_iteration() {
    let iterations = Iterations::new();
    let golden = &iterations.golden;
    let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
    let net = UNetMae::new(&mut parameters.root(), 1, 4, false);
    fill(parameters.entries());
    let image = golden.get("iter.in.image").get(0).to_kind(Kind::Double);
    let masks = masks(&golden.get("iter.in.perm").get(0), 0.5).at_size_of(&image);
    let branch = |mask: &Tensor| {
        let pass = Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 };
        let features = net.features(&(&image * mask), &pass).unwrap();
        net.segment(&features, &pass).unwrap().softmax(1, Kind::Double)
    };
    let mixed = mix([&branch(&masks[0]), &branch(&masks[1])], &masks);
    let ours = label_map(&mixed).unsqueeze(1).to_kind(Kind::Uint8);
    let theirs = golden.get("iter.out.pseudo").get(0);
    let flipped = ours.ne_tensor(&theirs).sum(Kind::Int64).int64_value(&[]);
    assert!(flipped <= 2, "{flipped} pixels differ");
    // Where it counts: the shapes that a discriminator is shown have the same channels.
    assert_eq!(one_hot(&label_map(&mixed), &mixed).size(), mixed.size());
}

#[test]
fn golden_first_gradients() {
    let mut iterations = Iterations::new();
    iterations.run(0);
    let golden = &iterations.golden;
    for (learner, key) in [(0, "iter.grad_stats_g"), (1, "iter.grad_stats_d")] {
        let learners = iterations.method.learners();
        let gradients = learners[learner].gradients();
        // Gradients of biases in front of a batch normalisation are nothing but rounding.
        let rows = (&sums(gradients.iter()), &golden.get(key));
        assert_rows_close(key, rows, GRADIENT_TOLERANCE);
    }
}

/// Gradients of 60 rows of very different size, of which the last is nothing but rounding.
fn some_gradients(change: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let row = |number: i64| {
        let wave = (Tensor::arange(4000, (Kind::Double, device())) * 0.37 + number).sin();
        if number < 59 { wave * 10f64.powi(-(number as i32) / 12) } else { wave * 1e-15 }
    };
    let rows: Vec<Tensor> = (0..60).map(|number| change(&row(number))).collect();
    sums(rows.iter())
}

#[test]
fn rounding_in_single_precision_is_no_other_gradient() {
    let rounded = |row: &Tensor| {
        // What layers before have made of it, and rounding that stands where the gradient is 0.
        let noise = (Tensor::arange(4000, (Kind::Double, device())) * 1.7).cos();
        (row * (&noise * 1e-4 + 1.0) + &noise * 1e-7).to_kind(Kind::Float)
    };
    let exact = some_gradients(Tensor::shallow_clone);
    assert_rows_close("gradients", (&exact, &some_gradients(rounded)), GRADIENT_TOLERANCE);
}

#[test]
#[should_panic(expected = "gradients: row 31")]
fn a_gradient_that_is_wrong_by_a_thousandth_is_noticed() {
    let exact = some_gradients(Tensor::shallow_clone);
    let wrong = exact.copy();
    let factors = Tensor::from_slice(&[1.001, 1.001f64.powi(2)]).to_device(device());
    wrong.get(31).copy_(&(exact.get(31) * factors));
    assert_rows_close("gradients", (&wrong, &exact), GRADIENT_TOLERANCE);
}
