//! Masks and pictures in grey levels, as they are written to files and read from them again.
//!
//! Every rounding is that of the library that the repository uses, and no two of them are the same.
//! Knows values and levels, and nothing of lesions.

/// The mask in every channel of the image, `[rows, columns, 3]`, but 0 where the image is 0.
///
/// `image` is `[rows, columns, 3]` in grey levels, `mask` is `[rows, columns]` in `[0, 1]`. What is
/// outside the body is black, and the mask may be anything there.
pub fn dark_pixels_cleared(image: &[u8], mask: &[f32]) -> Vec<f32> {
    let channels = |(levels, &value): (&[u8; 3], &f32)| {
        levels.map(|level| if level > 0 { value } else { 0.0 })
    };
    image.as_chunks::<3>().0.iter().zip(mask).flat_map(channels).collect()
}

/// One minus the mask, in grey levels 0 to 255, rounded to the nearest, halves to even ones.
///
/// The repository takes the values from `[-1, 1]` to `[0, 1]` and back on the way (`denorm(x) * 2 -
/// 1`), which costs them their last bits.
pub fn reversed_levels(mask: &[f32]) -> Vec<u8> {
    let level = |&value: &f32| {
        let shifted = ((1.0 - value) * 0.5 + 0.5) * 2.0 - 1.0;
        (shifted * 255.0).round_ties_even() as u8
    };
    mask.iter().map(level).collect()
}

/// A PNG file `[rows, columns, 3]` as OpenCV reads it in grey, `[rows, columns]`.
///
/// libpng weighs red, green and blue with 0.299, 0.587 and the rest, in 15 bits, and cuts off.
pub fn stored_grey(levels: &[u8]) -> Vec<u8> {
    weighed(levels, [9797, 19_234, 3737], 0)
}

/// A picture `[rows, columns, 3]` in memory as OpenCV turns it grey, `[rows, columns]`: as
/// [`stored_grey`], but rounded, weights and result.
pub(super) fn grey(levels: &[u8]) -> Vec<u8> {
    weighed(levels, [9798, 19_235, 3735], 1 << 14)
}

/// Sums of three levels with weights in units of `2^-15`.
fn weighed(levels: &[u8], weights: [u32; 3], added: u32) -> Vec<u8> {
    let sum = |pixel: &[u8; 3]| {
        let weighed = pixel.iter().zip(weights).map(|(&level, weight)| u32::from(level) * weight);
        ((weighed.sum::<u32>() + added) >> 15) as u8
    };
    levels.as_chunks::<3>().0.iter().map(sum).collect()
}
