//! Scans and label maps in memory, as files hold them: numbers on a grid that lies somewhere in the patient.
//!
//! What is done to a scan before a network sees it stands in `preparation`. Knows no data sets, no networks
//! and no training.

pub mod components;
pub mod grid;

pub use grid::{Grid, Placement};

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
    /// Class of each voxel: slices, rows, columns in row-major order; 255 where nobody said.
    pub values: Vec<u8>,
}

impl Scan {
    /// The intensities of one slice, counted from 0: `[channels, rows, columns]`.
    pub fn slice(&self, slice: usize) -> &[f32] {
        let pixels = self.channels * self.grid.pixels();
        &self.voxels[slice * pixels..][..pixels]
    }
}
