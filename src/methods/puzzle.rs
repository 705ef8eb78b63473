//! What a configuration says about `PuzzleMix`, for all methods that mix by it.
//!
//! Knows no method.

use crate::mixing::puzzle::{Settings, Transport};
use crate::train::numbers;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// How two images are put together by `PuzzleMix`, `[method.params.puzzle]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Puzzle {
    /// Both parameters of the beta distribution of the share that is to stay; 0.5 as for CycleMix.
    #[serde(deserialize_with = "numbers::positive")]
    pub(super) alpha: f64,
    /// Shares that a block can have: 3 are everything, one half and nothing; 2 to 8.
    #[serde(deserialize_with = "labels")]
    pub(super) labels: i64,
    /// What two neighbouring blocks of different shares cost.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) beta: f64,
    /// What a step of intensities between neighbouring blocks costs, relative to `beta`.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) gamma: f64,
    /// How strongly the share of blocks keeps to the one that is drawn.
    #[serde(deserialize_with = "numbers::weight")]
    pub(super) eta: f64,
    /// Whether salient patches move to where their image is shown; annotation stays, but with `transport_labels` of `cyclemix`.
    pub(super) transport: bool,
    /// What moving a patch from one end of a side to the other costs, in shares of the saliency of its image.
    #[serde(deserialize_with = "numbers::positive")]
    pub(super) distance_weight: f64,
}

impl Default for Puzzle {
    fn default() -> Self {
        let (alpha, labels, beta, gamma, eta) = (0.5, 3, 1.2, 0.5, 0.2);
        Self { alpha, labels, beta, gamma, eta, transport: true, distance_weight: 0.8 }
    }
}

/// Pixels along a side of what moves.
const PATCH: usize = 4;

impl Puzzle {
    /// As the puzzle takes them.
    pub(super) fn settings(&self) -> Settings {
        let Self { labels, beta, gamma, eta, distance_weight, .. } = *self;
        let transport = self.transport.then_some(Transport { distance_weight, patch: PATCH });
        Settings { labels: labels as usize, beta, gamma, eta, transport }
    }
}

/// Shares of a block.
fn labels<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<i64, D::Error> {
    let labels = i64::deserialize(from)?;
    let is_one = (2..=8).contains(&labels);
    let wrong = || D::Error::custom(format!("expected 2 to 8 shares of a block, found {labels}"));
    is_one.then_some(labels).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puzzles_as_published_are_what_nobody_has_to_say() {
        assert_eq!(Puzzle::default().settings(), Settings::default());
        let read = |text: &str| toml::from_str::<Puzzle>(text);
        assert_eq!(read("transport = false").unwrap().settings().transport, None);
        assert!([1, 9, -3].iter().all(|labels| read(&format!("labels = {labels}")).is_err()));
    }
}
