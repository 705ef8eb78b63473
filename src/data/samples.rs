//! Images with their annotation as tensors, and where each of them comes from.
//!
//! Knows neither how they are made nor what stands beside them.

use super::item::Item;
use tch::Tensor;

/// Images with their annotation, this rank's part of a global batch.
#[derive(Debug)]
pub struct Samples {
    /// `[N, C, H, W]` f32, or `[N, C, D, H, W]` of samples several slices deep: intensities as the data set has
    /// them; one channel, or three of colour. `N` may be 0.
    pub image: Tensor,
    /// `[N, H, W]` or `[N, D, H, W]`, class or [`super::IGNORE`]: u8 as loaded, i64 on the device of a method.
    pub annotation: Tensor,
    /// Which classes somebody looked for in the case of each sample, `[N, classes]`: u8 as loaded, boolean on the device
    /// of a method; those that nobody looked for are background in its annotation. None where in all cases of a run
    /// all classes were looked for.
    pub looked_for: Option<Tensor>,
    /// What each sample is cut from.
    pub items: Vec<Item>,
    /// The position of each sample in the global batch.
    pub positions: Vec<u64>,
}

impl Samples {
    /// All tensors, in one order.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let Self { image, annotation, looked_for, .. } = self;
        [Some(image), Some(annotation), looked_for.as_ref()].into_iter().flatten()
    }
}
