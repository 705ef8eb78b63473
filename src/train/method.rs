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
    /// Class probabilities `[N, classes, H, W]` or `[N, classes, D, H, W]`, in f32 or wider, of images with
    /// as many axes; the mean over the networks of a method that predicts with several. Gradients are off.
    fn forward(&self, image: &Tensor, mode: ForwardMode) -> Result<Tensor>;
    /// What each decoder of a network that predicts says of images, as [`Method::forward`] in evaluation: for
    /// what only sure predictions are taken from. A method with one decoder says it once.
    fn opinions(&self, image: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![self.forward(image, ForwardMode::Evaluation)?])
    }
    /// Everything to save, restore, broadcast and compare; the first one predicts.
    fn learners(&self) -> Vec<&Learner>;
    /// What the method makes beside its prediction of slices `[N, C, H, W]` of a held-out case and their
    /// annotation, `[N, H, W]` with classes and [`crate::data::IGNORE`], by name, for people to look at.
    /// Names have no commas. A case that nobody annotated comes with its dense truth.
    fn pictures(
        &self,
        _image: &Tensor,
        _annotation: &Tensor,
    ) -> Result<Vec<(&'static str, Drawing)>> {
        Ok(Vec::new())
    }
    /// [`Method::forward`] with running statistics.
    fn predict(&self, image: &Tensor) -> Result<Tensor> {
        tch::no_grad(|| self.forward(image, ForwardMode::Evaluation))
    }
    /// Moves the running statistics with which [`Method::predict`] normalises by `share`, in (0, 1],
    /// towards those of these images over all ranks.
    fn adapt_statistics(&self, image: &Tensor, share: f64) -> Result<()> {
        tch::no_grad(|| self.forward(image, ForwardMode::Statistics { share })).map(drop)
    }
}

/// What a method makes of slices, to be looked at.
#[derive(Debug)]
pub enum Drawing {
    /// `[N, C, H, W]` with intensities as those of the slices.
    Intensities(Tensor),
    /// `[N, C, H, W]` in [0, 1].
    Shares(Tensor),
    /// Classes `[N, H, W]`, [`crate::data::IGNORE`] where there is none.
    Classes(Tensor),
}

/// For what the networks that predict run outside of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ForwardMode {
    /// For their prediction, normalised by running statistics.
    Evaluation,
    /// For the statistics of the images over all ranks, towards which the running ones move.
    Statistics {
        /// How far, in (0, 1].
        share: f64,
    },
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
