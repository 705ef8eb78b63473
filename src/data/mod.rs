//! Data sets in memory: cases with their images and the kinds of annotation that exist side by side.
//!
//! Knows nothing of training: who sees which slice when is a function of step and rank in
//! `loader`, and what a method may look at is a `Batch`, which never holds the dense truth.

use std::collections::BTreeMap;

pub mod import;
pub mod store;

/// The annotation value that means "nobody said what this pixel is".
pub const IGNORE: u8 = 255;

/// One volume of one patient at one time, with everything that is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Unique name, for example `patient001_frame01`.
    pub name: String,
    /// Cases of one patient never stand on both sides of a split.
    pub patient: String,
    /// Time frame as the source counts it; 0 where there is only one.
    pub frame: u32,
    /// Cross-validation fold in which this case is held out, counted from 1; 0 = in none.
    pub fold: u32,
    /// Slices, rows, columns.
    pub shape: [usize; 3],
    /// Distance of voxel centres along slices, rows, columns, where the source says so.
    pub spacing_mm: Option<[f64; 3]>,
    /// Intensities in `[0, 1]`, `shape` in row-major order.
    pub image: Vec<f32>,
    /// Label volumes by kind (`scribble`, `dense`), each like `image`: class or [`IGNORE`].
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// Cases that share one labelling.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Short name, for example `acdc`.
    pub name: String,
    /// Names of the classes by label value; class 0 is the background.
    pub classes: Vec<String>,
    /// Where the data came from and how they were scaled, one sentence per line.
    pub provenance: String,
    /// Ordered by name.
    pub cases: Vec<Case>,
}
