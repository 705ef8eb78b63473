//! Scores of cases as the table of a farm takes them, whichever yardstick they are of.
//!
//! Where tables of cases lie, and what becomes of their numbers, is not known here.

use crate::runlog::Unit;
use crate::runlog::scores::{CaseRow, from_csv};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The yardsticks of `scrimp evaluate --convention`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoredBy {
    /// At the size of the scans.
    #[default]
    Native,
    /// The same in voxels.
    Voxels,
    /// On the network's grid.
    Published,
    /// With 0 where prediction or truth lack a structure.
    Dmsps,
    /// Dice alone, and of each case the mean over its structures before that over cases.
    Scribblebench,
    /// Five scores of the first class, and no distances.
    Lesion,
}

/// What is measured of a structure in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// In `[0, 1]`, as all scores that are no distances.
    Dice,
    /// 95th percentile of surface distances.
    Hd95,
    /// Mean surface distance.
    Asd,
    /// Intersection over union.
    Jaccard,
    /// The share of pixels that are right.
    Accuracy,
    /// The share of the lesion that is found.
    Sensitivity,
    /// The share of what is no lesion that is left alone.
    Specificity,
}

impl ScoredBy {
    /// The word that `scrimp evaluate --convention` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Voxels => "voxels",
            Self::Published => "published",
            Self::Dmsps => "dmsps",
            Self::Scribblebench => "scribblebench",
            Self::Lesion => "lesion",
        }
    }

    /// What it measures beside Dice.
    pub fn beside_dice(self) -> &'static [Score] {
        match self {
            Self::Native | Self::Voxels | Self::Published | Self::Dmsps => {
                &[Score::Hd95, Score::Asd]
            }
            Self::Scribblebench => &[],
            Self::Lesion => {
                &[Score::Jaccard, Score::Accuracy, Score::Sensitivity, Score::Specificity]
            }
        }
    }

    /// Whether the mean of all structures is that of the means of cases, and not that of the means of structures.
    pub fn averages_each_case(self) -> bool {
        self == Self::Scribblebench
    }

    /// The rows of a table of cases that `scrimp evaluate` wrote with it; lines that are none are passed over.
    pub fn read(self, text: &str) -> Vec<CaseScores> {
        if self != Self::Lesion {
            return from_csv(text).into_iter().map(CaseScores::from).collect();
        }
        let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        table.deserialize::<LesionLine>().flatten().map(CaseScores::from).collect()
    }
}

impl Score {
    /// As it stands in tables for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dice => "dice",
            Self::Hd95 => "hd95",
            Self::Asd => "asd",
            Self::Jaccard => "jaccard",
            Self::Accuracy => "accuracy",
            Self::Sensitivity => "sensitivity",
            Self::Specificity => "specificity",
        }
    }

    /// As it stands in tables for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dice => "Dice",
            Self::Hd95 => "HD95",
            Self::Asd => "ASD",
            other => other.name(),
        }
    }

    /// Whether it has a unit.
    pub fn is_distance(self) -> bool {
        matches!(self, Self::Hd95 | Self::Asd)
    }
}

/// The scores of one structure in one case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseScores {
    /// The name of the case.
    pub case: String,
    /// The name of the structure; empty where one is scored and not named.
    pub structure: String,
    /// In what distances are measured; none where the table does not say.
    pub unit: Option<Unit>,
    /// What is defined.
    pub values: BTreeMap<Score, f64>,
}

impl CaseScores {
    fn new(case: String, structure: String, unit: Option<Unit>, values: &[(Score, f64)]) -> Self {
        let defined = values.iter().copied().filter(|(_, value)| !value.is_nan());
        Self { case, structure, unit, values: defined.collect() }
    }
}

impl From<CaseRow> for CaseScores {
    fn from(row: CaseRow) -> Self {
        let CaseRow { case, structure, dice, hd95, asd, unit, .. } = row;
        let values = [(Score::Dice, dice), (Score::Hd95, hd95), (Score::Asd, asd)];
        Self::new(case, structure, unit, &values)
    }
}

/// A line of the table of lesions.
#[derive(Deserialize)]
struct LesionLine {
    case: String,
    jaccard: f64,
    accuracy: f64,
    dice: f64,
    sensitivity: f64,
    specificity: f64,
}

impl From<LesionLine> for CaseScores {
    fn from(line: LesionLine) -> Self {
        let LesionLine { case, jaccard, accuracy, dice, sensitivity, specificity } = line;
        let values = [
            (Score::Dice, dice),
            (Score::Jaccard, jaccard),
            (Score::Accuracy, accuracy),
            (Score::Sensitivity, sensitivity),
            (Score::Specificity, specificity),
        ];
        Self::new(case, String::new(), None, &values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_yardstick_reads_the_table_that_it_writes() {
        let native = "case,structure,dice,hd95,asd,unit\na,LV,0.5,,2,mm\n";
        let found = &ScoredBy::Native.read(native)[0];
        let expected = [(Score::Dice, 0.5), (Score::Asd, 2.0)];
        assert_eq!((found.values.clone(), found.unit), (expected.into(), Some(Unit::Mm)));

        let bench = "case,structure,dice\na,LV,0.75\na,RV,\n";
        let found = ScoredBy::Scribblebench.read(bench);
        assert_eq!(found[0].values, [(Score::Dice, 0.75)].into());
        assert!(found[1].values.is_empty() && found[1].structure == "RV");

        let lesion = "case,jaccard,accuracy,dice,sensitivity,specificity\n\
                      a,0.25,0.9,0.4,1,NaN\nbad\n";
        let found = ScoredBy::Lesion.read(lesion);
        assert_eq!((found.len(), &*found[0].structure, found[0].unit), (1, "", None));
        let expected = [
            (Score::Dice, 0.4),
            (Score::Jaccard, 0.25),
            (Score::Accuracy, 0.9),
            (Score::Sensitivity, 1.0),
        ];
        assert_eq!(found[0].values, expected.into());
    }

    #[test]
    fn a_yardstick_has_one_name_in_files_and_on_the_command_line() {
        for scored_by in
            [ScoredBy::Native, ScoredBy::Dmsps, ScoredBy::Scribblebench, ScoredBy::Lesion]
        {
            let name = serde_json::to_value(scored_by).unwrap();
            assert_eq!(name, scored_by.name());
            for score in scored_by.beside_dice() {
                assert_eq!(serde_json::to_value(score).unwrap(), score.name());
            }
        }
    }
}
