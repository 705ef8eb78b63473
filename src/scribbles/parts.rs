//! Connected parts of masks.
//!
//! Knows masks, not classes.

use super::Mask;

/// Which pixels touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// Those that share a side.
    Sides,
    /// Those that share a side or a corner.
    Corners,
}

/// The connected parts of `mask` in the order of their first pixels, each with its pixels in no order
/// but for the first, which comes first.
pub(super) fn parts(mask: &Mask, touch: Touch) -> Vec<Vec<usize>> {
    let mut open = mask.clone();
    let mut found = Vec::new();
    for start in 0..open.pixels.len() {
        if !open.pixels[start] {
            continue;
        }
        open.pixels[start] = false;
        let mut part = vec![start];
        let mut next = 0;
        while let Some(&pixel) = part.get(next) {
            for offset in touch.offsets() {
                if let Some(near) = open.beside(pixel, *offset).filter(|&near| open.pixels[near]) {
                    open.pixels[near] = false;
                    part.push(near);
                }
            }
            next += 1;
        }
        found.push(part);
    }
    found
}

/// The largest part of `mask`; of equal ones the first.
pub(super) fn largest(mask: &Mask, touch: Touch) -> Mask {
    let parts = parts(mask, touch);
    let most = parts.iter().map(Vec::len).max();
    let largest = parts.iter().find(|part| Some(part.len()) == most);
    mask.empty_like().with(largest.map_or(&[], Vec::as_slice))
}

impl Touch {
    fn offsets(self) -> &'static [[isize; 2]] {
        const OFFSETS: [[isize; 2]; 8] =
            [[-1, 0], [0, -1], [0, 1], [1, 0], [-1, -1], [-1, 1], [1, -1], [1, 1]];
        match self {
            Self::Sides => &OFFSETS[..4],
            Self::Corners => &OFFSETS,
        }
    }
}
