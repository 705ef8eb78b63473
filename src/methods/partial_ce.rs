//! Partial cross-entropy: the loss where somebody annotated, nothing elsewhere.
//!
//! The baseline of the scribble literature, in the form of HiLab-git/WSL4MIS
//! `code/train_weakly_supervised_pCE_2D.py` at a594da8. With dense annotation and the Dice term it
//! is full supervision, the upper bound (`train_fully_supervised_2D.py`).

use super::{Passes, Recipe, Setup};
use crate::data::batch::Batch;
use crate::error::{Failure, Result};
use crate::losses::{Masking, partial_cross_entropy, partial_dice};
use crate::nets::Pass;
use crate::nets::unet::UNet;
use crate::train::learner::{Learner, LearnerConfig};
use crate::train::{Method, Objective, StepContext};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// `[method.params]` of `partial-ce`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// Weight of the cross-entropy over annotated pixels.
    #[serde(default = "one")]
    cross_entropy: f64,
    /// Weight of the Dice loss over annotated pixels.
    #[serde(default)]
    dice: f64,
    learner: LearnerConfig,
}

fn one() -> f64 {
    1.0
}

pub(super) struct PartialCe {
    segmenter: Learner,
    net: UNet,
    passes: Passes,
    params: Params,
}

impl Recipe for PartialCe {
    const NAME: &'static str = "partial-ce";
    const SUMMARY: &'static str = "cross-entropy and Dice on annotated pixels, scribbled or dense";
    const PAPER: &'static str = "Lin et al., CVPR 2016; code: HiLab-git/WSL4MIS";
    type Params = Params;

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        if params.cross_entropy <= 0.0 && params.dice <= 0.0 {
            return Err(Failure::usage(
                "`cross_entropy` and `dice` are both 0: nothing to minimise",
            ));
        }
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            UNet::new(scope, 1, setup.classes)
        })?;
        Ok(Self { segmenter, net, passes: setup.passes.clone(), params })
    }
}

impl Method for PartialCe {
    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let samples = batch.main();
        let pass = self.passes.train("main", samples, cx);
        let logits = self.net.forward(&samples.image, &pass)?; // [N, C, H, W]
        let annotation = &samples.annotation;
        let objective = Objective::new()
            .term("partial_ce", self.params.cross_entropy, || {
                partial_cross_entropy(&logits, annotation, cx.group())
            })
            .term("partial_dice", self.params.dice, || {
                let probabilities = logits.softmax(1, logits.kind());
                partial_dice(&probabilities, annotation, Masking::PerSample, cx.group())
            });
        self.segmenter.update(objective, cx)
    }

    fn predict(&self, image: &Tensor) -> Result<Tensor> {
        tch::no_grad(|| self.net.forward(image, &Pass::Evaluate))
    }

    fn adapt_statistics(&self, image: &Tensor, share: f64) -> Result<()> {
        let pass = self.passes.statistics(share);
        tch::no_grad(|| self.net.forward(image, &pass)).map(drop)
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter]
    }

    fn learners_mut(&mut self) -> Vec<&mut Learner> {
        vec![&mut self.segmenter]
    }
}
