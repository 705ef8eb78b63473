//! Which held-out cases are worth a picture, the worst and the best of an evaluation, and the pictures.
//!
//! Each rank keeps the predictions of its own worst and best case; once all scores are known, the rank
//! that holds the worst or best of all draws it. Nothing is sent.

use super::scores::CaseScores;
use crate::data::held_out::HeldOut;
use crate::error::{Context, Result};
use crate::runlog::preview::{Preview, UNANNOTATED};
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

/// What a picture of a case shows beside what the method makes of it.
pub(super) struct Scene<'a> {
    pub(super) volume: &'a HeldOut<'a>,
    /// The name of the annotation.
    pub(super) annotation: &'a str,
    /// The class of each pixel.
    pub(super) prediction: &'a [u8],
    /// Rows and columns of everything.
    pub(super) size: usize,
}

impl Scene<'_> {
    /// The picture; `made` is what the method makes of the slices, by name, some slices at a time.
    pub(super) fn picture(&self, made: &[Vec<(&str, Tensor)>]) -> Result<Preview> {
        let Self { volume, annotation, prediction, size } = *self;
        let names = made.first().into_iter().flatten().map(|(name, _)| *name).enumerate();
        let made = names.map(|(index, name)| {
            let parts = made.iter().map(|part| greys(&part[index].1));
            Ok((name.to_owned(), parts.collect::<Result<Vec<_>>>()?.concat()))
        });
        let annotated = volume.annotation_on_grid(annotation, size);
        let preview = Preview {
            size,
            image: greys(&volume.input(size))?,
            annotation: annotated.unwrap_or_else(|| vec![UNANNOTATED; prediction.len()]),
            prediction: prediction.to_vec(),
            truth: volume.truth_on_grid(size),
            made: made.collect::<Result<_>>()?,
        };
        Ok(preview.thinned())
    }
}

/// Levels of images `[N, C, H, W]`; channels as their mean: pictures are grey, so that classes stand out.
/// Intensities that do not lie in `[0, 1]` are shown from the smallest to the largest.
fn greys(images: &Tensor) -> Result<Vec<u8>> {
    let grey = images.mean_dim([1i64].as_slice(), false, Kind::Float);
    let (low, high) = (grey.min().double_value(&[]), grey.max().double_value(&[]));
    let grey = if low < 0.0 || high > 1.0 {
        (grey - low) * (255.0 / (high - low).max(f64::from(f32::EPSILON)))
    } else {
        grey * 255.0
    };
    let levels = grey.clamp(0.0, 255.0).round().to_kind(Kind::Uint8).to_device(Device::Cpu);
    Vec::<u8>::try_from(levels.contiguous().view([-1])).context(|| "cannot read an image")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::Unit;
    use crate::train::scores::Score;

    #[test]
    fn intensities_of_any_range_can_be_seen() {
        let shown = |values: &[f32]| {
            greys(&Tensor::from_slice(values).view([1, 1, 1, values.len() as i64])).unwrap()
        };
        assert_eq!(shown(&[0.2, 0.6, 1.0]), [51, 153, 255]);
        assert_eq!(shown(&[-2.0, 0.0, 8.0]), [0, 51, 255]);
        assert_eq!(shown(&[2.0, 2.0]), [0, 0]);
    }

    #[test]
    fn the_first_of_the_worst_and_of_the_best_are_drawn_by_the_rank_that_has_them() {
        let dice = [0.5, 0.2, 0.9, 0.2, f64::NAN, 0.9];
        let cases: Vec<CaseScores> = dice
            .iter()
            .map(|&dice| {
                let scores = vec![Score { dice, hd95: 1.0, asd: 1.0 }];
                CaseScores { case: String::new(), unit: Unit::Voxel, scores }
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
}
