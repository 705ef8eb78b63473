//! Surfaces of one class in a label volume, and exact Euclidean distances between two of them.
//!
//! Each distance is found by a search outward from its voxel that ends where nothing nearer can
//! lie. For the small, close surfaces of a segmentation this visits a few rows per voxel, where a
//! distance transform would visit the whole volume. This file knows nothing of empty sides.

use std::ops::Range;

/// How far apart the two surfaces of one class are.
///
/// A voxel is surface if it or one of its six neighbours lies outside the object; beyond the border
/// of the volume everything is outside. Distances are between voxel centres, in units of the spacing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Surface {
    /// Both sides have the class.
    Distances(Distances),
    /// The truth has the class, the prediction has not.
    EmptyPrediction,
    /// The prediction has the class, the truth has not.
    EmptyTruth,
    /// Neither side has the class.
    BothEmpty,
}

impl Surface {
    /// The distances, where there are any.
    pub fn distances(self) -> Option<Distances> {
        match self {
            Self::Distances(distances) => Some(distances),
            Self::EmptyPrediction | Self::EmptyTruth | Self::BothEmpty => None,
        }
    }
}

/// Summaries of the distances from each surface voxel to the nearest one of the other side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distances {
    /// Hausdorff distance: the largest of both directions.
    pub hd: f64,
    /// 95th percentile of both directions together, interpolated linearly as numpy does.
    pub hd95: f64,
    /// Mean from the prediction to the truth only; not symmetric.
    pub asd: f64,
    /// Mean of both directions together.
    pub assd: f64,
}

impl Distances {
    /// Measures two surfaces of a volume of `shape`.
    pub(super) fn between(
        prediction: &SurfaceVoxels,
        truth: &SurfaceVoxels,
        shape: [usize; 3],
        spacing: [f64; 3],
    ) -> Self {
        let squares = Squares::new(shape, spacing);
        let mut distances = Vec::with_capacity(prediction.voxels.len() + truth.voxels.len());
        distances.extend(prediction.voxels.iter().map(|&voxel| truth.distance(voxel, &squares)));
        let asd = mean(&distances);
        distances.extend(truth.voxels.iter().map(|&voxel| prediction.distance(voxel, &squares)));
        Self {
            hd: distances.iter().copied().fold(0.0, f64::max),
            assd: mean(&distances),
            hd95: percentile_95(&mut distances),
            asd,
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The 95th percentile by numpy's method "linear", rounded as numpy rounds. Reorders the values.
fn percentile_95(values: &mut [f64]) -> f64 {
    let position = 0.95 * (values.len() - 1) as f64;
    let (_, &mut low, above) =
        values.select_nth_unstable_by(position.floor() as usize, f64::total_cmp);
    let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    let share = position.fract();
    if share < 0.5 { low + (high - low) * share } else { high - (high - low) * (1.0 - share) }
}

/// Squared lengths of 0, 1, 2, … voxels along each axis.
struct Squares {
    slices: Vec<f64>,
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Squares {
    fn new(shape: [usize; 3], spacing: [f64; 3]) -> Self {
        let [slices, rows, columns] = [0, 1, 2].map(|axis| {
            (0..shape[axis]).map(|steps| (steps as f64 * spacing[axis]).powi(2)).collect()
        });
        Self { slices, rows, columns }
    }
}

/// Marks a row without surface voxels in [`SurfaceVoxels::along_row`].
const NONE_IN_ROW: u32 = u32::MAX;

/// The surface of one class, ready to be searched.
#[derive(Debug)]
pub(super) struct SurfaceVoxels {
    /// Slice, row and column of each surface voxel, in row-major order.
    voxels: Vec<[usize; 3]>,
    /// The smallest box that holds the class: first and one past the last index of each axis.
    begin: [usize; 3],
    end: [usize; 3],
    /// For each voxel of the box: steps to the nearest surface voxel of its row.
    along_row: Vec<u32>,
}

impl SurfaceVoxels {
    /// Finds the surface of `class`, which must occur in `labels` (row-major, `shape`).
    pub(super) fn of(labels: &[u8], shape: [usize; 3], class: u8) -> Self {
        let (begin, end) = bounding_box(labels, shape, class);
        let mask = PaddedMask::cut(labels, shape, class, (begin, end));
        let [depth, height, width] = mask.size;
        let mut voxels = Vec::new();
        let mut along_row = vec![NONE_IN_ROW; depth * height * width];
        let mut is_surface = vec![0; width];
        for (index, row) in along_row.chunks_exact_mut(width).enumerate() {
            let (slice, line) = (index / height, index % height);
            mask.surface_of_row(slice, line, &mut is_surface);
            if !is_surface.contains(&1) {
                continue;
            }
            let first = voxels.len();
            let columns = (0..width).filter(|&column| is_surface[column] != 0);
            voxels.extend(
                columns.map(|column| [begin[0] + slice, begin[1] + line, begin[2] + column]),
            );
            fill_steps(row, voxels[first..].iter().map(|voxel| voxel[2] - begin[2]));
        }
        Self { voxels, begin, end, along_row }
    }

    /// Distance from `voxel` to the nearest surface voxel.
    fn distance(&self, voxel: [usize; 3], squares: &Squares) -> f64 {
        let (begin, end) = (self.begin, self.end);
        let [height, width] = [end[1] - begin[1], end[2] - begin[2]];
        let column = voxel[2].clamp(begin[2], end[2] - 1);
        let outside = voxel[2].abs_diff(column);
        let mut nearest = f64::INFINITY;
        outward(begin[0]..end[0], voxel[0], |slice| {
            let slices_away = squares.slices[slice.abs_diff(voxel[0])];
            if slices_away >= nearest {
                return false;
            }
            outward(begin[1]..end[1], voxel[1], |row| {
                // Summed slices, rows, columns: the order, and so the rounding, of scipy's transform.
                let away = slices_away + squares.rows[row.abs_diff(voxel[1])];
                if away >= nearest {
                    return false;
                }
                let line = (slice - begin[0]) * height + row - begin[1];
                let steps = self.along_row[line * width + column - begin[2]];
                if steps != NONE_IN_ROW {
                    nearest = nearest.min(away + squares.columns[steps as usize + outside]);
                }
                true
            });
            true
        });
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

/// The smallest box that holds `class`: first and one past the last index of each axis.
fn bounding_box(labels: &[u8], shape: [usize; 3], class: u8) -> ([usize; 3], [usize; 3]) {
    let (mut begin, mut end) = (shape, [0; 3]);
    for (index, row) in labels.chunks_exact(shape[2]).enumerate() {
        // Most rows hold nothing, and `contains` compares many bytes at a time.
        if !row.contains(&class) {
            continue;
        }
        let Some(first) = row.iter().position(|&label| label == class) else { continue };
        let last = row.iter().rposition(|&label| label == class).unwrap_or(first);
        let line = [index / shape[1], index % shape[1]];
        for (axis, (low, high)) in
            [(line[0], line[0]), (line[1], line[1]), (first, last)].into_iter().enumerate()
        {
            begin[axis] = begin[axis].min(low);
            end[axis] = end[axis].max(high + 1);
        }
    }
    (begin, end)
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

/// A box of a label volume as zeros and ones, with a border of zeros on every side.
struct PaddedMask {
    cells: Vec<u8>,
    /// Slices, rows and columns without the border.
    size: [usize; 3],
}

impl PaddedMask {
    fn cut(
        labels: &[u8],
        shape: [usize; 3],
        class: u8,
        (begin, end): ([usize; 3], [usize; 3]),
    ) -> Self {
        let size = [0, 1, 2].map(|axis| end[axis] - begin[axis]);
        let mut mask =
            Self { cells: vec![0; size.map(|length| length + 2).iter().product()], size };
        for slice in 0..size[0] {
            for row in 0..size[1] {
                let from = ((begin[0] + slice) * shape[1] + begin[1] + row) * shape[2];
                let to = mask.start(slice + 1, row + 1) + 1;
                let line = &labels[from + begin[2]..from + end[2]];
                for (cell, &label) in mask.cells[to..to + size[2]].iter_mut().zip(line) {
                    *cell = u8::from(label == class);
                }
            }
        }
        mask
    }

    /// Where a row begins in `cells`, borders counted.
    fn start(&self, slice: usize, row: usize) -> usize {
        (slice * (self.size[1] + 2) + row) * (self.size[2] + 2)
    }

    /// Writes which voxels of a row (borders not counted) are surface: inside, with an outside
    /// neighbour.
    fn surface_of_row(&self, slice: usize, row: usize, is_surface: &mut [u8]) {
        let width = self.size[2];
        let (slice, row) = (slice + 1, row + 1);
        let line = |slice, row, column| {
            let from = self.start(slice, row) + column;
            &self.cells[from..from + width]
        };
        let (here, left, right) = (line(slice, row, 1), line(slice, row, 0), line(slice, row, 2));
        let (before, after) = (line(slice - 1, row, 1), line(slice + 1, row, 1));
        let (above, below) = (line(slice, row - 1, 1), line(slice, row + 1, 1));
        for (column, surface) in is_surface.iter_mut().enumerate() {
            let surrounded = left[column] & right[column] & before[column] & after[column];
            let interior = surrounded & above[column] & below[column];
            *surface = here[column] & (interior ^ 1);
        }
    }
}
