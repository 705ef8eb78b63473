//! Mumford-Shah energies: regions of one intensity with short borders.
//!
//! Sums over the global batch and not means, as published. Knows neither labels nor annotation.

use super::axes;
use crate::native::{GroupSum, global_sum};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Which energy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MumfordShah {
    /// Prediction and image with exchanged roles, and the length of the image's borders, which no network changes: the code with which the published table was made.
    #[default]
    Published,
    /// The same with the length of the prediction's borders: the code since then.
    Head,
    /// The roles as in the paper, with the length of the prediction's borders.
    KimYe,
}

/// The energy of the global batch (Kim and Ye, IEEE TIP 2020, equation 11; WSL4MIS
/// `losses.MumfordShah_Loss` at 027198c for `Published`, at a594da8 for `Head`).
///
/// `probabilities` is `[N, C, H, W]` or `[N, C, D, H, W]`, `image` alike with one channel and intensities of at
/// least 0. With weights `w` and values `v`, of which each has its turn as `energy` says, and `m` the mean of `v`
/// weighted with `w` in a sample and class: `Σ w (v - m)² + Σ_axes Σ |difference of neighbours|`, the second sum
/// over rows and columns, and of volumes over slices too, in pixels whatever the spacing. A sum over pixels,
/// classes and samples: it grows with all of them, and micro-batches have summands of it.
pub fn mumford_shah(
    probabilities: &Tensor,
    image: &Tensor,
    energy: MumfordShah,
    group: &dyn GroupSum,
) -> Tensor {
    let (level, length) = match energy {
        MumfordShah::Published => (spread(probabilities, image), border_length(image)),
        MumfordShah::Head => (spread(probabilities, image), border_length(probabilities)),
        MumfordShah::KimYe => (spread(image, probabilities), border_length(probabilities)),
    };
    global_sum(&(level + length), group)
}

/// `Σ weight (values - m)²`, where `m` is the weighted mean over the pixels of each sample and map;
/// one of the two has one map, which goes with each of the other's. Weights of sum 0 count nothing.
fn spread(values: &Tensor, weight: &Tensor) -> Tensor {
    let over_pixels = |maps: &Tensor| maps.sum_dim_intlist(axes(maps), true, maps.kind());
    let mean = over_pixels(&(values * weight))
        / over_pixels(weight).clamp_min(f64::from(f32::MIN_POSITIVE));
    let squares = (values - mean).square() * weight;
    squares.sum(squares.kind())
}

/// Sum of absolute differences between pixels and their neighbours to the right and below, and in volumes in
/// the next slice.
fn border_length(maps: &Tensor) -> Tensor {
    let along = |&dimension: &i64| {
        let count = maps.size()[dimension as usize] - 1;
        let steps = maps.narrow(dimension, 1, count) - maps.narrow(dimension, 0, count);
        steps.abs().sum(steps.kind())
    };
    axes(maps).iter().map(along).sum()
}
