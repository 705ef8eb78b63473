//! TIFF: one picture, or a stack of pages that are the slices of a volume.

mod directory;
mod packing;
mod read;
mod write;

pub(super) use read::{is_tiff, others, read, read_grid, read_numbers};
pub(super) use write::TiffWriter;
