//! Scans and label maps as files hold them: numbers on a grid that lies somewhere in the patient, read from
//! files and written to them.
//!
//! What is done to a scan before a network sees it stands in `preparation`. Knows no data sets, no networks
//! and no training.

mod alignment;
mod axes;
mod carry;
mod channels;
mod coding;
pub mod components;
mod content;
mod dicom;
mod formats;
mod grid;
mod metaimage;
mod nifti;
mod notes;
mod nrrd;
mod numpy;
mod oddities;
mod pack_bits;
mod picture;
mod relation;
mod remaining;
mod segments;
mod stored;
mod tiff;
mod vectors;
mod voxels;
mod writer;
#[cfg(feature = "hdf5")]
pub mod wsl4mis;

pub use alignment::FileGrid;
pub use carry::elect;
pub use channels::read_channels;
pub use coding::{Coding, Numbers};
pub use formats::{
    FORMATS, Format, files_of, image_endings, is_image_folder, is_one_image, label_endings, read,
    read_grid, read_labels, read_numbers, split_ending,
};
pub use grid::{Grid, Placement, place};
pub use notes::{LeftOut, Notes, list};
pub use oddities::slices_along;
pub use picture::write_picture;
pub use relation::{Relation, relation};
pub use segments::Segment;
pub use writer::{LabelWriter, MapWriter};

/// The label of a voxel of which nobody said what it is.
pub const IGNORE: u8 = 255;

/// An image on its grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// Where its voxels lie.
    pub grid: Grid,
    /// Numbers of each voxel: 1 for grey, 3 for red, green and blue, else one for each modality.
    pub channels: usize,
    /// Intensities: slices, channels, rows, columns in row-major order; as a file holds them, which is after its
    /// own slope and intercept, computed in f64.
    pub voxels: Vec<f32>,
}

/// A label map on its grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// Where its voxels lie.
    pub grid: Grid,
    /// Class of each voxel: slices, rows, columns in row-major order; [`IGNORE`] where nobody said.
    pub values: Vec<u8>,
}

impl Scan {
    /// The intensities of one slice, counted from 0: `[channels, rows, columns]`.
    pub fn slice(&self, slice: usize) -> &[f32] {
        let pixels = self.channels * self.grid.pixels();
        &self.voxels[slice * pixels..][..pixels]
    }

    /// The same with three channels: grey stands three times.
    #[must_use]
    pub fn into_colours(self) -> Self {
        if self.channels != 1 {
            return self;
        }
        let slices = self.voxels.chunks(self.grid.pixels().max(1));
        let voxels = slices.flat_map(|slice| [slice; 3]).flatten().copied().collect();
        Self { channels: 3, voxels, ..self }
    }
}
