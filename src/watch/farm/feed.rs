//! A farm directory as facts: read again where files have changed, and nowhere else.
//!
//! Reports are replaced whole, which their folder shows; logs of runs are looked at while their job runs. Polls
//! instead of waiting for notifications: those do not reach other hosts of a shared file system.

use super::course::LogEnd;
use super::facts::{FarmFacts, JobFacts};
use crate::error::{Failure, Result};
use crate::runlog::farm::{FarmDirectory, JobKind, JobReport, JobState};
use crate::runlog::now_ms;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How long after a change of a folder another one may have the same time: that of file systems which count seconds.
const COARSE_NS: i128 = 3_000_000_000;

/// Looks after which all reports are looked at, whatever their folder says.
const LOOKS: u32 = 30;

/// What is new in a farm directory.
#[derive(Debug)]
pub struct FarmFeed {
    directory: FarmDirectory,
    facts: FarmFacts,
    /// What each job's log says, by the place of the job.
    logs: Vec<LogEnd>,
    /// When each report changed last, as its file says.
    reports: Vec<Option<Stamp>>,
    list: Option<Stamp>,
    folder: Option<Stamp>,
    /// Looks since all reports were looked at.
    looks: u32,
}

/// What tells whether a file or folder has changed: number, length, time.
type Stamp = (u64, u64, i128);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let time_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Some((metadata.ino(), metadata.len(), time_ns))
}

impl FarmFeed {
    /// Reads all of a farm once. Refuses what is none.
    pub fn open(directory: FarmDirectory) -> Result<Self> {
        let name = directory.root().display();
        if !directory.holds_a_farm() {
            return Err(Failure::usage(format!("`{name}` is no farm: it has no `jobs.json`"))
                .hint("name the directory that `scrimp farm` wrote"));
        }
        let list = stamp(&directory.jobs());
        let facts = of(&directory)?;
        let (logs, reports, folder, looks) = (Vec::new(), Vec::new(), None, 0);
        let mut feed = Self { directory, facts, logs, reports, list, folder, looks };
        feed.begin();
        feed.look_at_jobs(true);
        Ok(feed)
    }

    /// What is known.
    pub fn facts(&self) -> &FarmFacts {
        &self.facts
    }

    /// Reads what has changed, and says whether anything has. A list that cannot be read leaves the old one.
    pub fn look(&mut self) -> Result<bool> {
        let before = (self.facts.is_running, self.facts.is_stopping);
        let list = stamp(&self.directory.jobs());
        let is_new = list.is_some() && list != self.list;
        if is_new {
            self.facts = of(&self.directory)?;
            self.list = list;
            self.begin();
        }
        let has_changed = self.look_at_jobs(is_new);
        self.look_for_owner();
        Ok(is_new || has_changed || before != (self.facts.is_running, self.facts.is_stopping))
    }

    fn begin(&mut self) {
        let jobs = &self.facts.jobs;
        let log = |job: &JobFacts| LogEnd::new(self.directory.run(&job.job.name).rank_events(0));
        self.logs = jobs.iter().map(log).collect();
        self.reports = vec![None; jobs.len()];
        self.folder = None;
        self.look_for_owner();
    }

    fn look_for_owner(&mut self) {
        let owner = self.directory.as_run();
        self.facts.now_ms = now_ms();
        self.facts.is_running = owner.writer().is_some();
        self.facts.is_stopping =
            self.facts.is_running && owner.requested(&owner.stop_request()).is_some();
    }

    /// Whether a report may have changed since the last look.
    fn has_new_reports(&mut self) -> bool {
        let folder = stamp(&self.directory.states());
        let is_settled = |stamp: Stamp| {
            i128::from(now_ms()) * 1_000_000 - stamp.2 > COARSE_NS && self.folder == Some(stamp)
        };
        let is_same = folder.is_none_or(is_settled);
        self.folder = folder;
        self.looks = if is_same && self.looks < LOOKS { self.looks + 1 } else { 0 };
        self.looks == 0
    }

    fn look_at_jobs(&mut self, is_first: bool) -> bool {
        let may_differ = self.has_new_reports();
        let mut has_changed = false;
        for place in 0..self.facts.jobs.len() {
            let has_report = may_differ && self.read_report(place);
            let facts = &mut self.facts.jobs[place];
            let is_running = facts.report.state == JobState::Running;
            // What a job wrote last is read with the report that it is over.
            let is_due = is_first || has_report || is_running;
            if is_due && facts.job.kind == JobKind::Train && self.logs[place].look() {
                facts.course.clone_from(self.logs[place].course());
                has_changed = true;
            }
            has_changed |= has_report;
        }
        has_changed
    }

    /// Reads the report of a job where its file is another one; whether it is.
    fn read_report(&mut self, place: usize) -> bool {
        let facts = &mut self.facts.jobs[place];
        let name = &facts.job.name;
        let stamp = stamp(&self.directory.state(name));
        if stamp == self.reports[place] {
            return false;
        }
        self.reports[place] = stamp;
        match self.directory.read_report(name) {
            Ok(report) => (facts.report, facts.problem) = (report, None),
            Err(failure) => facts.problem = Some(failure.sentence()),
        }
        true
    }
}

/// The jobs of the list, of which nothing more is known yet.
fn of(directory: &FarmDirectory) -> Result<FarmFacts> {
    let list = directory.read_jobs()?;
    let facts = |job| JobFacts {
        job,
        report: JobReport::waiting(),
        course: super::course::Course::default(),
        problem: None,
    };
    Ok(FarmFacts {
        name: list.name,
        slots: list.slots,
        is_running: false,
        is_stopping: false,
        jobs: list.jobs.into_iter().map(facts).collect(),
        now_ms: now_ms(),
    })
}
