//! What is odd about a data set, and what it cannot be trained on for, each as one sentence.
//!
//! Every finding is a function of what was measured, and the list of all of them stands here.

mod annotation;
mod folds;
mod geometry;
mod images;
mod training;

pub use training::Purpose;

use super::survey::Survey;
use crate::scan::list;
use serde::Serialize;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot be trained on.
    Refused,
    /// It can be trained on, and somebody should look.
    Warning,
    /// Good to know.
    Note,
}

/// Something that people should know of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// What it is about, one word that stays the same, for programs.
    pub about: &'static str,
    /// What was found, and of which cases, of many the first ones.
    pub sentence: String,
    /// The names of all cases that it is true of, where it is true of some.
    pub cases: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
}

/// The name of a case, and how a sentence calls it.
type Named = (String, String);

impl Finding {
    /// A sentence that is true of the data set.
    fn of_all(severity: Severity, about: &'static str, sentence: impl Into<String>) -> Self {
        Self { severity, about, sentence: sentence.into(), cases: Vec::new(), hint: None }
    }

    /// A sentence that is true of these cases, which it names; nothing where there are none.
    fn of_cases(
        severity: Severity,
        about: &'static str,
        sentence: impl Into<String>,
        cases: Vec<Named>,
    ) -> Option<Self> {
        let (cases, shown): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let sentence = format!("{}: {}", sentence.into(), list(&shown));
        (!shown.is_empty()).then_some(Self { severity, about, sentence, cases, hint: None })
    }
}

/// A case that a sentence calls by its name alone.
fn named(name: &str) -> Named {
    (name.to_owned(), format!("`{name}`"))
}

/// A case, and what it is about it.
fn explained(name: &str, what: &str) -> Named {
    (name.to_owned(), format!("`{name}` ({what})"))
}

/// Names of classes and the like in words: "`a`, `b` or `c`".
fn either(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

/// What is looked for, whoever asks.
const LOOKED_FOR: &[fn(&Survey) -> Vec<Finding>] = &[
    annotation::empty,
    annotation::never_annotated,
    annotation::every_pixel,
    annotation::no_background,
    annotation::no_stroke,
    annotation::background_alone,
    images::constant,
    images::same,
    images::far_shape,
    images::far_spacing,
    geometry::slices_across,
    geometry::orientation,
    geometry::spacing,
    folds::patients,
    folds::classes,
    folds::scored,
    folds::nothing_left,
];

/// All findings, the gravest first.
pub(super) fn all(survey: &Survey, purpose: &Purpose) -> Vec<Finding> {
    let mut found = training::refusals(survey, purpose);
    found.extend(LOOKED_FOR.iter().flat_map(|look| look(survey)));
    found.sort_by_key(|finding| finding.severity);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::samples::{annotated, survey};
    use crate::data::{DENSE, IGNORE, SCRIBBLE};

    #[test]
    fn the_gravest_come_first_and_nothing_is_found_in_what_is_sound() {
        let mut sound = survey(vec![
            annotated("a", &[(SCRIBBLE, [0, 1, 2, IGNORE]), (DENSE, [0, 1, 2, 1])]),
            annotated("b", &[(SCRIBBLE, [0, 2, 1, IGNORE]), (DENSE, [0, 1, 2, 1])]),
        ]);
        for (fold, case) in (1..).zip(&mut sound.cases) {
            case.fold = fold;
        }
        assert_eq!(all(&sound, &Purpose::default()), []);
        let odd = survey(vec![annotated("a", &[(SCRIBBLE, [0, 0, 0, IGNORE])])]);
        let graves: Vec<_> =
            all(&odd, &Purpose::default()).iter().map(|one| one.severity).collect();
        assert!(graves.is_sorted() && graves[0] == Severity::Refused, "{graves:?}");
    }

    #[test]
    fn many_cases_are_named_in_part_and_listed_whole() {
        let cases = (0..30).map(|number| named(&number.to_string())).collect();
        let finding = Finding::of_cases(Severity::Note, "it", "so", cases).unwrap();
        assert!(finding.sentence.ends_with("`19` and 10 more"), "{}", finding.sentence);
        assert_eq!(finding.cases.len(), 30);
        assert_eq!(Finding::of_cases(Severity::Note, "it", "so", Vec::new()), None);
        assert_eq!(either(&["a".into(), "b".into(), "c".into()]), "`a`, `b` or `c`");
        assert_eq!(either(&["a".into()]), "`a`");
    }
}
