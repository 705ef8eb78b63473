//! Shorter scribbles from longer ones, to ask how little annotation is enough.
//!
//! HiLab-git/DMSPS, `ACDC_scribble_reduce_enhance.py` at 89fe065. Knows one slice.

use super::parts::{Touch, largest, parts};
use super::{Mask, UNLABELLED};

/// Halves the scribbles of a slice, in rows of `columns`, for each of `class_count` classes, the
/// background included.
///
/// Each stroke loses the upper half of its bounding box where that is taller than wide, else the left
/// half, with everything else of its class beside it, and of what is left only the largest part
/// stays. So a class keeps one piece, and much less than half of its pixels; the released code does
/// the same.
pub fn shorten(scribble: &mut [u8], columns: usize, class_count: usize) {
    for class in 0..class_count.min(usize::from(UNLABELLED)) as u8 {
        let mut left = Mask::of(scribble, class, columns);
        for stroke in parts(&left, Touch::Corners) {
            cut_half(&mut left, &stroke);
            left = largest(&left, Touch::Sides);
        }
        for (label, left) in scribble.iter_mut().zip(left.pixels) {
            if *label == class && !left {
                *label = UNLABELLED;
            }
        }
    }
}

/// Removes the upper or left half of the bounding box of `stroke`, in all columns or all rows.
fn cut_half(mask: &mut Mask, stroke: &[usize]) {
    let columns = mask.columns;
    let bounds = |place: fn(usize, usize) -> usize| {
        let places = stroke.iter().map(|&pixel| place(pixel, columns));
        places.fold((usize::MAX, 0), |(first, end), place| (first.min(place), end.max(place + 1)))
    };
    let (top, bottom) = bounds(|pixel, columns| pixel / columns);
    let (left, right) = bounds(|pixel, columns| pixel % columns);
    let is_tall = bottom - top > right - left;
    let (first, end) = if is_tall { (top, bottom) } else { (left, right) };
    let half = first..first + (end - first) / 2;
    for (pixel, kept) in mask.pixels.iter_mut().enumerate() {
        let place = if is_tall { pixel / columns } else { pixel % columns };
        *kept &= !half.contains(&place);
    }
}
