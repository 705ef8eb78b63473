//! Moving masks: shifts by whole pixels, and rotations exactly as the Python Imaging Library does them.
//!
//! Knows masks and geometry alone. What comes in from outside is background.

use super::Mask;

/// Shifts `mask` by whole pixels.
#[must_use]
pub fn shift(mask: &Mask, [down, right]: [isize; 2]) -> Mask {
    let pixels = (0..mask.pixels.len()).map(|pixel| mask.holds(pixel, [-down, -right])).collect();
    Mask { columns: mask.columns, pixels }
}

/// Rotates `mask` counter-clockwise about its middle, by nearest pixels.
///
/// `Image.rotate` of Pillow: positions in 16.16 fixed point, so that the same pixels are hit.
#[must_use]
pub fn rotate(mask: &Mask, degrees: f64) -> Mask {
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return mask.clone();
    }
    let angle = -degrees.to_radians();
    let round = |value: f64| (value * 1e15).round() / 1e15;
    let (cosine, sine) = (round(angle.cos()), round(angle.sin()));
    let (width, height) = (mask.columns as f64, mask.rows() as f64);
    let across = cosine * (-width / 2.0) + sine * (-height / 2.0) + width / 2.0;
    let along = -sine * (-width / 2.0) + cosine * (-height / 2.0) + height / 2.0;
    let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
    let start_across = fixed(across + 0.5 * cosine + 0.5 * sine);
    let start_along = fixed(along - 0.5 * sine + 0.5 * cosine);
    let source = |pixel: usize| {
        let (row, column) = ((pixel / mask.columns) as i64, (pixel % mask.columns) as i64);
        let from_column = (start_across + fixed(cosine) * column + fixed(sine) * row) >> 16;
        let from_row = (start_along + fixed(-sine) * column + fixed(cosine) * row) >> 16;
        let (row, column) = (usize::try_from(from_row).ok()?, usize::try_from(from_column).ok()?);
        (row < mask.rows() && column < mask.columns).then(|| row * mask.columns + column)
    };
    let pixels = (0..mask.pixels.len())
        .map(|pixel| source(pixel).is_some_and(|source| mask.pixels[source]))
        .collect();
    Mask { columns: mask.columns, pixels }
}
