//! Between the pixels of a map: cubic pieces as published code takes them, and straight lines.
//!
//! The centres of pixels lie half a pixel from the edges, and the edges of both maps coincide; beyond its edge a map
//! goes on as its last pixel. Nothing is smoothed where pixels become fewer. Knows plain numbers.

/// What bends the pieces of a cubic.
const CUBIC: f32 = -0.75;

/// The four pixels around a place, and their weights.
#[derive(Clone, Copy)]
struct Taps {
    places: [usize; 4],
    weights: [f32; 4],
}

impl Taps {
    /// Those of pixel `index` of `to`, made of `from` pixels, by single-precision numbers as in PyTorch.
    fn at(index: usize, to: usize, from: usize) -> Self {
        let scale = from as f32 / to as f32;
        let position = scale * (index as f32 + 0.5) - 0.5;
        let before = position.floor();
        let share = position - before;
        let last = from as i64 - 1;
        let place = |offset: i64| (before as i64 + offset).clamp(0, last) as usize;
        Self {
            places: [-1, 0, 1, 2].map(place),
            weights: [outer(share + 1.0), inner(share), inner(1.0 - share), outer(2.0 - share)],
        }
    }

    fn sum(&self, values: impl Fn(usize) -> f32) -> f32 {
        let [first, ..] = self.weights;
        let rest = self.places.iter().zip(self.weights).skip(1);
        rest.fold(values(self.places[0]) * first, |sum, (&place, weight)| {
            sum + values(place) * weight
        })
    }
}

/// The weight of a pixel less than one pixel away.
fn inner(distance: f32) -> f32 {
    ((CUBIC + 2.0) * distance - (CUBIC + 3.0)) * distance * distance + 1.0
}

/// The weight of a pixel one to two pixels away.
fn outer(distance: f32) -> f32 {
    ((CUBIC * distance - 5.0 * CUBIC) * distance + 8.0 * CUBIC) * distance - 4.0 * CUBIC
}

/// A map of `from` rows and columns with `to` of them, by cubic pieces whose parameter is -0.75.
pub(super) fn cubic(map: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let taps = |axis: usize| {
        (0..to[axis]).map(move |index| Taps::at(index, to[axis], from[axis])).collect::<Vec<_>>()
    };
    let (rows, columns) = (taps(0), taps(1));
    let mut lines = [(); 4].map(|()| vec![0.0; to[1]]);
    let mut resampled = Vec::with_capacity(to[0] * to[1]);
    for row in rows {
        for (line, &place) in lines.iter_mut().zip(&row.places) {
            let stored = &map[place * from[1]..][..from[1]];
            for (value, taps) in line.iter_mut().zip(&columns) {
                *value = taps.sum(|place| stored[place]);
            }
        }
        // The weights of the four lines that were just made.
        let along = Taps { places: [0, 1, 2, 3], weights: row.weights };
        resampled.extend((0..to[1]).map(|column| along.sum(|line| lines[line][column])));
    }
    resampled
}

/// Between which two pixels a place lies, and how far it is from the first to the second.
struct Between {
    first: usize,
    second: usize,
    share: f64,
}

impl Between {
    fn at(index: usize, to: usize, from: usize) -> Self {
        let position = (index as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let position = position.clamp(0.0, (from - 1) as f64);
        let first = position as usize;
        Self { first, second: (first + 1).min(from - 1), share: position - first as f64 }
    }

    fn mix(&self, first: f64, second: f64) -> f64 {
        first + self.share * (second - first)
    }
}

/// A map of `from` rows and columns with `to` of them, by straight lines; where it is constant it stays so, bit by
/// bit.
pub(super) fn linear(map: &[f64], from: [usize; 2], to: [usize; 2]) -> Vec<f64> {
    let columns: Vec<Between> =
        (0..to[1]).map(|column| Between::at(column, to[1], from[1])).collect();
    let mut resampled = Vec::with_capacity(to[0] * to[1]);
    for row in 0..to[0] {
        let row = Between::at(row, to[0], from[0]);
        let (above, below) = (&map[row.first * from[1]..], &map[row.second * from[1]..]);
        resampled.extend(columns.iter().map(|at| {
            let along = |line: &[f64]| at.mix(line[at.first], line[at.second]);
            row.mix(along(above), along(below))
        }));
    }
    resampled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_a_map_of_the_same_size_stays() {
        for index in 0..13 {
            let Taps { weights, .. } = Taps::at(index, 13, 7);
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{weights:?}");
        }
        let map: Vec<f32> = (0..35).map(|i: u8| f32::from((i * 7) % 11)).collect();
        assert_eq!(cubic(&map, [7, 5], [7, 5]), map);
        let map: Vec<f64> = map.into_iter().map(f64::from).collect();
        assert_eq!(linear(&map, [7, 5], [7, 5]), map);
    }

    #[test]
    fn a_constant_stays_and_a_single_row_is_repeated() {
        let tenth = 51.0 / 255.0;
        assert_eq!(linear(&[tenth; 6], [2, 3], [5, 7]), [tenth; 35]);
        assert_eq!(linear(&[1.0, 3.0], [1, 2], [2, 4]), [1.0, 1.5, 2.5, 3.0].repeat(2));
        assert!(cubic(&[2.0; 6], [2, 3], [5, 7]).iter().all(|value| (value - 2.0).abs() < 1e-5));
    }
}
