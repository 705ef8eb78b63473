//! How much memory an image takes, known before it is read, and how much it took.
//!
//! The sum counts what is held at the same time on the host: the scan, what is predicted of it slab by slab,
//! and what the networks compute, which is measured with one group of windows of zeros.

use crate::error::Result;
use crate::preparation::{Preparation, Spacing};
use crate::scan::{Grid, Scan};
use crate::telemetry::kilobytes;
use crate::train::inference::Inference;
use tch::{Device, Kind, Tensor};

/// What the system says of this process.
const STATUS: &str = "/proc/self/status";

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

/// What networks take on the host for the windows that they see together, at the most; computes once.
pub(super) fn of_networks(inference: &Inference<'_>, channels: usize) -> Result<u64> {
    let [slices, rows, columns] = inference.extent_at_once().map(|extent| extent as i64);
    let channels = channels as i64;
    let extents = if inference.sampling.dims() == 2 {
        vec![slices, channels, rows, columns]
    } else {
        vec![1, channels, slices, rows, columns]
    };
    if inference.target.device != Device::Cpu {
        return Ok(0);
    }
    let before = resident_bytes();
    forget_peak();
    let windows = inference.target.place(&Tensor::zeros(&*extents, (Kind::Float, Device::Cpu)));
    for member in &inference.members {
        drop(member.predict(&windows)?);
    }
    Ok(peak_bytes().unwrap_or(before).saturating_sub(before))
}

/// What an image takes on the host, at the most, beside networks and program.
///
/// `grid` is that of the file. Where a crop may leave less than all of it, this counts all.
pub(super) fn of_image(
    grid: &Grid,
    preparation: &Preparation,
    classes: usize,
    inference: &Inference<'_>,
) -> u64 {
    let channels = preparation.channels.len();
    let prepared = Grid { shape: prepared_shape(grid, preparation.spacing), ..grid.clone() };
    let (file, kept) = (grid.voxels() as u64, prepared.voxels() as u64);
    let channels_of = |voxels: u64| 4 * voxels * channels as u64;
    let scan = Scan { grid: prepared.clone(), channels, voxels: Vec::new() };
    let [_, rows, columns] = inference.shape(&scan);
    let pixels = (rows * columns).max(prepared.pixels()).max(grid.pixels());
    // A slice of all classes: as it comes, enlarged, the last two, and on the grid of the file.
    let slices = 5 * 4 * (classes * pixels) as u64;
    // Numbers as the file holds them, at most 8 bytes, beside those that were read.
    let reading = channels_of(file) + 8 * file;
    // What is resampled, and one channel being scaled.
    let preparing = channels_of(file) + 2 * channels_of(kept) + 8 * kept;
    let predicting = channels_of(kept) + inference.bytes(&scan, classes) + slices + file;
    reading.max(preparing).max(predicting)
}

/// Slices, rows, columns after resampling.
fn prepared_shape(grid: &Grid, spacing: Spacing) -> [usize; 3] {
    let (Some(own), target) = (
        grid.spacing_mm,
        match spacing {
            Spacing::AsStored => None,
            Spacing::InPlane([rows, columns]) => Some([None, Some(rows), Some(columns)]),
            Spacing::Volume(all) => Some(all.map(Some)),
        },
    ) else {
        return grid.shape;
    };
    let Some(target) = target else { return grid.shape };
    std::array::from_fn(|axis| match target[axis] {
        Some(target) => (grid.shape[axis] as f64 * own[axis] / target).ceil().max(1.0) as usize,
        None => grid.shape[axis],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sampling::Sampling;
    use crate::preparation::Intensities;
    use crate::train::inference::Target;

    #[test]
    fn a_large_scan_with_many_classes_fits_and_slices_add_what_the_scan_takes() {
        let extent = [32, 128, 128];
        let sampling = Sampling::Patches { extent, per_case: 1, foreground_share: 0.5 };
        let target = Target { kind: Kind::Float, device: Device::Cpu };
        let inference = Inference::new(Vec::new(), sampling, target);
        let preparation = Preparation::grey(Intensities::AsStored);
        let of = |slices: usize| {
            let grid = Grid::unplaced([slices, 512, 512], None);
            of_image(&grid, &preparation, 117, &inference)
        };
        assert!(of(600) < 7_000_000_000, "{}", of(600));
        // 4 bytes of intensity and 1 of label for each voxel.
        assert_eq!(of(600) - of(300), 300 * 512 * 512 * 5);
    }

    #[test]
    fn resampled_scans_are_counted_as_large_as_they_become() {
        let grid = Grid::unplaced([10, 100, 200], Some([8.0, 1.0, 1.5]));
        assert_eq!(prepared_shape(&grid, Spacing::AsStored), [10, 100, 200]);
        assert_eq!(prepared_shape(&grid, Spacing::InPlane([0.5, 1.0])), [10, 200, 300]);
        assert_eq!(prepared_shape(&grid, Spacing::Volume([4.0, 2.0, 3.0])), [20, 50, 100]);
        let unknown = Grid::unplaced([10, 100, 200], None);
        assert_eq!(prepared_shape(&unknown, Spacing::InPlane([0.5, 1.0])), [10, 100, 200]);
    }
}
