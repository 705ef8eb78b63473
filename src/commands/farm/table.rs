//! The table of a farm, made of what its jobs left: `table.md` and `table.csv`.
//!
//! What the numbers mean is known to `farm::summary`.

use super::show;
use crate::error::{Context, Result};
use crate::farm::file::FarmFile;
use crate::farm::plan::FarmPlan;
use crate::farm::results::{RunOutcome, scores};
use crate::farm::summary::{Cost, RowResults, Summary, summarize};
use crate::farm::table::{csv, markdown};
use crate::files;
use crate::runlog::farm::{FarmDirectory, FarmJob, JobKind, JobReport, JobState};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const MS_PER_HOUR: f64 = 3.6e6;

/// The table of a farm and where it lies.
#[derive(Serialize)]
struct Made<'a> {
    farm: &'a Path,
    files: [PathBuf; 2],
    #[serde(flatten)]
    summary: Summary,
}

/// Makes the table, writes it as Markdown and as CSV, and prints it.
pub(super) fn tell(
    file: &FarmFile,
    plan: &FarmPlan,
    directory: &FarmDirectory,
    is_json: bool,
) -> Result<()> {
    let summary = read(file, plan, directory)?;
    let text = markdown(&summary);
    let files = [directory.table_markdown(), directory.table_csv()];
    write(&files[0], &text)?;
    write(&files[1], &csv(&summary)?)?;
    show(is_json, &Made { farm: directory.root(), files, summary }, || text)
}

fn read(file: &FarmFile, plan: &FarmPlan, directory: &FarmDirectory) -> Result<Summary> {
    let mut reports = BTreeMap::new();
    for job in &plan.list.jobs {
        reports.insert(job.name.as_str(), directory.read_report(&job.name)?);
    }
    let farm = Read { file, jobs: &plan.list.jobs, directory, reports };
    let training = file.rows().filter(|(_, row)| row.config.is_some());
    let rows: Vec<RowResults> = training.map(|(name, _)| farm.row(name)).collect::<Result<_>>()?;
    let scored_by = file.evaluate.as_ref().map(|section| section.convention);
    Ok(summarize(&rows, file.table.compare_with.as_deref(), scored_by.unwrap_or_default()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    files::replace(path, text.as_bytes()).context(|| format!("cannot write `{}`", path.display()))
}

/// A farm and what its jobs say.
struct Read<'a> {
    file: &'a FarmFile,
    jobs: &'a [FarmJob],
    directory: &'a FarmDirectory,
    reports: BTreeMap<&'a str, JobReport>,
}

impl Read<'_> {
    fn row(&self, name: &str) -> Result<RowResults> {
        let of_row = || self.jobs.iter().filter(|job| job.row == name);
        let trains = of_row().filter(|job| job.kind == JobKind::Train);
        let (mut tables, mut memory_bytes, mut gpu_memory_bytes) = (Vec::new(), None, None);
        let mut job_count = 0;
        for job in trains {
            job_count += 1;
            let run = self.directory.run(&job.name);
            let facts = RunOutcome::read(&run)?;
            memory_bytes = memory_bytes.max(facts.memory_bytes);
            gpu_memory_bytes = gpu_memory_bytes.max(facts.gpu_memory_bytes);
            if self.is_done(job) {
                tables.extend(scores(&run, self.file.evaluate.as_ref())?);
            }
        }
        let (gpu_hours, core_hours) = self.hours(of_row());
        let cost = Cost { gpu_hours, core_hours, memory_bytes, gpu_memory_bytes };
        Ok(RowResults { name: name.to_owned(), job_count, jobs: tables, cost })
    }

    /// Whether a run has all its steps; of one that Slurm started nobody has written a report.
    fn is_done(&self, job: &FarmJob) -> bool {
        let report = self.reports.get(job.name.as_str());
        report.is_none_or(|report| report.state == JobState::Done || report.attempts == 0)
    }

    /// Hours of GPUs and of processes that these jobs took, and all that they need; none where no report tells.
    fn hours<'a>(&self, jobs: impl Iterator<Item = &'a FarmJob>) -> (Option<f64>, Option<f64>) {
        let by_name: BTreeMap<&str, &FarmJob> =
            self.jobs.iter().map(|job| (job.name.as_str(), job)).collect();
        let mut open: Vec<&str> = jobs.map(|job| job.name.as_str()).collect();
        let mut counted = BTreeSet::new();
        let (mut gpu_hours, mut core_hours) = (None, None);
        while let Some(name) = open.pop() {
            let Some(job) = by_name.get(name).filter(|_| counted.insert(name.to_owned())) else {
                continue;
            };
            open.extend(job.needs.iter().map(String::as_str));
            if let Some(report) = self.reports.get(name).filter(|report| report.attempts > 0) {
                let hours = report.busy_ms as f64 / MS_PER_HOUR;
                *core_hours.get_or_insert(0.0) += hours * job.ranks as f64;
                *gpu_hours.get_or_insert(0.0) += report.gpu_seconds / 3600.0;
            }
        }
        (gpu_hours, core_hours)
    }
}
