//! How samples are cut from scans, as data: slices resized or cropped to a square, or windows at the scan's own scale.
//!
//! Knows no scans.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How slices come to the size of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Each is resized, without keeping its aspect.
    Resize,
    /// Each keeps its scale and is cropped about its middle, or where it is smaller padded.
    Crop,
}

/// What a network sees of a scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// Whole slices, each resized to a square without keeping its aspect.
    Slices {
        /// Rows and columns of a sample.
        size: usize,
    },
    /// Whole slices at the scan's own scale, each cropped and padded about its middle to a square.
    Cropped {
        /// Rows and columns of a sample.
        size: usize,
    },
    /// Windows of slices, rows, columns at the scan's own scale. One slice deep they are slices.
    Patches {
        /// Slices, rows, columns of a sample.
        extent: [usize; 3],
        /// Samples of each case in one epoch, at least 1.
        per_case: usize,
        /// The share of samples, in `[0, 1]`, that are centred on an annotated voxel of a structure; the
        /// others are centred on any annotated voxel.
        foreground_share: f64,
    },
}

impl Sampling {
    /// Slices, rows, columns of a sample; one slice deep where samples are slices.
    pub fn extent(&self) -> [usize; 3] {
        match *self {
            Self::Slices { size } | Self::Cropped { size } => [1, size, size],
            Self::Patches { extent, .. } => extent,
        }
    }

    /// How whole slices come to the size of samples; windows have that size.
    pub fn fit(&self) -> Fit {
        match self {
            Self::Slices { .. } => Fit::Resize,
            Self::Cropped { .. } | Self::Patches { .. } => Fit::Crop,
        }
    }

    /// What samples are called, in the plural.
    pub fn items(&self) -> &'static str {
        match self {
            Self::Slices { .. } | Self::Cropped { .. } => "slices",
            Self::Patches { .. } => "patches",
        }
    }

    /// Axes of a sample in space, 2 or 3.
    pub fn dims(&self) -> usize {
        if self.extent()[0] == 1 { 2 } else { 3 }
    }
}

/// Extents of a sample, for example `256 x 256`, or `16 x 96 x 96` where it is several slices deep.
impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [slices, rows, columns] = self.extent();
        if self.dims() == 3 {
            write!(f, "{slices} x ")?;
        }
        write!(f, "{rows} x {columns}")
    }
}
