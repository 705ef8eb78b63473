//! A simulated scan path: the fixations of somebody who looks at a picture to find what is in it.
//!
//! The first look is at the middle, then some search around it, then most rest on the structure, within it and along
//! its edge, and some elsewhere. Counts and dwell times are those that were measured on the published fixations of
//! Kvasir-SEG: 26.8 in a picture (5 to 99), 50 to 3570 ms, 336 ms in the mean. What it draws is frozen: phantoms use
//! it. Knows a mask and chance; no pictures.

use super::Fixation;
use super::fixations::SHORTEST_MS;
use crate::random::Draws;

/// The number of fixations: the median, how its logarithm varies, and the bounds.
const COUNT: f64 = 24.5;
const COUNT_SPREAD: f64 = 0.42;
const COUNTS: [f64; 2] = [5.0, 99.0];

/// The dwell time in milliseconds: the median, how its logarithm varies, and the longest.
const DWELL_MS: f64 = 277.0;
const DWELL_SPREAD: f64 = 0.62;
const LONGEST_MS: f64 = 3570.0;

/// How much longer eyes rest on the structure, and elsewhere, than in the mean.
const DWELL_ON: f64 = 1.07;
const DWELL_ELSEWHERE: f64 = 0.7;

/// How far the first look lies from the middle, and how far those do that search; shares of the picture.
const FIRST_SPREAD: f64 = 0.06;
const SEARCH_SPREAD: f64 = 0.2;

/// The most looks before the structure is found.
const MOST_SEARCHES: u64 = 4;

/// The share of looks that go elsewhere once it is found.
const MISSES: f64 = 0.14;

/// The share of looks on the structure that follow its edge.
const ALONG_EDGE: f64 = 0.4;

/// How far a look within is drawn to the middle of the structure: from not at all to this share.
const DRAWN_INWARDS: f64 = 0.8;

/// The share of jumps that go too far, how much of the way these make, and how much all others make.
const OVERSHOOTS: f64 = 0.25;
const TOO_FAR: [f64; 2] = [1.04, 1.2];
const SHORT_OF: [f64; 2] = [0.9, 1.02];

/// How far off the tracker is, as a share of the picture.
const TRACKER_ERROR: f64 = 0.012;

/// The fixations of one look at a picture of `columns` columns, where `mask`, row by row, is not 0 on the structure.
///
/// Without a structure all looks search. Those that would lie outside of the picture are left out, so that there may
/// be fewer than 5.
pub fn scan_path(mask: &[u8], columns: usize, draws: &mut Draws) -> Vec<Fixation> {
    let structure = Structure::of(mask, columns);
    let count = (COUNT * (COUNT_SPREAD * draws.normal()).exp()).clamp(COUNTS[0], COUNTS[1]);
    let searches = 1 + draws.below(MOST_SEARCHES) as usize;
    let mut eyes = around_the_middle(FIRST_SPREAD, draws);
    let mut fixations = Vec::new();
    for number in 0..count as usize {
        let is_on = number > searches && !structure.pixels.is_empty() && draws.uniform() >= MISSES;
        let dwell = if is_on { DWELL_ON } else { DWELL_ELSEWHERE };
        if number > 0 {
            let aim =
                if is_on { structure.aim(draws) } else { around_the_middle(SEARCH_SPREAD, draws) };
            let range = if draws.uniform() < OVERSHOOTS { TOO_FAR } else { SHORT_OF };
            let share = draws.range(range[0], range[1]);
            eyes = [0, 1].map(|axis| eyes[axis] + share * (aim[axis] - eyes[axis]));
        }
        let [y, x] = eyes.map(|place| place + TRACKER_ERROR * draws.normal());
        let duration_ms = DWELL_MS * dwell * (DWELL_SPREAD * draws.normal()).exp();
        let duration_ms = duration_ms.clamp(SHORTEST_MS, LONGEST_MS).round();
        if [x, y].iter().all(|share| (0.0..=1.0).contains(share)) {
            fixations.push(Fixation { x, y, duration_ms });
        }
    }
    fixations
}

/// A place near the middle of the picture, as shares of its height and width.
fn around_the_middle(spread: f64, draws: &mut Draws) -> [f64; 2] {
    [(); 2].map(|()| (0.5 + spread * draws.normal()).clamp(0.0, 1.0))
}

/// What is looked for.
struct Structure {
    /// Rows and columns of the picture.
    shape: [f64; 2],
    pixels: Vec<[usize; 2]>,
    /// Those with a neighbour that is none of them.
    edge: Vec<[usize; 2]>,
    /// Their mean, as shares of the picture.
    middle: [f64; 2],
}

impl Structure {
    fn of(mask: &[u8], columns: usize) -> Self {
        let rows = mask.len() / columns.max(1);
        let is_in = |row: usize, column: usize| {
            row < rows && column < columns && mask[row * columns + column] != 0
        };
        let places = (0..rows * columns).map(|pixel| [pixel / columns, pixel % columns]);
        let pixels: Vec<[usize; 2]> = places.filter(|&[row, column]| is_in(row, column)).collect();
        let is_inside = |&[row, column]: &[usize; 2]| {
            is_in(row.wrapping_sub(1), column)
                && is_in(row + 1, column)
                && is_in(row, column.wrapping_sub(1))
                && is_in(row, column + 1)
        };
        let edge = pixels.iter().copied().filter(|pixel| !is_inside(pixel)).collect();
        let shape = [rows as f64, columns as f64];
        let mut middle = [0.0; 2];
        for pixel in &pixels {
            for axis in 0..2 {
                middle[axis] += (pixel[axis] as f64 + 0.5) / shape[axis] / pixels.len() as f64;
            }
        }
        Self { shape, pixels, edge, middle }
    }

    /// Where a look on it goes, as shares of the picture.
    fn aim(&self, draws: &mut Draws) -> [f64; 2] {
        let is_along = draws.uniform() < ALONG_EDGE;
        let chosen = if is_along { &self.edge } else { &self.pixels };
        let pixel = chosen[draws.below(chosen.len() as u64) as usize];
        let inwards = if is_along { 0.0 } else { draws.range(0.0, DRAWN_INWARDS) };
        [0, 1].map(|axis| {
            let place = (pixel[axis] as f64 + 0.5) / self.shape[axis];
            place + inwards * (self.middle[axis] - place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    /// A disc of a tenth of the picture, off its middle.
    fn mask() -> Vec<u8> {
        let is_in =
            |pixel: usize| (pixel / 50).abs_diff(18).pow(2) + (pixel % 50).abs_diff(34).pow(2) < 80;
        (0..2000).map(|pixel| u8::from(is_in(pixel))).collect()
    }

    #[test]
    fn counts_and_dwell_times_are_those_that_were_measured() {
        let (mut count, mut on, mut total_ms, mut first) = (0, 0, 0.0, [0.0; 2]);
        let (mut fewest, mut most) = (usize::MAX, 0);
        for number in 0..400 {
            let path = scan_path(&mask(), 50, &mut Key::new(3).number(number).draws());
            count += path.len();
            (fewest, most) = (fewest.min(path.len()), most.max(path.len()));
            first = [first[0] + path[0].x / 400.0, first[1] + path[0].y / 400.0];
            for Fixation { x, y, duration_ms } in path {
                assert!((0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y));
                assert!((50.0..=3570.0).contains(&duration_ms));
                total_ms += duration_ms;
                let pixel = ((y * 40.0) as usize).min(39) * 50 + ((x * 50.0) as usize).min(49);
                on += usize::from(mask()[pixel] == 1);
            }
        }
        let (mean, dwell_ms) = (count as f64 / 400.0, total_ms / count as f64);
        assert!((25.0..28.5).contains(&mean), "{mean}");
        assert!(fewest >= 4 && most > 50, "{fewest} {most}");
        assert!((320.0..352.0).contains(&dwell_ms), "{dwell_ms}");
        assert!((0.5..0.8).contains(&(on as f64 / count as f64)), "{on} of {count}");
        assert!(first.iter().all(|place| (place - 0.5).abs() < 0.02), "{first:?}");
    }

    #[test]
    fn the_same_key_draws_the_same_path_and_nothing_is_found_where_nothing_is() {
        let path = |seed| scan_path(&mask(), 50, &mut Key::new(seed).draws());
        assert_eq!(path(1), path(1));
        assert_ne!(path(1), path(2));
        assert!(!scan_path(&[0; 2000], 50, &mut Key::new(1).draws()).is_empty());
        assert!(!scan_path(&[], 1, &mut Key::new(1).draws()).is_empty());
    }
}
