//! Nearest neighbours by the arithmetic of scipy's order-0 `zoom` and `rotate`, index by index.
//!
//! Both steps of a sample are composed, so that each pixel is read once. The formulas and their
//! order of evaluation follow `scipy.ndimage` 1.17, where a rounding error decides which pixel is
//! taken; do not simplify them.

use super::axes::Axis;
use super::grid::{Grid, MISSING};
use super::{Draw, Sample, Slice};

/// Enlarges or shrinks an image to `to` rows and columns by order-0 zoom.
pub fn zoom_image(image: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    zoom(image, from, to)
}

/// Enlarges or shrinks labels to `to` rows and columns by order-0 zoom. At some sizes the last row
/// or column becomes 0, as in the reference.
pub fn zoom_labels(labels: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    zoom(labels, from, to)
}

fn zoom<T: Copy + Default>(pixels: &[T], from: [usize; 2], to: [usize; 2]) -> Vec<T> {
    let mut zoomed = vec![T::default(); to[0] * to[1]];
    let [rows, columns] = Axis::stored(from);
    gather(pixels, [&offsets(rows, to[0]), &offsets(columns, to[1])], &mut zoomed, to[1]);
    zoomed
}

/// Resizes the turned labels that `axes` see to all of `out`, lines of `out_columns`.
pub(super) fn resize(
    labels: &[u8],
    [rows, columns]: [Axis; 2],
    out: &mut [u8],
    out_columns: usize,
) {
    let out_rows = out.len() / out_columns.max(1);
    gather(labels, [&offsets(rows, out_rows), &offsets(columns, out_columns)], out, out_columns);
}

/// Applies a draw and the zoom to the shape of `sample`.
pub(super) fn apply(draw: Draw, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    let [rows, columns] = match draw {
        Draw::Keep => Axis::stored(slice.shape),
        Draw::Turn { quarter_turns, flip_axis } => {
            Axis::turned(slice.shape, quarter_turns, flip_axis)
        }
        Draw::Rotate { degrees } => return rotate(degrees, slice, sample),
    };
    // Lines of a slice that is not turned on its side are read as they lie in memory.
    let tile = if columns.step.abs() == 1 { sample.shape[1] } else { TILE };
    gather_both(
        slice,
        [&offsets(rows, sample.shape[0]), &offsets(columns, sample.shape[1])],
        tile,
        sample,
    );
}

/// The grid of the nearest pixels of a sample of the shape `to`; outside the slice there are none.
pub(super) fn grid(draw: Draw, shape: [usize; 2], to: [usize; 2]) -> Grid {
    let degrees = match draw {
        Draw::Keep => return resize_grid(Axis::stored(shape), to),
        Draw::Turn { quarter_turns, flip_axis } => {
            return resize_grid(Axis::turned(shape, quarter_turns, flip_axis), to);
        }
        Draw::Rotate { degrees } => degrees,
    };
    let rotation = Rotation::new(degrees, shape, to[1]);
    let rows = zoom_indices(shape[0], to[0]).map(|row| rotation.start(row as f64));
    let rows = with_missing(rows, to[0]);
    let columns = with_missing(rotation.columns.iter().copied(), to[1]);
    Grid::new(Axis::stored(shape), rows, columns)
}

/// The grid by which [`resize`] makes `to` rows and columns.
pub(super) fn resize_grid(axes: [Axis; 2], to: [usize; 2]) -> Grid {
    let rows = zoom_indices(axes[0].extent, to[0]).map(|row| [row as f64, 0.0]);
    let columns = zoom_indices(axes[1].extent, to[1]).map(|column| [0.0, column as f64]);
    Grid::new(axes, with_missing(rows, to[0]), with_missing(columns, to[1]))
}

/// As many lines as the sample has.
fn with_missing(lines: impl Iterator<Item = [f64; 2]>, to: usize) -> Vec<[f64; 2]> {
    lines.chain(std::iter::repeat(MISSING)).take(to).collect()
}

/// The source index of each of `to` outputs of an order-0 zoom of `from` elements.
///
/// Rounding can push the coordinate of the last output beyond the last element; scipy fills it
/// with 0, and it is missing here.
fn zoom_indices(from: usize, to: usize) -> impl Iterator<Item = usize> {
    let last = (from - 1) as f64;
    let ratio = if to > 1 { last / (to - 1) as f64 } else { 1.0 };
    (0..to)
        .map(move |index| ratio * index as f64)
        .take_while(move |&coordinate| coordinate <= last)
        .map(|coordinate| (coordinate + 0.5).floor() as usize)
}

fn offsets(axis: Axis, to: usize) -> Vec<usize> {
    zoom_indices(axis.extent, to).map(|index| axis.offset(index)).collect()
}

/// Copies the pixels at the sums of row and column offsets; missing ones are 0.
fn gather<T: Copy + Default>(
    pixels: &[T],
    [rows, columns]: [&[usize]; 2],
    out: &mut [T],
    out_columns: usize,
) {
    let mut lines = out.chunks_exact_mut(out_columns);
    for (row, line) in rows.iter().zip(&mut lines) {
        let (known, missing) = line.split_at_mut(columns.len());
        for (pixel, column) in known.iter_mut().zip(columns) {
            *pixel = pixels[row + column];
        }
        missing.fill(T::default());
    }
    lines.for_each(|line| line.fill(T::default()));
}

/// Columns that are gathered together: few enough that the lines of a turned slice, which they
/// cross, stay in the nearest cache from row to row.
const TILE: usize = 32;

/// As [`gather`], for image and annotation at once, `tile_columns` columns after the other.
fn gather_both(
    slice: &Slice<'_>,
    [rows, columns]: [&[usize]; 2],
    tile_columns: usize,
    sample: &mut Sample<'_>,
) {
    let width = sample.shape[1];
    if rows.len() < sample.shape[0] || columns.len() < width {
        sample.image.fill(0.0);
        sample.annotation.fill(0);
    }
    for (number, tile) in columns.chunks(tile_columns.max(1)).enumerate() {
        for (index, row) in rows.iter().enumerate() {
            let start = index * width + number * tile_columns;
            let image = &mut sample.image[start..][..tile.len()];
            let annotation = &mut sample.annotation[start..][..tile.len()];
            let (image_line, annotation_line) = (&slice.image[*row..], &slice.annotation[*row..]);
            for (pixel, &column) in image.iter_mut().zip(tile) {
                *pixel = image_line[column];
            }
            for (label, &column) in annotation.iter_mut().zip(tile) {
                *label = annotation_line[column];
            }
        }
    }
}

/// The label of what a rotation brings in from outside a slice with these labels.
pub(super) fn label_outside(labels: &[u8], wanted: u8) -> u8 {
    if labels.contains(&wanted) { wanted } else { 0 }
}

/// Rotates by whole degrees about the middle, then zooms.
fn rotate(degrees: i32, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    let fill = label_outside(slice.annotation, slice.outside);
    let mut rotation = Rotation::new(degrees, slice.shape, sample.shape[1]);
    let mut rows = zoom_indices(slice.shape[0], sample.shape[0]);
    let width = sample.shape[1];
    let lines = sample.image.chunks_exact_mut(width).zip(sample.annotation.chunks_exact_mut(width));
    for (image, annotation) in lines {
        image.fill(0.0);
        let Some(row) = rows.next() else {
            annotation.fill(0);
            continue;
        };
        let sources = rotation.sources(row as f64);
        annotation[..sources.len()].fill(fill);
        annotation[sources.len()..].fill(0);
        for ((pixel, label), &source) in image.iter_mut().zip(annotation).zip(sources) {
            if let Ok(source) = usize::try_from(source) {
                *pixel = slice.image[source];
                *label = slice.annotation[source];
            }
        }
    }
}

/// The map from a rotated slice to the slice as stored, line by line.
struct Rotation {
    sine: f64,
    cosine: f64,
    offset: [f64; 2],
    last: [f64; 2],
    stride: i32,
    /// Sine and cosine times the column in the rotated slice, for each column of the sample.
    columns: Vec<[f64; 2]>,
    sources: Vec<i32>,
}

impl Rotation {
    fn new(degrees: i32, shape: [usize; 2], width: usize) -> Self {
        let (sine, cosine) = f64::from(degrees).to_radians().sin_cos();
        let last = shape.map(|extent| (extent - 1) as f64);
        let middle = last.map(|last| last / 2.0);
        let offset = [
            middle[0] - (cosine * middle[0] + sine * middle[1]),
            middle[1] - (-sine * middle[0] + cosine * middle[1]),
        ];
        let columns: Vec<[f64; 2]> = zoom_indices(shape[1], width)
            .map(|column| [sine * column as f64, cosine * column as f64])
            .collect();
        let sources = vec![-1; columns.len()];
        Self { sine, cosine, offset, last, stride: shape[1] as i32, columns, sources }
    }

    /// Where the first column of a line of the rotated slice lies.
    fn start(&self, row: f64) -> [f64; 2] {
        [self.offset[0] + self.cosine * row, self.offset[1] - self.sine * row]
    }

    /// The stored pixel for each known column of a line of the rotated slice; -1 where there is none.
    fn sources(&mut self, row: f64) -> &[i32] {
        let start = self.start(row);
        let (last, stride) = (self.last, self.stride);
        for (source, column) in self.sources.iter_mut().zip(&self.columns) {
            let (y, x) = (start[0] + column[0], start[1] + column[1]);
            let inside = (0.0..=last[0]).contains(&y) && (0.0..=last[1]).contains(&x);
            // Both are at least 0 inside, so that truncation is the floor of the reference.
            let (line, place) = ((y + 0.5) as i32, (x + 0.5) as i32);
            *source = if inside { line.wrapping_mul(stride).wrapping_add(place) } else { -1 };
        }
        &self.sources
    }
}
