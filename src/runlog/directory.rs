//! The directory of a run: where each file lies, and whether a process is writing it.
//!
//! What the files contain is known to those who write them.

use super::{Requested, now_ms};
use crate::error::{Context, Failure, Result};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// A sign of life that is older than this is from a dead run.
const ALIVE_MS: u64 = 30_000;
/// How often a run gives a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A run directory. Nothing in it needs to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectory {
    root: PathBuf,
}

/// Who writes a run directory, as `control/alive.json` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignOfLife {
    /// The host of the process.
    pub host: String,
    /// The number of the process on that host.
    pub pid: u32,
    /// When it said so, milliseconds since 1970 (UTC).
    pub time_ms: u64,
}

/// Who made a request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Author {
    by: String,
    host: String,
}

impl RunDirectory {
    /// The run directory at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The resolved configuration; running it again repeats the run.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// The run logs of all ranks.
    pub fn events(&self) -> PathBuf {
        self.root.join("events")
    }

    /// The run log of one rank.
    pub fn rank_events(&self, rank: usize) -> PathBuf {
        self.events().join(format!("rank-{rank:04}.jsonl"))
    }

    /// The checkpoints, one directory each.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Tables of scores by case.
    pub fn scores(&self) -> PathBuf {
        self.root.join("scores")
    }

    /// What each rank did last.
    pub fn flights(&self) -> PathBuf {
        self.root.join("flight")
    }

    /// What one rank did last.
    pub fn flight(&self, rank: usize) -> PathBuf {
        self.flights().join(format!("rank-{rank:04}.json"))
    }

    /// Small pictures of held-out cases, one folder for each evaluation.
    pub fn previews(&self) -> PathBuf {
        self.root.join("previews")
    }

    /// The file whose existence asks the run to save and go on.
    pub fn checkpoint_request(&self) -> PathBuf {
        self.root.join("control/checkpoint")
    }

    /// The file whose existence asks the run to save and end.
    pub fn stop_request(&self) -> PathBuf {
        self.root.join("control/stop")
    }

    /// The file that a running process keeps fresh.
    pub fn alive(&self) -> PathBuf {
        self.root.join("control/alive.json")
    }

    /// Whether there is anything of a run here.
    pub fn holds_a_run(&self) -> bool {
        self.config().is_file() || self.events().is_dir()
    }

    /// Asks the run to save and end at its next step.
    pub fn request_stop(&self) -> Result<()> {
        self.request(&self.stop_request())
    }

    /// Asks the run to save at its next step, and to go on.
    pub fn request_checkpoint(&self) -> Result<()> {
        self.request(&self.checkpoint_request())
    }

    /// A request is a file; who made it stands inside, for the run to write down.
    fn request(&self, path: &Path) -> Result<()> {
        let doing = || format!("cannot write the request `{}`", path.display());
        std::fs::create_dir_all(self.root.join("control")).context(doing)?;
        let author = Author { by: login(), host: host() };
        let text = serde_json::to_vec(&author).context(doing)?;
        // Renamed into place: the run sees all of it or nothing.
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, path)).context(doing)
    }

    /// The request at `path` as the run log tells it; `None` where there is none. One that was made
    /// with `touch` does not say by whom.
    pub fn requested(&self, path: &Path) -> Option<Requested> {
        let text = std::fs::read(path).ok()?;
        let author: Author = serde_json::from_slice(&text).unwrap_or_default();
        let request = path.file_name()?.to_string_lossy().into_owned();
        Some(Requested { request, by: author.by, host: author.host })
    }

    /// Who is writing this directory now, if anybody is.
    pub fn writer(&self) -> Option<SignOfLife> {
        let text = std::fs::read_to_string(self.alive()).ok()?;
        let sign: SignOfLife = serde_json::from_str(&text).ok()?;
        let is_fresh = now_ms().saturating_sub(sign.time_ms) < ALIVE_MS;
        // On this host the process itself can be asked; a killed one leaves a fresh sign behind.
        let is_gone = sign.host == host() && !is_running(sign.pid);
        (is_fresh && !is_gone).then_some(sign)
    }

    /// Takes the directory for this process until the claim is dropped; creates it if need be and
    /// withdraws a stop request of an earlier process. Refuses a directory that a run is writing.
    pub fn claim(&self) -> Result<Claim> {
        let name = self.root.display();
        let refused = || format!("cannot use `{name}` as run directory");
        let elsewhere = "choose another directory with `--run DIR`";
        std::fs::create_dir_all(self.root.join("control"))
            .context(refused)
            .map_err(|failure| failure.hint(elsewhere))?;
        if let Some(writer) = self.writer() {
            return Err(self.occupied(&writer));
        }
        remove_if_there(&self.alive()).context(refused)?;
        remove_if_there(&self.stop_request()).context(refused)?;
        remove_if_there(&self.checkpoint_request()).context(refused)?;
        // Created anew, so that of two processes that come at once only one gets it.
        match OpenOptions::new().write(true).create_new(true).open(self.alive()) {
            Ok(mut file) => file.write_all(&sign_of_life()).context(refused)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Failure::usage(format!("another process is just taking `{name}`"))
                    .hint(elsewhere));
            }
            Err(error) => {
                return Err(Failure::new(refused()).because(&error).hint(elsewhere));
            }
        }
        Ok(Claim::keep_fresh(self.alive()))
    }

    fn occupied(&self, writer: &SignOfLife) -> Failure {
        let (name, host, pid) = (self.root.display(), &writer.host, writer.pid);
        Failure::usage(format!(
            "`{name}` belongs to a run that is alive on `{host}`, process {pid}"
        ))
        .hint(format!("look at it with `scrimp watch {name}`"))
        .hint(format!("end it with `touch {}`", self.stop_request().display()))
    }
}

/// A run directory that belongs to this process; it is given back on drop.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    end: Option<Sender<()>>,
    heartbeat: Option<JoinHandle<()>>,
}

impl Claim {
    fn keep_fresh(path: PathBuf) -> Self {
        let (end, ended) = mpsc::channel();
        let alive = path.clone();
        let heartbeat = std::thread::spawn(move || {
            while ended.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                // Renamed into place: readers see the old sign or the new one, never half of one.
                let fresh = alive.with_extension("json.new");
                let written = std::fs::File::create(&fresh)
                    .and_then(|mut file| file.write_all(&sign_of_life()))
                    .and_then(|()| std::fs::rename(&fresh, &alive));
                if let Err(error) = written {
                    tracing::warn!("cannot refresh `{}`: {error}", alive.display());
                }
            }
        });
        Self { path, end: Some(end), heartbeat: Some(heartbeat) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.heartbeat.take().map(JoinHandle::join);
        let removed = remove_if_there(&self.path);
        if matches!(ended, Some(Err(_))) || removed.is_err() {
            tracing::warn!("cannot give back `{}`", self.path.display());
        }
    }
}

fn sign_of_life() -> Vec<u8> {
    let sign = SignOfLife { host: host(), pid: std::process::id(), time_ms: now_ms() };
    serde_json::to_vec(&sign).unwrap_or_default()
}

/// The name of this host, empty where the system does not tell.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// The login name of whoever runs this process, empty where the system does not tell.
fn login() -> String {
    let name = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    name("LOGNAME").or_else(|| name("USER")).or_else(owner).unwrap_or_default()
}

/// The name of this process's user, from the list of users.
fn owner() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("Uid:"))?;
    let uid = line.split_whitespace().nth(1)?;
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let user = fields.find(|fields| fields.get(2) == Some(&uid))?;
    user.first().map(|name| (*name).to_owned())
}

/// Whether a process of this host runs. One that is dead and not yet collected by its parent,
/// which in a container may be never, does not.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state stands in parentheses and may hold any character.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<Claim>, root: &Path) -> String {
        result.unwrap_err().to_string().replace(&root.display().to_string(), "DIR")
    }

    fn leave_sign(run: &RunDirectory, sign: &SignOfLife) {
        std::fs::create_dir_all(run.root().join("control")).unwrap();
        std::fs::write(run.alive(), serde_json::to_vec(sign).unwrap()).unwrap();
    }

    #[test]
    fn a_claimed_directory_is_refused_until_the_claim_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(directory.path().join("runs/a"));
        let claim = run.claim().unwrap();
        assert_eq!(run.writer().unwrap().pid, std::process::id());
        let refusal = message(run.claim(), directory.path());
        let refusal =
            refusal.replace(&std::process::id().to_string(), "PID").replace(&host(), "HOST");
        insta::assert_snapshot!(refusal, @r"
        error: `DIR/runs/a` belongs to a run that is alive on `HOST`, process PID

        hint: look at it with `scrimp watch DIR/runs/a`
        hint: end it with `touch DIR/runs/a/control/stop`
        ");
        drop(claim);
        assert_eq!(run.writer(), None);
        run.claim().unwrap();
    }

    #[test]
    fn signs_of_dead_processes_and_old_stop_requests_are_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(directory.path());
        // No process number is as large as this.
        leave_sign(&run, &SignOfLife { host: host(), pid: u32::MAX, time_ms: now_ms() });
        run.request_stop().unwrap();
        drop(run.claim().unwrap());
        assert!(!run.stop_request().exists() && !run.alive().exists());
        leave_sign(&run, &SignOfLife { host: "elsewhere".to_owned(), pid: 1, time_ms: 5 });
        run.claim().unwrap();
    }

    #[test]
    fn a_process_that_nobody_collected_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while is_running(child.id()) {
            std::thread::yield_now();
        }
        assert!(Path::new(&format!("/proc/{}", child.id())).exists());
        child.wait().unwrap();
        assert!(is_running(std::process::id()));
    }

    #[test]
    fn a_process_on_another_host_counts_while_its_sign_is_fresh() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(directory.path());
        let sign = SignOfLife { host: "elsewhere".to_owned(), pid: u32::MAX, time_ms: now_ms() };
        leave_sign(&run, &sign);
        assert_eq!(run.writer(), Some(sign));
        assert!(run.claim().is_err());
    }

    #[test]
    fn a_request_says_who_made_it_unless_it_was_touched() {
        let directory = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(directory.path());
        assert_eq!(run.requested(&run.checkpoint_request()), None);
        run.request_checkpoint().unwrap();
        let requested = run.requested(&run.checkpoint_request()).unwrap();
        assert_eq!((requested.request.as_str(), requested.host), ("checkpoint", host()));
        assert_eq!(requested.by, login());
        std::fs::write(run.stop_request(), "").unwrap();
        let touched = Requested { request: "stop".into(), by: String::new(), host: String::new() };
        assert_eq!(run.requested(&run.stop_request()), Some(touched));
    }

    #[test]
    fn what_cannot_be_a_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let run = RunDirectory::new(directory.path().join("file"));
        insta::assert_snapshot!(message(run.claim(), directory.path()), @r"
        error: cannot use `DIR/file` as run directory
          caused by: Not a directory (os error 20)

        hint: choose another directory with `--run DIR`
        ");
    }
}
