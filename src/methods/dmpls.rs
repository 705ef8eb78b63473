//! DMPLS: two decoders on one encoder, and the class of their randomly weighted mean teaches both.
//!
//! Luo et al., MICCAI 2022, arXiv 2203.02106; what is computed follows HiLab-git/WSL4MIS
//! `code/train_weakly_supervised_ours.py` at a594da8. With a fixed share of one half it is the
//! ablation of the paper's table 2.

use super::{
    Passes, Recipe, Setup, annotated_cross_entropy, channels_seen, probabilities, weighted_mean,
};
use crate::data::batch::Batch;
use crate::data::samples::Samples;
use crate::error::Result;
use crate::losses::{SMOOTH, dice};
use crate::mixing::label_map;
use crate::nets::unet::{CHANNELS, UNetCct, channel_dropout};
use crate::train::learner::{Learner, LearnerConfig};
use crate::train::numbers;
use crate::train::point::StepPoint;
use crate::train::{ForwardMode, Method, Objective, StepContext};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Keeps the share of the main decoder above 0, as released.
const LEAST_SHARE: f64 = 1e-10;

/// `[method.params]` of `dmpls`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Weight of the cross-entropy over annotated pixels, mean of both decoders; above 0.
    #[serde(default = "one", deserialize_with = "numbers::positive")]
    partial_ce: f64,
    /// Weight of the Dice loss against the pseudo label, mean of both decoders.
    #[serde(default = "half", deserialize_with = "numbers::weight")]
    pseudo_dice: f64,
    /// Share of the main decoder in the mean that makes the pseudo label.
    #[serde(default)]
    share: Share,
    /// The network's learner.
    learner: LearnerConfig,
}

/// How much the main decoder counts in a pseudo label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Share {
    /// Anew for each step, uniform in (0, 1): the published method.
    #[default]
    Random,
    /// One half.
    Half,
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

/// The method with its network.
pub struct Dmpls {
    segmenter: Learner,
    net: UNetCct,
    passes: Passes,
    params: Params,
}

/// What is random in one iteration, beside dropout.
pub struct Chance {
    /// For each level, finest first, the channels that the auxiliary decoder sees: `[N, C]` of 0 and 1.
    pub kept: Vec<Tensor>,
    /// Share of the main decoder in the pseudo label, in (0, 1]: 0-dimensional.
    pub share: Tensor,
}

impl Recipe for Dmpls {
    const NAME: &'static str = "dmpls";
    const SUMMARY: &'static str =
        "two decoders, taught by the class of their randomly weighted mean";
    const PAPER: &'static str = "Luo et al., MICCAI 2022; code: HiLab-git/WSL4MIS";
    type Params = Params;

    fn refuse_lacking_classes(_params: &Params) -> Result<()> {
        Ok(())
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            UNetCct::new(scope, setup.channels, setup.classes)
        })?;
        Ok(Self { segmenter, net, passes: setup.passes.clone(), params })
    }
}

impl Dmpls {
    /// One iteration with given chance.
    pub fn iterate(
        &mut self,
        batch: &Batch,
        chance: &Chance,
        cx: &mut StepContext<'_>,
    ) -> Result<()> {
        let samples = batch.main();
        let pass = self.passes.train("main", samples, cx);
        let logits = self.net.forward(&samples.image, &pass, |level, features| {
            channel_dropout(features, &chance.kept[level])
        })?;
        let logits = [logits.0, logits.1];
        let probabilities = logits.each_ref().map(|logits| logits.softmax(1, logits.kind()));
        let pseudo = pseudo_label(&probabilities, &chance.share);
        let group = cx.group();
        let ce = |logits: &Tensor| annotated_cross_entropy(logits, samples, cx);
        // As released: its mask counts every pixel once for each sample.
        let smooth = SMOOTH / batch.global_size.max(1) as f64;
        let pse = |probabilities: &Tensor| dice(probabilities, &pseudo, smooth, group);
        let weights = [self.params.partial_ce / 2.0, self.params.pseudo_dice / 2.0];
        let objective = Objective::new()
            .term("partial_ce_main", weights[0], || ce(&logits[0]))
            .term("partial_ce_auxiliary", weights[0], || ce(&logits[1]))
            .term("pseudo_dice_main", weights[1], || pse(&probabilities[0]))
            .term("pseudo_dice_auxiliary", weights[1], || pse(&probabilities[1]));
        self.segmenter.update(objective, cx)
    }

    fn chance(&self, samples: &Samples, cx: &StepContext<'_>) -> Chance {
        let share = self.params.share;
        let kept = channels_seen(&CHANNELS, samples, cx);
        let share = cx.numbers().number(samples.image.device(), move |point| match share {
            Share::Random => point.key("share").draws().uniform() + LEAST_SHARE,
            Share::Half => 0.5,
        });
        Chance { kept, share }
    }
}

/// The class of `share` times the first plus the rest of the second: `[N, H, W]` from `[N, C, H, W]`.
pub fn pseudo_label(probabilities: &[Tensor; 2], share: &Tensor) -> Tensor {
    label_map(&weighted_mean(probabilities, share))
}

impl Method for Dmpls {
    fn form(&self, _point: &StepPoint) -> Option<u32> {
        Some(0)
    }

    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let chance = self.chance(batch.main(), cx);
        self.iterate(batch, &chance, cx)
    }

    fn forward(&self, image: &Tensor, mode: ForwardMode) -> Result<Tensor> {
        let logits = self.net.segment(image, &self.passes.of(mode))?;
        Ok(probabilities(&logits))
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter]
    }
}
