//! How raw intensities of one channel of a scan become the numbers that networks see.
//!
//! `Published` is that of published runs on ACDC, kept to the bit; `Robust` is for everybody's own images and
//! hangs on no few voxels. In all of them the numbers alone decide, not the type in which they were stored.

use super::steps::{Intensities, Over};
use crate::error::{Failure, Result};

/// The share of voxels whose intensities are kept; brighter ones are cut to the brightest kept.
const KEPT_SHARE: f64 = 0.99;

/// The same for volumes of BraTS.
const KEPT_SHARE_OF_BRATS: f64 = 0.999;

/// The share of voxels below which intensities are cut in own images.
const DARK_SHARE: f64 = 0.005;

/// Bins of the histogram of intensities that are not whole numbers.
const BIN_COUNT: usize = 256;

/// The first bin at which the histogram tells intensities apart well enough to be cut there.
const FIRST_USEFUL_BIN: usize = 16;

/// A number as a file holds it: `f32` or `f64`.
pub trait Number: Copy + PartialOrd + Into<f64> {}

impl<T: Copy + PartialOrd + Into<f64>> Number for T {}

/// The numbers of one channel of one scan as `intensities` scales them, all of them finite.
///
/// What is scaled slice by slice is scaled as one slice. Refuses values that are not finite, and those beyond the
/// range that [`Intensities::Scaled`] and [`Intensities::EightBit`] name. [`Intensities::Published`], [`Intensities::Robust`],
/// [`Intensities::PublishedBrats`] and [`Intensities::ZScore`] refuse values that are all the same.
pub fn scale<T: Number>(intensities: Intensities, values: &[T]) -> Result<Vec<f32>> {
    check_finite(values)?;
    let each = |scaled: &dyn Fn(f64) -> f64| {
        values.iter().map(|&value| scaled(value.into()) as f32).collect()
    };
    Ok(match intensities {
        Intensities::AsStored => each(&|value| value),
        Intensities::Scaled => {
            check_range(values, 1.0)?;
            each(&|value| value)
        }
        Intensities::EightBit => {
            check_range(values, 255.0)?;
            values.iter().map(|&level| level.into() as f32 / 255.0).collect()
        }
        Intensities::Published => return as_published(values),
        Intensities::Robust => return robust(values),
        Intensities::PublishedBrats => return published_brats(values),
        Intensities::Window { low, high } => scaled(values, low, high),
        Intensities::ZScore { over } => return z_score(values, over),
        Intensities::Fixed { low, high, mean, deviation } => {
            each(&|value| (value.clamp(low, high) - mean) / deviation)
        }
    })
}

/// Refuses values outside of 0 to `most`.
fn check_range<T: Number>(values: &[T], most: f64) -> Result<()> {
    let mut numbers = values.iter().map(|&value| value.into());
    match numbers.find(|value| !(0.0..=most).contains(value)) {
        None => Ok(()),
        Some(value) => Err(Failure::new(format!(
            "the image holds intensity {value}, expected 0 to {most}"
        ))
        .hint("the data set was packed from files that somebody had scaled: scale this one alike, or pack the raw files")),
    }
}

/// Scales a volume of a published data set to `[0, 1]`: everything above the first bin centre at which
/// the cumulative histogram reaches 0.99 is cut, then smallest and largest become 0 and 1.
///
/// Follows `HiLab-git/WSL4MIS`, `code/dataloaders/acdc_data_processing.py` at a594da8d, with the
/// histogram of scikit-image's `cumulative_distribution`: one bin for each whole number, else 256. Where
/// a few voxels are so bright that the bins say nothing, and where fewer than one voxel in a hundred
/// differ from the others, it scales as [`robust`]. Refuses values that are not finite and a volume of
/// one intensity.
fn as_published<T: Number>(values: &[T]) -> Result<Vec<f32>> {
    let (low, high) = range(values)?;
    let brightest = brightest_kept(values, (low, high), KEPT_SHARE);
    if brightest <= low {
        return robust(values);
    }
    Ok(scaled(values, low, brightest))
}

/// Cuts a volume above the first bin centre at which the cumulative histogram reaches 0.999, then scales all of it
/// to mean 0 and deviation 1 of the voxels above 0.
///
/// Follows the preparation of BraTS 2020 of `HiLab-git/DMSPS` at 89fe065, with the histogram of
/// [`as_published`]. Where fewer than one voxel in a thousand is above 0 nothing is cut. Refuses values that are not finite and voxels
/// above 0 of one intensity, or none.
fn published_brats<T: Number>(values: &[T]) -> Result<Vec<f32>> {
    let (low, high) = range(values)?;
    let found = brightest_kept(values, (low, high), KEPT_SHARE_OF_BRATS);
    let brightest = if found > low.max(0.0) { found } else { high };
    let cut = || values.iter().map(|&value| value.into().min(brightest));
    let brain = || cut().filter(|&value| value > 0.0);
    let Some(Moments { mean, deviation }) = Moments::of(brain) else {
        let found = brain().next().map_or("no voxel of the image is above 0".to_owned(), |all| {
            format!("all voxels of the image above 0 are {all}")
        });
        return Err(Failure::new(format!("{found}, expected more than one intensity")));
    };
    Ok(cut().map(|value| ((value - mean) / deviation) as f32).collect())
}

/// Scales a volume to `[0, 1]`: intensities below the share 0.005 and above the share 0.99 are cut.
///
/// Where more than half of the voxels have one intensity, which is background then, the shares are those
/// of the other voxels, and the background stays within the scale. Refuses values that are not finite
/// and a volume of one intensity.
fn robust<T: Number>(values: &[T]) -> Result<Vec<f32>> {
    range(values)?;
    let middle = at_share(values.to_vec(), 0.5);
    let others: Vec<T> =
        values.iter().copied().filter(|&value| (value.into() - middle).abs() > 0.0).collect();
    let (low, high) = if 2 * others.len() < values.len() {
        let (low, high) = (at_share(others.clone(), DARK_SHARE), at_share(others, KEPT_SHARE));
        (low.min(middle), high.max(middle))
    } else {
        (at_share(values.to_vec(), DARK_SHARE), at_share(values.to_vec(), KEPT_SHARE))
    };
    Ok(scaled(values, low, high))
}

/// `value` below `low` becomes 0, above `high` 1.
fn scaled<T: Number>(values: &[T], low: f64, high: f64) -> Vec<f32> {
    let scale = |value: f64| ((value.min(high).max(low) - low) / (high - low)) as f32;
    values.iter().map(|&value| scale(value.into())).collect()
}

/// `(value - mean) / deviation` with those of the voxels that `over` names.
fn z_score<T: Number>(values: &[T], over: Over) -> Result<Vec<f32>> {
    let counts = |value: &f64| over != Over::Nonzero || value.abs() > 0.0;
    let counted = || values.iter().map(|&value| value.into()).filter(counts);
    let Some(Moments { mean, deviation }) = Moments::of(counted) else {
        if over == Over::Slice {
            return Ok(vec![0.0; values.len()]);
        }
        let which = if over == Over::All { "" } else { " that are not 0" };
        let value = counted().next().unwrap_or_default();
        return Err(Failure::new(format!(
            "all voxels of the image{which} are {value}, expected more than one intensity"
        )));
    };
    let scale = |value: f64| if counts(&value) { ((value - mean) / deviation) as f32 } else { 0.0 };
    Ok(values.iter().map(|&value| scale(value.into())).collect())
}

/// Mean and deviation of numbers.
struct Moments {
    mean: f64,
    deviation: f64,
}

impl Moments {
    /// In two passes, so that large numbers that differ little keep their digits; none where they do not
    /// differ.
    fn of<I: Iterator<Item = f64>>(numbers: impl Fn() -> I) -> Option<Self> {
        let count = numbers().count().max(1) as f64;
        let mean = numbers().sum::<f64>() / count;
        let squares: f64 = numbers().map(|number| (number - mean) * (number - mean)).sum();
        let deviation = (squares / count).sqrt();
        let first = numbers().next()?;
        let differ = numbers().any(|number| (number - first).abs() > 0.0);
        (differ && deviation.is_finite() && deviation > 0.0).then_some(Self { mean, deviation })
    }
}

/// How many voxels of one case count for [`Foreground`], at most.
const VOXELS_PER_CASE: usize = 10_000;

/// The share of annotated foreground below which [`Intensities::Fixed`] cuts; as much is cut at the other end.
const FIXED_SHARE: f64 = 0.005;

/// Intensities of the annotated foreground of a data set, from which [`Intensities::Fixed`] is made.
///
/// Of each case 10 000 voxels at even distances count, so that no case outweighs the others.
#[derive(Debug, Clone, Default)]
pub struct Foreground {
    values: Vec<f64>,
}

impl Foreground {
    /// Adds the annotated foreground of one channel of one case.
    pub fn add(&mut self, values: &[f64]) {
        let step = values.len().div_ceil(VOXELS_PER_CASE).max(1);
        self.values.extend(values.iter().step_by(step).filter(|value| value.is_finite()));
    }

    /// Cuts at the shares 0.005 and 0.995 of what was added, then takes its mean and deviation. Refuses a
    /// foreground of one intensity, and none.
    pub fn fixed(&self) -> Result<Intensities> {
        let Some(Moments { mean, deviation }) = Moments::of(|| self.values.iter().copied()) else {
            return Err(Failure::new(format!(
                "{} annotated voxels of the foreground do not differ in intensity, expected some that do",
                self.values.len()
            )));
        };
        let low = at_share(self.values.clone(), FIXED_SHARE);
        let high = at_share(self.values.clone(), 1.0 - FIXED_SHARE);
        Ok(Intensities::Fixed { low, high, mean, deviation })
    }
}

/// Refuses values that are not finite.
pub(super) fn check_finite<T: Number>(values: &[T]) -> Result<()> {
    let place = values.iter().position(|&value| !value.into().is_finite());
    place.map_or(Ok(()), |index| {
        Err(Failure::new(format!(
            "voxel {index} of the image is {}, expected finite intensities",
            values[index].into()
        )))
    })
}

/// Smallest and largest value.
fn range<T: Number>(values: &[T]) -> Result<(f64, f64)> {
    let numbers = || values.iter().map(|&value| value.into());
    let (low, high) =
        (numbers().fold(f64::INFINITY, f64::min), numbers().fold(f64::NEG_INFINITY, f64::max));
    if low >= high {
        return Err(Failure::new(format!(
            "all voxels of the image are {low}, expected more than one intensity"
        )));
    }
    Ok((low, high))
}

/// The smallest value that this share of the values do not exceed.
fn at_share<T: Number>(mut values: Vec<T>, share: f64) -> f64 {
    let count = values.len();
    let reached = |below: usize| below as f64 / count as f64 >= share;
    let place = ((share * count as f64) as usize).saturating_sub(1).max(1);
    let first = (place..=count).find(|&below| reached(below)).unwrap_or(count);
    let ascending = |a: &T, b: &T| Into::<f64>::into(*a).total_cmp(&(*b).into());
    (*values.select_nth_unstable_by(first - 1, ascending).1).into()
}

/// The first bin centre at which the cumulative histogram reaches `share`: of scikit-image, one bin for each whole
/// number, else 256 between `low` and `high`.
fn brightest_kept<T: Number>(values: &[T], (low, high): (f64, f64), share: f64) -> f64 {
    if values.iter().all(|&value| value.into().fract() == 0.0) {
        return at_share(values.to_vec(), share);
    }
    let width = (high - low) / BIN_COUNT as f64;
    let edge = |bin: usize| low + bin as f64 * width;
    let mut counts = [0usize; BIN_COUNT];
    for &value in values {
        counts[(((value.into() - low) / width) as usize).min(BIN_COUNT - 1)] += 1;
    }
    let mut below = 0;
    let reached = counts.iter().position(|count| {
        below += count;
        below as f64 / values.len() as f64 >= share
    });
    match reached.unwrap_or(BIN_COUNT - 1) {
        bin if bin < FIRST_USEFUL_BIN => at_share(values.to_vec(), share),
        bin => f64::midpoint(edge(bin), edge(bin + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Z_SCORE: Intensities = Intensities::ZScore { over: Over::All };

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
        for kind in [Intensities::Published, Intensities::Robust, Z_SCORE] {
            let scale = |values: &[f64]| scale(kind, values);
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

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn windows_and_scores_are_their_formulas() {
        let values = [-2000.0f32, 0.0, 40.0, 140.0];
        let window = Intensities::Window { low: -160.0, high: 240.0 };
        close(&scale(window, &values).unwrap(), &[0.0, 0.4, 0.5, 0.75]);
        let fixed = Intensities::Fixed { low: -160.0, high: 100.0, mean: 40.0, deviation: 20.0 };
        close(&scale(fixed, &values).unwrap(), &[-10.0, -2.0, 0.0, 3.0]);
        // Their mean is 5, their deviation 2.
        let known = [2.0f32, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let expected = [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0];
        close(&scale(Z_SCORE, &known).unwrap(), &expected);
        let nonzero = Intensities::ZScore { over: Over::Nonzero };
        let padded = [&[0.0f32; 3][..], &known].concat();
        let scored = scale(nonzero, &padded).unwrap();
        assert_eq!(&scored[..3], &[0.0; 3]);
        close(&scored[3..], &expected);
        assert_eq!(
            scale(nonzero, &[0.0, 3.0, 3.0]).unwrap_err().message(),
            "all voxels of the image that are not 0 are 3, expected more than one intensity"
        );
        assert_eq!(scale(Intensities::EightBit, &[0.0, 51.0, 255.0]).unwrap(), [0.0, 0.2, 1.0]);
        assert_eq!(scale(Intensities::AsStored, &[-3.5f32]).unwrap(), [-3.5]);
        assert_eq!(scale(Intensities::Scaled, &[0.0f32, 0.25, 1.0]).unwrap(), [0.0, 0.25, 1.0]);
        let refused = |kind| scale(kind, &[0.5f32, 300.0]).unwrap_err().message().to_owned();
        assert_eq!(refused(Intensities::Scaled), "the image holds intensity 300, expected 0 to 1");
        assert_eq!(
            refused(Intensities::EightBit),
            "the image holds intensity 300, expected 0 to 255"
        );
        assert!(scale(Intensities::AsStored, &[f32::INFINITY]).is_err());
    }

    #[test]
    fn the_type_that_holds_the_numbers_changes_nothing() {
        let narrow: Vec<f32> = (0..500).map(|i| ((i * 37) % 211) as f32 / 8.0).collect();
        let wide: Vec<f64> = narrow.iter().map(|&value| f64::from(value)).collect();
        for kind in [Intensities::Published, Intensities::Robust, Z_SCORE] {
            assert_eq!(scale(kind, &narrow).unwrap(), scale(kind, &wide).unwrap());
        }
    }

    #[test]
    fn brain_is_scaled_by_itself_and_air_goes_with_it() {
        // 1 to 999 and 50 000 beside as many zeros: 999 of 1000 are reached at 998 of the brain.
        let mut values = vec![0.0f32; 1000];
        values.extend((1..1000u16).map(f32::from));
        values.push(50_000.0);
        let scaled = scale(Intensities::PublishedBrats, &values).unwrap();
        let brain: Vec<f64> =
            (1..1000).map(|value| f64::from(value.min(998))).chain([998.0]).collect();
        let mean = brain.iter().sum::<f64>() / 1000.0;
        let deviation =
            (brain.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 1000.0).sqrt();
        for (place, value) in [(0, 0.0), (1000, 1.0), (1499, 500.0), (1998, 998.0), (1999, 998.0)] {
            let expected = (value - mean) / deviation;
            assert!((f64::from(scaled[place]) - expected).abs() < 1e-6, "{place}");
        }
        // Too little brain for the share: nothing is cut.
        let mut values = vec![0.0f32; 5000];
        values[..2].copy_from_slice(&[1.0, 3.0]);
        assert_eq!(&scale(Intensities::PublishedBrats, &values).unwrap()[..3], &[-1.0, 1.0, -2.0]);
        let refused = |values: &[f32]| {
            scale(Intensities::PublishedBrats, values).unwrap_err().message().to_owned()
        };
        assert_eq!(
            refused(&[0.0, 7.0, 7.0]),
            "all voxels of the image above 0 are 7, expected more than one intensity"
        );
        assert_eq!(
            refused(&[0.0, -7.0]),
            "no voxel of the image is above 0, expected more than one intensity"
        );
    }

    #[test]
    fn numbers_of_a_data_set_are_those_of_its_foreground() {
        let mut foreground = Foreground::default();
        assert!(foreground.fixed().is_err());
        foreground.add(&(0..400).map(f64::from).collect::<Vec<_>>());
        foreground.add(&(400..1000).map(f64::from).collect::<Vec<_>>());
        let Intensities::Fixed { low, high, mean, deviation } = foreground.fixed().unwrap() else {
            panic!("another kind");
        };
        assert_eq!((low, high, mean), (4.0, 994.0, 499.5));
        assert!((deviation - 288.675).abs() < 1e-3, "{deviation}");
        // One case of a million voxels counts as much as each of nine smaller ones.
        let mut foreground = Foreground::default();
        foreground.add(&vec![1.0; 1_000_000]);
        (0..9).for_each(|_| foreground.add(&vec![0.0; VOXELS_PER_CASE]));
        let Intensities::Fixed { mean, .. } = foreground.fixed().unwrap() else {
            panic!("another kind");
        };
        assert!((mean - 0.1).abs() < 1e-9, "{mean}");
    }
}
