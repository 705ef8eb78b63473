//! One affine map per sample, intensities blended between the four nearest pixels.
//!
//! Pixels are areas: the outer edges of slice and sample coincide. Within the slice's own outer
//! half pixel its border values hold; beyond it the image is 0 and the annotation unknown.

use super::{Axis, Draw, Sample, Slice};

/// Applies a draw and the resize to the shape of `sample`.
pub(super) fn apply(draw: Draw, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    let [rows, columns] = match draw {
        Draw::Keep => Axis::stored(slice.shape),
        Draw::Turn { quarter_turns, flip_axis } => {
            Axis::turned(slice.shape, quarter_turns, flip_axis)
        }
        Draw::Rotate { degrees } => return rotate(degrees, slice, sample),
    };
    let [rows, columns] =
        [(rows, 0), (columns, 1)].map(|(axis, side)| taps(axis, sample.shape[side]));
    let width = sample.shape[1];
    let lines = sample.image.chunks_exact_mut(width).zip(sample.annotation.chunks_exact_mut(width));
    for (row, (image, annotation)) in rows.iter().zip(lines) {
        for (column, pixel) in columns.iter().zip(image) {
            let [above, below] = [row.before, row.after].map(|line| {
                let left = slice.image[line + column.before];
                left + column.share * (slice.image[line + column.after] - left)
            });
            *pixel = above + row.share * (below - above);
        }
        for (column, label) in columns.iter().zip(annotation) {
            *label = slice.annotation[row.nearest + column.nearest];
        }
    }
}

/// The two elements of an axis between which an output lies, as offsets.
struct Tap {
    before: usize,
    after: usize,
    /// Weight of `after`.
    share: f32,
    nearest: usize,
}

fn taps(axis: Axis, to: usize) -> Vec<Tap> {
    let scale = axis.extent as f64 / to as f64;
    (0..to).map(|index| tap(axis, (index as f64 + 0.5) * scale - 0.5)).collect()
}

fn tap(axis: Axis, coordinate: f64) -> Tap {
    let coordinate = coordinate.clamp(0.0, (axis.extent - 1) as f64);
    let before = coordinate as usize;
    Tap {
        before: axis.offset(before),
        after: axis.offset((before + 1).min(axis.extent - 1)),
        share: (coordinate - before as f64) as f32,
        nearest: axis.offset((coordinate + 0.5) as usize),
    }
}

fn rotate(degrees: i32, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    let (sine, cosine) = f64::from(degrees).to_radians().sin_cos();
    let [middle_row, middle_column] = slice.shape.map(|extent| (extent as f64 - 1.0) / 2.0);
    let row_scale = slice.shape[0] as f64 / sample.shape[0] as f64;
    let column_scale = slice.shape[1] as f64 / sample.shape[1] as f64;
    let width = sample.shape[1];
    let lines = sample.image.chunks_exact_mut(width).zip(sample.annotation.chunks_exact_mut(width));
    for (i, (image, annotation)) in lines.enumerate() {
        let down = (i as f64 + 0.5) * row_scale - 0.5 - middle_row;
        for (j, (pixel, label)) in image.iter_mut().zip(annotation).enumerate() {
            let right = (j as f64 + 0.5) * column_scale - 0.5 - middle_column;
            let y = middle_row + cosine * down + sine * right;
            let x = middle_column - sine * down + cosine * right;
            (*pixel, *label) = between(slice, y as f32, x as f32);
        }
    }
}

/// Intensity and label at a point of the slice, in pixels from the centre of the first one.
fn between(slice: &Slice<'_>, y: f32, x: f32) -> (f32, u8) {
    let [rows, columns] = slice.shape;
    let outside = |at: f32, extent: usize| at < -0.5 || at >= extent as f32 - 0.5;
    if outside(y, rows) || outside(x, columns) {
        return (0.0, slice.outside);
    }
    let (y, x) = (y.clamp(0.0, (rows - 1) as f32), x.clamp(0.0, (columns - 1) as f32));
    let (row, column) = (y as i32 as usize, x as i32 as usize);
    let first = row * columns + column;
    let (below, right) =
        (if row + 1 < rows { columns } else { 0 }, usize::from(column + 1 < columns));
    let line = |start: usize| {
        let left = slice.image[start];
        left + (x - column as f32) * (slice.image[start + right] - left)
    };
    let above = line(first);
    let pixel = above + (y - row as f32) * (line(first + below) - above);
    let nearest = (y + 0.5) as i32 as usize * columns + (x + 0.5) as i32 as usize;
    (pixel, slice.annotation[nearest])
}
