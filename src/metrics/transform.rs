//! The nearest surface voxel by an exact Euclidean distance transform, one axis after the other.
//!
//! Its cost grows with the boxes around both surfaces and not with how far they lie apart. It sees only the
//! part of the volume that lies between them, and computes distances where the other surface lies alone.
//!
//! Source: Felzenszwalb & Huttenlocher, "Distance transforms of sampled functions", 2012: along a line the
//! squared distance is the lower envelope of a parabola for each voxel. With rounding, parabolas that meet
//! in one point may give sums that differ in the last bit, so that all of them are kept and the smallest
//! sum is taken. Axes are passed in the order in which `search` sums (slices, rows, columns), and rounding
//! keeps the order of numbers: both ways give the same bits.

use super::voxels::{Squares, SurfaceVoxels};
use std::ops::Range;

/// Marks a place that has no surface voxel along the slices.
const NONE_ALONG: u32 = u32::MAX;

/// The distances from each voxel of `from` to the nearest of `surface`.
pub(super) fn distances(
    from: &SurfaceVoxels,
    surface: &SurfaceVoxels,
    squares: &Squares,
) -> Vec<f64> {
    let [_, height, width] = surface.size();
    let slices = from.begin[0]..from.end[0];
    let along_slices = steps_along_slices(slices.clone(), surface);
    let mut plane = Plane::new(surface, squares);
    let mut distances = Vec::with_capacity(from.voxels.len());
    let mut rest = from.voxels.as_slice();
    for (slice, steps) in slices.zip(along_slices.chunks_exact(height * width)) {
        let count = rest.partition_point(|voxel| voxel[0] as usize == slice);
        let (voxels, later) = rest.split_at(count);
        rest = later;
        if let (Some(first), Some(last)) = (voxels.first(), voxels.last()) {
            plane.pass_rows(steps, first[1] as usize..last[1] as usize + 1);
            plane.pass_columns(voxels, &mut distances);
        }
    }
    distances
}

/// About how many parabolas are drawn and places looked at in [`distances`].
pub(super) fn cost(from: &SurfaceVoxels, surface: &SurfaceVoxels) -> usize {
    let ([depth, rows, _], [_, height, width]) = (from.size(), surface.size());
    let slices = from.voxels.chunk_by(|a, b| a[0] == b[0]).count();
    let lines = from.voxels.chunk_by(|a, b| a[..2] == b[..2]).count();
    // Steps along slices are counted many at a time.
    depth * height * width / 16 + slices * (height + rows) * width + lines * width
}

/// For each of `slices` and each row and column of the box of `surface`: steps along the slices to the
/// nearest surface voxel.
fn steps_along_slices(slices: Range<usize>, surface: &SurfaceVoxels) -> Vec<u32> {
    let [_, height, width] = surface.size();
    let mut steps = vec![NONE_ALONG; slices.len() * height * width];
    let all = slices.start.min(surface.begin[0])..slices.end.max(surface.end[0]);
    sweep(all.clone(), slices.start, surface, &mut steps);
    sweep(all.rev(), slices.start, surface, &mut steps);
    steps
}

/// Lowers `steps`, which begin at slice `first`, to those since the last surface voxel in the order of
/// `slices`.
fn sweep(
    slices: impl Iterator<Item = usize>,
    first: usize,
    surface: &SurfaceVoxels,
    steps: &mut [u32],
) {
    let [_, height, width] = surface.size();
    let by_slice: Vec<&[[u32; 3]]> = surface.voxels.chunk_by(|a, b| a[0] == b[0]).collect();
    let mut nearest = vec![NONE_ALONG; height * width];
    let planes = steps.len() / nearest.len();
    for slice in slices {
        for steps in &mut nearest {
            *steps = steps.saturating_add(1);
        }
        let here = by_slice.binary_search_by_key(&slice, |voxels| voxels[0][0] as usize);
        for [_, row, column] in here.map_or(&[][..], |index| by_slice[index]) {
            let row = *row as usize - surface.begin[1];
            nearest[row * width + *column as usize - surface.begin[2]] = 0;
        }
        if (first..first + planes).contains(&slice) {
            let plane = &mut steps[(slice - first) * nearest.len()..][..nearest.len()];
            for (steps, &nearest) in plane.iter_mut().zip(&nearest) {
                *steps = nearest.min(*steps);
            }
        }
    }
}

/// One slice on the way from steps along slices to distances.
struct Plane<'a> {
    surface: &'a SurfaceVoxels,
    squares: &'a Squares,
    along_rows: Envelope<'a>,
    along_columns: Envelope<'a>,
    /// The rows that distances are computed for.
    rows: Range<usize>,
    /// For each column of the box of the surface and each of `rows`: the square over slices and rows.
    values: Vec<f64>,
}

impl<'a> Plane<'a> {
    fn new(surface: &'a SurfaceVoxels, squares: &'a Squares) -> Self {
        Self {
            surface,
            squares,
            along_rows: Envelope::new(&squares.rows),
            along_columns: Envelope::new(&squares.columns),
            rows: 0..0,
            values: Vec::new(),
        }
    }

    /// Takes the steps along slices of one slice, and computes the squares for `rows`.
    fn pass_rows(&mut self, steps: &[u32], rows: Range<usize>) {
        let [_, _, width] = self.surface.size();
        self.values.clear();
        for column in 0..width {
            self.along_rows.clear();
            let steps = steps[column..].iter().step_by(width);
            for (row, &steps) in (self.surface.begin[1]..).zip(steps) {
                if steps != NONE_ALONG {
                    self.along_rows.add(row, self.squares.slices[steps as usize]);
                }
            }
            let values = rows.clone().map(|row| self.along_rows.lowest(row));
            self.values.extend(values);
        }
        self.rows = rows;
    }

    /// Computes the distance for each of `voxels`, which lie in this slice and in `rows`.
    fn pass_columns(&mut self, voxels: &[[u32; 3]], distances: &mut Vec<f64>) {
        for voxels in voxels.chunk_by(|a, b| a[1] == b[1]) {
            self.along_columns.clear();
            let row = voxels[0][1] as usize - self.rows.start;
            let values = self.values[row..].iter().step_by(self.rows.len());
            for (column, &value) in (self.surface.begin[2]..).zip(values) {
                if value.is_finite() {
                    self.along_columns.add(column, value);
                }
            }
            let columns = voxels.iter().map(|voxel| voxel[2] as usize);
            distances.extend(columns.map(|column| self.along_columns.lowest(column).sqrt()));
        }
    }
}

/// The lowest of some parabolas at each place of a line; all have the same width.
struct Envelope<'a> {
    /// Squared lengths of 0, 1, 2, … steps: the parabola.
    squares: &'a [f64],
    /// `1 / (2 squares[1] steps)`.
    inverse: Vec<f64>,
    parabolas: Vec<Parabola>,
    /// The first parabola that may be lowest at the places that are still to come.
    current: usize,
}

struct Parabola {
    place: usize,
    height: f64,
    /// From where on it is lower than the one before it.
    from: f64,
}

/// A parabola whose stretch is negative by more than this, in steps, is nowhere lowest, whatever the
/// rounding: right while no distance is more than 10^4 times the spacing of any axis. Beyond that the last
/// bit of a distance may be another.
const MARGIN: f64 = 1e-6;
/// Around the ends of its stretch a parabola is looked at as well. More than all margins of a line.
const WINDOW: f64 = 0.25;

impl<'a> Envelope<'a> {
    fn new(squares: &'a [f64]) -> Self {
        let step = squares.get(1).copied().unwrap_or(1.0);
        let inverse = (0..squares.len()).map(|steps| 0.5 / (step * steps as f64)).collect();
        Self { squares, inverse, parabolas: Vec::new(), current: 0 }
    }

    fn clear(&mut self) {
        self.parabolas.clear();
        self.current = 0;
    }

    /// Adds a parabola that stands at `place`, beyond all others.
    fn add(&mut self, place: usize, height: f64) {
        let mut from = f64::NEG_INFINITY;
        while let Some(last) = self.parabolas.last() {
            let middle = (place + last.place) as f64 / 2.0;
            from = (height - last.height) * self.inverse[place - last.place] + middle;
            if from >= last.from - MARGIN {
                break;
            }
            self.parabolas.pop();
        }
        self.parabolas.push(Parabola { place, height, from });
    }

    /// The lowest sum at `place`; places are asked for in ascending order. Infinite without parabolas.
    fn lowest(&mut self, place: usize) -> f64 {
        let at = place as f64;
        let ended = |next: &Parabola| next.from < at - WINDOW;
        while self.parabolas.get(self.current + 1).is_some_and(ended) {
            self.current += 1;
        }
        let near = self.parabolas[self.current..].iter();
        near.take_while(|parabola| parabola.from <= at + WINDOW)
            .map(|parabola| parabola.height + self.squares[place.abs_diff(parabola.place)])
            .fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        // Heights that are squares of the same lengths, so that many parabolas meet in one point; in few of
        // the cases the one in the middle has the smallest sum, by its last bit.
        #[test]
        fn parabolas_that_meet_in_a_point_are_all_looked_at(
            heights in prop_oneof![Just(8usize), Just(40)].prop_flat_map(|most| {
                vec(prop::option::weighted(0.7, 0..most), 40..60)
            }),
            step in prop_oneof![Just(0.7), Just(1.1), Just(1.3), 0.1..3.0f64],
        ) {
            let squares: Vec<f64> = (0..100).map(|k| (f64::from(k) * step).powi(2)).collect();
            let mut envelope = Envelope::new(&squares);
            let known = heights.iter().enumerate();
            let known: Vec<(usize, f64)> =
                known.filter_map(|(place, height)| Some((place, squares[(*height)?]))).collect();
            for &(place, height) in &known {
                envelope.add(place, height);
            }
            for place in 0..heights.len() {
                let sums = known.iter().map(|(at, height)| height + squares[place.abs_diff(*at)]);
                let expected = sums.fold(f64::INFINITY, f64::min);
                prop_assert_eq!(envelope.lowest(place).to_bits(), expected.to_bits());
            }
        }
    }
}
