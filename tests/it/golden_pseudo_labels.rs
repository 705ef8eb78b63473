//! Scribble2Label, USTM and DMPLS against the released code: losses with gradients, and two whole
//! updates each.

use crate::golden::{Golden, assert_close, fill, fill_shifted, sums};
use scrimp::comm::Ranks;
use scrimp::config::sampling::Fit;
use scrimp::data::IGNORE;
use scrimp::data::augment::{Draw, Resample, Sample, Slice, Transform, zoom_image};
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::losses::consistency::{masked_consistency, uncertainty};
use scrimp::losses::{SMOOTH, dice, partial_cross_entropy};
use scrimp::methods::dmpls::{self, Dmpls};
use scrimp::methods::scribble2label::{Scribble2Label, codes_of, sure_labels};
use scrimp::methods::ustm::{self, Ustm};
use scrimp::methods::{Recipe, Setup};
use scrimp::native::Alone;
use scrimp::nets::unet::CHANNELS;
use scrimp::parameters::Entry;
use scrimp::random::Key;
use scrimp::train::point::StepPoint;
use scrimp::train::{FetchedNumbers, Method, StepContext};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

const FILE: &str = "pseudo-labels";
/// Rounding of the reference in single precision, relative to the largest magnitude.
const TOLERANCE: f64 = 1e-5;
/// Of changes of checksums between 1e-3 and 1e-1, absolute.
const CHECKSUM_TOLERANCE: f64 = 7e-5;
/// Of the sums over running statistics, which are large, relative.
const SUM_ROUNDING: f64 = 2e-7;

fn leaf(golden: &Golden, key: &str) -> Tensor {
    golden.get(key).to_kind(Kind::Double).set_requires_grad(true)
}

fn numbers<const N: usize>(tensor: &Tensor) -> [f64; N] {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).view([-1])).unwrap().try_into().unwrap()
}

fn assert_near(what: &str, actual: f64, expected: f64, tolerance: f64) {
    assert!((actual - expected).abs() <= tolerance, "{what}: {actual}, expected {expected}");
}

fn integer(golden: &Golden, key: &str, index: i64) -> i64 {
    golden.get(key).to_kind(Kind::Int64).get(index).int64_value(&[])
}

#[test]
fn golden_ustm_follows_where_the_teacher_is_sure() {
    let golden = Golden::open(FILE);
    let done = integer(&golden, "ustm.in.iter", 0) as u64;
    let total = integer(&golden, "ustm.in.iter", 1) as u64;
    let turns = integer(&golden, "ustm.in.rot", 0);
    let student = leaf(&golden, "ustm.in.student_logits");
    let softmax = |key: &str| golden.get(key).to_kind(Kind::Double).softmax(1, Kind::Double);
    let size = student.size();
    let passes = softmax("ustm.in.mc_logits").view([-1, size[0], size[1], size[2], size[3]]);
    let mean = passes.mean_dim([0i64].as_slice(), false, Kind::Double);
    golden.assert_close("ustm.out.mean_prob", &mean, TOLERANCE);
    golden.assert_close("ustm.out.uncertainty", &uncertainty(&mean), TOLERANCE);
    let threshold = Tensor::from(ustm::threshold(done, total));
    let mask = ustm::sure_mask(&passes, &threshold);
    golden.assert_close("ustm.out.mask", &mask, 0.0);
    let turned = student.rot90(turns, [2i64, 3].as_slice()).softmax(1, Kind::Double);
    let loss = masked_consistency(&turned, &softmax("ustm.in.teacher_logits"), &mask, &Alone);
    let weight = ustm_params("").weight(done);
    let [expected_threshold, expected_weight, mask_mean, expected] =
        numbers(&golden.get("ustm.out.scalars"));
    assert_near("threshold", threshold.double_value(&[]), expected_threshold, 1e-6);
    assert_near("weight", weight, expected_weight, 1e-6);
    assert_near("mask", mask.mean(Kind::Double).double_value(&[]), mask_mean, 1e-6);
    assert_near("consistency", loss.double_value(&[]), expected, 1e-5 * expected);
    (loss * weight).backward();
    golden.assert_close("ustm.grad.student_logits", &student.grad(), TOLERANCE);
}

#[test]
fn golden_ustm_schedules() {
    let golden = Golden::open(FILE);
    let total = integer(&golden, "ustm.in.iter", 1) as u64;
    for index in 0..5 {
        let done = integer(&golden, "ustm.in.sched_iter", index) as u64;
        let [threshold, weight, kept] = numbers(&golden.get("ustm.out.sched").get(index));
        assert_near("threshold", ustm::threshold(done, total), threshold, 1e-6);
        assert_near("weight", ustm_params("").weight(done), weight, 1e-6);
        assert_near("kept", ustm::kept(done, 0.99), kept, 1e-9);
    }
}

fn params<P: DeserializeOwned>(text: &str) -> P {
    let learner = "learner = { lr = 0.01, schedule = \"constant\", optimizer = { sgd = {} } }";
    toml::from_str(&format!("{text}\n{learner}")).unwrap()
}

fn ustm_params(text: &str) -> ustm::Params {
    params(text)
}

fn setup() -> Setup {
    Setup { slices: vec![[32; 2]; 3], ..crate::golden::setup(Kind::Double, [1, 32, 32]) }
}

fn sharpen(entries: &[Entry], ending: &str) {
    for entry in entries.iter().filter(|entry| entry.name.ends_with(ending)) {
        let mut weight = entry.tensor.shallow_clone();
        let _ = tch::no_grad(|| weight.g_mul_scalar_(4.0));
    }
}

fn batch(golden: &Golden, name: &str) -> Batch {
    let image = golden.get(&format!("{name}.in.image")).to_kind(Kind::Double);
    let count = image.size()[0] as usize;
    let annotation = golden.labels(&format!("{name}.in.scribble"));
    let items = vec![Item::slice(0, 0, [1, 1]); count];
    let positions = (0..count as u64).collect();
    Batch::new(Samples { image, annotation, looked_for: None, items, positions }, count)
}

/// `[sum, sum of squares]` of the tensors of a learner whose names begin with `prefix`.
fn checksum(entries: &[Entry], prefix: &str, trainable: bool) -> Tensor {
    let chosen = entries.iter().filter(|entry| entry.name.starts_with(prefix));
    let tensors = chosen
        .map(|entry| &entry.tensor)
        .filter(|tensor| tensor.kind() != Kind::Int64 && tensor.requires_grad() == trainable);
    sums(tensors).sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
}

/// One step of a method; its numbers by name.
fn step(
    number: u64,
    body: impl FnOnce(&mut StepContext<'_>) -> scrimp::error::Result<()>,
) -> BTreeMap<String, f64> {
    let communicator = Ranks::alone();
    let mut cx = StepContext::new(StepPoint::new(number, 60_000, Key::new(0)), &communicator);
    body(&mut cx).unwrap();
    let FetchedNumbers { losses, observations, .. } = cx.into_report().fetch().unwrap();
    losses.into_iter().chain(observations).collect()
}

/// Fails unless checksums agree, but for rounding: the first `parameters` rows are of parameters, the
/// others of running statistics.
fn assert_moved_alike(what: &str, parameters: i64, actual: &Tensor, expected: &Tensor) {
    let allowed = expected.abs() * SUM_ROUNDING + CHECKSUM_TOLERANCE;
    let _ = allowed.narrow(0, 0, parameters).fill_(CHECKSUM_TOLERANCE);
    let is_close = (actual - expected).abs().le_tensor(&allowed).all().int64_value(&[]) == 1;
    assert!(is_close, "{what}, difference:\n{}expected\n{expected}", actual - expected);
}

#[test]
fn golden_two_updates_of_ustm() {
    let golden = Golden::open(FILE);
    let mut method = Ustm::build(ustm_params(""), &setup()).unwrap();
    for (learner, phase) in method.learners().iter().zip([0.0, 0.5]) {
        fill_shifted(learner.entries(), phase);
        sharpen(learner.entries(), "decoder.out_conv.weight");
    }
    let batch = batch(&golden, "ustm_step");
    let states = |method: &Ustm, trainable: bool| {
        let rows = method.learners();
        rows.iter().map(|l| checksum(l.entries(), "", trainable)).collect::<Vec<_>>()
    };
    let initial = Tensor::stack(&states(&method, true), 0);
    assert_close("initial", &initial, &golden.get("ustm_step.init.params"), 1e-5);
    for iteration in 0..2 {
        let chance = ustm::Chance {
            turns: integer(&golden, "ustm_step.in.rot", iteration),
            noise: golden.get("ustm_step.in.noise").get(iteration).to_kind(Kind::Double),
            passes_noise: (0..4)
                .map(|pass| golden.get("ustm_step.in.mc_noise").get(iteration).get(pass))
                .map(|noise| noise.to_kind(Kind::Double))
                .collect(),
        };
        let done = integer(&golden, "ustm_step.in.iter", iteration) as u64;
        let found = step(done + 1, |cx| method.iterate(&batch, &chance, cx));
        let [ce, consistency, weight, sure, _] =
            numbers(&golden.get("ustm_step.out.losses").get(iteration));
        assert_near("partial_ce", found["segmenter/partial_ce"], ce, 1e-5);
        assert_near("consistency", found["segmenter/consistency"], consistency, 1e-5);
        assert_near("weight", ustm_params("").weight(done), weight, 1e-6);
        assert_near("sure", found["teacher/sure"], sure, 1e-3);
        let mut rows = states(&method, true);
        rows.extend(states(&method, false));
        let expected = golden.get("ustm_step.out.checksums").get(iteration);
        assert_moved_alike("checksums", 2, &Tensor::stack(&rows, 0), &expected);
    }
}

#[test]
fn golden_dmpls_losses_and_pseudo_label() {
    let golden = Golden::open(FILE);
    let logits = ["main", "aux"].map(|name| leaf(&golden, &format!("dmpls.in.logits_{name}")));
    let share = golden.get("dmpls.in.alpha").view([]);
    let annotation = golden.labels("dmpls.in.scribble");
    let probabilities = logits.each_ref().map(|logits| logits.softmax(1, Kind::Double));
    let pseudo = dmpls::pseudo_label(&probabilities, &share);
    golden.assert_close("dmpls.out.pseudo", &pseudo, 0.0);
    let mean = |[first, second]: [Tensor; 2]| (first + second) * 0.5;
    let ce = mean(logits.each_ref().map(|z| partial_cross_entropy(z, &annotation, &Alone)));
    let smooth = SMOOTH / annotation.size()[0] as f64;
    let pse = mean(probabilities.each_ref().map(|p| dice(p, &pseudo, smooth, &Alone)));
    let total = &ce + &pse * 0.5;
    let losses = Tensor::stack(&[&ce, &pse, &total], 0);
    golden.assert_close("dmpls.out.losses", &losses, TOLERANCE);
    total.backward();
    golden.assert_close("dmpls.grad.logits_main", &logits[0].grad(), TOLERANCE);
    golden.assert_close("dmpls.grad.logits_aux", &logits[1].grad(), TOLERANCE);
}

#[test]
fn golden_two_updates_of_dmpls() {
    let golden = Golden::open(FILE);
    let mut method = Dmpls::build(params(""), &setup()).unwrap();
    fill(method.learners()[0].entries());
    sharpen(method.learners()[0].entries(), "out_conv.weight");
    let batch = batch(&golden, "dmpls_step");
    let parts = ["encoder", "main_decoder", "aux_decoder1"];
    let state = |method: &Dmpls| {
        let learners = method.learners();
        let entries = learners[0].entries();
        let mut rows: Vec<_> = parts.iter().map(|part| checksum(entries, part, true)).collect();
        rows.push(checksum(entries, "", false));
        Tensor::stack(&rows, 0)
    };
    let initial = golden.get("dmpls_step.init.params");
    assert_close("initial", &state(&method).narrow(0, 0, 3), &initial, 1e-5);
    for iteration in 0..2 {
        let keep = golden.get("dmpls_step.in.keep").get(iteration);
        let kept = keep.split_with_sizes(CHANNELS, 1);
        let share = golden.get("dmpls_step.in.alpha").get(iteration);
        let chance = dmpls::Chance { kept, share };
        let found = step(iteration as u64 + 1, |cx| method.iterate(&batch, &chance, cx));
        let mean = |term: &str| {
            let of = |decoder: &str| found[&format!("segmenter/{term}_{decoder}")];
            f64::midpoint(of("main"), of("auxiliary"))
        };
        let [ce, pse, _] = numbers(&golden.get("dmpls_step.out.losses").get(iteration));
        assert_near("partial_ce", mean("partial_ce"), ce, 1e-5);
        assert_near("pseudo_dice", mean("pseudo_dice"), pse, 1e-4);
        let expected = golden.get("dmpls_step.out.checksums").get(iteration);
        assert_moved_alike("checksums", 3, &state(&method), &expected);
    }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.to_kind(Kind::Float).contiguous().view([-1])).unwrap()
}

fn extents(tensor: &Tensor) -> [usize; 2] {
    let size = tensor.size();
    [size[0] as usize, size[1] as usize]
}

/// `[rows, columns, classes]` of the golden file as `[classes, rows * columns]`.
fn class_maps(tensor: &Tensor) -> Tensor {
    tensor.permute([2, 0, 1]).contiguous().view([tensor.size()[2], -1])
}

#[test]
fn golden_scribble2label_resizes_and_averages() {
    let golden = Golden::open(FILE);
    let image = golden.get("s2l.in.image");
    let probabilities = golden.get("s2l.in.prob");
    let (native, seen) = (extents(&image), extents(&probabilities.get(0)));
    let zoomed = zoom_image(&floats(&image), native, seen);
    golden.assert_close("s2l.out.image_zoomed", &Tensor::from_slice(&zoomed), 0.0);
    let back: Vec<f32> =
        (0..4).flat_map(|c| zoom_image(&floats(&probabilities.get(c)), seen, native)).collect();
    let back = Tensor::from_slice(&back);
    golden.assert_close("s2l.out.prob_native", &back, 0.0);
    let old = class_maps(&golden.get("s2l.in.weight"));
    let new = old * 0.8 + back.view([4, -1]) * 0.2;
    assert_close("weight", &new, &class_maps(&golden.get("s2l.out.weight")), TOLERANCE);
}

#[test]
fn golden_scribble2label_rotates_what_it_is_sure_of_like_the_average() {
    let golden = Golden::open(FILE);
    let image = golden.get("s2l.in.image");
    let shape = extents(&image);
    let degrees = golden.get("s2l_rotate.in.angle").int64_value(&[0]) as i32;
    let labels: Vec<u8> = Vec::try_from(golden.get("s2l_rotate.in.scribble").view([-1])).unwrap();
    let unknown = |label: u8| if label == 4 { IGNORE } else { label };
    let scribble: Vec<u8> = labels.into_iter().map(unknown).collect();
    let threshold = 0.4;
    let codes = codes_of(&class_maps(&golden.get("s2l.in.weight")), threshold);
    let codes: Vec<u8> = Vec::try_from(codes).unwrap();
    let pixels = floats(&image);
    let rotated = |annotation: &[u8]| {
        let (mut image, mut labels) = (vec![7.0; pixels.len()], vec![7; pixels.len()]);
        // Background comes in from outside, in scribbles too; of codes 0 is nothing.
        let slice = Slice { shape, image: &pixels, annotation, outside: 0 };
        let mut sample = Sample { shape, image: &mut image, annotation: &mut labels };
        Transform::resizing(Resample::Reference, Draw::Rotate { degrees })
            .apply(&slice, &mut sample);
        (image, labels)
    };
    let (image, labels) = rotated(&scribble);
    golden.assert_close("s2l_rotate.out.image", &Tensor::from_slice(&image), 0.0);
    let labels = Tensor::from_slice(&labels).to_kind(Kind::Int64);
    let labels = labels.where_scalarother(&labels.ne(i64::from(IGNORE)), 4);
    golden.assert_close("s2l_rotate.out.scribble", &labels, 0.0);
    let expected = codes_of(&class_maps(&golden.get("s2l_rotate.out.weight")), threshold);
    assert!(Tensor::from_slice(&rotated(&codes).1) == expected);
    assert!(expected.gt(0).any().int64_value(&[]) == 1);
}

/// Codes `[N, H, W]` of averages `[N, H, W, C]`.
fn codes(weights: &Tensor) -> Tensor {
    let size = weights.size();
    let of = |n: i64| codes_of(&class_maps(&weights.get(n)), 0.8).view([size[1], size[2]]);
    Tensor::stack(&(0..size[0]).map(of).collect::<Vec<_>>(), 0)
}

/// Labels with the golden files' 4 for nothing.
fn with_four(labels: &Tensor) -> Tensor {
    labels.where_scalarother(&labels.ne(i64::from(IGNORE)), 4)
}

#[test]
fn golden_scribble2label_losses() {
    let golden = Golden::open(FILE);
    let logits = leaf(&golden, "s2l_loss.in.logits");
    let annotation = golden.labels("s2l_loss.in.scribble");
    let labels = sure_labels(&annotation, &codes(&golden.get("s2l_loss.in.weight")));
    golden.assert_close("s2l_loss.out.u_labels", &with_four(&labels), 0.0);
    let ce = partial_cross_entropy(&logits, &annotation, &Alone);
    let pseudo = partial_cross_entropy(&logits, &labels, &Alone);
    let total = &ce + &pseudo * 0.5;
    let losses = Tensor::stack(&[&ce, &pseudo, &total], 0);
    golden.assert_close("s2l_loss.out.losses", &losses, TOLERANCE);
    total.backward();
    golden.assert_close("s2l_loss.grad.logits", &logits.grad(), TOLERANCE);
}

#[test]
fn golden_two_updates_of_scribble2label_and_its_averages_between() {
    let golden = Golden::open(FILE);
    let mut method = Scribble2Label::build(params(""), &setup()).unwrap();
    fill(method.learners()[0].entries());
    let weights = golden.get("s2l_step.in.weight");
    let maps: Vec<Tensor> = (0..3).map(|n| class_maps(&weights.get(n)).view([-1])).collect();
    method.averages().copy_(&Tensor::cat(&maps, 0));
    let batch = batch(&golden, "s2l_step");
    let state = |method: &Scribble2Label, trainable: bool| {
        checksum(method.learners()[0].entries(), "", trainable)
    };
    assert_close("initial", &state(&method, true), &golden.get("s2l_step.init.params"), 1e-5);
    let check = |method: &Scribble2Label, key: &str, index: i64, trainable: bool| {
        let expected = golden.get(key).get(index);
        let (actual, expected) = (state(method, trainable).unsqueeze(0), expected.unsqueeze(0));
        assert_moved_alike(key, i64::from(trainable), &actual, &expected);
    };
    let [ce, _, _] = numbers(&golden.get("s2l_step.out.losses").get(0));
    let found = step(1, |cx| method.iterate(&batch, None, cx));
    assert_near("partial_ce", found["segmenter/partial_ce"], ce, 1e-5);
    check(&method, "s2l_step.out.params", 0, true);
    check(&method, "s2l_step.out.bn", 0, false);
    let images = golden.get("s2l_step.in.image");
    let _ = step(2, |cx| {
        method.move_averages(&(0..3), Fit::Resize, |slice| images.narrow(0, slice as i64, 1), cx)
    });
    check(&method, "s2l_step.out.bn", 1, false);
    let averages = method.averages().view([3, 4, 32, 32]).permute([0, 2, 3, 1]).contiguous();
    golden.assert_close("s2l_step.out.weight", &averages, TOLERANCE);
    let codes = codes(&averages);
    let labels = sure_labels(&batch.main().annotation, &codes);
    golden.assert_close("s2l_step.out.u_labels", &with_four(&labels), 0.0);
    let [ce, pseudo, _] = numbers(&golden.get("s2l_step.out.losses").get(1));
    let found = step(2, |cx| method.iterate(&batch, Some(&codes), cx));
    assert_near("partial_ce", found["segmenter/partial_ce"], ce, 1e-5);
    assert_near("pseudo_ce", found["segmenter/pseudo_ce"], pseudo, 1e-5);
    check(&method, "s2l_step.out.params", 1, true);
    check(&method, "s2l_step.out.bn", 2, false);
}
