//! The numbers of a report: cases, extents, and how much of each class is annotated.
//!
//! Adds up what was measured; judges nothing and draws nothing.

use super::measures::{CaseMeasures, LabelCounts};
use super::survey::Survey;
use crate::data::IGNORE;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Smallest, middle and largest of some numbers; of two in the middle the smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread<T> {
    /// The smallest.
    pub min: T,
    /// The middle one.
    pub median: T,
    /// The largest.
    pub max: T,
}

impl<T: Copy + PartialOrd> Spread<T> {
    /// Of some numbers; nothing of none.
    pub fn of(numbers: impl Iterator<Item = T>) -> Option<Self> {
        let mut sorted: Vec<T> = numbers.collect();
        sorted.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        Some(Self { min, median: sorted[(sorted.len() - 1) / 2], max })
    }
}

/// How many cases something is true of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cases<K> {
    /// What is true of them: a fold, 0 where none holds them out, or a modality.
    pub of: K,
    /// How many.
    pub cases: usize,
    /// How many patients they are of.
    pub patients: usize,
}

/// Extents along one axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AxisSpread {
    /// `slices`, `rows` or `columns`.
    pub axis: &'static str,
    /// Voxels.
    pub voxels: Spread<usize>,
    /// Distance of voxel centres, of the cases that say it; nothing where none does.
    pub spacing_mm: Option<Spread<f64>>,
}

/// What one kind of annotation says, over all cases that have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KindNumbers {
    /// For example `scribble`.
    pub kind: String,
    /// Cases that have it.
    pub cases: usize,
    /// Cases that have it, with an annotated voxel.
    pub annotated_cases: usize,
    /// Slices of the cases that have it.
    pub slices: u64,
    /// Slices with an annotated voxel.
    pub annotated_slices: u64,
    /// Voxels of the cases that have it.
    pub voxels: u64,
    /// Voxels that are annotated.
    pub annotated_voxels: u64,
    /// By label.
    pub labels: Vec<LabelNumbers>,
}

/// What one label of a kind of annotation is, over all cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelNumbers {
    /// The value.
    pub label: u8,
    /// The class; of image labels `healthy` or `diseased`, of gaze the level.
    pub name: String,
    /// Cases that were looked through for it.
    pub looked_for: usize,
    /// Cases that show it.
    pub cases: usize,
    /// Slices that show it.
    pub slices: u64,
    /// Voxels.
    pub voxels: u64,
    /// Share of the annotated voxels, 0 to 1; of gaze the share of those that reach the level.
    pub share: f64,
}

/// How many cases and patients each fold holds out, fold 0 being none.
pub fn by_fold(survey: &Survey) -> Vec<Cases<u32>> {
    counted(survey.cases.iter().map(|case| (case.fold, case.patient.as_str())))
}

/// How many cases and patients there are of each modality; nothing where none is known.
pub fn by_modality(survey: &Survey) -> Vec<Cases<String>> {
    if survey.cases.iter().all(|case| case.modality.is_empty()) {
        return Vec::new();
    }
    counted(survey.cases.iter().map(|case| (case.modality.clone(), case.patient.as_str())))
}

fn counted<'a, K: Ord>(cases: impl Iterator<Item = (K, &'a str)>) -> Vec<Cases<K>> {
    let mut found: BTreeMap<K, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for (key, patient) in cases {
        let (count, patients) = found.entry(key).or_default();
        *count += 1;
        patients.insert(patient);
    }
    let cases = |(of, (cases, patients)): (K, (usize, BTreeSet<&str>))| Cases {
        of,
        cases,
        patients: patients.len(),
    };
    found.into_iter().map(cases).collect()
}

/// Extents and distances along slices, rows and columns; nothing of no cases.
pub fn axes(survey: &Survey) -> Vec<AxisSpread> {
    let spread = |(index, axis): (usize, &'static str)| {
        let grids = survey.cases.iter().map(|case| &case.grid);
        Some(AxisSpread {
            axis,
            voxels: Spread::of(grids.clone().map(|grid| grid.shape[index]))?,
            spacing_mm: Spread::of(grids.filter_map(|grid| Some(grid.spacing_mm?[index]))),
        })
    };
    ["slices", "rows", "columns"].into_iter().enumerate().filter_map(spread).collect()
}

/// What each kind of annotation says.
pub fn kinds(survey: &Survey) -> Vec<KindNumbers> {
    survey.kinds().into_iter().map(|kind| of_kind(survey, kind)).collect()
}

fn of_kind(survey: &Survey, kind: &str) -> KindNumbers {
    let sum = |number: &dyn Fn(&CaseMeasures, &LabelCounts) -> u64| -> u64 {
        survey.with(kind).map(|(case, counts)| number(case, counts)).sum()
    };
    let voxels = sum(&|case, _| case.grid.voxels() as u64);
    let annotated_voxels = voxels - sum(&|_, counts| counts.count(IGNORE).voxels);
    let label = |(label, name): (u8, String)| {
        let voxels = sum(&|_, counts| counts.count(label).voxels);
        LabelNumbers {
            label,
            name,
            looked_for: survey.with(kind).filter(|(case, _)| case.is_looked_for(label)).count(),
            cases: survey.with(kind).filter(|(_, counts)| counts.has(label)).count(),
            slices: sum(&|_, counts| counts.count(label).slices),
            voxels,
            share: voxels as f64 / annotated_voxels.max(1) as f64,
        }
    };
    KindNumbers {
        kind: kind.to_owned(),
        cases: survey.with(kind).count(),
        annotated_cases: survey.with(kind).filter(|(_, counts)| counts.is_annotated()).count(),
        slices: sum(&|case, _| case.grid.shape[0] as u64),
        annotated_slices: sum(&|_, counts| counts.annotated_slices),
        voxels,
        annotated_voxels,
        labels: survey.labels(kind).into_iter().map(label).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::samples::{annotated, survey};
    use crate::data::{DENSE, GAZE, IGNORE, SCRIBBLE};

    #[test]
    fn the_middle_of_an_even_number_is_one_of_them() {
        let spread = Spread::of([4, 1, 3, 2].into_iter()).unwrap();
        assert_eq!(spread, Spread { min: 1, median: 2, max: 4 });
        assert_eq!(Spread::of(std::iter::empty::<f64>()), None);
    }

    #[test]
    fn cases_voxels_and_slices_are_added_up_by_kind_and_class() {
        let survey = survey(vec![
            annotated("a", &[(SCRIBBLE, [0, 1, IGNORE, IGNORE]), (DENSE, [0, 0, 1, 2])]),
            annotated("b", &[(SCRIBBLE, [IGNORE, IGNORE, IGNORE, 1])]),
            annotated("c", &[(SCRIBBLE, [IGNORE; 4])]),
        ]);
        let [dense, scribble] = &kinds(&survey)[..] else { panic!() };
        assert_eq!((dense.cases, dense.annotated_voxels, dense.voxels), (1, 4, 4));
        assert_eq!((scribble.cases, scribble.annotated_cases), (3, 2));
        assert_eq!((scribble.annotated_voxels, scribble.voxels), (3, 12));
        // Two slices each.
        assert_eq!((scribble.annotated_slices, scribble.slices), (2, 6));
        let liver = &scribble.labels[1];
        assert_eq!(
            (liver.name.as_str(), liver.cases, liver.voxels, liver.slices),
            ("liver", 2, 2, 2)
        );
        assert!((liver.share - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(scribble.labels[2].cases, 0);
    }

    #[test]
    fn classes_that_nobody_looked_for_are_counted() {
        let mut survey = survey(vec![
            annotated("a", &[(DENSE, [0, 0, 1, 0])]),
            annotated("b", &[(DENSE, [0, 0, 1, 2])]),
        ]);
        survey.cases[0].classes_annotated = vec![0, 1];
        let looked_for: Vec<usize> =
            kinds(&survey)[0].labels.iter().map(|label| label.looked_for).collect();
        assert_eq!(looked_for, [2, 2, 1]);
    }

    #[test]
    fn gaze_is_told_by_its_levels() {
        let mut survey = survey(vec![annotated("a", &[(GAZE, [0, 1, 2, 2])])]);
        survey.levels = vec![0.3, 0.5];
        let labels = &kinds(&survey)[0].labels;
        let told: Vec<_> = labels.iter().map(|one| (one.name.as_str(), one.voxels)).collect();
        assert_eq!(told, [("below 0.3", 1), ("0.3 and above", 3), ("0.5 and above", 2)]);
    }
}
