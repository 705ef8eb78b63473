//! One question to a node, whether it answers: the `mpirun` that asks, its limit of time, and what it said.
//!
//! The road is that of runs, whatever it is: `ssh`, another agent, Slurm or PBS. So a node counts for lost on which no
//! run could be started. When a node is asked and what follows is not known here.

use crate::error::{Context, Failure, Result};
use crate::files;
use crate::launch::{CommandLine, Job, Machine};
use crate::runlog::directory::make_folder;
use crate::runlog::farm::FarmDirectory;
use rustix::process::{
    Pid, PidfdFlags, Signal, geteuid, kill_process_group, pidfd_open, pidfd_send_signal,
};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who has not answered after this time does not answer.
const LIMIT: Duration = Duration::from_mins(1);
/// `mpirun` needs a second or two to clear its processes away.
const CLEARING: Duration = Duration::from_secs(5);
/// The longest text of `mpirun` that is read, 64 KiB.
const LONGEST_TEXT: u64 = 1 << 16;
/// The longest reason that is told, in letters.
const LONGEST_REASON: usize = 200;

/// A question to a node.
pub(super) struct Inquiry {
    host: String,
    child: Child,
    log: PathBuf,
    started: Instant,
    /// What it had started when its time was over and it was asked to end; none before.
    late: Option<Vec<OwnedFd>>,
}

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Whose.
    pub(super) host: String,
    /// Why there is none, in words; none where there is one.
    pub(super) problem: Option<String>,
}

impl Inquiry {
    /// Asks a node whether it starts programs and sees the farm.
    pub(super) fn start(host: &str, directory: &FarmDirectory) -> Result<Self> {
        let doing = || format!("cannot ask the node `{host}` whether it answers");
        let jobs = std::path::absolute(directory.jobs()).context(doing)?;
        let mpirun = ["--host".to_owned(), format!("{host}:1")];
        let command = ["ls".to_owned(), jobs.display().to_string()];
        let machine = Machine {
            processors: 1,
            is_root: geteuid().is_root(),
            in_batch_job: true,
            is_shielded: false,
        };
        let job = Job { command: command.to_vec(), mpirun: mpirun.to_vec(), variables: Vec::new() };
        let log = directory.node_log(host);
        Self::run(host, &job.command_line(1, machine), log)
            .map_err(|failure| failure.during(doing()))
    }

    fn run(host: &str, command: &CommandLine, log: PathBuf) -> Result<Self> {
        let doing = || format!("cannot start `{command}`");
        let [program, arguments @ ..] = &command.words[..] else {
            return Err(Failure::new("there is nothing to start"));
        };
        log.parent().map_or(Ok(()), make_folder).context(doing)?;
        match std::fs::remove_file(&log) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context(doing),
            _ => {}
        }
        let said = files::open_to_append(&log).context(doing)?;
        let child = Command::new(program)
            .args(arguments)
            .envs(command.variables.iter().map(|(name, value)| (name, value)))
            // By default a step of Slurm waits until the node has nothing else to do.
            .env("SLURM_OVERLAP", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .process_group(0)
            .spawn()
            .context(doing)?;
        Ok(Self { host: host.to_owned(), child, log, started: Instant::now(), late: None })
    }

    /// What has come of it; none as long as nothing has.
    pub(super) fn answer(&mut self) -> Option<Reply> {
        self.answer_within(LIMIT, CLEARING)
    }

    fn answer_within(&mut self, limit: Duration, clearing: Duration) -> Option<Reply> {
        let answer = |problem| Some(Reply { host: self.host.clone(), problem });
        if self.late.is_none() {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return answer(None),
                Ok(Some(status)) => {
                    let said = files::read_text(&self.log, LONGEST_TEXT).unwrap_or_default();
                    return answer(Some(
                        reason(&said).unwrap_or_else(|| format!("`mpirun` ended: {status}")),
                    ));
                }
                Ok(None) if self.started.elapsed() < limit => return None,
                Ok(None) | Err(_) => {
                    self.late = Some(started_by(self.child.id()));
                    self.signal(Signal::TERM);
                }
            }
        }
        // It is not waited for before, so that nobody else gets the number of its group.
        if self.started.elapsed() < limit + clearing {
            return None;
        }
        answer(Some(format!("no answer within {} s", limit.as_secs())))
    }

    fn signal(&self, signal: Signal) {
        // It may have ended just now.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Inquiry {
    /// Ends whatever is left of it.
    fn drop(&mut self) {
        if self.late.is_none() && !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let started = self.late.take().unwrap_or_else(|| started_by(self.child.id()));
        self.signal(Signal::KILL);
        for process in started {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        // Nothing is left to be done where it cannot be waited for.
        let _ = self.child.wait();
    }
}

/// All that a process has started and that is there, children of children too: the agents of `mpirun` are process groups
/// of their own. Where the system does not tell, they end when they find nobody.
fn started_by(pid: u32) -> Vec<OwnedFd> {
    let (mut found, mut open) = (Vec::new(), vec![pid]);
    while let Some(pid) = open.pop() {
        let threads =
            std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            open.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        found.extend(raw.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()));
    }
    found
}

/// The first sentence of what `mpirun` and those that it asked wrote that says what is wrong, without what no terminal
/// bears. Between what several of them wrote stand rules.
fn reason(said: &str) -> Option<String> {
    let lines = said.lines().map(str::trim).filter(|line| !line.starts_with("Warning: "));
    let says_something = |line: &&str| line.chars().any(char::is_alphanumeric);
    let lines: Vec<&str> =
        lines.skip_while(|line| !says_something(line)).take_while(says_something).collect();
    let text = lines.join(" ");
    let sentence = text.split(". ").next()?.trim_end_matches('.');
    let letters = sentence.chars().filter(|letter| !letter.is_control());
    Some(letters.take(LONGEST_REASON).collect()).filter(|reason: &String| !reason.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn ask(folder: &Path, script: &str) -> Inquiry {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        let command = CommandLine { variables: Vec::new(), words };
        Inquiry::run("b", &command, folder.join("nodes/b.log")).unwrap()
    }

    fn problem(mut inquiry: Inquiry, limit: Duration) -> Option<String> {
        loop {
            if let Some(Reply { problem, .. }) = inquiry.answer_within(limit, Duration::ZERO) {
                return problem;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_node_answers_or_it_is_said_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let problem = |script| problem(ask(folder.path(), script), LIMIT);
        assert_eq!(problem("echo noise >&2"), None);
        let refused =
            "echo 'Warning: added b' >&2; echo ----- >&2; echo 'ssh: no route' >&2; exit 1";
        assert_eq!(problem(refused).unwrap(), "ssh: no route");
        assert_eq!(problem("exit 3").unwrap(), "`mpirun` ended: exit status: 3");
        assert_eq!(reason("\u{1b}[31mred\n"), Some("[31mred".to_owned()));
        let banner = "-----\nA daemon has failed\nto call back. This could be\n-----\n";
        assert_eq!(reason(banner), Some("A daemon has failed to call back".to_owned()));
        assert_eq!(reason("-----\n"), None);
    }

    #[test]
    fn who_does_not_answer_in_time_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        // None of them ends on request, one is a group of its own, and all hold the pipe open.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let script = "trap '' TERM; sleep 1000 & setsid sleep 1000 & echo; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(writer).process_group(0);
        let child = command.spawn().unwrap();
        drop(command);
        std::io::Read::read_exact(&mut reader, &mut [0]).unwrap();
        let inquiry = Inquiry {
            host: "b".to_owned(),
            child,
            log: folder.path().join("b.log"),
            started: Instant::now(),
            late: None,
        };
        assert_eq!(problem(inquiry, Duration::ZERO).unwrap(), "no answer within 0 s");
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut rest).unwrap();
    }

    #[test]
    fn a_question_goes_the_way_of_runs() {
        let folder = tempfile::tempdir().unwrap();
        let directory = FarmDirectory::new(folder.path());
        assert_eq!(directory.node_log("b"), folder.path().join("nodes/b.log"));
        let failure = Inquiry::run(
            "b",
            &CommandLine { variables: Vec::new(), words: vec!["no-such-mpirun".to_owned()] },
            directory.node_log("b"),
        );
        assert!(failure.is_err_and(|failure| failure.sentence().contains("no-such-mpirun")));
    }
}
