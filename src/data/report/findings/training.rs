//! What a data set cannot be trained on for: with any fold and annotation, or with those that somebody names.
//!
//! Knows the rules of [`training_slices`](crate::data::stream::training_slices) as what was measured tells them. Where
//! nobody names an annotation, nothing is refused that any method could learn from.

use super::Severity::Refused;
use super::{Finding, either, named};
use crate::data::pseudo::rule;
use crate::data::report::measures::{CaseMeasures, LabelCounts};
use crate::data::report::survey::Survey;
use crate::data::{DENSE, GAZE, IGNORE, IMAGE_LABEL, SCRIBBLE};
use std::collections::BTreeSet;

/// What somebody wants to train with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purpose {
    /// The fold that is held out; 0 where none is, or nobody says which.
    pub fold: u32,
    /// The kind of annotation to learn from; none where nobody says it.
    pub annotation: Option<String>,
}

/// What is to be done about labels that say too little.
const CODING: &str = "look whether the labels were packed with the right values for classes and for unlabelled pixels; \
                      `--unlabelled` names the value of pixels that nobody annotated";

/// What is to be done about an annotation that is not there.
const ANOTHER: &str = "choose another annotation, or pack the data set with this one";

/// What is to be done about a fold.
const ANOTHER_FOLD: &str = "choose another fold, or pack more cases";

/// Why it cannot be trained on; nothing where it can.
pub(super) fn refusals(survey: &Survey, purpose: &Purpose) -> Vec<Finding> {
    if survey.cases.is_empty() {
        return vec![Finding::of_all(Refused, "no_cases", "there are no cases")];
    }
    let mut found: Vec<_> = held_out(survey, purpose.fold).into_iter().collect();
    if let Some(kind) = &purpose.annotation {
        found.extend(lacking(survey, purpose.fold, kind));
        found.extend(reason(survey, purpose.fold, kind));
        return found;
    }
    if survey.kinds().is_empty() {
        let sentence = "no case has any annotation: there is nothing to learn from";
        found.push(Finding::of_all(Refused, "nothing_annotated", sentence));
    }
    let of = |kind: &str| reason(survey, purpose.fold, kind);
    let reasons: Vec<_> = survey.kinds().into_iter().filter_map(of).collect();
    if reasons.len() == survey.kinds().len() {
        for reason in reasons {
            // What is true of the fold is so for all kinds.
            if !found.contains(&reason) {
                found.push(reason);
            }
        }
    }
    found
}

/// Why a fold cannot be held out.
fn held_out(survey: &Survey, fold: u32) -> Option<Finding> {
    if fold == 0 {
        return None;
    }
    if !survey.folds().contains(&fold) {
        let folds: Vec<String> = survey.folds().iter().map(u32::to_string).collect();
        let sentence = if folds.is_empty() {
            format!("fold {fold} holds out no cases, and neither does any other")
        } else {
            format!("fold {fold} holds out no cases, expected {}", either(&folds))
        };
        return Some(refused("unknown_fold", sentence, ANOTHER_FOLD));
    }
    let without = survey.cases.iter().filter(|case| case.fold == fold);
    let without = without.filter(|case| !case.annotations.contains_key(DENSE));
    let without = without.map(|case| named(&case.name)).collect();
    let sentence = format!("held out in fold {fold} without annotation `{DENSE}` to evaluate with");
    let finding = Finding::of_cases(Refused, "not_scored", sentence, without);
    let hint = "pack dense labels too, or train without evaluations: `data.fold = 0`";
    finding.map(|finding| Finding { hint: Some(hint), ..finding })
}

fn refused(about: &'static str, sentence: String, hint: &'static str) -> Finding {
    Finding { hint: Some(hint), ..Finding::of_all(Refused, about, sentence) }
}

/// What an annotation says, or what it is made of when a run starts.
fn counts<'a>(case: &'a CaseMeasures, kind: &str) -> Option<&'a LabelCounts> {
    let made_of = rule(kind).and_then(|_| case.annotations.get(SCRIBBLE));
    case.annotations.get(kind).or(made_of)
}

/// Whether neither `fold` nor the fold to test with holds out a case.
fn is_kept(survey: &Survey, fold: u32, case: &CaseMeasures) -> bool {
    (fold == 0 || case.fold != fold) && survey.test_fold != Some(case.fold)
}

/// The folds that nothing is learnt from, in words, as `folds 1 and 2 hold` and `folds 1 and 2 do not hold`.
fn holding(survey: &Survey, fold: u32) -> Option<[String; 2]> {
    let folds = [Some(fold).filter(|&fold| fold > 0), survey.test_fold];
    let folds: BTreeSet<u32> = folds.into_iter().flatten().collect();
    let names: Vec<String> = folds.iter().map(u32::to_string).collect();
    match &names[..] {
        [] => None,
        [one] => Some([format!("fold {one} holds"), format!("fold {one} does not hold")]),
        all => {
            let all = all.join(" and ");
            Some([format!("folds {all} hold"), format!("folds {all} do not hold")])
        }
    }
}

/// The cases that `kind` would be learnt from while `fold` is held out.
fn learnt<'a>(survey: &'a Survey, fold: u32, kind: &str) -> impl Iterator<Item = &'a CaseMeasures> {
    let is_dense = kind == DENSE;
    let kept = survey.cases.iter().filter(move |case| is_kept(survey, fold, case));
    kept.filter(move |case| case.annotations.keys().any(|kind| is_dense || kind != DENSE))
}

/// Cases that would be learnt from and lack the annotation. Image labels are learnt from where they are.
fn lacking(survey: &Survey, fold: u32, kind: &str) -> Option<Finding> {
    let without = learnt(survey, fold, kind).filter(|case| counts(case, kind).is_none());
    let without: Vec<_> = without.map(|case| named(&case.name)).collect();
    let is_somewhere = without.len() < learnt(survey, fold, kind).count();
    if kind == IMAGE_LABEL || !is_somewhere {
        return None;
    }
    let sentence = format!("there is annotation to learn from, and none that is `{kind}`");
    let finding = Finding::of_cases(Refused, "annotation_missing", sentence, without);
    finding.map(|finding| Finding { hint: Some(ANOTHER), ..finding })
}

/// Why nothing can be learnt from a kind of annotation while `fold` is held out; nothing where something can.
pub(super) fn reason(survey: &Survey, fold: u32, kind: &str) -> Option<Finding> {
    let holding = holding(survey, fold);
    let is_any_kept = survey.cases.iter().any(|case| is_kept(survey, fold, case));
    if let Some([hold, _]) = holding.as_ref().filter(|_| !is_any_kept) {
        let sentence = format!("{hold} out every case, expected some to train on");
        return Some(refused("fold_leaves_nothing", sentence, ANOTHER_FOLD));
    }
    let behind = holding.map_or(String::new(), |[_, hold_not]| format!(" that {hold_not} out"));
    let known: Vec<_> = learnt(survey, fold, kind).filter_map(|case| counts(case, kind)).collect();
    if known.is_empty() {
        let sentence = format!("no case{behind} has annotation `{kind}` to learn from");
        return Some(refused("annotation_missing", sentence, ANOTHER));
    }
    // Of gaze all levels together are one class.
    let shown: BTreeSet<u8> = known
        .iter()
        .flat_map(|counts| counts.labels())
        .map(|label| label_class(kind, label))
        .collect();
    let sentence = match (shown.first(), shown.len()) {
        (None, _) => format!("no voxel of any case{behind} is annotated in `{kind}`"),
        (Some(&class), 1) if is_filled(kind, &known) => format!(
            "every pixel of every case{behind} is `{}` in `{kind}`, expected strokes of several classes, and pixels that nobody annotated",
            survey.class(class)
        ),
        (Some(&class), 1) => format!(
            "`{kind}` shows nothing but {} in any case{behind}, expected at least two classes",
            label_name(survey, kind, class)
        ),
        _ => return None,
    };
    let about = if shown.is_empty() { "nothing_annotated" } else { "one_class" };
    Some(refused(about, sentence, CODING))
}

fn label_class(kind: &str, label: u8) -> u8 {
    if kind == GAZE { label.min(1) } else { label }
}

fn label_name(survey: &Survey, kind: &str, label: u8) -> String {
    let known = survey.labels(kind).into_iter().find(|(known, _)| *known == label);
    format!("`{}`", known.map_or_else(|| "?".to_owned(), |(_, name)| name))
}

/// Whether scribbles leave no pixel open.
fn is_filled(kind: &str, known: &[&LabelCounts]) -> bool {
    kind == SCRIBBLE && !known.iter().any(|counts| counts.has(IGNORE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pseudo::RANDOM_WALKER;
    use crate::data::report::samples::{annotated, survey};

    const NO: u8 = IGNORE;
    const DRAWN: (&str, [u8; 4]) = (SCRIBBLE, [0, 1, 2, NO]);
    const WHOLE: (&str, [u8; 4]) = (DENSE, [0, 1, 2, 0]);

    fn held_out(name: &str, fold: u32, annotations: &[(&str, [u8; 4])]) -> CaseMeasures {
        CaseMeasures { fold, ..annotated(name, annotations) }
    }

    fn said(cases: &[CaseMeasures], fold: u32, annotation: Option<&str>) -> Vec<String> {
        let purpose = Purpose { fold, annotation: annotation.map(str::to_owned) };
        let found = refusals(&survey(cases.to_vec()), &purpose);
        assert!(found.iter().all(|finding| finding.severity == Refused));
        found.into_iter().map(|finding| finding.sentence).collect()
    }

    #[test]
    fn nothing_is_refused_that_can_be_trained_on() {
        let sets: [&[CaseMeasures]; 7] = [
            // As MSCMR is: scribbles to train on, dense labels to score with.
            &[held_out("a", 0, &[DRAWN]), held_out("b", 1, &[WHOLE])],
            // Image labels alone, with lesions in held-out cases.
            &[
                held_out("a", 0, &[(IMAGE_LABEL, [1; 4])]),
                held_out("b", 0, &[(IMAGE_LABEL, [0; 4])]),
                held_out("c", 1, &[WHOLE]),
            ],
            // Kinds beside each other, none of which all cases have.
            &[
                held_out("a", 0, &[(IMAGE_LABEL, [1; 4])]),
                held_out("b", 0, &[(IMAGE_LABEL, [0; 4])]),
                held_out("c", 0, &[DRAWN]),
            ],
            &[held_out("a", 0, &[(GAZE, [0, 1, 2, 2])]), held_out("b", 1, &[WHOLE])],
            // As AMOS is: few are labelled.
            &[held_out("a", 0, &[]), held_out("b", 0, &[WHOLE]), held_out("c", 1, &[WHOLE])],
            // To be evaluated on.
            &[held_out("a", 1, &[WHOLE])],
            // Classes that are shown by different cases, and cases without any stroke.
            &[
                held_out("a", 0, &[(SCRIBBLE, [0, NO, NO, NO])]),
                held_out("b", 0, &[(SCRIBBLE, [NO; 4])]),
                held_out("c", 0, &[(SCRIBBLE, [2, NO, NO, NO])]),
            ],
        ];
        for (index, cases) in sets.into_iter().enumerate() {
            assert_eq!(said(cases, 0, None), [""; 0], "set {index}");
        }
        assert_eq!(said(sets[0], 1, Some(SCRIBBLE)), [""; 0]);
        assert_eq!(said(sets[1], 1, Some(IMAGE_LABEL)), [""; 0]);
        assert_eq!(said(sets[2], 0, Some(IMAGE_LABEL)), [""; 0]);
        assert_eq!(said(sets[3], 1, Some(GAZE)), [""; 0]);
        assert_eq!(said(sets[4], 1, Some(DENSE)), [""; 0]);
        assert_eq!(said(sets[0], 1, Some(RANDOM_WALKER)), [""; 0]);
    }

    #[test]
    fn what_says_nothing_or_one_thing_is_refused() {
        assert_eq!(said(&[], 0, None), ["there are no cases"]);
        let bare = "no case has any annotation: there is nothing to learn from";
        assert_eq!(said(&[held_out("a", 0, &[])], 0, None), [bare]);
        let empty = held_out("a", 0, &[(SCRIBBLE, [NO; 4])]);
        let expected = "no voxel of any case is annotated in `scribble`";
        assert_eq!(said(std::slice::from_ref(&empty), 0, None), [expected]);
        let filled = held_out("b", 0, &[(SCRIBBLE, [0; 4])]);
        let expected = "every pixel of every case is `background` in `scribble`, expected strokes of several classes, and pixels that nobody annotated";
        assert_eq!(said(std::slice::from_ref(&filled), 0, None), [expected]);
        let expected =
            "`scribble` shows nothing but `background` in any case, expected at least two classes";
        assert_eq!(said(&[empty, filled.clone()], 0, None), [expected]);
        let healthy = held_out("a", 0, &[(IMAGE_LABEL, [0; 4])]);
        let expected =
            "`image_label` shows nothing but `healthy` in any case, expected at least two classes";
        assert_eq!(said(&[healthy], 0, None), [expected]);
        // Each kind for its own reason, but none where another can be learnt from.
        let dense = held_out("c", 0, &[(DENSE, [0; 4])]);
        assert_eq!(said(&[filled.clone(), dense], 0, None).len(), 2);
        assert_eq!(said(&[filled, held_out("c", 0, &[WHOLE])], 0, None), [""; 0]);
    }

    #[test]
    fn a_fold_and_an_annotation_that_are_named_must_be_there() {
        let cases = [
            held_out("a", 1, &[DRAWN, WHOLE]),
            held_out("b", 2, &[DRAWN]),
            held_out("c", 2, &[(IMAGE_LABEL, [1; 4])]),
        ];
        let unknown = "fold 7 holds out no cases, expected `1` or `2`";
        assert_eq!(said(&cases, 7, None), [unknown]);
        let unscored = "held out in fold 2 without annotation `dense` to evaluate with: `b`, `c`";
        assert_eq!(said(&cases, 2, None), [unscored]);
        let lacking = "there is annotation to learn from, and none that is `scribble`: `c`";
        assert_eq!(said(&cases, 1, Some(SCRIBBLE)), [lacking]);
        let nowhere = "no case that fold 1 does not hold out has annotation `points` to learn from";
        assert_eq!(said(&cases, 1, Some("points")), [nowhere]);
        let every = "fold 1 holds out every case, expected some to train on";
        assert_eq!(said(&cases[..1], 1, None), [every]);
        let none = "fold 1 holds out no cases, and neither does any other";
        assert_eq!(said(&[held_out("a", 0, &[DRAWN])], 1, None), [none]);
    }

    #[test]
    fn nothing_is_learnt_from_what_is_there_to_test_with() {
        let cases = vec![held_out("a", 1, &[DRAWN, WHOLE]), held_out("b", 2, &[DRAWN, WHOLE])];
        let mut survey = Survey { test_fold: Some(2), ..survey(cases) };
        let said = |survey: &Survey, fold| {
            let found = refusals(survey, &Purpose { fold, annotation: None });
            found.into_iter().map(|finding| finding.sentence).collect::<Vec<_>>()
        };
        assert_eq!(said(&survey, 0), [""; 0]);
        let both = "folds 1 and 2 hold out every case, expected some to train on";
        assert_eq!(said(&survey, 1), [both]);
        survey.cases.remove(0);
        assert_eq!(said(&survey, 0), ["fold 2 holds out every case, expected some to train on"]);
        survey.cases.push(held_out("c", 0, &[(SCRIBBLE, [NO; 4])]));
        let nothing =
            "no voxel of any case that fold 2 does not hold out is annotated in `scribble`";
        assert!(said(&survey, 0).contains(&nothing.to_owned()), "{:?}", said(&survey, 0));
    }
}
