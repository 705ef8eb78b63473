//! Public data sets, anybody's own NIfTI files or pictures and synthetic ones, as cases of ours.
//!
//! What the sources share stands here: how cases are handed over one at a time, how raw
//! intensities are scaled, how folds are cut. Nothing here writes the packed file.

pub mod acdc;
pub mod brats;
pub mod label_transfer;
pub mod lesion_phantom;
pub mod masks;
pub mod mscmr;
pub mod nifti;
mod parts;
pub mod phantom;
mod pictures;
mod texture;
mod volume;

use super::{Case, Dataset};
use crate::error::{Failure, Result};

/// A data set that is read case by case, so that packing it needs the memory of one case.
pub struct Source {
    /// Short name, for example `acdc`.
    pub name: String,
    /// Names of the classes by label value; class 0 is the background.
    pub classes: Vec<String>,
    /// Where the data came from and how they were scaled, one sentence per line.
    pub provenance: String,
    /// How many cases follow.
    pub case_count: usize,
    /// The cases in ascending order of their names, each read when asked for.
    pub cases: Box<dyn Iterator<Item = Result<Case>>>,
}

impl Source {
    /// Reads every case into memory.
    pub fn collect(self) -> Result<Dataset> {
        Ok(Dataset {
            name: self.name,
            classes: self.classes,
            provenance: self.provenance,
            cases: self.cases.collect::<Result<_>>()?,
        })
    }
}

impl From<Dataset> for Source {
    fn from(dataset: Dataset) -> Self {
        Self {
            name: dataset.name,
            classes: dataset.classes,
            provenance: dataset.provenance,
            case_count: dataset.cases.len(),
            cases: Box::new(dataset.cases.into_iter().map(Ok)),
        }
    }
}

/// The class names of ACDC, MSCMR and the phantom by label value.
fn cardiac_classes() -> Vec<String> {
    ["background", "right ventricle", "myocardium", "left ventricle"].map(String::from).to_vec()
}

/// The fold, counted from 1, of case `index` when `case_count` sorted cases are cut into five
/// contiguous blocks whose sizes differ by at most one.
fn contiguous_fold(index: usize, case_count: usize) -> u32 {
    (index * 5 / case_count.max(1)) as u32 + 1
}

/// Raw intensities of one volume.
struct Intensities {
    values: Vec<f64>,
    /// Whether the source stores whole numbers: their histogram has one bin per value.
    whole: bool,
}

/// The share of voxels whose intensities are kept; brighter ones are cut to the brightest kept.
const KEPT_SHARE: f64 = 0.99;

/// Bins of the histogram of intensities that are not whole numbers.
const BIN_COUNT: usize = 256;

/// Scales a volume to `[0, 1]`: everything above the first bin centre at which the cumulative
/// histogram reaches 0.99 is cut, then smallest and largest become 0 and 1.
///
/// Follows `HiLab-git/WSL4MIS`, `code/dataloaders/acdc_data_processing.py` at a594da8d, with the
/// histogram of scikit-image's `cumulative_distribution`. Refuses values that are not finite and
/// a volume of one intensity.
fn scale_intensities(raw: &Intensities) -> Result<Vec<f32>> {
    if let Some(index) = raw.values.iter().position(|value| !value.is_finite()) {
        return Err(Failure::new(format!(
            "voxel {index} of the image is {}, expected finite intensities",
            raw.values[index]
        )));
    }
    let low = raw.values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = raw.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let brightest = if low < high { brightest_kept(raw, low, high) } else { low };
    if brightest <= low {
        return Err(Failure::new(format!(
            "{} % of the voxels of the image are {low}, expected more than one intensity",
            100.0 * KEPT_SHARE
        )));
    }
    let scale = |&value: &f64| ((value.min(brightest) - low) / (brightest - low)) as f32;
    Ok(raw.values.iter().map(scale).collect())
}

/// The first bin centre at which the cumulative share of voxels reaches [`KEPT_SHARE`].
fn brightest_kept(raw: &Intensities, low: f64, high: f64) -> f64 {
    let kept = |below: usize| below as f64 / raw.values.len() as f64 >= KEPT_SHARE;
    if raw.whole {
        // One bin per whole number is the sorted order itself, whatever the range.
        let mut sorted = raw.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let first_kept = (1..=sorted.len()).find(|&below| kept(below)).unwrap_or(sorted.len());
        return sorted[first_kept - 1];
    }
    let width = (high - low) / BIN_COUNT as f64;
    let edge = |bin: usize| low + bin as f64 * width;
    let mut counts = [0usize; BIN_COUNT];
    for value in &raw.values {
        counts[(((value - low) / width) as usize).min(BIN_COUNT - 1)] += 1;
    }
    let mut below = 0;
    let reached = counts.iter().position(|count| {
        below += count;
        kept(below)
    });
    let bin = reached.unwrap_or(BIN_COUNT - 1);
    f64::midpoint(edge(bin), edge(bin + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_cut_at_the_value_that_reaches_the_share() {
        // 0..=199 once each: 0.99 of them are reached at 197.
        let raw = Intensities { values: (0..200).map(f64::from).collect(), whole: true };
        let scaled = scale_intensities(&raw).unwrap();
        assert!((scaled[100] - 100.0 / 197.0).abs() < 1e-7, "{}", scaled[100]);
        assert_eq!(&scaled[196..], &[(196.0f64 / 197.0) as f32, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn other_numbers_are_cut_at_a_bin_centre() {
        // 1000 values over [0, 10): the share is reached in bin 253, centre 253.5 / 256 * 9.99.
        let values = (0..1000).map(|i| f64::from(i) / 100.0).collect();
        let scaled = scale_intensities(&Intensities { values, whole: false }).unwrap();
        let brightest = 253.5 / 256.0 * 9.99;
        assert!((f64::from(scaled[500]) - 5.0 / brightest).abs() < 1e-7, "{}", scaled[500]);
        assert!((scaled[999] - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    fn images_without_contrast_or_with_nan_are_refused() {
        let flat = Intensities { values: vec![7.0; 10], whole: true };
        assert_eq!(
            scale_intensities(&flat).unwrap_err().message(),
            "99 % of the voxels of the image are 7, expected more than one intensity"
        );
        let broken = Intensities { values: vec![0.0, f64::NAN, 1.0], whole: false };
        assert_eq!(
            scale_intensities(&broken).unwrap_err().message(),
            "voxel 1 of the image is NaN, expected finite intensities"
        );
    }

    #[test]
    fn folds_are_contiguous_and_even() {
        let folds: Vec<u32> = (0..12).map(|index| contiguous_fold(index, 12)).collect();
        assert_eq!(folds, [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5]);
    }
}
