//! Dice, Jaccard, HD, HD95, ASD and ASSD of label volumes, as medpy 0.5 defines them, the normalised surface
//! Dice, errors of volume, the five scores of a lesion in a picture, the mean Dice of cases, and whether paired scores
//! differ.
//!
//! Two volumes in, numbers out. What is undefined (a surface distance to nothing) stays undefined
//! here; [`Convention`] alone turns it into a number. This module knows no files, no tensors, no run.

mod class_scores;
mod convention;
mod lesion;
mod scribblebench;
mod search;
mod signed_rank;
mod surface;
mod transform;
mod voxels;

pub use class_scores::ClassScores;
pub use convention::{Convention, Scores};
pub use lesion::LesionScores;
pub use scribblebench::MeanOfCases;
pub use signed_rank::signed_rank;
pub use surface::{Distances, Surface, SurfaceDistances};

use crate::error::{Failure, Result};
use voxels::SurfaceVoxels;

/// A predicted and a true label volume on one grid, row-major `[D, H, W]`, one class per voxel.
#[derive(Debug, Clone, Copy)]
pub struct LabelPair<'a> {
    prediction: &'a [u8],
    truth: &'a [u8],
    shape: [usize; 3],
    spacing: [f64; 3],
}

/// Everything that is measured of one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measures {
    /// How many voxels the two sides have, alone and in common.
    pub overlap: Overlap,
    /// How far their surfaces are apart.
    pub surface: Surface,
}

/// Voxel counts of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// Voxels of the class in the prediction.
    pub prediction: usize,
    /// Voxels of the class in the truth.
    pub truth: usize,
    /// Voxels of the class in both.
    pub common: usize,
}

impl Overlap {
    /// `2 |A and B| / (|A| + |B|)` in `[0, 1]`; none if both sides are empty.
    pub fn dice(self) -> Option<f64> {
        let total = self.prediction + self.truth;
        (total > 0).then(|| 2.0 * self.common as f64 / total as f64)
    }

    /// `|A and B| / |A or B|` in `[0, 1]`; none if both sides are empty.
    pub fn jaccard(self) -> Option<f64> {
        let union = self.prediction + self.truth - self.common;
        (union > 0).then(|| self.common as f64 / union as f64)
    }
}

impl<'a> LabelPair<'a> {
    /// Pairs two volumes of `shape`, whose voxel centres lie `spacing` apart along each axis
    /// (millimetres, or 1 to count in voxels).
    ///
    /// Fails unless both volumes have as many voxels as the shape and the spacing is positive.
    pub fn new(
        prediction: &'a [u8],
        truth: &'a [u8],
        shape: [usize; 3],
        spacing: [f64; 3],
    ) -> Result<Self> {
        let expected: usize = shape.iter().product();
        for (name, labels) in [("prediction", prediction), ("truth", truth)] {
            if labels.len() != expected {
                return Err(Failure::new(format!(
                    "the {name} has {} voxels, expected {expected} for shape {shape:?}",
                    labels.len()
                ))
                .hint("compare volumes on one grid: resize the prediction to the truth first"));
            }
        }
        if !spacing.iter().all(|&step| step.is_finite() && step > 0.0) {
            return Err(Failure::new(format!(
                "the voxel spacing is {spacing:?}, expected three positive lengths"
            ))
            .hint("correct the spacing in the image header, or use `[1.0, 1.0, 1.0]` for voxels"));
        }
        Ok(Self { prediction, truth, shape, spacing })
    }

    /// Counts the voxels of `class`.
    pub fn overlap(&self, class: u8) -> Overlap {
        Overlap {
            prediction: count(self.prediction, class),
            truth: count(self.truth, class),
            common: count_common(self.prediction, self.truth, class),
        }
    }

    /// Measures `class` in units of the pair's spacing.
    pub fn measure(&self, class: u8) -> Measures {
        let overlap = self.overlap(class);
        let surface = match (self.surface_distances(class), overlap.prediction > 0) {
            (Some(distances), _) => Surface::Distances(distances.summary()),
            (None, true) => Surface::EmptyTruth,
            (None, false) if overlap.truth > 0 => Surface::EmptyPrediction,
            (None, false) => Surface::BothEmpty,
        };
        Measures { overlap, surface }
    }

    /// The distances between both surfaces of `class`, in units of the pair's spacing; none where a side
    /// lacks the class.
    pub fn surface_distances(&self, class: u8) -> Option<SurfaceDistances> {
        if !self.prediction.contains(&class) || !self.truth.contains(&class) {
            return None;
        }
        let [prediction, truth] = [self.prediction, self.truth]
            .map(|labels| SurfaceVoxels::of(labels, self.shape, class));
        Some(SurfaceDistances::between(&prediction, &truth, self.shape, self.spacing))
    }
}

/// As many bytes as an 8-bit counter can count: the compiler then compares and adds whole vectors.
const COUNTABLE: usize = 255;

fn count(labels: &[u8], class: u8) -> usize {
    let in_chunk =
        |chunk: &[u8]| chunk.iter().map(|&label| u8::from(label == class)).sum::<u8>() as usize;
    labels.chunks(COUNTABLE).map(in_chunk).sum()
}

fn count_common(prediction: &[u8], truth: &[u8], class: u8) -> usize {
    let in_chunk = |(left, right): (&[u8], &[u8])| {
        let both = |(&left, &right): (&u8, &u8)| u8::from(left == class) & u8::from(right == class);
        left.iter().zip(right).map(both).sum::<u8>() as usize
    };
    prediction.chunks(COUNTABLE).zip(truth.chunks(COUNTABLE)).map(in_chunk).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_do_not_overflow_in_large_objects() {
        let labels = vec![3u8; 10 * COUNTABLE + 7];
        assert_eq!(count(&labels, 3), labels.len());
        assert_eq!(count_common(&labels, &labels, 3), labels.len());
        assert_eq!(count(&labels, 2), 0);
    }

    #[test]
    fn overlap_of_nothing_is_undefined() {
        let nothing = Overlap { prediction: 0, truth: 0, common: 0 };
        assert_eq!((nothing.dice(), nothing.jaccard()), (None, None));
        let disjoint = Overlap { prediction: 3, truth: 0, common: 0 };
        assert_eq!((disjoint.dice(), disjoint.jaccard()), (Some(0.0), Some(0.0)));
        let half = Overlap { prediction: 2, truth: 2, common: 1 };
        assert_eq!((half.dice(), half.jaccard()), (Some(0.5), Some(1.0 / 3.0)));
    }

    #[test]
    fn volumes_that_do_not_fit_are_refused() {
        let wrong_size = LabelPair::new(&[0; 6], &[0; 5], [1, 2, 3], [1.0; 3]).unwrap_err();
        assert_eq!(wrong_size.message(), "the truth has 5 voxels, expected 6 for shape [1, 2, 3]");
        for step in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let labels = [0; 6];
            assert!(LabelPair::new(&labels, &labels, [1, 2, 3], [1.0, step, 1.0]).is_err());
        }
    }
}
