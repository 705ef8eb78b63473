//! The table of a farm as text: for people as Markdown, for programs as CSV.
//!
//! What the numbers are is found out in [`summary`](super::summary).

use super::scores::{Score, ScoredBy};
use super::summary::{Cost, RowSummary, Spread, Summary};
use crate::error::{Context, Failure, Result};
use crate::runlog::Unit;
use std::fmt::Write as _;

/// A table for people.
pub fn markdown(summary: &Summary) -> String {
    let layout = Layout { summary, has_gpus: summary.rows.iter().any(uses_gpus) };
    let line = |cells: Vec<String>| {
        let cells: Vec<String> = cells.iter().map(|cell| plain(cell)).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let heads = layout.heads();
    let rule = format!("|{}\n", "---|".repeat(heads.len()));
    let mut text = line(heads) + &rule;
    text.extend(summary.rows.iter().map(|row| line(layout.cells(row))));
    text + &layout.notes()
}

fn uses_gpus(row: &RowSummary) -> bool {
    row.cost.gpu_hours.is_some_and(|hours| hours > 0.0)
}

/// What all rows share.
struct Layout<'a> {
    summary: &'a Summary,
    has_gpus: bool,
}

impl Layout<'_> {
    fn heads(&self) -> Vec<String> {
        let Summary { convention, compared_with, .. } = self.summary;
        let mut heads = vec!["row".to_owned(), "jobs".to_owned(), "cases".to_owned()];
        heads.extend(structures(self.summary).map(str::to_owned));
        heads.push("mean Dice".to_owned());
        heads.extend(convention.beside_dice().iter().map(|score| self.in_unit(*score)));
        heads.extend(compared_with.as_ref().map(|other| format!("p against {other}")));
        heads.push(if self.has_gpus { "GPU-hours" } else { "core-hours" }.to_owned());
        heads.push("memory, GB".to_owned());
        heads.extend(self.has_gpus.then(|| "GPU memory, GB".to_owned()));
        heads
    }

    fn in_unit(&self, score: Score) -> String {
        let word = score.word();
        match self.summary.unit.filter(|_| score.is_distance()) {
            Some(Unit::Mm) => format!("{word}, mm"),
            Some(Unit::Voxel) => format!("{word}, voxels"),
            None => word.to_owned(),
        }
    }

    fn cells(&self, row: &RowSummary) -> Vec<String> {
        let jobs = match (row.scored_jobs, row.jobs) {
            (scored, all) if scored == all => all.to_string(),
            (scored, all) => format!("{scored} of {all}"),
        };
        let mut cells = vec![row.row.clone(), jobs, row.cases.to_string()];
        cells.extend(row.structures.iter().map(|structure| shown(structure.dice, 3)));
        cells.push(shown(row.dice, 3));
        for (score, spread) in &row.beside_dice {
            let undefined = match spread.undefined {
                0 => String::new(),
                count => format!(", {count} undefined"),
            };
            cells.push(shown(*spread, if score.is_distance() { 1 } else { 3 }) + &undefined);
        }
        cells.extend(self.summary.compared_with.as_ref().map(|other| {
            match (row.p, row.compared_cases) {
                _ if row.row == *other => String::new(),
                (Some(p), Some(cases)) => format!("{} ({cases} cases)", probability(p)),
                _ => "n/a".to_owned(),
            }
        }));
        let Cost { gpu_hours, core_hours, memory_bytes, gpu_memory_bytes } = row.cost;
        let hours = if self.has_gpus { gpu_hours } else { core_hours };
        let known = |text: Option<String>| text.unwrap_or_else(|| "n/a".to_owned());
        let gigabytes =
            |bytes: Option<u64>| bytes.map(|bytes| format!("{:.1}", bytes as f64 / 1e9));
        cells.push(known(hours.map(|hours| format!("{hours:.2}"))));
        cells.push(known(gigabytes(memory_bytes)));
        cells.extend(self.has_gpus.then(|| known(gigabytes(gpu_memory_bytes))));
        cells
    }

    /// What the numbers are.
    fn notes(&self) -> String {
        let Summary { convention, unit, compared_with, rows } = self.summary;
        let hours = if self.has_gpus {
            "GPU-hours are those of the GPUs"
        } else {
            "Core-hours are those of the processes"
        };
        let of_several = match convention {
            ScoredBy::Scribblebench => {
                "The mean Dice is that over the structures of each case, then over cases; what is undefined is left out."
            }
            ScoredBy::Lesion => "Scores are those of the first class.",
            _ => {
                "Those of several structures are the mean of theirs; undefined distances are left out."
            }
        };
        let mut text = format!(
            "\nMeans over all cases of all jobs ± the standard deviation of the means of jobs, where there are several.\n\
             {of_several}\n\
             {hours} of a row's jobs and of all jobs that they need, in all attempts.\n\
             Memory is the most that the processes of one job held at any time.\n"
        );
        if let Some(other) = compared_with {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "p is that of Wilcoxon's signed-rank test, two-sided, of the mean Dice of cases that a row and `{other}` both \
                 scored, over seeds the mean.\nScans of one patient count there as several cases."
            );
        }
        let has_distances = convention.beside_dice().iter().any(|score| score.is_distance());
        if has_distances && unit.is_none() && rows.iter().any(|row| row.scored_jobs > 0) {
            text += "Distances have no mean: some are in mm and others in voxels, or nobody says in what.\n";
        }
        text
    }
}

/// The structures that have columns of their own.
fn structures(summary: &Summary) -> impl Iterator<Item = &str> {
    let first = summary.rows.first().into_iter();
    first.flat_map(|row| row.structures.iter().map(|structure| &*structure.name))
}

/// A table for programs: every number with all digits, shares as they are, memory in bytes.
pub fn csv(summary: &Summary) -> Result<String> {
    let doing = || "cannot make the table of the farm";
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut heads: Vec<String> =
        ["row", "jobs", "scored_jobs", "cases"].map(str::to_owned).to_vec();
    for name in structures(summary).chain(["all"]) {
        heads.extend(
            ["mean", "sd_over_jobs", "sd_over_cases"].map(|what| format!("dice_{name}_{what}")),
        );
    }
    for score in summary.convention.beside_dice() {
        let name = score.name();
        heads.extend(["mean", "sd_over_jobs", "undefined"].map(|what| format!("{name}_{what}")));
    }
    let heads_behind = [
        "unit",
        "compared_with",
        "p",
        "compared_cases",
        "gpu_hours",
        "core_hours",
        "memory_bytes",
        "gpu_memory_bytes",
    ];
    heads.extend(heads_behind.map(str::to_owned));
    csv.write_record(&heads).context(doing)?;
    for row in &summary.rows {
        csv.write_record(fields(summary, row)).context(doing)?;
    }
    let bytes = csv.into_inner().map_err(|error| Failure::new(doing()).because(error.error()))?;
    String::from_utf8(bytes).context(doing)
}

fn fields(summary: &Summary, row: &RowSummary) -> Vec<String> {
    fn text(value: Option<impl ToString>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    let mut fields = vec![row.row.clone()];
    fields.extend([row.jobs, row.scored_jobs, row.cases].map(|count| count.to_string()));
    for dice in row.structures.iter().map(|structure| structure.dice).chain([row.dice]) {
        fields.extend([dice.mean, dice.sd_over_jobs, dice.sd_over_cases].map(text));
    }
    for spread in row.beside_dice.values() {
        fields.extend([spread.mean, spread.sd_over_jobs].map(text));
        fields.push(spread.undefined.to_string());
    }
    fields.push(text(summary.unit.map(Unit::name)));
    fields.push(text(summary.compared_with.as_ref().filter(|other| **other != row.row)));
    fields.extend([text(row.p), text(row.compared_cases)]);
    let Cost { gpu_hours, core_hours, memory_bytes, gpu_memory_bytes } = row.cost;
    fields.extend([text(gpu_hours), text(core_hours)]);
    fields.extend([text(memory_bytes), text(gpu_memory_bytes)]);
    fields
}

fn shown(spread: Spread, digits: usize) -> String {
    match (spread.mean, spread.sd_over_jobs) {
        (None, _) => "n/a".to_owned(),
        (Some(mean), None) => format!("{mean:.digits$}"),
        (Some(mean), Some(deviation)) => format!("{mean:.digits$} ± {deviation:.digits$}"),
    }
}

fn probability(p: f64) -> String {
    if p < 0.001 { format!("{p:.0e}") } else { format!("{p:.3}") }
}

/// A cell that ends neither its column nor its line.
fn plain(cell: &str) -> String {
    let letters = cell.chars().filter(|letter| !letter.is_control());
    letters.collect::<String>().replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::scores::CaseScores;
    use crate::farm::summary::{RowResults, summarize};

    fn case(name: &str, structure: &str, dice: f64, hd95: Option<f64>) -> CaseScores {
        let distances =
            hd95.into_iter().flat_map(|hd95| [(Score::Hd95, hd95), (Score::Asd, hd95 / 4.0)]);
        CaseScores {
            case: name.to_owned(),
            structure: structure.to_owned(),
            unit: Some(Unit::Mm),
            values: distances.chain([(Score::Dice, dice)]).collect(),
        }
    }

    /// Two folds of three cases each, with two structures.
    fn row(name: &str, better: f64) -> RowResults {
        let job = |fold: u32| {
            let cases = (0..3u32).flat_map(|number| {
                let name = format!("fold{fold}-{number}");
                let dice = 0.5 + 0.1 * f64::from(number) + 0.02 * f64::from(fold) + better;
                let undefined = (number > 0).then_some(4.0);
                [case(&name, "LV", dice, Some(8.0)), case(&name, "a|b", dice - 0.1, undefined)]
            });
            cases.collect()
        };
        let cost = Cost {
            gpu_hours: Some(0.0),
            core_hours: Some(1.5),
            memory_bytes: Some(2_345_000_000),
            gpu_memory_bytes: None,
        };
        RowResults { name: name.to_owned(), job_count: 2, jobs: vec![job(1), job(2)], cost }
    }

    #[test]
    fn rows_have_means_deviations_a_test_and_a_cost() {
        let mut third = row("half-done", -0.2);
        third.jobs.truncate(1);
        let nothing =
            RowResults { name: "nothing".to_owned(), job_count: 2, ..RowResults::default() };
        let rows = [row("plain", 0.0), row("better", 0.05), third, nothing];
        let summary = summarize(&rows, Some("plain"), ScoredBy::Native);
        insta::assert_snapshot!(markdown(&summary), @r"
        | row | jobs | cases | LV | a\|b | mean Dice | HD95, mm | ASD, mm | p against plain | core-hours | memory, GB |
        |---|---|---|---|---|---|---|---|---|---|---|
        | plain | 2 | 6 | 0.630 ± 0.014 | 0.530 ± 0.014 | 0.580 ± 0.014 | 6.0 ± 0.0, 2 undefined | 1.5 ± 0.0, 2 undefined |  | 1.50 | 2.3 |
        | better | 2 | 6 | 0.680 ± 0.014 | 0.580 ± 0.014 | 0.630 ± 0.014 | 6.0 ± 0.0, 2 undefined | 1.5 ± 0.0, 2 undefined | 0.031 (6 cases) | 1.50 | 2.3 |
        | half-done | 1 of 2 | 3 | 0.420 | 0.320 | 0.370 | 6.0, 1 undefined | 1.5, 1 undefined | 0.250 (3 cases) | 1.50 | 2.3 |
        | nothing | 0 of 2 | 0 | n/a | n/a | n/a | n/a | n/a | n/a | n/a | n/a |

        Means over all cases of all jobs ± the standard deviation of the means of jobs, where there are several.
        Those of several structures are the mean of theirs; undefined distances are left out.
        Core-hours are those of the processes of a row's jobs and of all jobs that they need, in all attempts.
        Memory is the most that the processes of one job held at any time.
        p is that of Wilcoxon's signed-rank test, two-sided, of the mean Dice of cases that a row and `plain` both scored, over seeds the mean.
        Scans of one patient count there as several cases.
        ");
        insta::assert_snapshot!(csv(&summary).unwrap(), @r"
        row,jobs,scored_jobs,cases,dice_LV_mean,dice_LV_sd_over_jobs,dice_LV_sd_over_cases,dice_a|b_mean,dice_a|b_sd_over_jobs,dice_a|b_sd_over_cases,dice_all_mean,dice_all_sd_over_jobs,dice_all_sd_over_cases,hd95_mean,hd95_sd_over_jobs,hd95_undefined,asd_mean,asd_sd_over_jobs,asd_undefined,unit,compared_with,p,compared_cases,gpu_hours,core_hours,memory_bytes,gpu_memory_bytes
        plain,2,2,6,0.63,0.014142135623730963,0.09011104260855046,0.53,0.014142135623730963,0.09011104260855046,0.5800000000000001,0.014142135623730963,0.09011104260855043,6,0,2,1.5,0,2,mm,,,,0,1.5,2345000000,
        better,2,2,6,0.68,0.014142135623730963,0.09011104260855046,0.58,0.014142135623730963,0.09011104260855046,0.63,0.014142135623730963,0.09011104260855048,6,0,2,1.5,0,2,mm,plain,0.03125,6,0,1.5,2345000000,
        half-done,2,1,3,0.42,,0.1,0.32,,0.10000000000000003,0.37,,0.1,6,,1,1.5,,1,mm,plain,0.25,3,0,1.5,2345000000,
        nothing,2,0,0,,,,,,,,,,,,0,,,0,mm,plain,,,,,,
        ");
    }

    #[test]
    fn gpus_have_columns_and_distances_of_two_units_have_no_mean() {
        let mut rows = [row("plain", 0.0)];
        rows[0].cost.gpu_hours = Some(0.25);
        rows[0].cost.gpu_memory_bytes = Some(5_000_000_000);
        rows[0].jobs[0][0].unit = Some(Unit::Voxel);
        insta::assert_snapshot!(markdown(&summarize(&rows, None, ScoredBy::Native)), @r"
        | row | jobs | cases | LV | a\|b | mean Dice | HD95 | ASD | GPU-hours | memory, GB | GPU memory, GB |
        |---|---|---|---|---|---|---|---|---|---|---|
        | plain | 2 | 6 | 0.630 ± 0.014 | 0.530 ± 0.014 | 0.580 ± 0.014 | n/a, 2 undefined | n/a, 2 undefined | 0.25 | 2.3 | 5.0 |

        Means over all cases of all jobs ± the standard deviation of the means of jobs, where there are several.
        Those of several structures are the mean of theirs; undefined distances are left out.
        GPU-hours are those of the GPUs of a row's jobs and of all jobs that they need, in all attempts.
        Memory is the most that the processes of one job held at any time.
        Distances have no mean: some are in mm and others in voxels, or nobody says in what.
        ");
    }

    #[test]
    fn columns_are_those_of_what_was_measured() {
        let lesion = |name: &str, dice: f64| CaseScores {
            case: name.to_owned(),
            structure: String::new(),
            unit: None,
            values: [(Score::Dice, dice), (Score::Jaccard, 0.5), (Score::Accuracy, 0.25)].into(),
        };
        let jobs = vec![vec![lesion("a", 0.5), lesion("b", 0.75)]];
        let lesions = RowResults { name: "a".to_owned(), job_count: 1, jobs, ..row("a", 0.0) };
        let summary = summarize(&[lesions], None, ScoredBy::Lesion);
        insta::assert_snapshot!(markdown(&summary), @r"
        | row | jobs | cases | mean Dice | jaccard | accuracy | sensitivity | specificity | core-hours | memory, GB |
        |---|---|---|---|---|---|---|---|---|---|
        | a | 1 | 2 | 0.625 | 0.500 | 0.250 | n/a, 2 undefined | n/a, 2 undefined | 1.50 | 2.3 |

        Means over all cases of all jobs ± the standard deviation of the means of jobs, where there are several.
        Scores are those of the first class.
        Core-hours are those of the processes of a row's jobs and of all jobs that they need, in all attempts.
        Memory is the most that the processes of one job held at any time.
        ");
        insta::assert_snapshot!(csv(&summary).unwrap(), @r"
        row,jobs,scored_jobs,cases,dice_all_mean,dice_all_sd_over_jobs,dice_all_sd_over_cases,jaccard_mean,jaccard_sd_over_jobs,jaccard_undefined,accuracy_mean,accuracy_sd_over_jobs,accuracy_undefined,sensitivity_mean,sensitivity_sd_over_jobs,sensitivity_undefined,specificity_mean,specificity_sd_over_jobs,specificity_undefined,unit,compared_with,p,compared_cases,gpu_hours,core_hours,memory_bytes,gpu_memory_bytes
        a,1,1,2,0.625,,0.1767766952966369,0.5,,0,0.25,,0,,,2,,,2,,,,,0,1.5,2345000000,
        ");
        let summary = summarize(&[row("a", 0.0)], None, ScoredBy::Scribblebench);
        let text = markdown(&summary);
        assert!(
            text.starts_with("| row | jobs | cases | LV | a\\|b | mean Dice | core-hours |"),
            "{text}"
        );
        assert!(text.contains("over the structures of each case"), "{text}");
        assert!(!text.contains("istances"), "{text}");
    }
}
