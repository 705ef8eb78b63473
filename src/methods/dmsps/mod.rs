//! DMSPS: two decoders on one encoder, and their randomly weighted mean is a soft label for both.
//!
//! Han et al., Medical Image Analysis 2024, 103274; what is computed follows HiLab-git/DMSPS at 89fe065: its
//! original scripts, and where `network` and `warm_up_steps` say so its newer form on `PyMIC`. Its second stage is
//! a run of this method on annotation that `scrimp prepare pseudo-labels --uncertainty` has expanded.

mod network;
mod params;

use super::{
    Asked, Passes, Recipe, Setup, annotated_cross_entropy, channels_seen, kept_channels,
    probabilities, weighted_mean,
};
use crate::data::batch::Batch;
use crate::data::samples::Samples;
use crate::error::Result;
use crate::losses::consistency::soft_cross_entropy;
use crate::nets::topology::Topology;
use crate::random::Key;
use crate::train::learner::Learner;
use crate::train::point::StepPoint;
use crate::train::{ForwardMode, Method, Objective, StepContext, Weight};
use network::Net;
pub use params::Params;
use params::{Channels, Network, Softmax};
use tch::{Device, Tensor};

/// The method with its network.
pub struct Dmsps {
    segmenter: Learner,
    net: Net,
    /// Of the levels of features, finest first.
    channels: Vec<i64>,
    /// For what is drawn outside of steps.
    key: Key,
    passes: Passes,
    params: Params,
}

/// What is random in one iteration, beside dropout.
pub struct Chance {
    /// For each level, finest first, the channels that the auxiliary decoder sees: `[N, C]` of 0 and 1. None: all
    /// of them, as they are.
    pub kept: Option<Vec<Tensor>>,
    /// Share of the main decoder in the pseudo label: 0-dimensional.
    pub share: Tensor,
}

impl Recipe for Dmsps {
    const NAME: &'static str = "dmsps";
    const SUMMARY: &'static str =
        "two decoders, taught by their randomly weighted mean; in two stages";
    const PAPER: &'static str = "Han et al., MedIA 2024; code: HiLab-git/DMSPS";
    const IN_VOLUMES: bool = true;
    type Params = Params;

    fn refuse(params: &Params, asked: &Asked<'_>) -> Result<()> {
        params.refuse_samples(asked.sampling.extent())
    }

    fn refuse_lacking_classes(_params: &Params) -> Result<()> {
        Ok(())
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        params.refuse_samples(setup.sample)?;
        let learner = params.learner;
        let (segmenter, (net, channels)) =
            Learner::new("segmenter", learner, setup.learner, |scope| {
                let ends = [setup.channels, setup.classes];
                let topology = match params.network {
                    Network::Original if setup.sample[0] > 1 => {
                        return Net::volumetric(scope, ends);
                    }
                    Network::Original => Topology::published(),
                    Network::Pymic => Topology::pymic(),
                    Network::Planned => Topology::of_samples(setup.sample, setup.spacing_mm),
                };
                Net::shaped(scope, ends, &topology)
            })?;
        let (key, passes) = (setup.learner.key.purpose("dmsps"), setup.passes.clone());
        Ok(Self { segmenter, net, channels, key, passes, params })
    }
}

impl Dmsps {
    /// One iteration with given chance.
    pub fn iterate(
        &mut self,
        batch: &Batch,
        chance: &Chance,
        cx: &mut StepContext<'_>,
    ) -> Result<()> {
        let samples = batch.main();
        let pass = self.passes.train("main", samples, cx);
        let logits = self.net.both(&samples.image, &pass, chance.kept.as_deref())?;
        let found = logits.each_ref().map(probabilities);
        let pseudo = weighted_mean(&found, &chance.share);
        let compared = match self.params.softmax {
            Softmax::Double => &found,
            Softmax::Single => &logits,
        };
        let (total, group) = (batch.global_size, cx.group());
        let ce = |logits: &Tensor| annotated_cross_entropy(logits, samples, cx);
        let soft = |compared: &Tensor| soft_cross_entropy(compared, &pseudo, total, group);
        let annotated = self.params.partial_ce / 2.0;
        let pseudo_weight = self.pseudo_weight(samples.image.device(), cx);
        let objective = Objective::new()
            .term("partial_ce_main", annotated, || ce(&logits[0]))
            .term("partial_ce_auxiliary", annotated, || ce(&logits[1]))
            .term("pseudo_ce_main", &pseudo_weight, || soft(&compared[0]))
            .term("pseudo_ce_auxiliary", &pseudo_weight, || soft(&compared[1]));
        self.segmenter.update(objective, cx)
    }

    /// Of each decoder; it may grow over the run.
    fn pseudo_weight(&self, device: Device, cx: &StepContext<'_>) -> Weight {
        if self.params.warm_up_steps == 0 || self.params.pseudo_ce == 0.0 {
            return Weight::Fixed(self.params.pseudo_ce / 2.0);
        }
        let params = self.params.clone();
        let of_step = move |now: &StepPoint| params.pseudo_ce_at(now.step) / 2.0;
        Weight::Varying(cx.numbers().number(device, of_step))
    }

    fn chance(&self, samples: &Samples, cx: &StepContext<'_>) -> Chance {
        let kept = channels_seen(&self.channels, samples, cx);
        let share = self.params.share;
        let share = cx.numbers().number(samples.image.device(), move |point| {
            share.of(point.key("share").draws().uniform())
        });
        Chance { kept: Some(kept), share }
    }

    /// The half of the channels that the auxiliary decoder always sees outside of training: `[1, C]`.
    fn evaluation_half(&self, device: Device) -> Vec<Tensor> {
        let of_level = |(level, &channels): (usize, &i64)| {
            let kept: Vec<f64> = kept_channels(self.key.number(level as u64), channels).collect();
            Tensor::from_slice(&kept).view([1, channels]).to_device(device)
        };
        self.channels.iter().enumerate().map(of_level).collect()
    }
}

impl Method for Dmsps {
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

    fn opinions(&self, image: &Tensor) -> Result<Vec<Tensor>> {
        let kept = match self.params.evaluation_channels {
            Channels::All => None,
            Channels::Half => Some(self.evaluation_half(image.device())),
        };
        let pass = self.passes.of(ForwardMode::Evaluation);
        let logits = self.net.both(image, &pass, kept.as_deref())?;
        Ok(logits.each_ref().map(probabilities).into())
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter]
    }
}
