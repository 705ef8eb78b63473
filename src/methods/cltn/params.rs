//! What a configuration says about CLTN, and what it may not say.

use crate::error::{Failure, Result};
use crate::nets::label_transfer::{GeneratorSize, Judge};
use crate::train::learner::LearnerConfig;
use crate::train::numbers;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

/// `[method.params]` of `cltn`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Weight of all that the discriminators say, to both sides; above 0.
    #[serde(default = "one", deserialize_with = "numbers::positive")]
    pub(super) adversarial: f64,
    /// Weight of the distance between an image and what both generators in turn make of it.
    #[serde(default = "ten", deserialize_with = "numbers::weight")]
    pub(super) cycle: f64,
    /// Weight of the distance between an image and what the generator of its own class makes of it.
    #[serde(default = "ten", deserialize_with = "numbers::weight")]
    pub(super) identity: f64,
    /// Weight of the generators' class scores, from whose features the mask is made.
    #[serde(default = "thousand", deserialize_with = "numbers::weight")]
    pub(super) class_score: f64,
    /// Weight of the distance between an image and its restoration by the decoder of the content.
    #[serde(default = "ten", deserialize_with = "numbers::weight")]
    pub(super) reconstruction: f64,
    /// Weight of cross-entropy and Dice between the healing mask and the annotation, where a first run
    /// has labelled the diseased images: the second stage.
    #[serde(default, deserialize_with = "numbers::weight")]
    pub(super) lesion_label: f64,
    /// What a running average of the generators, which then makes the predictions, keeps of itself in
    /// each step, in [0, 1); 0: there is none.
    #[serde(default, deserialize_with = "numbers::share")]
    pub(super) average: f64,
    /// Channels of the generators at full resolution; four times as many at the bottom.
    #[serde(default = "fifty_four", deserialize_with = "numbers::width")]
    pub(super) width: i64,
    /// Channels of the discriminators after their first layer.
    #[serde(default = "fifty_four", deserialize_with = "numbers::width")]
    pub(super) judge_width: i64,
    /// Layers of the discriminators that judge large parts of an image, 3 to 12.
    #[serde(default = "seven", deserialize_with = "layers")]
    pub(super) global_layers: u32,
    /// Layers of the discriminators that judge small parts, 3 to 12.
    #[serde(default = "five", deserialize_with = "layers")]
    pub(super) local_layers: u32,
    /// Whether the discriminators learn from composed images too, which are as much made as painted
    /// ones. As released they do not, and then an empty mask, which leaves the input as it is, passes
    /// for healthy as long as painted images differ from real ones in anything else, such as sharpness.
    #[serde(default)]
    pub(super) judge_composed: bool,
    /// What the painter's style is read from.
    #[serde(default)]
    pub(super) style: Style,
    /// What counts as lesion when a mask becomes a prediction.
    #[serde(default)]
    pub(super) lesion: Lesion,
    /// Takes pixels that are black in every channel for background when predicting.
    #[serde(default = "yes")]
    pub(super) black_is_background: bool,
    /// The generators' learner.
    pub(super) learner: LearnerConfig,
    /// The discriminators' learner.
    pub(super) discriminator: LearnerConfig,
}

/// What the painter's style is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Style {
    /// Means over the image: the light generator of the release, which fits any size.
    #[default]
    Means,
    /// Every feature of every pixel: the full generator, with hundreds of millions of parameters.
    Pixels,
}

/// What counts as lesion when a mask becomes a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Lesion {
    /// What is painted more than half.
    #[default]
    Half,
    /// What is painted more than half as much as the most painted pixel of the image, so that every
    /// image shows a lesion.
    HalfOfLargest,
    /// What is painted more than Otsu's threshold of the image's pixels, black ones left out where they are
    /// background: so that every image shows a lesion, however much is painted around it.
    Otsu,
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

fn ten() -> f64 {
    10.0
}

fn thousand() -> f64 {
    1000.0
}

fn fifty_four() -> i64 {
    54
}

fn seven() -> u32 {
    7
}

fn five() -> u32 {
    5
}

/// Layers of a discriminator.
fn layers<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<u32, D::Error> {
    let layers = u32::deserialize(from)?;
    if (3..=12).contains(&layers) {
        return Ok(layers);
    }
    Err(D::Error::invalid_value(Unexpected::Unsigned(layers.into()), &"3 to 12 layers"))
}

impl Params {
    /// Refuses images of `size` rows and columns that the networks cannot take.
    pub(super) fn check(&self, size: i64) -> Result<()> {
        let layers = [self.global_layers, self.local_layers];
        let smallest = layers.into_iter().map(Judge::smallest_image).max().unwrap_or(8);
        if size % 4 != 0 || size < smallest {
            return Err(Failure::usage(format!(
                "`data.size` is {size}, expected a multiple of 4 of at least {smallest} for \
                 discriminators of {} and {} layers",
                self.global_layers, self.local_layers
            ))
            .hint("set another `data.size`, or fewer `method.params.global_layers`"));
        }
        Ok(())
    }

    /// How large the generators are.
    pub(super) fn generator(&self, size: i64) -> GeneratorSize {
        let full_for = (self.style == Style::Pixels).then_some(size);
        GeneratorSize { width: self.width, full_for }
    }
}
