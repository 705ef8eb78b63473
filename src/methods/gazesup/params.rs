//! What a configuration says about `GazeSup`, and what it may not say.

use crate::data::GAZE;
use crate::error::{Failure, Result};
use crate::nets::basic_unet::{FEATURES, GROUPS};
use crate::train::learner::LearnerConfig;
use crate::train::numbers;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// Most networks of one run.
pub(super) const MOST_NETWORKS: usize = 5;
/// Most channels of a level of a network.
const MOST_CHANNELS: i64 = 4096;

/// `[method.params]` of `gazesup`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// For each network the level of the map of gaze from which on a pixel belongs to its mask: each one of the
    /// data set's, and five at most. None: one network, whose mask is the foreground of any kind of annotation.
    #[serde(default = "two_levels", deserialize_with = "levels")]
    pub(super) thresholds: Vec<f64>,
    /// What of a network agrees with the plain predictions of the others, where there are others.
    #[serde(default)]
    pub(super) consistency: Consistency,
    /// Weight of the agreement of each network with the others.
    #[serde(default = "three", deserialize_with = "numbers::weight")]
    pub(super) consistency_weight: f64,
    /// Weight of the cross-entropy of each network with its mask, above 0.
    #[serde(default = "one", deserialize_with = "numbers::positive")]
    pub(super) cross_entropy: f64,
    /// Weight of the soft Dice loss of each network with its mask; 0 as published.
    #[serde(default, deserialize_with = "numbers::weight")]
    pub(super) dice: f64,
    /// Channels of the five levels of each network, finest first, and of the features that spread between pixels;
    /// multiples of 4.
    #[serde(default = "published_features", deserialize_with = "features")]
    pub(super) features: [i64; 6],
    /// The learner of all networks.
    pub(super) learner: LearnerConfig,
}

/// What of a network agrees with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Consistency {
    /// Its prediction from features that have spread between pixels which are alike: as published.
    #[default]
    Propagated,
    /// Its plain prediction.
    Pure,
    /// Nothing: each network learns by itself.
    None,
}

fn two_levels() -> Vec<f64> {
    vec![0.5, 0.3]
}

fn one() -> f64 {
    1.0
}

fn three() -> f64 {
    3.0
}

fn published_features() -> [i64; 6] {
    FEATURES
}

fn levels<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<f64>, D::Error> {
    let levels = Vec::<f64>::deserialize(from)?;
    if levels.len() > MOST_NETWORKS {
        return Err(D::Error::custom(format!(
            "{} levels, expected at most {MOST_NETWORKS}",
            levels.len()
        )));
    }
    match levels.iter().find(|&&level| !(level > 0.0 && level < 1.0)) {
        Some(level) => {
            Err(D::Error::custom(format!("level {level}, expected numbers above 0 and below 1")))
        }
        None => Ok(levels),
    }
}

fn features<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<[i64; 6], D::Error> {
    let features = <[i64; 6]>::deserialize(from)?;
    let is_sound =
        |channels: &i64| (1..=MOST_CHANNELS).contains(channels) && channels % GROUPS == 0;
    match features.iter().find(|channels| !is_sound(channels)) {
        Some(channels) => Err(D::Error::custom(format!(
            "{channels} channels, expected multiples of {GROUPS} up to {MOST_CHANNELS}"
        ))),
        None => Ok(features),
    }
}

impl Params {
    /// How many networks there are, at least 1.
    pub(super) fn networks(&self) -> usize {
        self.thresholds.len().max(1)
    }

    /// The weight of the agreement; 0 where nothing agrees with anything.
    pub(super) fn agreement(&self) -> f64 {
        let is_alone = self.networks() == 1 || self.consistency == Consistency::None;
        if is_alone { 0.0 } else { self.consistency_weight }
    }

    /// Refuses levels where the annotation has none.
    pub(super) fn refuse_annotation(&self, annotation: &str) -> Result<()> {
        if self.thresholds.is_empty() || annotation == GAZE {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "`thresholds` are levels of the annotation `{GAZE}`, and `data.annotation` is `{annotation}`"
        ))
        .hint("set `data.annotation = \"gaze\"`, or learn from the annotation as it is: `thresholds = []`"))
    }

    /// For each network the largest number of levels that is background for it: it learns where more of `levels`
    /// are reached.
    pub(super) fn cuts(&self, levels: &[f64]) -> Result<Vec<i64>> {
        if self.thresholds.is_empty() {
            return Ok(vec![0]);
        }
        let place = |threshold: &f64| {
            let found = levels.iter().position(|level| (level - threshold).abs() < 1e-9);
            found.map(|place| place as i64).ok_or_else(|| {
                Failure::usage(format!(
                    "`thresholds` has {threshold}, and the data set has the levels {levels:?}"
                ))
                .hint("prepare the data with that level: `scrimp prepare gaze --help`")
            })
        };
        self.thresholds.iter().map(place).collect()
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
    fn masks_follow_the_levels_of_the_data_set_in_the_order_of_the_networks() {
        let params = read("").unwrap();
        assert_eq!(params.cuts(&[0.3, 0.4, 0.5]).unwrap(), [2, 0]);
        assert_eq!(read("thresholds = []").unwrap().cuts(&[]).unwrap(), [0]);
        insta::assert_snapshot!(params.cuts(&[0.2, 0.4]).unwrap_err(), @r"
        error: `thresholds` has 0.5, and the data set has the levels [0.2, 0.4]

        hint: prepare the data with that level: `scrimp prepare gaze --help`
        ");
    }

    #[test]
    fn levels_and_channels_that_nothing_can_be_computed_with_are_refused() {
        for text in [
            "thresholds = [0.5, 1.0]",
            "thresholds = [nan]",
            "thresholds = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]",
            "features = [4, 8, 8, 8, 8, 6]",
            "features = [4, 8, 8, 8, 8, 0]",
            "features = [4, 8, 8, 8, 8, 8192]",
            "features = [4, 8]",
            "consistency = \"both\"",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read("features = [4, 8, 8, 8, 8, 4]\nthresholds = [0.2, 0.4]").is_ok());
    }

    #[test]
    fn levels_want_gaze_and_one_network_agrees_with_nobody() {
        insta::assert_snapshot!(read("").unwrap().refuse_annotation("dense").unwrap_err(), @r#"
        error: `thresholds` are levels of the annotation `gaze`, and `data.annotation` is `dense`

        hint: set `data.annotation = "gaze"`, or learn from the annotation as it is: `thresholds = []`
        "#);
        assert!(read("thresholds = []").unwrap().refuse_annotation("dense").is_ok());
        let agreement = |text: &str| read(text).unwrap().agreement().to_bits();
        assert_eq!(agreement(""), 3f64.to_bits());
        for text in ["thresholds = [0.5]", "consistency = \"none\"", "consistency_weight = 0"] {
            assert_eq!(agreement(text), 0f64.to_bits(), "{text}");
        }
    }
}
