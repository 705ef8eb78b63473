//! Jaccard, accuracy, Dice, sensitivity and specificity of one lesion in one picture, as they are
//! published for weakly supervised lesions.
//!
//! Two binary maps in, five numbers out. Where a quotient would be `0 / 0` it is 0, so that a
//! picture without a lesion scores Dice 0 even where none was predicted: not to be mixed with the
//! scores of [`super::Convention`].

use crate::error::{Failure, Result};

/// Added to every denominator.
const SMOOTHING: f64 = 1e-7;

/// The five scores, all in `[0, 1]`.
///
/// `five_metrics.py` of mlcb-jlu/MedImgSeg (73c6b9e); its tables show means over pictures in per
/// cent. It counts the pixels of three equal channels, which changes nothing that a table shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LesionScores {
    /// JA: `TP / (TP + FN + FP)`.
    pub jaccard: f64,
    /// AC: `(TP + TN) / all`.
    pub accuracy: f64,
    /// DI: `2 TP / (2 TP + FN + FP)`.
    pub dice: f64,
    /// SE: `TP / (TP + FN)`.
    pub sensitivity: f64,
    /// SP: `TN / (TN + FP)`.
    pub specificity: f64,
}

impl LesionScores {
    /// Jaccard, accuracy, Dice, sensitivity, specificity.
    pub fn to_array(self) -> [f64; 5] {
        [self.jaccard, self.accuracy, self.dice, self.sensitivity, self.specificity]
    }

    /// The inverse of [`LesionScores::to_array`].
    pub fn from_array([jaccard, accuracy, dice, sensitivity, specificity]: [f64; 5]) -> Self {
        Self { jaccard, accuracy, dice, sensitivity, specificity }
    }

    /// Compares two maps of one picture, true for lesion.
    ///
    /// Fails unless both have as many pixels.
    pub fn of(prediction: &[bool], truth: &[bool]) -> Result<Self> {
        if prediction.len() != truth.len() {
            return Err(Failure::new(format!(
                "the prediction has {} pixels, expected {} as in the truth",
                prediction.len(),
                truth.len()
            ))
            .hint("compare maps on one grid: resize the prediction to the truth first"));
        }
        let count = |predicted: bool, true_one: bool| {
            let pairs = prediction.iter().zip(truth);
            pairs.filter(|&(&p, &t)| p == predicted && t == true_one).count() as f64
        };
        let (hits, misses) = (count(true, true), count(false, true));
        let (alarms, rejections) = (count(true, false), count(false, false));
        let share = |part: f64, rest: f64| part / (part + rest + SMOOTHING);
        Ok(Self {
            jaccard: share(hits, misses + alarms),
            accuracy: share(hits + rejections, misses + alarms),
            dice: share(2.0 * hits, misses + alarms),
            sensitivity: share(hits, misses),
            specificity: share(rejections, alarms),
        })
    }
}
