//! Pictures of 8 and 16 bits: PNG, JPEG and BMP.

mod metadata;
mod palette;
mod read;
mod write;

pub(super) use read::{is_bmp, is_jpeg, is_png, read, read_grid, read_numbers};
pub(super) use write::write_labels;
pub use write::write_picture;
