//! Length of the contours of soft segmentations, by which ragged borders cost more than smooth ones.
//!
//! Knows neither labels nor annotation.

use super::{axes, elements};
use crate::native::{GroupSum, global_sum};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Whose contours are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contours {
    /// Those of all classes with the background, without the first sample of the global batch: the released code cuts the samples where it probably meant the classes.
    #[default]
    AsCoded,
    /// Those of all classes with the background, in all samples.
    All,
    /// Those of all classes but the background, in all samples: what was probably meant.
    Foreground,
}

/// `max(opening - erosion, 0)` of every map, as `probabilities` (`[N, C, H, W]` or `[N, C, D, H, W]`): large
/// within two pixels of where a map falls.
///
/// Erosion is the minimum over 3 x 3 pixels, of volumes over 3 x 3 x 3, opening the maximum of that (WSL4MIS
/// `train_weakly_supervised_pCE_TV_2D.py`, there called total variation). What lies outside never wins.
pub fn soft_contours(probabilities: &Tensor) -> Tensor {
    let largest = |maps: &Tensor| match axes(maps).len() {
        3 => maps.max_pool3d([3; 3], [1; 3], [1; 3], [1; 3], false),
        _ => maps.max_pool2d([3; 2], [1; 2], [1; 2], [1; 2], false),
    };
    let eroded = -largest(&-probabilities);
    (largest(&eroded) - eroded).relu()
}

/// Mean of [`soft_contours`] over the chosen maps of the global batch.
///
/// `probabilities` is `[N, C, H, W]` or `[N, C, D, H, W]`, this rank's share of `samples`, those of the global batch;
/// `positions` are those of its samples there, counted from 0. Of a global batch in micro-batches each has
/// a summand of the mean. As coded, a batch of one sample has the value 0 (the reference gives 0/0).
pub fn contour_length(
    probabilities: &Tensor,
    contours: Contours,
    positions: &[u64],
    samples: usize,
    group: &dyn GroupSum,
) -> Tensor {
    let classes = probabilities.size()[1];
    let (maps, samples) = match contours {
        Contours::All => (probabilities.shallow_clone(), samples),
        Contours::Foreground => (probabilities.narrow(1, 1, classes - 1), samples),
        Contours::AsCoded => {
            // A rank's samples are in the order of their positions.
            let skipped = i64::from(positions.first() == Some(&0));
            let kept = probabilities.size()[0] - skipped;
            (probabilities.narrow(0, skipped, kept), samples.saturating_sub(1))
        }
    };
    let count = elements(&maps, samples);
    // Pooling refuses a share without samples.
    let local = if maps.size()[0] == 0 { maps } else { soft_contours(&maps) };
    global_sum(&local.sum(local.kind()), group) / count
}
