//! `CycleMix`: predictions have to agree with themselves over mixed, hidden and turned images.
//!
//! Zhang and Zhuang, CVPR 2022, arXiv 2203.01475; what is computed follows BWGZK/CycleMix at 7674830. Images are
//! mixed by `PuzzleMix` (Kim et al., ICML 2020). Partners are positions of the batch of all ranks.

mod chance;
mod params;

use super::{Asked, Passes, Recipe, Setup, cleaned, drawings_of_mix, probabilities, refuse_side};
use crate::data::batch::Batch;
use crate::error::Result;
use crate::losses::looked_for::merged_probabilities;
use crate::losses::mixed::{cosine_distance, partial_cross_entropy_of_probabilities};
use crate::losses::one_hot;
use crate::mixing::mixture::Mixture;
use crate::mixing::rotation::rotated;
use crate::mixing::{boxes, label_map};
use crate::native::Alone;
use crate::native::cuda::upload;
use crate::nets::Pass;
use crate::nets::unet::UNet;
use crate::nets::valid_unet::ValidUNet;
use crate::pseudo_labels::keep_main_regions;
use crate::random::Key;
use crate::train::learner::Learner;
use crate::train::point::StepPoint;
use crate::train::{Drawing, ForwardMode, Method, Objective, StepContext, saliency};
pub use chance::Chance;
use params::Network;
pub use params::Params;
use std::sync::Arc;
use tch::Tensor;

/// The key of the mixes that are shown.
const SHOWN: Key = Key::new(0);

/// The method with its network.
pub struct CycleMix {
    segmenter: Learner,
    net: Net,
    classes: i64,
    passes: Passes,
    params: Params,
}

/// The network that segments.
enum Net {
    Valid(ValidUNet),
    Plain(UNet),
}

impl Net {
    /// Class probabilities `[N, C, H, W]` of images `[N, channels, H, W]`.
    fn forward(&self, image: &Tensor, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Valid(net) => net.forward(image, pass),
            Self::Plain(net) => Ok(probabilities(&net.forward(image, pass)?)),
        }
    }
}

/// What an iteration made of this rank's samples.
#[derive(Debug)]
pub struct Iteration {
    /// How much the cross-entropy of plain images depends on each pixel, `[N, H, W]`.
    pub saliency: Tensor,
    /// The share of the own image in every pixel of the mix, `[N, 1, H, W]`.
    pub shares: Tensor,
    /// Mixed images before a part of them is hidden, `[N, channels, H, W]`.
    pub image: Tensor,
    /// Their labels, `[N, C, H, W]`: 0 in all classes where nobody annotated.
    pub labels: Tensor,
    /// The prediction of mixed images, turned back, `[N, C, H, W]`.
    pub prediction: Tensor,
    /// The largest regions of the prediction of plain images, `[N, H, W]`.
    pub regions: Tensor,
}

impl Recipe for CycleMix {
    const NAME: &'static str = "cyclemix";
    const SUMMARY: &'static str =
        "two images mixed by saliency, and predictions that agree over mixing, hiding and turning";
    const PAPER: &'static str = "Zhang and Zhuang, CVPR 2022; code: BWGZK/CycleMix";
    const IN_PATCHES: bool = false;
    const IN_MICRO_BATCHES: bool = false;
    type Params = Params;

    fn refuse(params: &Params, _asked: &Asked<'_>) -> Result<()> {
        params.check()
    }

    fn refuse_size(params: &Params, size: usize) -> Result<()> {
        match params.network {
            Network::ValidUnet => refuse_side("cyclemix", size, 4).map_err(|failure| {
                failure.hint(
                    "the small U-Net of the other methods: `--set method.params.network=unet`",
                )
            }),
            Network::Unet => refuse_side("cyclemix", size, 0),
        }
    }

    fn refuse_lacking_classes(_params: &Params) -> Result<()> {
        Ok(())
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        let Setup { channels, classes, .. } = *setup;
        let (segmenter, net) = Learner::new("segmenter", params.learner, setup.learner, |scope| {
            match params.network {
                Network::ValidUnet => Net::Valid(ValidUNet::new(scope, channels, classes)),
                Network::Unet => Net::Plain(UNet::new(scope, channels, classes)),
            }
        })?;
        Ok(Self { segmenter, net, classes, passes: setup.passes.clone(), params })
    }
}

/// The batch of all ranks as one of them sees it.
struct Everybody<'a> {
    cx: &'a StepContext<'a>,
    positions: &'a [u64],
    global_size: usize,
    /// Of all samples, `i64 [global]`.
    partners: Tensor,
    /// Positions of this rank's samples, `i64 [N]`.
    own: Tensor,
}

impl<'a> Everybody<'a> {
    fn of(batch: &'a Batch, chance: &Chance, cx: &'a StepContext<'a>) -> Self {
        let samples = batch.main();
        let numbers = |of: Vec<i64>| upload(&Tensor::from_slice(&of), samples.image.device());
        Self {
            cx,
            positions: &samples.positions,
            global_size: batch.global_size,
            partners: numbers(chance.partners.iter().map(|&partner| partner as i64).collect()),
            own: numbers(samples.positions.iter().map(|&position| position as i64).collect()),
        }
    }

    /// What every sample has, of what this rank's have: `[global, ...]` of `[N, ...]`.
    fn all(&self, own: &Tensor) -> Result<Tensor> {
        self.cx.joined(own, self.positions, self.global_size)
    }

    /// What the partner of each sample has, of what every sample has.
    fn partners(&self, all: &Tensor) -> Tensor {
        all.index_select(0, &self.partners)
    }

    /// What this rank's samples have, of what every sample has.
    fn own(&self, all: &Tensor) -> Tensor {
        all.index_select(0, &self.own)
    }

    /// What the partners of this rank's samples have, of what this rank's samples have.
    fn partners_of_own(&self, own: &Tensor) -> Result<Tensor> {
        Ok(self.own(&self.partners(&self.all(own)?)))
    }

    /// Cross-entropy of predictions of this rank's samples, a mean over all pixels of all ranks.
    fn cross_entropy(&self, prediction: &Tensor, labels: &Tensor) -> Tensor {
        let group = self.cx.group();
        partial_cross_entropy_of_probabilities(prediction, labels, self.global_size, group)
    }
}

/// What the network made of plain images.
struct Plain {
    /// Class probabilities, `[N, C, H, W]`.
    prediction: Tensor,
    cross_entropy: Tensor,
    labels: Tensor,
    saliency: Tensor,
}

/// Mixed images with what is known of them, and what the network made of them.
struct Mixed {
    mixture: Mixture,
    /// The mixture of labels and predictions.
    of_labels: Mixture,
    /// 0 in the hole of every sample of all ranks, else 1: `[global, 1, H, W]`.
    kept: Tensor,
    image: Tensor,
    labels: Tensor,
    /// What of the labels comes from the samples themselves, and what from their partners; none where all classes were
    /// looked for in all samples.
    apart: Option<[Known; 2]>,
    prediction: Tensor,
}

/// What is known of one of two samples that are mixed.
struct Known {
    /// `[N, C, H, W]`.
    labels: Tensor,
    /// `[N, C]`.
    looked_for: Tensor,
}

impl Mixed {
    /// Of the prediction with the labels, where images are shown.
    fn cross_entropy(&self, turn: &Turn, everybody: &Everybody<'_>) -> Tensor {
        let of = |prediction: &Tensor, labels: &Tensor| {
            // What a turn has lost is lost to the prediction too.
            let labels = labels * everybody.own(&self.kept);
            everybody.cross_entropy(prediction, &turn.back(&turn.forth(&labels)))
        };
        let Some(apart) = &self.apart else { return of(&self.prediction, &self.labels) };
        let terms = apart.iter().map(|Known { labels, looked_for }| {
            of(&merged_probabilities(&self.prediction, Some(looked_for)), labels)
        });
        terms.sum()
    }
}

impl CycleMix {
    /// How much the cross-entropy of images `[N, channels, H, W]` depends on each pixel, `[N, H, W]`: of this rank
    /// alone, as in training, and nothing moves.
    fn saliency_alone(&self, image: &Tensor, annotation: &Tensor) -> Result<Tensor> {
        let image = image.detach().set_requires_grad(true);
        let pass = Pass::Statistics { group: Arc::new(Alone), share: 0.0 };
        let prediction = self.net.forward(&image, &pass)?;
        let labels = one_hot(annotation, &prediction);
        let samples = image.size()[0] as usize;
        let loss = partial_cross_entropy_of_probabilities(&prediction, &labels, samples, &Alone);
        Ok(magnitude(&saliency(&loss, &image)?))
    }

    /// The mixture of labels and predictions, which is that of their images or leaves all patches in their places.
    fn of_labels(&self, mixture: &Mixture) -> Mixture {
        if self.params.transport_labels { mixture.shallow_clone() } else { mixture.in_place() }
    }

    /// One iteration with given chance.
    pub fn iterate(
        &mut self,
        batch: &Batch,
        chance: &Chance,
        cx: &mut StepContext<'_>,
    ) -> Result<Iteration> {
        let everybody = Everybody::of(batch, chance, cx);
        let image = (&batch.main().image + chance.shift).set_requires_grad(true);
        let plain = self.look(&image, batch, &everybody)?;
        let mixed = self.look_mixed(&image.detach(), &plain, (batch, chance), &everybody)?;
        let (objective, regions) = self.objective(&plain, &mixed, chance, &everybody)?;
        self.segmenter.update(objective, cx)?;
        Ok(Iteration {
            saliency: plain.saliency,
            shares: mixed.mixture.shares,
            image: mixed.image,
            labels: mixed.labels,
            prediction: mixed.prediction.detach(),
            regions,
        })
    }

    /// Plain images, and how their loss depends on them.
    ///
    /// The released code passes them twice, for the saliency and for the losses: with the same weights and the same
    /// numbers, but for the running statistics.
    fn look(&self, image: &Tensor, batch: &Batch, everybody: &Everybody<'_>) -> Result<Plain> {
        let samples = batch.main();
        let pass = self.passes.train("plain", samples, everybody.cx);
        let prediction =
            self.net.forward(image, &pass.moving(self.params.statistics_updates as i32))?;
        let labels = one_hot(&samples.annotation, &prediction);
        let merged = merged_probabilities(&prediction, samples.looked_for.as_ref());
        let cross_entropy = everybody.cross_entropy(&merged, &labels);
        let slope = everybody.cx.saliency(&cross_entropy, image)?;
        Ok(Plain { prediction, cross_entropy, labels, saliency: magnitude(&slope) })
    }

    /// Images mixed with those of their partners, hidden in part and turned; the prediction is turned back.
    fn look_mixed(
        &self,
        image: &Tensor,
        plain: &Plain,
        (batch, chance): (&Batch, &Chance),
        everybody: &Everybody<'_>,
    ) -> Result<Mixed> {
        let partners = everybody.partners_of_own(image)?;
        let saliency = [&plain.saliency, &everybody.partners_of_own(&plain.saliency)?];
        let settings = self.params.puzzle.settings();
        let mixture = Mixture::of([image, &partners], saliency, &settings, chance.draw)?;
        let of_labels = self.of_labels(&mixture);
        let partner_labels = everybody.partners_of_own(&plain.labels)?;
        let [of_own, of_partners] = of_labels.of_each([&plain.labels, &partner_labels]);
        let labels = &of_own + &of_partners;
        let apart = match &batch.main().looked_for {
            None => None,
            Some(own) => {
                let partners = everybody.partners_of_own(own)?;
                Some([
                    Known { labels: of_own, looked_for: own.shallow_clone() },
                    Known { labels: of_partners, looked_for: partners },
                ])
            }
        };
        let image = mixture.of_maps([image, &partners]);
        let kept = kept(chance, &image);
        let shown = &image * everybody.own(&kept);
        let pass = self.passes.train("mixed", batch.main(), everybody.cx);
        let turn = Turn::of(chance, everybody.positions);
        let prediction = turn.back(&self.net.forward(&turn.forth(&shown), &pass)?);
        Ok(Mixed { mixture, of_labels, kept, image, labels, apart, prediction })
    }

    /// Every term that has a weight, and the largest regions of plain predictions.
    fn objective(
        &self,
        plain: &Plain,
        mixed: &Mixed,
        chance: &Chance,
        everybody: &Everybody<'_>,
    ) -> Result<(Objective, Tensor)> {
        let params = &self.params;
        let turn = Turn::of(chance, everybody.positions);
        let regions = cleaned(&label_map(&plain.prediction), keep_main_regions)?;
        let objective = Objective::new()
            .term("partial_ce_plain", params.unmixed, || plain.cross_entropy.shallow_clone())
            .term("partial_ce_mixed", params.mixed, || mixed.cross_entropy(&turn, everybody))
            .term("local_consistency", params.local_consistency, || {
                let largest = one_hot(&regions, &plain.prediction);
                let (samples, group) = (everybody.global_size, everybody.cx.group());
                cosine_distance(&plain.prediction, &largest, samples, group)
            })
            .try_term("global_consistency", params.global_consistency, || {
                global_consistency(&plain.prediction, mixed, everybody)
            })?;
        Ok((objective, regions))
    }
}

/// The cosine distance between the predictions of mixed images and the mixes of the predictions of plain ones.
///
/// A sample's mix needs the prediction of its partner, which may be another rank's: every rank computes the term of
/// all samples, and its gradient with regard to its own predictions.
fn global_consistency(plain: &Tensor, mixed: &Mixed, everybody: &Everybody<'_>) -> Result<Tensor> {
    let plain = everybody.all(plain)?;
    let mixture = mixed.of_labels.map(|of_own| everybody.all(of_own))?;
    let expected = mixture.of_maps([&plain, &everybody.partners(&plain)]) * &mixed.kept;
    let found = everybody.all(&mixed.prediction)?;
    Ok(cosine_distance(&found, &expected, everybody.global_size, &Alone))
}

/// By how many degrees each sample is turned; `None`: none is.
struct Turn(Option<Vec<f64>>);

impl Turn {
    fn of(chance: &Chance, positions: &[u64]) -> Self {
        let own = |angles: &Vec<f64>| positions.iter().map(|&at| angles[at as usize]).collect();
        Self(chance.angles.as_ref().map(own))
    }

    fn forth(&self, maps: &Tensor) -> Tensor {
        self.0.as_ref().map_or_else(|| maps.shallow_clone(), |angles| rotated(maps, angles))
    }

    fn back(&self, maps: &Tensor) -> Tensor {
        let back = |angles: &Vec<f64>| angles.iter().map(|angle| -angle).collect::<Vec<_>>();
        self.0.as_ref().map_or_else(|| maps.shallow_clone(), |angles| rotated(maps, &back(angles)))
    }
}

/// The root of the mean square over the channels of a gradient `[N, channels, H, W]`: `[N, H, W]`.
fn magnitude(gradient: &Tensor) -> Tensor {
    gradient.square().mean_dim([1i64].as_slice(), false, gradient.kind()).sqrt()
}

/// 0 in the hole of every sample, else 1: `[global, 1, H, W]` for images `[N, channels, H, W]`.
fn kept(chance: &Chance, images: &Tensor) -> Tensor {
    let corners: Vec<f64> = chance.holes.iter().flat_map(boxes::corners).collect();
    let corners = upload(&Tensor::from_slice(&corners), images.device());
    1.0 - boxes::inside(&corners, images)
}

impl Method for CycleMix {
    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        let size = batch.main().image.size();
        let extents = [size[2] as usize, size[3] as usize];
        let chance = Chance::drawn(&self.params, extents, batch.global_size, cx.point());
        self.iterate(batch, &chance, cx).map(drop)
    }

    fn forward(&self, image: &Tensor, mode: ForwardMode) -> Result<Tensor> {
        self.net.forward(image, &self.passes.of(mode))
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter]
    }

    fn pictures(
        &self,
        image: &Tensor,
        annotation: &Tensor,
    ) -> Result<Vec<(&'static str, Drawing)>> {
        // One slice after the other: what a gradient needs of all of them may be more than a step needs.
        let saliency = (0..image.size()[0]).map(|slice| {
            self.saliency_alone(&image.narrow(0, slice, 1), &annotation.narrow(0, slice, 1))
        });
        let saliency = Tensor::cat(&saliency.collect::<Result<Vec<_>>>()?, 0);
        tch::no_grad(|| {
            let size = image.size();
            let extents = [size[2] as usize, size[3] as usize];
            let point = StepPoint::new(1, 1, SHOWN);
            let chance = Chance::drawn(&self.params, extents, size[0] as usize, &point);
            let like = image.new_empty([0, self.classes, 0, 0], (image.kind(), image.device()));
            let labels = one_hot(annotation, &like);
            // Each with the slice before it.
            let before = |maps: &Tensor| maps.roll([1i64].as_slice(), [0i64].as_slice());
            let saliency = [&saliency, &before(&saliency)];
            let settings = self.params.puzzle.settings();
            let mixture = Mixture::of([image, &before(image)], saliency, &settings, chance.draw)?;
            let kept = kept(&chance, image);
            let shown = mixture.of_maps([image, &before(image)]) * &kept;
            let labels = self.of_labels(&mixture).of_maps([&labels, &before(&labels)]) * kept;
            Ok(drawings_of_mix(&shown, &mixture.shares, &labels))
        })
    }
}
