//! `scrimp farm --submit`: writes a job script for every job and hands it to Slurm.
//!
//! What stands in the scripts is decided in `farm::submit`.

use super::{check, show, tell};
use crate::cli;
use crate::error::{Context, Exit, Failure, Result};
use crate::farm::file::FarmFile;
use crate::farm::plan::FarmPlan;
use crate::farm::submit::{Submission, Template, submissions};
use crate::files;
use crate::launch::CommandLine;
use crate::runlog::directory::make_folder;
use crate::runlog::farm::{FarmDirectory, JobState};
use crate::words::counted;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Submits every job that is not done, or prints what it would submit.
pub(super) fn run(
    arguments: &cli::Farm,
    file: &FarmFile,
    name: &str,
    directory: &FarmDirectory,
) -> Result<Exit> {
    let text = files::read_text(&arguments.template, files::SMALL_BYTES)
        .context(|| format!("cannot read the job script `{}`", arguments.template.display()))
        .map_err(|failure| {
            failure.exit_with(Exit::Usage).hint("name one with `--template FILE`")
        })?;
    let template = Template::parse(&text, &arguments.template)?;
    let node = super::room_elsewhere(file, template.has_gpus);
    let plan = check::all(file, FarmPlan::new(file, name, directory, &[node])?)?;
    let program = std::env::current_exe().context(|| "cannot find this program's own file")?;
    let folder = program.parent().unwrap_or(Path::new("."));
    let is_done =
        |name: &str| directory.read_report(name).is_ok_and(|report| report.state == JobState::Done);
    let all = submissions(&plan, directory, &template, folder, |name| !is_done(name));
    if arguments.print {
        let planned = all.iter().map(|one| Submitted {
            name: &one.name,
            needs: &one.needs,
            script: &one.path,
            command: one.words(|need| Some(format!("<{need}>"))),
            slurm_job: None,
        });
        let planned: Vec<Submitted<'_>> = planned.collect();
        let lines = || planned.iter().map(|one| one.command.join(" ") + "\n").collect();
        show(arguments.json, &facts(directory, &planned), lines)?;
        return Ok(Exit::Done);
    }
    check::refuse_missing_data(&plan)?;
    let submitted = submit(file, &plan, directory, &all)?;
    // A person has been told by then.
    show(arguments.json, &facts(directory, &submitted), String::new)?;
    Ok(Exit::Done)
}

/// A job as it was, or would be, handed to Slurm.
#[derive(Serialize)]
struct Submitted<'a> {
    name: &'a str,
    needs: &'a [String],
    script: &'a Path,
    command: Vec<String>,
    /// What Slurm calls it; none before it is submitted.
    slurm_job: Option<u64>,
}

/// What a program is told.
fn facts(directory: &FarmDirectory, jobs: &[Submitted<'_>]) -> Value {
    json!({ "farm": directory.root(), "jobs": jobs })
}

/// Where the numbers stand that Slurm gave the jobs, a line each.
fn numbers(directory: &FarmDirectory) -> PathBuf {
    directory.root().join("submit").join("numbers.txt")
}

fn submit<'a>(
    file: &FarmFile,
    plan: &FarmPlan,
    directory: &FarmDirectory,
    all: &'a [Submission],
) -> Result<Vec<Submitted<'a>>> {
    let noted = numbers(directory);
    if noted.exists() {
        let name = noted.display();
        return Err(Failure::usage(format!(
            "the farm was submitted already: `{name}` has its jobs"
        ))
        .hint("look at them with `squeue`")
        .hint(format!("where none of them is there any more, `rm {name}` and submit again")));
    }
    std::fs::create_dir_all(directory.root())
        .context(|| format!("cannot make `{}`", directory.root().display()))?;
    // No farm may run here at the same time.
    let _claim = directory.as_run().claim()?;
    let submitted = directory.root().join("submit");
    for folder in [directory.states(), directory.runs(), directory.logs(), submitted] {
        make_folder(&folder).context(|| format!("cannot make `{}`", folder.display()))?;
    }
    super::write(&directory.file(), file.text())?;
    directory.write_jobs(&plan.list)?;
    let (mut given, mut lines) = (BTreeMap::<&str, u64>::new(), String::new());
    let mut done = Vec::new();
    for one in all {
        super::write(&one.path, &one.script)?;
        let command = one.words(|need| given.get(need).map(u64::to_string));
        let number = sbatch(&command)?;
        tell(format_args!("`{}` is job {number}", one.name));
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "{number} {}", one.name);
        given.insert(&one.name, number);
        super::write(&noted, &lines)?;
        done.push(Submitted {
            name: &one.name,
            needs: &one.needs,
            script: &one.path,
            command,
            slurm_job: Some(number),
        });
    }
    tell(format_args!(
        "submitted {}; `scrimp farm FILE --table` makes their table",
        counted(all.len(), "job")
    ));
    Ok(done)
}

/// Submits a job; gives its number.
fn sbatch(words: &[String]) -> Result<u64> {
    let shown = CommandLine { variables: Vec::new(), words: words.to_vec() };
    let output = Command::new(&words[0])
        .args(&words[1..])
        .output()
        .context(|| format!("cannot start `{shown}`"))
        .map_err(|failure| failure.hint("submit where Slurm is, or leave `--submit` out"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("`{shown}` failed, {}", output.status))
            .because_of(said.trim())
            .hint("`scancel` ends the jobs that are submitted already"));
    }
    // Behind a `;` it names the cluster.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = said.trim().split(';').next().unwrap_or_default();
    match number.parse() {
        Ok(number) => Ok(number),
        Err(_) => Err(Failure::new(format!("`{shown}` said `{}`, expected a number", said.trim()))),
    }
}
