//! What a configuration says about CycleMix, and what it may not say.

use crate::error::{Failure, Result};
use crate::methods::puzzle::Puzzle;
use crate::train::learner::LearnerConfig;
use crate::train::numbers;
use serde::{Deserialize, Serialize};

/// `[method.params]` of `cyclemix`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Which network segments.
    #[serde(default)]
    pub(super) network: Network,
    /// Weight of the cross-entropy of plain images, a mean over all their pixels, annotated or not.
    #[serde(default = "one", deserialize_with = "numbers::weight")]
    pub(super) unmixed: f64,
    /// Weight of the cross-entropy of mixed images, a mean over all their pixels.
    #[serde(default = "one", deserialize_with = "numbers::weight")]
    pub(super) mixed: f64,
    /// Weight of the cosine distance between a prediction and the largest region of each of its classes.
    #[serde(default = "tenth", deserialize_with = "numbers::weight")]
    pub(super) local_consistency: f64,
    /// Weight of the cosine distance between the prediction of a mix and the mix of the predictions.
    #[serde(default = "tenth", deserialize_with = "numbers::weight")]
    pub(super) global_consistency: f64,
    /// How often running statistics move towards those of the plain images in a step: twice as released, where the same images pass twice.
    #[serde(default = "two", deserialize_with = "numbers::width")]
    pub(super) statistics_updates: i64,
    /// What is added to all intensities of some batches.
    #[serde(default)]
    pub(super) noise: Noise,
    /// Half the side of the square that is hidden of each mixed image, in pixels; 0: nothing is.
    #[serde(default = "sixteen", deserialize_with = "numbers::reach")]
    pub(super) occlusion: i64,
    /// Whether each mixed image is turned by an angle of its own, and its prediction back.
    #[serde(default = "yes")]
    pub(super) rotation: bool,
    /// Whether labels and predictions move with the patches of their images; released, they stay where they are.
    #[serde(default)]
    pub(super) transport_labels: bool,
    /// How two images are mixed.
    #[serde(default)]
    pub(super) puzzle: Puzzle,
    /// The network's learner.
    pub(super) learner: LearnerConfig,
}

/// Which network segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Network {
    /// The published one: a U-Net of valid convolutions with 25.8 million parameters, for sides of 4 more than a multiple of 16, 212 as published.
    #[default]
    ValidUnet,
    /// The small U-Net of the other methods, for sides of multiples of 16.
    Unet,
}

/// `[method.params.noise]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Noise {
    /// The probability of each of two draws, in [0, 1); a batch in which one of them succeeds is shifted.
    #[serde(deserialize_with = "numbers::share")]
    pub(super) probability: f64,
    /// What is added to every intensity of such a batch: called noise in the released code, and a constant.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) shift: f64,
}

impl Default for Noise {
    fn default() -> Self {
        Self { probability: 0.1, shift: 10.0 / 255.0 }
    }
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

fn tenth() -> f64 {
    0.1
}

fn two() -> i64 {
    2
}

fn sixteen() -> i64 {
    16
}

impl Params {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |message: &str| Err(Failure::usage(message.to_owned()));
        if self.unmixed + self.mixed == 0.0 {
            return refuse("`unmixed` and `mixed` are both 0: nothing is learnt from annotation");
        }
        if self.mixed + self.global_consistency == 0.0 {
            return Err(Failure::usage(
                "`mixed` and `global_consistency` are both 0: mixed images teach nothing",
            )
            .hint("`partial-ce` learns from plain images alone"));
        }
        if self.transport_labels && !self.puzzle.transport {
            return refuse(
                "`transport_labels` needs `puzzle.transport`: no patch moves without it",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Params, toml::de::Error> {
        let learner = "[learner]\nlr = 0.01\noptimizer = { sgd = {} }\n";
        toml::from_str(&format!("{text}\n{learner}"))
    }

    #[test]
    fn contradictions_are_refused() {
        for text in [
            "unmixed = 0\nmixed = 0",
            "mixed = 0\nglobal_consistency = 0",
            "transport_labels = true\npuzzle = { transport = false }",
        ] {
            assert!(read(text).unwrap().check().is_err(), "{text}");
        }
        for text in ["", "transport_labels = true", "unmixed = 0", "mixed = 0"] {
            assert!(read(text).unwrap().check().is_ok(), "{text}");
        }
        for text in ["noise = { probability = 1 }", "statistics_updates = 0", "occlusion = -1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
