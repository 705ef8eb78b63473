//! The steps of the label of the dense CRF: scores, marginals, corners and grey levels.
//!
//! Knows grey pictures and marginals of one lesion label; the random field itself is [`crate::crf`].

use super::SoftLesion;
use crate::crf::{Bilateral, DenseCrf, Gaussian, Image, unary_costs};
use crate::error::Result;

/// The random field of the repository, for pictures of 256 x 256.
pub const FIELD: DenseCrf = DenseCrf {
    gaussian: Some(Gaussian { widths_pixels: [3.0; 2], compatibility: 3.0 }),
    bilateral: Some(Bilateral {
        widths_pixels: [80.0; 2],
        widths_levels: [13.0; 3],
        compatibility: 10.0,
    }),
    iterations: 10,
};

/// Keeps the largest score below 1 and a division by it possible.
const SCORE_MARGIN: f64 = 1e-5;

/// The picture for which the sizes of the corners are given.
const REFERENCE_SIZE: usize = 256;

/// How many rows and columns together a pixel of a cut corner lies from it at most, and at least how
/// far its row and column are apart, or together from the first corner, in the three others.
const NEAR_FIRST_CORNER: usize = 80;
const ACROSS_TO_SIDE_CORNER: usize = 176;
const ACROSS_TO_LAST_CORNER: usize = 432;

/// Scores of background and lesion, `[2, rows, columns]`, from the reversed mask in grey levels.
///
/// `lesion = c / (max c + 1e-5)` with `c = 1 - level / 255`, `background = (1 - lesion)^alpha`. They
/// do not sum to 1.
pub fn crf_scores(reversed: &[u8], alpha: u32) -> Vec<f64> {
    let share = |&level: &u8| 1.0 - f64::from(level) / 255.0;
    let largest = reversed.iter().map(share).fold(0.0, f64::max);
    let lesion: Vec<f64> =
        reversed.iter().map(|level| share(level) / (largest + SCORE_MARGIN)).collect();
    let background = lesion.iter().map(|score| (1.0 - score).powf(f64::from(alpha)));
    background.chain(lesion.iter().copied()).collect()
}

/// The marginals of the lesion, `[rows, columns]`, from the scores `[2, rows, columns]`.
pub(super) fn lesion_marginals(lesion: &SoftLesion<'_>, scores: &[f64]) -> Result<Vec<f32>> {
    // OpenCV reads pictures as blue, green, red.
    let pixels: Vec<u8> =
        lesion.image.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [b, g, r]).collect();
    let image = Image { columns: lesion.columns, pixels: &pixels };
    let mut marginals = FIELD.marginals(image, &unary_costs(scores))?;
    Ok(marginals.split_off(lesion.mask.len()))
}

/// Sets to 0 what lies in the four corners of `values`, `[rows, columns]`.
///
/// With row `i` and column `j` of 256: `i + j <= 80`, `i - j >= 176`, `j - i >= 176` and
/// `i + j >= 432`. In a picture of another size `i` and `j` count in 256ths of its sides.
pub fn cut_corners(values: &mut [f32], columns: usize) {
    let rows = values.len() / columns;
    // All in units of which a side has 256 times rows times columns.
    let whole = rows * columns;
    for (pixel, value) in values.iter_mut().enumerate() {
        let down = pixel / columns * REFERENCE_SIZE * columns;
        let across = pixel % columns * REFERENCE_SIZE * rows;
        let side = ACROSS_TO_SIDE_CORNER * whole;
        if down + across <= NEAR_FIRST_CORNER * whole
            || down >= across + side
            || across >= down + side
            || down + across >= ACROSS_TO_LAST_CORNER * whole
        {
            *value = 0.0;
        }
    }
}

/// Marginals in `[0, 1]` as the grey levels 0 to 255 in which `imageio` writes 255 times them.
///
/// A picture of floats that is anywhere above 1 is stretched from its smallest to its largest value,
/// so that what is written depends on the whole picture: `(x - min) / (max - min) * 255`. One that
/// is not, although it was multiplied by 255, is taken for one in `[0, 1]` and multiplied again; one
/// of a single value is left as it is.
pub fn stretched_levels(marginals: &[f32]) -> Vec<u8> {
    // One half, but that a value half way between two levels goes to the lower one.
    const ROUNDING: f64 = 0.499_999_999;
    let values = || marginals.iter().map(|marginal| marginal * 255.0);
    let (smallest, largest) = values()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    let level = |value: f32| {
        let value = f64::from(value);
        if largest <= 1.0 {
            value * 255.0 + ROUNDING
        } else if largest > smallest {
            (value - f64::from(smallest)) / f64::from(largest - smallest) * 255.0 + ROUNDING
        } else {
            value
        }
    };
    values().map(|value| level(value) as u8).collect()
}
