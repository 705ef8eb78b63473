//! Partial cross-entropy: the loss where somebody annotated, and terms of the whole image beside it.
//!
//! The baselines of the scribble literature, in the form of HiLab-git/WSL4MIS at a594da8: alone
//! `code/train_weakly_supervised_pCE_2D.py`, with one regulariser its siblings. With dense annotation
//! and the Dice term it is full supervision, the upper bound (`train_fully_supervised_2D.py`).

mod params;

use super::{Asked, Passes, Recipe, Setup, annotated_cross_entropy, probabilities};
use crate::data::batch::Batch;
use crate::error::Result;
use crate::losses::contour::contour_length;
use crate::losses::entropy::mean_entropy;
use crate::losses::gated_crf::gated_crf;
use crate::losses::intensity_variance::intensity_variance;
use crate::losses::mumford_shah::mumford_shah;
use crate::losses::{Masking, partial_dice};
use crate::nets::topology::Topology;
use crate::nets::unet::UNet;
use crate::train::learner::Learner;
use crate::train::point::StepPoint;
use crate::train::{ForwardMode, Method, Objective, StepContext, Weight};
pub use params::Params;
use std::cell::LazyCell;
use tch::{Device, Tensor};

/// The method.
pub struct PartialCe {
    segmenter: Learner,
    net: UNet,
    passes: Passes,
    params: Params,
}

impl Recipe for PartialCe {
    const NAME: &'static str = "partial-ce";
    const SUMMARY: &'static str = "cross-entropy and Dice on annotated pixels, scribbled or dense, with or without a regulariser";
    const PAPER: &'static str = "Lin et al., CVPR 2016; code: HiLab-git/WSL4MIS";
    const IN_VOLUMES: bool = true;
    type Params = Params;

    fn refuse(params: &Params, _asked: &Asked<'_>) -> Result<()> {
        params.check()
    }

    fn refuse_images(params: &Params, channels: usize) -> Result<()> {
        if channels > 1 { params.refuse_colour() } else { Ok(()) }
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        let topology = Topology::of_samples(setup.sample, setup.spacing_mm);
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            UNet::shaped(scope, setup.channels, setup.classes, &topology)
        })?;
        Ok(Self { segmenter, net, passes: setup.passes.clone(), params })
    }
}

impl PartialCe {
    /// It grows over the run.
    fn intensity_variance_weight(&self, device: Device, cx: &StepContext<'_>) -> Weight {
        let term = self.params.intensity_variance.clone();
        if term.weight == 0.0 {
            return Weight::Fixed(0.0);
        }
        Weight::Varying(cx.numbers().number(device, move |now| term.weight_at(now.step)))
    }

    /// Every term that has a weight; `logits` is `[N, C, H, W]` of the batch's main samples, or
    /// `[N, C, D, H, W]` of volumes.
    fn objective(&self, logits: &Tensor, batch: &Batch, cx: &StepContext<'_>) -> Result<Objective> {
        let params = &self.params;
        let (samples, total, group) = (batch.main(), batch.global_size, cx.group());
        let (image, annotation) = (&samples.image, &samples.annotation);
        let probabilities = LazyCell::new(|| logits.softmax(1, logits.kind()));
        let objective = Objective::new()
            .term("partial_ce", params.cross_entropy, || {
                annotated_cross_entropy(logits, annotation, cx)
            })
            .term("partial_dice", params.dice, || {
                partial_dice(&probabilities, annotation, Masking::PerSample, group)
            })
            .term("entropy", params.entropy, || mean_entropy(&probabilities, total, group))
            .term("contour_length", params.contour_length.weight, || {
                let contours = params.contour_length.contours;
                let (places, of_step) = (&samples.positions, cx.samples_of_step(total));
                cx.summand(contour_length(&probabilities, contours, places, of_step, group))
            })
            .term("mumford_shah", params.mumford_shah.weight, || {
                let energy = params.mumford_shah.energy;
                cx.summand(mumford_shah(&probabilities, image, energy, group))
            })
            .term(
                "intensity_variance",
                self.intensity_variance_weight(logits.device(), cx),
                || {
                    let sign = params.intensity_variance.sign;
                    intensity_variance(&probabilities, image, sign, total, group)
                },
            );
        if params.gated_crf.weight == 0.0 {
            return Ok(objective);
        }
        let energy = gated_crf(&probabilities, image, &params.gated_crf.field(), total, group)?;
        Ok(objective.term("gated_crf", params.gated_crf.weight, || energy))
    }
}

impl Method for PartialCe {
    fn form(&self, _point: &StepPoint) -> Option<u32> {
        Some(0)
    }

    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let samples = batch.main();
        let pass = self.passes.train("main", samples, cx);
        let logits = self.net.forward(&samples.image, &pass)?;
        let objective = self.objective(&logits, batch, cx)?;
        self.segmenter.update(objective, cx)
    }

    fn forward(&self, image: &Tensor, mode: ForwardMode) -> Result<Tensor> {
        let logits = self.net.forward(image, &self.passes.of(mode))?;
        Ok(probabilities(&logits))
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter]
    }
}
