//! How far a run is, as the end of its log says: its last step, its pace and its scores.
//!
//! A farm has hundreds of logs, and of each only the newest records matter. So a file is looked at when it has
//! changed, the last pieces of it are read, and of their lines only those that say how far the run is. The whole
//! story of a run is told by its own dashboard.

use crate::files;
use crate::limits::LOG_LINE_BYTES;
use crate::runlog::{Record, RunEvent};
use serde::Serialize;
use std::fs::Metadata;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// How much of a log is read at once from its end.
const PIECE_BYTES: u64 = 1 << 16;
/// How far behind the end a score is looked for, and how much of what is new is read at most.
const FARTHEST_BYTES: u64 = 1 << 20;
/// Bytes of a line in which its event is named: it stands in front.
const HEAD_BYTES: usize = 96;
/// Events that say how far a run is.
const TELLING: [&[u8]; 5] = [STEP, EVALUATED, STARTED, RESUMED, ENDED];
const STEP: &[u8] = br#""event":"step""#;
const EVALUATED: &[u8] = br#""event":"evaluated""#;
const STARTED: &[u8] = br#""event":"run_started""#;
const RESUMED: &[u8] = br#""event":"resumed""#;
const ENDED: &[u8] = br#""event":"run_ended""#;

/// How far a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Course {
    /// The last logged step; 0 before the first.
    pub step: u64,
    /// When it was logged, milliseconds since 1970 (UTC).
    pub step_at_ms: Option<u64>,
    /// Milliseconds from one step to the next over the last logged ones, whatever came between them.
    pub pace_ms: Option<f64>,
    /// Mean Dice of the last evaluation.
    pub mean_dice: Option<f64>,
    /// The best one so far.
    pub best_mean_dice: Option<f64>,
    /// The step of the best one.
    pub best_step: Option<u64>,
}

/// What tells whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    file: u64,
    length: u64,
    changed_ns: i128,
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        let changed_ns =
            i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Self { file: metadata.ino(), length: metadata.len(), changed_ns }
    }
}

/// The end of a log that grows.
#[derive(Debug)]
pub(super) struct LogEnd {
    path: PathBuf,
    seen: Option<Seen>,
    /// Up to where it is read.
    offset: u64,
    /// The line under way.
    unfinished: Vec<u8>,
    course: Course,
    /// The first step since the run last started of which the end of its log tells, and when.
    first: Option<(u64, u64)>,
}

impl LogEnd {
    pub(super) fn new(path: PathBuf) -> Self {
        let (unfinished, course) = (Vec::new(), Course::default());
        Self { path, seen: None, offset: 0, unfinished, course, first: None }
    }

    pub(super) fn course(&self) -> &Course {
        &self.course
    }

    /// Reads what is new, and says whether that says anything. What cannot be read says nothing, and is tried again.
    pub(super) fn look(&mut self) -> bool {
        let Ok(metadata) = std::fs::metadata(&self.path) else { return false };
        let seen = Seen::of(&metadata);
        if self.seen == Some(seen) {
            return false;
        }
        let is_other = self.seen.is_some_and(|before| before.file != seen.file);
        if is_other || seen.length < self.offset {
            *self = Self::new(std::mem::take(&mut self.path));
        }
        let before = self.course.clone();
        if self.read_on(seen.length).is_ok() {
            self.seen = Some(seen);
        }
        self.course != before
    }

    fn read_on(&mut self, length: u64) -> std::io::Result<()> {
        let mut file = files::open(&self.path)?;
        let is_first = self.offset == 0;
        let room = if is_first { PIECE_BYTES } else { FARTHEST_BYTES };
        let start = self.offset.max(length.saturating_sub(room));
        if start > self.offset {
            // The rest of the line that is jumped into is none.
            self.unfinished = b"-".to_vec();
        }
        let mut piece = read_at(&mut file, start, length - start)?;
        self.offset = start + piece.len() as u64;
        self.take(&piece);
        if is_first && self.course.mean_dice.is_none() {
            keep_first_line(&mut piece);
            self.look_for_score(&mut file, start, piece)?;
        }
        Ok(())
    }

    /// Takes the lines of a piece that say how far the run is; of steps in a row the first and the last.
    fn take(&mut self, piece: &[u8]) {
        let mut text = std::mem::take(&mut self.unfinished);
        text.extend_from_slice(piece);
        let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let mut last_step = None;
        for line in text[..end].split(|&byte| byte == b'\n').filter(|line| tells(line)) {
            let is_step = is_of(line, STEP);
            if is_step && self.first.is_some() {
                last_step = Some(line);
                continue;
            }
            if let Some(step) = last_step.take() {
                self.apply(step);
            }
            self.apply(line);
        }
        if let Some(step) = last_step {
            self.apply(step);
        }
        if text.len() - end <= LOG_LINE_BYTES {
            self.unfinished = text.split_off(end);
        }
    }

    fn fold(&mut self, record: Record) {
        let course = &mut self.course;
        match record.event {
            RunEvent::Step(step) => {
                let (now_ms, first) = (record.time_ms, self.first);
                let (first_step, first_ms) = *self.first.get_or_insert((step.step, now_ms));
                if first.is_some() && step.step > first_step {
                    let passed_ms = now_ms.saturating_sub(first_ms) as f64;
                    course.pace_ms = Some(passed_ms / (step.step - first_step) as f64);
                }
                (course.step, course.step_at_ms) = (step.step, Some(now_ms));
            }
            RunEvent::Evaluated(scores) => {
                let known = |dice: f64| Some(dice).filter(|dice| dice.is_finite());
                course.mean_dice = known(scores.mean_dice);
                course.best_mean_dice = known(scores.best_mean_dice);
                course.best_step = course.best_mean_dice.map(|_| scores.best_step);
            }
            // The time that passed since an earlier step was not spent on steps.
            RunEvent::RunStarted(_) | RunEvent::RunEnded { .. } => self.first = None,
            RunEvent::Resumed { step, .. } => {
                self.first = None;
                course.step = step;
            }
            _ => {}
        }
    }

    fn apply(&mut self, line: &[u8]) {
        if let Ok(record) = Record::from_line(line)
            && record.rank == 0
        {
            self.fold(record);
        }
    }

    /// Looks for the last evaluation in front of `end`, where the rest of a line stands, `behind`.
    fn look_for_score(
        &mut self,
        file: &mut std::fs::File,
        end: u64,
        mut behind: Vec<u8>,
    ) -> std::io::Result<()> {
        let (mut end, stop) = (end, end.saturating_sub(FARTHEST_BYTES));
        while end > stop {
            let start = end.saturating_sub(PIECE_BYTES).max(stop);
            let mut piece = read_at(file, start, end - start)?;
            piece.append(&mut behind);
            let scores =
                piece.split(|&byte| byte == b'\n').rev().find(|line| is_of(line, EVALUATED));
            let scores = scores.and_then(|line| Record::from_line(line).ok());
            if let Some(record) = scores {
                self.fold(record);
                return Ok(());
            }
            keep_first_line(&mut piece);
            behind = if piece.len() <= LOG_LINE_BYTES { piece } else { Vec::new() };
            end = start;
        }
        Ok(())
    }
}

fn read_at(file: &mut std::fs::File, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(length).read_to_end(&mut piece)?;
    Ok(piece)
}

fn keep_first_line(piece: &mut Vec<u8>) {
    piece.truncate(piece.iter().position(|&byte| byte == b'\n').unwrap_or(piece.len()));
}

fn tells(line: &[u8]) -> bool {
    TELLING.iter().any(|event| is_of(line, event))
}

fn is_of(line: &[u8], event: &[u8]) -> bool {
    line[..line.len().min(HEAD_BYTES)].windows(event.len()).any(|part| part == event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn step(at: u64) -> String {
        format!(
            r#"{{"time_ms":{},"rank":0,"event":"step","step":{at},"epoch":1,"loss":{{}},"lr":{{}},"grad_norm":{{}},"step_ms":1.0,"images_per_second":1.0}}"#,
            1000 + 20 * at
        ) + "\n"
    }

    fn scores(at: u64, dice: f64) -> String {
        format!(
            r#"{{"time_ms":1,"rank":0,"event":"evaluated","step":{at},"mean_dice":{dice},"best_mean_dice":0.9,"best_step":2,"cases":1,"seconds":1.0,"structures":[]}}"#
        ) + "\n"
    }

    fn append(path: &PathBuf, text: &str) {
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_end_says_the_last_step_its_pace_and_the_scores() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rank-0000.jsonl");
        let mut end = LogEnd::new(path.clone());
        assert!(!end.look() && *end.course() == Course::default());
        append(&path, &[step(1), step(2), scores(2, 0.5), step(3)].concat());
        assert!(end.look() && !end.look());
        let Course { step: last, pace_ms, mean_dice, best_mean_dice, best_step, .. } =
            *end.course();
        assert_eq!((last, pace_ms, mean_dice), (3, Some(20.0), Some(0.5)));
        assert_eq!((best_mean_dice, best_step), (Some(0.9), Some(2)));
        // A line that comes in two parts, and what is no record.
        let line = step(4);
        append(&path, &format!("{{\"event\":\"step\"\n{}", &line[..30]));
        end.look();
        assert_eq!(end.course().step, 3);
        append(&path, &line[30..]);
        assert!(end.look() && end.course().step == 4);
        // Another file of the same name.
        fs::remove_file(&path).unwrap();
        append(&path, &step(1));
        assert!(end.look());
        assert_eq!((end.course().step, end.course().mean_dice), (1, None));
    }

    #[test]
    fn of_a_long_log_the_end_is_read_and_the_last_score_is_found_far_in_front_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rank-0000.jsonl");
        let filler = "{\"time_ms\":1,\"rank\":0,\"event\":\"telemetry\",\"cpu_percent\":1.0}\n";
        let quiet = filler.repeat(3 * PIECE_BYTES as usize / filler.len());
        let text = [scores(5, 0.25), scores(6, 0.75), step(6), quiet.clone(), step(7), step(9)];
        append(&path, &text.concat());
        let mut end = LogEnd::new(path.clone());
        assert!(end.look());
        assert_eq!((end.course().step, end.course().mean_dice), (9, Some(0.75)));
        assert_eq!(end.course().pace_ms, Some(20.0));
        // Wherever the pieces are cut.
        for behind in 0..400 {
            let text =
                [step(1), scores(2, 0.5), "x".repeat(PIECE_BYTES as usize - behind)].concat();
            fs::write(folder.path().join("cut"), text + "\n").unwrap();
            let mut cut = LogEnd::new(folder.path().join("cut"));
            assert!(cut.look() && cut.course().mean_dice == Some(0.5), "{behind}");
        }
        // What lies farther away is not looked for, and more than that is jumped over.
        let long = quiet.repeat(7);
        append(&path, &[scores(10, 0.5), long, step(11)].concat());
        assert!(end.look());
        assert_eq!((end.course().step, end.course().mean_dice), (11, Some(0.75)));
        let mut late = LogEnd::new(path);
        assert!(late.look() && late.course().mean_dice.is_none());
    }

    #[test]
    fn a_run_that_goes_on_has_the_pace_of_its_last_start() {
        let started =
            "{\"time_ms\":9000,\"rank\":0,\"event\":\"resumed\",\"step\":2,\"checkpoint\":\"a\"}\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rank-0000.jsonl");
        let slow = step(4).replace("\"time_ms\":1080", "\"time_ms\":9940");
        let first = step(3).replace("1060", "9900");
        append(&path, &[step(1), step(3), started.to_owned(), first, slow].concat());
        let mut end = LogEnd::new(path);
        assert!(end.look());
        assert_eq!((end.course().step, end.course().pace_ms), (4, Some(40.0)));
    }
}
