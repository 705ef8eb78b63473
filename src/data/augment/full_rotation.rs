//! Flips, quarter turns and a turn by any angle in one: nearest pixels, no pixel read twice.
//!
//! The turn is that of torchvision on tensors, nearest pixels and halves to even, in double precision.
//! Knows not how angles are drawn.

use super::axes::Axis;
use super::fit::Lines;
use super::sources::{OUTSIDE, PixelSources};
use super::{Sample, Slice};
use crate::config::sampling::Fit;

/// What happens to a slice, in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FullRotation {
    /// Whether the order of rows and that of columns is reversed.
    pub flips: [bool; 2],
    /// How many quarter turns counter-clockwise, 0 to 3.
    pub quarter_turns: u8,
    /// By which angle it is turned about its middle, counter-clockwise; what leaves its own rows and columns
    /// is lost.
    pub degrees: f64,
}

impl FullRotation {
    /// Where the pixels come from of a sample of the shape `to`.
    ///
    /// With `t` the angle, the pixel in row `i` and column `j` of a turned slice of `h` rows and `w` columns is
    /// the nearest to column `cos t x - sin t y + (w - 1) / 2` and row `sin t x + cos t y + (h - 1) / 2` of the
    /// slice, where `x = j - (w - 1) / 2` and `y = i - (h - 1) / 2`.
    pub(super) fn sources(&self, fit: Fit, shape: [usize; 2], to: [usize; 2]) -> PixelSources {
        let axes = Axis::flipped(shape, self.flips, self.quarter_turns);
        let (sine, cosine) = self.degrees.to_radians().sin_cos();
        let extents = axes.map(|axis| axis.extent);
        let [middle_row, middle_column] = extents.map(|extent| (extent as f64 - 1.0) / 2.0);
        let lines = |side: usize| Lines::new(fit, extents[side], to[side]);
        let rows = lines(0).each(to[0], OUTSIDE, |row| {
            let y = row as f64 - middle_row;
            [cosine * y + middle_row, middle_column - sine * y]
        });
        let columns = lines(1).each(to[1], OUTSIDE, |column| {
            let x = column as f64 - middle_column;
            [sine * x, cosine * x]
        });
        PixelSources::new(axes, rows, columns)
    }

    /// Writes the pixels of [`FullRotation::sources`].
    pub(super) fn apply(&self, fit: Fit, slice: &Slice<'_>, sample: &mut Sample<'_>) {
        let PixelSources { rows, columns, last, first, steps, .. } =
            self.sources(fit, slice.shape, sample.shape);
        let width = sample.shape[1];
        let lines =
            sample.image.chunks_exact_mut(width).zip(sample.annotation.chunks_exact_mut(width));
        let element = |at: f64, last: usize| {
            let nearest = at.round_ties_even();
            (0.0..=last as f64).contains(&nearest).then_some(nearest as isize)
        };
        for (row, (image, annotation)) in rows.iter().zip(lines) {
            for ((column, pixel), label) in columns.iter().zip(image).zip(annotation) {
                let found =
                    element(row[0] + column[0], last[0]).zip(element(row[1] + column[1], last[1]));
                (*pixel, *label) = found.map_or((0.0, slice.outside), |(row, column)| {
                    let place = first.wrapping_add_signed(row * steps[0] + column * steps[1]);
                    (slice.image[place], slice.annotation[place])
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The labels of a slice that are made by `turn`.
    fn made(turn: FullRotation, shape: [usize; 2], labels: &[u8], to: [usize; 2]) -> Vec<u8> {
        let image: Vec<f32> = labels.iter().map(|&label| f32::from(label)).collect();
        let slice = Slice { shape, image: &image, annotation: labels, outside: 99 };
        let (mut image, mut annotation) = (vec![f32::NAN; to[0] * to[1]], vec![77; to[0] * to[1]]);
        let mut sample = Sample { shape: to, image: &mut image, annotation: &mut annotation };
        turn.apply(Fit::Crop, &slice, &mut sample);
        for (&value, &label) in image.iter().zip(&annotation) {
            let expected = if label == 99 { 0.0 } else { f32::from(label) };
            assert!((value - expected).abs() < 1e-6, "{value} {label}");
        }
        annotation
    }

    #[test]
    fn flips_come_first_then_quarter_turns_then_the_angle() {
        let labels = [1, 2, 3, 4, 5, 6];
        let still = FullRotation { flips: [false; 2], quarter_turns: 0, degrees: 0.0 };
        assert_eq!(made(still, [2, 3], &labels, [2, 3]), labels);
        assert_eq!(
            made(still, [2, 3], &labels, [4, 3]),
            [99, 99, 99, 1, 2, 3, 4, 5, 6, 99, 99, 99]
        );
        let flipped = FullRotation { flips: [true, false], ..still };
        assert_eq!(made(flipped, [2, 3], &labels, [2, 3]), [4, 5, 6, 1, 2, 3]);
        let turned = FullRotation { quarter_turns: 1, ..still };
        assert_eq!(made(turned, [2, 3], &labels, [3, 2]), [3, 6, 2, 5, 1, 4]);
        let both = FullRotation { flips: [true, false], quarter_turns: 1, ..still };
        assert_eq!(made(both, [2, 3], &labels, [3, 2]), [6, 3, 5, 2, 4, 1]);
        // A quarter by the angle keeps two rows of three columns and loses what leaves them.
        let quarter = FullRotation { degrees: 90.0, ..still };
        assert_eq!(
            made(quarter, [3, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9], [3, 3]),
            [3, 6, 9, 2, 5, 8, 1, 4, 7]
        );
        let half = FullRotation { degrees: 180.0, flips: [true, true], ..still };
        assert_eq!(made(half, [2, 3], &labels, [2, 3]), labels);
    }
}
