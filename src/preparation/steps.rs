//! The steps of a preparation as they are recorded, and which of them make sense.
//!
//! Knows no scan: what the steps do stands beside it.

use crate::error::{Failure, Result};
use crate::limits::{CHANNELS, EXTENT};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The way from a scan as a file holds it to one as a network sees it.
///
/// In this order: turn, crop, resampling, intensities; where straight lines are drawn, intensities before it.
/// Annotations go the same way voxel by voxel and are never interpolated. Where a data set has several modalities,
/// intensities of each are scaled in its own way; all else is the same for all. As text it is TOML:
///
/// ```
/// use scrimp::preparation::Preparation;
/// let text = "
///     crop = \"nonzero\"
///     spacing = { volume = [5.0, 0.8, 0.8] }
///     channels = [{ name = \"ct\", intensities = { window = { low = -160.0, high = 240.0 } } }]
/// ";
/// let preparation: Preparation = toml::from_str(text).unwrap();
/// assert!(preparation.check().is_ok());
/// assert_eq!(toml::from_str::<Preparation>(&toml::to_string(&preparation).unwrap()), Ok(preparation));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// Which way its axes run.
    #[serde(default, skip_serializing_if = "Orientation::is_stored")]
    pub orientation: Orientation,
    /// Which part of the scan is kept.
    #[serde(default)]
    pub crop: Crop,
    /// How numbers are taken between voxels.
    #[serde(default, skip_serializing_if = "Interpolation::is_cubic")]
    pub interpolation: Interpolation,
    /// On which grid it lies afterwards.
    #[serde(default)]
    pub spacing: Spacing,
    /// What each channel shows and what becomes of its intensities, in the order of the channels; none where
    /// `modalities` say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// The same for scans of each modality, as cases name it, with as many channels each; none where all scans are of
    /// one kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modalities: BTreeMap<String, Vec<Channel>>,
}

impl Preparation {
    /// Grey scans that keep their grid.
    pub fn grey(intensities: Intensities) -> Self {
        Self::of_channels(&["image"], intensities)
    }

    /// Pictures of 8 bits in red, green and blue.
    pub fn colours() -> Self {
        Self::of_channels(&COLOURS, Intensities::EightBit)
    }

    /// One picture in red, green and blue whose levels are scaled so.
    pub fn picture(colours: [Intensities; 3]) -> Self {
        let mut preparation = Self::colours();
        for (channel, intensities) in preparation.channels.iter_mut().zip(colours) {
            channel.intensities = intensities;
        }
        preparation
    }

    /// The same, resized to so many rows and columns by straight lines.
    #[must_use]
    pub fn resized(self, size: [usize; 2]) -> Self {
        Self { interpolation: Interpolation::Bilinear, spacing: Spacing::Size(size), ..self }
    }

    /// Whether the channels are those of a picture in colour.
    pub fn is_in_colour(&self) -> bool {
        let are_levels = |channel: &Channel| channel.intensities == Intensities::EightBit;
        self.takes_a_picture() && self.channels.iter().all(are_levels)
    }

    /// Whether it takes one picture in red, green and blue, whatever becomes of its intensities.
    pub fn takes_a_picture(&self) -> bool {
        self.channels.iter().map(|channel| channel.name.as_str()).eq(COLOURS)
    }

    fn of_channels(names: &[&str], intensities: Intensities) -> Self {
        let channel = |name: &&str| Channel { name: (*name).to_owned(), intensities };
        Self {
            crop: Crop::None,
            interpolation: Interpolation::Cubic,
            spacing: Spacing::AsStored,
            orientation: Orientation::AsStored,
            channels: names.iter().map(channel).collect(),
            modalities: BTreeMap::new(),
        }
    }

    /// How many channels every scan has.
    pub fn channel_count(&self) -> usize {
        self.modalities.values().next().unwrap_or(&self.channels).len()
    }

    /// What is done to scans of one modality, which for a preparation of one kind of scans is nothing to say.
    ///
    /// Refuses a modality that it does not know, none where it knows several, and any where it knows none.
    ///
    /// ```
    /// use scrimp::preparation::Preparation;
    /// let text = "modalities.ct = [{ name = 'ct', intensities = { window = { low = -175.0, high = 250.0 } } }]
    ///             modalities.mr = [{ name = 'mr', intensities = { z_score = { over = 'nonzero' } } }]";
    /// let both: Preparation = toml::from_str(text).unwrap();
    /// assert_eq!(both.of_modality(Some("mr")).unwrap().channels[0].name, "mr");
    /// assert!(both.of_modality(None).is_err() && both.of_modality(Some("pet")).is_err());
    /// ```
    pub fn of_modality(&self, modality: Option<&str>) -> Result<Self> {
        let known: Vec<String> =
            self.modalities.keys().map(|modality| format!("`{modality}`")).collect();
        let channels = match (modality, &known[..]) {
            (None, []) => return Ok(self.clone()),
            (Some(modality), []) => {
                return Err(Failure::usage(format!(
                    "scans are said to be of modality `{modality}`, and all were prepared alike"
                )));
            }
            (None, [_]) => self.modalities.values().next(),
            (None, _) => {
                return Err(Failure::usage(format!(
                    "scans were prepared by modality, and nobody says which of {} these are",
                    known.join(", ")
                )));
            }
            (Some(modality), _) => self.modalities.get(modality),
        };
        let Some(channels) = channels else {
            return Err(Failure::usage(format!(
                "no scans of modality `{}` were prepared, only {}",
                modality.unwrap_or_default(),
                known.join(", ")
            )));
        };
        Ok(Self { channels: channels.clone(), modalities: BTreeMap::new(), ..self.clone() })
    }

    /// The first key in which another preparation differs, what it says here, and there.
    ///
    /// ```
    /// use scrimp::preparation::{Intensities, Preparation};
    /// let [key, here, there] = Preparation::grey(Intensities::Robust)
    ///     .difference(&Preparation::grey(Intensities::Published))
    ///     .unwrap();
    /// assert_eq!(key, "channels");
    /// assert!(here.contains("robust") && there.contains("published"));
    /// ```
    pub fn difference(&self, other: &Self) -> Option<[String; 3]> {
        if self == other {
            return None;
        }
        let table = |preparation: &Self| {
            let mut table = toml::Table::try_from(preparation).unwrap_or_default();
            table.entry("interpolation").or_insert_with(|| "cubic".into());
            table.entry("orientation").or_insert_with(|| "as_stored".into());
            table
        };
        let (here, there) = (table(self), table(other));
        let shown = |value: Option<&toml::Value>| {
            value.map_or_else(|| "nothing".to_owned(), |value| value.to_string().replace('"', "'"))
        };
        let keys = ["orientation", "crop", "interpolation", "spacing", "channels", "modalities"]
            .into_iter();
        let mut differing = keys.filter(|key| here.get(*key) != there.get(*key));
        let key = differing.next().unwrap_or("channels");
        Some([key.to_owned(), shown(here.get(key)), shown(there.get(key))])
    }

    /// Refuses steps that no scan can go: no channels or more than [`CHANNELS`], channels without a name or
    /// with one name, modalities without a name or beside channels of all scans, distances that are not above 0, sizes of
    /// nothing, windows without width, a deviation of 0.
    pub fn check(&self) -> Result<()> {
        if self.modalities.is_empty() {
            check_channels(&self.channels)?;
        } else if !self.channels.is_empty() {
            return Err(Failure::new(
                "both `channels` and `modalities` say how intensities are scaled",
            ));
        }
        for (modality, channels) in &self.modalities {
            let checked = check_channels(channels).and_then(|()| {
                let (found, expected) = (channels.len(), self.channel_count());
                if found != expected {
                    let what = format!("{found} channels, expected {expected} as of the first");
                    return Err(Failure::new(what));
                }
                if modality.is_empty() { Err(Failure::new("it has no name")) } else { Ok(()) }
            });
            checked.map_err(|failure| {
                failure.during(format!("cannot prepare scans of modality `{modality}`"))
            })?;
        }
        let distances = match &self.spacing {
            Spacing::Size(size) if !size.iter().all(|extent| (1..=EXTENT).contains(extent)) => {
                return Err(Failure::new(format!(
                    "scans are resized to {size:?} rows and columns, expected 1 to {EXTENT} of each"
                )));
            }
            Spacing::AsStored | Spacing::Size(_) => &[][..],
            Spacing::InPlane(distances) => distances,
            Spacing::Volume(distances) => distances,
        };
        match distances.iter().find(|&&mm| !(mm.is_finite() && mm > 0.0)) {
            Some(mm) => {
                Err(Failure::new(format!("voxels lie {mm} mm apart, expected more than 0")))
            }
            None => Ok(()),
        }
    }
}

/// Refuses none, more than [`CHANNELS`], names that are empty or two of one name, and numbers that scale nothing.
fn check_channels(channels: &[Channel]) -> Result<()> {
    let count = channels.len();
    if !(1..=CHANNELS).contains(&count) {
        return Err(Failure::new(format!("expected 1 to {CHANNELS} channels, found {count}")));
    }
    for (index, channel) in channels.iter().enumerate() {
        if channel.name.is_empty() {
            return Err(Failure::new(format!("channel {index} has no name")));
        }
        if channels[..index].iter().any(|other| other.name == channel.name) {
            return Err(Failure::new(format!("two channels are called `{}`", channel.name)));
        }
        channel.intensities.check().map_err(|failure| {
            failure.during(format!("cannot scale channel `{}`", channel.name))
        })?;
    }
    Ok(())
}

/// Which way the axes of a scan run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// As in the file.
    #[default]
    AsStored,
    /// Slices from the feet to the head, rows from back to front, columns from the patient's left to the right, as
    /// nearly as the axes of the file do, which are exchanged and reversed; a file that does not say where it lies stays
    /// as it is.
    Ras,
}

impl Orientation {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_stored(&self) -> bool {
        *self == Self::AsStored
    }
}

/// The names of the channels of pictures in colour.
const COLOURS: [&str; 3] = ["red", "green", "blue"];

/// Which part of a scan is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// All of it.
    #[default]
    None,
    /// The smallest box outside of which every channel is 0.
    Nonzero,
    /// The same box without its last slice, row and column, but for an axis along which it has no other: as
    /// published for BraTS by DMSPS (Han et al., Medical Image Analysis 2024).
    NonzeroButLast,
    /// The smallest box outside of which no channel is above what its window begins with, or without a window every
    /// channel is 0.
    Foreground,
}

/// How numbers are taken between the voxels of a scan that is resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// By cubic splines, cut to the range that the channel had, before intensities are scaled; annotated voxels
    /// are carried over one by one.
    #[default]
    Cubic,
    /// By straight lines, smoothed first where voxels become fewer, after intensities were scaled; what lies
    /// beyond the edges is 0, and labels are those of the nearest voxel, so that annotated voxels can be lost.
    /// As published for CycleMix (Zhang and Zhuang, CVPR 2022).
    Linear,
    /// By straight lines between the centres of voxels, after intensities were scaled; beyond the edges the last
    /// voxel goes on, and nothing is smoothed where voxels become fewer. Labels are those of voxel `floor(i n / m)`
    /// for voxel `i` of `m`, made of `n`. As published for GazeMedSeg (Zhong et al., MICCAI 2024), by PyTorch.
    Bilinear,
}

impl Interpolation {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_cubic(&self) -> bool {
        *self == Self::Cubic
    }
}

/// How far apart voxels lie after resampling, or how many there are.
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
    /// So many rows and columns, however far apart they lie, slices as in the file.
    Size([usize; 2]),
}

impl Spacing {
    /// The distances of slices, rows and columns where all scans get the same.
    pub fn of_volume_mm(self) -> Option<[f64; 3]> {
        match self {
            Self::Volume(spacing_mm) => Some(spacing_mm),
            Self::AsStored | Self::InPlane(_) | Self::Size(_) => None,
        }
    }
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
    /// They stay, whatever they are.
    AsStored,
    /// They stay: whoever made the file has scaled them to `[0, 1]`. Others are refused.
    Scaled,
    /// 8-bit levels, 0 to 255, to `[0, 1]`. Others are refused.
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
    /// Cut at the cumulative share 0.999, then mean 0 and deviation 1 over the voxels above 0; the others go the
    /// same way, so that air is one number below 0. As published for BraTS by DMSPS.
    PublishedBrats,
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

/// How the intensities of a channel are to be scaled, before anything is known of the data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// In a way that needs nothing but the scan.
    By(Intensities),
    /// By [`Intensities::Fixed`] with the numbers of the annotated foreground of all cases.
    ByForeground,
}

impl Intensities {
    /// Whether a number as the file holds it is more than what lies around a patient.
    pub(super) fn is_foreground(self, value: f32) -> bool {
        match self {
            Self::Window { low, .. } | Self::Fixed { low, .. } => f64::from(value) > low,
            _ => value.abs() > 0.0,
        }
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Failure::new(what));
        match *self {
            Self::Window { low, high } | Self::Fixed { low, high, .. }
                if !(low.is_finite() && high.is_finite() && low < high) =>
            {
                refuse(format!(
                    "the window goes from {low} to {high}, expected a larger number last"
                ))
            }
            Self::Fixed { mean, deviation, .. }
                if !(mean.is_finite() && deviation.is_finite() && deviation > 0.0) =>
            {
                refuse(format!(
                    "mean {mean} and deviation {deviation}, expected a deviation above 0"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// The voxels whose mean and deviation a z-score takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// All of the scan.
    All,
    /// All of each slice, by itself; a slice of one intensity becomes 0.
    Slice,
    /// Those that are not 0; the others stay 0.
    Nonzero,
}
