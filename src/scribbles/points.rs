//! Points instead of strokes: a few single pixels of each class.
//!
//! Knows one slice. A finger that points at a structure does not point at its edge.

use super::{Mask, erode};
use crate::random::Draws;

/// Marks `count` pixels of class `class` of the slice `labels`, both in rows of `columns`, in `out`.
///
/// They are drawn uniformly, without repetition, from the pixels all of whose eight neighbours are of
/// the class too; where these are fewer than `count`, from all pixels of the class. A class of fewer
/// pixels gets all of them.
pub fn points(
    labels: &[u8],
    columns: usize,
    (class, count): (u8, usize),
    draws: &mut Draws,
    out: &mut [u8],
) {
    let mask = Mask::of(labels, class, columns);
    let inner = erode(&mask, 1);
    let drawn_from = if inner.area() >= count { inner } else { mask };
    let mut left: Vec<usize> =
        (0..labels.len()).filter(|&pixel| drawn_from.pixels[pixel]).collect();
    for _ in 0..count.min(left.len()) {
        let pixel = left.swap_remove(draws.below(left.len() as u64) as usize);
        out[pixel] = class;
    }
}
