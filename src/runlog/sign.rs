//! The sign of life in `RUN/control/alive.json`: who writes a run directory, and whether that process
//! still lives as far as this one can tell.
//!
//! Taking a directory and giving it back is none of its business.

use super::directory::{RunDirectory, host, plain_name};
use super::now_ms;
use crate::files;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use std::fs::{File, read_link, read_to_string};
use std::io::{ErrorKind, Read, Result};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Whoever only looks takes a sign of another host that is this old for that of a dead run.
const LOOKS_FRESH: Duration = Duration::from_secs(30);
/// No sign has more bytes, 64 KiB.
const SIGN_BYTES: u64 = 1 << 16;

/// Who writes a run directory, as `control/alive.json` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignOfLife {
    /// The host of the process.
    pub host: String,
    /// The number of the process on that host.
    pub pid: u32,
    /// When it took the directory, milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// When the process started, in ticks since its host did: numbers of processes repeat.
    #[serde(default)]
    start_ticks: u64,
    /// Which start of which host that was; empty where the system does not tell.
    #[serde(default)]
    boot: String,
    /// In which numbering of processes `pid` counts: a container has its own.
    #[serde(default)]
    pid_namespace: String,
    /// What no other claim has.
    #[serde(default)]
    pub(super) nonce: u64,
    /// Whether the process holds a lock on the directory itself for as long as it lives.
    #[serde(default)]
    is_locked: bool,
}

/// What can be said of the process behind a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs, or is suspended.
    Alive,
    /// It has ended.
    Dead,
    /// It cannot be asked from here: another host, or a container.
    Unknown,
}

/// What lies at the place of a sign at one moment. The process behind it changes it all the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    bytes: Vec<u8>,
    modified: Option<SystemTime>,
}

impl SignOfLife {
    /// The sign of this process under a nonce of its own.
    pub(super) fn of_this_process(nonce: u64, is_locked: bool) -> Self {
        let pid = std::process::id();
        Self {
            host: host(),
            pid,
            time_ms: now_ms(),
            start_ticks: start_ticks(pid).unwrap_or_default(),
            boot: boot(),
            pid_namespace: pid_namespace(),
            nonce,
            is_locked,
        }
    }

    /// The sign of another process of this host, which it does not give itself.
    pub(super) fn of_process(pid: u32) -> Self {
        let start_ticks = start_ticks(pid).unwrap_or_default();
        Self { pid, start_ticks, ..Self::of_this_process(0, false) }
    }

    /// Whether its process lives, as the system tells.
    pub(super) fn life(&self) -> Life {
        if !self.is_of_this_kernel() || self.pid_namespace != pid_namespace() {
            return Life::Unknown;
        }
        match start_ticks(self.pid) {
            Some(ticks) if ticks == self.start_ticks => Life::Alive,
            None if is_hidden(self.pid) => Life::Alive,
            Some(_) | None => Life::Dead,
        }
    }

    /// The same, asked by a process that has the lock on the directory itself: a process of this
    /// kernel that had it has ended, whatever container it ran in.
    pub(super) fn life_without_lock(&self) -> Life {
        if self.is_locked && self.is_of_this_kernel() { Life::Dead } else { self.life() }
    }

    fn is_of_this_kernel(&self) -> bool {
        !self.boot.is_empty() && self.boot == boot()
    }
}

impl Seen {
    /// What lies at `path`, if anything does.
    pub(super) fn at(path: &Path) -> Result<Option<Self>> {
        match files::open(path) {
            Ok(file) => Self::of(&file).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What an open file holds.
    pub(super) fn of(file: &File) -> Result<Self> {
        let mut bytes = Vec::new();
        let mut limited = file.take(SIGN_BYTES);
        limited.read_to_end(&mut bytes)?;
        Ok(Self { bytes, modified: file.metadata()?.modified().ok() })
    }

    /// The sign, unless it is something else.
    pub(super) fn sign(&self) -> Option<SignOfLife> {
        let sign: SignOfLife = serde_json::from_slice(&self.bytes).ok()?;
        Some(SignOfLife { host: plain_name(&sign.host), ..sign })
    }

    /// Whether it was changed a short while ago, by two clocks that may differ.
    fn looks_fresh(&self) -> bool {
        let age = self.modified.map(|modified| match modified.elapsed() {
            Ok(age) => age,
            Err(ahead) => ahead.duration(),
        });
        age.is_some_and(|age| age < LOOKS_FRESH)
    }
}

impl RunDirectory {
    /// Who is writing this directory now, for showing it. Of another host or container it is a guess
    /// from the age of its sign; nothing is taken or removed because of it.
    pub fn writer(&self) -> Option<SignOfLife> {
        let seen = Seen::at(&self.alive()).ok()??;
        let sign = seen.sign()?;
        let lives = match sign.life() {
            Life::Alive => true,
            Life::Dead => false,
            Life::Unknown => seen.looks_fresh(),
        };
        lives.then_some(sign)
    }
}

/// When a process that has not ended started, in ticks since the host did. One that is dead and not yet
/// collected by its parent, which in a container may be never, has ended.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the state stands in parentheses and may hold any character.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
    let has_ended = matches!(fields.first(), Some(&("Z" | "X")));
    if has_ended { None } else { fields.get(19)?.parse().ok() }
}

/// Whether a process exists that `/proc` does not show to this user.
fn is_hidden(pid: u32) -> bool {
    let is_shown = Path::new(&format!("/proc/{pid}")).exists();
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    !is_shown && pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::PERM))
}

/// Which start of which kernel this is; empty where the system does not tell.
fn boot() -> String {
    read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn pid_namespace() -> String {
    read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
impl SignOfLife {
    /// The sign of a process that another host, or nobody here, knows.
    pub(super) fn of_another_host() -> Self {
        let boot = "00000000-0000-0000-0000-000000000000".to_owned();
        let host = "elsewhere".to_owned();
        Self { host, boot, pid: 7, ..Self::of_this_process(77, false) }
    }

    /// The sign of a process of this host with another number or another start.
    pub(super) fn of_a_dead_process(pid: u32) -> Self {
        Self { pid, start_ticks: 1, ..Self::of_this_process(78, false) }
    }

    /// The sign of a process of this kernel whose number counts in another container.
    pub(super) fn of_another_container(is_locked: bool) -> Self {
        let pid_namespace = "pid:[1]".to_owned();
        Self { pid_namespace, is_locked, ..Self::of_this_process(79, false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_can_be_asked_is_alive_or_dead() {
        let own = SignOfLife::of_this_process(1, false);
        assert_eq!(own.life(), Life::Alive);
        let repeated = SignOfLife::of_a_dead_process(std::process::id());
        assert_eq!(repeated.life(), Life::Dead);
        // No process number is as large as this.
        assert_eq!(SignOfLife::of_a_dead_process(u32::MAX).life(), Life::Dead);
        assert_eq!(SignOfLife::of_another_host().life(), Life::Unknown);
        let former = r#"{"host":"h","pid":1,"time_ms":5}"#;
        assert_eq!(serde_json::from_str::<SignOfLife>(former).unwrap().life(), Life::Unknown);
        let contained = SignOfLife::of_another_container(true);
        assert_eq!(contained.life(), Life::Unknown);
        assert_eq!(contained.life_without_lock(), Life::Dead);
        let contained = SignOfLife::of_another_container(false);
        assert_eq!(contained.life_without_lock(), Life::Unknown);
    }

    #[test]
    fn a_process_that_nobody_collected_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while start_ticks(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(Path::new(&format!("/proc/{}", child.id())).exists());
        assert!(!is_hidden(child.id()));
        child.wait().unwrap();
        assert!(start_ticks(std::process::id()).is_some());
    }

    #[test]
    fn a_sign_of_the_future_or_the_past_does_not_look_fresh() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        std::fs::create_dir(run.control()).unwrap();
        let sign = SignOfLife::of_another_host();
        std::fs::write(run.alive(), serde_json::to_vec(&sign).unwrap()).unwrap();
        assert_eq!(run.writer(), Some(sign));
        let day = Duration::from_hours(24);
        for modified in [SystemTime::now() - day, SystemTime::now() + day] {
            File::options().write(true).open(run.alive()).unwrap().set_modified(modified).unwrap();
            assert_eq!(run.writer(), None);
        }
    }

    #[test]
    fn what_is_no_sign_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        std::fs::create_dir(run.control()).unwrap();
        assert_eq!(Seen::at(&run.alive()).unwrap(), None);
        std::os::unix::fs::symlink("/dev/zero", run.alive()).unwrap();
        assert!(Seen::at(&run.alive()).is_err());
        std::fs::remove_file(run.alive()).unwrap();
        let file = File::create(run.alive()).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(Seen::at(&run.alive()).unwrap().unwrap().sign(), None);
        assert_eq!(run.writer(), None);
    }
}
