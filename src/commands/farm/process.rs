//! The processes of a job: how they are started, what they are sent, and how they have ended.
//!
//! Every job is a process group of its own, so that Ctrl-C reaches the farm alone. Which jobs are started is not known
//! here.

use crate::error::{Context, Result};
use crate::farm::outages::Silence;
use crate::files;
use crate::runlog::directory::RunDirectory;
use crate::runlog::farm::{FarmDirectory, FarmJob, JobKind, JobReport};
use crate::signals::{self, Suspension};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::TryLockError;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Runs a command and leaves its exit code, for a farm that was itself killed meanwhile.
const LEAVING_ITS_CODE: &str = "\"$@\"; code=$?; printf %s \"$code\" >\"$0\"; exit \"$code\"";
/// Between two signals to processes that are to end at once.
const AGAIN: Duration = Duration::from_secs(1);

/// What is started for a job.
pub(super) struct Started<'a> {
    pub(super) job: &'a FarmJob,
    pub(super) words: &'a [String],
    /// Environment variables that it gets.
    pub(super) variables: Vec<(&'static str, String)>,
}

/// A job whose processes are at work.
pub(super) struct Work {
    /// The number of the job.
    pub(super) job: usize,
    kind: JobKind,
    run: RunDirectory,
    log: PathBuf,
    code_file: PathBuf,
    leader: Leader,
    silence: Silence,
    /// With what it was lost, in words, if it was.
    lost_with: Option<String>,
    /// What it was asked, as [`Wish`](super::wish::Wish) counts, and when last.
    asked: u8,
    asked_at: Instant,
}

/// The first process of a job.
enum Leader {
    Own(Child),
    /// Of a farm that has ended; none where only those are left that it started.
    Found(Option<u32>),
}

/// How the processes of a job have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this code, as a shell says it.
    With(i32),
    /// Nobody saw how.
    Unseen,
}

impl Work {
    /// Starts the processes of a job.
    pub(super) fn start(
        number: usize,
        started: &Started<'_>,
        directory: &FarmDirectory,
    ) -> Result<Self> {
        let Started { job, words, variables } = started;
        let code_file = code_file(directory, &job.name);
        // That of an earlier start says nothing about this one.
        drop(std::fs::remove_file(&code_file));
        let doing = || format!("cannot start the job `{}`", job.name);
        let words = with_this_program(words)?;
        let words = match job.kind {
            JobKind::Train => words,
            JobKind::Command => {
                make_empty(directory.run(&job.name).root()).context(doing)?;
                let shell = ["sh", "-c", LEAVING_ITS_CODE].map(str::to_owned);
                let code_file = std::path::absolute(&code_file).context(doing)?;
                let code_file = code_file.display().to_string();
                shell.into_iter().chain([code_file]).chain(words).collect()
            }
        };
        let mut log = files::open_to_append(&directory.log(&job.name)).context(doing)?;
        // What is started inherits the lock, and keeps it when this process is gone. Where there are no locks, its
        // number tells that it lives.
        drop(log.try_lock());
        let shown =
            crate::launch::CommandLine { variables: Vec::new(), words: started.words.to_vec() };
        writeln!(log, "$ {shown}").context(doing)?;
        let both = log.try_clone().context(doing)?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context(doing)?;
        Ok(Self::of(number, job, directory, Leader::Own(child)))
    }

    /// The processes of a job that a farm before this one has started, if any of them lives.
    pub(super) fn find(
        number: usize,
        job: &FarmJob,
        directory: &FarmDirectory,
        report: &JobReport,
    ) -> Option<Self> {
        let work = Self::of(number, job, directory, Leader::Found(report.living_process()));
        let has_leader = matches!(work.leader, Leader::Found(Some(_)));
        (has_leader || work.is_at_work()).then_some(work)
    }

    fn of(number: usize, job: &FarmJob, directory: &FarmDirectory, leader: Leader) -> Self {
        Self {
            job: number,
            kind: job.kind,
            run: directory.run(&job.name),
            log: directory.log(&job.name),
            code_file: code_file(directory, &job.name),
            leader,
            silence: Silence::default(),
            lost_with: None,
            asked: 0,
            asked_at: Instant::now(),
        }
    }

    /// Whether a process writes the run directory of a job that trains.
    fn is_written(&self) -> bool {
        self.kind == JobKind::Train && self.run.writer().is_some()
    }

    /// Looks for the sign of life of a job that trains; whether the nodes on which it runs are to be asked now.
    pub(super) fn listen(&mut self) -> bool {
        // Opened, so that a network file system asks its server.
        let sign = files::open(&self.run.alive()).and_then(|sign| sign.metadata()?.modified());
        self.silence.look(sign.ok())
    }

    /// Whether a job that trains has said nothing for long.
    pub(super) fn is_silent(&self) -> bool {
        self.silence.is_long()
    }

    /// Whether a job that trains was at work and has said nothing since for long.
    pub(super) fn has_fallen_silent(&self) -> bool {
        self.silence.has_begun()
    }

    /// Notes with what it was lost, in words; whether that is news.
    pub(super) fn lose(&mut self, with: &str) -> bool {
        let is_news = self.lost_with.is_none();
        self.lost_with.get_or_insert_with(|| with.to_owned());
        is_news
    }

    /// With what it was lost, in words, if it was.
    pub(super) fn lost_with(&self) -> Option<&str> {
        self.lost_with.as_deref()
    }

    /// Whether processes of the job are at work somewhere, whoever started them. Of one that is lost only what still
    /// waits for its node is left.
    fn is_at_work(&self) -> bool {
        self.lost_with.is_none() && (self.is_written() || self.is_held())
    }

    /// Whether a process has the log of the job that it was started with.
    fn is_held(&self) -> bool {
        let log = files::open(&self.log);
        log.is_ok_and(|log| matches!(log.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// The number of its first process, where that lives.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.leader {
            Leader::Own(child) => Some(child.id()),
            Leader::Found(pid) => *pid,
        }
    }

    /// How its processes have ended, if they have; `report` says which process was the first.
    pub(super) fn ended(&mut self, report: &JobReport) -> Result<Option<Ended>> {
        match &mut self.leader {
            Leader::Own(child) => {
                let status =
                    child.try_wait().context(|| "cannot wait for the processes of a job")?;
                let Some(status) = status else { return Ok(None) };
                if status.code().is_none() && self.lost_with.is_none() && self.is_written() {
                    // The launcher was killed, and its ranks work on.
                    self.leader = Leader::Found(None);
                    return Ok(None);
                }
                Ok(Some(Ended::With(code(status))))
            }
            Leader::Found(pid) => {
                *pid = report.living_process();
                if pid.is_some() || self.is_at_work() {
                    return Ok(None);
                }
                Ok(Some(self.left_behind()))
            }
        }
    }

    /// The code that a command has left.
    fn left_behind(&self) -> Ended {
        left_code(&self.code_file).map_or(Ended::Unseen, Ended::With)
    }

    /// Passes a wish on: `level` as [`Wish`](super::wish::Wish) counts, and the signal that asked for it. What is to
    /// end at once is told so again and again.
    pub(super) fn ask(&mut self, level: u8, signal: signals::Signal) {
        let is_first = level > self.asked;
        let ends = level >= super::wish::Wish::END;
        let is_due = is_first || (ends && self.asked_at.elapsed() >= AGAIN);
        if !is_due {
            return;
        }
        (self.asked, self.asked_at) = (level.max(self.asked), Instant::now());
        let Some(pid) = self.pid() else {
            // Its launcher is gone; the run itself reads requests.
            drop(self.run.request_stop());
            return;
        };
        match (self.kind, ends) {
            (JobKind::Train, _) => {
                send(pid, if ends { Signal::TERM } else { as_sent(signal) });
            }
            (JobKind::Command, true) => send_to_group(pid, Signal::KILL),
            (JobKind::Command, false) => send_to_group(pid, Signal::TERM),
        }
    }

    /// Whether somebody asked it to stop, and whether at once.
    pub(super) fn asked(&self) -> u8 {
        self.asked
    }
}

/// The code that the command of a job has left in this file.
pub(super) fn left_code(path: &Path) -> Option<i32> {
    files::read_text(path, 16).ok()?.trim().parse().ok()
}

/// Where the command of a job leaves its exit code.
pub(super) fn code_file(directory: &FarmDirectory, name: &str) -> PathBuf {
    directory.states().join(format!("{name}.exit"))
}

/// The same command, with the file of this program where it begins with its name.
fn with_this_program(words: &[String]) -> Result<Vec<String>> {
    if words.first().is_none_or(|word| word != "scrimp") {
        return Ok(words.to_vec());
    }
    let program = std::env::current_exe().context(|| "cannot find this program's own file")?;
    let program = program.display().to_string();
    Ok(std::iter::once(program).chain(words.iter().skip(1).cloned()).collect())
}

/// Makes an empty folder; what an earlier start left in it is removed.
fn make_empty(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir(folder)
}

/// The signal that a launcher of ranks is sent in the place of one that came here.
fn as_sent(signal: signals::Signal) -> Signal {
    match signal {
        signals::Signal::User1 => Signal::USR1,
        signals::Signal::User2 => Signal::USR2,
        signals::Signal::Terminate => Signal::TERM,
        signals::Signal::Interrupt => Signal::INT,
        signals::Signal::HangUp => Signal::HUP,
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended just now.
        let _ = kill_process(pid, signal);
    }
}

fn send_to_group(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended just now.
        let _ = kill_process_group(pid, signal);
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1)
}

/// The first processes of all jobs at work, for the thread that suspends them with this one.
#[derive(Clone, Default)]
pub(super) struct AtWork(Arc<Mutex<Vec<(u32, JobKind)>>>);

impl AtWork {
    /// From now on Ctrl-Z suspends the jobs as well, and they go on with this process.
    pub(super) fn suspend_together(&self) -> Result<()> {
        let at_work = self.clone();
        signals::listen_to_suspension(move |suspension| {
            for (pid, kind) in at_work.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                match (suspension, kind) {
                    (Suspension::Begins, JobKind::Train) => send(*pid, Signal::TSTP),
                    (Suspension::Begins, JobKind::Command) => send_to_group(*pid, Signal::STOP),
                    (Suspension::Ends, JobKind::Train) => send(*pid, Signal::CONT),
                    (Suspension::Ends, JobKind::Command) => send_to_group(*pid, Signal::CONT),
                }
            }
        })
    }

    /// These are at work by now.
    pub(super) fn note(&self, works: &[Work]) {
        let pids = works.iter().filter_map(|work| Some((work.pid()?, work.kind)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pids.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(kind: JobKind) -> FarmJob {
        FarmJob {
            name: "a".to_owned(),
            row: "a".to_owned(),
            kind,
            fold: None,
            seed: None,
            run: None,
            needs: Vec::new(),
            ranks: 1,
            gpus: 0.0,
            total_steps: None,
        }
    }

    fn farm() -> (tempfile::TempDir, FarmDirectory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = FarmDirectory::new(folder.path());
        for path in [directory.states(), directory.logs(), directory.runs()] {
            std::fs::create_dir(path).unwrap();
        }
        (folder, directory)
    }

    fn started(directory: &FarmDirectory, script: &str) -> (Work, JobReport) {
        let words = ["sh", "-c", script].map(str::to_owned);
        let job = job(JobKind::Command);
        let variables = vec![("CUDA_VISIBLE_DEVICES", "3".to_owned())];
        let work =
            Work::start(0, &Started { job: &job, words: &words, variables }, directory).unwrap();
        let mut report = JobReport::waiting();
        report.note_process(work.pid().unwrap());
        (work, report)
    }

    fn end(work: &mut Work, report: &JobReport) -> Ended {
        loop {
            if let Some(ended) = work.ended(report).unwrap() {
                return ended;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_command_leaves_its_output_and_its_code_for_whoever_comes_later() {
        let (_folder, directory) = farm();
        let own = directory.run("a").root().to_owned();
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("of-before"), "").unwrap();
        let (mut work, report) = started(&directory, "echo $CUDA_VISIBLE_DEVICES; exit 9");
        assert_eq!(end(&mut work, &report), Ended::With(9));
        assert_eq!(left_code(&code_file(&directory, "a")), Some(9));
        let log = std::fs::read_to_string(directory.log("a")).unwrap();
        assert_eq!(log, "$ sh -c 'echo $CUDA_VISIBLE_DEVICES; exit 9'\n3\n");
        assert!(own.read_dir().unwrap().next().is_none());
        // A farm that comes later finds nothing alive.
        assert!(Work::find(0, &job(JobKind::Command), &directory, &report).is_none());
    }

    #[test]
    fn a_command_of_an_earlier_farm_is_found_and_ends_on_request() {
        let (_folder, directory) = farm();
        let (mut own, report) = started(&directory, "exec sleep 1000");
        let found = Work::find(0, &job(JobKind::Command), &directory, &report);
        let mut found = found.unwrap();
        // Also where the farm was killed before it noted the number of the process.
        let blind = Work::find(0, &job(JobKind::Command), &directory, &JobReport::waiting());
        assert_eq!(blind.unwrap().ended(&JobReport::waiting()).unwrap(), None);
        assert_eq!(found.ended(&report).unwrap(), None);
        found.ask(super::super::wish::Wish::STOP, signals::Signal::Interrupt);
        assert_eq!(end(&mut own, &report), Ended::With(128 + 15));
        assert_eq!(end(&mut found, &report), Ended::Unseen);
    }

    #[test]
    fn what_still_waits_for_a_lost_node_keeps_no_job_alive() {
        let (_folder, directory) = farm();
        // As an agent of `mpirun` that outlives it, and holds the log.
        let held = files::open_to_append(&directory.log("a")).unwrap();
        held.try_lock().unwrap();
        let report = JobReport::waiting();
        let mut found = Work::find(0, &job(JobKind::Train), &directory, &report).unwrap();
        assert!((0..29).all(|_| !found.listen()) && !found.is_silent());
        assert!(found.listen() && found.is_silent());
        assert_eq!(found.ended(&report).unwrap(), None);
        assert!(found.lose("b") && !found.lose("c"));
        assert_eq!(found.lost_with(), Some("b"));
        assert_eq!(found.ended(&report).unwrap(), Some(Ended::Unseen));
    }
}
