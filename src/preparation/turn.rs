//! Which way the axes of a scan run: voxels put into another order, none of them changed, and labels put back.
//!
//! Knows grids and plain arrays; neither intensities nor labels mean anything here.

use super::steps::Orientation;
use crate::scan::{Grid, Placement, Scan};

/// From the order of voxels in a file to another one.
///
/// ```
/// use scrimp::preparation::{Orientation, Turn};
/// use scrimp::scan::{Grid, Placement};
/// // Columns run to the patient's left.
/// let direction = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]];
/// let placement = Some(Placement { direction, origin_mm: [0.0; 3] });
/// let turn = Turn::of(Orientation::Ras, &Grid { placement, ..Grid::unplaced([1, 1, 3], None) });
/// assert_eq!(turn.carry(&[1, 2, 3]), [3, 2, 1]);
/// assert_eq!(turn.carry_back(&[3, 2, 1]), [1, 2, 3]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The grid of the file.
    pub file: Grid,
    /// For each axis of the turned grid the axis of the file that runs along it.
    axes: [usize; 3],
    /// Whether it runs back.
    flipped: [bool; 3],
}

impl Turn {
    /// The turn of scans on the grid `file`; none where the file does not say where it lies.
    ///
    /// Axes are exchanged and reversed, never resampled: of a file that is oblique to the patient each axis becomes the
    /// one that it is nearest to, such that the cosines of all three have the largest sum.
    pub fn of(orientation: Orientation, file: &Grid) -> Self {
        let (mut axes, mut flipped) = ([0, 1, 2], [false; 3]);
        if let (Orientation::Ras, Some(Placement { direction, .. })) = (orientation, file.placement)
        {
            // Slices run to the head, rows to the front, columns to the right.
            let along = |axes: [usize; 3], axis: usize| direction[axes[axis]][2 - axis];
            let sum = |axes: [usize; 3]| (0..3).map(|axis| along(axes, axis).abs()).sum::<f64>();
            for other in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                if sum(other) > sum(axes) + 1e-6 {
                    axes = other;
                }
            }
            flipped = [0, 1, 2].map(|axis| along(axes, axis) < 0.0);
        }
        Self { file: file.clone(), axes, flipped }
    }

    /// Whether every voxel stays where it is.
    pub fn is_none(&self) -> bool {
        self.axes == [0, 1, 2] && self.flipped == [false; 3]
    }

    /// The turned grid.
    pub fn grid(&self) -> Grid {
        let of_file = &self.file;
        let first = [0, 1, 2].map(|axis| {
            let turned = self.axes.iter().position(|&from| from == axis).unwrap_or(axis);
            if self.flipped[turned] { of_file.shape[axis].saturating_sub(1) as f64 } else { 0.0 }
        });
        let placement = of_file.placement.zip(of_file.position_mm(first));
        let placement = placement.map(|(placement, origin_mm)| {
            let direction = [0, 1, 2].map(|axis| {
                let sign = if self.flipped[axis] { -1.0 } else { 1.0 };
                placement.direction[self.axes[axis]].map(|part| sign * part)
            });
            Placement { direction, origin_mm }
        });
        Grid {
            shape: self.axes.map(|axis| of_file.shape[axis]),
            spacing_mm: of_file.spacing_mm.map(|spacing| self.axes.map(|axis| spacing[axis])),
            placement,
        }
    }

    /// The turned scan.
    #[must_use]
    pub fn apply(&self, scan: Scan) -> Scan {
        if self.is_none() {
            return scan;
        }
        let (grid, channels) = (self.grid(), scan.channels);
        let stored = self.file.pixels();
        let planes = (0..channels).map(|channel| {
            let slices = (0..self.file.shape[0])
                .flat_map(|slice| &scan.slice(slice)[channel * stored..][..stored]);
            self.carry(&slices.copied().collect::<Vec<f32>>())
        });
        let planes: Vec<Vec<f32>> = planes.collect();
        let pixels = grid.pixels();
        let slices = (0..grid.shape[0]).flat_map(|slice| {
            planes.iter().flat_map(move |plane| &plane[slice * pixels..][..pixels])
        });
        Scan { voxels: slices.copied().collect(), channels, grid }
    }

    /// Values on the grid of the file, slices, rows, columns, on the turned one.
    pub fn carry<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.places().map(|place| values[place]).collect()
    }

    /// Values on the turned grid on that of the file.
    pub fn carry_back<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let mut back = values.to_vec();
        for (place, &value) in self.places().zip(values) {
            back[place] = value;
        }
        back
    }

    /// The place in the file of each turned voxel.
    fn places(&self) -> impl Iterator<Item = usize> {
        let [slices, rows, columns] = [0, 1, 2].map(|axis| self.along(axis));
        slices.into_iter().flat_map(move |slice| {
            let columns = columns.clone();
            rows.clone().into_iter().flat_map(move |row| {
                columns.clone().into_iter().map(move |column| slice + row + column)
            })
        })
    }

    /// What each voxel along a turned axis adds to the place in the file.
    fn along(&self, axis: usize) -> Vec<usize> {
        let [_, rows, columns] = self.file.shape;
        let (from, stride) = (self.axes[axis], [rows * columns, columns, 1][self.axes[axis]]);
        let count = self.file.shape[from];
        let at = |index: usize| if self.flipped[axis] { count - 1 - index } else { index };
        (0..count).map(|index| at(index) * stride).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grid whose axes are these columns of a rotation, or near to them.
    fn grid(direction: [[f64; 3]; 3]) -> Grid {
        let placement = Some(Placement { direction, origin_mm: [7.0, -3.0, 11.0] });
        Grid { shape: [2, 3, 4], spacing_mm: Some([5.0, 2.0, 1.5]), placement }
    }

    #[test]
    fn voxels_keep_their_place_in_the_patient_and_come_back() {
        let (near, far) = (0.8, 0.6);
        let oblique = [[far, 0.0, near], [0.0, -1.0, 0.0], [-near, 0.0, far]];
        for direction in [
            [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
            [[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]],
            [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]],
            [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]],
            oblique,
        ] {
            let file = grid(direction);
            let turn = Turn::of(Orientation::Ras, &file);
            let turned = turn.grid();
            let runs = turned.placement.unwrap().direction;
            assert!((0..3).all(|axis| runs[axis][2 - axis] > 0.7), "{runs:?}");
            let numbers: Vec<usize> = (0..24).collect();
            let carried = turn.carry(&numbers);
            let place = |number: usize, [_, rows, columns]: [usize; 3]| {
                [number / (rows * columns), number / columns % rows, number % columns]
                    .map(|at| at as f64)
            };
            for (at, &number) in carried.iter().enumerate() {
                let found = turned.position_mm(place(at, turned.shape)).unwrap();
                let expected = file.position_mm(place(number, file.shape)).unwrap();
                assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9));
            }
            assert_eq!(turn.carry_back(&carried), numbers);
            // Channels of a slice stay beside each other.
            let voxels = (0..48u8).map(f32::from).collect();
            let scan = turn.apply(Scan { grid: file.clone(), channels: 2, voxels });
            let pixels = turned.pixels();
            for (at, number) in carried.iter().enumerate() {
                let (slice, pixel) = (number / 12, number % 12);
                for channel in 0..2 {
                    let found = scan.slice(at / pixels)[channel * pixels + at % pixels];
                    assert_eq!(found, ((slice * 2 + channel) * 12 + pixel) as f32);
                }
            }
        }
        assert!(Turn::of(Orientation::Ras, &Grid::unplaced([2, 3, 4], None)).is_none());
        let back = grid([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]);
        assert!(Turn::of(Orientation::AsStored, &back).is_none());
    }
}
