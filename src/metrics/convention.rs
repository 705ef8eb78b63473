//! What published numbers do where a metric is undefined, and on which grid they measure.
//!
//! The only place where "there is no such surface" becomes a number.

use super::{LabelPair, Measures, Surface};

/// How scores are counted. Scores of different conventions must not stand in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convention {
    /// What is defined, in the pair's own spacing; what is undefined stays undefined.
    Plain,
    /// WSL4MIS and `MaskMixAdv` while training: distances in voxels; an empty prediction scores
    /// Dice 0 and HD95 0.
    ///
    /// HD95 0 is the best possible value: it rewards a network that predicts nothing. Never choose
    /// a checkpoint by it. An empty truth beside a prediction is undefined in every score.
    Validation,
    /// The published `MaskMixAdv` numbers: spacing `[10, 1, 1]` whatever the image's, and Dice 0,
    /// HD95 50, ASD 10 where either side is empty.
    Published,
    /// The published DMSPS numbers: the pair's own spacing, and 0 in every score where either side is empty.
    ///
    /// HD95 and ASD 0 are the best possible values: they reward a network that misses a structure.
    Dmsps,
    /// `ScribbleBench`: Dice alone, undefined where both sides are empty; no distances.
    Scribblebench,
}

/// Scores of one class in one case; none where the convention leaves them undefined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// In `[0, 1]`.
    pub dice: Option<f64>,
    /// In units of the convention's spacing.
    pub hd95: Option<f64>,
    /// In units of the convention's spacing.
    pub asd: Option<f64>,
}

impl Convention {
    /// Scores one class.
    pub fn score(self, pair: &LabelPair<'_>, class: u8) -> Scores {
        let spacing = match self {
            Self::Scribblebench => {
                return Scores { dice: pair.overlap(class).dice(), hd95: None, asd: None };
            }
            Self::Plain | Self::Dmsps => pair.spacing,
            Self::Validation => [1.0, 1.0, 1.0],
            Self::Published => [10.0, 1.0, 1.0],
        };
        let measures = LabelPair { spacing, ..*pair }.measure(class);
        match (self, measures.surface) {
            (Self::Plain | Self::Scribblebench, _) | (_, Surface::Distances(_)) => {
                as_measured(measures)
            }
            (Self::Validation, Surface::EmptyPrediction | Surface::BothEmpty) => {
                Scores { dice: Some(0.0), hd95: Some(0.0), asd: None }
            }
            (Self::Validation, Surface::EmptyTruth) => Scores { dice: None, hd95: None, asd: None },
            (Self::Dmsps, _) => Scores { dice: Some(0.0), hd95: Some(0.0), asd: Some(0.0) },
            (Self::Published, _) => Scores { dice: Some(0.0), hd95: Some(50.0), asd: Some(10.0) },
        }
    }

    /// Scores the classes `1..classes`, in this order; class 0 is the background.
    pub fn score_foreground(self, pair: &LabelPair<'_>, classes: u8) -> Vec<Scores> {
        (1..classes).map(|class| self.score(pair, class)).collect()
    }
}

fn as_measured(measures: Measures) -> Scores {
    let distances = measures.surface.distances();
    Scores {
        dice: measures.overlap.dice(),
        hd95: distances.map(|distances| distances.hd95),
        asd: distances.map(|distances| distances.asd),
    }
}
