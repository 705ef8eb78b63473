//! What is odd about folds: patients on both sides, folds that cannot be scored, and folds that leave nothing.
//!
//! Knows folds, patients and labels.

use super::Severity::{Note, Warning};
use super::training::reason;
use super::{Finding, either, named};
use crate::data::DENSE;
use crate::data::report::survey::Survey;
use crate::scan::list;
use std::collections::{BTreeMap, BTreeSet};

/// A fold in words.
fn in_words(fold: u32) -> String {
    if fold == 0 { "none".to_owned() } else { fold.to_string() }
}

/// Patients who are trained on and scored at once.
pub(super) fn patients(survey: &Survey) -> Vec<Finding> {
    let mut folds: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for case in &survey.cases {
        folds.entry(&case.patient).or_default().insert(case.fold);
    }
    folds.retain(|_, folds| folds.len() > 1);
    if folds.is_empty() {
        return Vec::new();
    }
    let shown: Vec<String> = folds
        .iter()
        .map(|(patient, folds)| {
            let folds: Vec<String> = folds.iter().map(|&fold| in_words(fold)).collect();
            format!("`{patient}` (folds {})", folds.join(", "))
        })
        .collect();
    let sentence = format!(
        "patients with cases in several folds, who are trained on and scored with at once: {}",
        list(&shown)
    );
    let cases = survey.cases.iter().filter(|case| folds.contains_key(&*case.patient));
    let cases = cases.map(|case| case.name.clone()).collect();
    vec![Finding { cases, ..Finding::of_all(Warning, "patient_in_several_folds", sentence) }]
}

/// Folds none of whose cases shows a class that others show.
pub(super) fn classes(survey: &Survey) -> Vec<Finding> {
    let shown = |fold: Option<u32>| -> BTreeSet<u8> {
        let dense = survey.with(DENSE).filter(|(case, _)| fold.is_none_or(|f| f == case.fold));
        dense.flat_map(|(_, counts)| counts.labels()).collect()
    };
    let everywhere = shown(None);
    let of = |fold: u32| {
        let own = shown(Some(fold));
        let missing = everywhere.difference(&own).map(|&class| survey.class(class).to_owned());
        let missing: Vec<String> = missing.collect();
        if own.is_empty() || missing.is_empty() {
            return None;
        }
        let sentence = format!(
            "no case of fold {fold} shows {} in `{DENSE}`, which cannot be scored there",
            either(&missing)
        );
        Some(Finding::of_all(Warning, "fold_without_class", sentence))
    };
    survey.folds().into_iter().filter_map(of).collect()
}

/// Folds that cannot be scored, for want of dense labels.
pub(super) fn scored(survey: &Survey) -> Vec<Finding> {
    let about = "not_scored";
    if survey.with(DENSE).next().is_none() {
        let sentence = format!(
            "no case has annotation `{DENSE}`, so that nothing can be scored: train with `data.fold = 0`"
        );
        return vec![Finding::of_all(Note, about, sentence)];
    }
    if survey.folds().is_empty() {
        let sentence =
            "no fold holds out any case, so that nothing is scored: train with `data.fold = 0`";
        return vec![Finding::of_all(Note, about, sentence)];
    }
    let without = survey.cases.iter().filter(|case| case.fold > 0);
    let without = without.filter(|case| !case.annotations.contains_key(DENSE));
    let without = without.map(|case| named(&case.name)).collect();
    let sentence =
        format!("held out without annotation `{DENSE}`, so that their folds cannot be scored");
    Finding::of_cases(Warning, about, sentence, without).into_iter().collect()
}

/// Folds that leave nothing to train on, where there is something without them.
pub(super) fn nothing_left(survey: &Survey) -> Vec<Finding> {
    let is_hopeless =
        |fold: u32| survey.kinds().into_iter().all(|kind| reason(survey, fold, kind).is_some());
    let folds = survey.folds().into_iter().filter(|&fold| is_hopeless(fold));
    let folds: Vec<String> = folds.map(|fold| fold.to_string()).collect();
    if folds.is_empty() || is_hopeless(0) {
        return Vec::new();
    }
    let sentence =
        format!("nothing is left to train on while these folds are held out: {}", list(&folds));
    vec![Finding::of_all(Warning, "fold_leaves_nothing", sentence)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::CaseMeasures;
    use crate::data::report::samples::{annotated, survey};
    use crate::data::{IGNORE, SCRIBBLE};

    fn held_out(name: &str, fold: u32, annotations: &[(&str, [u8; 4])]) -> CaseMeasures {
        CaseMeasures { fold, ..annotated(name, annotations) }
    }

    const DRAWN: (&str, [u8; 4]) = (SCRIBBLE, [0, 1, 2, IGNORE]);

    fn said(look: fn(&Survey) -> Vec<Finding>, cases: Vec<CaseMeasures>) -> Vec<String> {
        look(&survey(cases)).into_iter().map(|finding| finding.sentence).collect()
    }

    #[test]
    fn patients_on_both_sides_are_named() {
        let mut cases: Vec<_> =
            [("a", 0), ("b", 1), ("c", 1)].map(|(name, fold)| held_out(name, fold, &[])).to_vec();
        assert_eq!(said(patients, cases.clone()), [""; 0]);
        cases[1].patient = "a".into();
        let expected = "patients with cases in several folds, who are trained on and scored with at once: `a` (folds none, 1)";
        assert_eq!(said(patients, cases.clone()), [expected]);
        assert_eq!(patients(&survey(cases))[0].cases, ["a", "b"]);
    }

    #[test]
    fn classes_that_a_fold_cannot_score_are_named() {
        let mut cases = vec![
            held_out("a", 1, &[(DENSE, [0, 1, 2, 0])]),
            held_out("b", 2, &[(DENSE, [0, 1, 0, 0])]),
            held_out("c", 3, &[DRAWN]),
        ];
        let expected = "no case of fold 2 shows `tumour` in `dense`, which cannot be scored there";
        assert_eq!(said(classes, cases.clone()), [expected]);
        cases.remove(0);
        assert_eq!(said(classes, cases), [""; 0], "nobody shows it");
    }

    #[test]
    fn what_cannot_be_scored_is_told() {
        let none = said(scored, vec![held_out("a", 1, &[DRAWN])]);
        assert!(none[0].starts_with("no case has annotation `dense`"), "{none:?}");
        let dense = (DENSE, [0, 1, 2, 0]);
        let nowhere = said(scored, vec![held_out("a", 0, &[dense])]);
        assert!(nowhere[0].starts_with("no fold holds out any case"), "{nowhere:?}");
        let some =
            vec![held_out("a", 1, &[dense]), held_out("b", 2, &[DRAWN]), held_out("c", 0, &[])];
        let expected =
            "held out without annotation `dense`, so that their folds cannot be scored: `b`";
        assert_eq!(said(scored, some), [expected]);
    }

    #[test]
    fn folds_that_leave_nothing_are_named() {
        let dense = (DENSE, [0, 1, 2, 0]);
        let only = vec![held_out("a", 1, &[DRAWN, dense])];
        let expected = "nothing is left to train on while these folds are held out: 1";
        assert_eq!(said(nothing_left, only), [expected]);
        let two = vec![held_out("a", 1, &[DRAWN, dense]), held_out("b", 2, &[DRAWN, dense])];
        assert_eq!(said(nothing_left, two), [""; 0]);
        assert_eq!(
            said(nothing_left, vec![held_out("a", 1, &[])]),
            [""; 0],
            "with or without a fold"
        );
    }
}
