//! A gated conditional random field: near pixels of like intensity should get the same class.
//!
//! The weight of a pair of pixels is symmetric and does not depend on the network, so that the
//! gradient is known: it is summed with the value, over half of the offsets, and nothing but one
//! tensor of the size of the prediction is kept. Knows neither labels nor annotation.

use super::{axes, elements};
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
    /// Distance in pixels within a slice over which weights fall; 0: they do not.
    pub sigma_xy: f64,
    /// Difference of intensities over which weights fall; 0: they do not.
    pub sigma_intensity: f64,
    /// Number of slices of a volume over which weights fall; 0: they do not. Where it is not given they fall over
    /// as many slices as pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma_z: Option<f64>,
}

impl Kernel {
    /// That of the published table: weight 1, 6 pixels, intensity 0.1.
    pub const PUBLISHED: Self =
        Self { weight: 1.0, sigma_xy: 6.0, sigma_intensity: 0.1, sigma_z: None };

    fn falling(&self) -> PairKernel {
        let rate = |sigma: f64| if sigma > 0.0 { 0.5 / (sigma * sigma) } else { 0.0 };
        PairKernel {
            weight: self.weight,
            distance: rate(self.sigma_xy),
            slices: rate(self.sigma_z.unwrap_or(self.sigma_xy)),
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
    /// The two are at most so many slices, rows and columns apart; 5 rows and columns as published. Images have
    /// no slices, whatever is said of them.
    pub radius: [i64; 3],
    /// Of the pixels that are looked at, those where this is at least 1 count; of the shape of the image.
    pub source: Option<&'a Tensor>,
    /// Of the pixels that look around, those where this is at least 1 count; of the shape of the image.
    pub destination: Option<&'a Tensor>,
    /// How sums over neighbours are computed.
    pub form: Form,
}

/// Energy per pixel of the global batch: `Σ_i Σ_j K_ij (1 - <p_i, p_j>)` over the neighbours `j` of
/// every pixel `i` of a sample, divided by the number of pixels (Obukhov et al., arXiv 1906.04651;
/// `ModelLossSemsegGatedCRF` in WSL4MIS). Neighbours are all in a box around `i` but `i` itself, and
/// `K_ij = Σ weight exp(-(dx² + dy²) / 2 sigma_xy² - dz² / 2 sigma_z² - (I_i - I_j)² / 2 sigma_intensity²)`,
/// where images have dz = 0.
///
/// `probabilities` is `[N, C, H, W]` or `[N, C, D, H, W]`, this rank's share of `samples`, `image` alike with one
/// channel. As in the reference, neighbours outside the image have intensity 0, the place (0, 0, 0) and no class:
/// they add a constant. Without masks the divisor is all pixels, with them the pixels of the destination, or
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
    let radius =
        if axes(image).len() == 2 { [0, field.radius[1], field.radius[2]] } else { field.radius };
    let (masks, pixels, outside, sums) = tch::no_grad(|| {
        let masks = Masks::of(field, image);
        let pixels = pixels(probabilities, &masks, samples, group);
        let kernels: Vec<PairKernel> = field.kernels.iter().map(Kernel::falling).collect();
        let outside = outside_weights(&as_volumes(image), &kernels, &masks, radius);
        let ones = image.ones_like();
        let both = [&masks.source, &masks.destination].map(|mask| mask.as_ref().unwrap_or(&ones));
        let gates = (!masks.is_empty()).then_some(both);
        let form = field.form;
        let hood = Neighbourhood { kernels: &kernels, radius, form, masks: gates };
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

/// Maps as they are, or images as volumes of one slice.
fn as_volumes(maps: &Tensor) -> Tensor {
    if maps.dim() == 5 { maps.shallow_clone() } else { maps.unsqueeze(2) }
}

/// The sum of the weights of all pairs whose second pixel lies outside, in double; `image` is `[N, 1, D, H, W]`.
fn outside_weights(image: &Tensor, kernels: &[PairKernel], masks: &Masks, of: [i64; 3]) -> Tensor {
    if masks.source.is_some() {
        return Tensor::zeros([], (Kind::Double, image.device()));
    }
    let sizes = [2, 3, 4].map(|axis| image.size()[axis]);
    let placed =
        |axis: usize, numbers: Tensor| numbers.view([[-1, 1, 1], [1, -1, 1], [1, 1, -1]][axis]);
    let within = |axis: usize| placed(axis, neighbours_within(sizes[axis], of[axis], image));
    let neighbours = of.map(|radius| 2 * radius + 1).iter().product::<i64>() as f64;
    let outside: Tensor = neighbours - within(0) * within(1) * within(2); // [D, H, W]
    let square = |axis: usize| {
        placed(axis, Tensor::arange(sizes[axis], (Kind::Double, image.device())).square())
    };
    let (slices, distance) = (square(0), square(1) + square(2));
    let intensity = image.to_kind(Kind::Double).square();
    let weights = kernels.iter().map(|kernel| {
        let place = &distance * -kernel.distance - &slices * kernel.slices;
        (place - &intensity * kernel.intensity).exp() * kernel.weight * &outside
    });
    let sum = weights.fold(intensity.zeros_like(), |sum, weight| sum + weight);
    match &masks.destination {
        Some(mask) => (sum * mask.view_as(image)).sum(Kind::Double),
        None => sum.sum(Kind::Double),
    }
}

/// Half of the offsets up to `radius` that stay within `sizes`: those whose first number that is not 0 is positive.
fn half_of_offsets(radius: [i64; 3], sizes: [i64; 3]) -> Vec<[i64; 3]> {
    let [slices, rows, columns] = [0, 1, 2].map(|axis| radius[axis].min(sizes[axis] - 1));
    let rows = move |dz: i64| (-rows..=rows).map(move |dy| [dz, dy]);
    let columns = move |[dz, dy]: [i64; 2]| (-columns..=columns).map(move |dx| [dz, dy, dx]);
    (0..=slices).flat_map(rows).flat_map(columns).filter(|offset| *offset > [0; 3]).collect()
}

/// The part of `[N, C, D, H, W]` whose partner `offset` away lies within, and the partners.
fn partners(maps: &Tensor, offset: [i64; 3]) -> [Tensor; 2] {
    let mut both = [maps.shallow_clone(), maps.shallow_clone()];
    for (axis, step) in (2..).zip(offset) {
        let count = maps.size()[axis as usize] - step.abs();
        let starts = [(-step).max(0), step.max(0)];
        both = [0, 1].map(|end| both[end].narrow(axis, starts[end], count));
    }
    both
}

/// [`neighbour_sums`] with tensor operations, one offset after the other.
fn neighbour_sums_by_tensors(
    probabilities: &Tensor,
    image: &Tensor,
    hood: &Neighbourhood<'_>,
) -> [Tensor; 2] {
    let sums = probabilities.zeros_like();
    let [probabilities, image, sums_of_volumes] = [probabilities, image, &sums].map(as_volumes);
    let masks = hood.masks.map(|masks| masks.map(as_volumes));
    let samples = probabilities.size()[0];
    let mut total = Tensor::zeros([samples], (Kind::Double, probabilities.device()));
    let sizes = [2, 3, 4].map(|axis| probabilities.size()[axis]);
    for offset in half_of_offsets(hood.radius, sizes) {
        let [first, second] = partners(&image, offset);
        let difference = (first - second).square();
        let [dz, dy, dx] = offset.map(|step| step as f64);
        let weights = hood.kernels.iter().map(|kernel| {
            let fall = -kernel.distance * (dx * dx + dy * dy) - kernel.slices * dz * dz;
            (&difference * -kernel.intensity).exp() * (kernel.weight * fall.exp())
        });
        let mut weight = weights.fold(difference.zeros_like(), |sum, weight| sum + weight);
        if let Some([source, destination]) = &masks {
            let ([from, from_other], [to, to_other]) =
                (partners(source, offset), partners(destination, offset));
            weight = weight * (to * from_other + to_other * from) * 0.5;
        }
        let [p, other] = partners(&probabilities, offset);
        let [mut to, mut to_other] = partners(&sums_of_volumes, offset);
        let _ = to.g_add_(&(&weight * other));
        let _ = to_other.g_add_(&(&weight * p));
        total += weight.sum_dim_intlist([1i64, 2, 3, 4].as_slice(), false, Kind::Double) * 2.0;
    }
    [sums, total]
}
