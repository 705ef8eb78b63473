//! Augmentation of slices: what is drawn, one resampling that applies it, and what becomes of intensities.
//!
//! A draw is a few numbers; applying it and coming to the size of the sample maps every pixel of the output
//! straight to the slice as stored, however many steps the draw stands for. This module knows plain slices of memory, no
//! tensors, no cases and no steps.

mod axes;
mod bilinear;
mod fit;
mod full_rotation;
mod light;
pub mod pillow;
mod reference;
mod sources;
pub mod transfer;

pub use crate::config::sampling::Fit;
pub use fit::Centred;
pub use full_rotation::FullRotation;
pub use light::Light;
pub use reference::{zoom_image, zoom_labels};
pub use sources::PixelSources;

use crate::random::Draws;
use axes::Axis;

/// What happens to one sample before it comes to its size.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// Flips, quarter turns and a turn by any angle. Pixels are the nearest, whatever the resampling.
    Full(FullRotation),
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

    /// Draws as CycleMix does: half of the samples flip, each axis half of the time, and make any number of
    /// quarter turns; then all of them turn by any angle.
    ///
    /// Source: `BWGZK/CycleMix` at 76748303.
    pub fn full(draws: &mut Draws) -> Self {
        let mut full = FullRotation { flips: [false; 2], quarter_turns: 0, degrees: 0.0 };
        if draws.uniform() < 0.5 {
            full.flips = [draws.uniform() < 0.5, draws.uniform() < 0.5];
            full.quarter_turns = draws.below(4) as u8;
        }
        full.degrees = draws.range(0.0, 360.0);
        Self::Full(full)
    }

    /// Draws as GazeMedSeg does: half of the samples have the order of their rows reversed, half that of their
    /// columns.
    ///
    /// Source: `med-air/GazeMedSeg` at 12d02590.
    pub fn flips(draws: &mut Draws) -> Self {
        let flips = [draws.uniform() < 0.5, draws.uniform() < 0.5];
        Self::Full(FullRotation { flips, quarter_turns: 0, degrees: 0.0 })
    }

    /// Draws as CMC does: one sample in five has the order of its rows reversed, one in five that of its columns, and one
    /// in five makes one to three quarter turns.
    ///
    /// Source: `med-air/CMC` at cb8dd116, `RandFlipd` and `RandRotate90d` of MONAI.
    pub fn mild(draws: &mut Draws) -> Self {
        let flips = [draws.uniform() < MILD_CHANCE, draws.uniform() < MILD_CHANCE];
        let turns = draws.uniform() < MILD_CHANCE;
        let quarter_turns = if turns { 1 + draws.below(3) as u8 } else { 0 };
        Self::Full(FullRotation { flips, quarter_turns, degrees: 0.0 })
    }
}

/// How often a mildly augmented sample is flipped along one axis, and how often it is turned.
pub(super) const MILD_CHANCE: f64 = 0.2;

/// How pixels of the output are made from those of the slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resample {
    /// Nearest pixels by the arithmetic of scipy, as the published runs did, its quirks included.
    Reference,
    /// Intensities between pixels are blended; annotations keep the nearest label.
    Bilinear,
    /// Nearest pixels, and other draws: [`Draw::full`].
    FullRotation,
    /// Nearest pixels, and flips alone: [`Draw::flips`].
    Flips,
    /// Nearest pixels, few draws that move whole pixels, [`Draw::mild`], and intensities that vary, [`Light`].
    Mild,
    /// No augmentation: whatever was drawn, the slice only comes to its size, as `Reference` does it.
    None,
}

impl Resample {
    /// Draws what happens to one sample.
    pub fn draw(self, draws: &mut Draws) -> Draw {
        match self {
            Self::FullRotation => Draw::full(draws),
            Self::Flips => Draw::flips(draws),
            Self::Mild => Draw::mild(draws),
            Self::Reference | Self::Bilinear | Self::None => Draw::sample(draws),
        }
    }
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
    /// The label of what lies outside the slice; see [`Transform::outside_label`].
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

/// Labels that belong to no image.
#[derive(Debug, Clone, Copy)]
pub struct Mask<'a> {
    /// Rows, columns.
    pub shape: [usize; 2],
    /// Labels, row-major.
    pub labels: &'a [u8],
}

/// How a sample is made of a slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// How pixels are made.
    pub resample: Resample,
    /// What happens first.
    pub draw: Draw,
    /// How the slice then comes to the size of the sample.
    pub fit: Fit,
}

impl Transform {
    /// `draw`, then a resize that does not keep the aspect.
    pub fn resizing(resample: Resample, draw: Draw) -> Self {
        Self { resample, draw, fit: Fit::Resize }
    }

    /// What happens indeed: nothing where there is no augmentation.
    fn drawn(&self) -> Draw {
        if self.resample == Resample::None { Draw::Keep } else { self.draw }
    }

    /// Makes all of `sample` of `slice`. Lengths must fit the shapes, and no extent may be 0.
    pub fn apply(&self, slice: &Slice<'_>, sample: &mut Sample<'_>) {
        debug_assert_eq!(slice.image.len(), slice.shape.iter().product::<usize>());
        debug_assert_eq!(slice.annotation.len(), slice.image.len());
        debug_assert_eq!(sample.image.len(), sample.shape.iter().product::<usize>());
        debug_assert_eq!(sample.annotation.len(), sample.image.len());
        match (self.drawn(), self.resample) {
            (Draw::Full(full), _) => full.apply(self.fit, slice, sample),
            (draw, Resample::Bilinear) => bilinear::apply(draw, self.fit, slice, sample),
            (draw, _) => reference::apply(draw, self.fit, slice, sample),
        }
    }

    /// Where [`Transform::apply`] takes the pixels of `size` rows of as many columns from a slice of `shape`,
    /// no extent of which may be 0.
    pub fn sources(&self, shape: [usize; 2], size: usize) -> PixelSources {
        match (self.drawn(), self.resample) {
            (Draw::Full(full), _) => full.sources(self.fit, shape, [size; 2]),
            (draw, Resample::Bilinear) => bilinear::sources(draw, self.fit, shape, [size; 2]),
            (draw, _) => reference::sources(draw, self.fit, shape, [size; 2]),
        }
    }

    /// Does to `mask` what the sample beside it gets, and brings it to the `size` x `size` pixels of `out`:
    /// turn and flip, but not the rotation, and nearest pixels whatever the resampling.
    ///
    /// Source: `RandomGenerator` of `lichen14/MaskMixAdv` at cf584ee5. No extent may be 0.
    pub fn apply_to_mask(&self, mask: Mask<'_>, (size, out): (usize, &mut [u8])) {
        debug_assert_eq!(mask.labels.len(), mask.shape.iter().product::<usize>());
        debug_assert_eq!(out.len(), size * size);
        reference::gather_labels(mask.labels, (self.mask_axes(mask.shape), self.fit), (size, out));
    }

    /// The nearest pixels by which [`Transform::apply_to_mask`] makes a mask.
    pub fn mask_sources(&self, shape: [usize; 2], size: usize) -> PixelSources {
        reference::still_sources(self.mask_axes(shape), self.fit, [size; 2])
    }

    /// The axes of a mask of `shape` beside a sample that is drawn so.
    fn mask_axes(&self, shape: [usize; 2]) -> [Axis; 2] {
        match self.drawn() {
            Draw::Turn { quarter_turns, flip_axis } => {
                Axis::turned(shape, quarter_turns, flip_axis)
            }
            Draw::Full(FullRotation { flips, quarter_turns, .. }) => {
                Axis::flipped(shape, flips, quarter_turns)
            }
            Draw::Rotate { .. } | Draw::Keep => Axis::stored(shape),
        }
    }

    /// The label that [`Transform::apply`] gives to what lies outside of `slice`: the wished one, but where a
    /// slice is resized as the published codes do it, class 0 unless the slice has such pixels itself.
    pub fn outside_label(&self, slice: &Slice<'_>) -> u8 {
        match (self.fit, self.resample) {
            (Fit::Resize, Resample::Reference | Resample::None) => {
                reference::label_outside(slice.annotation, slice.outside)
            }
            _ => slice.outside,
        }
    }
}

/// A map on the grid of samples, `from` rows and columns, on that of their slice, `to`: resized by order-0 zoom,
/// or in its place and 0 where the sample did not reach.
pub fn brought_back(fit: Fit, map: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    match fit {
        Fit::Resize => zoom_image(map, from, to),
        Fit::Crop => Centred::cut(map, from, to, 0.0),
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
                Draw::Keep | Draw::Full(_) => {}
            }
        }
        assert!((3850..4150).contains(&turns) && (1870..2130).contains(&rotations));
        assert!(angles.iter().all(|&seen| seen));
    }

    #[test]
    fn half_of_the_full_draws_flip_and_all_rotate_by_any_angle() {
        let (mut flipped, mut quarters, mut eighths) = ([0; 2], [0; 4], [0; 8]);
        for number in 0..8000 {
            let draw = Resample::FullRotation.draw(&mut Key::new(4).number(number).draws());
            let Draw::Full(FullRotation { flips, quarter_turns, degrees }) = draw else {
                panic!("{draw:?}")
            };
            flipped.iter_mut().zip(flips).for_each(|(count, flips)| *count += i32::from(flips));
            quarters[usize::from(quarter_turns)] += 1;
            eighths[(degrees / 45.0) as usize] += 1;
        }
        assert!(flipped.iter().all(|count| (1870..2130).contains(count)), "{flipped:?}");
        assert!((4850..5150).contains(&quarters[0]), "{quarters:?}");
        assert!(quarters[1..].iter().all(|count| (900..1100).contains(count)), "{quarters:?}");
        assert!(eighths.iter().all(|count| (900..1100).contains(count)), "{eighths:?}");
    }

    #[test]
    fn flips_are_of_rows_and_of_columns_and_move_whole_pixels() {
        let mut seen = [0; 4];
        for number in 0..4000 {
            let draw = Resample::Flips.draw(&mut Key::new(4).number(number).draws());
            let Draw::Full(FullRotation { flips: [rows, columns], quarter_turns: 0, degrees }) =
                draw
            else {
                panic!("{draw:?}")
            };
            assert!(degrees.abs() < f64::MIN_POSITIVE);
            seen[2 * usize::from(rows) + usize::from(columns)] += 1;
            let image: Vec<f32> = (0..35).map(|pixel: u8| f32::from(pixel)).collect();
            let annotation: Vec<u8> = (0..35).collect();
            let slice =
                Slice { shape: [7, 5], image: &image, annotation: &annotation, outside: 255 };
            let (mut pixels, mut labels) = ([f32::NAN; 35], [77; 35]);
            let mut sample = Sample { shape: [7, 5], image: &mut pixels, annotation: &mut labels };
            Transform::resizing(Resample::Flips, draw).apply(&slice, &mut sample);
            let turned =
                |extent: u8, flips: bool| move |i: u8| if flips { extent - 1 - i } else { i };
            let (row, column) = (turned(7, rows), turned(5, columns));
            let expected: Vec<u8> =
                (0..35).map(|pixel| row(pixel / 5) * 5 + column(pixel % 5)).collect();
            assert_eq!(labels, expected[..]);
            assert!(
                pixels
                    .iter()
                    .zip(labels)
                    .all(|(pixel, label)| (pixel - f32::from(label)).abs() < 1e-6)
            );
        }
        assert!(seen.iter().all(|count| (900..1100).contains(count)), "{seen:?}");
    }

    #[test]
    fn a_fifth_of_the_mild_draws_flips_each_axis_and_a_fifth_turns() {
        let (mut flipped, mut quarters) = ([0; 2], [0; 4]);
        for number in 0..8000 {
            let draw = Resample::Mild.draw(&mut Key::new(4).number(number).draws());
            let Draw::Full(FullRotation { flips, quarter_turns, degrees }) = draw else {
                panic!("{draw:?}")
            };
            assert!(degrees.abs() < f64::MIN_POSITIVE);
            flipped.iter_mut().zip(flips).for_each(|(count, flips)| *count += i32::from(flips));
            quarters[usize::from(quarter_turns)] += 1;
        }
        assert!(flipped.iter().all(|count| (1480..1720).contains(count)), "{flipped:?}");
        assert!(quarters[1..].iter().all(|count| (460..610).contains(count)), "{quarters:?}");
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
            Transform::resizing(resample, draw).apply(&slice, &mut sample);
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
