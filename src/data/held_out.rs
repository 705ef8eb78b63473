//! Held-out cases beside their dense truth, for those who score.
//!
//! Knows nothing of batches: what is trained on has no truth.

use super::stream::training_slices;
use super::{Case, DENSE, Dataset, augment};
use crate::error::{Failure, Result};
use crate::scan::Scan;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// A held-out case with its dense truth. Only evaluation has one.
#[derive(Debug, Clone, Copy)]
pub struct HeldOut<'a> {
    case: &'a Case,
    truth: &'a [u8],
}

impl<'a> HeldOut<'a> {
    /// The cases that `fold` holds out. Refuses a fold without cases, and cases without dense truth.
    pub fn cases(dataset: &'a Dataset, fold: u32) -> Result<Vec<Self>> {
        dataset.held_out(fold)?.into_iter().map(Self::new).collect()
    }

    fn new(case: &'a Case) -> Result<Self> {
        let truth = case.annotations.get(DENSE).ok_or_else(|| {
            let name = &case.name;
            Failure::usage(format!(
                "held-out case `{name}` has no `{DENSE}` annotation to evaluate with"
            ))
            .hint("pack dense labels too, for example `scrimp prepare own-data --dense DIR ...`")
            .hint("or train on all cases without evaluations: `--set data.fold=0`")
        })?;
        Ok(Self { case, truth })
    }

    /// Name of the case.
    pub fn name(&self) -> &'a str {
        &self.case.name
    }

    /// What the case was taken with; empty where nothing is said.
    pub fn modality(&self) -> &'a str {
        &self.case.modality
    }

    /// As [`Case::classes_annotated`].
    pub fn classes_annotated(&self) -> &'a [u8] {
        &self.case.classes_annotated
    }

    /// Whether somebody looked for `class` in the case.
    pub fn is_looked_for(&self, class: u8) -> bool {
        self.case.is_looked_for(class)
    }

    /// Slices, rows, columns as stored.
    pub fn shape(&self) -> [usize; 3] {
        self.case.scan.grid.shape
    }

    /// Distance of voxel centres along slices, rows, columns, where the source says so.
    pub fn spacing_mm(&self) -> Option<[f64; 3]> {
        self.case.scan.grid.spacing_mm
    }

    /// The class of every voxel, `shape` in row-major order.
    pub fn truth(&self) -> &'a [u8] {
        self.truth
    }

    /// The image.
    pub fn scan(&self) -> &'a Scan {
        &self.case.scan
    }

    /// Labels of as many slices of other rows and columns, resized to the case's own by order-0 zoom.
    pub fn enlarge<'l>(&self, labels: &'l [u8], from: [usize; 2]) -> Cow<'l, [u8]> {
        resized(labels, from, self.plane())
    }

    /// The truth resized to other rows and columns by order-0 zoom.
    pub fn truth_on(&self, to: [usize; 2]) -> Cow<'a, [u8]> {
        resized(self.truth, self.plane(), to)
    }

    /// An annotation of the case in the same way; `None` where it has none of that kind.
    pub fn annotation_on(&self, kind: &str, to: [usize; 2]) -> Option<Cow<'a, [u8]>> {
        self.case.annotations.get(kind).map(|labels| resized(labels, self.plane(), to))
    }

    /// Rows and columns of the case's own slices.
    fn plane(&self) -> [usize; 2] {
        let [_, rows, columns] = self.shape();
        [rows, columns]
    }
}

fn resized(labels: &[u8], from: [usize; 2], to: [usize; 2]) -> Cow<'_, [u8]> {
    if from == to {
        return Cow::from(labels);
    }
    let slices = labels.chunks_exact(from[0] * from[1]);
    slices.flat_map(|slice| augment::zoom_labels(slice, from, to)).collect()
}

/// How many of the patients that `fold` holds out have other cases from which `annotation` is learnt, and how many it
/// holds out. Scores of the former say less about new patients.
pub fn patients_on_both_sides(dataset: &Dataset, fold: u32, annotation: &str) -> [usize; 2] {
    let learnt = training_slices(dataset, fold, annotation);
    let learnt: BTreeSet<&str> =
        learnt.into_iter().map(|(case, _)| dataset.cases[case].patient.as_str()).collect();
    let held_out = dataset.cases.iter().filter(|case| fold > 0 && case.fold == fold);
    let held_out: BTreeSet<&str> = held_out.map(|case| case.patient.as_str()).collect();
    [held_out.intersection(&learnt).count(), held_out.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SCRIBBLE;
    use crate::data::import::phantom::{Difficulty, Phantom, generate};

    #[test]
    fn patients_count_who_are_held_out_and_trained_on() {
        let phantom =
            Phantom { cases: 5, slices: 1, size: 32, difficulty: Difficulty::Easy, seed: 1 };
        let mut dataset = generate(&phantom).unwrap();
        let both = |dataset: &Dataset, fold| patients_on_both_sides(dataset, fold, SCRIBBLE);
        assert_eq!(both(&dataset, 1), [0, 1]);
        dataset.cases[1].patient = dataset.cases[0].patient.clone();
        dataset.cases[2].fold = 1;
        assert_eq!(both(&dataset, 1), [1, 2]);
        assert_eq!(both(&dataset, 0), [0, 0], "nobody is held out");
        dataset.cases[1].annotations.remove(SCRIBBLE);
        assert_eq!(both(&dataset, 1), [0, 2], "nothing is learnt from what is there to be scored");
    }
}
