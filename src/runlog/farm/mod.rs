//! What a farm leaves on disk: which jobs there are (`FARM/jobs.json`) and how each of them fares
//! (`FARM/states/NAME.json`).
//!
//! One process writes both and replaces them whole; whoever looks reads them without asking anybody. A job that trains
//! has a run directory of its own below the farm's. How jobs follow from a farm file, in which order they are started
//! and what starts them is not known here.

mod directory;
mod io;

pub use directory::FarmDirectory;

use super::sign::{Life, SignOfLife};
use serde::{Deserialize, Serialize};

/// The version of `jobs.json` that this program writes.
pub const FORMAT: u32 = 1;

/// All jobs of a farm: `jobs.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobList {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// The name of the farm, for people.
    pub name: String,
    /// What its jobs share.
    pub slots: Slots,
    /// In the order in which they are started where nothing keeps them.
    pub jobs: Vec<FarmJob>,
}

/// What the jobs of a farm may use at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Processes of all jobs together.
    pub processes: usize,
    /// GPUs of all jobs together; 0 where jobs ask for none.
    pub gpus: usize,
}

/// One job of a farm. Its name is that of its files: see [`FarmDirectory`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FarmJob {
    /// Letters, digits, `-`, `_` and `.`; no other job has it.
    pub name: String,
    /// The row of the table that it belongs to.
    pub row: String,
    /// What it is.
    pub kind: JobKind,
    /// The held-out fold, where the farm file has folds.
    #[serde(default)]
    pub fold: Option<u32>,
    /// The seed, where the farm file has seeds.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Its run directory, relative to the farm's; none for a command.
    pub run: Option<String>,
    /// The jobs that must be done before it starts.
    pub needs: Vec<String>,
    /// How many processes it uses.
    pub ranks: usize,
    /// How many GPUs it uses; below one, the share of one GPU.
    pub gpus: f64,
    /// How many steps its run is to have in the end; none for a command.
    pub total_steps: Option<u64>,
}

/// What a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// It trains, in a run directory of its own.
    Train,
    /// Any other command.
    Command,
}

/// How a job fares: `states/NAME.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// Where it is on its way.
    pub state: JobState,
    /// How often it was started.
    pub attempts: u32,
    /// When it was started last, milliseconds since 1970 (UTC).
    #[serde(default)]
    pub started_at_ms: Option<u64>,
    /// When it ended last, milliseconds since 1970 (UTC); none while it runs.
    #[serde(default)]
    pub ended_at_ms: Option<u64>,
    /// How it ended last, as a shell says it; none where nobody saw it.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// How long it has run in all attempts together.
    #[serde(default)]
    pub busy_ms: u64,
    /// The same times the GPUs that it used.
    #[serde(default)]
    pub gpu_seconds: f64,
    /// One sentence, lower case, without a full stop; empty where there is nothing to say.
    #[serde(default)]
    pub message: String,
    /// The nodes that it got last; none on the machine of the farm where that is the only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<JobHost>,
    /// The GPUs that it got last, by their numbers on each of its nodes.
    #[serde(default)]
    pub gpus: Vec<usize>,
    /// The process that was started for it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<SignOfLife>,
}

/// Processes on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHost {
    /// Its name or address, as `mpirun` takes it.
    pub host: String,
    /// How many processes.
    pub processes: usize,
}

/// Where a job is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// For slots, or for a job that it needs.
    Waiting,
    /// Its processes are at work.
    Running,
    /// It has ended well, and is not started again.
    Done,
    /// It has failed, with all the restarts that it had.
    Failed,
    /// It was stopped after saving, and goes on when the farm does.
    Stopped,
    /// A job that it needs has failed.
    Blocked,
}

impl JobState {
    /// The word that the file has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Blocked => "blocked",
        }
    }
}

impl JobReport {
    /// The report of a job that was never started.
    pub fn waiting() -> Self {
        Self {
            state: JobState::Waiting,
            attempts: 0,
            started_at_ms: None,
            ended_at_ms: None,
            exit_code: None,
            busy_ms: 0,
            gpu_seconds: 0.0,
            message: String::new(),
            hosts: Vec::new(),
            gpus: Vec::new(),
            process: None,
        }
    }

    /// Notes that the process `pid` of this host was started for it.
    pub fn note_process(&mut self, pid: u32) {
        self.process = Some(SignOfLife::of_process(pid));
    }

    /// The process that was started for it last, where that lives on this host.
    pub fn living_process(&self) -> Option<u32> {
        let process = self.process.as_ref()?;
        (process.life() == Life::Alive).then_some(process.pid)
    }
}
