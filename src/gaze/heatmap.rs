//! Fixations as a map: how long somebody looked near each place, from 0 to 255.
//!
//! Takes every step as the published code does, in its order and precision, but sums up only where somebody looked:
//! a few dozen places of 590 000. Knows no pictures but their shape.

use super::Fixation;
use super::resample::cubic;
use crate::error::{Failure, Result};
use std::collections::BTreeMap;

/// Rows and columns of the canvas that every picture is laid on, whatever its own shape: where a picture is wider than
/// high, what is round on the canvas is wider than high on the picture.
pub const CANVAS: usize = 768;

/// After how many deviations a Gaussian ends.
const TRUNCATION: f64 = 4.0;

/// How long somebody looked at the cells of a canvas.
#[derive(Debug, Clone, PartialEq)]
pub struct Canvas {
    shape: [usize; 2],
    /// Milliseconds by column and row, where there are any.
    columns: BTreeMap<usize, BTreeMap<usize, f32>>,
}

impl Canvas {
    /// Lays fixations on a canvas of `shape`, rows and columns of at least 1.
    ///
    /// Column `round(x * columns) - 1` and row `round(y * rows) - 1`, halves to the even number; what would lie one
    /// before the first is the last one.
    pub fn of(fixations: &[Fixation], shape: [usize; 2]) -> Self {
        let mut columns: BTreeMap<usize, BTreeMap<usize, f32>> = BTreeMap::new();
        let cell = |share: f64, extent: usize| {
            let counted = (share * extent as f64).round_ties_even() as usize;
            counted.checked_sub(1).unwrap_or(extent - 1).min(extent - 1)
        };
        for fixation in fixations {
            let (row, column) = (cell(fixation.y, shape[0]), cell(fixation.x, shape[1]));
            *columns.entry(column).or_default().entry(row).or_default() +=
                fixation.duration_ms as f32;
        }
        Self { shape, columns }
    }

    /// All cells, `[rows, columns]`, each smoothed by a Gaussian of `deviation` cells, above 0, along rows and columns.
    ///
    /// The Gaussian ends at 4 deviations, and beyond its edges the canvas is its own mirror image, as
    /// `gaussian_filter` of scipy has it.
    pub fn blurred(&self, deviation: f64) -> Vec<f32> {
        let kernel = kernel(deviation);
        let [rows, columns] = self.shape;
        // Along the columns first; both steps end in single precision.
        let lines: Vec<(Vec<f64>, Vec<f64>)> = self
            .columns
            .iter()
            .map(|(&column, cells)| {
                let mut down = vec![0.0; rows];
                for (&row, &duration) in cells {
                    let spread = spread(&kernel, row, rows);
                    let sums = down.iter_mut().zip(spread);
                    sums.for_each(|(sum, weight)| *sum += weight * f64::from(duration));
                }
                for sum in &mut down {
                    *sum = f64::from(*sum as f32);
                }
                (down, spread(&kernel, column, columns))
            })
            .collect();
        let mut blurred = Vec::with_capacity(rows * columns);
        let mut sums = vec![0.0; columns];
        for row in 0..rows {
            sums.fill(0.0);
            for (down, across) in &lines {
                let value = down[row];
                sums.iter_mut().zip(across).for_each(|(sum, weight)| *sum += value * weight);
            }
            blurred.extend(sums.iter().map(|&sum| sum as f32));
        }
        blurred
    }
}

/// The weights of a Gaussian from its middle on, which sum to 1 with those on the other side.
fn kernel(deviation: f64) -> Vec<f64> {
    let reach = (TRUNCATION * deviation + 0.5) as usize;
    let weight = |offset: usize| (-0.5 / (deviation * deviation) * (offset * offset) as f64).exp();
    let weights: Vec<f64> = (0..=reach).map(weight).collect();
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// How much of what lies in cell `place` of `extent` each of them gets.
fn spread(kernel: &[f64], place: usize, extent: usize) -> Vec<f64> {
    let mut weights = vec![0.0; extent];
    let (period, reach) = (2 * extent as i64, kernel.len() as i64 - 1);
    let turns = reach / period + 1;
    for turn in -turns..=turns {
        // The cell, and its image in the mirror at the edge.
        for image in [turn * period + place as i64, turn * period - 1 - place as i64] {
            let first = (image - reach).max(0);
            let last = (image + reach).min(extent as i64 - 1);
            for index in first..=last {
                weights[index as usize] += kernel[(index - image).unsigned_abs() as usize];
            }
        }
    }
    weights
}

/// A map from 0, its smallest value, to 1, its largest. Refuses a map of one value.
pub fn unit_range(map: &[f32]) -> Result<Vec<f32>> {
    let (low, high) = map.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| {
        (low.min(value), high.max(value))
    });
    let range = high - low;
    if range > 0.0 && range.is_finite() {
        return Ok(map.iter().map(|value| (value - low) / range).collect());
    }
    Err(Failure::new(format!(
        "a map of gaze is {low} everywhere, expected places where somebody looked longer than elsewhere"
    )))
}

/// The map of `fixations` on a picture of `shape`, rows and columns of at least 1: levels from 0 to 255.
///
/// As [`heatmap_on`] a canvas of [`CANVAS`] rows and columns, of which `deviation` is 70 in published runs on
/// Kvasir-SEG and 50 on NCI-ISBI 2013.
pub fn heatmap(fixations: &[Fixation], deviation: f64, shape: [usize; 2]) -> Result<Vec<u8>> {
    heatmap_on([CANVAS; 2], fixations, deviation, shape)
}

/// The map of `fixations` laid on a `canvas` and smoothed by `deviation` of its cells, scaled to `[0, 1]`, brought to
/// `shape` by cubic pieces, and taken 255 times and cut to whole numbers in half precision.
///
/// Refuses what smooths to one value.
pub fn heatmap_on(
    canvas: [usize; 2],
    fixations: &[Fixation],
    deviation: f64,
    shape: [usize; 2],
) -> Result<Vec<u8>> {
    let map = unit_range(&Canvas::of(fixations, canvas).blurred(deviation))?;
    Ok(bytes(&cubic(&map, canvas, shape)))
}

/// 255 times the numbers in half precision, without what follows the point; what lies outside of 0 to 255 is cut.
fn bytes(map: &[f32]) -> Vec<u8> {
    map.iter().map(|&value| half(half(value) * 255.0) as u8).collect()
}

/// The nearest number of half precision, of two the one whose last bit is 0; far below its range.
fn half(value: f32) -> f32 {
    // Half precision has 10 bits behind the point, and steps of 2^-24 below 2^-14.
    let exponent = ((value.to_bits() >> 23) & 0xff) as i32 - 127;
    let step = 2.0_f32.powi(exponent.max(-14) - 10);
    (value / step).round_ties_even() * step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixation(x: f64, y: f64, duration_ms: f64) -> Fixation {
        Fixation { x, y, duration_ms }
    }

    #[test]
    fn cells_are_rounded_to_even_and_the_first_edge_is_the_last_cell() {
        let cells = |x: f64, y: f64| {
            let Canvas { columns, .. } = Canvas::of(&[fixation(x, y, 100.0)], [8, 4]);
            let (column, rows) = columns.into_iter().next().unwrap();
            [rows.into_keys().next().unwrap(), column]
        };
        // 0.5 * 8 = 4 and 0.625 * 4 = 2.5, which is rounded to 2.
        assert_eq!(cells(0.625, 0.5), [3, 1]);
        assert_eq!(cells(0.875, 1.0), [7, 3]);
        assert_eq!(cells(0.0, 0.06), [7, 3]);
        let twice = Canvas::of(&[fixation(0.5, 0.5, 100.0), fixation(0.5, 0.5, 50.0)], [8, 8]);
        assert_eq!(twice.columns[&3][&3].to_bits(), 150.0_f32.to_bits());
    }

    /// By the definition: every cell of a mirrored canvas, weighted.
    fn plainly(canvas: &Canvas, deviation: f64) -> Vec<f64> {
        let [rows, columns] = canvas.shape;
        let kernel = kernel(deviation);
        let reach = kernel.len() as i64 - 1;
        let mirrored = |at: i64, extent: usize| {
            let at = at.rem_euclid(2 * extent as i64) as usize;
            at.min(2 * extent - 1 - at)
        };
        let cell = |row: usize, column: usize| {
            canvas.columns.get(&column).and_then(|cells| cells.get(&row)).copied().unwrap_or(0.0)
        };
        let mut sums = Vec::new();
        for row in 0..rows as i64 {
            for column in 0..columns as i64 {
                let mut sum = 0.0;
                for down in -reach..=reach {
                    for across in -reach..=reach {
                        let weight = kernel[down.unsigned_abs() as usize]
                            * kernel[across.unsigned_abs() as usize];
                        let value =
                            cell(mirrored(row + down, rows), mirrored(column + across, columns));
                        sum += weight * f64::from(value);
                    }
                }
                sums.push(sum);
            }
        }
        sums
    }

    #[test]
    fn only_looked_at_cells_are_summed_up_and_nothing_is_lost() {
        let fixations =
            [fixation(0.1, 0.9, 120.0), fixation(0.55, 0.2, 300.0), fixation(1.0, 1.0, 80.0)];
        let canvas = Canvas::of(&fixations, [9, 6]);
        for deviation in [0.4, 1.7, 5.0] {
            let (found, expected) = (canvas.blurred(deviation), plainly(&canvas, deviation));
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-4,
                    "{deviation}: {found} {expected}"
                );
            }
            assert!((found.iter().sum::<f32>() - 500.0).abs() < 1e-2);
        }
    }

    #[test]
    fn half_precision_is_rounded_to_even() {
        // 1 + 2^-11 lies between two numbers, and the one with the even last bit is 1.
        for (value, expected) in [
            (1.0 + 2.0_f32.powi(-11), 1.0),
            (1.0 + 3.0 * 2.0_f32.powi(-11), 1.0 + 2.0_f32.powi(-9)),
            (0.1, 0.099_975_586),
            (254.937_5, 255.0),
            (1e-5, 168.0 * 2.0_f32.powi(-24)),
            (0.0, 0.0),
            (-0.25, -0.25),
        ] {
            assert!((half(value) - expected).abs() < 1e-12, "{value}: {}", half(value));
        }
        assert_eq!(bytes(&[-0.01, 0.0, 0.5, 0.999, 1.0, 1.02]), [0, 0, 127, 254, 255, 255]);
    }

    #[test]
    fn the_longest_look_is_the_brightest_and_nothing_to_see_is_refused() {
        let map = heatmap(&[fixation(0.25, 0.75, 90.0)], 50.0, [40, 80]).unwrap();
        let brightest = (0..map.len()).max_by_key(|&pixel| map[pixel]).unwrap();
        assert!(
            map[brightest] >= 245 && brightest / 80 >= 28 && brightest % 80 <= 21,
            "{brightest}"
        );
        assert!(heatmap(&[], 50.0, [40, 80]).is_err());
    }
}
