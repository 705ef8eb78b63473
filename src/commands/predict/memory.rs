//! How much memory an image takes, known before it is read, and how much it took.
//!
//! The sum counts what is held at the same time on the host: the scan, what is predicted of it slab by slab,
//! and what the networks compute, which is measured with one group of windows of zeros.

use super::segment::Segmenter;
use crate::config::sampling::Sampling;
use crate::error::Result;
use crate::preparation::{Crop, Orientation};
use crate::scan::{Grid, Scan};
use crate::telemetry::kilobytes;
use crate::train::inference::Inference;
use tch::{Device, Kind, Tensor};

/// What the system says of this process.
const STATUS: &str = "/proc/self/status";
/// What the allocator takes from the system at once, however small an image is; as `native` sets it.
const FIXED_BYTES: u64 = 64 << 20;

/// The memory of this process now.
pub(super) fn resident_bytes() -> u64 {
    kilobytes(STATUS, "VmRSS:").unwrap_or_default()
}

/// The most memory of this process since [`forget_peak`], where the system says so.
pub(super) fn peak_bytes() -> Option<u64> {
    kilobytes(STATUS, "VmHWM:")
}

/// Lets the peak begin anew, where the system allows that; elsewhere it stays that of the whole process.
pub(super) fn forget_peak() {
    drop(std::fs::write("/proc/self/clear_refs", "5"));
}

/// What is held where so many bytes are in use: not all that is given back fits what is asked for next.
pub(super) fn held(bytes: u64) -> u64 {
    bytes / 8 * 9 + FIXED_BYTES
}

/// What this process holds once networks have seen the windows that they see together, at the most; computes once
/// where they do so on the host.
pub(super) fn with_networks(inference: &Inference<'_>, channels: usize) -> Result<u64> {
    let [slices, rows, columns] = inference.extent_at_once().map(|extent| extent as i64);
    let channels = channels as i64;
    let extents = if inference.sampling.dims() == 2 {
        vec![slices, channels, rows, columns]
    } else {
        vec![1, channels, slices, rows, columns]
    };
    if inference.target.device != Device::Cpu {
        return Ok(resident_bytes());
    }
    forget_peak();
    let windows = inference.target.place(&Tensor::zeros(&*extents, (Kind::Float, Device::Cpu)));
    for member in &inference.members {
        drop(member.predict(&windows)?);
    }
    Ok(peak_bytes().unwrap_or_else(resident_bytes))
}

/// What an image takes on the host, at the most, beside networks and program.
///
/// `grid` is that of the file. Where a crop may leave less than all of it, this counts all.
pub(super) fn of_image(grid: &Grid, segmenter: &Segmenter<'_>) -> u64 {
    let Segmenter { inference, preparation, classes, .. } = segmenter;
    // What cannot be prepared is told when its turn comes.
    let shape = preparation.largest_shape(grid).unwrap_or(grid.shape);
    let prepared = Grid { shape, ..grid.clone() };
    let (file, kept) = (grid.voxels() as u64, prepared.voxels() as u64);
    let channels = preparation.channels.len();
    let intensities = |voxels: u64| 4 * voxels * channels as u64;
    // Numbers as the file holds them, at most 8 bytes, beside those that were read.
    let reading = intensities(file) + 8 * file;
    let is_turned = preparation.orientation != Orientation::AsStored;
    // What is resampled, and one channel being scaled; where a scan is turned, before it is cut and after.
    let turning = if is_turned { 2 * intensities(file) } else { 0 };
    let preparing = intensities(file) + 2 * intensities(kept) + 8 * kept + turning;
    let scan = Scan { grid: prepared, channels, voxels: Vec::new() };
    let is_same = preparation.crop == Crop::None && shape == grid.shape;
    let handed_on = if segmenter.leaves_probabilities(is_same) {
        of_labels(inference, &scan)
    } else {
        classes.len() as u64 * of_probabilities(grid, &scan, segmenter)
    };
    // All of an image that is turned back, before and after.
    let turned = match (is_turned, segmenter.wants_probabilities()) {
        (false, _) => 0,
        (true, false) => 2 * file,
        (true, true) => (2 + 4 * (classes.len() as u64 + 1)) * file,
    };
    let predicting =
        intensities(kept) + file + inference.bytes(&scan, classes.len()) + handed_on + turned;
    // A run of equal labels for every fourth voxel, in lists that have grown to twice of what they hold.
    let runs = if segmenter.made_with.keep_largest.is_some() { 7 * file } else { 0 };
    let finishing = intensities(kept) + file + runs;
    reading.max(preparing).max(predicting).max(finishing)
}

/// What finding the labels of the slices that come together takes.
fn of_labels(inference: &Inference<'_>, scan: &Scan) -> u64 {
    let [_, rows, columns] = inference.shape(scan);
    let voxels = (inference.slices_handed_on(scan) * rows * columns) as u64;
    // The largest probability and the next one; which of them is larger, and labels in both forms.
    voxels * (2 * inference.target.bytes() + 3) + scan.grid.pixels() as u64
}

/// What a slice of one class takes on its way to the grid of the file.
fn of_probabilities(grid: &Grid, scan: &Scan, segmenter: &Segmenter<'_>) -> u64 {
    let [_, rows, columns] = segmenter.inference.shape(scan);
    let (predicted, prepared) = (rows * columns, scan.grid.pixels());
    // As it comes, in two forms, enlarged where slices are resized, the last two prepared ones, and on the file's
    // grid where they are asked for.
    let is_resized = matches!(segmenter.inference.sampling, Sampling::Slices { .. });
    let resized = if is_resized { prepared } else { 0 };
    let written = if segmenter.wants_probabilities() { grid.pixels() } else { 0 };
    4 * (2 * predicted + resized + 2 * prepared + written) as u64
}

#[cfg(test)]
mod tests {
    use super::super::records::MadeWith;
    use super::*;
    use crate::config::Colour;
    use crate::preparation::{Intensities, Preparation, Spacing};
    use crate::train::inference::Target;

    /// Bytes of an image of 117 classes on a grid, in windows of 32 x 128 x 128.
    fn of(grid: &Grid, spacing: Spacing, change: impl FnOnce(&mut MadeWith)) -> u64 {
        let extent = [32, 128, 128];
        let sampling = Sampling::Patches { extent, per_case: 1, foreground_share: 0.5 };
        let target = Target { kind: Kind::Float, device: Device::Cpu };
        let mut made_with = MadeWith::labels_alone(Vec::new());
        change(&mut made_with);
        let segmenter = Segmenter {
            inference: Inference::new(Vec::new(), sampling, target),
            preparation: &Preparation { spacing, ..Preparation::grey(Intensities::AsStored) },
            colour: Colour::AsStored,
            classes: &[const { String::new() }; 117],
            made_with: &made_with,
        };
        of_image(grid, &segmenter)
    }

    #[test]
    fn a_large_scan_with_many_classes_fits_and_slices_add_what_the_scan_takes() {
        let of = |slices: usize| {
            of(&Grid::unplaced([slices, 512, 512], None), Spacing::AsStored, |_| ())
        };
        // Networks and program take some 1.2 GB beside it.
        assert!(held(of(600)) < 6_000_000_000, "{}", held(of(600)));
        // 4 bytes of intensity and 1 of label for each voxel.
        assert_eq!(of(600) - of(300), 300 * 512 * 512 * 5);
    }

    #[test]
    fn slices_of_all_classes_are_counted_where_they_are_made() {
        let grid = Grid::unplaced([40, 512, 512], Some([2.0, 1.0, 1.0]));
        let slice = 117 * 512 * 512 * 4;
        let of = |spacing, uncertainty| {
            of(&grid, spacing, |made_with| made_with.uncertainty = uncertainty)
        };
        let labels = of(Spacing::AsStored, false);
        // Distances that the file has, and a fifth of a voxel more in 40.
        assert_eq!(of(Spacing::Volume([2.0, 1.0, 1.0]), false), labels);
        assert_eq!(of(Spacing::Volume([1.99, 1.0, 1.0]), false), labels);
        // A voxel more along slices.
        assert!(of(Spacing::Volume([1.95, 1.0, 1.0]), false) > labels + 3 * slice);
        assert!(of(Spacing::AsStored, true) > labels + 4 * slice);
    }
}
