//! What is certain to fail is refused before the first job of a farm starts: configurations, command lines, programs and
//! data that are not there.

use crate::cli::Cli;
#[cfg(not(feature = "torch"))]
use crate::config::plan::RunPlan;
use crate::config::{self, RunConfig};
use crate::error::{Failure, Result};
use crate::farm::file::FarmFile;
use crate::farm::plan::{FarmPlan, Task, TaskKind};
use crate::runlog::farm::FarmJob;
use clap::Parser;
use clap::error::ErrorKind;
use std::path::Path;

/// The same plan with the steps of every run, where nothing is wrong in it.
pub(super) fn all(file: &FarmFile, mut plan: FarmPlan) -> Result<FarmPlan> {
    for (job, task) in plan.list.jobs.iter_mut().zip(&plan.tasks) {
        match &task.kind {
            TaskKind::Train { config, set } => {
                let checked = config::read(config, set)
                    .and_then(|config| run(file, job, &config))
                    .map_err(|failure| {
                        failure.during(format!("the job `{}` cannot be trained", job.name))
                    })?;
                job.total_steps = Some(checked);
            }
            TaskKind::Command(words) => command(file, job, task, words)?,
        }
    }
    Ok(plan)
}

/// Refuses data that are not there and that no other job makes.
pub(super) fn refuse_missing_data(plan: &FarmPlan) -> Result<()> {
    for (job, task) in plan.list.jobs.iter().zip(&plan.tasks) {
        let TaskKind::Train { config, set } = &task.kind else { continue };
        let config = config::read(config, set)?;
        let path = config.data.path.as_ref().filter(|path| !path.exists());
        if let Some(path) = path.filter(|_| job.needs.is_empty()) {
            let message = format!(
                "the job `{}` learns from `{}`, where nothing is",
                job.name,
                path.display()
            );
            return Err(Failure::usage(message)
                .at(config.place("data.path"))
                .hint("pack the data first: `scrimp prepare --help`")
                .hint("or let the row need the one that does"));
        }
    }
    Ok(())
}

/// How many steps a run has that can be started.
fn run(file: &FarmFile, job: &FarmJob, config: &RunConfig) -> Result<u64> {
    #[cfg(feature = "torch")]
    let plan = crate::commands::run::resolve(config, job.ranks)?;
    #[cfg(not(feature = "torch"))]
    let plan = RunPlan::resolve(config.clone(), job.ranks)?;
    if plan.data.fold == 0 && file.evaluate.is_some() {
        let message = "nothing is held out to score with, and the farm has its runs scored";
        return Err(file.refuse("evaluate", message));
    }
    Ok(plan.train.total_steps)
}

fn command(file: &FarmFile, job: &FarmJob, task: &Task, words: &[String]) -> Result<()> {
    let Some(program) = words.first() else { return Ok(()) };
    if program == "scrimp" {
        return match Cli::try_parse_from(words) {
            Err(error) if !is_help(error.kind()) => {
                let told = error.to_string();
                let told = told.lines().next().unwrap_or_default().trim_start_matches("error: ");
                let message = format!("the command of the job `{}` is wrong: {told}", job.name);
                let help = words.get(1).map_or("", String::as_str);
                Err(file.refuse(&task.key, &message).hint(format!("`scrimp {help} --help`")))
            }
            _ => Ok(()),
        };
    }
    if program.contains('/') || is_on_path(program) {
        return Ok(());
    }
    let message = format!("the job `{}` runs `{program}`, and there is no such program", job.name);
    Err(file.refuse(&task.key, &message))
}

fn is_help(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
}

fn is_on_path(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| Path::new(&folder).join(program).is_file())
}
