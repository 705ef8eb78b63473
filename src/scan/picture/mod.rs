//! 8-bit pictures: PNG and JPEG.

mod metadata;
mod read;
mod write;

pub(super) use read::{is_jpeg, is_png, read, read_grid, read_numbers};
pub(super) use write::write_labels;
