//! CMC: CT and MR volumes of different patients share one network, which also learns from unlabelled ones that both
//! modalities mean and show the same.
//!
//! Zhou et al., MICCAI 2024; what is computed follows med-air/CMC at cb8dd11, where unlabelled volumes send no gradient.
//! Here they do, and the network learns to predict one modality without the other.

mod params;

use super::{Asked, Passes, Recipe, Setup, probabilities};
use crate::data::batch::Batch;
use crate::data::samples::Samples;
use crate::data::stream::{MAIN, Select, StreamSpec};
use crate::error::{Failure, Result};
use crate::losses::cross_modality::{
    Rows, anatomical_similarity, dice_cross_entropy, semantic_inconsistency,
};
use crate::native::GroupSum;
use crate::nets::Pass;
use crate::nets::cross_modality::{CrossModality, FusedWith, Seen};
use crate::train::learner::Learner;
use crate::train::point::StepPoint;
use crate::train::{ForwardMode, Method, Objective, StepContext, Weight};
pub use params::Params;
use params::{Unlabelled, progress};
use tch::{Device, Tensor};

/// The stream of annotated MR volumes; those of CT are the main one.
pub const MR: &str = "mr";
/// The stream of unlabelled CT volumes.
pub const CT_UNLABELLED: &str = "ct_unlabelled";
/// The stream of unlabelled MR volumes.
pub const MR_UNLABELLED: &str = "mr_unlabelled";

/// The method with its network.
pub struct Cmc {
    segmenter: Learner,
    net: CrossModality,
    passes: Passes,
    params: Params,
}

impl Recipe for Cmc {
    const NAME: &'static str = "cmc";
    const SUMMARY: &'static str =
        "two modalities share a network, and unlabelled volumes make them agree";
    const PAPER: &'static str = "Zhou et al., MICCAI 2024; code: med-air/CMC";
    const STREAMS: &'static [StreamSpec] = &[
        StreamSpec::new(MAIN, Select::Annotated).of("ct"),
        StreamSpec::new(MR, Select::Annotated).of("mr"),
        StreamSpec::new(CT_UNLABELLED, Select::Unlabelled).of("ct"),
        StreamSpec::new(MR_UNLABELLED, Select::Unlabelled).of("mr"),
    ];
    const IN_VOLUMES: bool = true;
    type Params = Params;

    fn refuse(_params: &Params, asked: &Asked<'_>) -> Result<()> {
        Params::refuse_samples(asked.sampling.extent())
    }

    fn refuse_images(_params: &Params, channels: usize) -> Result<()> {
        if (1..=2).contains(&channels) {
            return Ok(());
        }
        let message = format!(
            "`cmc` takes volumes of one channel, or a pair of CT and MR on one grid as two, these have {channels}"
        );
        Err(Failure::usage(message).hint("`scrimp methods` lists the others"))
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        Params::refuse_samples(setup.sample)?;
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            CrossModality::new(scope, params.width, setup.classes)
        })?;
        Ok(Self { segmenter, net, passes: setup.passes.clone(), params })
    }
}

impl Cmc {
    /// With what features are fused in a step.
    fn fused_with(&self, point: &StepPoint) -> FusedWith {
        let drawn = point.key("alone").draws().uniform();
        if drawn < self.params.alone { FusedWith::Itself } else { FusedWith::Partner }
    }

    /// What the network makes of samples of CT and of MR.
    fn look(
        &self,
        purpose: &str,
        samples: [&Samples; 2],
        cx: &StepContext<'_>,
    ) -> Result<[Seen; 2]> {
        let pass = self.passes.train(purpose, samples[0], cx);
        let images = samples.map(|samples| &samples.image);
        self.net.forward(images, self.fused_with(cx.point()), &pass)
    }

    /// The same of unlabelled samples, with gradient or as released without.
    fn look_at_unlabelled(&self, batch: &Batch, cx: &StepContext<'_>) -> Result<[Seen; 2]> {
        let samples = [batch.of(CT_UNLABELLED)?, batch.of(MR_UNLABELLED)?];
        let look = || self.look("unlabelled", samples, cx);
        if self.params.unlabelled == Unlabelled::Gradient { look() } else { tch::no_grad(look) }
    }

    /// Adds what unlabelled samples are asked to agree in.
    fn with_consistency(
        &self,
        objective: Objective,
        [ct, mr]: &[Seen; 2],
        batch: &Batch,
        cx: &StepContext<'_>,
    ) -> Objective {
        let (group, samples, device) = (cx.group(), batch.global_size, ct.logits.device());
        let [semantic, anatomical] = self.consistency_weights(device, cx);
        let features = [&ct.features, &mr.features];
        let is_released = self.params.unlabelled == Unlabelled::AsReleased;
        let rows = if is_released { Rows::Consecutive } else { Rows::Channels };
        objective
            .term("semantic_consistency", semantic, || {
                semantic_inconsistency(features, rows, samples, group)
            })
            .term("anatomical_consistency", anatomical, || {
                let similarity = |maps: [&Tensor; 2], group: &dyn GroupSum| {
                    anatomical_similarity(maps, samples, group)
                };
                if is_released {
                    return similarity([&ct.logits, &mr.logits], group);
                }
                let found = [ct, mr].map(|seen| probabilities(&seen.logits));
                1.0 - similarity(found.each_ref(), group)
            })
    }

    /// Those of both consistencies, semantic first; one grows over the run, the other falls.
    fn consistency_weights(&self, device: Device, cx: &StepContext<'_>) -> [Weight; 2] {
        let params = self.params.clone();
        let weights =
            cx.numbers().numbers(device, move |now| params.weights_at(progress(now)).to_vec());
        let of = |base: f64, number: i64| {
            if base == 0.0 { Weight::Fixed(0.0) } else { Weight::Varying(weights.get(number)) }
        };
        [of(self.params.semantic_consistency, 0), of(self.params.anatomical_consistency, 1)]
    }

    /// Logits of each modality of a pair `[N, 2, D, H, W]`, or of one alone, `[N, 1, D, H, W]`.
    fn segment(&self, image: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        if image.size().get(1) != Some(&2) {
            return Ok(vec![self.net.segment(image, pass)?]);
        }
        let images = [0, 1].map(|channel| image.narrow(1, channel, 1));
        let seen = self.net.forward(images.each_ref(), FusedWith::Partner, pass)?;
        Ok(seen.into_iter().map(|seen| seen.logits).collect())
    }
}

impl Method for Cmc {
    fn form(&self, point: &StepPoint) -> Option<u32> {
        let is_alone = self.fused_with(point) == FusedWith::Itself;
        Some(2 * u32::from(is_alone) + u32::from(self.params.looks_at_unlabelled(point)))
    }

    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let annotated = [batch.main(), batch.of(MR)?];
        let seen = self.look("annotated", annotated, cx)?;
        let of = |modality: usize| {
            let (logits, annotation) = (&seen[modality].logits, &annotated[modality].annotation);
            dice_cross_entropy(logits, annotation, batch.global_size, cx.group())
        };
        let objective =
            Objective::new().term("dice_ce_ct", 0.5, || of(0)).term("dice_ce_mr", 0.5, || of(1));
        let objective = if self.params.looks_at_unlabelled(cx.point()) {
            let seen = self.look_at_unlabelled(batch, cx)?;
            self.with_consistency(objective, &seen, batch, cx)
        } else {
            objective
        };
        self.segmenter.update(objective, cx)
    }

    fn forward(&self, image: &Tensor, mode: ForwardMode) -> Result<Tensor> {
        let found = self.segment(image, &self.passes.of(mode))?;
        let sum = found.iter().map(probabilities).sum::<Tensor>();
        Ok(if found.len() > 1 { sum / found.len() as f64 } else { sum })
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter]
    }
}
