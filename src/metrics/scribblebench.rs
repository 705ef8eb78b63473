//! The one number of ScribbleBench: the mean Dice of each case, and the mean over cases.
//!
//! Knows numbers alone.

/// The mean over cases of the mean Dice of their structures.
///
/// MIC-DKFZ/ScribbleBench, `scribblebench/evaluation.py` at f292115: a structure that prediction and truth lack is left
/// out of its case. A case that has none makes the mean of the released code NaN; here it is left out and counted.
/// It is not the mean over structures of their means over cases, where structures are missing in some.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanOfCases {
    /// In `[0, 1]`; none where all cases are left out.
    pub dice: Option<f64>,
    /// How many cases have neither predicted nor true voxels of any structure.
    pub left_out: usize,
}

impl MeanOfCases {
    /// Of the Dice of each structure in each case, none where neither side has it.
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a [Option<f64>]>) -> Self {
        let means: Vec<Option<f64>> =
            cases.into_iter().map(|case| mean(case.iter().copied().flatten())).collect();
        let left_out = means.iter().filter(|mean| mean.is_none()).count();
        Self { dice: mean(means.into_iter().flatten()), left_out }
    }
}

/// The mean of some numbers; none of none.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Convention, LabelPair};

    fn dice(prediction: [u8; 6], truth: [u8; 6]) -> Vec<Option<f64>> {
        let pair = LabelPair::new(&prediction, &truth, [1, 2, 3], [1.0; 3]).unwrap();
        let scores = Convention::Scribblebench.score_foreground(&pair, 4);
        assert!(scores.iter().all(|scores| scores.hd95.is_none() && scores.asd.is_none()));
        scores.into_iter().map(|scores| scores.dice).collect()
    }

    #[test]
    fn means_are_of_cases_and_not_of_structures() {
        // Class 1 in both: 2 · 1 / (2 + 1). Class 2 in the truth alone: 0. Class 3 in neither.
        let first = dice([1, 1, 0, 0, 0, 0], [1, 0, 2, 0, 0, 0]);
        assert_eq!(first, [Some(2.0 / 3.0), Some(0.0), None]);
        let second = dice([0, 0, 3, 3, 0, 0], [0, 0, 3, 3, 0, 0]);
        assert_eq!(second, [None, None, Some(1.0)]);
        // Class 1 in the prediction alone: 0.
        let third = dice([1, 0, 0, 0, 0, 0], [0; 6]);
        assert_eq!(third, [Some(0.0), None, None]);
        let empty = dice([0; 6], [0; 6]);
        let of = |cases: &[&[Option<f64>]]| MeanOfCases::of(cases.iter().copied());
        let all = of(&[&first, &second, &third, &empty]);
        // (1/3 + 1 + 0) / 3; the mean of means of structures would be (1/3 + 0 + 1) / 3 of other sums.
        assert_eq!((all.left_out, all.dice.map(|dice| (dice * 9e6).round())), (1, Some(4e6)));
        assert_eq!(of(&[&first, &second]).dice, Some(2.0 / 3.0));
        assert_eq!(of(&[&empty]), MeanOfCases { dice: None, left_out: 1 });
        assert_eq!(of(&[]), MeanOfCases { dice: None, left_out: 0 });
    }
}
