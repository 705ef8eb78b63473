//! What is known of a farm: its jobs, how they fare, how far their runs are, and what all of them come to.
//!
//! Pure: numbers in, numbers out. Times that are left are guesses from paces and from jobs that are done.

use super::course::Course;
use crate::runlog::farm::{FarmJob, JobHost, JobKind, JobReport, JobState, Slots};
use serde::Serialize;
use std::collections::BTreeMap;

const HOUR_MS: f64 = 3.6e6;

/// A farm at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct FarmFacts {
    /// The name of the farm.
    pub name: String,
    /// What its jobs share.
    pub slots: Slots,
    /// Whether a process runs it, as far as that can be seen from here.
    pub is_running: bool,
    /// Whether somebody asked it to stop, and that is not done yet.
    pub is_stopping: bool,
    /// All jobs, in the order of the list.
    pub jobs: Vec<JobFacts>,
    /// The time, milliseconds since 1970 (UTC).
    pub now_ms: u64,
}

/// One job at that moment.
#[derive(Debug, Clone, PartialEq)]
pub struct JobFacts {
    /// What it is.
    pub job: FarmJob,
    /// How it fares.
    pub report: JobReport,
    /// How far its run is; nothing of a command.
    pub course: Course,
    /// Why its report cannot be read.
    pub problem: Option<String>,
}

impl JobFacts {
    /// The share of its steps that are done, in `[0, 1]`; none where nobody knows.
    pub fn progress(&self) -> Option<f64> {
        match (self.report.state, self.job.total_steps) {
            (JobState::Done, _) => Some(1.0),
            (_, Some(total)) if total > 0 => {
                Some((self.course.step as f64 / total as f64).min(1.0))
            }
            _ => None,
        }
    }

    /// How long it has run in all attempts, up to that time.
    pub fn busy_ms(&self, until_ms: u64) -> u64 {
        self.report.busy_ms + self.under_way_ms(until_ms)
    }

    /// How long its present attempt has run.
    fn under_way_ms(&self, until_ms: u64) -> u64 {
        let is_running = self.report.state == JobState::Running;
        let since = self.report.started_at_ms.filter(|_| is_running);
        since.map_or(0, |since| until_ms.saturating_sub(since))
    }

    /// Hours that its processes have run, each counted.
    pub fn core_hours(&self, until_ms: u64) -> f64 {
        self.busy_ms(until_ms) as f64 / HOUR_MS * self.job.ranks as f64
    }

    /// Hours of the GPUs that it used.
    pub fn gpu_hours(&self, until_ms: u64) -> f64 {
        let under_way = self.under_way_ms(until_ms) as f64 / HOUR_MS * self.job.gpus;
        self.report.gpu_seconds / 3600.0 + under_way
    }

    /// Time that its remaining steps take at its pace; none where it does not run, or before it has one.
    pub fn left_ms(&self) -> Option<u64> {
        let is_running = self.report.state == JobState::Running;
        let total = self.job.total_steps.filter(|_| is_running)?;
        let pace_ms = self.course.pace_ms?;
        Some((pace_ms * total.saturating_sub(self.course.step) as f64) as u64)
    }
}

impl FarmFacts {
    /// How many jobs are in a state.
    pub fn count(&self, state: JobState) -> usize {
        self.jobs.iter().filter(|job| job.report.state == state).count()
    }

    /// Whether any job asks for GPUs.
    pub fn has_gpus(&self) -> bool {
        self.jobs.iter().any(|job| job.job.gpus > 0.0)
    }

    /// Up to when the time of a job counts: where nobody runs the farm, up to the last step that it logged.
    pub fn until_ms(&self, job: &JobFacts) -> u64 {
        if self.is_running { self.now_ms } else { job.course.step_at_ms.unwrap_or_default() }
    }

    /// Hours of all processes.
    pub fn core_hours(&self) -> f64 {
        self.jobs.iter().map(|job| job.core_hours(self.until_ms(job))).sum()
    }

    /// Hours of all GPUs.
    pub fn gpu_hours(&self) -> f64 {
        self.jobs.iter().map(|job| job.gpu_hours(self.until_ms(job))).sum()
    }

    /// Whether nothing is left to do, or nobody does it.
    pub fn is_over(&self) -> bool {
        let is_open = |job: &JobFacts| {
            matches!(job.report.state, JobState::Waiting | JobState::Running | JobState::Stopped)
        };
        !self.is_running || !self.jobs.iter().any(is_open)
    }

    /// Time until all jobs are done that can be, with every slot in use: running jobs at their pace, others as long
    /// as the middle one of their row, or of all jobs, took. None where nothing is known, nothing is left, or nobody
    /// runs the farm.
    pub fn left_ms(&self) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        let took = self.took();
        let (mut longest, mut cores, mut gpus) = (0.0f64, 0.0, 0.0);
        for job in &self.jobs {
            let left = match job.report.state {
                JobState::Running => job.left_ms().map(|left| left as f64).or_else(|| {
                    let usual = took.of(job)?;
                    Some((usual - job.busy_ms(self.until_ms(job)) as f64).max(0.0))
                })?,
                JobState::Waiting | JobState::Stopped => {
                    took.of(job)? * (1.0 - job.progress().unwrap_or(0.0))
                }
                JobState::Done | JobState::Failed | JobState::Blocked => continue,
            };
            longest = longest.max(left);
            cores += left * job.job.ranks as f64;
            gpus += left * job.job.gpus;
        }
        let shared = |work: f64, slots: usize| if slots == 0 { 0.0 } else { work / slots as f64 };
        let shared = shared(cores, self.slots.processes).max(shared(gpus, self.slots.gpus));
        Some(longest.max(shared) as u64)
    }

    fn took(&self) -> Took {
        let mut took = Took::default();
        for job in &self.jobs {
            let whole = match job.report.state {
                JobState::Done => Some(job.report.busy_ms as f64),
                JobState::Running => job
                    .course
                    .pace_ms
                    .zip(job.job.total_steps)
                    .map(|(pace, total)| pace * total as f64),
                _ => None,
            };
            if let Some(whole) = whole {
                took.by_row.entry(job.job.row.clone()).or_default().push(whole);
                took.by_kind.entry(job.job.kind == JobKind::Train).or_default().push(whole);
            }
        }
        took
    }
}

/// What jobs took, in milliseconds.
#[derive(Default)]
struct Took {
    by_row: BTreeMap<String, Vec<f64>>,
    by_kind: BTreeMap<bool, Vec<f64>>,
}

impl Took {
    /// What a job like this one takes.
    fn of(&self, job: &JobFacts) -> Option<f64> {
        let kind = || self.by_kind.get(&(job.job.kind == JobKind::Train));
        let like = self.by_row.get(&job.job.row).or_else(kind)?;
        let mut like = like.clone();
        like.sort_by(f64::total_cmp);
        like.get(like.len() / 2).copied()
    }
}

/// A farm as JSON.
#[derive(Serialize)]
struct FarmObject<'a> {
    name: &'a str,
    is_running: bool,
    is_stopping: bool,
    slots: Slots,
    jobs_in_all: usize,
    jobs_by_state: BTreeMap<&'static str, usize>,
    core_hours: f64,
    gpu_hours: f64,
    left_ms: Option<u64>,
    expected_end_ms: Option<u64>,
    jobs: Vec<JobObject<'a>>,
}

/// A job as JSON.
#[derive(Serialize)]
struct JobObject<'a> {
    name: &'a str,
    row: &'a str,
    kind: JobKind,
    fold: Option<u32>,
    seed: Option<u64>,
    run: Option<&'a str>,
    needs: &'a [String],
    ranks: usize,
    gpus: f64,
    hosts: &'a [JobHost],
    state: JobState,
    message: &'a str,
    problem: Option<&'a str>,
    attempts: u32,
    started_at_ms: Option<u64>,
    ended_at_ms: Option<u64>,
    exit_code: Option<i32>,
    total_steps: Option<u64>,
    progress: Option<f64>,
    #[serde(flatten)]
    course: &'a Course,
    left_ms: Option<u64>,
    busy_ms: u64,
    core_hours: f64,
    gpu_hours: f64,
}

impl Serialize for FarmFacts {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut jobs_by_state = BTreeMap::new();
        for job in &self.jobs {
            *jobs_by_state.entry(job.report.state.name()).or_default() += 1;
        }
        let left_ms = self.left_ms();
        let farm = FarmObject {
            name: &self.name,
            is_running: self.is_running,
            is_stopping: self.is_stopping,
            slots: self.slots,
            jobs_in_all: self.jobs.len(),
            jobs_by_state,
            core_hours: self.core_hours(),
            gpu_hours: self.gpu_hours(),
            left_ms,
            expected_end_ms: left_ms.map(|left| self.now_ms + left),
            jobs: self.jobs.iter().map(|job| job.object(self.until_ms(job))).collect(),
        };
        farm.serialize(to)
    }
}

impl JobFacts {
    fn object(&self, until_ms: u64) -> JobObject<'_> {
        let Self { job, report, course, problem } = self;
        JobObject {
            name: &job.name,
            row: &job.row,
            kind: job.kind,
            fold: job.fold,
            seed: job.seed,
            run: job.run.as_deref(),
            needs: &job.needs,
            ranks: job.ranks,
            gpus: job.gpus,
            hosts: &report.hosts,
            state: report.state,
            message: &report.message,
            problem: problem.as_deref(),
            attempts: report.attempts,
            started_at_ms: report.started_at_ms,
            ended_at_ms: report.ended_at_ms,
            exit_code: report.exit_code,
            total_steps: job.total_steps,
            progress: self.progress(),
            course,
            left_ms: self.left_ms(),
            busy_ms: self.busy_ms(until_ms),
            core_hours: self.core_hours(until_ms),
            gpu_hours: self.gpu_hours(until_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, state: JobState) -> JobFacts {
        let job = FarmJob {
            name: name.to_owned(),
            row: "a".to_owned(),
            kind: JobKind::Train,
            fold: None,
            seed: None,
            run: Some(format!("jobs/{name}")),
            needs: Vec::new(),
            ranks: 2,
            gpus: 0.5,
            total_steps: Some(100),
        };
        let report = JobReport { state, ..JobReport::waiting() };
        JobFacts { job, report, course: Course::default(), problem: None }
    }

    fn farm(jobs: Vec<JobFacts>) -> FarmFacts {
        let slots = Slots { processes: 4, gpus: 1 };
        let (is_running, is_stopping, now_ms) = (true, false, 10_000_000);
        FarmFacts { name: "f".to_owned(), slots, is_running, is_stopping, jobs, now_ms }
    }

    #[test]
    fn hours_count_what_is_under_way() {
        let mut running = job("a", JobState::Running);
        running.report.busy_ms = 3_600_000;
        running.report.gpu_seconds = 1800.0;
        running.report.started_at_ms = Some(10_000_000 - 3_600_000);
        let farm = farm(vec![running, job("b", JobState::Waiting)]);
        assert_eq!((farm.core_hours(), farm.gpu_hours()), (4.0, 1.0));
    }

    #[test]
    fn what_is_left_fills_all_slots_and_is_known_once_anything_is() {
        let waiting = || job("w", JobState::Waiting);
        assert_eq!(farm(vec![waiting()]).left_ms(), None);
        let mut done = job("d", JobState::Done);
        done.report.busy_ms = 1000;
        let mut running = job("r", JobState::Running);
        running.course = Course { step: 40, pace_ms: Some(20.0), ..Course::default() };
        // 60 steps of 20 ms, and three jobs of 2000 ms (the middle of 1000 and 2000): 7200 ms of 2 processes, on 4.
        let jobs = vec![done, running, waiting(), waiting(), waiting()];
        let farm = farm(jobs);
        assert_eq!(farm.jobs[1].left_ms(), Some(1200));
        assert_eq!(farm.left_ms(), Some(3600));
        let gone = FarmFacts { is_running: false, ..farm.clone() };
        assert!(gone.is_over() && gone.left_ms().is_none());
    }
}
