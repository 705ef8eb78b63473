//! Binary pictures: Otsu's threshold, growing and shrinking, and the distance to the nearest pixel.
//!
//! As OpenCV does it, which takes what lies beyond the border for neither in nor out. Knows nothing
//! of what the pictures show.

/// The grey level that splits a picture best into the levels up to it and those above: the first
/// with the greatest variance between both; 0 where all pixels have one level.
///
/// Otsu, *A Threshold Selection Method from Gray-Level Histograms*, 1979, in OpenCV's arithmetic.
pub fn otsu(grey: &[u8]) -> u8 {
    let mut histogram = [0_u32; 256];
    for &level in grey {
        histogram[usize::from(level)] += 1;
    }
    let scale = 1.0 / grey.len() as f64;
    let levels = || (0..=u8::MAX).zip(histogram);
    let mean =
        levels().map(|(level, count)| f64::from(level) * f64::from(count)).sum::<f64>() * scale;
    let least_share = f64::from(f32::EPSILON);
    let (mut below, mut mean_below) = (0.0, 0.0);
    let (mut best, mut greatest) = (0, 0.0);
    for (level, count) in levels() {
        let share = f64::from(count) * scale;
        mean_below *= below;
        below += share;
        let above = 1.0 - below;
        if below.min(above) < least_share || below.max(above) > 1.0 - least_share {
            continue;
        }
        mean_below = (mean_below + f64::from(level) * share) / below;
        let mean_above = (mean - below * mean_below) / above;
        let variance = below * above * (mean_below - mean_above) * (mean_below - mean_above);
        if variance > greatest {
            (best, greatest) = (level, variance);
        }
    }
    best
}

/// Erosion, then dilation with a square of `2 * reach + 1` pixels.
pub(super) fn open(mask: &[bool], columns: usize, reach: usize) -> Vec<bool> {
    grow(&spread(mask, columns, reach, false), columns, reach)
}

/// Dilation with a square of `2 * reach + 1` pixels.
pub(super) fn grow(mask: &[bool], columns: usize, reach: usize) -> Vec<bool> {
    spread(mask, columns, reach, true)
}

/// Every pixel becomes `value` that has such a one at most `reach` rows and columns away.
fn spread(mask: &[bool], columns: usize, reach: usize, value: bool) -> Vec<bool> {
    let rows = mask.len() / columns;
    let window =
        |place: usize, count: usize| place.saturating_sub(reach)..(place + reach + 1).min(count);
    let mut along_rows = Vec::with_capacity(mask.len());
    for row in mask.chunks_exact(columns) {
        let near = |column| row[window(column, columns)].contains(&value);
        along_rows.extend((0..columns).map(|column| if near(column) { value } else { !value }));
    }
    let near = |pixel: usize| {
        window(pixel / columns, rows)
            .any(|row| along_rows[row * columns + pixel % columns] == value)
    };
    (0..mask.len()).map(|pixel| if near(pixel) { value } else { !value }).collect()
}

/// Steps to rows and columns from every pixel of the mask to the nearest one that is not in it; the
/// same large number everywhere where all are in it.
pub(super) fn city_block_distances(mask: &[bool], columns: usize) -> Vec<u32> {
    let far = (mask.len() + columns) as u32;
    let mut distances: Vec<u32> = mask.iter().map(|&inside| if inside { far } else { 0 }).collect();
    let relax = |distances: &mut [u32], pixel: usize, near: usize| {
        distances[pixel] = distances[pixel].min(distances[near] + 1);
    };
    for pixel in 0..mask.len() {
        if pixel % columns > 0 {
            relax(&mut distances, pixel, pixel - 1);
        }
        if pixel >= columns {
            relax(&mut distances, pixel, pixel - columns);
        }
    }
    for pixel in (0..mask.len()).rev() {
        if pixel % columns + 1 < columns {
            relax(&mut distances, pixel, pixel + 1);
        }
        if pixel + columns < mask.len() {
            relax(&mut distances, pixel, pixel + columns);
        }
    }
    distances
}
