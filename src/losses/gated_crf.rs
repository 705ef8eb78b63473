//! A gated conditional random field: near pixels of like intensity should get the same class.
//!
//! The weight of a pair of pixels is symmetric and does not depend on the network, so that the
//! gradient is known: it is summed with the value, over half of the offsets, and nothing but one
//! tensor of the size of the prediction is kept. Knows neither labels nor annotation.

use super::elements;
use crate::error::Result;
use crate::native::{
    Form, GroupSum, Neighbourhood, PairKernel, global_sum, neighbour_sums, sums_neighbours,
};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A summand of the weight of a pair of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Weight of two pixels that are equal in place and intensity.
    pub weight: f64,
    /// Distance in pixels over which weights fall; 0: they do not.
    pub sigma_xy: f64,
    /// Difference of intensities over which weights fall; 0: they do not.
    pub sigma_intensity: f64,
}

impl Kernel {
    /// That of the published table: weight 1, 6 pixels, intensity 0.1.
    pub const PUBLISHED: Self = Self { weight: 1.0, sigma_xy: 6.0, sigma_intensity: 0.1 };

    fn falling(&self) -> PairKernel {
        let rate = |sigma: f64| if sigma > 0.0 { 0.5 / (sigma * sigma) } else { 0.0 };
        PairKernel {
            weight: self.weight,
            distance: rate(self.sigma_xy),
            intensity: rate(self.sigma_intensity),
        }
    }
}

/// Most kernels of a field whose sums are computed by kernels of a device.
const MOST_KERNELS: usize = 8;

/// Which pairs of pixels count, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// The weight of a pair is the sum of these.
    pub kernels: &'a [Kernel],
    /// The two are at most this many pixels apart in rows and in columns; 5 as published.
    pub radius: i64,
    /// Of the pixels that are looked at, those where this is at least 1 count; `[N, 1, H, W]`.
    pub source: Option<&'a Tensor>,
    /// Of the pixels that look around, those where this is at least 1 count; `[N, 1, H, W]`.
    pub destination: Option<&'a Tensor>,
    /// How sums over neighbours are computed.
    pub form: Form,
}

/// Energy per pixel of the global batch: `Σ_i Σ_j K_ij (1 - <p_i, p_j>)` over the neighbours `j` of
/// every pixel `i` of a sample, divided by the number of pixels (Obukhov et al., arXiv 1906.04651;
/// `ModelLossSemsegGatedCRF` in WSL4MIS).
///
/// `probabilities` is `[N, C, H, W]`, this rank's share of `samples`, `image` `[N, 1, H, W]`. As in the
/// reference, neighbours outside the image have intensity 0, the place (0, 0) and no class: they add
/// a constant. Without masks the divisor is all pixels, with them the pixels of the destination, or
/// else of the source.
pub fn gated_crf(
    probabilities: &Tensor,
    image: &Tensor,
    field: &Field<'_>,
    samples: usize,
    group: &dyn GroupSum,
) -> Result<Tensor> {
    let fixed = probabilities.detach();
    let kind = probabilities.kind();
    let (masks, pixels, outside, sums) = tch::no_grad(|| {
        let masks = Masks::of(field, image);
        let pixels = pixels(probabilities, &masks, samples, group);
        let kernels: Vec<PairKernel> = field.kernels.iter().map(Kernel::falling).collect();
        let outside = outside_weights(image, &kernels, field.radius, &masks);
        let ones = image.ones_like();
        let both = [&masks.source, &masks.destination].map(|mask| mask.as_ref().unwrap_or(&ones));
        let gates = (!masks.is_empty()).then_some(both);
        let form = field.form;
        let hood = Neighbourhood { kernels: &kernels, radius: field.radius, form, masks: gates };
        let sums = if sums_neighbours(&fixed, form) && kernels.len() <= MOST_KERNELS {
            neighbour_sums(&fixed, image, &hood)
        } else {
            Ok(neighbour_sums_by_tensors(&fixed, image, &hood))
        };
        (masks, pixels, outside, sums)
    });
    drop(masks);
    let [neighbours, weights] = sums?;
    let constant = weights.sum(Kind::Double) + outside;
    // Σ_i <p_i, Σ_j K_ij p_j> is quadratic with a symmetric K: its gradient is twice that of a product
    // whose second factor is fixed.
    let agreement = (probabilities * neighbours).sum(kind);
    let local = constant.to_kind(kind) - (&agreement * 2.0 - agreement.detach());
    Ok(global_sum(&local, group) / pixels)
}

/// 1 where a pixel counts and 0 elsewhere.
struct Masks {
    source: Option<Tensor>,
    destination: Option<Tensor>,
}

impl Masks {
    fn of(field: &Field<'_>, image: &Tensor) -> Self {
        // What is not a number is not at least 1.
        let gate = |mask: &Tensor| mask.where_scalarother(&mask.ge(1.0), 0.0).to_kind(image.kind());
        Self { source: field.source.map(gate), destination: field.destination.map(gate) }
    }

    fn is_empty(&self) -> bool {
        self.source.is_none() && self.destination.is_none()
    }
}

/// The divisor, 0-dimensional.
fn pixels(probabilities: &Tensor, masks: &Masks, samples: usize, group: &dyn GroupSum) -> Tensor {
    if let Some(mask) = masks.destination.as_ref().or(masks.source.as_ref()) {
        let count = mask.sum(probabilities.kind());
        group.sum(&count);
        return count.clamp_min(1.0);
    }
    let count = elements(&probabilities.narrow(1, 0, 1), samples);
    Tensor::full([], count, (probabilities.kind(), probabilities.device()))
}

/// `[size]`: how many of the offsets up to `radius` stay within, from each place on.
fn neighbours_within(size: i64, radius: i64, like: &Tensor) -> Tensor {
    let place = Tensor::arange(size, (Kind::Double, like.device()));
    let last = (&place + radius).clamp_max((size - 1) as f64);
    last - (place - radius).clamp_min(0.0) + 1.0
}

/// The sum of the weights of all pairs whose second pixel lies outside, in double.
fn outside_weights(image: &Tensor, kernels: &[PairKernel], radius: i64, masks: &Masks) -> Tensor {
    if masks.source.is_some() {
        return Tensor::zeros([], (Kind::Double, image.device()));
    }
    let [height, width] = [image.size()[2], image.size()[3]];
    let within = neighbours_within(height, radius, image).unsqueeze(1)
        * neighbours_within(width, radius, image);
    let outside: Tensor = ((2 * radius + 1) * (2 * radius + 1)) as f64 - within; // [H, W]
    let square = |size: i64| Tensor::arange(size, (Kind::Double, image.device())).square();
    let distance = square(height).unsqueeze(1) + square(width);
    let intensity = image.to_kind(Kind::Double).square();
    let weights = kernels.iter().map(|kernel| {
        (&distance * -kernel.distance - &intensity * kernel.intensity).exp()
            * kernel.weight
            * &outside
    });
    let sum = weights.fold(intensity.zeros_like(), |sum, weight| sum + weight);
    match &masks.destination {
        Some(mask) => (sum * mask).sum(Kind::Double),
        None => sum.sum(Kind::Double),
    }
}

/// The part of `[N, C, H, W]` whose partner `(dy, dx)` away lies within, and the partners.
fn partners(maps: &Tensor, [dy, dx]: [i64; 2]) -> [Tensor; 2] {
    let (height, width) = (maps.size()[2] - dy, maps.size()[3] - dx.abs());
    let at = |y: i64, x: i64| maps.narrow(2, y, height).narrow(3, x, width);
    [at(0, (-dx).max(0)), at(dy, dx.max(0))]
}

/// [`neighbour_sums`] with tensor operations, one offset after the other.
fn neighbour_sums_by_tensors(
    probabilities: &Tensor,
    image: &Tensor,
    hood: &Neighbourhood<'_>,
) -> [Tensor; 2] {
    let sums = probabilities.zeros_like();
    let samples = probabilities.size()[0];
    let mut total = Tensor::zeros([samples], (Kind::Double, probabilities.device()));
    let (rows, columns) = (probabilities.size()[2] - 1, probabilities.size()[3] - 1);
    let reach = hood.radius.min(columns);
    for dy in 0..=hood.radius.min(rows) {
        for dx in if dy == 0 { 1..=reach } else { -reach..=reach } {
            let offset = [dy, dx];
            let [first, second] = partners(image, offset);
            let difference = (first - second).square();
            let squared = (dx * dx + dy * dy) as f64;
            let weights = hood.kernels.iter().map(|kernel| {
                let amplitude = kernel.weight * (-kernel.distance * squared).exp();
                (&difference * -kernel.intensity).exp() * amplitude
            });
            let mut weight = weights.fold(difference.zeros_like(), |sum, weight| sum + weight);
            if let Some([source, destination]) = hood.masks {
                let ([from, from_other], [to, to_other]) =
                    (partners(source, offset), partners(destination, offset));
                weight = weight * (to * from_other + to_other * from) * 0.5;
            }
            let [p, other] = partners(probabilities, offset);
            let [mut to, mut to_other] = partners(&sums, offset);
            let _ = to.g_add_(&(&weight * other));
            let _ = to_other.g_add_(&(&weight * p));
            total += weight.sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Double) * 2.0;
        }
    }
    [sums, total]
}
