//! A run directory as a stream of records: all ranks' files, read from where they were left.
//!
//! Polls instead of waiting for notifications: those do not reach other hosts of a shared file
//! system.

use super::state::Presence;
use crate::error::{Context, Failure, Result};
use crate::runlog::Record;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::Tail;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::PathBuf;

/// What is new in a run directory.
#[derive(Debug)]
pub struct Feed {
    directory: RunDirectory,
    files: BTreeMap<PathBuf, LogFile>,
    new_tail: fn(PathBuf) -> Tail,
}

/// The log of one rank, and records of it that are read and not yet due.
#[derive(Debug)]
struct LogFile {
    tail: Tail,
    waiting: VecDeque<Record>,
}

impl LogFile {
    fn fill(&mut self) -> Result<()> {
        self.waiting = self.tail.read()?.into();
        Ok(())
    }
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
        Ok(Self { directory, files: BTreeMap::new(), new_tail: Tail::new })
    }

    /// A feed of the first few records of each rank and the newest ones: what there is to show while
    /// a long log is being read.
    pub fn both_ends(directory: RunDirectory) -> Result<Self> {
        Ok(Self { new_tail: Tail::both_ends, ..Self::open(directory)? })
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
        self.read_until(u64::MAX)
    }

    /// The next records that were written up to `limit_ms`, milliseconds since 1970 (UTC).
    pub fn read_until(&mut self, limit_ms: u64) -> Result<Vec<Record>> {
        self.discover()?;
        self.fill()?;
        let mut records = Vec::new();
        for file in self.files.values_mut() {
            let later = file.waiting.iter().position(|record| record.time_ms > limit_ms);
            records.extend(file.waiting.drain(..later.unwrap_or(file.waiting.len())));
        }
        Ok(records)
    }

    /// Reads the next piece of every file of which no record is waiting: long logs with all cores,
    /// because understanding them takes longer than reading.
    fn fill(&mut self) -> Result<()> {
        let is_long = self.is_behind();
        let mut empty: Vec<&mut LogFile> =
            self.files.values_mut().filter(|file| file.waiting.is_empty()).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        if !is_long || threads == 1 {
            return empty.into_iter().try_for_each(LogFile::fill);
        }
        let share = empty.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let parts = empty
                .chunks_mut(share)
                .map(|part| scope.spawn(|| part.iter_mut().try_for_each(|file| file.fill())));
            let parts: Vec<_> = parts.collect();
            parts.into_iter().try_for_each(|part| {
                part.join()
                    .unwrap_or_else(|_| Err(Failure::new("a thread that reads logs panicked")))
            })
        })
    }

    /// Whether reading again at once gives more.
    pub fn is_behind(&self) -> bool {
        self.files.values().any(|file| file.waiting.is_empty() && file.tail.is_behind())
    }

    /// How much of the files is read, in `[0, 1]`.
    pub fn share_read(&self) -> f64 {
        let bytes = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let whole: u64 = self.files.keys().map(bytes).sum();
        let read: u64 = self.files.values().map(|file| file.tail.offset_bytes()).sum();
        if whole == 0 { 1.0 } else { (read as f64 / whole as f64).min(1.0) }
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
                self.files.entry(path.clone()).or_insert_with(|| LogFile {
                    tail: (self.new_tail)(path),
                    waiting: VecDeque::new(),
                });
            }
        }
        Ok(())
    }
}
