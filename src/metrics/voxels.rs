//! The surface voxels of one class in a label volume, and the squared lengths between voxels.
//!
//! Knows nothing of a second side.

/// The surface of one class.
///
/// A voxel is surface if it or one of its six neighbours lies outside the object; beyond the border
/// of the volume everything is outside.
#[derive(Debug)]
pub(super) struct SurfaceVoxels {
    /// Slice, row and column of each surface voxel, in row-major order.
    pub(super) voxels: Vec<[u32; 3]>,
    /// First index along each axis of the smallest box that holds the class.
    pub(super) begin: [usize; 3],
    /// One past the last index.
    pub(super) end: [usize; 3],
}

impl SurfaceVoxels {
    /// Finds the surface of `class`, which must occur in `labels` (row-major, `shape`).
    pub(super) fn of(labels: &[u8], shape: [usize; 3], class: u8) -> Self {
        let (begin, end) = bounding_box(labels, shape, class);
        let mask = PaddedMask::cut(labels, shape, class, (begin, end));
        let [depth, height, width] = mask.size;
        let mut voxels = Vec::new();
        let mut is_surface = vec![0; width];
        for index in 0..depth * height {
            let (slice, row) = (index / height, index % height);
            mask.surface_of_row(slice, row, &mut is_surface);
            if !is_surface.contains(&1) {
                continue;
            }
            let columns = (0..width).filter(|&column| is_surface[column] != 0);
            voxels.extend(columns.map(|column| {
                [begin[0] + slice, begin[1] + row, begin[2] + column].map(|place| place as u32)
            }));
        }
        Self { voxels, begin, end }
    }

    /// Slices, rows and columns of the box.
    pub(super) fn size(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.end[axis] - self.begin[axis])
    }
}

/// Squared lengths of 0, 1, 2, … voxels along each axis.
pub(super) struct Squares {
    pub(super) slices: Vec<f64>,
    pub(super) rows: Vec<f64>,
    pub(super) columns: Vec<f64>,
}

impl Squares {
    /// For volumes of `shape` with voxel centres `spacing` apart.
    pub(super) fn new(shape: [usize; 3], spacing: [f64; 3]) -> Self {
        let [slices, rows, columns] = [0, 1, 2].map(|axis| {
            (0..shape[axis]).map(|steps| (steps as f64 * spacing[axis]).powi(2)).collect()
        });
        Self { slices, rows, columns }
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
