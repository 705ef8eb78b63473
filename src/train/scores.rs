//! What an evaluation measured: scores of cases, and their means over cases and structures.
//!
//! Numbers and names alone; knows no network and no metric.

use crate::error::Result;
use crate::runlog::scores::{CaseRow, to_csv};
use crate::runlog::{StructureScore, Unit};
use std::collections::BTreeSet;

/// Dice, HD95 and ASD of one structure in one case; NaN where undefined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// In [0, 1].
    pub dice: f64,
    /// 95th percentile of surface distances.
    pub hd95: f64,
    /// Mean distance from the predicted to the true surface.
    pub asd: f64,
}

impl Score {
    /// That of a structure of which nothing is known.
    pub(super) const UNDEFINED: Self = Self { dice: f64::NAN, hd95: f64::NAN, asd: f64::NAN };

    /// Dice, HD95, ASD.
    pub(super) fn to_array(self) -> [f64; 3] {
        [self.dice, self.hd95, self.asd]
    }

    /// Of the same three numbers.
    pub(super) fn from_array([dice, hd95, asd]: [f64; 3]) -> Self {
        Self { dice, hd95, asd }
    }
}

/// The scores of one case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseScores {
    /// Name of the case.
    pub case: String,
    /// What it was taken with; empty where nothing is said.
    pub modality: String,
    /// The classes that somebody looked for in it; empty: all.
    pub classes_annotated: Vec<u8>,
    /// In what its distances are measured.
    pub unit: Unit,
    /// One per structure: every class but the background.
    pub scores: Vec<Score>,
}

impl CaseScores {
    /// Whether somebody looked for a structure, counted from 0.
    fn shows(&self, structure: usize) -> bool {
        let is_it = |&class: &u8| usize::from(class) == structure + 1;
        self.classes_annotated.is_empty() || self.classes_annotated.iter().any(is_it)
    }

    /// Mean Dice over structures; NaN where none is defined.
    pub(super) fn mean_dice(&self) -> f64 {
        mean(self.scores.iter().map(|score| score.dice))
    }
}

/// The scores of all held-out cases, equal on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Names of the structures.
    pub structures: Vec<String>,
    /// In the order of the data set.
    pub cases: Vec<CaseScores>,
}

/// Mean of the values that are defined; NaN if none is.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let defined: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    defined.iter().sum::<f64>() / defined.len() as f64
}

impl Scores {
    /// In what distances are measured; none where cases differ.
    pub fn unit(&self) -> Option<Unit> {
        let first = self.cases.first()?.unit;
        self.cases.iter().all(|case| case.unit == first).then_some(first)
    }

    /// What cases were taken with, each once, in ascending order.
    pub fn modalities(&self) -> BTreeSet<&str> {
        self.cases.iter().map(|case| &*case.modality).collect()
    }

    /// The scores of the cases of one modality.
    #[must_use]
    pub fn of_modality(&self, modality: &str) -> Self {
        let cases = self.cases.iter().filter(|case| case.modality == modality).cloned().collect();
        Self { structures: self.structures.clone(), cases }
    }

    /// Means over cases, structure by structure. Millimetres and voxels have no mean.
    pub fn structure_means(&self) -> Vec<StructureScore> {
        let unit = self.unit();
        let of_structure = |(index, name): (usize, &String)| {
            let over_cases = |pick: fn(&Score) -> f64| {
                mean(self.cases.iter().map(|case| pick(&case.scores[index])))
            };
            let distance = |pick| if unit.is_some() { over_cases(pick) } else { f64::NAN };
            let shown = self.cases.iter().filter(|case| case.shows(index)).count();
            let is_undefined =
                |case: &&CaseScores| case.shows(index) && case.scores[index].hd95.is_nan();
            StructureScore {
                name: name.clone(),
                dice: over_cases(|score| score.dice),
                hd95: distance(|score| score.hd95),
                asd: distance(|score| score.asd),
                unit,
                undefined: Some(self.cases.iter().filter(is_undefined).count() as u64),
                cases: (shown < self.cases.len()).then_some(shown as u64),
            }
        };
        self.structures.iter().enumerate().map(of_structure).collect()
    }

    /// Mean over structures of their mean Dice.
    pub fn mean_dice(&self) -> f64 {
        mean(self.structure_means().iter().map(|structure| structure.dice))
    }

    /// One line per case and structure that somebody looked for in it; undefined values are empty.
    pub fn to_csv(&self) -> Result<String> {
        let rows = self.cases.iter().flat_map(|case| {
            let scores = self.structures.iter().zip(&case.scores).enumerate();
            let scores = scores.filter(|(index, _)| case.shows(*index));
            scores.map(|(_, (structure, score))| CaseRow {
                case: case.case.clone(),
                structure: structure.clone(),
                modality: case.modality.clone(),
                dice: score.dice,
                hd95: score.hd95,
                asd: score.asd,
                unit: Some(case.unit),
            })
        });
        to_csv(&rows.collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, unit: Unit, hd95: f64) -> CaseScores {
        let scores = vec![Score { dice: 0.5, hd95, asd: 1.0 }];
        let (modality, classes_annotated) = (String::new(), Vec::new());
        CaseScores { case: name.to_owned(), modality, classes_annotated, unit, scores }
    }

    #[test]
    fn a_structure_that_nobody_looked_for_counts_in_no_mean_and_has_no_line() {
        let score = |dice: f64| Score { dice, hd95: 2.0, asd: 1.0 };
        let with = |name: &str, classes: &[u8], scores: Vec<Score>| CaseScores {
            classes_annotated: classes.to_vec(),
            scores,
            ..case(name, Unit::Mm, 2.0)
        };
        let undefined = Score { hd95: f64::NAN, ..score(0.0) };
        let scores = Scores {
            structures: ["liver", "tumour"].map(str::to_owned).to_vec(),
            cases: vec![
                with("a", &[], vec![score(0.8), undefined]),
                with("b", &[0, 1], vec![score(0.6), Score::UNDEFINED]),
                with("c", &[0, 1], vec![score(0.4), Score::UNDEFINED]),
            ],
        };
        let [liver, tumour] = &scores.structure_means()[..] else { panic!() };
        assert!((liver.dice - 0.6).abs() < 1e-12 && tumour.dice.abs() < 1e-12);
        assert_eq!((liver.cases, liver.undefined), (None, Some(0)));
        assert_eq!((tumour.cases, tumour.undefined), (Some(1), Some(1)));
        assert!((scores.mean_dice() - 0.3).abs() < 1e-12);
        assert_eq!(
            scores.to_csv().unwrap(),
            "case,structure,dice,hd95,asd,unit\na,liver,0.8,2.0,1.0,mm\na,tumour,0.0,,1.0,mm\n\
             b,liver,0.6,2.0,1.0,mm\nc,liver,0.4,2.0,1.0,mm\n"
        );
    }

    #[test]
    fn units_are_not_mixed_and_undefined_distances_are_counted() {
        let structures = vec!["LV".to_owned()];
        let cases = vec![
            case("a", Unit::Voxel, 2.0),
            case("b", Unit::Voxel, f64::NAN),
            case("c", Unit::Voxel, 4.0),
        ];
        let mut scores = Scores { structures, cases };
        let means = &scores.structure_means()[0];
        assert_eq!((means.hd95, means.unit, means.undefined), (3.0, Some(Unit::Voxel), Some(1)));
        scores.cases[0].unit = Unit::Mm;
        let means = &scores.structure_means()[0];
        assert!(means.hd95.is_nan() && means.asd.is_nan() && means.unit.is_none());
        assert!((means.dice - 0.5).abs() < 1e-12);
    }
}
