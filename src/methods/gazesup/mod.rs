//! `GazeSup`: where somebody looked becomes masks of several levels, one network learns each, and they agree.
//!
//! Zhong et al., MICCAI 2024, arXiv 2407.07406; what is computed follows med-air/GazeMedSeg at 12d0259. The networks
//! begin as copies of the first, and are one learner.

mod params;

use super::{Asked, Recipe, Setup};
use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::error::{Failure, Result};
use crate::losses::level_consistency::{binary_cross_entropy, binary_dice, disagreement};
use crate::nets::basic_unet::{BasicUNet, SMALLEST};
use crate::train::learner::Learner;
use crate::train::point::StepPoint;
use crate::train::{Drawing, ForwardMode, Method, Objective, StepContext};
pub use params::Params;
use params::{Consistency, MOST_NETWORKS};
use tch::Tensor;

/// Names of the terms of each network.
const CROSS_ENTROPY: [&str; MOST_NETWORKS] =
    ["cross_entropy_1", "cross_entropy_2", "cross_entropy_3", "cross_entropy_4", "cross_entropy_5"];
const DICE: [&str; MOST_NETWORKS] = ["dice_1", "dice_2", "dice_3", "dice_4", "dice_5"];
const CONSISTENCY: [&str; MOST_NETWORKS] =
    ["consistency_1", "consistency_2", "consistency_3", "consistency_4", "consistency_5"];
/// Names of what each network says, as pictures.
const PICTURES: [&str; MOST_NETWORKS] =
    ["network_1", "network_2", "network_3", "network_4", "network_5"];

/// The method with its networks.
pub struct GazeSup {
    segmenter: Learner,
    nets: Vec<BasicUNet>,
    /// For each network the largest value of the annotation that is background; none where nothing is trained.
    cuts: Vec<i64>,
    params: Params,
}

/// What one network makes of images: logits `[N, 1, H, W]`.
struct Outcome {
    plain: Tensor,
    /// What is to agree with the others, where something is.
    compared: Option<Tensor>,
}

impl Recipe for GazeSup {
    const NAME: &'static str = "gazesup";
    const SUMMARY: &'static str =
        "networks that agree, each taught by one level of where somebody looked";
    const PAPER: &'static str = "Zhong et al., MICCAI 2024; code: med-air/GazeMedSeg";
    const FROM_GAZE: bool = true;
    type Params = Params;

    fn refuse(params: &Params, asked: &Asked<'_>) -> Result<()> {
        params.refuse_annotation(asked.annotation)
    }

    fn refuse_size(_params: &Params, size: usize) -> Result<()> {
        if size >= SMALLEST {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "images have {size} rows or columns, and `gazesup` takes at least {SMALLEST}"
        )))
    }

    fn build(params: Params, setup: &Setup) -> Result<Self> {
        if setup.classes != 2 {
            return Err(Failure::usage(format!(
                "`gazesup` tells one class from the background, and the data set has {} classes",
                setup.classes
            ))
            .hint("prepare data with two classes"));
        }
        let cuts = if setup.levels.is_empty() && !params.thresholds.is_empty() {
            Vec::new()
        } else {
            params.cuts(&setup.levels)?
        };
        let (networks, channels, features) = (params.networks(), setup.channels, params.features);
        let (segmenter, nets) =
            Learner::new("segmenter", params.learner, setup.learner, |scope| {
                let mut scope = scope.sub("model");
                let alike = |number: usize| {
                    BasicUNet::new(
                        &mut scope.sub_like(&number.to_string(), "0"),
                        channels,
                        features,
                    )
                };
                (0..networks).map(alike).collect()
            })?;
        Ok(Self { segmenter, nets, cuts, params })
    }
}

impl GazeSup {
    /// What each network makes of images in training.
    fn outcomes(&self, image: &Tensor) -> Result<Vec<Outcome>> {
        let of_network = |net: &BasicUNet| {
            let features = net.features(image)?;
            let plain = net.classify(&features);
            let compared = match self.params.consistency {
                _ if self.params.agreement() == 0.0 => None,
                Consistency::Propagated => Some(net.classify(&net.propagate(&features)?)),
                _ => Some(plain.shallow_clone()),
            };
            Ok(Outcome { plain, compared })
        };
        self.nets.iter().map(of_network).collect()
    }

    /// Logits `[N, 1, H, W]` of each network.
    fn logits(&self, image: &Tensor) -> Result<Vec<Tensor>> {
        self.nets.iter().map(|net| Ok(net.classify(&net.features(image)?))).collect()
    }
}

/// The shares of background and foreground, `[N, 2, H, W]` in [0, 1], of logits `[N, 1, H, W]` of the foreground.
fn class_shares(logits: &Tensor) -> Tensor {
    let share = logits.sigmoid();
    Tensor::cat(&[1.0 - &share, share], 1)
}

impl Method for GazeSup {
    fn form(&self, _point: &StepPoint) -> Option<u32> {
        Some(0)
    }

    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        if self.cuts.len() != self.nets.len() {
            return Err(Failure::new("the data set names no levels of gaze"));
        }
        let samples = batch.main();
        let outcomes = self.outcomes(&samples.image)?;
        let (annotation, total, group) =
            (samples.annotation.unsqueeze(1), batch.global_size, cx.group());
        let kind = samples.image.kind();
        let counted = annotation.ne(i64::from(IGNORE)).to_kind(kind);
        let mut objective = Objective::new();
        for (number, outcome) in outcomes.iter().enumerate() {
            let masks = annotation.gt(self.cuts[number]).to_kind(kind);
            let others = outcomes.iter().enumerate().filter(|(other, _)| *other != number);
            let others: Vec<&Tensor> = others.map(|(_, other)| &other.plain).collect();
            let plain = &outcome.plain;
            objective = objective
                .term(CROSS_ENTROPY[number], self.params.cross_entropy, || {
                    binary_cross_entropy(plain, &masks, &counted, total, group)
                })
                .term(DICE[number], self.params.dice, || {
                    binary_dice(plain, &masks, &counted, total, group)
                });
            if let Some(compared) = &outcome.compared {
                let weight = self.params.agreement();
                objective = objective.term(CONSISTENCY[number], weight, || {
                    disagreement(compared, &others, total, group)
                });
            }
        }
        self.segmenter.update(objective, cx)
    }

    fn forward(&self, image: &Tensor, _mode: ForwardMode) -> Result<Tensor> {
        let logits = Tensor::stack(&self.logits(image)?, 0);
        Ok(class_shares(&logits.mean_dim([0i64].as_slice(), false, logits.kind())))
    }

    fn opinions(&self, image: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.logits(image)?.iter().map(class_shares).collect())
    }

    fn learners(&self) -> Vec<&Learner> {
        vec![&self.segmenter]
    }

    fn pictures(
        &self,
        image: &Tensor,
        _annotation: &Tensor,
    ) -> Result<Vec<(&'static str, Drawing)>> {
        let logits = tch::no_grad(|| self.logits(image))?;
        let shares = logits.iter().map(|logits| Drawing::Shares(logits.sigmoid()));
        Ok(PICTURES.into_iter().zip(shares).collect())
    }

    fn adapt_statistics(&self, _image: &Tensor, _share: f64) -> Result<()> {
        // Every statistic is of one sample, and none is kept.
        Ok(())
    }
}
