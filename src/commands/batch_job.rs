//! The job of a batch system in which this process runs: what the environment says of it, else what Slurm answers.
//!
//! Asks once and waits some seconds at most. What an answer means is said in `launch::batch`.

use crate::launch::batch::{self, SLURM_END, SLURM_JOB, SlurmAnswer, SlurmJob};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Slurm's commands ask a controller that is down again and again, for minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The largest answer that is read, 1 MiB.
const LARGEST_ANSWER: u64 = 1 << 20;

/// When the job ends, as far as that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct EndOfJob {
    /// The moment, where there is one.
    pub(super) at: Option<SystemTime>,
    /// Why it is not known, a sentence for people.
    pub(super) note: Option<String>,
    /// Whether Slurm was asked.
    is_asked: bool,
}

impl EndOfJob {
    /// Reads the environment, and asks Slurm where that does not say it.
    pub(super) fn find() -> Self {
        let here = Here::new();
        if let Some(number) = here.job().to_ask() {
            let (at, note) = match ask(number) {
                Ok(answer) => (answer.end, None),
                Err(why) => (None, Some(unknown(number, &why))),
            };
            return Self { at, note, is_asked: true };
        }
        match here.job().ends_at(SystemTime::now()) {
            Ok(at) => Self { at, ..Self::default() },
            Err(note) => Self { note: Some(note), ..Self::default() },
        }
    }

    /// The variable that spares what this process starts from asking again.
    pub(super) fn variable(&self) -> Option<(&'static str, String)> {
        let since = self.at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let text = since.map_or_else(String::new, |since| since.as_secs().to_string());
        self.is_asked.then_some((SLURM_END, text))
    }
}

/// Whether Slurm says that it needs the place of this job. Where it does not answer, nobody knows.
pub(super) fn is_preempted() -> bool {
    let here = Here::new();
    let answer = here.job().own_number().and_then(|number| ask(number).ok());
    answer.is_some_and(|answer| answer.is_preempted)
}

/// What is said of the job here.
struct Here {
    end: Option<String>,
    number: Option<String>,
    control_groups: String,
}

impl Here {
    fn new() -> Self {
        let [end, number] = [SLURM_END, SLURM_JOB].map(|name| std::env::var(name).ok());
        let control_groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self { end, number, control_groups }
    }

    fn job(&self) -> SlurmJob<'_> {
        let (end, number) = (self.end.as_deref(), self.number.as_deref());
        SlurmJob { end, number, control_groups: &self.control_groups }
    }
}

fn unknown(number: &str, why: &str) -> String {
    format!("when job {number} ends is not known: {why}; `train.time_limit` can say it")
}

/// Asks Slurm for the job of this number; else a sentence why there is no answer.
fn ask(number: &str) -> std::result::Result<SlurmAnswer, String> {
    let words = batch::question(number);
    let cannot = |error: std::io::Error| format!("cannot start `{}`: {error}", words[0]);
    let (mut reader, writer) = std::io::pipe().map_err(cannot)?;
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .env(batch::TIME_FORMAT, batch::SECONDS)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(cannot)?)
        .stderr(writer)
        .spawn()
        .map_err(cannot)?;
    let (sender, said) = mpsc::channel();
    // Beyond the limit it reads on alone, and what it reads nobody wants.
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = reader.by_ref().take(LARGEST_ANSWER).read_to_end(&mut text);
        let _ = sender.send(read.map(|_| String::from_utf8_lossy(&text).into_owned()));
    });
    let said = said.recv_timeout(LONGEST_WAIT);
    // It has ended, or is to.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    match said {
        Ok(Ok(text)) => SlurmAnswer::read(&text, number),
        Ok(Err(error)) => Err(cannot(error)),
        Err(_) => {
            Err(format!("`{}` has not answered within {} s", words[0], LONGEST_WAIT.as_secs()))
        }
    }
}
