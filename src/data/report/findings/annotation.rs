//! What is odd about annotations: none, of one class alone, or of everything.
//!
//! Knows labels and their counts; whether it can be trained on, `training` says.

use super::Severity::{Note, Warning};
use super::{Finding, either, explained, named};
use crate::data::report::survey::{Survey, is_partial};
use crate::data::{DENSE, GAZE, IGNORE, IMAGE_LABEL, SCRIBBLE};

/// Cases of which nothing is annotated.
pub(super) fn empty(survey: &Survey) -> Vec<Finding> {
    let of = |kind: &str| {
        let empty = survey.with(kind).filter(|(_, counts)| !counts.is_annotated());
        let empty: Vec<_> = empty.map(|(case, _)| named(&case.name)).collect();
        if empty.len() == survey.with(kind).count() {
            let sentence = format!(
                "nothing is annotated in `{kind}` of any case: there is nothing to learn from"
            );
            return Some(Finding::of_all(Warning, "empty_annotation", sentence));
        }
        let sentence = format!("nothing is annotated in `{kind}`");
        Finding::of_cases(Warning, "empty_annotation", sentence, empty)
    };
    survey.kinds().into_iter().filter_map(of).collect()
}

/// Whether any case shows the label.
fn is_shown(survey: &Survey, kind: &str, label: u8) -> bool {
    survey.with(kind).any(|(_, counts)| counts.has(label))
}

/// Whether any voxel of any case is annotated.
fn is_annotated(survey: &Survey, kind: &str) -> bool {
    survey.with(kind).any(|(_, counts)| counts.is_annotated())
}

/// Classes, and levels of gaze, that no case shows. Whether anybody drew on the background, [`no_background`] says.
pub(super) fn never_annotated(survey: &Survey) -> Vec<Finding> {
    let mut found = Vec::new();
    for kind in survey.kinds().into_iter().filter(|kind| is_annotated(survey, kind)) {
        let labels = survey.labels(kind).into_iter();
        let missing = labels.filter(|(label, _)| {
            !is_shown(survey, kind, *label) && (!is_partial(kind) || *label != 0)
        });
        let (drawn, nowhere): (Vec<_>, Vec<_>) =
            missing.partition(|(label, _)| kind == SCRIBBLE && is_shown(survey, DENSE, *label));
        let names = |labels: Vec<(u8, String)>| -> Vec<String> {
            labels.into_iter().map(|(_, name)| name).collect()
        };
        if !drawn.is_empty() {
            let sentence = format!(
                "no stroke of any case is {} in `{kind}`, though `{DENSE}` shows it",
                either(&names(drawn))
            );
            found.push(Finding::of_all(Warning, "class_never_annotated", sentence));
        }
        if !nowhere.is_empty() {
            let what = if kind == IMAGE_LABEL { "slice" } else { "pixel" };
            let sentence =
                format!("no {what} of any case is {} in `{kind}`", either(&names(nowhere)));
            found.push(Finding::of_all(Warning, "class_never_annotated", sentence));
        }
    }
    found
}

/// Scribbles that fill everything.
pub(super) fn every_pixel(survey: &Survey) -> Vec<Finding> {
    if survey.with(SCRIBBLE).count() == 0 || is_shown(survey, SCRIBBLE, IGNORE) {
        return Vec::new();
    }
    let sentence = format!(
        "every pixel of every case has a class in `{SCRIBBLE}`: if people drew strokes only, the value of pixels that they did not draw on is taken for a class, and `--unlabelled` must name it"
    );
    vec![Finding::of_all(Warning, "every_pixel_annotated", sentence)]
}

/// Cases whose structures are drawn on and whose background is not.
pub(super) fn no_background(survey: &Survey) -> Vec<Finding> {
    let of = |kind: &str| {
        let annotated = || survey.with(kind).filter(|(_, counts)| counts.is_annotated());
        let without = annotated().filter(|(_, counts)| !counts.has(0));
        let without: Vec<_> = without.map(|(case, _)| named(&case.name)).collect();
        let why = "nothing tells a network where structures end";
        if !without.is_empty() && without.len() == annotated().count() {
            let sentence = format!("the background is annotated in `{kind}` of no case: {why}");
            return Some(Finding::of_all(Warning, "no_background", sentence));
        }
        let sentence = format!("the background is not annotated in `{kind}`, so that {why}");
        Finding::of_cases(Warning, "no_background", sentence, without)
    };
    survey.kinds().into_iter().filter(|kind| is_partial(kind)).filter_map(of).collect()
}

/// Cases whose dense labels show a class that somebody draws strokes of elsewhere, and not here.
pub(super) fn no_stroke(survey: &Survey) -> Vec<Finding> {
    let without = survey.with(SCRIBBLE).filter(|(_, counts)| counts.is_annotated());
    let without = without.filter_map(|(case, drawn)| {
        let dense = case.annotations.get(DENSE)?;
        let missing: Vec<String> = dense
            .labels()
            .filter(|&class| !drawn.has(class) && is_shown(survey, SCRIBBLE, class))
            .map(|class| format!("`{}`", survey.class(class)))
            .collect();
        (!missing.is_empty()).then(|| explained(&case.name, &missing.join(", ")))
    });
    let sentence = format!("`{DENSE}` shows classes of which `{SCRIBBLE}` has no stroke");
    Finding::of_cases(Note, "no_stroke", sentence, without.collect()).into_iter().collect()
}

/// Cases that show none of the classes.
pub(super) fn background_alone(survey: &Survey) -> Vec<Finding> {
    let of = |kind: &str| {
        let annotated = || survey.with(kind).filter(|(_, counts)| counts.is_annotated());
        let alone = annotated().filter(|(_, counts)| counts.labels().eq([0]));
        let alone: Vec<_> = alone.map(|(case, _)| named(&case.name)).collect();
        if alone.len() == annotated().count() {
            return None;
        }
        let sentence = match kind {
            GAZE => format!("`{kind}` reaches no level"),
            _ => format!("`{kind}` shows nothing but `{}`", survey.class(0)),
        };
        Finding::of_cases(Note, "background_alone", sentence, alone)
    };
    let kinds = survey.kinds().into_iter().filter(|&kind| kind != IMAGE_LABEL);
    kinds.filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::samples::{annotated, survey};
    use crate::data::report::{CaseMeasures, Severity};

    const NO: u8 = IGNORE;

    fn said(
        look: fn(&Survey) -> Vec<Finding>,
        cases: Vec<CaseMeasures>,
    ) -> Vec<(Severity, String)> {
        look(&survey(cases)).into_iter().map(|one| (one.severity, one.sentence)).collect()
    }

    fn drawn(name: &str, labels: [u8; 4]) -> CaseMeasures {
        annotated(name, &[(SCRIBBLE, labels)])
    }

    #[test]
    fn empty_scribbles_are_named() {
        let cases = vec![drawn("a", [0, 1, NO, NO]), drawn("b", [NO; 4])];
        let expected = "nothing is annotated in `scribble`: `b`";
        assert_eq!(said(empty, cases), [(Warning, expected.into())]);
        let all = "nothing is annotated in `scribble` of any case: there is nothing to learn from";
        assert_eq!(said(empty, vec![drawn("b", [NO; 4])]), [(Warning, all.into())]);
        // Cases without the kind have none that is empty.
        assert_eq!(said(empty, vec![annotated("a", &[(DENSE, [0; 4])]), annotated("b", &[])]), []);
    }

    #[test]
    fn classes_without_any_stroke_are_named_with_what_dense_labels_show() {
        let cases = || vec![drawn("a", [0, 1, NO, NO])];
        let nowhere = "no pixel of any case is `tumour` in `scribble`";
        assert_eq!(said(never_annotated, cases()), [(Warning, nowhere.into())]);
        let mut with_dense = cases();
        with_dense.push(annotated("b", &[(DENSE, [0, 0, 2, 1])]));
        let drawn_dense =
            "no stroke of any case is `tumour` in `scribble`, though `dense` shows it";
        assert_eq!(said(never_annotated, with_dense), [(Warning, drawn_dense.into())]);
        let labels = annotated("a", &[(IMAGE_LABEL, [1; 4])]);
        let healthy = "no slice of any case is `healthy` in `image_label`";
        assert_eq!(said(never_annotated, vec![labels]), [(Warning, healthy.into())]);
        assert_eq!(said(never_annotated, vec![drawn("a", [NO; 4])]), [], "said by `empty`");
    }

    #[test]
    fn scribbles_that_fill_everything_are_told() {
        let all = said(every_pixel, vec![drawn("a", [0, 1, 2, 0])]);
        assert!(all[0].1.starts_with("every pixel of every case has a class"), "{all:?}");
        assert_eq!(said(every_pixel, vec![drawn("a", [0, 1, 2, 0]), drawn("b", [NO; 4])]), []);
        assert_eq!(said(every_pixel, vec![annotated("a", &[(DENSE, [0; 4])])]), []);
    }

    #[test]
    fn cases_without_background_strokes_are_named() {
        let cases =
            vec![drawn("a", [0, 1, NO, NO]), drawn("b", [2, 1, NO, NO]), drawn("c", [NO; 4])];
        let some = "the background is not annotated in `scribble`, so that nothing tells a network where structures end: `b`";
        assert_eq!(said(no_background, cases), [(Warning, some.into())]);
        let none = "the background is annotated in `scribble` of no case: nothing tells a network where structures end";
        assert_eq!(said(no_background, vec![drawn("b", [2, 1, NO, NO])]), [(Warning, none.into())]);
        assert_eq!(said(no_background, vec![annotated("a", &[(DENSE, [1; 4])])]), []);
    }

    #[test]
    fn structures_that_a_case_shows_and_nobody_drew_are_named() {
        let both =
            |name: &str, scribble, dense| annotated(name, &[(SCRIBBLE, scribble), (DENSE, dense)]);
        let cases = vec![
            both("a", [0, 1, NO, NO], [0, 1, 2, 2]),
            both("b", [0, 1, 2, NO], [0, 1, 2, 2]),
            both("c", [NO; 4], [0, 1, 2, 2]),
        ];
        let expected = "`dense` shows classes of which `scribble` has no stroke: `a` (`tumour`)";
        assert_eq!(said(no_stroke, cases), [(Note, expected.into())]);
        let never = vec![both("a", [0, 1, NO, NO], [0, 1, 2, 2])];
        assert_eq!(said(no_stroke, never), [], "said by `never_annotated`");
    }

    #[test]
    fn cases_whose_classes_never_occur_are_named() {
        let cases = vec![drawn("a", [0, 0, NO, NO]), drawn("b", [0, 1, NO, NO])];
        let expected = "`scribble` shows nothing but `background`: `a`";
        assert_eq!(said(background_alone, cases), [(Note, expected.into())]);
        assert_eq!(said(background_alone, vec![drawn("a", [0, 0, NO, NO])]), []);
        let looked = |name: &str, levels| annotated(name, &[(GAZE, levels)]);
        let gaze = said(background_alone, vec![looked("a", [0; 4]), looked("b", [0, 1, 2, 0])]);
        assert_eq!(gaze, [(Note, "`gaze` reaches no level: `a`".into())]);
        let healthy =
            [("a", 0), ("b", 1)].map(|(name, l)| annotated(name, &[(IMAGE_LABEL, [l; 4])]));
        assert_eq!(said(background_alone, healthy.to_vec()), []);
    }
}
