//! What became of the jobs that ran when the last farm in a directory ended, and whether the farm file still is theirs.
//!
//! Reads; what is done about it is decided elsewhere.

use super::process::{Ended, code_file, left_code};
use crate::error::{Exit, Failure, Result};
use crate::farm::file::FarmFile;
use crate::farm::nodes::FarmNode;
use crate::farm::plan::FarmPlan;
use crate::farm::results::RunOutcome;
use crate::files;
use crate::runlog::RunStatus;
use crate::runlog::farm::{FarmDirectory, FarmJob, JobKind, JobReport, Slots};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// How the processes of a job have ended that nobody waited for, and when, milliseconds since 1970 (UTC).
pub(super) fn end_of(
    job: &FarmJob,
    directory: &FarmDirectory,
    report: &JobReport,
) -> Result<(Ended, Option<u64>)> {
    if job.kind == JobKind::Command {
        let path = code_file(directory, &job.name);
        let Some(code) = left_code(&path) else { return Ok((Ended::Unseen, None)) };
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let at = modified.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        return Ok((Ended::With(code), at.map(|at| at.as_millis() as u64)));
    }
    let end = RunOutcome::read(&directory.run(&job.name))?.end;
    // One from before the last start says nothing about it.
    let end = end.filter(|end| end.time_ms >= report.started_at_ms.unwrap_or(0));
    let Some(end) = end else { return Ok((Ended::Unseen, None)) };
    let exit = match end.status {
        RunStatus::Finished => Exit::Done,
        RunStatus::Stopped => Exit::Stopped,
        RunStatus::Failed => Exit::Failed,
    };
    Ok((Ended::With(exit as i32), Some(end.time_ms)))
}

/// Refuses a farm file by which jobs that were started already would be others, and a directory that is none of a farm.
pub(super) fn compare(
    file: &FarmFile,
    plan: &FarmPlan,
    directory: &FarmDirectory,
    reports: &[JobReport],
) -> Result<()> {
    let root = directory.root().display();
    if !directory.holds_a_farm() {
        if directory.as_run().holds_a_run() || directory.file().exists() {
            return Err(Failure::usage(format!("`{root}` holds something else than a farm"))
                .hint("choose another directory with `--run DIR`"));
        }
        return Ok(());
    }
    let Ok(text) = files::read_text(&directory.file(), files::SMALL_BYTES) else { return Ok(()) };
    if text == file.text() {
        return Ok(());
    }
    let name = directory.file().display().to_string();
    let before = FarmFile::parse(&text, &name).and_then(|before| {
        // How much room there is makes no job another one.
        let slots = Slots { processes: super::ELSEWHERE, gpus: super::ELSEWHERE };
        let nodes = [FarmNode::alone(slots)];
        FarmPlan::new(&before, &plan.list.name, directory, &nodes)
    });
    let before = before.map_err(|failure| {
        failure.during(format!("cannot see what the farm in `{root}` was started with"))
    })?;
    let tasks: BTreeMap<&str, _> =
        before.list.jobs.iter().map(|job| job.name.as_str()).zip(&before.tasks).collect();
    for ((job, task), report) in plan.list.jobs.iter().zip(&plan.tasks).zip(reports) {
        if let Some(before) = tasks.get(job.name.as_str())
            && report.attempts > 0
        {
            task.refuse_other(before, &job.name)?;
        }
    }
    Ok(())
}
