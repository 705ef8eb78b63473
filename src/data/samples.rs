//! Images with their annotation as tensors, and where each of them comes from.
//!
//! Knows neither how they are made nor what stands beside them.

use tch::Tensor;

/// Images with their annotation, this rank's part of a global batch.
#[derive(Debug)]
pub struct Samples {
    /// `[N, C, H, W]` f32, intensities in `[0, 1]`; one channel, or three of colour. `N` may be 0.
    pub image: Tensor,
    /// `[N, H, W]`, class or [`super::IGNORE`]: u8 as loaded, i64 on the device of a method.
    pub annotation: Tensor,
    /// Where each sample comes from: the index of the case in the data set, and the slice.
    pub cases: Vec<(usize, usize)>,
    /// The position of each sample in the global batch.
    pub positions: Vec<u64>,
}
