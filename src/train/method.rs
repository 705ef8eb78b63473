//! A training method as the trainer sees it: one iteration, a prediction, and learners.
//!
//! Knows no method, no network and no loss.

use super::context::{MicroBatch, StepContext};
use super::learner::Learner;
use super::point::StepPoint;
use crate::data::batch::Batch;
use crate::error::Result;
use tch::Tensor;

/// A training method: one iteration, a prediction, and what must survive a restart.
pub trait Method {
    /// Which steps do the same work with other numbers, all of which come from the batch or from
    /// [`StepContext::numbers`]: they have the same form, and one can be replayed as another. `None`
    /// where a step does what depends on more, or reads from the device.
    fn form(&self, _point: &StepPoint) -> Option<u32> {
        None
    }
    /// Runs one iteration on this rank's share of the batch.
    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()>;
    /// Class logits `[N, classes, H, W]` for images `[N, C, H, W]` of one channel or three, with running
    /// statistics.
    fn predict(&self, image: &Tensor) -> Result<Tensor>;
    /// Images `[N, C, H, W]` in [0, 1] that the method makes of images beside its prediction, by name, for
    /// people to look at. Names have no commas.
    fn pictures(&self, _image: &Tensor) -> Result<Vec<(&'static str, Tensor)>> {
        Ok(Vec::new())
    }
    /// Moves the running statistics with which [`Method::predict`] normalises by `share`, in (0, 1],
    /// towards those of these images `[N, C, H, W]` over all ranks.
    fn adapt_statistics(&self, image: &Tensor, share: f64) -> Result<()>;
    /// Everything to save, restore, broadcast and compare; the first one predicts.
    fn learners(&self) -> Vec<&Learner>;
    /// The same, for restoring.
    fn learners_mut(&mut self) -> Vec<&mut Learner>;
}

/// Runs one iteration on every micro-batch of a step, one after the other.
pub fn step_in_parts(
    method: &mut dyn Method,
    batches: &[Batch],
    cx: &mut StepContext<'_>,
) -> Result<()> {
    let samples: usize = batches.iter().map(|batch| batch.global_size).sum();
    cx.count_annotated_pixels(batches);
    for (number, batch) in batches.iter().enumerate() {
        cx.enter(MicroBatch {
            share: batch.global_size as f64 / samples.max(1) as f64,
            is_first: number == 0,
            is_last: number + 1 == batches.len(),
        });
        method.step(batch, cx)?;
    }
    Ok(())
}
