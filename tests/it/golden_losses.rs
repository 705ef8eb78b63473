//! Losses against the reference implementations: value and gradient.

use crate::golden::{Golden, assert_close, device};
use scrimp::losses::contour::{Contours, contour_length, soft_contours};
use scrimp::losses::entropy::mean_entropy;
use scrimp::losses::gated_crf::{Field, Kernel, gated_crf};
use scrimp::losses::intensity_variance::{Sign, intensity_spreads, intensity_variance};
use scrimp::losses::mumford_shah::{MumfordShah, mumford_shah};
use scrimp::losses::{Masking, SMOOTH, dice, partial_cross_entropy, partial_dice};
use scrimp::native::{Alone, Form, Neighbourhood, PairKernel, neighbour_sums};
use scrimp::train::schedule::ramp_up;
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

/// The regularisers of one golden file.
struct Regularisers {
    golden: Golden,
    image: Tensor,
}

/// The released settings of the gated CRF.
const RELEASED: Field<'static> = Field {
    kernels: &[Kernel::PUBLISHED],
    radius: [0, 5, 5],
    source: None,
    destination: None,
    form: Form::Own,
};
/// Those of the keys `gatedcrf_masked`, without their masks.
const OF_TWO: Field<'static> = Field {
    kernels: &[
        Kernel { weight: 0.9, ..Kernel::PUBLISHED },
        Kernel { weight: 0.1, sigma_xy: 6.0, sigma_intensity: 0.0, sigma_z: None },
    ],
    radius: [0, 3, 3],
    ..RELEASED
};

impl Regularisers {
    fn open() -> Self {
        let golden = Golden::open("baseline-losses");
        Self { image: golden.get("in.image"), golden }
    }

    fn samples(&self) -> usize {
        self.image.size()[0] as usize
    }

    fn entropy(&self, z: &Tensor) -> Tensor {
        mean_entropy(&softmax(z), self.samples(), &Alone)
    }

    fn contours(&self, z: &Tensor, contours: Contours) -> Tensor {
        let positions: Vec<u64> = (0..self.samples() as u64).collect();
        contour_length(&softmax(z), contours, &positions, self.samples(), &Alone)
    }

    fn field(&self, z: &Tensor, field: Field<'_>) -> Tensor {
        gated_crf(&softmax(z), &self.image, &field, self.samples(), &Alone).unwrap()
    }

    fn energy(&self, z: &Tensor, energy: MumfordShah) -> Tensor {
        mumford_shah(&softmax(z), &self.image, energy, &Alone)
    }

    fn spreads(&self, z: &Tensor, sign: Sign) -> Tensor {
        intensity_variance(&softmax(z), &self.image, sign, self.samples(), &Alone)
    }

    fn check(&self, prefix: &str, loss: impl Fn(&Tensor) -> Tensor) {
        check(&self.golden, prefix, "in.logits", loss);
    }

    /// The loss that is trained with: cross-entropy and a weighted regulariser.
    fn check_total(&self, name: &str, weight: f64, loss: impl Fn(&Tensor) -> Tensor) {
        let scribble = self.golden.labels("in.scribble");
        self.check(&format!("total_{name}"), |z| {
            partial_cross_entropy(z, &scribble, &Alone) + loss(z) * weight
        });
    }
}

#[test]
fn golden_entropy() {
    let given = Regularisers::open();
    given.check("entropy", |z| given.entropy(z));
    given.check_total("entropy", 0.1, |z| given.entropy(z));
    let nats = given.entropy(&given.golden.get("in.logits")) * 4f64.ln();
    given.golden.assert_close("entropy_raw.out.loss", &nats, TOLERANCE);
}

#[test]
fn golden_contour_lengths() {
    let given = Regularisers::open();
    given.check("tv", |z| given.contours(z, Contours::AsCoded));
    given.check("tv_all", |z| given.contours(z, Contours::All));
    given.check("tv_fg", |z| given.contours(z, Contours::Foreground));
    given.check_total("tv", 0.01, |z| given.contours(z, Contours::AsCoded));
    let contours = soft_contours(&softmax(&given.golden.get("in.logits")));
    given.golden.assert_close("tv.out.contour", &contours, TOLERANCE);
}

#[test]
fn golden_gated_crf() {
    let given = Regularisers::open();
    let masks = ["gatedcrf_masked.in.mask_src", "gatedcrf_masked.in.mask_dst"];
    let [source, destination] = masks.map(|key| given.golden.get(key));
    for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
        let released = Field { form, ..RELEASED };
        given.check("gatedcrf", |z| given.field(z, released));
        given.check_total("gatedcrf", 0.1, |z| given.field(z, released));
        let (source, destination) = (Some(&source), Some(&destination));
        let masked = Field { form, source, destination, ..OF_TWO };
        given.check("gatedcrf_masked", |z| given.field(z, masked));
        let p = softmax(&given.golden.get("in.logits")).set_requires_grad(true);
        gated_crf(&p, &given.image, &released, given.samples(), &Alone).unwrap().backward();
        given.golden.assert_close("gatedcrf.grad.softmax", &p.grad(), TOLERANCE);
        // Where nothing is predicted, all weights remain.
        let nothing = p.detach().zeros_like();
        let weights = gated_crf(&nothing, &given.image, &released, given.samples(), &Alone);
        let weights = weights.unwrap() * given.image.numel() as f64;
        given.golden.assert_close("gatedcrf.out.kernel_sum", &weights, TOLERANCE);
    }
}

/// A prediction that is 1 in one pixel shows the weights around it; one that is 1 everywhere their sums.
#[test]
fn golden_weights_of_the_gated_crf() {
    let given = Regularisers::open();
    let kernels = [PairKernel { weight: 1.0, distance: 1.0 / 72.0, slices: 0.0, intensity: 50.0 }];
    let hood = Neighbourhood { kernels: &kernels, radius: [0, 5, 5], form: Form::Own, masks: None };
    let [height, width] = [given.image.size()[2], given.image.size()[3]];
    let inner = |map: &Tensor| map.narrow(-2, 5, height - 10).narrow(-1, 5, width - 10);
    let [sums, _] = neighbour_sums(&given.image.ones_like(), &given.image, &hood).unwrap();
    let expected = inner(&given.golden.get("gatedcrf.out.kernel_map"));
    assert_close("sums of weights", &inner(&sums.squeeze_dim(1)), &expected, TOLERANCE);
    let pixels = given.golden.get("gatedcrf.in.kernel_pixels");
    for index in 0..pixels.size()[0] {
        let [y, x] = [0, 1].map(|part| pixels.int64_value(&[index, part]));
        let here = given.image.zeros_like();
        let _ = here.get(0).get(0).get(y).get(x).fill_(1.0);
        let [weights, _] = neighbour_sums(&here, &given.image, &hood).unwrap();
        let stored = given.golden.get("gatedcrf.out.kernel_at").get(index);
        for (dy, dx) in (-5..=5).flat_map(|dy| (-5..=5).map(move |dx| (dy, dx))) {
            if (0..height).contains(&(y + dy)) && (0..width).contains(&(x + dx)) {
                let expected = stored.double_value(&[dy + 5, dx + 5]);
                let found = weights.double_value(&[0, 0, y + dy, x + dx]);
                assert!((found - expected).abs() <= TOLERANCE, "{y} {x} {dy} {dx}");
            }
        }
    }
}

#[test]
fn golden_gated_crf_of_a_whole_slice() {
    let Some(golden) = Golden::open_if_there("gated-crf-full") else { return };
    let image = golden.get("in.image");
    let logits = golden.get("in.logits").to_kind(Kind::Float).set_requires_grad(true);
    let loss = gated_crf(&softmax(&logits), &image, &RELEASED, 1, &Alone).unwrap();
    loss.backward();
    golden.assert_close("out.loss", &loss.detach(), TOLERANCE);
    let gradient = logits.grad();
    let every_second = gradient.slice(2, 0, 256, 2).slice(3, 0, 256, 2);
    golden.assert_close("grad.logits_s2", &every_second, TOLERANCE);
    golden.assert_close("grad.logits_last_row", &gradient.select(2, 255), TOLERANCE);
    golden.assert_close("grad.logits_last_col", &gradient.select(3, 255), TOLERANCE);
    let squares = gradient.to_kind(Kind::Double).square().sum(Kind::Double);
    let expected = golden.get("grad.checksum").get(1);
    assert_close("sum of squares of the gradient", &squares, &expected, TOLERANCE);
    let nothing = logits.detach().zeros_like();
    let weights = gated_crf(&nothing, &image, &RELEASED, 1, &Alone).unwrap() * 65_536.0;
    golden.assert_close("out.kernel_sum", &weights, TOLERANCE);
}

#[test]
fn golden_mumford_shah() {
    let given = Regularisers::open();
    for (name, energy) in [
        ("mumford_published", MumfordShah::Published),
        ("mumford_head", MumfordShah::Head),
        ("mumford_kimye", MumfordShah::KimYe),
    ] {
        given.check(name, |z| given.energy(z, energy));
    }
    given.check_total("mumford_published", 1e-6, |z| given.energy(z, MumfordShah::Published));
    given.check_total("mumford_head", 1e-6, |z| given.energy(z, MumfordShah::Head));
    // Energies differ by their border lengths.
    let value = |energy| given.energy(&given.golden.get("in.logits"), energy);
    let expected =
        given.golden.get("mumford.out.tv_softmax") - given.golden.get("mumford.out.tv_image");
    let difference = value(MumfordShah::Head) - value(MumfordShah::Published);
    assert_close("difference of border lengths", &difference, &expected, 1e-4);
}

#[test]
fn golden_intensity_variance() {
    let given = Regularisers::open();
    given.check("ivm", |z| given.spreads(z, Sign::AsCoded));
    let logits = given.golden.get("in.logits");
    let [between, inside] =
        intensity_spreads(&softmax(&logits), &given.image, given.samples(), &Alone);
    given.golden.assert_close("ivm.out.inter", &between, TOLERANCE);
    given.golden.assert_close("ivm.out.intra", &inside, TOLERANCE);
    let opposite = -given.spreads(&logits, Sign::AsNamed);
    given.golden.assert_close("ivm.out.loss", &opposite, TOLERANCE);
    let weight = 0.1 * ramp_up(100.0 / 200.0);
    given.golden.assert_close("ivm.out.weight_15000", &Tensor::from(weight), 1e-12);
    given.check_total("ivm", weight, |z| given.spreads(z, Sign::AsCoded));
}

#[test]
fn golden_total_of_full_supervision() {
    let given = Regularisers::open();
    let dense = given.golden.labels("in.label");
    given.check("total_fully", |z| supervised(z, &dense));
}

#[test]
fn golden_ramps() {
    let golden = Golden::open("baseline-losses");
    let numbers = |key: &str| Vec::<f64>::try_from(golden.get(key)).unwrap();
    let current = numbers("ramp.in.current");
    let rows = numbers("ramp.in.length").into_iter().flat_map(|length| {
        let row: Vec<f64> = current.iter().map(|current| ramp_up(current / length)).collect();
        row
    });
    let ours = Tensor::from_slice(&rows.collect::<Vec<f64>>());
    golden.assert_close("ramp.out.sigmoid", &ours, 1e-12);
}

#[test]
fn a_batch_without_annotation_has_no_loss_and_no_gradient() {
    let logits = Tensor::ones([2, 4, 3, 3], (Kind::Float, device())).set_requires_grad(true);
    let nothing = Tensor::full([2, 3, 3], 255, (Kind::Int64, device()));
    let loss = partial_cross_entropy(&logits, &nothing, &Alone);
    loss.backward();
    assert_eq!(loss.double_value(&[]), 0.0);
    assert_eq!(logits.grad().abs().max().double_value(&[]), 0.0);
}
