//! TIFF: one picture, or a stack of pages that are the slices of a volume.

mod directory;
mod packing;
mod read;

pub(super) use read::{is_tiff, read, read_grid, read_numbers};
