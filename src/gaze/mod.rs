//! Where somebody looked at a picture, and what that says of its pixels.
//!
//! Zhong et al., *Weakly-supervised Medical Image Segmentation with Gaze Annotations*, MICCAI 2024, with the numbers
//! of their code (`med-air/GazeMedSeg` at 12d02590): fixations become a smooth map, a dense random field draws its
//! edges to those of the picture, and levels cut it. Knows plain pixels; no data sets, no folders and no networks.

mod fixations;
mod heatmap;
mod levels;
mod refine;
mod resample;
mod scan_path;

pub use fixations::{Recording, SHORTEST_MS, picture_name, read};
pub use heatmap::{CANVAS, Canvas, heatmap, heatmap_on, unit_range};
pub use levels::{reached, resized};
pub use refine::{FIELD, grey_levels, refined};
pub use scan_path::scan_path;

/// Eyes at rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fixation {
    /// Share of the picture's width from its left edge, in `[0, 1]`.
    pub x: f64,
    /// Share of its height from the top, in `[0, 1]`.
    pub y: f64,
    /// For how long, above 0.
    pub duration_ms: f64,
}
