//! A run directory as a stream of records: all ranks' files, read from where they were left.
//!
//! Polls instead of waiting for notifications: those do not reach other hosts of a shared file
//! system.

use super::state::Presence;
use crate::error::{Context, Failure, Result};
use crate::runlog::Record;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::Tail;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

/// What is new in a run directory.
#[derive(Debug)]
pub struct Feed {
    directory: RunDirectory,
    tails: BTreeMap<PathBuf, Tail>,
}

impl Feed {
    /// The feed of a directory; refuses one that holds no run.
    pub fn open(directory: RunDirectory) -> Result<Self> {
        let name = directory.root().display();
        if !directory.root().is_dir() {
            return Err(Failure::usage(format!("there is no run directory `{name}`"))
                .hint(format!("start a run there with `scrimp train CONFIG --run {name}`")));
        }
        if !directory.holds_a_run() {
            return Err(Failure::usage(format!(
                "`{name}` is not a run: it has neither `config.toml` nor `events`"
            ))
            .hint("name the directory that `scrimp train --run` wrote"));
        }
        Ok(Self { directory, tails: BTreeMap::new() })
    }

    /// Whether a process is writing the run.
    pub fn presence(&self) -> Presence {
        if self.directory.writer().is_none() {
            Presence::Absent
        } else if self.directory.stop_request().exists() {
            Presence::Stopping
        } else {
            Presence::Writing
        }
    }

    /// The next records of all ranks, a bounded piece of each file; none where nothing is new.
    pub fn read(&mut self) -> Result<Vec<Record>> {
        self.discover()?;
        let mut records = Vec::new();
        for tail in self.tails.values_mut() {
            records.append(&mut tail.read()?);
        }
        Ok(records)
    }

    /// Ranks open their files one after the other, and later runs may have more of them.
    fn discover(&mut self) -> Result<()> {
        let events = self.directory.events();
        let doing = || format!("cannot list the run logs in `{}`", events.display());
        let entries = match events.read_dir() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.context(doing)?,
        };
        for entry in entries {
            let path = entry.context(doing)?.path();
            if path.extension().is_some_and(|extension| extension == "jsonl") {
                self.tails.entry(path.clone()).or_insert_with(|| Tail::new(path));
            }
        }
        Ok(())
    }
}
