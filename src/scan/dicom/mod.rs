//! DICOM: a file, or a folder of the slices of one series, which are one image.
//!
//! Elements are taken apart here and not by a library: `dicom-object` 0.9.1 sets aside as many bytes as an element
//! claims to have before it looks whether the file holds them, up to 4 GiB for a damaged file of some KiB. Knows
//! nothing of labels, which nobody keeps in DICOM images.

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
