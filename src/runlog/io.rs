//! Writing and reading the lines of a run log.
//!
//! A record is one line and one write, so that lines of a crashed writer are torn at the end only.
//! What the events mean is not known here.

use super::directory::make_folder;
use super::{Record, RunEvent, now_ms};
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::LOG_LINE_BYTES;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
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
    /// The folder in which the file was opened.
    folder: Option<Identity>,
    /// Records that could not be written since the last one that could.
    lost: u64,
    is_missing: bool,
}

/// Device and number of a file or folder.
type Identity = (u64, u64);

impl LogWriter {
    /// Opens the file for appending and creates it and its folder where they are missing. A torn
    /// line of a crashed writer is ended first, so that it spoils nothing that follows.
    pub fn open(path: &Path, rank: u32) -> Result<Self> {
        let name = path.display();
        let doing = || format!("cannot write the run log `{name}`");
        let folder = path.parent().unwrap_or(Path::new("."));
        make_folder(folder).context(doing)?;
        let mut file = files::open_to_append(path).context(doing)?;
        if is_torn(&mut file).context(doing)? {
            file.write_all(b"\n").context(doing)?;
        }
        let folder = identity(folder);
        Ok(Self { path: path.to_owned(), rank, file, folder, lost: 0, is_missing: false })
    }

    fn write(&mut self, event: &RunEvent) -> Result<()> {
        let doing = || format!("cannot write the run log `{}`", self.path.display());
        let mut lines = Vec::new();
        if self.lost > 0 {
            // What was written of the lost ones must not spoil this line.
            if is_torn(&mut self.file).context(doing)? {
                lines.push(b'\n');
            }
            let lost = self.lost;
            let records = if lost == 1 { "record is" } else { "records are" };
            let message =
                format!("{lost} {records} missing before this one: the log could not be written");
            self.push_line(&mut lines, &RunEvent::Warning { message })?;
        }
        self.push_line(&mut lines, event)?;
        self.file.write_all(&lines).context(doing)
    }

    /// Adds the record of an event; of one that no reader would take, a warning.
    fn push_line(&self, lines: &mut Vec<u8>, event: &RunEvent) -> Result<()> {
        let line = |event: RunEvent| {
            let record = Record { time_ms: now_ms(), rank: self.rank, event };
            serde_json::to_vec(&record)
                .context(|| format!("cannot write the run log `{}`", self.path.display()))
        };
        let mut whole = line(event.clone())?;
        if whole.len() > LOG_LINE_BYTES {
            let message = format!(
                "a record of {} bytes was left out, expected at most {LOG_LINE_BYTES}",
                whole.len()
            );
            whole = line(RunEvent::Warning { message })?;
        }
        lines.append(&mut whole);
        lines.push(b'\n');
        Ok(())
    }

    /// Goes on in a new file where the old one was moved away or removed; in no other folder than
    /// before, which would be somebody else's.
    fn follow_the_name(&mut self) {
        let ours = self.file.metadata().ok().map(|ours| (ours.dev(), ours.ino()));
        if ours.is_none() || ours == identity(&self.path) {
            self.is_missing = false;
            return;
        }
        let folder = self.path.parent().and_then(identity);
        if folder.is_some() && folder == self.folder {
            match files::open_to_append(&self.path) {
                Ok(file) => self.file = file,
                Err(error) => self.warn_missing(&format!(": {error}")),
            }
        } else {
            self.warn_missing("");
        }
    }

    fn warn_missing(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_missing, true) {
            tracing::warn!("the run log `{}` was moved or removed{why}", self.path.display());
        }
    }
}

impl EventSink for LogWriter {
    fn emit(&mut self, event: &RunEvent) {
        self.follow_the_name();
        match self.write(event) {
            Ok(()) => self.lost = 0,
            Err(failure) => {
                // Once for each time that it begins to fail: a full disk would otherwise say so at every
                // step.
                if self.lost == 0 {
                    tracing::warn!("{}", failure.sentence());
                }
                self.lost += 1;
            }
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|there| (there.dev(), there.ino()))
}

/// One log of several writers in a process: the training thread, and the one that samples the machine.
#[derive(Debug, Clone)]
pub struct SharedLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Mutex<LogWriter>,
    /// What came while somebody was writing.
    waiting: Mutex<Vec<RunEvent>>,
}

/// Events that may wait for the one who writes; more are dropped.
const WAITING: usize = 1000;

impl SharedLog {
    /// Shares a log.
    pub fn new(log: LogWriter) -> Self {
        Self(Arc::new(Shared { log: Mutex::new(log), waiting: Mutex::default() }))
    }

    /// Takes note of an event without waiting for whoever is writing, who may be the one that calls: a
    /// log that cannot be written says so in a line that would end up here. It is then written with the
    /// next one.
    pub fn emit_unless_busy(&self, event: &RunEvent) {
        if let Ok(mut log) = self.0.log.try_lock() {
            log.emit(event);
            return;
        }
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.push(event.clone());
        }
    }
}

impl EventSink for SharedLog {
    fn emit(&mut self, event: &RunEvent) {
        // A writer that panicked left whole lines behind: a line is one write.
        let mut log = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting =
            || std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for event in waiting() {
            log.emit(&event);
        }
        log.emit(event);
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
    /// Whether the line under way is longer than any record; what comes of it is dropped.
    is_too_long: bool,
    skipped: u64,
}

impl Lines {
    fn take(&mut self, piece: &[u8]) -> Vec<Record> {
        let mut records = Vec::new();
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.go_on(&rest[..end]);
            rest = &rest[end + 1..];
            let is_too_long = std::mem::take(&mut self.is_too_long);
            match Record::from_line(&self.unfinished) {
                Ok(record) if !is_too_long => records.push(record),
                _ => self.skipped += 1,
            }
            self.unfinished.clear();
        }
        self.go_on(rest);
        records
    }

    fn go_on(&mut self, part: &[u8]) {
        if self.unfinished.len() + part.len() > LOG_LINE_BYTES {
            self.spoil();
        }
        if !self.is_too_long {
            self.unfinished.extend_from_slice(part);
        }
    }

    /// The line under way is no record, whatever follows.
    fn spoil(&mut self) {
        self.is_too_long = true;
        self.unfinished = Vec::new();
    }
}

/// Reads what is new in a growing file of records.
///
/// Remembers how far it has read, holds back an unfinished last line, and skips lines that are no
/// records. A file that does not exist yet is empty. One that is shorter than what was read, or that
/// holds other bytes before the place where reading is to go on, is another one: it is read from its
/// beginning, and [`Tail::was_replaced`] says so. A copy that grows as its original does is the same file.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    offset_bytes: u64,
    /// The last bytes before the offset.
    before: Vec<u8>,
    lines: Lines,
    /// Where to go on after the first piece, for those who want both ends of a file only.
    jump: Option<u64>,
    is_behind: bool,
    was_replaced: bool,
}

/// Bytes read at once: a long log is folded in pieces instead of being held in memory whole.
const PIECE_BYTES: u64 = 1 << 17;
/// Bytes by which a file is known again.
const KNOWN_BYTES: usize = 256;
/// The ends of a file that [`Tail::both_ends`] reads.
const END_BYTES: [u64; 2] = [1 << 12, 1 << 15];

impl Tail {
    /// Reads `path` from its beginning.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            offset_bytes: 0,
            before: Vec::new(),
            lines: Lines::default(),
            jump: None,
            is_behind: false,
            was_replaced: false,
        }
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

    /// How many complete lines were no records.
    pub fn skipped_lines(&self) -> u64 {
        self.lines.skipped
    }

    /// Whether the file turned out to be another one since this was last asked: the records read since
    /// then are its first, and those before are in it no more.
    pub fn was_replaced(&mut self) -> bool {
        std::mem::take(&mut self.was_replaced)
    }

    /// The next complete records, a few hundred kilobytes of them; none where nothing is new.
    pub fn read(&mut self) -> Result<Vec<Record>> {
        let mut file = match files::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.is_behind = false;
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.failure(&error)),
        };
        self.know_again(&mut file).map_err(|error| self.failure(&error))?;
        loop {
            let room = if self.jump.is_some() { END_BYTES[0] } else { PIECE_BYTES };
            let mut piece = Vec::new();
            file.seek(SeekFrom::Start(self.offset_bytes))
                .and_then(|_| (&file).take(room).read_to_end(&mut piece))
                .map_err(|error| self.failure(&error))?;
            self.is_behind = piece.len() as u64 == room;
            let records = self.take(&piece);
            if let Some(offset_bytes) = self.jump.take() {
                // The rest of the line that is jumped into is none.
                self.lines.spoil();
                self.offset_bytes = offset_bytes;
                self.before.clear();
                return Ok(records);
            }
            if !records.is_empty() || !self.is_behind {
                return Ok(records);
            }
            if piece.iter().all(|&byte| byte == 0) {
                self.leap(&file);
            }
        }
    }

    fn take(&mut self, piece: &[u8]) -> Vec<Record> {
        self.offset_bytes += piece.len() as u64;
        self.before.extend_from_slice(&piece[piece.len().saturating_sub(KNOWN_BYTES)..]);
        self.before.drain(..self.before.len().saturating_sub(KNOWN_BYTES));
        self.lines.take(piece)
    }

    /// Begins anew where the file is not the one that was read before.
    fn know_again(&mut self, file: &mut File) -> std::io::Result<()> {
        let mut there = vec![0; self.before.len()];
        let known_from = self.offset_bytes - self.before.len() as u64;
        let is_same = match file
            .seek(SeekFrom::Start(known_from))
            .and_then(|_| file.read_exact(&mut there))
        {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
            read => read.map(|()| {
                there == self.before && file.metadata().is_ok_and(|m| m.len() >= self.offset_bytes)
            })?,
        };
        if !is_same {
            *self = Self { was_replaced: true, ..Self::new(std::mem::take(&mut self.path)) };
        }
        Ok(())
    }

    /// Passes over a hole, which is as long as the system says: reading it would take minutes.
    fn leap(&mut self, file: &File) {
        let end = file.metadata().map_or(0, |metadata| metadata.len());
        let data = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(self.offset_bytes)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => end,
            Err(_) => return,
        };
        if data > self.offset_bytes + KNOWN_BYTES as u64 {
            self.lines.spoil();
            self.offset_bytes = data;
            self.before = vec![0; KNOWN_BYTES];
        }
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

    /// A log that is full, then writable again: a file in which nothing can be written stands for it.
    #[test]
    fn a_log_that_could_not_be_written_says_so_when_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rank-0000.jsonl");
        let mut writer = LogWriter::open(&path, 0).unwrap();
        for round in 0..2 {
            let sound = std::mem::replace(&mut writer.file, File::open(&path).unwrap());
            writer.emit(&warning("lost"));
            writer.emit(&warning("lost"));
            assert_eq!(writer.lost, 2);
            writer.file = sound;
            // Half of a line was written before the disk was full.
            if round == 0 {
                writer.file.write_all(br#"{"time_ms":17"#).unwrap();
            }
            writer.emit(&warning("whole"));
            assert_eq!(writer.lost, 0);
        }
        let mut tail = Tail::new(&path);
        let told = warning("2 records are missing before this one: the log could not be written");
        let expected = [told.clone(), warning("whole"), told, warning("whole")];
        assert_eq!(events(tail.read().unwrap()), expected);
        assert_eq!(tail.skipped_lines(), 1);
    }

    #[test]
    fn a_log_goes_on_under_its_name_and_comes_back_in_no_other_folder() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("events");
        let path = folder.join("rank-0000.jsonl");
        let mut writer = LogWriter::open(&path, 0).unwrap();
        writer.emit(&warning("one"));
        std::fs::rename(&path, folder.join("rank-0000.jsonl.1")).unwrap();
        writer.emit(&warning("two"));
        assert_eq!(events(Tail::new(&path).read().unwrap()), [warning("two")]);
        std::fs::rename(&folder, directory.path().join("moved")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        writer.emit(&warning("three"));
        assert!(!path.exists());
        std::fs::remove_dir(&folder).unwrap();
        writer.emit(&warning("four"));
        assert!(!folder.exists());
    }

    #[test]
    fn a_record_that_no_reader_would_take_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rank-0000.jsonl");
        let mut writer = LogWriter::open(&path, 0).unwrap();
        writer.emit(&warning(&"x".repeat(2 * LOG_LINE_BYTES)));
        let read = events(Tail::new(&path).read().unwrap());
        assert!(matches!(&read[..], [RunEvent::Warning { message }] if message.len() < 100));
    }

    #[test]
    fn what_is_said_while_somebody_writes_is_written_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rank-0000.jsonl");
        let mut log = SharedLog::new(LogWriter::open(&path, 0).unwrap());
        let busy = log.0.log.lock().unwrap();
        log.emit_unless_busy(&warning("waits"));
        drop(busy);
        log.emit(&warning("next"));
        assert_eq!(events(Tail::new(&path).read().unwrap()), [warning("waits"), warning("next")]);
    }

    /// Two gigabytes without a newline, as a power cut leaves them, and a line that is too long.
    #[test]
    fn long_stretches_that_are_no_lines_are_one_skipped_line_each() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rank-0000.jsonl");
        let mut writer = LogWriter::open(&path, 0).unwrap();
        writer.emit(&warning("one"));
        writer.file.set_len(2 << 30).unwrap();
        writer.file.write_all(b"\n").unwrap();
        writer.emit(&warning("two"));
        writer.file.write_all(&vec![b'x'; 3 * LOG_LINE_BYTES]).unwrap();
        let mut tail = Tail::new(&path);
        let mut read = events(tail.read().unwrap());
        read.extend(events(tail.read().unwrap()));
        assert_eq!(read, [warning("one"), warning("two")]);
        assert_eq!(tail.read().unwrap(), []);
        assert!(tail.lines.unfinished.len() <= LOG_LINE_BYTES);
        writer.file.write_all(b"\n").unwrap();
        writer.emit(&warning("three"));
        assert_eq!(events(tail.read().unwrap()), [warning("three")]);
        assert_eq!((tail.skipped_lines(), tail.was_replaced()), (2, false));
        // A hole at the end, into which a line is written later.
        writer.file.set_len(4 << 30).unwrap();
        assert_eq!(tail.read().unwrap(), []);
        writer.file.write_all(b"\n").unwrap();
        writer.emit(&warning("four"));
        assert_eq!(events(tail.read().unwrap()), [warning("four")]);
        assert_eq!((tail.skipped_lines(), tail.was_replaced()), (3, false));
    }

    #[test]
    fn another_file_of_the_same_name_is_read_from_its_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rank-0000.jsonl");
        let other = directory.path().join("other.jsonl");
        let line = |message: &str| {
            let record = Record { time_ms: 1, rank: 0, event: warning(message) };
            serde_json::to_string(&record).unwrap() + "\n"
        };
        let ways: [&dyn Fn(); 4] = [
            // Cut short, rewritten longer than before, moved away, removed and made again.
            &|| std::fs::write(&path, line("new")).unwrap(),
            &|| std::fs::write(&path, line("new") + &line("and longer") + "\n\n").unwrap(),
            &|| {
                std::fs::rename(&path, &other).unwrap();
                std::fs::write(&path, line("new")).unwrap();
            },
            &|| {
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, line("new") + &line("four") + &line("five")).unwrap();
            },
        ];
        for replace in ways {
            std::fs::write(&path, line("one") + &line("two")).unwrap();
            let mut tail = Tail::new(&path);
            assert_eq!(tail.read().unwrap().len(), 2);
            assert!(!tail.was_replaced());
            replace();
            assert_eq!(events(tail.read().unwrap()).first(), Some(&warning("new")));
            assert!(tail.was_replaced() && !tail.was_replaced());
        }
        // A copy of a growing log, renamed over the copy before, is the same log.
        std::fs::write(&path, line("one")).unwrap();
        let mut tail = Tail::new(&path);
        tail.read().unwrap();
        std::fs::write(&other, line("one") + &line("two")).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(events(tail.read().unwrap()), [warning("two")]);
        assert!(!tail.was_replaced());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tail.read().unwrap(), []);
        assert!(!tail.was_replaced() && !tail.is_behind());
    }

    #[test]
    fn a_log_that_is_no_file_is_an_error_and_no_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rank-0000.jsonl");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600))
            .unwrap();
        let failure = Tail::new(&path).read().unwrap_err();
        assert!(failure.sentence().ends_with("it is a named pipe, expected a file"), "{failure}");
        assert!(LogWriter::open(&path, 0).is_err());
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
            prop_assert_eq!(lines.skipped, junk.matches('\n').count() as u64 + 1);
        }
    }
}
