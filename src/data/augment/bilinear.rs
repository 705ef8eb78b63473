//! One affine map per sample, intensities blended between the four nearest pixels.
//!
//! Pixels are areas: where a slice is resized, the outer edges of slice and sample coincide, and where it is
//! cropped, their middles. Within the slice's own outer half pixel its border values hold; beyond it the image is 0
//! and the annotation unknown.

use super::axes::Axis;
use super::fit::Centred;
use super::sources::PixelSources;
use super::{Draw, Sample, Slice, reference};
use crate::config::sampling::Fit;

/// Applies a draw and comes to the shape of `sample`.
pub(super) fn apply(draw: Draw, fit: Fit, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    let [rows, columns] = match draw {
        Draw::Rotate { degrees } => return rotate(degrees, fit, slice, sample),
        // Nothing lies between pixels.
        _ if fit == Fit::Crop => return reference::apply(draw, fit, slice, sample),
        Draw::Turn { quarter_turns, flip_axis } => {
            Axis::turned(slice.shape, quarter_turns, flip_axis)
        }
        Draw::Keep | Draw::Full(_) => Axis::stored(slice.shape),
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

/// Where the pixels come from of a sample of the shape `to`. Pixels are blended between the elements around their
/// coordinates; outside is what lies more than half a pixel beyond the first or last element.
pub(super) fn sources(draw: Draw, fit: Fit, shape: [usize; 2], to: [usize; 2]) -> PixelSources {
    let axes = match draw {
        Draw::Rotate { degrees } => {
            let [rows, columns] = rotated(degrees, fit, shape, to);
            return PixelSources {
                is_single: true,
                ..PixelSources::new(Axis::stored(shape), rows, columns)
            };
        }
        _ if fit == Fit::Crop => return reference::sources(draw, fit, shape, to),
        Draw::Turn { quarter_turns, flip_axis } => Axis::turned(shape, quarter_turns, flip_axis),
        Draw::Keep | Draw::Full(_) => Axis::stored(shape),
    };
    let [rows, columns] = [0, 1].map(|side| coordinates(axes[side].extent, to[side]));
    let rows = rows.map(|row| [row, 0.0]).collect();
    PixelSources::new(axes, rows, columns.map(|column| [0.0, column]).collect())
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
    coordinates(axis.extent, to).map(|coordinate| tap(axis, coordinate)).collect()
}

/// Where each of `to` outputs lies between the first and the last of `extent` elements.
fn coordinates(extent: usize, to: usize) -> impl Iterator<Item = f64> {
    let (scale, last) = (extent as f64 / to as f64, (extent - 1) as f64);
    (0..to).map(move |index| ((index as f64 + 0.5) * scale - 0.5).clamp(0.0, last))
}

fn tap(axis: Axis, coordinate: f64) -> Tap {
    let before = coordinate as usize;
    Tap {
        before: axis.offset(before),
        after: axis.offset((before + 1).min(axis.extent - 1)),
        share: (coordinate - before as f64) as f32,
        nearest: axis.offset((coordinate + 0.5) as usize),
    }
}

fn rotate(degrees: i32, fit: Fit, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    let [rows, columns] = rotated(degrees, fit, slice.shape, sample.shape);
    let width = sample.shape[1];
    let lines = sample.image.chunks_exact_mut(width).zip(sample.annotation.chunks_exact_mut(width));
    for (row, (image, annotation)) in rows.iter().zip(lines) {
        for (column, (pixel, label)) in columns.iter().zip(image.iter_mut().zip(annotation)) {
            let (y, x) = (row[0] + column[0], row[1] + column[1]);
            (*pixel, *label) = between(slice, y as f32, x as f32);
        }
    }
}

/// The parts that the rows and the columns of a rotated sample give to the coordinates in the slice.
fn rotated(degrees: i32, fit: Fit, shape: [usize; 2], to: [usize; 2]) -> [Vec<[f64; 2]>; 2] {
    let (sine, cosine) = f64::from(degrees).to_radians().sin_cos();
    let middle = shape.map(|extent| (extent as f64 - 1.0) / 2.0);
    let from_middle = |side: usize| {
        let scale = shape[side] as f64 / to[side] as f64;
        let Centred { start, before, .. } = Centred::of(shape[side], to[side]);
        let line = move |index: usize| match fit {
            Fit::Resize => (index as f64 + 0.5) * scale - 0.5,
            Fit::Crop => index as f64 + start as f64 - before as f64,
        };
        (0..to[side]).map(move |index| line(index) - middle[side])
    };
    let rows = from_middle(0).map(|down| [middle[0] + cosine * down, middle[1] - sine * down]);
    let columns = from_middle(1).map(|right| [sine * right, cosine * right]);
    [rows.collect(), columns.collect()]
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
