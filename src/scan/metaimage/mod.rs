//! MetaImage, the format of ITK: `.mha` in one file, `.mhd` with its voxels in another.

mod header;
mod read;
mod write;

pub(super) use read::{is_metaimage, others, read, read_grid, read_numbers};
pub(super) use write::MetaImageWriter;
