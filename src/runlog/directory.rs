//! The directory of a run: where each file lies.
//!
//! What the files contain, and who may write them, is known to others.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A run directory. Nothing in it needs to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectory {
    root: PathBuf,
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

    /// The exit code of a run that has ended by itself, until the next start.
    pub fn exit_code(&self) -> PathBuf {
        self.flights().join("exit-code")
    }

    /// Small pictures of held-out cases, one folder for each evaluation.
    pub fn previews(&self) -> PathBuf {
        self.root.join("previews")
    }

    /// Who writes here and what is asked of it.
    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// The file whose existence asks the run to save and go on.
    pub fn checkpoint_request(&self) -> PathBuf {
        self.control().join("checkpoint")
    }

    /// The file whose existence asks the run to save and end.
    pub fn stop_request(&self) -> PathBuf {
        self.control().join("stop")
    }

    /// The sign of life of the process that writes here.
    pub fn alive(&self) -> PathBuf {
        self.control().join("alive.json")
    }

    /// The file that the process which writes here holds a lock on.
    pub fn lock(&self) -> PathBuf {
        self.control().join("lock")
    }

    /// Whether there is anything of a run here.
    pub fn holds_a_run(&self) -> bool {
        self.config().is_file() || self.events().is_dir()
    }
}

/// Creates `folder` where it is missing, and no folder above it: a run directory that was removed or
/// renamed does not come back.
pub fn make_folder(folder: &Path) -> std::io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

/// The name of this host, empty where the system does not tell.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// What another process wrote as a name, fit for a terminal: without characters that steer one or that
/// cannot be seen, and at most 64 characters long.
pub(super) fn plain_name(name: &str) -> String {
    let steers = |letter: &char| {
        letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    name.chars().filter(|letter| !steers(letter)).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_do_not_steer_a_terminal() {
        assert_eq!(plain_name("anna\u{1b}[2J\u{202e}\n\u{9b}31m"), "anna[2J31m");
        assert_eq!(plain_name(&"ü".repeat(999)), "ü".repeat(64));
    }

    #[test]
    fn no_folder_is_made_above_the_one_that_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(root.path().join("run"));
        assert_eq!(make_folder(&run.events()).unwrap_err().kind(), ErrorKind::NotFound);
        std::fs::create_dir(run.root()).unwrap();
        make_folder(&run.events()).unwrap();
        make_folder(&run.events()).unwrap();
        std::fs::write(run.scores(), "").unwrap();
        assert!(make_folder(&run.scores()).is_err());
    }
}
