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
    let [rows, columns] = Axis::stored(slice.shape);
    let row_scale = slice.shape[0] as f64 / sample.shape[0] as f64;
    let column_scale = slice.shape[1] as f64 / sample.shape[1] as f64;
    let outside =
        |coordinate: f64, extent: usize| coordinate < -0.5 || coordinate >= extent as f64 - 0.5;
    let width = sample.shape[1];
    let lines = sample.image.chunks_exact_mut(width).zip(sample.annotation.chunks_exact_mut(width));
    for (i, (image, annotation)) in lines.enumerate() {
        let down = (i as f64 + 0.5) * row_scale - 0.5 - middle_row;
        for (j, (pixel, label)) in image.iter_mut().zip(annotation).enumerate() {
            let right = (j as f64 + 0.5) * column_scale - 0.5 - middle_column;
            let y = middle_row + cosine * down + sine * right;
            let x = middle_column - sine * down + cosine * right;
            if outside(y, rows.extent) || outside(x, columns.extent) {
                (*pixel, *label) = (0.0, slice.ignore);
                continue;
            }
            let (row, column) = (tap(rows, y), tap(columns, x));
            let [above, below] = [row.before, row.after].map(|line| {
                let left = slice.image[line + column.before];
                left + column.share * (slice.image[line + column.after] - left)
            });
            *pixel = above + row.share * (below - above);
            *label = slice.annotation[row.nearest + column.nearest];
        }
    }
}
