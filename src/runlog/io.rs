//! Writing and reading the lines of a run log.
//!
//! A record is one line and one write, so that lines of a crashed writer are torn at the end only.
//! What the events mean is not known here.

use super::{Record, RunEvent, now_ms};
use crate::error::{Context, Failure, Result};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the facts of a run go.
pub trait EventSink {
    /// Takes note of an event. A sink that cannot does not stop the run.
    fn emit(&mut self, event: &RunEvent);
}

/// Forgets every event: for ranks and tools that have nothing to report to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl EventSink for Silent {
    fn emit(&mut self, _event: &RunEvent) {}
}

impl EventSink for Vec<RunEvent> {
    fn emit(&mut self, event: &RunEvent) {
        self.push(event.clone());
    }
}

/// Appends the records of one rank to its file.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    rank: u32,
    file: File,
    has_failed: bool,
}

impl LogWriter {
    /// Opens the file for appending and creates it and its directory where they are missing. A torn
    /// line of a crashed writer is ended first, so that it spoils nothing that follows.
    pub fn open(path: &Path, rank: u32) -> Result<Self> {
        let name = path.display();
        let doing = || format!("cannot write the run log `{name}`");
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).context(doing)?;
        }
        let open = OpenOptions::new().create(true).append(true).read(true).open(path);
        let mut file = open.context(doing)?;
        if is_torn(&mut file).context(doing)? {
            file.write_all(b"\n").context(doing)?;
        }
        Ok(Self { path: path.to_owned(), rank, file, has_failed: false })
    }

    fn write(&mut self, event: &RunEvent) -> Result<()> {
        let doing = || format!("cannot write the run log `{}`", self.path.display());
        let record = Record { time_ms: now_ms(), rank: self.rank, event: event.clone() };
        let mut line = serde_json::to_vec(&record).context(doing)?;
        line.push(b'\n');
        self.file.write_all(&line).context(doing)
    }
}

impl EventSink for LogWriter {
    fn emit(&mut self, event: &RunEvent) {
        if let Err(failure) = self.write(event) {
            // Once: a full disk would otherwise say so at every step.
            if !std::mem::replace(&mut self.has_failed, true) {
                tracing::warn!("{failure}");
            }
        }
    }
}

/// One log of several writers in a process: the training thread, and the one that samples the machine.
#[derive(Debug, Clone)]
pub struct SharedLog(Arc<Mutex<LogWriter>>);

impl SharedLog {
    /// Shares a log.
    pub fn new(log: LogWriter) -> Self {
        Self(Arc::new(Mutex::new(log)))
    }

    /// Takes note of an event unless somebody is writing, who may be the one that calls: a log that
    /// cannot be written says so in a line that would end up here.
    pub fn emit_unless_busy(&self, event: &RunEvent) {
        if let Ok(mut log) = self.0.try_lock() {
            log.emit(event);
        }
    }
}

impl EventSink for SharedLog {
    fn emit(&mut self, event: &RunEvent) {
        // A writer that panicked left whole lines behind: a line is one write.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).emit(event);
    }
}

fn is_torn(file: &mut File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Puts records together from pieces of a file, however it was cut.
#[derive(Debug, Default)]
struct Lines {
    unfinished: Vec<u8>,
    skipped_lines: u64,
}

impl Lines {
    fn take(&mut self, piece: &[u8]) -> Vec<Record> {
        let mut records = Vec::new();
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.unfinished.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            match Record::from_line(&self.unfinished) {
                Ok(record) => records.push(record),
                Err(_) => self.skipped_lines += 1,
            }
            self.unfinished.clear();
        }
        self.unfinished.extend_from_slice(rest);
        records
    }
}

/// Reads what is new in a growing file of records.
///
/// Remembers how far it has read, holds back an unfinished last line, and skips lines that are no
/// records. A file that does not exist yet is empty.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset_bytes: u64,
    lines: Lines,
    /// Where to go on after the first piece, for those who want both ends of a file only.
    jump: Option<u64>,
    is_behind: bool,
}

/// Bytes read at once: a long log is folded in pieces instead of being held in memory whole.
const PIECE_BYTES: u64 = 1 << 17;
/// The ends of a file that [`Tail::both_ends`] reads.
const END_BYTES: [u64; 2] = [1 << 12, 1 << 15];

impl Tail {
    /// Reads `path` from its beginning.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { path, offset_bytes: 0, lines: Lines::default(), jump: None, is_behind: false }
    }

    /// Reads the first few and the last few records of `path`, and what is added later.
    pub fn both_ends(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let length = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let jump = (length > END_BYTES.iter().sum()).then(|| length - END_BYTES[1]);
        Self { jump, ..Self::new(path) }
    }

    /// Whether the file went on where the last piece ended.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// How many bytes are read, the held back ones included.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The next complete records, a few hundred kilobytes of them; none where nothing is new.
    pub fn read(&mut self) -> Result<Vec<Record>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failure(&error)),
        };
        let mut piece = Vec::new();
        let jump = self.jump.take();
        let room = if jump.is_some() { END_BYTES[0] } else { PIECE_BYTES };
        file.seek(SeekFrom::Start(self.offset_bytes))
            .and_then(|_| file.take(room).read_to_end(&mut piece))
            .map_err(|error| self.failure(&error))?;
        self.offset_bytes += piece.len() as u64;
        self.is_behind = piece.len() as u64 == room;
        let records = self.lines.take(&piece);
        if let Some(offset_bytes) = jump {
            // The rest of the line that is jumped into joins the torn one, and both are skipped.
            self.offset_bytes = offset_bytes;
            self.lines.unfinished.push(b'?');
            return Ok(records);
        }
        // A line longer than a piece would look like the end of the file.
        if records.is_empty() && !piece.is_empty() { self.read() } else { Ok(records) }
    }

    /// How many complete lines were no records.
    pub fn skipped_lines(&self) -> u64 {
        self.lines.skipped_lines
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("cannot read the run log `{}`", self.path.display())).because(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn warning(message: &str) -> RunEvent {
        RunEvent::Warning { message: message.to_owned() }
    }

    fn events(records: Vec<Record>) -> Vec<RunEvent> {
        records.into_iter().map(|record| record.event).collect()
    }

    #[test]
    fn what_is_written_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events/rank-0003.jsonl");
        let mut tail = Tail::new(&path);
        assert_eq!(tail.read().unwrap(), []);
        let mut writer = LogWriter::open(&path, 3).unwrap();
        writer.emit(&warning("one"));
        writer.emit(&warning("two"));
        let records = tail.read().unwrap();
        assert!(records.iter().all(|record| record.rank == 3 && record.time_ms > 0));
        assert_eq!(events(records), [warning("one"), warning("two")]);
        assert_eq!(tail.read().unwrap(), []);
        writer.emit(&warning("three"));
        assert_eq!(events(tail.read().unwrap()), [warning("three")]);
    }

    #[test]
    fn a_torn_line_is_held_back_and_then_lost_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rank-0000.jsonl");
        std::fs::write(&path, r#"{"time_ms":1,"rank":0,"event":"warn"#).unwrap();
        let mut tail = Tail::new(&path);
        assert_eq!(tail.read().unwrap(), []);
        assert_eq!(tail.skipped_lines(), 0);
        LogWriter::open(&path, 0).unwrap().emit(&warning("after the crash"));
        assert_eq!(events(tail.read().unwrap()), [warning("after the crash")]);
        assert_eq!(tail.skipped_lines(), 1);
    }

    #[test]
    fn both_ends_of_a_long_file_are_read_and_what_follows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rank-0000.jsonl");
        let mut writer = LogWriter::open(&path, 0).unwrap();
        for index in 0..2000 {
            writer.emit(&warning(&format!("message {index}")));
        }
        let mut tail = Tail::both_ends(&path);
        let mut read = Vec::new();
        loop {
            let records = tail.read().unwrap();
            if records.is_empty() {
                break;
            }
            read.extend(events(records));
        }
        assert!(read.len() < 1000 && read.len() > 300);
        assert_eq!(read.first(), Some(&warning("message 0")));
        assert_eq!(read.last(), Some(&warning("message 1999")));
        writer.emit(&warning("new"));
        assert_eq!(events(tail.read().unwrap()), [warning("new")]);
    }

    #[test]
    fn a_log_that_cannot_be_written_does_not_stop_the_run() {
        let path = Path::new("/dev/full");
        let mut writer = LogWriter::open(path, 0).unwrap();
        writer.emit(&warning("lost"));
        assert!(writer.has_failed);
    }

    proptest! {
        #[test]
        fn records_do_not_depend_on_how_the_file_was_cut(
            messages in prop::collection::vec("[a-zü\\\\\"]{0,6}", 0..6),
            junk in "[a-z{}\n]{0,12}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes = junk.clone().into_bytes();
            bytes.push(b'\n');
            for message in &messages {
                let record = Record { time_ms: 1, rank: 0, event: warning(message) };
                bytes.extend(serde_json::to_vec(&record).unwrap());
                bytes.push(b'\n');
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let records: Vec<Record> =
                cuts.windows(2).flat_map(|cut| lines.take(&bytes[cut[0]..cut[1]])).collect();
            prop_assert_eq!(events(records), messages.iter().map(|m| warning(m)).collect::<Vec<_>>());
            prop_assert_eq!(lines.skipped_lines, junk.matches('\n').count() as u64 + 1);
        }
    }
}
