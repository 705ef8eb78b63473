//! DICOM: a file, or a folder of the slices of one series, which are one image.

mod dataset;
mod file;
mod image;
mod pixels;
mod plane;
mod read;
mod series;
mod syntax;
mod tags;

pub(super) use read::{is_dicom, others, read, read_grid, read_numbers};
pub(super) use series::{holds_dicom, is_one_image};
