//! What was measured of all cases of a data set, and what its labels are called.
//!
//! Judges nothing.

use super::measures::{CaseMeasures, LabelCounts};
use crate::data::{DENSE, GAZE, IMAGE_LABEL};
use crate::preparation::Preparation;
use std::collections::BTreeSet;

/// Everything that was measured of a data set.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Short name, for example `acdc`.
    pub name: String,
    /// Names of the classes by label value; class 0 is the background.
    pub classes: Vec<String>,
    /// As [`crate::data::Dataset::levels`].
    pub levels: Vec<f64>,
    /// What was done to the scans, where that is known.
    pub preparation: Option<Preparation>,
    /// As [`crate::data::Dataset::test_fold`].
    pub test_fold: Option<u32>,
    /// In ascending order of their names.
    pub cases: Vec<CaseMeasures>,
}

impl Survey {
    /// The kinds of annotation that any case has, in alphabetical order.
    pub fn kinds(&self) -> BTreeSet<&str> {
        self.cases.iter().flat_map(|case| case.annotations.keys().map(String::as_str)).collect()
    }

    /// The cases that have this kind of annotation, with what it says.
    pub fn with<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a CaseMeasures, &'a LabelCounts)> {
        self.cases.iter().filter_map(move |case| Some((case, case.annotations.get(kind)?)))
    }

    /// The labels that a kind of annotation may show, with what they are called.
    pub fn labels(&self, kind: &str) -> Vec<(u8, String)> {
        let names: Vec<String> = match kind {
            IMAGE_LABEL => ["healthy", "diseased"].map(String::from).to_vec(),
            GAZE => {
                let lowest = self.levels.iter().take(1).map(|level| format!("below {level}"));
                lowest.chain(self.levels.iter().map(|level| format!("{level} and above"))).collect()
            }
            _ => self.classes.clone(),
        };
        (0..=u8::MAX).zip(names).collect()
    }

    /// What a class is called.
    pub fn class(&self, class: u8) -> &str {
        self.classes.get(usize::from(class)).map_or("?", String::as_str)
    }

    /// The folds that hold out cases, without 0.
    pub fn folds(&self) -> BTreeSet<u32> {
        self.cases.iter().map(|case| case.fold).filter(|&fold| fold > 0).collect()
    }
}

/// Whether a kind of annotation says of some voxels what they are, and nothing of the others.
pub fn is_partial(kind: &str) -> bool {
    ![DENSE, IMAGE_LABEL, GAZE].contains(&kind)
}
