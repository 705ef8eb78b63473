//! The nearest surface voxel by a search outward, which ends where nothing nearer can lie.
//!
//! For the small, close surfaces of a segmentation this visits a few rows per voxel, where a distance
//! transform visits whole boxes. It does not know when it is the dearer way: it counts its rows.

use super::voxels::{Squares, SurfaceVoxels};
use std::ops::Range;

/// Marks a row without surface voxels in [`Search::along_row`].
const NONE_IN_ROW: u32 = u32::MAX;

/// The surface of one class, ready to be searched.
pub(super) struct Search<'a> {
    surface: &'a SurfaceVoxels,
    squares: &'a Squares,
    /// For each voxel of the box of the surface: steps to the nearest surface voxel of its row.
    along_row: Vec<u32>,
    /// How many rows were visited.
    pub(super) visited: usize,
}

impl<'a> Search<'a> {
    pub(super) fn of(surface: &'a SurfaceVoxels, squares: &'a Squares) -> Self {
        let [depth, height, width] = surface.size();
        let mut along_row = vec![NONE_IN_ROW; depth * height * width];
        for voxels in surface.voxels.chunk_by(|a, b| a[..2] == b[..2]) {
            let [slice, row, _] = voxels[0].map(|place| place as usize);
            let line = (slice - surface.begin[0]) * height + row - surface.begin[1];
            let columns = voxels.iter().map(|voxel| voxel[2] as usize - surface.begin[2]);
            fill_steps(&mut along_row[line * width..(line + 1) * width], columns);
        }
        Self { surface, squares, along_row, visited: 0 }
    }

    /// Distance from `voxel` to the nearest surface voxel.
    pub(super) fn distance(&mut self, voxel: [u32; 3]) -> f64 {
        let (begin, end) = (self.surface.begin, self.surface.end);
        let voxel = voxel.map(|place| place as usize);
        let [height, width] = [end[1] - begin[1], end[2] - begin[2]];
        let column = voxel[2].clamp(begin[2], end[2] - 1);
        let outside = voxel[2].abs_diff(column);
        let mut nearest = f64::INFINITY;
        let mut visited = 0;
        outward(begin[0]..end[0], voxel[0], |slice| {
            let slices_away = self.squares.slices[slice.abs_diff(voxel[0])];
            if slices_away >= nearest {
                return false;
            }
            outward(begin[1]..end[1], voxel[1], |row| {
                // Summed slices, rows, columns: the order, and so the rounding, of scipy's transform.
                let away = slices_away + self.squares.rows[row.abs_diff(voxel[1])];
                if away >= nearest {
                    return false;
                }
                visited += 1;
                let line = (slice - begin[0]) * height + row - begin[1];
                let steps = self.along_row[line * width + column - begin[2]];
                if steps != NONE_IN_ROW {
                    nearest = nearest.min(away + self.squares.columns[steps as usize + outside]);
                }
                true
            });
            true
        });
        self.visited += visited;
        nearest.sqrt()
    }
}

/// Visits a range upward and then downward from the index nearest to `from`, each way until
/// `visit` answers that it is far enough (false).
#[inline]
fn outward(range: Range<usize>, from: usize, mut visit: impl FnMut(usize) -> bool) {
    let start = from.clamp(range.start, range.end - 1);
    for index in start..range.end {
        if !visit(index) {
            break;
        }
    }
    for index in (range.start..start).rev() {
        if !visit(index) {
            break;
        }
    }
}

/// Writes for each voxel of a row, which holds [`NONE_IN_ROW`], the steps to the nearest of `columns`.
fn fill_steps(row: &mut [u32], columns: impl Iterator<Item = usize>) {
    for column in columns {
        row[column] = 0;
    }
    for column in 1..row.len() {
        row[column] = row[column].min(row[column - 1].saturating_add(1));
    }
    for column in (1..row.len()).rev() {
        row[column - 1] = row[column - 1].min(row[column].saturating_add(1));
    }
}
