//! What is done to a scan before a network sees it, as data: recorded with a packed data set, a run and
//! every checkpoint, so that a checkpoint alone can do it to a scan that nobody has seen, and undo it.
//!
//! Knows scans and grids; no files, no data sets and no networks.

use serde::{Deserialize, Serialize};

/// The way from a scan as a file holds it to one as a network sees it.
///
/// In this order: orientation, crop, resampling, intensities. Annotations go the same way voxel by voxel
/// and are never interpolated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// Which part of the scan is kept.
    #[serde(default)]
    pub crop: Crop,
    /// On which grid it lies afterwards.
    #[serde(default)]
    pub spacing: Spacing,
    /// What each channel shows and what becomes of its intensities, in the order of the channels.
    pub channels: Vec<Channel>,
}

impl Preparation {
    /// Grey scans that keep their grid.
    pub fn grey(intensities: Intensities) -> Self {
        Self::of_channels(&["image"], intensities)
    }

    /// Pictures of 8 bits in red, green and blue.
    pub fn colours() -> Self {
        Self::of_channels(&["red", "green", "blue"], Intensities::EightBit)
    }

    fn of_channels(names: &[&str], intensities: Intensities) -> Self {
        let channel = |name: &&str| Channel { name: (*name).to_owned(), intensities };
        Self {
            crop: Crop::None,
            spacing: Spacing::AsStored,
            channels: names.iter().map(channel).collect(),
        }
    }
}

/// Which part of a scan is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// All of it.
    #[default]
    None,
    /// The smallest box outside of which every channel is 0.
    Nonzero,
}

/// How far apart voxels lie after resampling.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// As in the file.
    #[default]
    AsStored,
    /// Rows and columns at these distances, slices as in the file.
    InPlane([f64; 2]),
    /// Slices, rows and columns at these distances.
    Volume([f64; 3]),
}

/// One channel of a scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The modality, for example `t2`; of colours `red`, `green`, `blue`; `image` where nothing is known.
    pub name: String,
    /// How its numbers are scaled.
    pub intensities: Intensities,
}

/// How the numbers of one channel of one scan are scaled. Results are finite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intensities {
    /// They stay: the file holds them scaled already.
    AsStored,
    /// 8-bit levels to `[0, 1]`.
    EightBit,
    /// Cut at the cumulative share 0.99 and scaled to `[0, 1]`, as published for ACDC.
    Published,
    /// Cut at the shares 0.005 and 0.99 and scaled to `[0, 1]`, background of one intensity not counted.
    Robust,
    /// Cut at `low` and `high` and scaled to `[0, 1]`.
    Window {
        /// What becomes 0.
        low: f64,
        /// What becomes 1.
        high: f64,
    },
    /// Mean 0 and deviation 1 over the voxels that `over` names.
    ZScore {
        /// Whose mean and deviation.
        over: Over,
    },
    /// Cut at `low` and `high`, then `(x - mean) / deviation` with numbers of the whole data set, taken over
    /// its annotated foreground.
    Fixed {
        /// Smaller numbers become it.
        low: f64,
        /// Larger numbers become it.
        high: f64,
        /// What becomes 0.
        mean: f64,
        /// What becomes 1 above the mean, above 0.
        deviation: f64,
    },
}

/// The voxels whose mean and deviation a z-score takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// All of the scan.
    All,
    /// Those that are not 0; the others stay 0.
    Nonzero,
}
