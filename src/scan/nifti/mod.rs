//! NIfTI-1 and NIfTI-2 in one file, packed or not.

mod header;
mod matrix;
mod read;
mod write;

pub(super) use read::{is_nifti, read, read_grid, read_numbers};
pub(super) use write::NiftiWriter;
