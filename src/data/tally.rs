//! How much of a data set is annotated: pixels by kind and class, and the cases that lack something.
//!
//! Counts and compares; where labels come from and what is done about it is not known here.

use super::{Case, GAZE, IGNORE, SCRIBBLE};
use crate::error::{Failure, Result};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How many cases a warning names.
const NAMED: usize = 20;

/// Annotated pixels of the cases that were added.
#[derive(Debug, Default)]
pub struct Tally {
    case_count: usize,
    kinds: BTreeMap<String, Kind>,
}

/// What was found of one kind of annotation.
#[derive(Debug, Default)]
struct Kind {
    /// Pixels by class, then those without.
    pixels: BTreeMap<u8, u64>,
    case_count: usize,
    /// Names of cases that have it without one annotated pixel.
    empty: Vec<String>,
}

impl Tally {
    /// Counts a case. Of [`GAZE`] the pixels below the lowest level count as class 0, all others as class 1.
    pub fn add(&mut self, case: &Case) {
        self.case_count += 1;
        for (name, labels) in &case.annotations {
            let mut pixels = [0u64; 256];
            for &label in labels {
                let label = if name == GAZE { label.min(1) } else { label };
                pixels[usize::from(label)] += 1;
            }
            let kind = self.kinds.entry(name.clone()).or_default();
            kind.case_count += 1;
            if labels.iter().all(|&label| label == IGNORE) {
                kind.empty.push(format!("`{}`", case.name));
            }
            for (label, count) in (0..=u8::MAX).zip(pixels).filter(|(_, count)| *count > 0) {
                *kind.pixels.entry(label).or_default() += count;
            }
        }
    }

    /// Refuses scribbles that fill everything with one class: the value that stands for unlabelled
    /// pixels is another one then.
    pub fn check(&self, classes: &[String]) -> Result<()> {
        let Some(kind) = self.kinds.get(SCRIBBLE) else { return Ok(()) };
        let mut found = kind.pixels.keys();
        let (Some(&label), None) = (found.next(), found.next()) else { return Ok(()) };
        if label == IGNORE {
            return Ok(());
        }
        let class = classes.get(usize::from(label)).map_or("?", String::as_str);
        Err(Failure::new(format!(
            "every pixel of every case is `{class}` in `{SCRIBBLE}`, expected strokes of several classes, and pixels that nobody annotated"
        ))
        .hint("look which value stands for pixels that nobody annotated; `--ignore` names it"))
    }

    /// What makes it unlikely that this can be learnt from, one sentence each.
    pub fn warnings(&self, classes: &[String]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, kind) in &self.kinds {
            if kind.empty.len() == kind.case_count {
                warnings.push(format!(
                    "nothing is annotated in `{name}` of any case: there is nothing to learn from"
                ));
                continue;
            }
            if !kind.empty.is_empty() {
                let shown = kind.empty[..kind.empty.len().min(NAMED)].join(", ");
                let more = kind.empty.len().saturating_sub(NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                warnings.push(format!("nothing is annotated in `{name}` of {shown}{more}"));
            }
            let missing = (0..=u8::MAX).zip(classes).filter(|(label, _)| kind.pixels(*label) == 0);
            let missing: Vec<String> = missing.map(|(_, class)| format!("`{class}`")).collect();
            if !missing.is_empty() {
                warnings
                    .push(format!("no pixel of any case is {} in `{name}`", missing.join(" or ")));
            }
            if name == SCRIBBLE && kind.pixels(IGNORE) == 0 {
                warnings.push(format!(
                    "every pixel of every case has a class in `{name}`: if people drew strokes only, the value of pixels that they did not draw on is taken for a class, and `--ignore` must name it"
                ));
            }
        }
        warnings
    }

    /// Pixels by class and kind of annotation, and how many cases lack the kind, as lines of a table.
    pub fn table(&self, classes: &[String]) -> String {
        let mut rows = vec![Vec::from(["annotated pixels".to_owned()])];
        rows[0].extend(self.kinds.keys().cloned());
        let mut row = |name: &str, cell: &dyn Fn(&Kind) -> u64| {
            let cells = self.kinds.values().map(|kind| cell(kind).to_string());
            rows.push(std::iter::once(name.to_owned()).chain(cells).collect());
        };
        for (label, class) in (0..=u8::MAX).zip(classes) {
            row(class, &|kind| kind.pixels(label));
        }
        row("unlabelled", &|kind| kind.pixels(IGNORE));
        row("cases without", &|kind| (self.case_count - kind.case_count) as u64);
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        let mut table = String::new();
        for row in &rows {
            let _ = write!(table, "{:<width$}", row[0], width = widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                let _ = write!(table, "  {cell:>width$}");
            }
            table.push('\n');
        }
        table.truncate(table.trim_end().len());
        table
    }
}

impl Kind {
    fn pixels(&self, label: u8) -> u64 {
        self.pixels.get(&label).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DENSE;
    use crate::scan::{Grid, Scan};

    const CLASSES: [&str; 3] = ["background", "liver", "tumour"];

    fn case(name: &str, annotations: &[(&str, [u8; 4])]) -> Case {
        Case {
            name: name.into(),
            patient: name.into(),
            frame: 0,
            modality: String::new(),
            classes_annotated: Vec::new(),
            fold: 0,
            scan: Scan { grid: Grid::unplaced([1, 2, 2], None), channels: 1, voxels: vec![0.0; 4] },
            annotations: annotations.iter().map(|(kind, l)| ((*kind).into(), l.to_vec())).collect(),
        }
    }

    fn tally(cases: &[Case]) -> (Tally, Vec<String>) {
        let mut tally = Tally::default();
        for case in cases {
            tally.add(case);
        }
        (tally, CLASSES.map(String::from).to_vec())
    }

    #[test]
    fn pixels_are_counted_by_kind_and_class() {
        let (tally, classes) = tally(&[
            case("a", &[(SCRIBBLE, [0, 1, IGNORE, IGNORE]), (DENSE, [0, 0, 1, 2])]),
            case("b", &[(SCRIBBLE, [IGNORE; 4])]),
        ]);
        insta::assert_snapshot!(tally.table(&classes), @r"
        annotated pixels  dense  scribble
        background            2         1
        liver                 1         1
        tumour                1         0
        unlabelled            0         6
        cases without         1         0
        ");
        assert_eq!(
            tally.warnings(&classes),
            [
                "nothing is annotated in `scribble` of `b`",
                "no pixel of any case is `tumour` in `scribble`"
            ]
        );
        assert!(tally.check(&classes).is_ok());
    }

    #[test]
    fn a_coding_that_is_surely_wrong_is_refused_and_one_that_may_be_is_told() {
        let (all, classes) = tally(&[case("a", &[(SCRIBBLE, [0; 4])])]);
        insta::assert_snapshot!(all.check(&classes).unwrap_err(), @r"
        error: every pixel of every case is `background` in `scribble`, expected strokes of several classes, and pixels that nobody annotated

        hint: look which value stands for pixels that nobody annotated; `--ignore` names it
        ");
        let (full, _) = tally(&[case("a", &[(SCRIBBLE, [0, 1, 2, 0])])]);
        assert!(full.check(&classes).is_ok());
        assert!(full.warnings(&classes)[0].starts_with("every pixel of every case has a class"));
        let (none, _) = tally(&[case("a", &[(SCRIBBLE, [IGNORE; 4])])]);
        assert!(none.check(&classes).is_ok());
        assert_eq!(
            none.warnings(&classes),
            ["nothing is annotated in `scribble` of any case: there is nothing to learn from"]
        );
    }
}
