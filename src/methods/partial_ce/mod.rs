//! Partial cross-entropy: the loss where somebody annotated, and terms of the whole image beside it.
//!
//! The baselines of the scribble literature, in the form of HiLab-git/WSL4MIS at a594da8: alone
//! `code/train_weakly_supervised_pCE_2D.py`, with one regulariser its siblings. With dense annotation
//! and the Dice term it is full supervision, the upper bound (`train_fully_supervised_2D.py`). With
//! a mixing it learns from mixed samples alone, as the tables of the field compare them with methods of mixing.

mod mixed;
mod params;

use super::{
    Asked, Passes, Recipe, Setup, annotated_cross_entropy, drawings_of_mix, probabilities,
};
use crate::data::batch::Batch;
use crate::data::samples::Samples;
use crate::error::{Failure, Result};
use crate::losses::contour::contour_length;
use crate::losses::entropy::mean_entropy;
use crate::losses::gated_crf::gated_crf;
use crate::losses::intensity_variance::intensity_variance;
use crate::losses::looked_for::merged_probabilities;
use crate::losses::mixed::soft_partial_cross_entropy;
use crate::losses::mumford_shah::mumford_shah;
use crate::losses::{Masking, partial_cross_entropy, partial_dice};
use crate::native::Alone;
use crate::nets::Pass;
use crate::nets::topology::Topology;
use crate::nets::unet::UNet;
use crate::random::Key;
use crate::train::learner::Learner;
use crate::train::point::{StepNumbers, StepPoint};
use crate::train::{Drawing, ForwardMode, Method, Objective, StepContext, Weight, saliency};
use mixed::{Annotated, Draws, Mixed, mixed};
use params::Mixing;
pub use params::Params;
use std::cell::LazyCell;
use std::sync::Arc;
use tch::{Device, Tensor};

/// The key of the mixes that are shown: one whose draws leave something of both slices to be seen.
const SHOWN: Key = Key::new(38);

/// The method.
pub struct PartialCe {
    segmenter: Learner,
    net: UNet,
    passes: Passes,
    classes: i64,
    params: Params,
}

impl Recipe for PartialCe {
    const NAME: &'static str = "partial-ce";
    const SUMMARY: &'static str = "cross-entropy and Dice on annotated pixels, scribbled or dense, with or without a regulariser";
    const PAPER: &'static str = "Lin et al., CVPR 2016; code: HiLab-git/WSL4MIS";
    const IN_VOLUMES: bool = true;
    type Params = Params;

    fn refuse(params: &Params, asked: &Asked<'_>) -> Result<()> {
        params.check()?;
        params.mixing.name().map_or(Ok(()), |name| refuse_to_mix(name, params.mixing, asked))
    }

    fn refuse_images(params: &Params, channels: usize) -> Result<()> {
        if channels > 1 { params.refuse_colour() } else { Ok(()) }
    }

    fn refuse_lacking_classes(_params: &Params) -> Result<()> {
        Ok(())
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        let topology = Topology::of_samples(setup.sample, setup.spacing_mm);
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            UNet::shaped(scope, setup.channels, setup.classes, &topology)
        })?;
        let (passes, classes) = (setup.passes.clone(), setup.classes);
        Ok(Self { segmenter, net, passes, classes, params })
    }
}

/// Refuses to mix what cannot be mixed.
fn refuse_to_mix(name: &str, mixing: Mixing, asked: &Asked<'_>) -> Result<()> {
    if asked.in_micro_batches {
        let message = format!(
            "`mixing = \"{name}\"` takes no micro-batches: samples are mixed with any of their batch"
        );
        return Err(Failure::usage(message).hint(
            "use `--set train.micro_batches=1` with a smaller `train.batch_size`, or more processes",
        ));
    }
    if mixing == Mixing::Puzzle && asked.sampling.dims() == 3 {
        let message =
            format!("puzzles are made of images, and these samples are {}", asked.sampling);
        return Err(Failure::usage(message).hint(
            "cut samples of one slice, or use `mixup`, `cutmix` or `cutout`, which mix volumes too",
        ));
    }
    Ok(())
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
    ///
    /// What is compared with annotation takes classes that nobody looked for in a sample for its background. All other
    /// terms are about what a prediction is like, which shows every class wherever it is.
    fn objective(&self, logits: &Tensor, batch: &Batch, cx: &StepContext<'_>) -> Result<Objective> {
        let params = &self.params;
        let (samples, total, group) = (batch.main(), batch.global_size, cx.group());
        let (image, annotation) = (&samples.image, &samples.annotation);
        let probabilities = LazyCell::new(|| logits.softmax(1, logits.kind()));
        let objective = Objective::new()
            .term("partial_ce", params.cross_entropy, || {
                annotated_cross_entropy(logits, samples, cx)
            })
            .term("partial_dice", params.dice, || {
                let merged = merged_probabilities(&probabilities, samples.looked_for.as_ref());
                partial_dice(&merged, annotation, Masking::PerSample, group)
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

    /// What a step trains on where samples are mixed, each with any of all ranks.
    fn mixed(&self, batch: &Batch, cx: &StepContext<'_>) -> Result<Mixed> {
        let (samples, samples_of_all) = (batch.main(), batch.global_size);
        let is_puzzle = self.params.mixing == Mixing::Puzzle;
        let own = Annotated {
            image: samples.image.shallow_clone(),
            annotation: samples.annotation.shallow_clone(),
            looked_for: samples.looked_for.as_ref().map(Tensor::shallow_clone),
            saliency: is_puzzle.then(|| self.saliency(samples, cx)).transpose()?,
        };
        let draws = Draws { numbers: cx.numbers(), positions: &samples.positions };
        let partners = if self.params.mixing == Mixing::Cutout {
            None
        } else {
            let joined = |own: &Tensor| cx.joined(own, &samples.positions, samples_of_all);
            let all = joined(&own.stacked())?;
            let places = draws.partners(samples_of_all, &all);
            let partners =
                Annotated::from_stacked(&all.index_select(0, &places), own.image.size()[1]);
            let looked_for = own.looked_for.as_ref().map(joined).transpose()?;
            let looked_for = looked_for.map(|flags| flags.index_select(0, &places));
            Some(Annotated { looked_for, ..partners })
        };
        mixed([&own, partners.as_ref().unwrap_or(&own)], &self.params, self.classes, draws)
    }

    /// How much the loss of plain samples depends on each of their pixels, in a training pass of its own.
    fn saliency(&self, samples: &Samples, cx: &StepContext<'_>) -> Result<Tensor> {
        let image = samples.image.detach().set_requires_grad(true);
        let pass = self.passes.train("saliency", samples, cx);
        let logits = self.net.forward(&image, &pass)?;
        let loss = annotated_cross_entropy(&logits, samples, cx);
        Ok(root_mean_square(&cx.saliency(&loss, &image)?))
    }
}

/// Over the channels of `[N, C, H, W]`: `[N, 1, H, W]`.
fn root_mean_square(gradient: &Tensor) -> Tensor {
    gradient.square().mean_dim([1i64].as_slice(), true, gradient.kind()).sqrt()
}

impl Method for PartialCe {
    fn form(&self, _point: &StepPoint) -> Option<u32> {
        // A puzzle is solved on the host.
        (self.params.mixing != Mixing::Puzzle).then_some(0)
    }

    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let samples = batch.main();
        if self.params.mixing != Mixing::None {
            let mixed = self.mixed(batch, cx)?;
            let pass = self.passes.train("main", samples, cx);
            let logits = self.net.forward(&mixed.image, &pass)?;
            let objective = Objective::new().term("partial_ce", self.params.cross_entropy, || {
                let (logits, target) = mixed.compared(&logits);
                soft_partial_cross_entropy(&logits, &target, cx.group())
            });
            return self.segmenter.update(objective, cx);
        }
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

    fn pictures(
        &self,
        image: &Tensor,
        annotation: &Tensor,
    ) -> Result<Vec<(&'static str, Drawing)>> {
        let saliency = match self.params.mixing {
            Mixing::None => return Ok(Vec::new()),
            Mixing::Puzzle => {
                let image = image.detach().set_requires_grad(true);
                // Running statistics do not move, and there is a gradient, unlike in an evaluation.
                let pass = Pass::Statistics { group: Arc::new(Alone), share: 0.0 };
                let logits = self.net.forward(&image, &pass)?;
                let loss = partial_cross_entropy(&logits, annotation, &Alone);
                Some(root_mean_square(&saliency(&loss, &image)?))
            }
            _ => None,
        };
        tch::no_grad(|| {
            let (image, annotation) = (image.shallow_clone(), annotation.shallow_clone());
            let own = Annotated { image, annotation, looked_for: None, saliency };
            // Each with the slice before it.
            let before = own.stacked().roll([1i64].as_slice(), [0i64].as_slice());
            let partners = Annotated::from_stacked(&before, own.image.size()[1]);
            let numbers = StepNumbers::of(StepPoint::new(1, 1, SHOWN));
            let positions: Vec<u64> = (0..own.image.size()[0].cast_unsigned()).collect();
            let draws = Draws { numbers: &numbers, positions: &positions };
            let mixed = mixed([&own, &partners], &self.params, self.classes, draws)?;
            Ok(drawings_of_mix(&mixed.image, &mixed.share, &mixed.target))
        })
    }
}
