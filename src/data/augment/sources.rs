//! Where the pixels of an augmented sample lie in its slice, as a few numbers for each row and column.
//!
//! For those who gather many samples at once: the numbers are those that `apply` goes by, so that
//! the pixels can be the same. Knows no pixels, and not how a resampling computes the numbers.

use super::axes::Axis;

/// The coordinates of a line that a resize leaves without a source, whatever is added to them.
pub(super) const MISSING: [f64; 2] = [f64::NEG_INFINITY; 2];

/// The coordinates of a line that lies outside of the slice, whatever is added to them.
pub(super) const OUTSIDE: [f64; 2] = [f64::INFINITY; 2];

/// Where the pixels of one sample lie in its slice.
///
/// Pixel `[i, j]` lies at the coordinates `rows[i] + columns[j]`, in pixels from the first element
/// of the turned slice; the resampling says what is made of coordinates between elements and outside.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelSources {
    /// The part of both coordinates that a row gives; negative infinity where the resize leaves the
    /// row empty, infinity where it lies outside of the slice.
    pub rows: Vec<[f64; 2]>,
    /// The part that a column gives, likewise.
    pub columns: Vec<[f64; 2]>,
    /// The last element of the turned slice along its rows and its columns.
    pub last: [usize; 2],
    /// The offset of its first element in the slice as stored.
    pub first: usize,
    /// How far two elements that are neighbours along an axis lie apart in the slice as stored.
    pub steps: [isize; 2],
    /// Coordinates are rounded to single precision before they are used.
    pub is_single: bool,
}

impl PixelSources {
    pub(super) fn new(axes: [Axis; 2], rows: Vec<[f64; 2]>, columns: Vec<[f64; 2]>) -> Self {
        Self {
            rows,
            columns,
            last: axes.map(|axis| axis.extent - 1),
            first: axes[0].first + axes[1].first,
            steps: axes.map(|axis| axis.step),
            is_single: false,
        }
    }
}
