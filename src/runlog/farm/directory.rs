//! The directory of a farm: where each file lies.
//!
//! What the files contain, and who may write them, is known to others.

use crate::runlog::directory::RunDirectory;
use std::path::{Path, PathBuf};

/// A farm directory. Nothing in it needs to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarmDirectory {
    root: PathBuf,
}

impl FarmDirectory {
    /// The farm directory at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The farm file as it was started last.
    pub fn file(&self) -> PathBuf {
        self.root.join("farm.toml")
    }

    /// The list of all jobs.
    pub fn jobs(&self) -> PathBuf {
        self.root.join("jobs.json")
    }

    /// How the jobs fare, a file each.
    pub fn states(&self) -> PathBuf {
        self.root.join("states")
    }

    /// How the job `name` fares.
    pub fn state(&self, name: &str) -> PathBuf {
        self.states().join(format!("{name}.json"))
    }

    /// The run directories of the jobs that train, and working folders of commands.
    pub fn runs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    /// The run directory of the job `name`.
    pub fn run(&self, name: &str) -> RunDirectory {
        RunDirectory::new(self.runs().join(name))
    }

    /// What the processes of jobs wrote to their terminals, a file each.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What the processes of the job `name` wrote.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// What was said when the node `host` was asked last whether it answers.
    pub fn node_log(&self, host: &str) -> PathBuf {
        self.root.join("nodes").join(format!("{host}.log"))
    }

    /// The table of all rows, as Markdown.
    pub fn table_markdown(&self) -> PathBuf {
        self.root.join("table.md")
    }

    /// The table of all rows, as CSV.
    pub fn table_csv(&self) -> PathBuf {
        self.root.join("table.csv")
    }

    /// Who runs the farm and what is asked of it: `control/alive.json`, `control/lock` and `control/stop` as in a run
    /// directory, with the same rules.
    pub fn as_run(&self) -> RunDirectory {
        RunDirectory::new(&self.root)
    }

    /// Whether there is a farm here.
    pub fn holds_a_farm(&self) -> bool {
        self.jobs().is_file()
    }
}
