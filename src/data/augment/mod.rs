//! Geometric augmentation of slices: what is drawn, and one resampling that applies it.
//!
//! A draw is a few numbers; applying it maps every pixel of the output straight to the slice as
//! stored, however many steps the draw stands for. This module knows plain slices of memory, no
//! tensors, no cases and no steps.

mod axes;
mod bilinear;
mod grid;
pub mod pillow;
mod reference;
pub mod transfer;

pub use grid::Grid;
pub use reference::{zoom_image, zoom_labels};

use crate::random::Draws;
use axes::Axis;

/// What happens to one sample before it is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// Quarter turns counter-clockwise (0 to 3), then always one flip.
    Turn {
        /// How many.
        quarter_turns: u8,
        /// The axis whose order is reversed: 0 for rows, 1 for columns.
        flip_axis: u8,
    },
    /// A turn about the middle by whole degrees, keeping the size.
    Rotate {
        /// From -20 to 19, counter-clockwise.
        degrees: i32,
    },
    /// Nothing.
    Keep,
}

impl Draw {
    /// Draws as the reference does: half of the samples turn and flip, a quarter rotates.
    ///
    /// Source: `RandomGenerator` of `HiLab-git/WSL4MIS`, `code/dataloaders/dataset.py` at a594da8d.
    pub fn sample(draws: &mut Draws) -> Self {
        let turns = draws.uniform() > 0.5;
        if turns {
            let (quarter_turns, flip_axis) = (draws.below(4) as u8, draws.below(2) as u8);
            return Self::Turn { quarter_turns, flip_axis };
        }
        let rotates = draws.uniform() > 0.5;
        if rotates { Self::Rotate { degrees: draws.below(40) as i32 - 20 } } else { Self::Keep }
    }
}

/// How pixels of the output are made from those of the slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resample {
    /// Nearest pixels by the arithmetic of scipy, as the published runs did, its quirks included.
    Reference,
    /// Intensities between pixels are blended; annotations keep the nearest label.
    Bilinear,
    /// No augmentation: whatever was drawn, the slice is only resized, as `Reference` does it.
    None,
}

/// A slice as stored.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    /// Rows, columns.
    pub shape: [usize; 2],
    /// Intensities, row-major.
    pub image: &'a [f32],
    /// Labels, row-major.
    pub annotation: &'a [u8],
    /// The label of what lies outside the slice, where the slice has such pixels itself or the
    /// resampling is bilinear; elsewhere it is class 0.
    pub outside: u8,
}

/// Where a sample is written, every pixel of it.
#[derive(Debug)]
pub struct Sample<'a> {
    /// Rows, columns.
    pub shape: [usize; 2],
    /// Intensities, row-major; 0 where the slice does not reach.
    pub image: &'a mut [f32],
    /// Labels, row-major; where the slice does not reach, see [`Slice::outside`].
    pub annotation: &'a mut [u8],
}

/// Applies `draw` to `slice` and resizes to the shape of `sample`, not keeping the aspect ratio.
///
/// Lengths must fit the shapes, and no extent may be 0.
pub fn apply(resample: Resample, draw: Draw, slice: &Slice<'_>, sample: &mut Sample<'_>) {
    debug_assert_eq!(slice.image.len(), slice.shape.iter().product::<usize>());
    debug_assert_eq!(slice.annotation.len(), slice.image.len());
    debug_assert_eq!(sample.image.len(), sample.shape.iter().product::<usize>());
    debug_assert_eq!(sample.annotation.len(), sample.image.len());
    match resample {
        Resample::Reference => reference::apply(draw, slice, sample),
        Resample::Bilinear => bilinear::apply(draw, slice, sample),
        Resample::None => reference::apply(Draw::Keep, slice, sample),
    }
}

/// Labels that belong to no image.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// Rows, columns.
    pub shape: [usize; 2],
    /// Labels, row-major.
    pub labels: &'a [u8],
}

/// Does to `mask` what the sample beside it gets, and resizes to the `size` x `size` pixels of
/// `out`: the turn and the flip, but not the rotation, and order-0 zoom whatever the resampling.
///
/// Source: `RandomGenerator` of `lichen14/MaskMixAdv` at cf584ee5. No extent may be 0.
pub fn apply_to_mask(
    resample: Resample,
    draw: Draw,
    mask: Mask<'_>,
    (size, out): (usize, &mut [u8]),
) {
    debug_assert_eq!(mask.labels.len(), mask.shape.iter().product::<usize>());
    debug_assert_eq!(out.len(), size * size);
    reference::resize(mask.labels, mask_axes(resample, draw, mask.shape), out, size);
}

/// The grid by which [`apply`] makes `size` rows of as many columns from a slice of `shape`,
/// no extent of which may be 0.
pub fn grid(resample: Resample, draw: Draw, shape: [usize; 2], size: usize) -> Grid {
    match resample {
        Resample::Reference => reference::grid(draw, shape, [size; 2]),
        Resample::Bilinear => bilinear::grid(draw, shape, [size; 2]),
        Resample::None => reference::grid(Draw::Keep, shape, [size; 2]),
    }
}

/// The grid of the nearest pixels by which [`apply_to_mask`] makes a mask.
pub fn mask_grid(resample: Resample, draw: Draw, shape: [usize; 2], size: usize) -> Grid {
    reference::resize_grid(mask_axes(resample, draw, shape), [size; 2])
}

/// The label that [`apply`] gives to what a rotation brings in from outside `slice`.
pub fn outside_label(resample: Resample, slice: &Slice<'_>) -> u8 {
    match resample {
        Resample::Reference | Resample::None => {
            reference::label_outside(slice.annotation, slice.outside)
        }
        Resample::Bilinear => slice.outside,
    }
}

/// The axes of a mask of `shape` beside a sample that is drawn so.
fn mask_axes(resample: Resample, draw: Draw, shape: [usize; 2]) -> [Axis; 2] {
    match (resample, draw) {
        (Resample::Reference | Resample::Bilinear, Draw::Turn { quarter_turns, flip_axis }) => {
            Axis::turned(shape, quarter_turns, flip_axis)
        }
        _ => Axis::stored(shape),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn draws_have_the_shares_of_the_reference() {
        let (mut turns, mut rotations, mut angles) = (0, 0, [false; 40]);
        for number in 0..8000 {
            match Draw::sample(&mut Key::new(4).number(number).draws()) {
                Draw::Turn { quarter_turns, flip_axis } => {
                    assert!(quarter_turns < 4 && flip_axis < 2);
                    turns += 1;
                }
                Draw::Rotate { degrees } => {
                    angles[(degrees + 20) as usize] = true;
                    rotations += 1;
                }
                Draw::Keep => {}
            }
        }
        assert!((3850..4150).contains(&turns) && (1870..2130).contains(&rotations));
        assert!(angles.iter().all(|&seen| seen));
    }

    /// Both resamplings of a smooth slice, and the annotation of the second.
    fn both(draw: Draw) -> (Vec<f32>, Vec<f32>, Vec<u8>) {
        let shape = [40, 30];
        let smooth = |i: usize| (i / 30) as f32 / 40.0 + (i % 30) as f32 / 60.0;
        let image: Vec<f32> = (0..1200).map(smooth).collect();
        let annotation: Vec<u8> = (0..1200).map(|i| u8::from(i / 30 > 20)).collect();
        let slice = Slice { shape, image: &image, annotation: &annotation, outside: 255 };
        let made = |resample| {
            let (mut image, mut annotation) = (vec![f32::NAN; 64 * 48], vec![77; 64 * 48]);
            let mut sample =
                Sample { shape: [64, 48], image: &mut image, annotation: &mut annotation };
            apply(resample, draw, &slice, &mut sample);
            (image, annotation)
        };
        let (bilinear, labels) = made(Resample::Bilinear);
        (made(Resample::Reference).0, bilinear, labels)
    }

    #[test]
    fn bilinear_follows_the_reference_within_a_pixel() {
        let mut draws: Vec<Draw> =
            (0..8).map(|n| Draw::Turn { quarter_turns: n % 4, flip_axis: n / 4 }).collect();
        draws.extend([Draw::Keep, Draw::Rotate { degrees: -20 }, Draw::Rotate { degrees: 13 }]);
        for draw in draws {
            let (reference, bilinear, labels) = both(draw);
            let mut apart = 0;
            for (a, b) in reference.iter().zip(&bilinear) {
                // A pixel is 1/40 down and 1/60 across; at the rim one of the two may be outside.
                apart += usize::from((a - b).abs() > 1.0 / 40.0 + 1.0 / 60.0);
            }
            let rim = if matches!(draw, Draw::Rotate { .. }) { 200 } else { 0 };
            assert!(apart <= rim, "{draw:?}: {apart} pixels differ");
            let outside = labels.iter().map(|&label| usize::from(label == 255)).sum::<usize>();
            assert_eq!(outside > 0, rim > 0, "{draw:?}: {outside} pixels outside");
            assert!(labels.iter().all(|label| [0, 1, 255].contains(label)), "{draw:?}");
        }
    }

    #[test]
    fn rotating_by_nothing_is_keeping() {
        assert_eq!(both(Draw::Rotate { degrees: 0 }), both(Draw::Keep));
    }
}
