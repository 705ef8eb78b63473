//! The largest sizes that a file or a configuration may name, checked before memory is taken.
//!
//! They lie far above what anybody needs and below what brings a machine down. What is measured with them
//! is known to those who ask.

/// Voxels of one volume, 2^30: a CT of 512 x 512 x 4096.
pub const VOLUME_VOXELS: usize = 1 << 30;
/// Rows, columns or slices of one volume or picture.
pub const EXTENT: usize = 1 << 16;
/// Cases of one packed data set.
pub const CASES: usize = 1 << 20;
/// Channels of one scan.
pub const CHANNELS: usize = 64;
/// Classes of one data set; 255 is the label of what nobody annotated.
pub const CLASSES: usize = 255;
/// Folds of one data set.
pub const FOLDS: u32 = 1_000;
/// Bytes of a table of fixations.
pub const FIXATION_BYTES: u64 = 1 << 28;
/// Levels of a map of gaze.
pub const GAZE_LEVELS: usize = 64;
/// Rows and columns of a slice that a network sees.
pub const NETWORK_SIZE: usize = 1 << 13;
/// Cases of one part of a synthetic data set, whose names end in four digits.
pub const PHANTOM_CASES: usize = 9_999;
/// Voxels of one synthetic case, 2^26: a slice of 8192 x 8192.
pub const PHANTOM_CASE_VOXELS: usize = 1 << 26;
/// Voxels of all cases of a synthetic data set, which a run holds in memory.
pub const PHANTOM_VOXELS: usize = 1 << 30;
/// Pixels of one picture, 2^26: 8192 x 8192.
pub const PICTURE_PIXELS: usize = 1 << 26;
/// Bytes of the file of one picture.
pub const PICTURE_BYTES: u64 = 1 << 29;
/// Bytes of a TIFF file, which is held in memory with all of its pages.
pub const TIFF_BYTES: u64 = 1 << 33;
/// Bytes of a file of DICOM, which is held in memory with all of its frames.
pub const DICOM_BYTES: u64 = 1 << 33;
/// Bytes of a description of a data set, or of its folds, in JSON.
pub const JSON_BYTES: u64 = 1 << 26;
/// Bytes of the header of a volume that is written as text, without its voxels.
pub const TEXT_HEADER_BYTES: usize = 1 << 20;
/// Segments of one segmentation file.
pub const SEGMENTS: usize = 1 << 12;
/// Samples of one global batch.
pub const BATCH_SIZE: usize = 1 << 20;
/// Pixels of one global batch, 2^36.
pub const BATCH_PIXELS: usize = 1 << 36;
/// Steps of a run, and of everything that is counted in steps.
pub const STEPS: u64 = 1 << 40;
/// Checkpoints that a run keeps.
pub const CHECKPOINTS: usize = 1 << 20;
/// Threads of one process.
pub const THREADS: usize = 1 << 10;
/// Slices of one preview of a case.
pub const PREVIEW_SLICES: usize = 1 << 10;
/// Bytes of one line of a run log.
pub const LOG_LINE_BYTES: usize = 1 << 20;
/// Rows of one farm.
pub const FARM_ROWS: usize = 1 << 10;
/// Nodes of one farm.
pub const FARM_NODES: usize = 1 << 14;
/// Jobs of one farm.
pub const FARM_JOBS: usize = 1 << 14;
/// Bytes of the name of a job of a farm, which files have.
pub const JOB_NAME_BYTES: usize = 200;
/// Bytes of the table of contents of a checkpoint.
pub const MANIFEST_BYTES: u64 = 1 << 26;
/// Bytes of the table in front of the tensors of a file.
pub const TENSOR_TABLE_BYTES: u64 = 1 << 26;

/// How many elements an array of these extents has; `None` above `most`, or where the number is too
/// large to be counted.
///
/// ```
/// use scrimp::limits::{VOLUME_VOXELS, elements};
/// assert_eq!(elements(&[10, 216, 256], VOLUME_VOXELS), Some(552_960));
/// assert_eq!(elements(&[usize::MAX, 2, 2], VOLUME_VOXELS), None);
/// ```
pub fn elements(extents: &[usize], most: usize) -> Option<usize> {
    let count = extents.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent))?;
    (count <= most).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_that_are_too_large_are_none_even_with_an_empty_extent_behind() {
        assert_eq!(elements(&[3, 4], 12), Some(12));
        assert_eq!(elements(&[3, 4], 11), None);
        assert_eq!(elements(&[usize::MAX, usize::MAX, 0], 12), None);
        assert_eq!(elements(&[], 12), Some(1));
    }
}
