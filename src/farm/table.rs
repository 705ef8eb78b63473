//! The table of a farm: how well each row scored, how much that varies, whether it differs from another row, and what it
//! cost.
//!
//! Works on scores that were read; which jobs they are of, and where they lie, is not known here.

use crate::error::{Context, Failure, Result};
use crate::metrics::signed_rank;
use crate::runlog::Unit;
use crate::runlog::scores::CaseRow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// What is known of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowResults {
    /// Its name.
    pub name: String,
    /// How many jobs train for it.
    pub job_count: usize,
    /// The scores of those that have some: one table of cases for each job.
    pub jobs: Vec<Vec<CaseRow>>,
    /// What its jobs cost, with everything that they need.
    pub cost: Cost,
}

/// What jobs cost. What nobody measured is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Hours of all GPUs together.
    pub gpu_hours: Option<f64>,
    /// Hours of all processes together.
    pub core_hours: Option<f64>,
    /// The most memory of a job at any time, all its processes together.
    pub memory_bytes: Option<u64>,
    /// The most memory of one GPU at any time.
    pub gpu_memory_bytes: Option<u64>,
}

/// A table, in two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// For people.
    pub markdown: String,
    /// For programs: every number with all digits, shares as they are, memory in bytes.
    pub csv: String,
}

/// A mean, and how it varies.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    /// Over all cases of all jobs.
    mean: f64,
    /// Of the means of the jobs; none where fewer than two jobs have scores.
    deviation: Option<f64>,
}

/// The three scores of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Score {
    Dice,
    Hd95,
    Asd,
}

impl Score {
    fn of(self, row: &CaseRow) -> f64 {
        match self {
            Self::Dice => row.dice,
            Self::Hd95 => row.hd95,
            Self::Asd => row.asd,
        }
    }
}

impl RowResults {
    /// Mean of a score over the cases where it is defined, of one structure or, for `None`, the mean over structures.
    fn spread(&self, score: Score, structures: &[String], of: Option<&str>) -> Option<Spread> {
        let mean = |rows: &mut dyn Iterator<Item = &CaseRow>| {
            let rows: Vec<&CaseRow> = rows.collect();
            let one = |structure: &str| {
                let of_it = rows.iter().filter(|row| row.structure == structure);
                average(of_it.map(|row| score.of(row)))
            };
            match of {
                Some(structure) => one(structure),
                None => average(structures.iter().filter_map(|structure| one(structure))),
            }
        };
        let of_jobs = self.jobs.iter().filter_map(|rows| mean(&mut rows.iter()));
        let deviation = deviation(&of_jobs.collect::<Vec<f64>>());
        Some(Spread { mean: mean(&mut self.jobs.iter().flatten())?, deviation })
    }

    /// Deviation of Dice over all cases of all jobs, of one structure or of the mean over the structures of a case.
    fn deviation_of_cases(&self, of: Option<&str>) -> Option<f64> {
        let Some(structure) = of else {
            return deviation(
                &self
                    .jobs
                    .iter()
                    .flat_map(|rows| case_means(rows).into_values())
                    .collect::<Vec<f64>>(),
            );
        };
        let of_it = self.jobs.iter().flatten().filter(|row| row.structure == structure);
        let dice: Vec<f64> = of_it.map(|row| row.dice).filter(|dice| !dice.is_nan()).collect();
        deviation(&dice)
    }

    /// Dice of each case, the mean over its structures, and over jobs where several scored it.
    fn by_case(&self) -> BTreeMap<&str, f64> {
        let mut scores: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (case, dice) in self.jobs.iter().flat_map(|rows| case_means(rows)) {
            scores.entry(case).or_default().push(dice);
        }
        let mean = |(case, dice): (_, Vec<f64>)| Some((case, average(dice.into_iter())?));
        scores.into_iter().filter_map(mean).collect()
    }

    /// The signed-rank test against another row over the cases that both scored, and how many these are.
    fn compared(&self, other: &Self) -> Option<(f64, usize)> {
        let (own, others) = (self.by_case(), other.by_case());
        let pairs = own.iter().filter_map(|(case, dice)| Some(dice - others.get(case)?));
        let differences: Vec<f64> = pairs.collect();
        Some((signed_rank(&differences)?, differences.len()))
    }

    fn undefined(&self, score: Score) -> usize {
        self.jobs.iter().flatten().filter(|row| score.of(row).is_nan()).count()
    }
}

/// The mean Dice of each case over its structures.
fn case_means(rows: &[CaseRow]) -> BTreeMap<&str, f64> {
    let mut dice: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in rows {
        dice.entry(&row.case).or_default().push(row.dice);
    }
    let mean = |(case, dice): (_, Vec<f64>)| Some((case, average(dice.into_iter())?));
    dice.into_iter().filter_map(mean).collect()
}

/// The mean of the values that are numbers.
fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values.filter(|value| !value.is_nan()) {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// The standard deviation of a sample, with one less than its size below.
fn deviation(values: &[f64]) -> Option<f64> {
    let mean = average(values.iter().copied()).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// What all rows share.
struct Layout<'a> {
    rows: &'a [RowResults],
    structures: Vec<String>,
    /// In what distances are measured; none where cases differ or nobody says.
    unit: Option<Unit>,
    compared_with: Option<&'a RowResults>,
    has_gpus: bool,
}

/// The table of these rows, each compared with the one of the name `compare_with`.
pub fn table(rows: &[RowResults], compare_with: Option<&str>) -> Result<Table> {
    let cases = || rows.iter().flat_map(|row| row.jobs.iter().flatten());
    let mut structures: Vec<String> = Vec::new();
    for case in cases() {
        if !structures.contains(&case.structure) {
            structures.push(case.structure.clone());
        }
    }
    let units: BTreeSet<Option<&str>> = cases().map(|row| row.unit.map(Unit::name)).collect();
    let unit = cases().find_map(|row| row.unit).filter(|_| units.len() == 1);
    let has_gpus = rows.iter().any(|row| row.cost.gpu_hours.is_some_and(|hours| hours > 0.0));
    let compared_with = rows.iter().find(|row| Some(row.name.as_str()) == compare_with);
    let layout = Layout { rows, structures, unit, compared_with, has_gpus };
    Ok(Table { markdown: layout.markdown(), csv: layout.csv()? })
}

impl Layout<'_> {
    fn in_unit(&self, name: &str) -> String {
        match self.unit {
            Some(Unit::Mm) => format!("{name}, mm"),
            Some(Unit::Voxel) => format!("{name}, voxels"),
            None => name.to_owned(),
        }
    }

    fn heads(&self) -> Vec<String> {
        let mut heads = vec!["row".to_owned(), "jobs".to_owned(), "cases".to_owned()];
        heads.extend(self.structures.iter().cloned());
        heads.extend(["mean Dice".to_owned(), self.in_unit("HD95"), self.in_unit("ASD")]);
        heads.extend(self.compared_with.map(|other| format!("p against {}", other.name)));
        heads.push(if self.has_gpus { "GPU-hours" } else { "core-hours" }.to_owned());
        heads.push("memory, GB".to_owned());
        heads.extend(self.has_gpus.then(|| "GPU memory, GB".to_owned()));
        heads
    }

    fn cells(&self, row: &RowResults) -> Vec<String> {
        let cases: usize = row.jobs.iter().map(|rows| case_count(rows)).sum();
        let jobs = match (row.jobs.len(), row.job_count) {
            (scored, all) if scored == all => all.to_string(),
            (scored, all) => format!("{scored} of {all}"),
        };
        let mut cells = vec![row.name.clone(), jobs, cases.to_string()];
        let dice = |of| shown(row.spread(Score::Dice, &self.structures, of), 3);
        cells.extend(self.structures.iter().map(|structure| dice(Some(structure))));
        cells.push(dice(None));
        for score in [Score::Hd95, Score::Asd] {
            let spread = row.spread(score, &self.structures, None);
            let undefined = match row.undefined(score) {
                0 => String::new(),
                count => format!(", {count} undefined"),
            };
            // A mean of millimetres and voxels is neither.
            cells.push(shown(spread.filter(|_| self.unit.is_some()), 1) + &undefined);
        }
        if let Some(other) = self.compared_with {
            cells.push(if row.name == other.name {
                String::new()
            } else {
                row.compared(other).map_or("n/a".to_owned(), |(p, cases)| {
                    format!("{} ({cases} cases)", probability(p))
                })
            });
        }
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

    fn markdown(&self) -> String {
        let line = |cells: Vec<String>| {
            let cells: Vec<String> = cells.iter().map(|cell| plain(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let heads = self.heads();
        let rule = format!("|{}\n", "---|".repeat(heads.len()));
        let mut text = line(heads) + &rule;
        text.extend(self.rows.iter().map(|row| line(self.cells(row))));
        text + &self.notes()
    }

    /// What the numbers are.
    fn notes(&self) -> String {
        let hours = if self.has_gpus {
            "GPU-hours are those of the GPUs"
        } else {
            "Core-hours are those of the processes"
        };
        let mut text = format!(
            "\nMeans over all cases of all jobs ± the standard deviation of the means of jobs, where there are several.\n\
             Those of several structures are the mean of theirs; undefined distances are left out.\n\
             {hours} of a row's jobs and of all jobs that they need, in all attempts.\n\
             Memory is the most that the processes of one job held at any time.\n"
        );
        if let Some(other) = self.compared_with {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "p is that of Wilcoxon's signed-rank test, two-sided, of the mean Dice of cases that a row and `{}` both \
                 scored, over seeds the mean.\nScans of one patient count there as several cases.",
                other.name
            );
        }
        if self.unit.is_none() && self.rows.iter().any(|row| !row.jobs.is_empty()) {
            text += "Distances have no mean: some are in mm and others in voxels, or nobody says in what.\n";
        }
        text
    }

    fn csv(&self) -> Result<String> {
        let doing = || "cannot make the table of the farm";
        let mut csv = csv::Writer::from_writer(Vec::new());
        let mut heads: Vec<String> =
            ["row", "jobs", "scored_jobs", "cases"].map(str::to_owned).to_vec();
        for name in self.structures.iter().map(String::as_str).chain(["all"]) {
            heads.extend(
                ["mean", "sd_over_jobs", "sd_over_cases"].map(|what| format!("dice_{name}_{what}")),
            );
        }
        let heads_behind = [
            "hd95_mean",
            "hd95_sd_over_jobs",
            "hd95_undefined",
            "asd_mean",
            "asd_sd_over_jobs",
            "asd_undefined",
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
        for row in self.rows {
            csv.write_record(self.fields(row)).context(doing)?;
        }
        let bytes =
            csv.into_inner().map_err(|error| Failure::new(doing()).because(error.error()))?;
        String::from_utf8(bytes).context(doing)
    }

    fn fields(&self, row: &RowResults) -> Vec<String> {
        fn text(value: Option<impl ToString>) -> String {
            value.map_or_else(String::new, |value| value.to_string())
        }
        let two = |spread: Option<Spread>| {
            let deviation = spread.and_then(|spread| spread.deviation);
            [text(spread.map(|spread| spread.mean)), text(deviation)]
        };
        let cases: usize = row.jobs.iter().map(|rows| case_count(rows)).sum();
        let counts = [row.job_count, row.jobs.len(), cases];
        let mut fields = vec![row.name.clone()];
        fields.extend(counts.map(|count| count.to_string()));
        for structure in self.structures.iter().map(|name| Some(name.as_str())).chain([None]) {
            fields.extend(two(row.spread(Score::Dice, &self.structures, structure)));
            fields.push(text(row.deviation_of_cases(structure)));
        }
        for score in [Score::Hd95, Score::Asd] {
            let spread = row.spread(score, &self.structures, None);
            fields.extend(two(spread.filter(|_| self.unit.is_some())));
            fields.push(row.undefined(score).to_string());
        }
        fields.push(text(self.unit.map(Unit::name)));
        let other = self.compared_with.filter(|other| other.name != row.name);
        let compared = other.and_then(|other| row.compared(other));
        fields.push(text(other.map(|other| &other.name)));
        fields.push(text(compared.map(|(p, _)| p)));
        fields.push(text(compared.map(|(_, cases)| cases)));
        let Cost { gpu_hours, core_hours, memory_bytes, gpu_memory_bytes } = row.cost;
        fields.extend([text(gpu_hours), text(core_hours)]);
        fields.extend([text(memory_bytes), text(gpu_memory_bytes)]);
        fields
    }
}

fn case_count(rows: &[CaseRow]) -> usize {
    rows.iter().map(|row| row.case.as_str()).collect::<BTreeSet<_>>().len()
}

fn shown(spread: Option<Spread>, digits: usize) -> String {
    match spread {
        None => "n/a".to_owned(),
        Some(Spread { mean, deviation: None }) => format!("{mean:.digits$}"),
        Some(Spread { mean, deviation: Some(deviation) }) => {
            format!("{mean:.digits$} ± {deviation:.digits$}")
        }
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

    fn case(name: &str, structure: &str, dice: f64, hd95: f64) -> CaseRow {
        CaseRow {
            case: name.to_owned(),
            structure: structure.to_owned(),
            modality: String::new(),
            dice,
            hd95,
            asd: hd95 / 4.0,
            unit: Some(Unit::Mm),
        }
    }

    /// Two folds of three cases each, with two structures.
    fn row(name: &str, better: f64) -> RowResults {
        let job = |fold: u32| {
            let cases = (0..3u32).flat_map(|number| {
                let name = format!("fold{fold}-{number}");
                let dice = 0.5 + 0.1 * f64::from(number) + 0.02 * f64::from(fold) + better;
                let undefined = if number == 0 { f64::NAN } else { 4.0 };
                [case(&name, "LV", dice, 8.0), case(&name, "a|b", dice - 0.1, undefined)]
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
        let Table { markdown, csv } = table(&rows, Some("plain")).unwrap();
        insta::assert_snapshot!(markdown, @r"
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
        insta::assert_snapshot!(csv, @r"
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
        insta::assert_snapshot!(table(&rows, None).unwrap().markdown, @r"
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
    fn several_seeds_of_a_case_are_one_pair() {
        let mut seeds = row("seeds", 0.1);
        seeds.jobs.push(seeds.jobs[0].clone());
        let (p, cases) = seeds.compared(&row("plain", 0.0)).unwrap();
        assert_eq!((p, cases), (0.03125, 6));
        assert_eq!(row("same", 0.0).compared(&row("plain", 0.0)), None);
    }
}
