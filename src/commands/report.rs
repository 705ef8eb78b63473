//! The report on a data set as a person reads it: tables of plain text, and a line for each finding.
//!
//! Draws what `data::report` says, and adds nothing.

use crate::data::report::numbers::{AxisSpread, Cases, KindNumbers, LabelNumbers, Spread};
use crate::data::report::{Finding, Report, Severity, is_partial};
use crate::data::{GAZE, IMAGE_LABEL};
use crate::error::Failure;
use crate::words::counted;
use std::collections::BTreeMap;

/// Why a data set cannot be trained on; nothing where it can.
pub(super) fn refusal(report: &Report) -> Option<Failure> {
    let mut reasons = report.refusals();
    let first = reasons.next()?;
    let mut failure = reasons.fold(Failure::new(&first.sentence), |failure, finding| {
        failure.because_of(&finding.sentence)
    });
    let mut hints: Vec<&str> = Vec::new();
    for hint in report.refusals().filter_map(|finding| finding.hint) {
        if !hints.contains(&hint) {
            hints.push(hint);
            failure = failure.hint(hint);
        }
    }
    Some(failure)
}

/// The whole report, without a line break at its end.
pub(super) fn text(report: &Report) -> String {
    let mut parts = vec![summary(report), table(&extents(report))];
    parts.extend(report.annotations.iter().map(|kind| annotation(report, kind)));
    if !report.left_out.is_empty() {
        parts.push(left_out(report));
    }
    parts.push(findings(report));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

/// The same with the words in front of findings in colour; the stream drops colours that nobody would see.
pub(super) fn coloured(text: &str) -> String {
    let colours =
        [(Severity::Refused, "1;31"), (Severity::Warning, "1;33"), (Severity::Note, "1;34")];
    let colour = |line: &str| {
        let found = colours.iter().find_map(|&(severity, code)| {
            let rest = line.strip_prefix(word(severity))?;
            rest.starts_with(": ")
                .then(|| format!("\x1b[{code}m{}:\x1b[0m{}", word(severity), &rest[1..]))
        });
        found.unwrap_or_else(|| line.to_owned())
    };
    text.lines().map(colour).collect::<Vec<_>>().join("\n")
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Refused => "refused",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// What stands in front of the tables, a line each.
fn summary(report: &Report) -> String {
    let mut lines = vec![
        ("data set", report.name.clone()),
        ("cases", format!("{} of {}", report.cases, counted(report.patients, "patient"))),
        ("slices", report.slices.to_string()),
        ("channels", channels(report)),
        ("classes", report.classes.join(", ")),
    ];
    let fold = |fold: &Cases<u32>| match fold.of {
        0 => format!("{} in none", fold.cases),
        number if Some(number) == report.test_fold => {
            format!("{} in {number} (to test with)", fold.cases)
        }
        number => format!("{} in {number}", fold.cases),
    };
    lines.push(("folds", report.folds.iter().map(fold).collect::<Vec<_>>().join(", ")));
    if !report.modalities.is_empty() {
        let modality = |of: &Cases<String>| {
            format!("{} {}", of.cases, if of.of.is_empty() { "unknown" } else { &of.of })
        };
        let modalities: Vec<String> = report.modalities.iter().map(modality).collect();
        lines.push(("modalities", modalities.join(", ")));
    }
    let lines: Vec<String> =
        lines.into_iter().map(|(name, value)| format!("{name:<12}{value}")).collect();
    lines.join("\n")
}

fn channels(report: &Report) -> String {
    if report.channel_names.len() < 2 {
        return report.channels.to_string();
    }
    format!("{} ({})", report.channels, report.channel_names.join(", "))
}

/// Shapes and distances: smallest, middle, largest.
fn extents(report: &Report) -> Vec<Vec<String>> {
    let is_spaced = report.axes.iter().any(|axis| axis.spacing_mm.is_some());
    let mut head = ["voxels", "min", "median", "max"].map(String::from).to_vec();
    if is_spaced {
        head.extend(["min mm", "median mm", "max mm"].map(String::from));
    }
    let row = |axis: &AxisSpread| {
        let Spread { min, median, max } = axis.voxels;
        let mut row = vec![axis.axis.to_owned()];
        row.extend([min, median, max].map(|extent| extent.to_string()));
        let distances = axis.spacing_mm.map(|spread| [spread.min, spread.median, spread.max]);
        row.extend(distances.into_iter().flatten().map(|mm| format!("{mm:.3}")));
        row
    };
    std::iter::once(head).chain(report.axes.iter().map(row)).collect()
}

/// What one kind of annotation says: a table, and how much of everything it is.
fn annotation(report: &Report, kind: &KindNumbers) -> String {
    let (has_voxels, shares) = match &*kind.kind {
        IMAGE_LABEL => (false, "of its slices"),
        GAZE => (true, "of its voxels"),
        _ => (true, "of annotated"),
    };
    let is_partly_looked_for = kind.labels.iter().any(|label| label.looked_for < kind.cases);
    let mut head = vec![kind.kind.clone()];
    if is_partly_looked_for {
        head.push("looked for in".to_owned());
    }
    head.push("cases".to_owned());
    head.push("slices".to_owned());
    if has_voxels {
        head.push("voxels".to_owned());
    }
    head.push(shares.to_owned());
    let row = |label: &LabelNumbers| {
        let mut row = vec![label.name.clone()];
        if is_partly_looked_for {
            row.push(label.looked_for.to_string());
        }
        row.extend([label.cases.to_string(), label.slices.to_string()]);
        if has_voxels {
            row.push(label.voxels.to_string());
        }
        row.push(percent(if has_voxels {
            label.share
        } else {
            label.slices as f64 / kind.slices.max(1) as f64
        }));
        row
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(kind.labels.iter().map(row)).collect();
    let mut text = table(&rows);
    if is_partial(&kind.kind) {
        let share = percent(kind.annotated_voxels as f64 / kind.voxels.max(1) as f64);
        text = format!(
            "{text}\nannotated are {share} of the voxels, {} of {} slices, {} of {}",
            kind.annotated_slices,
            kind.slices,
            kind.annotated_cases,
            counted(kind.cases, "case")
        );
    }
    match report.cases - kind.cases {
        0 => text,
        without => format!("{text}\n{} without `{}`", counted(without, "case"), kind.kind),
    }
}

/// A share from 0 to 1 in words; what is there is not called 0.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if share > 0.0 && percent < 0.01 { "< 0.01 %".to_owned() } else { format!("{percent:.2} %") }
}

/// What was found and is not packed, by the reason.
fn left_out(report: &Report) -> String {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for left_out in &report.left_out {
        by_reason.entry(&left_out.why).or_default().push(&left_out.what);
    }
    let mut lines = Vec::new();
    for (why, all) in by_reason {
        lines.push(format!("left out {}, for {why}", all.len()));
        lines.extend(all.into_iter().map(|what| format!("  {what}")));
    }
    lines.join("\n")
}

fn findings(report: &Report) -> String {
    if report.findings.is_empty() {
        return "nothing looks odd".to_owned();
    }
    let line = |finding: &Finding| format!("{}: {}", word(finding.severity), finding.sentence);
    report.findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Rows with their first column to the left and all others to the right; nothing of a head alone.
fn table(rows: &[Vec<String>]) -> String {
    if rows.len() < 2 {
        return String::new();
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells =
            row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::{CaseMeasures, Purpose, Survey};
    use crate::data::{Case, DENSE, IGNORE, SCRIBBLE};
    use crate::scan::{Grid, LeftOut, Scan};

    fn case(name: &str, fold: u32, annotations: &[(&str, [u8; 6])]) -> CaseMeasures {
        let shift = name.len() as f32;
        CaseMeasures::of(&Case {
            name: name.into(),
            patient: name.into(),
            frame: 0,
            modality: if fold == 0 { "ct".into() } else { "mr".into() },
            fold,
            classes_annotated: Vec::new(),
            scan: Scan {
                grid: Grid::unplaced([3, 1, 2], Some([5.0, 0.75, 0.75])),
                channels: 1,
                voxels: (0..6u8).map(|voxel| f32::from(voxel) + shift).collect(),
            },
            annotations: annotations.iter().map(|(kind, l)| ((*kind).into(), l.to_vec())).collect(),
        })
    }

    fn report(cases: Vec<CaseMeasures>, left_out: Vec<LeftOut>) -> Report {
        let classes = ["background", "liver", "tumour"].map(String::from).to_vec();
        let (levels, preparation, test_fold) = (vec![0.3, 0.5], None, Some(1));
        let survey = Survey { name: "set".into(), classes, levels, preparation, test_fold, cases };
        Report::new(&survey, left_out, &Purpose::default())
    }

    const NO: u8 = IGNORE;

    #[test]
    fn every_kind_of_annotation_has_a_table_of_what_makes_sense_of_it() {
        let mut cases = vec![
            case("a", 0, &[(SCRIBBLE, [0, 1, NO, NO, 1, NO])]),
            case("bb", 0, &[(SCRIBBLE, [NO; 6])]),
            case("ccc", 1, &[(DENSE, [0, 0, 0, 1, 1, 2])]),
            case("dddd", 0, &[(IMAGE_LABEL, [0, 0, 0, 0, 1, 1])]),
            case("eeeee", 0, &[(GAZE, [0, 0, 0, 1, 2, 2])]),
        ];
        cases[0].classes_annotated = vec![0, 1];
        let left_out = ["`x`", "`y`"].map(|what| LeftOut {
            what: what.into(),
            why: "there are no labels to score with".into(),
        });
        insta::assert_snapshot!(text(&report(cases, left_out.to_vec())), @r"
        data set    set
        cases       5 of 5 patients
        slices      15
        channels    1
        classes     background, liver, tumour
        folds       4 in none, 1 in 1 (to test with)
        modalities  4 ct, 1 mr

        voxels   min  median  max  min mm  median mm  max mm
        slices     3       3    3   5.000      5.000   5.000
        rows       1       1    1   0.750      0.750   0.750
        columns    2       2    2   0.750      0.750   0.750

        dense       cases  slices  voxels  of annotated
        background      1       2       3       50.00 %
        liver           1       2       2       33.33 %
        tumour          1       1       1       16.67 %
        4 cases without `dense`

        gaze           cases  slices  voxels  of its voxels
        below 0.3          1       2       3        50.00 %
        0.3 and above      1       2       3        50.00 %
        0.5 and above      1       1       2        33.33 %
        4 cases without `gaze`

        image_label  cases  slices  of its slices
        healthy          1       2        66.67 %
        diseased         1       1        33.33 %
        4 cases without `image_label`

        scribble    looked for in  cases  slices  voxels  of annotated
        background              2      1       1       1       33.33 %
        liver                   2      1       2       2       66.67 %
        tumour                  1      0       0       0        0.00 %
        annotated are 25.00 % of the voxels, 2 of 6 slices, 1 of 2 cases
        3 cases without `scribble`

        left out 2, for there are no labels to score with
          `x`
          `y`

        warning: nothing is annotated in `scribble`: `bb`
        warning: no stroke of any case is `tumour` in `scribble`, though `dense` shows it
        ");
    }

    #[test]
    fn what_cannot_be_trained_on_is_told_with_all_reasons_and_each_hint_once() {
        let cases = vec![case("a", 0, &[(SCRIBBLE, [NO; 6]), (DENSE, [0; 6])])];
        let report = report(cases, Vec::new());
        insta::assert_snapshot!(refusal(&report).unwrap(), @r"
        error: `dense` shows nothing but `background` in any case that fold 1 does not hold out, expected at least two classes
          caused by: no voxel of any case that fold 1 does not hold out is annotated in `scribble`

        hint: look whether the labels were packed with the right values for classes and for unlabelled pixels; `--unlabelled` names the value of pixels that nobody annotated
        ");
        let lines = coloured(&findings(&report));
        assert!(lines.starts_with("\x1b[1;31mrefused:\x1b[0m "), "{lines:?}");
        assert!(lines.contains("\n\x1b[1;33mwarning:\x1b[0m "), "{lines:?}");
        assert_eq!(coloured("notes are none\nrefused"), "notes are none\nrefused");
    }

    #[test]
    fn small_shares_are_not_called_none() {
        assert_eq!(
            [0.0, 1e-6, 0.1234, 1.0].map(percent),
            ["0.00 %", "< 0.01 %", "12.34 %", "100.00 %"]
        );
    }
}
