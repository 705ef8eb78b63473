//! NRRD, also with its voxels in another file (`.nhdr`), and the segmentations of 3D Slicer in it (`.seg.nrrd`).

mod axes;
mod fields;
mod header;
mod read;
mod segmentation;
mod write;

pub(super) use read::{is_nrrd, others, read, read_grid, read_numbers};
pub(super) use write::SegmentationWriter;
