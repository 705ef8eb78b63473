//! All that is measured of one class in one case, and what it is where a side lacks the class.
//!
//! Knows neither names nor units: lengths are in units of the pair's spacing.

use super::LabelPair;

/// The scores of one class in one case; none where undefined.
///
/// | the class is in | Dice, `IoU`, NSD | HD95, ASD | volume error | in per cent |
/// |---|---|---|---|---|
/// | both | measured | measured | measured | measured |
/// | the truth alone | 0 | undefined | measured | −100 |
/// | the prediction alone | 0 | undefined | measured | undefined |
/// | neither | undefined | undefined | undefined | undefined |
///
/// By default all are undefined.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ClassScores {
    /// `2 |P and T| / (|P| + |T|)`, in `[0, 1]`.
    pub dice: Option<f64>,
    /// Intersection over union, `|P and T| / |P or T|`, in `[0, 1]`.
    pub iou: Option<f64>,
    /// 95th percentile of the distances of both surfaces, in units of the spacing.
    pub hd95: Option<f64>,
    /// Mean distance from the predicted to the true surface, in units of the spacing.
    pub asd: Option<f64>,
    /// Share of both surfaces that lies within a tolerance of the other one, in `[0, 1]`.
    pub nsd: Option<f64>,
    /// `V_P - V_T`, in units of the spacing to the third; more than 0 where too much is predicted.
    pub volume_error: Option<f64>,
    /// `100 (V_P - V_T) / V_T`.
    pub volume_error_percent: Option<f64>,
}

impl LabelPair<'_> {
    /// Scores `class`, NSD with a `tolerance` in units of the spacing.
    pub fn score(&self, class: u8, tolerance: f64) -> ClassScores {
        let overlap = self.overlap(class);
        let dice = overlap.dice();
        let distances = self.surface_distances(class);
        // Without a surface on one side, none of the other's voxels is near it.
        let nsd = distances.as_ref().map(|found| found.within(tolerance)).or(dice.map(|_| 0.0));
        let summary = distances.map(super::SurfaceDistances::summary);
        let surplus = overlap.prediction as f64 - overlap.truth as f64;
        ClassScores {
            dice,
            iou: overlap.jaccard(),
            hd95: summary.map(|distances| distances.hd95),
            asd: summary.map(|distances| distances.asd),
            nsd,
            volume_error: dice.map(|_| surplus * self.spacing.iter().product::<f64>()),
            volume_error_percent: (overlap.truth > 0)
                .then(|| 100.0 * surplus / overlap.truth as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of 7 voxels, 2 mm apart; class 1 begins at the first index and ends before the second.
    fn row([first, end]: [usize; 2]) -> Vec<u8> {
        (0..7).map(|column| u8::from((first..end).contains(&column))).collect()
    }

    fn score(prediction: [usize; 2], truth: [usize; 2], tolerance: f64) -> ClassScores {
        let (prediction, truth) = (row(prediction), row(truth));
        let pair = LabelPair::new(&prediction, &truth, [1, 1, 7], [5.0, 3.0, 2.0]).unwrap();
        pair.score(1, tolerance)
    }

    #[test]
    fn a_pair_of_rows_scores_what_is_counted_by_hand() {
        // Predicted are voxels 0 to 2, true are 2 to 5: distances 4, 2, 0 and back 0, 2, 4, 6 mm.
        let found = score([0, 3], [2, 6], 2.0);
        assert_eq!((found.dice, found.iou), (Some(2.0 / 7.0), Some(1.0 / 6.0)));
        assert_eq!((found.asd, found.nsd), (Some(2.0), Some(4.0 / 7.0)));
        assert!((found.hd95.unwrap() - 5.4).abs() < 1e-12);
        assert_eq!((found.volume_error, found.volume_error_percent), (Some(-30.0), Some(-25.0)));
        let share = |tolerance| score([0, 3], [2, 6], tolerance).nsd;
        assert_eq!([0.0, 1.9, 4.0, 6.0].map(share), [2.0, 2.0, 6.0, 7.0].map(|n| Some(n / 7.0)));
    }

    #[test]
    fn a_class_that_one_side_lacks_scores_0_and_has_no_distances() {
        let missed = score([0, 0], [1, 3], 1.0);
        assert_eq!([missed.dice, missed.iou, missed.nsd], [Some(0.0); 3]);
        assert_eq!([missed.hd95, missed.asd], [None; 2]);
        assert_eq!((missed.volume_error, missed.volume_error_percent), (Some(-60.0), Some(-100.0)));
        let invented = score([1, 3], [0, 0], 1.0);
        assert_eq!([invented.dice, invented.iou, invented.nsd], [Some(0.0); 3]);
        assert_eq!([invented.hd95, invented.asd, invented.volume_error_percent], [None; 3]);
        assert_eq!(invented.volume_error, Some(60.0));
    }

    #[test]
    fn a_class_that_neither_side_has_is_undefined() {
        let ClassScores { dice, iou, hd95, asd, nsd, volume_error, volume_error_percent } =
            score([0, 0], [0, 0], 1.0);
        let all = [dice, iou, hd95, asd, nsd, volume_error, volume_error_percent];
        assert_eq!(all, [None; 7]);
        assert_eq!(score([0, 0], [0, 0], 1.0), ClassScores::default());
    }
}
