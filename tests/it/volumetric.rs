//! Volumes `[N, C, D, H, W]`: losses and the U-Net against their definitions in plain PyTorch, volumes of one slice
//! against images, and a training step on any number of ranks.

use crate::golden::{Golden, assert_close, assert_rows_close, device, fill, sums};
use scrimp::comm::{Ranks, threads};
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::losses::consistency::{masked_consistency, uncertainty};
use scrimp::losses::contour::{Contours, contour_length};
use scrimp::losses::entropy::mean_entropy;
use scrimp::losses::gated_crf::{Field, Kernel, gated_crf};
use scrimp::losses::intensity_variance::{Sign, intensity_variance};
use scrimp::losses::mumford_shah::{MumfordShah, mumford_shah};
use scrimp::losses::{Masking, SMOOTH, dice, partial_cross_entropy, partial_dice};
use scrimp::methods::dmsps::Dmsps;
use scrimp::methods::partial_ce::PartialCe;
use scrimp::methods::{Passes, Recipe, Setup};
use scrimp::native::{Alone, Form, GroupSum};
use scrimp::nets::Pass;
use scrimp::nets::topology::Topology;
use scrimp::nets::unet::{UNet, channel_dropout, feature_dropout};
use scrimp::parameters::{Flat, Leaves, Parameters};
use scrimp::random::Key;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{Method, StepContext};
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const SAMPLES: usize = 2;
/// Both sides compute in double precision.
const TOLERANCE: f64 = 1e-10;

/// What losses are given beside logits: images, and labels with 255 for what is not annotated.
struct Given {
    image: Tensor,
    dense: Tensor,
    scribble: Tensor,
    source: Tensor,
    destination: Tensor,
}

impl Given {
    fn of(golden: &Golden) -> Self {
        let double = |key| golden.get(key).to_kind(Kind::Double);
        // Three classes, so that the files' mark for no annotation is no class.
        Self {
            image: double("in.image"),
            dense: golden.labels("in.label"),
            scribble: golden.labels("in.scribble"),
            source: double("in.source"),
            destination: double("in.destination"),
        }
    }

    /// With every tensor changed in the same way; labels have no channels.
    fn map(&self, maps: fn(&Tensor) -> Tensor, labels: fn(&Tensor) -> Tensor) -> Self {
        Self {
            image: maps(&self.image),
            dense: labels(&self.dense),
            scribble: labels(&self.scribble),
            source: maps(&self.source),
            destination: maps(&self.destination),
        }
    }
}

type Term = fn(&Tensor, &Given) -> Tensor;

const KERNELS: [Kernel; 2] = [
    Kernel { weight: 0.9, sigma_xy: 2.0, sigma_intensity: 0.3, sigma_z: Some(3.0) },
    Kernel { weight: 0.4, sigma_xy: 4.0, sigma_intensity: 0.0, sigma_z: Some(1.5) },
];
const FIELD: Field<'static> = Field {
    kernels: &KERNELS,
    radius: [1, 2, 3],
    source: None,
    destination: None,
    form: Form::Own,
};

fn energy(p: &Tensor, given: &Given, field: &Field<'_>) -> Tensor {
    gated_crf(p, &given.image, field, SAMPLES, &Alone).unwrap()
}

fn contours(p: &Tensor, contours: Contours) -> Tensor {
    contour_length(p, contours, &[0, 1], SAMPLES, &Alone)
}

/// Every term by its name in the golden file, as a function of probabilities.
const TERMS: [(&str, Term); 14] = [
    ("dice", |p, given| dice(p, &given.dense, SMOOTH, &Alone)),
    ("pdice", |p, given| partial_dice(p, &given.scribble, Masking::PerSample, &Alone)),
    ("entropy", |p, _| mean_entropy(p, SAMPLES, &Alone)),
    ("contour_all", |p, _| contours(p, Contours::All)),
    ("contour_foreground", |p, _| contours(p, Contours::Foreground)),
    ("contour_as_coded", |p, _| contours(p, Contours::AsCoded)),
    ("mumford_published", |p, given| mumford_shah(p, &given.image, MumfordShah::Published, &Alone)),
    ("mumford_head", |p, given| mumford_shah(p, &given.image, MumfordShah::Head, &Alone)),
    ("mumford_kimye", |p, given| mumford_shah(p, &given.image, MumfordShah::KimYe, &Alone)),
    ("intensity_variance", |p, given| {
        intensity_variance(p, &given.image, Sign::AsCoded, SAMPLES, &Alone)
    }),
    ("crf", |p, given| energy(p, given, &FIELD)),
    ("crf_source", |p, given| energy(p, given, &Field { source: Some(&given.source), ..FIELD })),
    ("crf_destination", |p, given| {
        energy(p, given, &Field { destination: Some(&given.destination), ..FIELD })
    }),
    ("crf_both", |p, given| {
        let (source, destination) = (Some(&given.source), Some(&given.destination));
        energy(p, given, &Field { source, destination, ..FIELD })
    }),
];

/// The value of a function, and its gradient.
fn value_and_gradient(at: &Tensor, of: impl Fn(&Tensor) -> Tensor) -> [Tensor; 2] {
    let at = at.detach().copy().set_requires_grad(true);
    let value = of(&at);
    value.backward();
    [value.detach(), at.grad()]
}

#[test]
fn golden_losses_of_volumes() {
    let golden = Golden::open_of_definitions("volumetric");
    let given = Given::of(&golden);
    let logits = golden.get("in.logits").to_kind(Kind::Double);
    let check = |name: &str, loss: &dyn Fn(&Tensor) -> Tensor| {
        let [value, gradient] = value_and_gradient(&logits, loss);
        golden.assert_close(&format!("{name}.out.loss"), &value, TOLERANCE);
        golden.assert_close(&format!("{name}.grad.logits"), &gradient, TOLERANCE);
    };
    for (name, term) in TERMS {
        check(name, &|z| term(&z.softmax(1, Kind::Double), &given));
    }
    check("pce", &|z| partial_cross_entropy(z, &given.scribble, &Alone));
    check("ce", &|z| partial_cross_entropy(z, &given.dense, &Alone));
    for form in [Form::Plain, Form::DeviceTwin] {
        let (source, destination) = (Some(&given.source), Some(&given.destination));
        let field = Field { form, ..FIELD };
        check("crf", &|z| energy(&z.softmax(1, Kind::Double), &given, &field));
        let field = Field { source, destination, ..field };
        check("crf_both", &|z| energy(&z.softmax(1, Kind::Double), &given, &field));
    }
}

#[test]
fn golden_unet_over_volumes() {
    let golden = Golden::open_of_definitions("volumetric");
    for (name, extent, spacing_mm, count) in [
        ("cubes", [8, 16, 16], None, 1_327_987),
        ("slices", [6, 16, 16], Some([5.0, 1.0, 1.0]), 1_225_459),
    ] {
        let mut parameters = Parameters::new(Key::new(0), Kind::Double, device());
        let topology = Topology::of_samples(extent, spacing_mm);
        let net = UNet::shaped(&mut parameters.root(), 1, 3, &topology);
        fill(parameters.entries());
        let flat = Flat::new(&parameters);
        let x = golden.get(&format!("{name}.in.image")).to_kind(Kind::Double);
        let logits = net.forward(&x, &Pass::Evaluate).unwrap();
        // What networks return is stored in single precision.
        golden.assert_close(&format!("{name}.out.evaluated"), &logits, 1e-6);

        let logits =
            net.forward(&x, &Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 }).unwrap();
        golden.assert_close(&format!("{name}.out.trained"), &logits, 1e-6);
        let labels = golden.labels(&format!("{name}.in.scribble"));
        let loss = partial_cross_entropy(&logits, &labels, &Alone);
        golden.assert_close(&format!("{name}.out.loss"), &loss.detach(), TOLERANCE);
        let entries = parameters.entries().iter();
        let state = sums(entries.map(|e| &e.tensor).filter(|t| t.kind() != Kind::Int64));
        let expected = golden.get(&format!("{name}.out.state"));
        assert_rows_close(&format!("state of `{name}`"), (&state, &expected), 1e-9);

        loss.backward();
        let gradients = flat.gradients();
        Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
        let gradients: Vec<Tensor> = flat.slots.iter().map(|slot| slot.view(&gradients)).collect();
        let expected = golden.get(&format!("{name}.out.gradients"));
        let found = sums(gradients.iter());
        assert_rows_close(&format!("gradients of `{name}`"), (&found, &expected), 1e-7);
        assert_eq!(parameters.trainable_count(), count, "{name}");
        // Those of `benches/pytorch/unet_3d.py`.
        let names: Vec<&str> = flat.slots.iter().map(|slot| slot.name.as_str()).collect();
        assert_eq!(names[0], "encoder.in_conv.conv_conv.0.weight");
        assert_eq!(names[names.len() - 1], "decoder.out_conv.bias");
        for name in ["encoder.down3.maxpool_conv.1.conv_conv.5.bias", "decoder.up1.conv1x1.weight"]
        {
            assert!(names.contains(&name), "{name}");
        }
    }
}

#[test]
fn convolutions_over_volumes_may_compute_in_bf16() {
    let topology = Topology::of_volumes([8, 16, 16], Some([2.0, 1.0, 1.0]));
    let x = Tensor::arange(2 * 8 * 16 * 16, (Kind::Float, device())).sin().view([2, 1, 8, 16, 16]);
    let [exact, rounded] = [Kind::Float, Kind::BFloat16].map(|computed| {
        let parameters = Parameters::new(Key::new(0), Kind::Float, device());
        let mut parameters = parameters.computing_in(computed);
        let net = UNet::shaped(&mut parameters.root(), 1, 3, &topology);
        let flat = Flat::new(&parameters);
        let logits =
            net.forward(&x, &Pass::Train { group: Arc::new(Alone), keys: None, moves: 1 }).unwrap();
        assert_eq!(logits.kind(), Kind::Float);
        logits.square().mean(Kind::Float).backward();
        let gradients = flat.gradients();
        Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
        [logits.detach(), gradients]
    });
    assert_close("logits", &rounded[0], &exact[0], 0.05);
    let apart = (&rounded[1] - &exact[1]).norm() / exact[1].norm();
    assert!(apart.double_value(&[]) < 0.1, "{apart}");
}

#[test]
fn a_volume_of_one_slice_costs_what_its_image_costs() {
    let golden = Golden::open_of_definitions("volumetric");
    let first = |maps: &Tensor| maps.narrow(2, 0, 1).contiguous();
    let volume = Given::of(&golden).map(first, |labels| labels.narrow(1, 0, 1).contiguous());
    let image = volume.map(|maps| maps.squeeze_dim(2), |labels| labels.squeeze_dim(1));
    let logits = first(&golden.get("in.logits").to_kind(Kind::Double));
    let flat = logits.squeeze_dim(2);
    let compare = |name: &str, of: &dyn Fn(&Tensor, &Given) -> Tensor| {
        let [value, gradient] = value_and_gradient(&logits, |z| of(z, &volume));
        let [expected_value, expected] = value_and_gradient(&flat, |z| of(z, &image));
        assert_close(name, &value, &expected_value, 1e-13);
        assert_close(name, &gradient.squeeze_dim(2), &expected, 1e-13);
    };
    for (name, term) in TERMS.into_iter().filter(|(name, _)| !name.starts_with("crf")) {
        compare(name, &|z, given| term(&z.softmax(1, Kind::Double), given));
    }
    compare("pce", &|z, given| partial_cross_entropy(z, &given.scribble, &Alone));
    compare("consistency", &|z, given| {
        let p = z.softmax(1, Kind::Double);
        let mask = uncertainty(&p).lt(0.9).to_kind(Kind::Double);
        masked_consistency(&p, &p.flip([-1]), &(mask * &given.source), &Alone)
    });
    for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
        // Slices that are not there would add their constant.
        let field = Field { form, radius: [0, 2, 3], ..FIELD };
        compare("crf", &|z, given| energy(&z.softmax(1, Kind::Double), given, &field));
        compare("crf, masked", &|z, given| {
            let (source, destination) = (Some(&given.source), Some(&given.destination));
            energy(&z.softmax(1, Kind::Double), given, &Field { source, destination, ..field })
        });
    }
    let features = logits.softmax(1, Kind::Double);
    let keep = Tensor::from_slice(&[1.0, 0.0, 1.0, 0.0, 1.0, 1.0]).view([2, 3]);
    let of_image = channel_dropout(&features.squeeze_dim(2), &keep);
    assert!(channel_dropout(&features, &keep).squeeze_dim(2).equal(&of_image));
    let of_image = feature_dropout(&features.squeeze_dim(2), 0.9);
    assert!(feature_dropout(&features, 0.9).squeeze_dim(2).equal(&of_image));
}

#[test]
fn slices_that_are_all_alike_have_no_borders_between_them() {
    let golden = Golden::open_of_definitions("volumetric");
    let repeated = |maps: &Tensor| maps.narrow(2, 0, 1).repeat([1, 1, 4, 1, 1]);
    let volume =
        Given::of(&golden).map(repeated, |labels| labels.narrow(1, 0, 1).repeat([1, 4, 1, 1]));
    let image = volume.map(|maps| maps.select(2, 0), |labels| labels.select(1, 0));
    let p = repeated(&golden.get("in.logits").to_kind(Kind::Double)).softmax(1, Kind::Double);
    for (name, slices) in [
        ("entropy", 1.0),
        ("contour_all", 1.0),
        ("contour_foreground", 1.0),
        ("mumford_published", 4.0),
        ("mumford_head", 4.0),
        ("mumford_kimye", 4.0),
    ] {
        let (_, term) = TERMS.into_iter().find(|(term, _)| *term == name).unwrap();
        let of_slice = term(&p.select(2, 0), &image) * slices;
        assert_close(name, &term(&p, &volume), &of_slice, 1e-13);
    }
}

/// A method on volumes.
struct Learnt {
    /// Slices, rows and columns of the samples.
    extent: [i64; 3],
    /// Terms that it minimises.
    terms: usize,
    /// Of two ranks; one may have no sample.
    shares: &'static [[Range<usize>; 2]],
    build: fn(&Setup) -> Box<dyn Method>,
}

const LEARNER: &str = "learner = { lr = 0.01, optimizer = { sgd = {} } }";

fn partial_ce(setup: &Setup) -> Box<dyn Method> {
    let terms = "dice = 1.0\nentropy = 0.1\ncontour_length = { weight = 0.1 }\n\
         mumford_shah = { weight = 1e-5 }\nintensity_variance = { weight = 0.1 }\n\
         gated_crf = { weight = 0.01, radius = 2, kernels = [\
         { weight = 1.0, sigma_xy = 2.0, sigma_z = 1.0, sigma_intensity = 0.2 }] }";
    let params = toml::from_str(&format!("{terms}\n{LEARNER}")).unwrap();
    Box::new(PartialCe::build(params, setup).unwrap())
}

fn dmsps(network: &str, setup: &Setup) -> Box<dyn Method> {
    let params = format!("network = \"{network}\"\nwarm_up_steps = 1\n{LEARNER}");
    Box::new(Dmsps::build(toml::from_str(&params).unwrap(), setup).unwrap())
}

const LEARNT: [Learnt; 3] = [
    Learnt {
        extent: [4, 16, 16],
        terms: 7,
        shares: &[[0..2, 2..3], [0..0, 0..3]],
        build: partial_ce,
    },
    Learnt {
        extent: [16, 16, 32],
        terms: 4,
        shares: &[[0..0, 0..3]],
        build: |setup| dmsps("original", setup),
    },
    Learnt {
        extent: [4, 16, 16],
        terms: 4,
        shares: &[[0..2, 2..3]],
        build: |setup| dmsps("planned", setup),
    },
];

impl Learnt {
    fn method(&self, ranks: &Ranks) -> Box<dyn Method> {
        let setup = Setup {
            learner: LearnerSetup {
                key: Key::new(3),
                kind: Kind::Double,
                computed: Kind::Double,
                device: Device::Cpu,
                moments: Moments::Whole,
            },
            classes: 3,
            channels: 1,
            passes: Passes::new(true, Some(Arc::clone(ranks.tensors()) as Arc<dyn GroupSum>)),
            slices: Vec::new(),
            sample: self.extent.map(|extent| extent as usize),
            spacing_mm: Some([3.0, 1.0, 1.0]),
            levels: Vec::new(),
        };
        (self.build)(&setup)
    }

    fn batch(&self, mine: Range<usize>, samples: usize) -> Batch {
        let [slices, rows, columns] = self.extent;
        let numbers = Tensor::arange(3 * slices * rows * columns, (Kind::Double, Device::Cpu));
        let image = (&numbers * 0.37).sin().square().view([3, 1, slices, rows, columns]);
        let labels = numbers.remainder(7).to_kind(Kind::Int64).view([3, slices, rows, columns]);
        let labels = labels.masked_fill(&labels.gt(2), 255);
        let cut = |all: Tensor| all.narrow(0, mine.start as i64, mine.len() as i64).contiguous();
        let samples_here = Samples {
            image: cut(image),
            annotation: cut(labels),
            looked_for: None,
            items: mine.clone().map(|position| Item::slice(position, 0, [1, 1])).collect(),
            positions: mine.map(|position| position as u64).collect(),
        };
        Batch::new(samples_here, samples)
    }

    /// Losses of each of two steps, and the weights afterwards.
    fn trained(&self, ranks: &Ranks, mine: &Range<usize>) -> (Vec<f64>, Tensor) {
        let (mut method, key) = (self.method(ranks), Key::new(5));
        let mut losses = Vec::new();
        for step in 1..=2 {
            let mut cx = StepContext::new(StepPoint::new(step, 10, key), ranks);
            method.step(&self.batch(mine.clone(), 3), &mut cx).unwrap();
            let report = cx.into_report().fetch().unwrap();
            losses.extend(report.losses.iter().map(|(_, value)| *value));
        }
        (losses, method.learners()[0].flat_parts()[0].tensor.copy())
    }
}

#[test]
fn volumes_are_trained_on_alike_by_any_number_of_ranks() {
    tch::set_num_threads(1);
    for learnt in &LEARNT {
        let (losses, weights) = learnt.trained(&Ranks::alone(), &(0..3));
        assert_eq!(losses.len(), 2 * learnt.terms);
        assert!(losses.iter().all(|loss| loss.is_finite()));
        for shares in learnt.shares {
            let found = threads::run(2, |comm| Ok(learnt.trained(&comm, &shares[comm.rank()])));
            for found in found {
                let (found_losses, found_weights) = found.unwrap();
                let differences = found_losses.iter().zip(&losses).map(|(a, b)| (a - b).abs());
                let of_losses = differences.fold(0.0, f64::max);
                let of_weights = (found_weights - &weights).abs().max().double_value(&[]);
                assert!(of_losses < 1e-9, "losses of {shares:?} differ by {of_losses:e}");
                assert!(of_weights < 1e-9, "weights of {shares:?} differ by {of_weights:e}");
            }
        }
        let method = learnt.method(&Ranks::alone());
        let images = learnt.batch(0..3, 3);
        let answers = tch::no_grad(|| method.opinions(&images.main().image)).unwrap();
        for answer in [method.predict(&images.main().image).unwrap()].into_iter().chain(answers) {
            let [slices, rows, columns] = learnt.extent;
            assert_eq!(answer.size(), [3, 3, slices, rows, columns]);
            let total = answer.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
            assert_close("probabilities", &total, &total.ones_like(), 1e-12);
        }
    }
}

#[test]
fn volumes_without_annotation_are_learnt_from_by_what_decoders_tell_each_other() {
    let learnt = &LEARNT[1];
    let ranks = Ranks::alone();
    let (mut method, batch) = (learnt.method(&ranks), learnt.batch(0..1, 1));
    let _ = batch.main().annotation.shallow_clone().fill_(255);
    let mut cx = StepContext::new(StepPoint::new(2, 10, Key::new(5)), &ranks);
    method.step(&batch, &mut cx).unwrap();
    let report = cx.into_report().fetch().unwrap();
    for (name, value) in &report.losses {
        assert_eq!(*value == 0.0, name.contains("partial_ce"), "{name}: {value}");
    }
    assert!(report.learners.iter().all(|(_, _, norm)| norm.is_finite() && *norm > 0.0));
}
