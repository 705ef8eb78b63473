//! The book that a farm keeps: what is known of each job, written down before anything else happens.
//!
//! Which job starts when, and what their processes are sent, is not known here.

use super::process::Ended;
use super::recover;
use crate::error::{Context, Exit, Result};
use crate::farm::file::FarmFile;
use crate::farm::plan::FarmPlan;
use crate::farm::queue::{Queue, Start};
use crate::farm::results::{RunOutcome, last_words};
use crate::launch::newest_checkpoint;
use crate::runlog::directory::make_folder;
use crate::runlog::farm::{FarmDirectory, FarmJob, JobKind, JobReport, JobState};
use crate::runlog::now_ms;

/// What is known of each job of a farm.
pub(super) struct Ledger {
    pub(super) plan: FarmPlan,
    pub(super) directory: FarmDirectory,
    /// By the numbers of the jobs.
    pub(super) reports: Vec<JobReport>,
}

impl Ledger {
    /// Reads what an earlier farm has left, and refuses what is none of this one.
    pub(super) fn read(file: &FarmFile, plan: FarmPlan, directory: FarmDirectory) -> Result<Self> {
        let jobs = plan.list.jobs.iter();
        let reports =
            jobs.map(|job| directory.read_report(&job.name)).collect::<Result<Vec<_>>>()?;
        recover::compare(file, &plan, &directory, &reports)?;
        Ok(Self { plan, directory, reports })
    }

    /// Makes the folders and writes the lists down.
    pub(super) fn begin(&self, file: &FarmFile) -> Result<()> {
        let directory = &self.directory;
        for folder in [directory.states(), directory.runs(), directory.logs()] {
            make_folder(&folder).context(|| format!("cannot make `{}`", folder.display()))?;
        }
        super::write(&directory.file(), file.text())?;
        directory.write_jobs(&self.plan.list)
    }

    pub(super) fn job(&self, number: usize) -> &FarmJob {
        &self.plan.list.jobs[number]
    }

    pub(super) fn write(&self, number: usize) -> Result<()> {
        self.directory.write_report(&self.job(number).name, &self.reports[number])
    }

    /// Notes that a job is started. Written before it is: one that runs and of which nobody knows could be started
    /// twice.
    pub(super) fn note_start(&mut self, start: &Start) -> Result<()> {
        let report = &mut self.reports[start.job];
        report.state = JobState::Running;
        report.attempts += 1;
        (report.started_at_ms, report.ended_at_ms, report.exit_code) = (Some(now_ms()), None, None);
        report.hosts.clone_from(&start.seats.hosts);
        report.gpus.clone_from(&start.seats.gpus);
        (report.process, report.message) = (None, String::new());
        self.write(start.job)
    }

    /// Adds the time since the last start of a job, which ended at `at_ms`, since 1970 (UTC).
    pub(super) fn add_time(&mut self, number: usize, at_ms: u64) {
        let gpus = self.job(number).gpus;
        let report = &mut self.reports[number];
        let busy_ms = at_ms.saturating_sub(report.started_at_ms.unwrap_or(at_ms));
        report.ended_at_ms = Some(at_ms);
        report.busy_ms += busy_ms;
        report.gpu_seconds += gpus * busy_ms as f64 / 1000.0;
    }

    /// How a job has ended of which nobody saw it, and when, as far as it has left that.
    pub(super) fn end_of(&self, number: usize) -> Result<(Ended, Option<u64>)> {
        recover::end_of(self.job(number), &self.directory, &self.reports[number])
    }

    /// Writes down the state that the queue has of a job.
    pub(super) fn note_state(&mut self, number: usize, queue: &Queue) -> Result<()> {
        let state = queue.state(number);
        let report = &mut self.reports[number];
        let is_known = report.state == state && state != JobState::Blocked;
        report.state = state;
        match (state, queue.blocked_by(number)) {
            (JobState::Blocked, Some(by)) => report.message = format!("it needs `{by}`"),
            (JobState::Waiting, _) if !is_known => report.message = String::new(),
            _ => {}
        }
        self.write(number)
    }

    /// Writes down how a job has ended: the state that the queue has of it, the exit code and a sentence.
    pub(super) fn note_end(
        &mut self,
        number: usize,
        queue: &Queue,
        code: Option<i32>,
        message: String,
    ) -> Result<()> {
        let report = &mut self.reports[number];
        (report.state, report.exit_code, report.message) = (queue.state(number), code, message);
        self.write(number)
    }

    /// What there is to say of a job that ended with this code.
    pub(super) fn message(&self, number: usize, code: i32) -> String {
        let (job, exit) = (self.job(number), Exit::of_code(code));
        if exit == Exit::Done {
            return String::new();
        }
        let facts = (job.kind == JobKind::Train && exit != Exit::Usage)
            .then(|| RunOutcome::read(&self.directory.run(&job.name)).ok())
            .flatten();
        let words = facts.and_then(|facts| facts.end).map(|end| end.message);
        let words = words.unwrap_or_else(|| last_words(&self.directory.log(&job.name)));
        if exit.is_stop() { words } else { format!("exit code {code}: {words}") }
    }

    /// `3 of 6 done`.
    pub(super) fn counted(&self, queue: &Queue) -> String {
        let done = queue.states().iter().filter(|state| **state == JobState::Done).count();
        format!("{done} of {} done", self.reports.len())
    }

    /// Checkpoints and jobs, counted: whether a job of a batch system got further.
    pub(super) fn progress(&self) -> Result<u64> {
        let mut progress = 0;
        for (job, report) in self.plan.list.jobs.iter().zip(&self.reports) {
            progress += u64::from(report.state == JobState::Done);
            if job.kind == JobKind::Train {
                progress += newest_checkpoint(&self.directory.run(&job.name))?.unwrap_or(0);
            }
        }
        Ok(progress)
    }
}
