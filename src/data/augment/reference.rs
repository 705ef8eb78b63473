//! Nearest neighbours by the arithmetic of scipy's order-0 `zoom` and `rotate`, index by index.
//!
//! Both steps of a sample are composed, and a crop in place of the zoom likewise, so that each pixel is read once. The formulas and their
//! order of evaluation follow `scipy.ndimage` 1.17, where a rounding error decides which pixel is
//! taken; do not simplify them.

use super::axes::Axis;
use super::fit::Lines;
use super::sources::{MISSING, OUTSIDE, PixelSources};
use super::{Draw, Sample, Slice};
use crate::config::sampling::Fit;

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
    let offsets =
        [Offsets::new(rows, Fit::Resize, to[0]), Offsets::new(columns, Fit::Resize, to[1])];
    gather(pixels, &offsets, &mut zoomed, to[1]);
    zoomed
}

/// Brings the turned labels that `axes` see to `size` lines of as many columns; 0 where they do not reach.
pub(super) fn gather_labels(
    labels: &[u8],
    (axes, fit): ([Axis; 2], Fit),
    (size, out): (usize, &mut [u8]),
) {
    gather(labels, &axes.map(|axis| Offsets::new(axis, fit, size)), out, size);
}

/// The label of a line of the sample that the slice does not reach.
fn missing_label(fit: Fit, slice: &Slice<'_>) -> u8 {
    match fit {
        Fit::Resize => 0,
        Fit::Crop => slice.outside,
    }
}

/// Applies a draw and comes to the shape of `sample`.
pub(super) fn apply(draw: Draw, fit: Fit, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    let [rows, columns] = match draw {
        Draw::Turn { quarter_turns, flip_axis } => {
            Axis::turned(slice.shape, quarter_turns, flip_axis)
        }
        Draw::Rotate { degrees } => return rotate(degrees, fit, slice, sample),
        Draw::Keep | Draw::Full(_) => Axis::stored(slice.shape),
    };
    // Lines of a slice that is not turned on its side are read as they lie in memory.
    let tile = if columns.step.abs() == 1 { sample.shape[1] } else { TILE };
    let offsets =
        [Offsets::new(rows, fit, sample.shape[0]), Offsets::new(columns, fit, sample.shape[1])];
    let slice = Slice { outside: missing_label(fit, slice), ..*slice };
    gather_both(&slice, &offsets, tile, sample);
}

/// The nearest pixels of a sample of the shape `to`; outside the slice there are none.
pub(super) fn sources(draw: Draw, fit: Fit, shape: [usize; 2], to: [usize; 2]) -> PixelSources {
    let degrees = match draw {
        Draw::Turn { quarter_turns, flip_axis } => {
            return still_sources(Axis::turned(shape, quarter_turns, flip_axis), fit, to);
        }
        Draw::Rotate { degrees } => degrees,
        Draw::Keep | Draw::Full(_) => return still_sources(Axis::stored(shape), fit, to),
    };
    let [rows, columns] = [0, 1].map(|side| Lines::new(fit, shape[side], to[side]));
    let rotation = Rotation::new(degrees, shape);
    let rows = rows.each(to[0], missing(fit), |row| rotation.start(row as f64));
    let columns = columns.each(to[1], missing(fit), |column| rotation.part(column as f64));
    PixelSources::new(Axis::stored(shape), rows, columns)
}

/// Where `to` rows and columns come from without a rotation.
pub(super) fn still_sources(axes: [Axis; 2], fit: Fit, to: [usize; 2]) -> PixelSources {
    let [rows, columns] = [0, 1].map(|side| Lines::new(fit, axes[side].extent, to[side]));
    let rows = rows.each(to[0], missing(fit), |row| [row as f64, 0.0]);
    let columns = columns.each(to[1], missing(fit), |column| [0.0, column as f64]);
    PixelSources::new(axes, rows, columns)
}

/// The coordinates of a line that shows nothing.
fn missing(fit: Fit) -> [f64; 2] {
    match fit {
        Fit::Resize => MISSING,
        Fit::Crop => OUTSIDE,
    }
}

/// Where the lines of a sample lie in a slice as stored, along one axis.
struct Offsets {
    /// Lines of the sample before them that show nothing.
    before: usize,
    shown: Vec<usize>,
}

impl Offsets {
    fn new(axis: Axis, fit: Fit, to: usize) -> Self {
        let Lines { before, shown } = Lines::new(fit, axis.extent, to);
        Self { before, shown: shown.into_iter().map(|line| axis.offset(line)).collect() }
    }
}

/// Copies the pixels at the sums of row and column offsets; missing ones are 0.
fn gather<T: Copy + Default>(
    pixels: &[T],
    [rows, columns]: &[Offsets; 2],
    out: &mut [T],
    out_columns: usize,
) {
    out.fill(T::default());
    let lines = out.chunks_exact_mut(out_columns).skip(rows.before);
    for (row, line) in rows.shown.iter().zip(lines) {
        for (pixel, column) in line.iter_mut().skip(columns.before).zip(&columns.shown) {
            *pixel = pixels[row + column];
        }
    }
}

/// Columns that are gathered together: few enough that the lines of a turned slice, which they
/// cross, stay in the nearest cache from row to row.
const TILE: usize = 32;

/// As [`gather`], for image and annotation at once, `tile_columns` columns after the other; missing pixels are
/// outside.
fn gather_both(
    slice: &Slice<'_>,
    [rows, columns]: &[Offsets; 2],
    tile_columns: usize,
    sample: &mut Sample<'_>,
) {
    let width = sample.shape[1];
    if rows.shown.len() < sample.shape[0] || columns.shown.len() < width {
        sample.image.fill(0.0);
        sample.annotation.fill(slice.outside);
    }
    let first = rows.before * width + columns.before;
    for (number, tile) in columns.shown.chunks(tile_columns.max(1)).enumerate() {
        for (index, row) in rows.shown.iter().enumerate() {
            let start = first + index * width + number * tile_columns;
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

/// Rotates by whole degrees about the middle, then comes to the shape of `sample`.
fn rotate(degrees: i32, fit: Fit, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    let missing = missing_label(fit, slice);
    let fill = match fit {
        Fit::Resize => label_outside(slice.annotation, slice.outside),
        Fit::Crop => slice.outside,
    };
    let [rows, columns] = [0, 1].map(|side| Lines::new(fit, slice.shape[side], sample.shape[side]));
    let rotation = Rotation::new(degrees, slice.shape);
    let mut sources = Sources::new(rotation, &columns.shown);
    let known = columns.before..columns.before + columns.shown.len();
    let width = sample.shape[1];
    let lines = sample.image.chunks_exact_mut(width).zip(sample.annotation.chunks_exact_mut(width));
    for (number, (image, annotation)) in lines.enumerate() {
        image.fill(0.0);
        annotation.fill(missing);
        let row = number.checked_sub(rows.before).and_then(|number| rows.shown.get(number));
        let Some(&row) = row else { continue };
        let (image, annotation) = (&mut image[known.clone()], &mut annotation[known.clone()]);
        annotation.fill(fill);
        let sources = sources.of_row(row as f64);
        for ((pixel, label), &source) in image.iter_mut().zip(annotation).zip(sources) {
            if let Ok(source) = usize::try_from(source) {
                *pixel = slice.image[source];
                *label = slice.annotation[source];
            }
        }
    }
}

/// The map from a rotated slice to the slice as stored.
struct Rotation {
    sine: f64,
    cosine: f64,
    offset: [f64; 2],
    last: [f64; 2],
    stride: i32,
}

impl Rotation {
    fn new(degrees: i32, shape: [usize; 2]) -> Self {
        let (sine, cosine) = f64::from(degrees).to_radians().sin_cos();
        let last = shape.map(|extent| (extent - 1) as f64);
        let middle = last.map(|last| last / 2.0);
        let offset = [
            middle[0] - (cosine * middle[0] + sine * middle[1]),
            middle[1] - (-sine * middle[0] + cosine * middle[1]),
        ];
        Self { sine, cosine, offset, last, stride: shape[1] as i32 }
    }

    /// Where the first column of a line of the rotated slice lies.
    fn start(&self, row: f64) -> [f64; 2] {
        [self.offset[0] + self.cosine * row, self.offset[1] - self.sine * row]
    }

    /// What a column adds to it: sine and cosine times the column in the rotated slice.
    fn part(&self, column: f64) -> [f64; 2] {
        [self.sine * column, self.cosine * column]
    }
}

/// The pixels of a rotated slice, line by line.
struct Sources {
    rotation: Rotation,
    /// The parts of the columns of the sample.
    columns: Vec<[f64; 2]>,
    /// Those of the line that was asked for last.
    line: Vec<i32>,
}

impl Sources {
    fn new(rotation: Rotation, columns: &[usize]) -> Self {
        let columns: Vec<[f64; 2]> =
            columns.iter().map(|&column| rotation.part(column as f64)).collect();
        let line = vec![-1; columns.len()];
        Self { rotation, columns, line }
    }

    /// The stored pixel for each column of a line of the rotated slice; -1 where there is none.
    fn of_row(&mut self, row: f64) -> &[i32] {
        let start = self.rotation.start(row);
        let (last, stride) = (self.rotation.last, self.rotation.stride);
        for (source, column) in self.line.iter_mut().zip(&self.columns) {
            let (y, x) = (start[0] + column[0], start[1] + column[1]);
            let inside = (0.0..=last[0]).contains(&y) && (0.0..=last[1]).contains(&x);
            // Both are at least 0 inside, so that truncation is the floor of the reference.
            let (line, place) = ((y + 0.5) as i32, (x + 0.5) as i32);
            *source = if inside { line.wrapping_mul(stride).wrapping_add(place) } else { -1 };
        }
        &self.line
    }
}
