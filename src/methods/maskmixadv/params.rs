//! What a configuration says about MaskMixAdv, and what it may not say.

use crate::error::{Failure, Result};
use crate::nets::gan::Judge;
use crate::train::learner::LearnerConfig;
use crate::train::numbers;
use crate::train::optimizer::{AdamConfig, OptimizerConfig};
use crate::train::schedule::Schedule;
use serde::{Deserialize, Serialize};

/// `[method.params]` of `maskmixadv`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// What the discriminator does to the network.
    #[serde(default)]
    pub(super) adversary: Adversary,
    /// Weight of the cross-entropy over annotated pixels, mean of both branches.
    #[serde(default = "ten", deserialize_with = "numbers::weight")]
    pub(super) partial_ce: f64,
    /// Weight of the Dice loss against the mixed pseudo label, mean of both branches.
    #[serde(default = "half", deserialize_with = "numbers::weight")]
    pub(super) pseudo_dice: f64,
    /// Weight of the squared error of the reconstruction over hidden pixels.
    #[serde(default = "ten", deserialize_with = "numbers::weight")]
    pub(super) reconstruction: f64,
    /// Share of the 32 x 32 cells that the first branch sees, strictly between 0 and 1.
    #[serde(default = "half", deserialize_with = "numbers::part")]
    pub(super) visible: f64,
    /// Whose mask a mask is.
    #[serde(default)]
    pub(super) masks: Masks,
    /// What is hidden.
    #[serde(default)]
    pub(super) hide: Hide,
    /// Reconstructs what the second branch could not see too; with hidden images only.
    #[serde(default)]
    pub(super) reconstruct_both: bool,
    /// Keeps the largest connected part of each class of a pseudo label; fetches labels to the host.
    #[serde(default)]
    pub(super) largest_component: bool,
    /// What the network sees of an image that it is evaluated on; parts with hidden images only.
    #[serde(default)]
    pub(super) predicts_from: PredictsFrom,
    /// How `adversary = "shape"` plays.
    #[serde(default)]
    pub(super) shape: Shape,
    /// The network's learner.
    pub(super) learner: LearnerConfig,
    /// The discriminator's learner.
    #[serde(default = "discriminator_learner")]
    pub(super) discriminator: LearnerConfig,
}

/// What the discriminator does to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Adversary {
    /// Nothing: it watches raw label maps and learns, as in the released code.
    Detached,
    /// Its judgement of the mixed prediction is minimised too, as the paper says.
    #[default]
    Shape,
}

/// Whose mask a mask is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Masks {
    /// One for the whole batch, as in the released code.
    #[default]
    Shared,
    /// Each sample has its own.
    PerSample,
    /// Each sample has its own, and each branch also sees a random share of what the other sees, from
    /// nothing to everything, so that whole images are nothing new to the network.
    Overlapping,
}

/// What is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Hide {
    /// Pixels: one network sees two half-hidden images.
    #[default]
    Image,
    /// Features: one encoder sees the whole image, and two decoders complementary parts of what it finds.
    Features,
}

/// What the network sees of an image that it is evaluated on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PredictsFrom {
    /// All of it at once, as published.
    #[default]
    Whole,
    /// Two complementary parts, as in training: each pixel is predicted from the part that shows it. At twice the cost.
    Parts,
}

/// How `adversary = "shape"` plays.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Shape {
    /// Weight of the network's adversarial term.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) weight: f64,
    /// Share of the run before the game begins; then the weight grows over as long again.
    #[serde(deserialize_with = "numbers::share")]
    pub(super) warm_up: f64,
    /// How label maps are shown to the discriminator.
    pub(super) maps: Maps,
    /// Which discriminator.
    pub(super) judge: Judge,
    /// Divides the discriminator's weights by their largest singular values.
    pub(super) spectral_norm: bool,
    /// Weight of the squared slope of the discriminator at real maps (R1); 0 for none.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) gradient_penalty: f64,
    /// Pixels over which the edges of real maps are blurred, odd, so that sharpness betrays nothing.
    #[serde(deserialize_with = "numbers::width")]
    pub(super) blur: i64,
}

/// How label maps are shown to the discriminator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Maps {
    /// One channel per class: probabilities against one-hot shapes.
    OneHot,
    /// One channel: the mean class number of a pixel against class numbers.
    ExpectedClass,
    /// One channel: class numbers, with the gradient of their mean.
    StraightThrough,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            weight: 0.05,
            warm_up: 0.1,
            maps: Maps::OneHot,
            judge: Judge::Patches,
            spectral_norm: true,
            gradient_penalty: 0.0,
            blur: 3,
        }
    }
}

fn ten() -> f64 {
    10.0
}

fn half() -> f64 {
    0.5
}

fn discriminator_learner() -> LearnerConfig {
    LearnerConfig {
        lr: 1e-4,
        schedule: Schedule::Constant,
        clip_norm: 0.0,
        optimizer: OptimizerConfig::AdamW(AdamConfig::default()),
    }
}

impl Params {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Failure::usage(message.to_owned()));
        if self.partial_ce + self.pseudo_dice + self.reconstruction == 0.0 {
            return refuse(
                "`partial_ce`, `pseudo_dice` and `reconstruction` are all 0: nothing is learnt",
            );
        }
        if self.reconstruct_both && self.hide == Hide::Features {
            return refuse(
                "`reconstruct_both` needs `hide = \"image\"`: features have one restorer",
            );
        }
        if self.predicts_from == PredictsFrom::Parts && self.hide == Hide::Features {
            return refuse("`predicts_from = \"parts\"` needs `hide = \"image\"`");
        }
        if self.shape.blur % 2 == 0 {
            return refuse("`shape.blur` must be an odd number of pixels; 1 leaves maps sharp");
        }
        Ok(())
    }

    pub(super) fn shows_channels(&self) -> bool {
        self.adversary == Adversary::Shape && self.shape.maps == Maps::OneHot
    }

    /// Weight of the adversarial term at a step; `None`: the game has not begun.
    pub(super) fn adversarial_weight(&self, step: u64, total_steps: u64) -> Option<f64> {
        let warm_up = self.shape.warm_up * total_steps as f64;
        let played = step as f64 - warm_up;
        let grown = if warm_up > 0.0 { (played / warm_up).min(1.0) } else { 1.0 };
        (played > 0.0).then_some(self.shape.weight * grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Params, toml::de::Error> {
        let learner = "[learner]\nlr = 0.01\noptimizer = { sgd = {} }\n";
        toml::from_str(&format!("{text}\n{learner}"))
    }

    fn params(text: &str) -> Params {
        read(text).unwrap()
    }

    #[test]
    fn the_game_begins_after_the_warm_up_and_grows_over_as_long_again() {
        let params = params("shape = { weight = 0.2, warm_up = 0.1 }");
        let weight = |step| params.adversarial_weight(step, 100);
        assert_eq!([weight(1), weight(10)], [None, None]);
        assert!((weight(15).unwrap() - 0.1).abs() < 1e-12);
        assert!((weight(20).unwrap() - 0.2).abs() < 1e-12);
        assert!((weight(100).unwrap() - 0.2).abs() < 1e-12);
    }

    #[test]
    fn contradictions_are_refused() {
        for text in [
            "hide = \"features\"\nreconstruct_both = true",
            "hide = \"features\"\npredicts_from = \"parts\"",
            "shape = { blur = 2 }",
            "partial_ce = 0\npseudo_dice = 0\nreconstruction = 0",
        ] {
            assert!(params(text).check().is_err(), "{text}");
        }
        assert!(params("").check().is_ok());
        for text in ["visible = 1.0", "shape = { warm_up = 1.0 }", "shape = { weight = nan }"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
