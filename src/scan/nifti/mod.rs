//! NIfTI-1 and NIfTI-2 in one file or as a header with its voxels beside it, packed or not.

mod header;
mod matrix;
mod read;
mod write;

pub(super) use read::{is_nifti, others, read, read_grid, read_numbers};
pub(super) use write::NiftiWriter;
