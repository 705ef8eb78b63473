//! The augmentation of label transfer: flips, a crop out of a slightly larger image, some contrast.
//!
//! Everything happens on 8-bit values, as the published runs did it with Pillow. Source:
//! `mlcb-jlu/MedImgSeg` at 73c6b9e4, which draws and applies by torchvision. Knows plain planes of
//! memory, no tensors, no cases and no steps.

use super::pillow;
use crate::random::Draws;

/// Levels of an 8-bit value above 0.
const LEVELS: f32 = 255.0;

/// What happens to one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TransferDraw {
    /// Whether left and right change places.
    pub flip_columns: bool,
    /// Whether top and bottom change places, after that.
    pub flip_rows: bool,
    /// First row and column of the crop in the enlarged image, from 0 to [`margin`].
    pub crop: [usize; 2],
    /// By how much values are moved away from the mean grey of the crop; 1 leaves them.
    pub contrast: f32,
}

/// By how many pixels an image is larger than the `size` rows and columns that are cropped out of it:
/// 50 for 256, and in proportion.
pub fn margin(size: usize) -> usize {
    (size * 50 + 128) / 256
}

impl TransferDraw {
    /// Draws as the reference does: each flip in half of the images, a crop anywhere, a contrast
    /// of 0.9 to 1.1.
    pub fn sample(draws: &mut Draws, size: usize) -> Self {
        let places = margin(size) as u64 + 1;
        Self {
            flip_columns: draws.uniform() < 0.5,
            flip_rows: draws.uniform() < 0.5,
            crop: [draws.below(places) as usize, draws.below(places) as usize],
            contrast: draws.range(0.9, 1.1) as f32,
        }
    }

    /// Applies the draw to an image of `channels`, `rows`, `columns`, and writes `size` x `size`
    /// pixels of each channel into `out`: `[channels, size, size]`, multiples of 1/255 in `[0, 1]`.
    ///
    /// `planes` are intensities in `[0, 1]`, taken as the nearest of 256 levels; 1 or 3 channels.
    /// Lengths must fit, and no extent may be 0.
    pub fn apply(
        &self,
        planes: &[f32],
        [channels, rows, columns]: [usize; 3],
        (size, out): (usize, &mut [f32]),
    ) {
        debug_assert_eq!(planes.len(), channels * rows * columns);
        debug_assert_eq!(out.len(), channels * size * size);
        let (extent, [top, left]) = (size + margin(size), self.corner(size));
        let mut crop = Vec::with_capacity(out.len());
        for plane in planes.chunks_exact(rows * columns) {
            let plane = self.flipped(&levels(plane), columns);
            let enlarged = pillow::resize(&plane, [rows, columns], [extent; 2]);
            let lines = enlarged.chunks_exact(extent).skip(top).take(size);
            crop.extend(lines.flat_map(|line| &line[left..left + size]));
        }
        let middle = mean_grey(&crop, size * size);
        for (value, level) in out.iter_mut().zip(crop) {
            *value = f32::from(contrasted(level, middle, self.contrast)) / LEVELS;
        }
    }

    /// Moves labels of `rows`, `columns` as [`TransferDraw::apply`] moves the image they lie on, each
    /// pixel of `out`, `[size, size]`, taking the label nearest to it.
    pub fn apply_to_labels(
        &self,
        labels: &[u8],
        [rows, columns]: [usize; 2],
        (size, out): (usize, &mut [u8]),
    ) {
        debug_assert_eq!(labels.len(), rows * columns);
        debug_assert_eq!(out.len(), size * size);
        let (extent, [top, left]) = (size + margin(size), self.corner(size));
        let source = |place: usize, from: usize, flip: bool| {
            // The middle of the output pixel, in pixels of the source; exact in whole numbers.
            let index = (2 * place + 1) * from / (2 * extent);
            if flip { from - 1 - index } else { index }
        };
        for (row, line) in out.chunks_exact_mut(size).enumerate() {
            let start = source(row + top, rows, self.flip_rows) * columns;
            for (column, label) in line.iter_mut().enumerate() {
                *label = labels[start + source(column + left, columns, self.flip_columns)];
            }
        }
    }

    /// The first row and column of the crop, inside the enlarged image whatever was asked for.
    fn corner(&self, size: usize) -> [usize; 2] {
        self.crop.map(|start| start.min(margin(size)))
    }

    fn flipped(&self, plane: &[u8], columns: usize) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = plane.chunks_exact(columns).map(<[u8]>::to_vec).collect();
        if self.flip_columns {
            for line in &mut lines {
                line.reverse();
            }
        }
        if self.flip_rows {
            lines.reverse();
        }
        lines.concat()
    }
}

/// An image of `channels`, `rows`, `columns` resized to `size` x `size` as evaluation sees it, on 8-bit
/// values and bilinearly: `[channels, size, size]`, multiples of 1/255 in `[0, 1]`.
pub fn resize_planes(
    planes: &[f32],
    [channels, rows, columns]: [usize; 3],
    size: usize,
) -> Vec<f32> {
    debug_assert_eq!(planes.len(), channels * rows * columns);
    let planes = planes.chunks_exact(rows * columns);
    let resized = planes.flat_map(|p| pillow::resize(&levels(p), [rows, columns], [size; 2]));
    resized.map(|level| f32::from(level) / LEVELS).collect()
}

fn levels(plane: &[f32]) -> Vec<u8> {
    plane.iter().map(|value| (value * LEVELS).round() as u8).collect()
}

/// The mean of the image in grey, rounded to a level; `pixels` in each plane of `image`.
fn mean_grey(image: &[u8], pixels: usize) -> u8 {
    let sum: u64 = match image.len() / pixels.max(1) {
        3 => (0..pixels).map(|i| grey([i, i + pixels, i + 2 * pixels].map(|i| image[i]))).sum(),
        _ => image[..pixels].iter().map(|&level| u64::from(level)).sum(),
    };
    (sum as f64 / pixels as f64 + 0.5) as u8
}

/// Luma by ITU-R 601-2, in the fixed-point numbers of Pillow (`src/libImaging/Convert.c`).
fn grey([red, green, blue]: [u8; 3]) -> u64 {
    (19595 * u64::from(red) + 38470 * u64::from(green) + 7471 * u64::from(blue) + 0x8000) >> 16
}

/// A level moved away from `middle`, cut off as `src/libImaging/Blend.c` of Pillow does.
fn contrasted(level: u8, middle: u8, contrast: f32) -> u8 {
    // The cast truncates, and takes what lies outside to 0 or 255.
    (f32::from(middle) + contrast * (f32::from(level) - f32::from(middle))) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn margins_are_in_proportion() {
        assert_eq!([256, 128, 64, 32, 96].map(margin), [50, 25, 13, 6, 19]);
    }

    #[test]
    fn draws_reach_every_place_and_flip_half_of_the_time() {
        let (mut flips, mut seen) = ([0; 2], [[false; 14]; 2]);
        for number in 0..4000 {
            let draw = TransferDraw::sample(&mut Key::new(4).number(number).draws(), 64);
            flips[0] += i32::from(draw.flip_columns);
            flips[1] += i32::from(draw.flip_rows);
            assert!((0.9..=1.1).contains(&draw.contrast));
            (0..2).for_each(|axis| seen[axis][draw.crop[axis]] = true);
        }
        assert!(flips.iter().all(|flips| (1880..2120).contains(flips)), "{flips:?}");
        assert_eq!(seen, [[true; 14]; 2]);
    }

    /// An image whose pixels are bright where their label is 1.
    fn half_bright() -> (Vec<f32>, Vec<u8>) {
        let labels: Vec<u8> = (0..400).map(|i| u8::from(i % 20 > 11 && i / 20 > 6)).collect();
        (labels.iter().map(|&label| f32::from(label)).collect(), labels)
    }

    #[test]
    fn labels_go_where_their_pixels_go() {
        let (image, labels) = half_bright();
        for number in 0..40 {
            let draw = TransferDraw::sample(&mut Key::new(7).number(number).draws(), 32);
            let (mut out, mut moved) = (vec![9.0; 32 * 32], vec![9; 32 * 32]);
            draw.apply(&image, [1, 20, 20], (32, &mut out));
            draw.apply_to_labels(&labels, [20, 20], (32, &mut moved));
            let apart = out.iter().zip(&moved).filter(|(value, label)| {
                // Blended pixels lie between two labels, and either is right.
                (**value < 0.2 || **value > 0.8) && (**value > 0.5) != (**label == 1)
            });
            assert_eq!(apart.count(), 0, "{draw:?}");
            assert!(moved.contains(&1) && moved.contains(&0), "{draw:?}");
        }
    }

    #[test]
    fn evaluation_sees_an_image_of_the_right_size_unchanged() {
        let planes: Vec<f32> = (0..48u8).map(|level| f32::from(level * 5) / LEVELS).collect();
        assert_eq!(resize_planes(&planes, [3, 4, 4], 4), planes);
        assert_eq!(resize_planes(&planes, [3, 4, 4], 2).len(), 12);
    }
}
