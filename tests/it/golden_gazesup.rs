//! `GazeSup` against the released code: losses with gradients, propagated features, networks, two whole updates.

use crate::golden::{Golden, assert_close, assert_rows_close, device, fill, fill_by_rule_b, sums};
use scrimp::comm::Ranks;
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::losses::level_consistency::{binary_cross_entropy, binary_dice, disagreement};
use scrimp::methods::gazesup::GazeSup;
use scrimp::methods::{Recipe, Setup};
use scrimp::native::{Alone, Form, propagate};
use scrimp::nets::basic_unet::{BasicUNet, FEATURES};
use scrimp::parameters::{Entry, Parameters};
use scrimp::random::Key;
use scrimp::train::point::StepPoint;
use scrimp::train::schedule::{EpochCosine, Schedule};
use scrimp::train::{Method, StepContext};
use tch::{Kind, Tensor};

const FILE: &str = "gazesup";
/// Rounding of the reference's losses in single precision, relative to the largest magnitude.
const OF_LOSSES: f64 = 1e-6;
/// The same of its features after the propagation.
const OF_PROPAGATION: f64 = 1e-5;
/// The same of its networks.
const OF_NETWORKS: f64 = 1e-4;
/// The same of the sums of its gradients.
const OF_GRADIENTS: f64 = 3e-4;

/// In double precision, with a gradient.
fn leaf(golden: &Golden, key: &str) -> Tensor {
    golden.get(key).to_kind(Kind::Double).set_requires_grad(true)
}

type Loss<'a> = &'a dyn Fn(&Tensor) -> Tensor;
type Rule<'a> = &'a dyn Fn(&[Entry]);

#[test]
fn golden_losses_of_one_level() {
    let golden = Golden::open(FILE);
    let masks = golden.get("bce.in.label").to_kind(Kind::Double);
    let some = golden.get("bce_mask.in.mask").to_kind(Kind::Double);
    let samples = masks.size()[0] as usize;
    let all = masks.ones_like();
    let entropy = |z: &Tensor| binary_cross_entropy(z, &masks, &all, samples, &Alone);
    let dice = |z: &Tensor| binary_dice(z, &masks, &all, samples, &Alone);
    let losses: [(&str, Loss<'_>); 4] = [
        ("bce", &entropy),
        ("bce_mask", &|z| binary_cross_entropy(z, &masks, &some, samples, &Alone)),
        ("dice", &dice),
        ("dicece", &|z| (entropy(z) + dice(z)) * 0.5),
    ];
    for (name, loss) in losses {
        let logits = leaf(&golden, "bce.in.logits");
        let loss = loss(&logits);
        golden.assert_close(&format!("{name}.out.loss"), &loss, OF_LOSSES);
        loss.backward();
        golden.assert_close(&format!("{name}.grad.logits"), &logits.grad(), 3.0 * OF_LOSSES);
    }
}

#[test]
fn golden_agreement_of_two_and_three_levels() {
    let golden = Golden::open(FILE);
    for levels in [2, 3] {
        for (mode, compared) in [("pure", "logits"), ("prop", "logits_prop")] {
            let of = |what: &str| -> Vec<Tensor> {
                let key = |level| format!("cons{levels}.in.{what}_{level}");
                (1..=levels).map(|level| leaf(&golden, &key(level))).collect()
            };
            let plain = of("logits");
            let own = if mode == "prop" {
                of(compared)
            } else {
                plain.iter().map(Tensor::shallow_clone).collect()
            };
            let samples = plain[0].size()[0] as usize;
            let loss_of = |level: usize| {
                let others = plain.iter().enumerate().filter(|(other, _)| *other != level);
                let others: Vec<&Tensor> = others.map(|(_, logits)| logits).collect();
                disagreement(&own[level], &others, samples, &Alone)
            };
            let losses: Vec<Tensor> = (0..levels).map(loss_of).collect();
            let losses = Tensor::stack(&losses, 0);
            golden.assert_close(&format!("cons{levels}.{mode}.out.loss"), &losses, OF_LOSSES);
            losses.sum(Kind::Double).backward();
            for (level, logits) in own.iter().enumerate() {
                let key = format!("cons{levels}.{mode}.grad.{compared}_{}", level + 1);
                golden.assert_close(&key, &logits.grad(), OF_LOSSES);
            }
            assert!(mode == "pure" || plain.iter().all(|logits| !logits.grad().defined()));
        }
    }
}

#[test]
fn golden_propagation_with_gradient() {
    let golden = Golden::open(FILE);
    let weights = golden.get("prop.in.w");
    for (kind, form) in [
        (Kind::Double, Form::Own),
        (Kind::Double, Form::Plain),
        (Kind::Float, Form::Own),
        (Kind::Float, Form::DeviceTwin),
    ] {
        if form == Form::DeviceTwin && device() != tch::Device::Cpu {
            continue;
        }
        let features = golden.get("prop.in.feat").to_kind(kind).copy().set_requires_grad(true);
        let found = propagate(&features, form).unwrap();
        golden.assert_close("prop.out.feat", &found, OF_PROPAGATION);
        let loss = (found * weights.to_kind(kind)).sum(kind);
        golden.assert_close("prop.out.loss", &loss, OF_PROPAGATION);
        loss.backward();
        golden.assert_close("prop.grad.feat", &features.grad(), OF_PROPAGATION);
    }
}

/// Every sixteenth channel.
fn every_sixteenth(features: &Tensor) -> Tensor {
    features.slice(1, 0, None, 16)
}

#[test]
fn golden_networks_of_two_levels() {
    let golden = Golden::open(FILE);
    let x = golden.get("net.in.x").to_kind(Kind::Double);
    let rules: [(&str, Rule<'_>); 2] =
        [("net", &fill), ("net_b", &|entries| fill_by_rule_b(entries, 0))];
    for (name, rule) in rules {
        let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
        let mut root = parameters.root();
        let mut model = root.sub("model");
        let nets = ["0", "1"].map(|level| BasicUNet::new(&mut model.sub(level), 3, FEATURES));
        rule(parameters.entries());
        let key = |of: &str| format!("{name}.out.{of}");
        let all = tch::no_grad(|| {
            nets.each_ref().map(|net| {
                let features = net.features(&x).unwrap();
                let spread = net.propagate(&features).unwrap();
                let logits = [&features, &spread].map(|features| net.classify(features));
                (features, spread, logits)
            })
        });
        for (number, (_, _, [plain, propagated])) in (1..).zip(&all) {
            golden.assert_close(&key(&format!("logits_{number}")), plain, OF_NETWORKS);
            golden.assert_close(&key(&format!("logits_prop_{number}")), propagated, OF_NETWORKS);
        }
        let mean = (&all[0].2[0] + &all[1].2[0]) * 0.5;
        golden.assert_close(&key("logits"), &mean, OF_NETWORKS);
        golden.assert_close(&key("feature_1_sub"), &every_sixteenth(&all[0].0), OF_NETWORKS);
        golden.assert_close(&key("feature_prop_2_sub"), &every_sixteenth(&all[1].1), OF_NETWORKS);
    }
}

fn setup() -> Setup {
    let setup = crate::golden::setup(Kind::Double, [1, 32, 32]);
    Setup { classes: 2, channels: 3, levels: vec![0.3, 0.5], ..setup }
}

/// `[sum, sum of squares]` of tensors together.
fn total_sums<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Tensor {
    sums(tensors).sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
}

#[test]
fn golden_two_updates_of_gazesup() {
    let golden = Golden::open(FILE);
    // The learning rate of the released test, which stays.
    let text = "[learner]\nlr = 0.01\nschedule = \"constant\"\n\
        optimizer = { sgd = { momentum = 0.99, nesterov = true, weight_decay = 4e-4 } }";
    let mut method = GazeSup::build(toml::from_str(text).unwrap(), &setup()).unwrap();
    fill_by_rule_b(method.learners()[0].entries(), 0);
    let image = golden.get("net.in.x").to_kind(Kind::Double);
    let count = image.size()[0] as usize;
    // The first network learns the smaller mask: two levels reached; the second the larger one.
    let [first, second] = ["1", "2"].map(|level| golden.get(&format!("iter.in.pseudo_{level}")));
    let outside: Tensor = &first * (1.0 - &second);
    assert!(outside.max().double_value(&[]) == 0.0, "masks of levels are nested");
    let annotation = (first + second).squeeze_dim(1).to_kind(Kind::Int64);
    let samples = Samples {
        image,
        annotation,
        looked_for: None,
        items: vec![Item::slice(0, 0, [1, 1]); count],
        positions: (0..count as u64).collect(),
    };
    let batch = Batch::new(samples, count);
    let communicator = Ranks::alone();
    for iteration in 1..=2 {
        let point = StepPoint::new(iteration, 10, Key::new(0));
        let mut cx = StepContext::new(point, &communicator);
        method.step(&batch, &mut cx).unwrap();
        let report = cx.into_report().fetch().unwrap();
        let term =
            |name: &str| report.losses.iter().find(|(term, _)| term.ends_with(name)).unwrap().1;
        let key = |of: &str| format!("iter.{iteration}.{of}");
        let mut total = 0.0;
        for level in [1, 2] {
            let entropy = term(&format!("cross_entropy_{level}"));
            let agreement = term(&format!("consistency_{level}"));
            total += entropy + 3.0 * agreement;
            for (name, found) in [("cls", entropy), ("cons", agreement)] {
                let key = key(&format!("{name}_{level}"));
                golden.assert_close(&key, &Tensor::from(found), 3e-6);
            }
        }
        golden.assert_close(&key("loss"), &Tensor::from(total), 3e-6);
        let learner = method.learners()[0];
        for level in 1..=2 {
            let prefix = format!("model.{}.", level - 1);
            let gradients = learner.gradients();
            let of_level = learner.slots().iter().zip(&gradients);
            let of_level = of_level.filter(|(slot, _)| slot.name.starts_with(&prefix));
            let found = total_sums(of_level.map(|(_, gradient)| gradient));
            let expected = golden.get(&key(&format!("grad_{level}")));
            assert_rows_close(&key("grad"), (&found, &expected), OF_GRADIENTS);
            let of_level = learner.entries().iter().filter(|e| e.name.starts_with(&prefix));
            let found = total_sums(of_level.map(|entry| &entry.tensor));
            let expected = golden.get(&key(&format!("param_{level}")));
            assert_rows_close(&key("param"), (&found, &expected), 5e-6);
        }
    }
}

#[test]
fn golden_learning_rates_of_epochs() {
    let golden = Golden::open(FILE);
    let schedule = Schedule::EpochCosine(EpochCosine { least: 1e-4 });
    // 900 images in batches of 8 are 113 steps; the first two epochs have one rate.
    let rate = |epoch: u64| {
        let point = StepPoint::new((epoch - 1) * 113 + 1, 15_000, Key::new(0));
        schedule.learning_rate(1e-2, &point.in_epochs_of(113))
    };
    let rates: Vec<f64> = (2..=134).map(rate).collect();
    golden.assert_close("lr.out", &Tensor::from_slice(&rates), 1e-7);
    assert_eq!(rate(1).to_bits(), rate(2).to_bits());
}

/// What is found and what is there, of images of logits and masks `[N, 1, H, W]`: Dice and Jaccard of each.
fn overlaps(shares: &Tensor, masks: &Tensor) -> [Tensor; 2] {
    let found = shares.argmax(1, true).to_kind(Kind::Double);
    let masks = masks.to_kind(Kind::Double);
    let of = |maps: &Tensor| maps.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Double);
    let (both, found, there) = (of(&(&found * &masks)), of(&found), of(&masks));
    let either = &found + &there;
    [&both * 2.0 / (&either + 1e-7), &both / (&either - &both + 1e-7)]
}

#[test]
fn golden_predictions_are_foreground_where_the_share_is_above_one_half() {
    let golden = Golden::open(FILE);
    let share = golden.get("metric.in.logits").sigmoid();
    let shares = Tensor::cat(&[1.0 - &share, share], 1);
    let [dice, jaccard] = overlaps(&shares, &golden.get("metric.in.label"));
    assert_close("dice", &dice, &golden.get("metric.out.dice"), 1e-6);
    assert_close("jaccard", &jaccard, &golden.get("metric.out.iou"), 1e-6);
}
