//! A run directory as a stream of records: all ranks' files, read from where they were left.
//!
//! Polls instead of waiting for notifications: those do not reach other hosts of a shared file
//! system. Notices when files are replaced or go away under it.

use super::state::Presence;
use crate::error::{Context, Failure, Result};
use crate::runlog::Record;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::Tail;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What is new in a run directory.
#[derive(Debug)]
pub struct Feed {
    directory: RunDirectory,
    files: BTreeMap<PathBuf, LogFile>,
    new_tail: fn(PathBuf) -> Tail,
    notices: Vec<Notice>,
    is_gone: bool,
    /// What is named like a log and is no file.
    strangers: BTreeSet<PathBuf>,
}

/// Something about the files of a run that their records do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub sentence: String,
    /// Whether all records before are void: the next ones tell the run from its beginning.
    pub is_void: bool,
}

/// The log of one rank, and records of it that are read and not yet due.
#[derive(Debug)]
struct LogFile {
    tail: Tail,
    waiting: VecDeque<Record>,
    is_missing: bool,
    /// Why it could not be read when that was tried last, and what was told of it.
    problem: Option<String>,
    told: Option<String>,
}

impl LogFile {
    fn new(tail: Tail) -> Self {
        let (problem, told) = (None, None);
        Self { tail, waiting: VecDeque::new(), is_missing: false, problem, told }
    }

    /// Reads the next piece. A log that cannot be read hides no other one, and is tried again.
    fn fill(&mut self) {
        let read = self.tail.read().map(VecDeque::from);
        self.problem = read.as_ref().err().map(Failure::sentence);
        self.waiting = read.unwrap_or_default();
    }

    /// Whether reading again at once gives more.
    fn is_behind(&self) -> bool {
        let is_read = !self.is_missing && self.problem.is_none();
        is_read && self.waiting.is_empty() && self.tail.is_behind()
    }

    /// Whether the file has gone since it was looked at last.
    fn went_away(&mut self, path: &Path) -> bool {
        let was_missing = std::mem::replace(&mut self.is_missing, !path.is_file());
        self.is_missing && !was_missing
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
        Ok(Self {
            directory,
            files: BTreeMap::new(),
            new_tail: Tail::new,
            notices: Vec::new(),
            is_gone: false,
            strangers: BTreeSet::new(),
        })
    }

    /// A feed of the first few records of each rank and the newest ones: what there is to show while
    /// a long log is being read.
    pub fn both_ends(directory: RunDirectory) -> Result<Self> {
        Ok(Self { new_tail: Tail::both_ends, ..Self::open(directory)? })
    }

    /// Whether a process is writing the run.
    pub fn presence(&self) -> Presence {
        if !self.directory.root().is_dir() {
            Presence::Gone
        } else if self.directory.writer().is_none() {
            Presence::Absent
        } else if self.directory.requested(&self.directory.stop_request()).is_some() {
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
        self.look()?;
        self.fill()?;
        let another = self
            .files
            .iter_mut()
            .find_map(|(path, file)| file.tail.was_replaced().then(|| file_name(path)));
        if let Some(name) = another {
            let sentence = format!("the log `{name}` was replaced and is read anew");
            self.notices.push(Notice { sentence, is_void: true });
            self.restart();
            self.look()?;
            self.fill()?;
        }
        let problems = self.files.values_mut().filter_map(|file| {
            let is_new = file.told != file.problem;
            file.told.clone_from(&file.problem);
            file.told.clone().filter(|_| is_new)
        });
        for problem in problems.collect::<Vec<_>>() {
            self.notice(problem);
        }
        let mut records = Vec::new();
        for file in self.files.values_mut() {
            let later = file.waiting.iter().position(|record| record.time_ms > limit_ms);
            records.extend(file.waiting.drain(..later.unwrap_or(file.waiting.len())));
        }
        Ok(records)
    }

    /// What was noticed since the last call. To be asked for after each reading: it comes before the
    /// records that were read.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Tells the run from its beginning again.
    pub fn restart(&mut self) {
        self.files.clear();
    }

    /// Reads the next piece of every file of which no record is waiting: long logs with all cores,
    /// because understanding them takes longer than reading.
    fn fill(&mut self) -> Result<()> {
        let is_long = self.is_behind();
        let files = self.files.values_mut().filter(|file| !file.is_missing);
        let mut empty: Vec<&mut LogFile> = files.filter(|file| file.waiting.is_empty()).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        if !is_long || threads == 1 {
            empty.into_iter().for_each(LogFile::fill);
            return Ok(());
        }
        let share = empty.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let parts = empty
                .chunks_mut(share)
                .map(|part| scope.spawn(|| part.iter_mut().for_each(|file| file.fill())));
            let parts: Vec<_> = parts.collect();
            parts.into_iter().try_for_each(|part| {
                part.join().map_err(|_panic| Failure::new("a thread that reads logs panicked"))
            })
        })
    }

    /// Whether reading again at once gives more.
    pub fn is_behind(&self) -> bool {
        self.files.values().any(LogFile::is_behind)
    }

    /// How much of the files is read, in `[0, 1]`.
    pub fn share_read(&self) -> f64 {
        let bytes = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let whole: u64 = self.files.keys().map(bytes).sum();
        let read: u64 = self.files.values().map(|file| file.tail.offset_bytes()).sum();
        if whole == 0 { 1.0 } else { (read as f64 / whole as f64).min(1.0) }
    }

    /// Finds new files, and notices what became of those that are known.
    fn look(&mut self) -> Result<()> {
        let is_gone = !self.directory.root().is_dir();
        if is_gone && !self.is_gone {
            self.notice("the run directory is gone");
        }
        self.is_gone = is_gone;
        if is_gone {
            // Known files are missing only as long as the directory is.
            self.files.values_mut().for_each(|file| file.is_missing = true);
            return Ok(());
        }
        self.discover()?;
        let went_away = self.files.iter_mut().filter_map(|(path, file)| {
            file.went_away(path).then(|| format!("the log `{}` is gone", file_name(path)))
        });
        for sentence in went_away.collect::<Vec<_>>() {
            self.notice(sentence);
        }
        Ok(())
    }

    fn notice(&mut self, sentence: impl Into<String>) {
        self.notices.push(Notice { sentence: sentence.into(), is_void: false });
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
            let is_log = path.extension().is_some_and(|extension| extension == "jsonl");
            if !is_log || self.files.contains_key(&path) {
                continue;
            }
            if path.is_file() {
                let file = LogFile::new((self.new_tail)(path.clone()));
                self.files.insert(path, file);
            } else if self.strangers.insert(path.clone()) {
                self.notice(format!("`{}` is no file and is passed over", file_name(&path)));
            }
        }
        Ok(())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
