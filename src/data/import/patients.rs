//! Whose scans cases are, as names of files say it, and which fold holds a patient out.
//!
//! Knows names alone. All cases of one patient are in one fold.

use super::contiguous_fold;
use crate::error::{Failure, Result};
use crate::scan::{Notes, list};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};

/// How names of cases say whose they are.
pub(super) struct Patients(Option<Regex>);

impl Patients {
    /// The first group of `pattern` in the name of a case is its patient; without a pattern each case is
    /// a patient of its own.
    pub(super) fn parse(pattern: Option<&str>) -> Result<Self> {
        let Some(pattern) = pattern else { return Ok(Self(None)) };
        let example = "for example `--patients '^(p[0-9]+)'` where `p08_t1` is a scan of `p08`";
        let regex = Regex::new(pattern).map_err(|error| {
            Failure::usage(format!("`--patients '{pattern}'` is no regular expression"))
                .because(&error)
                .hint(example)
        })?;
        if regex.captures_len() < 2 {
            return Err(Failure::usage(format!(
                "`--patients '{pattern}'` has no group in parentheses, expected one around the patient"
            ))
            .hint(example));
        }
        Ok(Self(Some(regex)))
    }

    /// The patient of the case `name`. Refuses a name that the pattern does not fit.
    pub(super) fn of(&self, name: &str) -> Result<String> {
        let Some(regex) = &self.0 else { return Ok(name.to_owned()) };
        let patient =
            regex.captures(name).and_then(|found| found.get(1)).map(|group| group.as_str());
        patient.filter(|patient| !patient.is_empty()).map(String::from).ok_or_else(|| {
            Failure::usage(format!(
                "case `{name}` has no patient in it, as `--patients '{regex}'` says it"
            ))
            .hint("give a pattern that fits the names of all cases")
        })
    }

    /// Notes names that look like several scans of one patient, where nobody said whose they are.
    pub(super) fn note_scans<'a>(&self, names: impl Iterator<Item = &'a String>, notes: &Notes) {
        if self.0.is_some() {
            return;
        }
        let mut scans: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for name in names {
            if let Some(patient) = likely_patient(name) {
                scans.entry(patient).or_default().push(format!("`{name}`"));
            }
        }
        let several: Vec<String> =
            scans.into_values().filter(|names| names.len() > 1).map(|names| list(&names)).collect();
        if !several.is_empty() {
            notes.add(
                "these look like several scans of one patient, and count as different patients, who may be trained on and scored with at once; name patients, for example with `--patients '^(.+)[_.-]'`",
                list(&several),
            );
        }
    }
}

/// What stands before the last part of a name, if it holds a number and that part looks like one of
/// several: `p08` of `p08_t1`, but nothing of `case_1`.
fn likely_patient(name: &str) -> Option<&str> {
    let at = name.rfind(['_', '-', '.'])?;
    let (patient, scan) = (&name[..at], &name[at + 1..]);
    let has_number = patient.contains(|letter: char| letter.is_ascii_digit());
    let is_short = scan.len() <= 8 && scan.chars().all(|letter| letter.is_ascii_alphanumeric());
    (has_number && is_short).then_some(patient)
}

/// The fold of each patient: `held_out` are cut into five contiguous blocks by their names, others are
/// in none, which is 0.
pub(super) fn folds(held_out: &BTreeSet<String>) -> BTreeMap<String, u32> {
    let count = held_out.len();
    let fold =
        |(index, patient): (usize, &String)| (patient.clone(), contiguous_fold(index, count));
    held_out.iter().enumerate().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_says_whose_a_case_is() {
        let patients = Patients::parse(Some("^(p[0-9]+)_")).unwrap();
        assert_eq!(patients.of("p08_t1").unwrap(), "p08");
        assert_eq!(
            patients.of("q08").unwrap_err().message(),
            "case `q08` has no patient in it, as `--patients '^(p[0-9]+)_'` says it"
        );
        assert!(Patients::parse(Some("p[0-9]+")).is_err());
        assert!(Patients::parse(Some("(p")).is_err());
        assert_eq!(Patients::parse(None).unwrap().of("p08_t1").unwrap(), "p08_t1");
    }

    #[test]
    fn names_that_look_like_scans_of_one_patient_are_noted() {
        let noted = |names: &[&str], pattern: Option<&str>| {
            let notes = Notes::default();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Patients::parse(pattern).unwrap().note_scans(names.iter(), &notes);
            notes.take()
        };
        let scans = ["p08_t0", "p08_t1", "p09_t0"];
        assert!(noted(&scans, None)[0].ends_with(": `p08_t0`, `p08_t1`"));
        assert!(noted(&scans, Some("^(p[0-9]+)")).is_empty());
        assert!(!noted(&["BraTS-GLI-00005-100", "BraTS-GLI-00005-101"], None).is_empty());
        assert!(
            noted(&["case_1", "case_2", "liver-003", "liver-004", "anna", "berta"], None)
                .is_empty()
        );
    }

    #[test]
    fn folds_are_cut_between_patients() {
        let patients: BTreeSet<String> = (0..10).map(|number| format!("p{number}")).collect();
        let folds: Vec<u32> = folds(&patients).into_values().collect();
        assert_eq!(folds, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    }
}
