//! Which held-out cases are worth a picture, the worst and the best of an evaluation, and the pictures.
//!
//! Each rank keeps the predictions of its own worst and best case; once all scores are known, the rank
//! that holds the worst or best of all draws it. Nothing is sent.

use super::inference::Inference;
use super::method::Drawing;
use super::scores::CaseScores;
use crate::data::held_out::HeldOut;
use crate::data::{GAZE, IMAGE_LABEL};
use crate::error::{Context, Result};
use crate::runlog::preview::{Annotated, MadeSquares, Preview, UNANNOTATED, Values};
use tch::{Device, Kind, Tensor};

/// The predictions for a rank's worst and best case so far.
#[derive(Debug, Default)]
pub struct Extremes {
    worst: Option<Candidate>,
    best: Option<Candidate>,
}

/// A case by its place among all held-out cases.
#[derive(Debug, Clone)]
struct Candidate {
    case: usize,
    dice: f64,
    prediction: Vec<u8>,
}

impl Extremes {
    /// Takes note of a case, and keeps its prediction while it is the worst or best so far.
    pub(super) fn consider(&mut self, case: usize, dice: f64, prediction: Vec<u8>) {
        // Of equal ones the first stays, here as among the ranks.
        let is_worst = self.worst.as_ref().is_none_or(|worst| dice < worst.dice);
        let is_best = self.best.as_ref().is_none_or(|best| dice > best.dice);
        if dice.is_nan() || !(is_worst || is_best) {
            return;
        }
        let candidate = Candidate { case, dice, prediction };
        if is_worst && is_best {
            self.best = Some(candidate.clone());
            self.worst = Some(candidate);
        } else if is_worst {
            self.worst = Some(candidate);
        } else {
            self.best = Some(candidate);
        }
    }

    /// The worst and the best of all `cases`, as far as they are this rank's: `worst` or `best`, the
    /// place of the case, the prediction.
    pub(super) fn of_all(&self, cases: &[CaseScores]) -> Vec<(&'static str, usize, &[u8])> {
        let scored = || {
            let mean = cases.iter().map(CaseScores::mean_dice).enumerate();
            mean.filter(|(_, dice)| !dice.is_nan())
        };
        // Of equal ones `min_by` gives the first and `max_by` the last.
        let worst = scored().min_by(|a, b| a.1.total_cmp(&b.1));
        let best = scored().rev().max_by(|a, b| a.1.total_cmp(&b.1));
        let chosen = [("worst", worst, &self.worst), ("best", best, &self.best)];
        let own = chosen.into_iter().filter_map(|(name, chosen, own)| {
            let own =
                own.as_ref().filter(|own| chosen.is_some_and(|(case, _)| own.case == case))?;
            Some((name, own.case, own.prediction.as_slice()))
        });
        own.collect()
    }
}

/// A case and what is known of it, to be drawn.
pub(super) struct Scene<'a> {
    pub(super) held_out: &'a HeldOut<'a>,
    /// The name of the annotation.
    pub(super) annotation: &'a str,
    /// How many levels of gaze the data set has.
    pub(super) levels: usize,
    /// The class of each pixel on the grid of predictions.
    pub(super) prediction: &'a [u8],
}

impl Scene<'_> {
    /// The picture, with what the method makes of the slices beside.
    pub(super) fn picture(&self, inference: &Inference<'_>) -> Result<Preview> {
        let scan = self.held_out.scan();
        let [slices, rows, columns] = inference.shape(scan);
        let plane = [rows, columns];
        let image = inference.image(scan, 0..slices);
        let levels = Levels::of(&image);
        let annotated = self.held_out.annotation_on(self.annotation, plane);
        let truth = self.held_out.truth_on(plane);
        let known = annotated.as_ref().unwrap_or(&truth);
        let mut made: Vec<MadeSquares> = Vec::new();
        inference.each_pictures(scan, known, &mut |drawings| {
            for (place, (name, drawing)) in drawings.into_iter().enumerate() {
                let (values, more) = levels.read(&drawing)?;
                if made.len() == place {
                    made.push(MadeSquares { name: name.to_owned(), values, plane: Vec::new() });
                }
                made[place].plane.extend(more);
            }
            Ok(())
        })?;
        for made in &mut made {
            let fill = if made.values == Values::Classes { UNANNOTATED } else { 0 };
            made.plane = squared(&made.plane, plane, fill);
        }
        let image = levels.greys(&image)?;
        let what = match self.annotation {
            GAZE => Annotated::Levels(self.levels as u8),
            IMAGE_LABEL => Annotated::Slices,
            _ => Annotated::Pixels,
        };
        let annotated =
            annotated.unwrap_or_else(|| vec![UNANNOTATED; self.prediction.len()].into());
        let preview = Preview {
            size: rows.max(columns),
            image: squared(&image, plane, 0),
            annotation: squared(&annotated, plane, UNANNOTATED),
            annotated: what,
            prediction: squared(self.prediction, plane, 0),
            truth: squared(&truth, plane, 0),
            made,
        };
        Ok(preview.thinned())
    }
}

/// Slices with columns or rows of `fill` behind them, so that they are squares.
fn squared(slices: &[u8], [rows, columns]: [usize; 2], fill: u8) -> Vec<u8> {
    let size = rows.max(columns);
    let mut squares = Vec::with_capacity(slices.len() / (rows * columns).max(1) * size * size);
    for slice in slices.chunks_exact(rows * columns) {
        for row in slice.chunks_exact(columns) {
            squares.extend_from_slice(row);
            squares.resize(squares.len() + size - columns, fill);
        }
        squares.resize(squares.len() + (size - rows) * size, fill);
    }
    squares
}

/// The intensities of a case that are shown black and white: 0 and 1 where all lie between, else the
/// lowest and the highest one.
#[derive(Debug, Clone, Copy)]
struct Levels {
    black: f64,
    white: f64,
}

impl Levels {
    /// Those of shares.
    const OF_SHARES: Self = Self { black: 0.0, white: 1.0 };

    fn of(image: &Tensor) -> Self {
        let black = image.min().double_value(&[]).min(0.0);
        Self { black, white: image.max().double_value(&[]).max(1.0) }
    }

    /// Grey levels of images `[N, C, H, W]`; colours as their mean: pictures are grey, so that classes stand
    /// out.
    fn greys(self, images: &Tensor) -> Result<Vec<u8>> {
        let grey = images.mean_dim([1i64].as_slice(), false, Kind::Float) - self.black;
        bytes(&(grey * (255.0 / (self.white - self.black))))
    }

    /// What a method drew, and what its values are.
    fn read(self, drawing: &Drawing) -> Result<(Values, Vec<u8>)> {
        Ok(match drawing {
            Drawing::Intensities(image) => (Values::Greys, self.greys(image)?),
            Drawing::Shares(shares) => (Values::Greys, Self::OF_SHARES.greys(shares)?),
            Drawing::Classes(classes) => (Values::Classes, bytes(classes)?),
        })
    }
}

/// Numbers as the nearest byte.
fn bytes(numbers: &Tensor) -> Result<Vec<u8>> {
    let bytes = numbers.to_device(Device::Cpu).clamp(0.0, 255.0).round().to_kind(Kind::Uint8);
    Vec::<u8>::try_from(bytes.contiguous().view([-1])).context(|| "cannot read an image")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::Unit;
    use crate::train::scores::Score;

    #[test]
    fn the_first_of_the_worst_and_of_the_best_are_drawn_by_the_rank_that_has_them() {
        let dice = [0.5, 0.2, 0.9, 0.2, f64::NAN, 0.9];
        let cases: Vec<CaseScores> = dice
            .iter()
            .map(|&dice| {
                let scores = vec![Score { dice, hd95: 1.0, asd: 1.0 }];
                CaseScores {
                    case: String::new(),
                    modality: String::new(),
                    classes_annotated: Vec::new(),
                    unit: Unit::Voxel,
                    scores,
                }
            })
            .collect();
        let drawn = |rank: usize| {
            let mut kept = Extremes::default();
            for case in (rank..dice.len()).step_by(2) {
                kept.consider(case, dice[case], vec![case as u8]);
            }
            let of_all = kept.of_all(&cases).into_iter();
            of_all.map(|(name, case, own)| (name, case, own.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(drawn(0), [("best", 2, vec![2])]);
        assert_eq!(drawn(1), [("worst", 1, vec![1])]);
    }

    #[test]
    fn slices_become_squares_and_intensities_levels() {
        let plane = [2, 3];
        assert_eq!(squared(&[1, 2, 3, 4, 5, 6], plane, 9), [1, 2, 3, 4, 5, 6, 9, 9, 9]);
        assert_eq!(squared(&[1, 2, 3, 4], [2, 1], 9), [1, 9, 2, 9, 3, 9, 4, 9]);
        assert_eq!(squared(&[1, 2, 3, 4], [2, 2], 9), [1, 2, 3, 4]);
        let levels = |values: &[f32]| {
            let image = Tensor::from_slice(values).view([1, 1, 1, -1]);
            Levels::of(&image).greys(&image).unwrap()
        };
        assert_eq!(levels(&[0.2, 0.5, 0.6]), [51, 128, 153]);
        assert_eq!(levels(&[-1.0, 0.0, 3.0]), [0, 64, 255]);
    }
}
