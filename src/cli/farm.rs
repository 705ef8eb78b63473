//! The command line of `scrimp farm`: types only.

use clap::Args;
use std::path::PathBuf;

/// Arguments of `scrimp farm`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
pub struct Farm {
    /// The farm file: rows, folds, seeds, and what they need
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The farm directory [default: `runs/` and the file stem of FILE]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Print the jobs and what each of them runs, and start nothing; with `--submit` what would be submitted
    #[arg(long)]
    pub print: bool,
    /// Make the table of what there is, and start nothing
    #[arg(long, conflicts_with_all = ["print", "submit", "retry", "requeue"])]
    pub table: bool,
    /// Start jobs that have failed once more, and those that wait for them
    #[arg(long, conflicts_with = "submit")]
    pub retry: bool,
    /// Submit every job to Slurm instead of starting it here, each behind those that it needs
    #[arg(long)]
    pub submit: bool,
    /// The job script from which those of the jobs are made
    #[arg(long, value_name = "FILE", default_value = "launch/train.slurm", requires = "submit")]
    pub template: PathBuf,
    /// Run this with `sh -c` when the farm has stopped because its time was over, or on `SIGUSR1` or `SIGUSR2`: to submit
    /// the allocation again
    #[arg(long, value_name = "COMMAND", conflicts_with = "submit")]
    pub requeue: Option<String>,
    /// Print the jobs, what was submitted or, in the end, the table as JSON
    #[arg(long)]
    pub json: bool,
}
