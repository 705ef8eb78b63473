//! Terms that need no annotation: the same on any number of ranks, and in both forms of the gated CRF.

use crate::golden::assert_close;
use scrimp::comm::threads;
use scrimp::losses::contour::{Contours, contour_length};
use scrimp::losses::entropy::mean_entropy;
use scrimp::losses::gated_crf::{Field, Kernel, gated_crf};
use scrimp::losses::intensity_variance::{Sign, intensity_variance};
use scrimp::losses::mumford_shah::{MumfordShah, mumford_shah};
use scrimp::native::{Alone, Form, GroupSum, Neighbourhood, PairKernel, neighbour_sums};
use tch::{Device, Kind, Tensor};

const SAMPLES: i64 = 5;
/// Rows and columns of images, or slices, rows and columns of volumes.
const SHAPES: [&[i64]; 2] = [&[13, 17], &[3, 5, 7]];

fn wave(shape: &[i64], factor: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    (Tensor::arange(count, (Kind::Double, Device::Cpu)) * factor).sin().view(shape)
}

/// A rank's share of the global batch.
struct Share {
    logits: Tensor,
    image: Tensor,
    /// Pixels of the two masks, 0 or 1.
    masks: [Tensor; 2],
    positions: Vec<u64>,
}

impl Share {
    fn of(shape: &[i64], kind: Kind, first: i64, count: i64) -> Self {
        let cut = |maps: Tensor| maps.narrow(0, first, count).to_kind(kind).contiguous();
        let maps = |channels, factor| wave(&[&[SAMPLES, channels], shape].concat(), factor);
        let image = maps(1, 0.37).square();
        let mask = |factor| maps(1, factor).gt(-0.5).to_kind(kind);
        Self {
            logits: cut(maps(4, 0.71) * 3.0),
            image: cut(image),
            masks: [cut(mask(1.3)), cut(mask(2.9))],
            positions: (first..first + count).map(|position| position as u64).collect(),
        }
    }
}

type Term = fn(&Tensor, &Share, &dyn GroupSum) -> Tensor;

const KERNELS: [Kernel; 2] = [
    Kernel { weight: 0.9, ..Kernel::PUBLISHED },
    Kernel { weight: 0.3, sigma_xy: 3.0, sigma_intensity: 0.0, sigma_z: Some(1.0) },
];

fn field(form: Form) -> Field<'static> {
    Field { kernels: &KERNELS, radius: [2, 5, 5], source: None, destination: None, form }
}

fn energy(p: &Tensor, of: &Share, field: Field<'_>, group: &dyn GroupSum) -> Tensor {
    gated_crf(p, &of.image, &field, SAMPLES as usize, group).unwrap()
}

fn contours(p: &Tensor, of: &Share, which: Contours, group: &dyn GroupSum) -> Tensor {
    contour_length(p, which, &of.positions, SAMPLES as usize, group)
}

/// Every term in every variant, as a function of probabilities.
const TERMS: [(&str, Term); 13] = [
    ("entropy", |p, _, group| mean_entropy(p, SAMPLES as usize, group)),
    ("contours as coded", |p, of, group| contours(p, of, Contours::AsCoded, group)),
    ("all contours", |p, of, group| contours(p, of, Contours::All, group)),
    ("contours of the foreground", |p, of, group| contours(p, of, Contours::Foreground, group)),
    ("gated crf", |p, of, group| energy(p, of, field(Form::Own), group)),
    ("gated crf, source", |p, of, group| {
        energy(p, of, Field { source: Some(&of.masks[0]), ..field(Form::Own) }, group)
    }),
    ("gated crf, destination", |p, of, group| {
        energy(p, of, Field { destination: Some(&of.masks[1]), ..field(Form::Own) }, group)
    }),
    ("gated crf, both", |p, of, group| {
        let [source, destination] = of.masks.each_ref().map(Some);
        energy(p, of, Field { source, destination, ..field(Form::Own) }, group)
    }),
    ("mumford-shah as published", |p, of, group| {
        mumford_shah(p, &of.image, MumfordShah::Published, group)
    }),
    ("mumford-shah of head", |p, of, group| mumford_shah(p, &of.image, MumfordShah::Head, group)),
    ("mumford-shah of the paper", |p, of, group| {
        mumford_shah(p, &of.image, MumfordShah::KimYe, group)
    }),
    ("intensity variance as coded", |p, of, group| {
        intensity_variance(p, &of.image, Sign::AsCoded, SAMPLES as usize, group)
    }),
    ("intensity variance as named", |p, of, group| {
        intensity_variance(p, &of.image, Sign::AsNamed, SAMPLES as usize, group)
    }),
];

/// The value of a term, and its gradient with respect to this rank's logits.
fn value_and_gradient(term: Term, of: &Share, group: &dyn GroupSum) -> [Tensor; 2] {
    let logits = of.logits.copy().set_requires_grad(true);
    let value = term(&logits.softmax(1, logits.kind()), of, group);
    value.backward();
    [value.detach(), logits.grad()]
}

#[test]
fn every_regulariser_is_the_same_on_any_number_of_ranks() {
    for shares in [vec![3, 2], vec![2, 2, 1], vec![5, 0, 0], vec![0, 5], vec![0, 1, 4]] {
        for (shape, (name, term)) in SHAPES.iter().flat_map(|shape| TERMS.map(|term| (shape, term)))
        {
            let whole = Share::of(shape, Kind::Double, 0, SAMPLES);
            let [value, gradient] = value_and_gradient(term, &whole, &Alone);
            let ranks = threads::run(shares.len(), |comm| {
                let rank = comm.rank();
                let first = shares[..rank].iter().sum();
                let mine = Share::of(shape, Kind::Double, first, shares[rank]);
                Ok(value_and_gradient(term, &mine, &**comm.tensors()))
            });
            let ranks: Vec<[Tensor; 2]> = ranks.into_iter().map(Result::unwrap).collect();
            for [found, _] in &ranks {
                assert_close(&format!("{name} {shape:?} {shares:?}"), found, &value, 1e-12);
            }
            let parts: Vec<&Tensor> = ranks.iter().map(|[_, part]| part).collect();
            let what = format!("gradient of {name} {shape:?} {shares:?}");
            assert_close(&what, &Tensor::cat(&parts, 0), &gradient, 1e-12);
        }
    }
}

#[test]
fn every_regulariser_has_the_gradient_of_its_value() {
    SHAPES.into_iter().for_each(gradients_are_those_of_values);
}

fn gradients_are_those_of_values(shape: &[i64]) {
    let share = Share::of(shape, Kind::Double, 0, SAMPLES);
    let direction = wave(&share.logits.size(), 0.19);
    for (name, term) in TERMS {
        let [_, gradient] = value_and_gradient(term, &share, &Alone);
        let slope = (gradient * &direction).sum(Kind::Double).double_value(&[]);
        let at = |step: f64| {
            let logits = &share.logits + &direction * step;
            term(&logits.softmax(1, Kind::Double), &share, &Alone).double_value(&[])
        };
        // Small, because minima and maxima over pixels have kinks.
        let step = 1e-7;
        let expected = (at(step) - at(-step)) / (2.0 * step);
        let difference = (slope - expected).abs();
        assert!(
            difference <= 1e-4 * expected.abs().max(1e-2),
            "{name} {shape:?}: {slope} {expected}"
        );
    }
}

#[test]
fn the_gated_crf_is_the_same_in_kernels_and_in_tensor_operations() {
    let kinds = [(Kind::Float, 1e-5), (Kind::Double, 1e-12)];
    for (shape, (kind, tolerance)) in
        SHAPES.iter().flat_map(|shape| kinds.map(|kind| (shape, kind)))
    {
        let share = Share::of(shape, kind, 0, SAMPLES);
        let [source, destination] = share.masks.each_ref().map(Some);
        let masked = [(None, None), (source, None), (None, destination), (source, destination)];
        for (source, destination) in masked {
            // Also where the radius reaches beyond the image.
            for radius in [[1, 1, 1], [0, 5, 5], [9, 20, 20]] {
                let forms = [Form::Own, Form::Plain, Form::DeviceTwin];
                let [kernels, operations, twin] = forms.map(|form| {
                    let logits = share.logits.copy().set_requires_grad(true);
                    let p = logits.softmax(1, kind);
                    let field = Field { radius, source, destination, ..field(form) };
                    let value = energy(&p, &share, field, &Alone);
                    value.backward();
                    [value.detach(), logits.grad()]
                });
                assert_close("value", &kernels[0], &operations[0], tolerance);
                assert_close("gradient", &kernels[1], &operations[1], tolerance);
                assert_close("value of the twin", &twin[0], &operations[0], tolerance);
                assert_close("gradient of the twin", &twin[1], &operations[1], tolerance);
            }
        }
    }
}

#[test]
fn weights_of_pairs_are_exponentials() {
    // One row of pixels of growing intensity, seen from the first.
    let image = Tensor::arange(400, (Kind::Double, Device::Cpu)).view([1, 1, 1, -1]) * 0.03;
    let here = image.zeros_like();
    let _ = here.narrow(3, 0, 1).fill_(1.0);
    let kernels = [PairKernel { weight: 2.0, distance: 1e-4, slices: 0.0, intensity: 0.6 }];
    let hood =
        Neighbourhood { kernels: &kernels, radius: [0, 399, 399], form: Form::Own, masks: None };
    let place = Tensor::arange(400, (Kind::Double, Device::Cpu));
    let expected = (place.square() * -1e-4 - image.view([-1]).square() * 0.6).exp() * 2.0;
    for (kind, tolerance) in [(Kind::Float, 1e-6), (Kind::Double, 1e-13)] {
        let image = image.to_kind(kind);
        let [sums, _] = neighbour_sums(&here.to_kind(kind), &image, &hood).unwrap();
        let sums = sums.view([-1]).to_kind(Kind::Double);
        let exponent = image.view([-1]).to_kind(Kind::Double).square() * 0.6;
        let exact = (&expected + place.zeros_like()).narrow(0, 1, 399);
        let relative = (sums.narrow(0, 1, 399) - &exact).abs() / &exact;
        // In single precision the argument itself is rounded, by as much as it is large.
        let allowed = (exponent.narrow(0, 1, 399) + 1.0) * tolerance;
        // Below this the smallest result of single precision remains.
        let large = exponent.narrow(0, 1, 399).lt(80.0);
        assert!((relative - allowed).masked_select(&large).max().double_value(&[]) <= 0.0);
    }
}

#[test]
fn neighbours_are_summed_only_in_maps_that_fit() {
    let maps = Tensor::zeros([2, 4, 8, 8], (Kind::Float, Device::Cpu));
    let image = |shape: [i64; 4]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let hood = Neighbourhood { kernels: &[], radius: [0, 2, 2], form: Form::Own, masks: None };
    assert!(neighbour_sums(&maps, &image([2, 1, 8, 8]), &hood).is_ok());
    for shape in [[2, 1, 8, 7], [1, 1, 8, 8], [2, 4, 8, 8]] {
        assert!(neighbour_sums(&maps, &image(shape), &hood).is_err());
    }
    let volumes = maps.unsqueeze(2);
    assert!(neighbour_sums(&volumes, &image([2, 1, 8, 8]).unsqueeze(2), &hood).is_ok());
    assert!(neighbour_sums(&volumes, &image([2, 1, 8, 8]), &hood).is_err());
    assert!(neighbour_sums(&maps.get(0), &image([4, 1, 8, 8]).get(0), &hood).is_err());
    assert!(neighbour_sums(&maps.to_kind(Kind::Int64), &image([2, 1, 8, 8]), &hood).is_err());
}
