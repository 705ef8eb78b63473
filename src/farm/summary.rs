//! The numbers of a farm's table: how well each row scored, how much that varies, whether it differs from another row, and
//! what it cost.
//!
//! Works on scores that were read; which jobs they are of, and how the numbers are drawn, is not known here.

use super::scores::{CaseScores, Score, ScoredBy};
use crate::metrics::signed_rank;
use crate::runlog::Unit;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowResults {
    /// Its name.
    pub name: String,
    /// How many jobs train for it.
    pub job_count: usize,
    /// The scores of those that have some: one table of cases for each job.
    pub jobs: Vec<Vec<CaseScores>>,
    /// What its jobs cost, with everything that they need.
    pub cost: Cost,
}

/// What jobs cost. What nobody measured is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
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

/// All numbers of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// How the runs were scored.
    pub convention: ScoredBy,
    /// In what distances are measured; none where cases differ or nobody says.
    pub unit: Option<Unit>,
    /// The row that all others are compared with.
    pub compared_with: Option<String>,
    /// In the order of the farm file.
    pub rows: Vec<RowSummary>,
}

/// The numbers of one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowSummary {
    /// Its name.
    pub row: String,
    /// How many jobs train for it.
    pub jobs: usize,
    /// How many of them have scores.
    pub scored_jobs: usize,
    /// Cases of each job, added up.
    pub cases: usize,
    /// Dice of all structures together.
    pub dice: Spread,
    /// Dice of each structure, for all rows in the same order; nothing where one is scored and not named.
    pub structures: Vec<StructureDice>,
    /// What is measured beside it, of all structures together.
    #[serde(flatten)]
    pub beside_dice: BTreeMap<Score, Spread>,
    /// That of the signed-rank test against the row that this one is compared with.
    pub p: Option<f64>,
    /// How many cases both scored.
    pub compared_cases: Option<usize>,
    /// What it cost.
    #[serde(flatten)]
    pub cost: Cost,
}

/// Dice of one structure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StructureDice {
    /// The name of the structure.
    pub name: String,
    /// Its Dice.
    pub dice: Spread,
}

/// A mean, and how it varies. Means of distances are none where these have no common unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Over all cases of all jobs.
    pub mean: Option<f64>,
    /// Of the means of the jobs; none where fewer than two jobs have scores.
    pub sd_over_jobs: Option<f64>,
    /// Over all cases of all jobs, of each the mean of its structures.
    pub sd_over_cases: Option<f64>,
    /// Structures of cases where the score is not defined.
    pub undefined: usize,
}

/// The numbers of these rows, each compared with the one of the name `compare_with`.
pub fn summarize(rows: &[RowResults], compare_with: Option<&str>, scored_by: ScoredBy) -> Summary {
    let cases = || rows.iter().flat_map(|row| row.jobs.iter().flatten());
    let mut structures: Vec<&str> = Vec::new();
    for case in cases() {
        if !structures.contains(&&*case.structure) {
            structures.push(&case.structure);
        }
    }
    let units: BTreeSet<Option<&str>> = cases().map(|row| row.unit.map(Unit::name)).collect();
    let unit = cases().find_map(|row| row.unit).filter(|_| units.len() == 1);
    let compared_with = rows.iter().find(|row| Some(row.name.as_str()) == compare_with);
    let common = Common { structures, unit, compared_with, scored_by };
    Summary {
        convention: scored_by,
        unit,
        compared_with: compared_with.map(|row| row.name.clone()),
        rows: rows.iter().map(|row| common.row(row)).collect(),
    }
}

/// What all rows share.
struct Common<'a> {
    structures: Vec<&'a str>,
    unit: Option<Unit>,
    compared_with: Option<&'a RowResults>,
    scored_by: ScoredBy,
}

impl Common<'_> {
    fn row(&self, row: &RowResults) -> RowSummary {
        let named = self.structures.iter().filter(|name| !name.is_empty());
        let structure = |name: &&str| StructureDice {
            name: (*name).to_owned(),
            dice: self.spread(&of_structure(row, name), Score::Dice),
        };
        let beside = self.scored_by.beside_dice().iter();
        let other = self.compared_with.filter(|other| other.name != row.name);
        let compared = other.and_then(|other| compared(row, other));
        RowSummary {
            row: row.name.clone(),
            jobs: row.job_count,
            scored_jobs: row.jobs.len(),
            cases: row.jobs.iter().map(|rows| case_count(rows)).sum(),
            dice: self.spread(&all_structures(row), Score::Dice),
            structures: named.map(structure).collect(),
            beside_dice: beside
                .map(|&score| (score, self.spread(&all_structures(row), score)))
                .collect(),
            p: compared.map(|(p, _)| p),
            compared_cases: compared.map(|(_, cases)| cases),
            cost: row.cost,
        }
    }

    fn spread(&self, jobs: &[Vec<&CaseScores>], score: Score) -> Spread {
        let all = jobs.iter().flatten();
        let undefined = all.filter(|case| !case.values.contains_key(&score)).count();
        if score.is_distance() && self.unit.is_none() {
            return Spread { undefined, ..Spread::default() };
        }
        let of_jobs: Vec<f64> =
            jobs.iter().filter_map(|job| self.mean(std::slice::from_ref(job), score)).collect();
        Spread {
            mean: self.mean(jobs, score),
            sd_over_jobs: deviation(&of_jobs),
            sd_over_cases: deviation(&of_all_cases(jobs, score)),
            undefined,
        }
    }

    /// The mean over the cases of jobs where the score is defined, and over structures.
    fn mean(&self, jobs: &[Vec<&CaseScores>], score: Score) -> Option<f64> {
        if self.scored_by.averages_each_case() {
            return average(of_all_cases(jobs, score).into_iter());
        }
        let of_structure = |name: &&str| {
            let of_it = jobs.iter().flatten().filter(|case| case.structure == **name);
            average(of_it.filter_map(|case| case.values.get(&score).copied()))
        };
        average(self.structures.iter().filter_map(of_structure))
    }
}

/// A score of each case of each job where it is defined, the mean over its structures.
fn of_all_cases(jobs: &[Vec<&CaseScores>], score: Score) -> Vec<f64> {
    let of_job =
        |job: &Vec<&CaseScores>| of_cases(job.iter().copied(), score).into_values().collect();
    jobs.iter().flat_map::<Vec<f64>, _>(of_job).collect()
}

fn all_structures(row: &RowResults) -> Vec<Vec<&CaseScores>> {
    row.jobs.iter().map(|cases| cases.iter().collect()).collect()
}

fn of_structure<'a>(row: &'a RowResults, name: &str) -> Vec<Vec<&'a CaseScores>> {
    let of_it =
        |cases: &'a Vec<CaseScores>| cases.iter().filter(|case| case.structure == name).collect();
    row.jobs.iter().map(of_it).collect()
}

/// A score of each case where it is defined, the mean over its structures.
fn of_cases<'a>(
    cases: impl Iterator<Item = &'a CaseScores>,
    score: Score,
) -> BTreeMap<&'a str, f64> {
    let mut found: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for case in cases {
        found.entry(&case.case).or_default().extend(case.values.get(&score));
    }
    let mean = |(case, values): (_, Vec<f64>)| Some((case, average(values.into_iter())?));
    found.into_iter().filter_map(mean).collect()
}

/// Dice of each case, the mean over its structures, and over jobs where several scored it.
fn dice_by_case(row: &RowResults) -> BTreeMap<&str, f64> {
    let mut found: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (case, dice) in row.jobs.iter().flat_map(|cases| of_cases(cases.iter(), Score::Dice)) {
        found.entry(case).or_default().push(dice);
    }
    let mean = |(case, dice): (_, Vec<f64>)| Some((case, average(dice.into_iter())?));
    found.into_iter().filter_map(mean).collect()
}

/// The signed-rank test of one row against another over the cases that both scored, and how many these are.
fn compared(row: &RowResults, other: &RowResults) -> Option<(f64, usize)> {
    let (own, others) = (dice_by_case(row), dice_by_case(other));
    let pairs = own.iter().filter_map(|(case, dice)| Some(dice - others.get(case)?));
    let differences: Vec<f64> = pairs.collect();
    Some((signed_rank(&differences)?, differences.len()))
}

fn case_count(cases: &[CaseScores]) -> usize {
    cases.iter().map(|case| case.case.as_str()).collect::<BTreeSet<_>>().len()
}

fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for value in values {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, structure: &str, values: &[(Score, f64)]) -> CaseScores {
        CaseScores {
            case: name.to_owned(),
            structure: structure.to_owned(),
            unit: None,
            values: values.iter().copied().collect(),
        }
    }

    fn dice(name: &str, structure: &str, value: f64) -> CaseScores {
        case(name, structure, &[(Score::Dice, value)])
    }

    fn row(name: &str, jobs: Vec<Vec<CaseScores>>) -> RowResults {
        RowResults { name: name.to_owned(), job_count: jobs.len(), jobs, ..RowResults::default() }
    }

    #[test]
    fn several_seeds_of_a_case_are_one_pair() {
        let cases = |better: f64| {
            let case =
                |number: u8| dice(&number.to_string(), "LV", 0.1 * f64::from(number) + better);
            (1..7).map(case).collect::<Vec<_>>()
        };
        let plain = row("plain", vec![cases(0.0)]);
        let seeds = row("seeds", vec![cases(0.1), cases(0.2)]);
        assert_eq!(compared(&seeds, &plain), Some((0.03125, 6)));
        assert_eq!(compared(&row("same", vec![cases(0.0)]), &plain), None);
        let summary = summarize(&[plain, seeds], Some("plain"), ScoredBy::Native);
        let rows = &summary.rows;
        assert_eq!((rows[0].p, rows[1].p, rows[1].compared_cases), (None, Some(0.03125), Some(6)));
    }

    /// One case has both structures and the other one.
    #[test]
    fn scribblebench_averages_each_case_and_the_others_each_structure() {
        let cases = || {
            vec![
                dice("a", "LV", 0.5),
                dice("a", "RV", 0.0),
                dice("b", "LV", 1.0),
                case("b", "RV", &[]),
            ]
        };
        let mean =
            |scored_by| summarize(&[row("a", vec![cases()])], None, scored_by).rows.remove(0);
        let bench = mean(ScoredBy::Scribblebench);
        assert_eq!(bench.dice.mean, Some(f64::midpoint(0.25, 1.0)));
        assert!(bench.beside_dice.is_empty());
        assert_eq!((bench.cases, bench.dice.undefined), (2, 1));
        let native = mean(ScoredBy::Native);
        assert_eq!(native.dice.mean, Some(f64::midpoint(0.75, 0.0)));
        for of in [&bench, &native] {
            let structures = of.structures.iter().map(|one| (&*one.name, one.dice.mean));
            assert_eq!(structures.collect::<Vec<_>>(), [("LV", Some(0.75)), ("RV", Some(0.0))]);
        }
    }

    #[test]
    fn lesions_have_no_structures_and_scores_beside_dice() {
        let lesion = |name: &str, dice: f64| {
            case(
                name,
                "",
                &[(Score::Dice, dice), (Score::Jaccard, dice / 2.0), (Score::Accuracy, 1.0)],
            )
        };
        let jobs = vec![vec![lesion("a", 0.5), lesion("b", 1.0)], vec![lesion("c", 0.25)]];
        let found = summarize(&[row("a", jobs)], None, ScoredBy::Lesion).rows.remove(0);
        assert!(found.structures.is_empty());
        assert_eq!(found.dice.mean, Some(1.75 / 3.0));
        assert!((found.dice.sd_over_jobs.unwrap() - 0.5 / 2.0f64.sqrt()).abs() < 1e-12);
        assert_eq!(found.beside_dice[&Score::Jaccard].mean, Some(0.875 / 3.0));
        assert_eq!(found.beside_dice[&Score::Specificity].undefined, 3);
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!((&json["accuracy"]["mean"], &json["gpu_hours"]), (&1.0.into(), &().into()));
    }

    #[test]
    fn means_of_millimetres_and_voxels_are_none() {
        let distance = |name: &str, unit| CaseScores {
            unit: Some(unit),
            ..case(name, "LV", &[(Score::Hd95, 2.0)])
        };
        let of = |units: [Unit; 2]| {
            let cases = vec![distance("a", units[0]), distance("b", units[1])];
            let summary = summarize(&[row("a", vec![cases])], None, ScoredBy::Native);
            (summary.unit, summary.rows[0].beside_dice[&Score::Hd95].mean)
        };
        assert_eq!(of([Unit::Mm, Unit::Mm]), (Some(Unit::Mm), Some(2.0)));
        assert_eq!(of([Unit::Mm, Unit::Voxel]), (None, None));
    }
}
