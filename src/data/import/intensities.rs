//! How raw intensities of a volume become numbers in `[0, 1]`, in two ways.
//!
//! One is that of published runs on ACDC, kept to the bit; the other is for everybody's own images and
//! hangs on no few voxels. In both the numbers alone decide, not the type in which they were stored.

use crate::error::{Failure, Result};

/// The share of voxels whose intensities are kept; brighter ones are cut to the brightest kept.
const KEPT_SHARE: f64 = 0.99;

/// The share of voxels below which intensities are cut in own images.
const DARK_SHARE: f64 = 0.005;

/// Bins of the histogram of intensities that are not whole numbers.
const BIN_COUNT: usize = 256;

/// The first bin at which the histogram tells intensities apart well enough to be cut there.
const FIRST_USEFUL_BIN: usize = 16;

/// Scales a volume of a published data set to `[0, 1]`: everything above the first bin centre at which
/// the cumulative histogram reaches 0.99 is cut, then smallest and largest become 0 and 1.
///
/// Follows `HiLab-git/WSL4MIS`, `code/dataloaders/acdc_data_processing.py` at a594da8d, with the
/// histogram of scikit-image's `cumulative_distribution`: one bin for each whole number, else 256. Where
/// a few voxels are so bright that the bins say nothing, and where fewer than one voxel in a hundred
/// differ from the others, it scales as [`robust`]. Refuses values that are not finite and a volume of
/// one intensity.
pub(super) fn as_published(values: &[f64]) -> Result<Vec<f32>> {
    let (low, high) = range(values)?;
    let is_whole = values.iter().all(|value| value.fract() == 0.0);
    let brightest = if is_whole {
        at_share(values.to_vec(), KEPT_SHARE)
    } else {
        bin_centre(values, low, high)
    };
    if brightest <= low {
        return robust(values);
    }
    Ok(scaled(values, low, brightest))
}

/// Scales a volume to `[0, 1]`: intensities below the share 0.005 and above the share 0.99 are cut.
///
/// Where more than half of the voxels have one intensity, which is background then, the shares are those
/// of the other voxels, and the background stays within the scale. Refuses values that are not finite
/// and a volume of one intensity.
pub(super) fn robust(values: &[f64]) -> Result<Vec<f32>> {
    range(values)?;
    let middle = at_share(values.to_vec(), 0.5);
    let others: Vec<f64> =
        values.iter().copied().filter(|value| (value - middle).abs() > 0.0).collect();
    let (low, high) = if 2 * others.len() < values.len() {
        let (low, high) = (at_share(others.clone(), DARK_SHARE), at_share(others, KEPT_SHARE));
        (low.min(middle), high.max(middle))
    } else {
        (at_share(values.to_vec(), DARK_SHARE), at_share(values.to_vec(), KEPT_SHARE))
    };
    Ok(scaled(values, low, high))
}

fn scaled(values: &[f64], low: f64, high: f64) -> Vec<f32> {
    let scale = |&value: &f64| ((value.min(high).max(low) - low) / (high - low)) as f32;
    values.iter().map(scale).collect()
}

/// Smallest and largest value.
fn range(values: &[f64]) -> Result<(f64, f64)> {
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Failure::new(format!(
            "voxel {index} of the image is {}, expected finite intensities",
            values[index]
        )));
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low >= high {
        return Err(Failure::new(format!(
            "all voxels of the image are {low}, expected more than one intensity"
        )));
    }
    Ok((low, high))
}

/// The smallest value that this share of the values do not exceed.
fn at_share(mut values: Vec<f64>, share: f64) -> f64 {
    let count = values.len();
    let reached = |below: usize| below as f64 / count as f64 >= share;
    let place = ((share * count as f64) as usize).saturating_sub(1).max(1);
    let first = (place..=count).find(|&below| reached(below)).unwrap_or(count);
    *values.select_nth_unstable_by(first - 1, f64::total_cmp).1
}

/// The centre of the first bin at which the cumulative share of voxels reaches [`KEPT_SHARE`].
fn bin_centre(values: &[f64], low: f64, high: f64) -> f64 {
    let width = (high - low) / BIN_COUNT as f64;
    let edge = |bin: usize| low + bin as f64 * width;
    let mut counts = [0usize; BIN_COUNT];
    for value in values {
        counts[(((value - low) / width) as usize).min(BIN_COUNT - 1)] += 1;
    }
    let mut below = 0;
    let reached = counts.iter().position(|count| {
        below += count;
        below as f64 / values.len() as f64 >= KEPT_SHARE
    });
    match reached.unwrap_or(BIN_COUNT - 1) {
        bin if bin < FIRST_USEFUL_BIN => at_share(values.to_vec(), KEPT_SHARE),
        bin => f64::midpoint(edge(bin), edge(bin + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_cut_at_the_value_that_reaches_the_share() {
        // 0..=199 once each: 0.99 of them are reached at 197.
        let values: Vec<f64> = (0..200).map(f64::from).collect();
        let scaled = as_published(&values).unwrap();
        assert!((scaled[100] - 100.0 / 197.0).abs() < 1e-7, "{}", scaled[100]);
        assert_eq!(&scaled[196..], &[(196.0f64 / 197.0) as f32, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn other_numbers_are_cut_at_a_bin_centre() {
        // 1000 values over [0, 10): the share is reached in bin 253, centre 253.5 / 256 * 9.99.
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i) / 100.0).collect();
        let scaled = as_published(&values).unwrap();
        let brightest = 253.5 / 256.0 * 9.99;
        assert!((f64::from(scaled[500]) - 5.0 / brightest).abs() < 1e-7, "{}", scaled[500]);
        assert!((scaled[999] - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    fn a_few_voxels_do_not_squeeze_all_others() {
        let plain: Vec<f64> = (0..2000).map(|i| f64::from(i) / 8.0).collect();
        let sound = robust(&plain).unwrap();
        for (first, last) in [(0.0, 1e9), (-1e9, 249.875), (-1e30, 1e30)] {
            let mut odd = plain.clone();
            (odd[0], odd[1999]) = (first, last);
            assert_eq!(robust(&odd).unwrap(), sound, "{first} {last}");
        }
        let mut hot = plain.clone();
        hot[1999] = 1e9;
        let published = as_published(&hot).unwrap();
        assert!((published[1000] - 125.0 / 247.375).abs() < 1e-6, "{}", published[1000]);
    }

    #[test]
    fn background_of_one_intensity_does_not_count() {
        for share in [0, 10, 60, 99, 100, 1000] {
            let mut values = vec![0.0; 200 * share];
            values.extend((1..=200).map(f64::from));
            let scaled = robust(&values).unwrap();
            let content = &scaled[200 * share..];
            assert!(content[0] <= 0.01 && content[199] >= 0.99, "{share}");
            assert!((content[99] - 0.5).abs() < 0.02, "{share}: {}", content[99]);
        }
        // One voxel in two hundred, and two intensities in all.
        let mut values = vec![7.0; 400];
        values[3] = 9.0;
        values[4] = 9.0;
        assert_eq!(&robust(&values).unwrap()[2..6], &[0.0, 1.0, 1.0, 0.0]);
        assert_eq!(&as_published(&values).unwrap()[2..6], &[0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn images_without_contrast_or_with_nan_are_refused() {
        for scale in [as_published, robust] {
            assert_eq!(
                scale(&[7.0; 10]).unwrap_err().message(),
                "all voxels of the image are 7, expected more than one intensity"
            );
            assert_eq!(
                scale(&[0.0, f64::NAN, 1.0]).unwrap_err().message(),
                "voxel 1 of the image is NaN, expected finite intensities"
            );
        }
    }
}
