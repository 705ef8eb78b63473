//! Making masks smaller and larger: erosion, dilation, thinning to lines one pixel wide.
//!
//! Knows masks, not classes. What is outside a mask is background.

use super::Mask;

/// The eight pixels around one, `[down, right]`, counter-clockwise from the east.
const AROUND: [[isize; 2]; 8] =
    [[0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1], [1, 0], [1, 1]];

/// Erodes `mask` so often by the full 3 x 3 square. The border of the picture is eroded too.
#[must_use]
pub fn erode(mask: &Mask, iterations: usize) -> Mask {
    let mut eroded = mask.clone();
    for _ in 0..iterations {
        let whole = |pixel: usize| {
            eroded.pixels[pixel] && AROUND.iter().all(|&offset| eroded.holds(pixel, offset))
        };
        let pixels = (0..eroded.pixels.len()).map(whole).collect();
        eroded = Mask { pixels, ..eroded };
    }
    eroded
}

/// Dilates `mask` once by the full 3 x 3 square.
pub(super) fn dilate(mask: &Mask) -> Mask {
    let touched =
        |pixel: usize| mask.pixels[pixel] || AROUND.iter().any(|&offset| mask.holds(pixel, offset));
    Mask { columns: mask.columns, pixels: (0..mask.pixels.len()).map(touched).collect() }
}

/// Dilates `mask` once by the pixels that share a side: a disk of radius 1.
pub(super) fn dilate_by_sides(mask: &Mask) -> Mask {
    let sides = || AROUND.iter().filter(|[down, right]| down * right == 0);
    let touched =
        |pixel: usize| mask.pixels[pixel] || sides().any(|&offset| mask.holds(pixel, offset));
    Mask { columns: mask.columns, pixels: (0..mask.pixels.len()).map(touched).collect() }
}

/// The pixels of `mask` that are farther than `radius` from every pixel outside of it. The border of the picture is
/// no pixel, and erodes nothing.
pub(super) fn erode_by_disk(mask: &Mask, radius: usize) -> Mask {
    let reach = radius as isize;
    let square = -reach..=reach;
    let disk: Vec<[isize; 2]> = square
        .clone()
        .flat_map(|down| square.clone().map(move |right| [down, right]))
        .filter(|[down, right]| down * down + right * right <= reach * reach)
        .collect();
    let mut eroded = mask.clone();
    // On the way from any pixel outside to one of the mask, the last one outside is no farther from it.
    let touches = |pixel: usize| {
        AROUND.iter().any(|&[down, right]| down * right == 0 && mask.holds(pixel, [down, right]))
    };
    for pixel in (0..mask.pixels.len()).filter(|&pixel| !mask.pixels[pixel] && touches(pixel)) {
        for near in disk.iter().filter_map(|&offset| mask.beside(pixel, offset)) {
            eroded.pixels[near] = false;
        }
    }
    eroded
}

/// Thins `mask` to lines one pixel wide that keep its parts, holes and ends.
///
/// Lee, Kashyap and Chu, CVGIP 56(6), 1994, on a plane, as scikit-image's `skeletonize` does it with
/// `method="lee"`: passes over the four directions until one deletes nothing.
#[must_use]
pub fn thin(mask: &Mask) -> Mask {
    let mut thinned = mask.clone();
    // North, south, east, west.
    let directions = [[-1, 0], [1, 0], [0, 1], [0, -1]];
    loop {
        let mut deleted = false;
        for direction in directions {
            let candidates: Vec<usize> = (0..thinned.pixels.len())
                .filter(|&pixel| thinned.pixels[pixel] && !thinned.holds(pixel, direction))
                .filter(|&pixel| {
                    is_simple(&thinned, pixel) && neighbour_count(&thinned, pixel) != 1
                })
                .collect();
            for pixel in candidates {
                // Deleting those before it may have made it the last link between two parts.
                if is_simple(&thinned, pixel) {
                    thinned.pixels[pixel] = false;
                    deleted = true;
                }
            }
        }
        if !deleted {
            return thinned;
        }
    }
}

/// How many of the eight pixels around `pixel` belong to `mask`.
pub(super) fn neighbour_count(mask: &Mask, pixel: usize) -> usize {
    AROUND.iter().filter(|&&offset| mask.holds(pixel, offset)).count()
}

/// Whether deleting `pixel` parts nothing and opens no hole: its 8-connectivity number (Yokoi et al.,
/// 1975) is 1.
fn is_simple(mask: &Mask, pixel: usize) -> bool {
    let absent = AROUND.map(|offset| u8::from(!mask.holds(pixel, offset)));
    let corner = |k: usize| absent[k] - absent[k] * absent[k + 1] * absent[(k + 2) % 8];
    [0, 2, 4, 6].map(corner).iter().sum::<u8>() == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn disks_erode_what_lies_near_to_pixels_outside_and_not_at_the_border() {
        let mut draws = Key::new(3).draws();
        for radius in 0..5 {
            let columns = 5 + draws.below(9) as usize;
            let pixels = (0..columns * 11).map(|_| draws.below(30) > 0).collect();
            let mask = Mask { columns, pixels };
            let distance = |one: usize, other: usize| {
                let [down, right] = [one / columns, one % columns];
                down.abs_diff(other / columns).pow(2) + right.abs_diff(other % columns).pow(2)
            };
            let outside = || (0..mask.pixels.len()).filter(|&pixel| !mask.pixels[pixel]);
            let is_far = |pixel| outside().all(|other| distance(pixel, other) > radius * radius);
            let expected: Vec<bool> = (0..mask.pixels.len()).map(is_far).collect();
            assert_eq!(erode_by_disk(&mask, radius).pixels, expected, "radius {radius}");
        }
    }

    #[test]
    fn a_pixel_dilates_to_a_cross() {
        let mut mask = Mask { columns: 4, pixels: vec![false; 16] };
        mask.pixels[4] = true;
        let dilated = dilate_by_sides(&mask);
        let found: Vec<usize> = (0..16).filter(|&pixel| dilated.pixels[pixel]).collect();
        assert_eq!(found, [0, 4, 5, 8]);
    }
}
