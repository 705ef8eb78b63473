//! Edges of a map of gaze drawn to those of its picture by a dense random field.
//!
//! Knows pixels and the numbers of the field; the field itself is [`crate::crf`].

use crate::crf::{Bilateral, DenseCrf, Image, unary_costs};
use crate::error::Result;

/// The random field of the published code: it joins pixels that are near and alike, and has no kernel of places
/// alone. Widths are those of a picture of some 600 pixels.
pub const FIELD: DenseCrf = DenseCrf {
    gaussian: None,
    bilateral: Some(Bilateral {
        widths_pixels: [80.0; 2],
        widths_levels: [13.0; 3],
        compatibility: 1.0,
    }),
    iterations: 10,
};

/// A map in levels from 0 to 255, refined on the picture that it lies on: 255 times the marginal of what was looked
/// at, without what follows the point.
///
/// With `h = level / 255` the scores of the two labels are `1 - h` and `h`. Refuses what [`DenseCrf::marginals`]
/// refuses.
pub fn refined(map: &[u8], image: Image<'_>, field: &DenseCrf) -> Result<Vec<u8>> {
    let looked = map.iter().map(|&level| f64::from(level) / 255.0);
    let scores: Vec<f64> = looked.clone().map(|share| 1.0 - share).chain(looked).collect();
    let marginals = field.marginals(image, &unary_costs(&scores))?;
    Ok(marginals[map.len()..].iter().map(|marginal| (marginal * 255.0) as u8).collect())
}

/// The pixels that [`refined`] compares, `[rows, columns, 3]`, of a picture of `channels` planes one after the other.
///
/// Three channels are colours of 8 bits and stay. A single one is scaled from 0, its smallest value, to 255, its
/// largest, cut to whole numbers and repeated; one of a single value becomes 0.
pub fn grey_levels(planes: &[f32], channels: usize) -> Vec<u8> {
    let pixels = planes.len() / channels.max(1);
    if channels == 3 {
        let place = |pixel: usize| [0, 1, 2].map(|channel| planes[channel * pixels + pixel] as u8);
        return (0..pixels).flat_map(place).collect();
    }
    let plane = &planes[..pixels];
    let numbers = || plane.iter().map(|&value| f64::from(value));
    let (low, high) =
        (numbers().fold(f64::INFINITY, f64::min), numbers().fold(f64::NEG_INFINITY, f64::max));
    let range = if high > low { high - low } else { 1.0 };
    numbers().flat_map(|value| [((value - low) / range * 255.0) as u8; 3]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_takes_the_edge_of_the_picture() {
        // Left half dark, right half bright; a map that rises slowly from left to right.
        let bright = |pixel: usize| if pixel % 16 < 8 { 20 } else { 220 };
        let pixels: Vec<u8> = (0..256).flat_map(|pixel| [bright(pixel); 3]).collect();
        let map: Vec<u8> = (0..256).map(|pixel| (40 + 11 * (pixel % 16)) as u8).collect();
        let image = Image { columns: 16, pixels: &pixels };
        let refined = refined(&map, image, &FIELD).unwrap();
        let step = |map: &[u8]| i32::from(map[8 * 16 + 8]) - i32::from(map[8 * 16 + 7]);
        assert!(step(&refined) > 2 * step(&map), "{} {}", step(&refined), step(&map));
    }

    #[test]
    fn grey_pictures_are_stretched_and_colours_stay() {
        assert_eq!(grey_levels(&[-1.0, 0.0, 3.0], 1), [0, 0, 0, 63, 63, 63, 255, 255, 255]);
        assert_eq!(grey_levels(&[7.0, 7.0], 1), [0; 6]);
        assert_eq!(grey_levels(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1, 3, 5, 2, 4, 6]);
    }
}
