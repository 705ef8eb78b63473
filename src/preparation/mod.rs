//! What is done to a scan before a network sees it, as data: recorded with a packed data set, a run and
//! every checkpoint, so that a checkpoint alone can do it to a scan that nobody has seen, and undo it.
//!
//! Knows scans and grids; no files, no data sets and no networks.

mod apply;
mod back;
mod between;
pub mod intensities;
mod linear;
mod regrid;
mod spline;
mod steps;
mod turn;

pub use apply::Prepared;
pub use back::{NativeLabels, NativeSlice};
pub use regrid::{Carried, Regrid};
pub use steps::{
    Channel, Crop, Intensities, Interpolation, Orientation, Over, Preparation, Scaling, Spacing,
};
pub use turn::Turn;
