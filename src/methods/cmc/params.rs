//! What a configuration says about CMC, and what it may not say.

use crate::error::{Failure, Result};
use crate::nets::cross_modality;
use crate::train::learner::LearnerConfig;
use crate::train::numbers;
use crate::train::point::StepPoint;
use crate::train::schedule::{fall, ramp_up};
use serde::{Deserialize, Serialize};

/// `[method.params]` of `cmc`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Channels of the network's first convolution; its deepest features have sixteen times as many.
    #[serde(default = "published_width", deserialize_with = "numbers::width")]
    pub(super) width: i64,
    /// What is learnt from unlabelled volumes.
    #[serde(default)]
    pub(super) unlabelled: Unlabelled,
    /// Weight of the contrast of features, `CSC`, times `exp(-5 (1 - t)^2)` at a share `t` of the run.
    #[serde(default = "one", deserialize_with = "numbers::weight")]
    pub(super) semantic_consistency: f64,
    /// Weight of the agreement of predictions, `CAC`, times `(1 + cos(pi t)) / 2` at a share `t` of the run.
    #[serde(default = "one", deserialize_with = "numbers::weight")]
    pub(super) anatomical_consistency: f64,
    /// The share of the run after which unlabelled volumes are looked at, in [0, 1): 350 of 500 epochs as published.
    #[serde(default = "seven_tenths", deserialize_with = "numbers::share")]
    pub(super) begins_at: f64,
    /// The share of the steps, in [0, 1), in which the features of a modality are fused with themselves, as they are where one modality is predicted alone; 0 as published, which only ever sees pairs.
    #[serde(default = "half", deserialize_with = "numbers::share")]
    pub(super) alone: f64,
    /// The network's learner.
    pub(super) learner: LearnerConfig,
}

/// What is learnt from unlabelled volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unlabelled {
    /// Both consistencies with their gradient: features are contrasted by channel, and predictions disagree by 1 less the similarity of their probabilities. Not published.
    #[default]
    Gradient,
    /// The numbers of the released code, which have no gradient: features are contrasted by as many consecutive values as there are channels, and the similarity of logits is added.
    AsReleased,
    /// Nothing: they are not looked at.
    None,
}

fn published_width() -> i64 {
    cross_modality::WIDTH
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn seven_tenths() -> f64 {
    0.7
}

/// How much of the run lies before a step, in [0, 1).
pub(super) fn progress(point: &StepPoint) -> f64 {
    point.step.saturating_sub(1) as f64 / point.total_steps.max(1) as f64
}

impl Params {
    /// The weights of both consistencies at a share of the run, semantic first.
    pub(super) fn weights_at(&self, progress: f64) -> [f64; 2] {
        [
            self.semantic_consistency * ramp_up(progress),
            self.anatomical_consistency * fall(progress),
        ]
    }

    /// Whether unlabelled volumes are looked at in a step.
    pub(super) fn looks_at_unlabelled(&self, point: &StepPoint) -> bool {
        let is_weighed = self.semantic_consistency > 0.0 || self.anatomical_consistency > 0.0;
        is_weighed && self.unlabelled != Unlabelled::None && progress(point) >= self.begins_at
    }

    /// Refuses samples of slices, rows and columns that the network does not take.
    pub(super) fn refuse_samples(extent: [usize; 3]) -> Result<()> {
        if cross_modality::takes(extent) {
            return Ok(());
        }
        let (divisor, [slices, rows, columns]) = (cross_modality::DIVISOR, extent);
        Err(Failure::usage(format!(
            "`cmc` learns from volumes of multiples of {divisor} voxels along each axis, at least {} along one, \
             found {slices} x {rows} x {columns}",
            2 * divisor
        ))
        .hint("`[data.patches]` with `extent = [16, 32, 32]` cuts such volumes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn params(text: &str) -> Params {
        let learner = "[learner]\nlr = 1e-4\noptimizer = { adamw = { weight_decay = 1e-5 } }\n";
        toml::from_str(&format!("{text}\n{learner}")).unwrap()
    }

    fn at(step: u64) -> StepPoint {
        StepPoint::new(step, 500, Key::new(1))
    }

    #[test]
    fn unlabelled_volumes_are_looked_at_from_a_share_of_the_run_on() {
        let published = params("");
        assert!(!published.looks_at_unlabelled(&at(350)));
        assert!(published.looks_at_unlabelled(&at(351)) && published.looks_at_unlabelled(&at(500)));
        assert!(params("begins_at = 0.0").looks_at_unlabelled(&at(1)));
        for never in
            ["unlabelled = \"none\"", "semantic_consistency = 0.0\nanatomical_consistency = 0.0"]
        {
            assert!(!params(never).looks_at_unlabelled(&at(500)), "{never}");
        }
        assert!(params("semantic_consistency = 0.0").looks_at_unlabelled(&at(500)));
    }

    #[test]
    fn one_weight_grows_and_the_other_falls() {
        let params = params("semantic_consistency = 2.0\nanatomical_consistency = 4.0");
        let [[first, most], [last, least]] = [0.0, 0.5].map(|t| params.weights_at(t));
        assert!((first - 2.0 * (-5.0f64).exp()).abs() < 1e-15 && (most - 4.0).abs() < 1e-15);
        assert!((last - 2.0 * (-1.25f64).exp()).abs() < 1e-15 && (least - 2.0).abs() < 1e-15);
        assert!(progress(&at(1)).abs() < 1e-15 && (progress(&at(351)) - 0.7).abs() < 1e-15);
    }

    #[test]
    fn samples_are_volumes_that_levels_divide() {
        assert!(Params::refuse_samples([8, 16, 8]).is_ok());
        for extent in [[1, 64, 64], [8, 8, 8], [12, 16, 16]] {
            assert!(Params::refuse_samples(extent).is_err(), "{extent:?}");
        }
        insta::assert_snapshot!(Params::refuse_samples([1, 64, 64]).unwrap_err(), @r"
        error: `cmc` learns from volumes of multiples of 8 voxels along each axis, at least 16 along one, found 1 x 64 x 64

        hint: `[data.patches]` with `extent = [16, 32, 32]` cuts such volumes
        ");
    }
}
