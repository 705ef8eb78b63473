//! What a configuration says about DMSPS, and what it may not say.

use crate::error::{Failure, Result};
use crate::nets::volumetric_cct;
use crate::train::learner::LearnerConfig;
use crate::train::numbers;
use crate::train::schedule::ramp_up;
use serde::{Deserialize, Serialize};

/// Keeps the share of the main decoder above 0, as released.
const LEAST_SHARE: f64 = 1e-10;
/// What [`Share::Shifted`] adds.
const SHIFT: f64 = 0.1;

/// `[method.params]` of `dmsps`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Weight of the cross-entropy over annotated pixels, mean of both decoders; above 0.
    #[serde(default = "one", deserialize_with = "numbers::positive")]
    pub(super) partial_ce: f64,
    /// Weight of the cross-entropy with the soft pseudo label over all pixels, mean of both decoders.
    #[serde(default = "eight", deserialize_with = "numbers::weight")]
    pub(super) pseudo_ce: f64,
    /// Steps at the beginning in which only 0.0067 of that weight counts: 0 in the original scripts, 100 in `PyMIC`, whose ramp of 100 steps is looked at every 100 steps.
    #[serde(default, deserialize_with = "numbers::steps")]
    pub(super) warm_up_steps: u64,
    /// How often the softmax is taken before predictions are compared with the pseudo label.
    #[serde(default)]
    pub(super) softmax: Softmax,
    /// Share of the main decoder in the mean that is the pseudo label.
    #[serde(default)]
    pub(super) share: Share,
    /// Which network.
    #[serde(default)]
    pub(super) network: Network,
    /// Which channels the auxiliary decoder sees outside of training, where it is asked at all: when sure predictions become annotation.
    #[serde(default)]
    pub(super) evaluation_channels: Channels,
    /// The network's learner.
    pub(super) learner: LearnerConfig,
}

/// How often the softmax is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Softmax {
    /// Twice, as published: probabilities are taken for logits, so that gradients are weak and each term stays above 0.74 with four classes.
    #[default]
    Double,
    /// Once: the cross-entropy of the paper's formula.
    Single,
}

/// How much the main decoder counts in a pseudo label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Share {
    /// Anew for each step, uniform in (0, 1): the published method.
    #[default]
    Random,
    /// The same plus 0.1, as a file of the second stage has it: the auxiliary decoder may count less than nothing.
    Shifted,
    /// One half.
    Half,
}

impl Share {
    /// From a number in [0, 1).
    pub(super) fn of(self, drawn: f64) -> f64 {
        match self {
            Self::Random => drawn + LEAST_SHARE,
            Self::Shifted => drawn + SHIFT,
            Self::Half => 0.5,
        }
    }
}

/// Which network: one encoder and two decoders in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Network {
    /// That of the original scripts: `UNet_CCT` over images, `UNet_CCT_dp_3D` over volumes.
    #[default]
    Original,
    /// That of `PyMIC`, over images: decoders with dropout, and a last convolution of one tap.
    Pymic,
    /// The U-Net of `partial-ce` with a second decoder: over volumes its levels follow their extents and spacing.
    Planned,
}

/// Which channels of features a decoder sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Channels {
    /// All of them, as they are.
    #[default]
    All,
    /// A random half, doubled, as published: dropout stays on. It is the same half for every image, so that answers can be repeated.
    Half,
}

fn one() -> f64 {
    1.0
}

fn eight() -> f64 {
    8.0
}

impl Params {
    /// The weight of the pseudo label in `step`, counted from 1.
    pub(super) fn pseudo_ce_at(&self, step: u64) -> f64 {
        if step <= self.warm_up_steps { self.pseudo_ce * ramp_up(0.0) } else { self.pseudo_ce }
    }

    /// Refuses samples of slices, rows and columns that the network does not take.
    pub(super) fn refuse_samples(&self, extent: [usize; 3]) -> Result<()> {
        let planned = "the network of `partial-ce` takes them: `network = \"planned\"`";
        match self.network {
            Network::Pymic if extent[0] > 1 => Err(Failure::usage(format!(
                "the network `pymic` takes images, and these samples have {} slices",
                extent[0]
            ))
            .hint(planned)),
            Network::Original if extent[0] > 1 => {
                let divisor = volumetric_cct::DIVISOR;
                let is_whole = extent.iter().all(|extent| extent.is_multiple_of(divisor));
                if is_whole && volumetric_cct::takes(extent) {
                    return Ok(());
                }
                let [slices, rows, columns] = extent;
                Err(Failure::usage(format!(
                    "the network `original` takes volumes of multiples of {divisor} voxels along each axis, one \
                     of them at least {}, found {slices} x {rows} x {columns}",
                    2 * divisor
                ))
                .hint(format!("`data.patches.extent = [16, 32, 32]` is one; {planned}")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        let learner = "[learner]\nlr = 0.01\noptimizer = { sgd = {} }\n";
        toml::from_str(&format!("{text}\n{learner}")).unwrap()
    }

    #[test]
    fn nothing_said_is_the_original_method() {
        let params = params("");
        assert_eq!((params.partial_ce, params.pseudo_ce_at(1)), (1.0, 8.0));
        assert_eq!(params.softmax, Softmax::Double);
        assert_eq!((params.share, params.network), (Share::Random, Network::Original));
        assert_eq!(params.evaluation_channels, Channels::All);
    }

    #[test]
    fn the_weight_of_the_newer_form_is_whole_after_a_hundred_steps() {
        let params = params("warm_up_steps = 100");
        let low = 8.0 * (-5.0f64).exp();
        for (step, expected) in [(1, low), (100, low), (101, 8.0), (30_000, 8.0)] {
            assert!((params.pseudo_ce_at(step) - expected).abs() < 1e-12, "step {step}");
        }
        assert!((low - 0.054).abs() < 1e-3);
    }

    #[test]
    fn shares_lie_where_their_forms_say() {
        for drawn in [0.0, 0.37, 1.0 - f64::EPSILON] {
            assert!((0.0..=1.0 + 1e-9).contains(&Share::Random.of(drawn)));
            assert!(Share::Random.of(drawn) > 0.0);
            assert!((Share::Shifted.of(drawn) - drawn - 0.1).abs() < 1e-15);
            assert!((Share::Half.of(drawn) - 0.5).abs() < 1e-15);
        }
    }

    #[test]
    fn samples_that_a_network_does_not_take_are_refused() {
        let refused = |network: &str, extent| {
            let params = params(&format!("network = \"{network}\""));
            params.refuse_samples(extent).err().map(|failure| failure.to_string())
        };
        for network in ["original", "pymic", "planned"] {
            assert_eq!(refused(network, [1, 37, 41]), None);
        }
        assert_eq!(refused("planned", [5, 7, 9]), None);
        assert_eq!(refused("original", [16, 16, 32]), None);
        for extent in [[16, 16, 16], [8, 64, 64], [16, 33, 32]] {
            assert!(refused("original", extent).is_some(), "{extent:?}");
        }
        insta::assert_snapshot!(refused("original", [12, 33, 32]).unwrap(), @r#"
        error: the network `original` takes volumes of multiples of 16 voxels along each axis, one of them at least 32, found 12 x 33 x 32

        hint: `data.patches.extent = [16, 32, 32]` is one; the network of `partial-ce` takes them: `network = "planned"`
        "#);
        insta::assert_snapshot!(refused("pymic", [16, 32, 32]).unwrap(), @r#"
        error: the network `pymic` takes images, and these samples have 16 slices

        hint: the network of `partial-ce` takes them: `network = "planned"`
        "#);
    }
}
