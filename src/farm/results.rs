//! What a job of a farm left behind: how its run ended, what it scored, and the most memory that it took.
//!
//! Reads run directories and logs, and changes nothing. What follows from it is decided elsewhere.

use super::file::EvaluateSection;
use super::scores::{CaseScores, ScoredBy};
use crate::error::{Context, Result};
use crate::files;
use crate::limits::JSON_BYTES;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::Tail;
use crate::runlog::{Record, RunEvent, RunStatus};
use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How much of the end of a log is searched for its last error.
const LAST_WORDS_BYTES: u64 = 1 << 14;

/// What the logs of a run tell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunOutcome {
    /// How the last start said that it ended, where it could say so.
    pub end: Option<RunEnd>,
    /// The step of the checkpoint that the log names last.
    pub newest_checkpoint: Option<u64>,
    /// The most memory that each rank held at any time, added up over the ranks.
    pub memory_bytes: Option<u64>,
    /// The most memory of a GPU that was in use at any time.
    pub gpu_memory_bytes: Option<u64>,
}

/// How a run said that it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEnd {
    /// Why.
    pub status: RunStatus,
    /// One sentence about it.
    pub message: String,
    /// When, milliseconds since 1970 (UTC).
    pub time_ms: u64,
}

impl RunOutcome {
    /// Reads the logs of all ranks.
    pub fn read(run: &RunDirectory) -> Result<Self> {
        let mut outcome = Self::default();
        for rank in 0.. {
            let path = run.rank_events(rank);
            if !path.exists() {
                break;
            }
            let mut peak = None;
            let mut tail = Tail::new(path);
            loop {
                let records = tail.read()?;
                if records.is_empty() {
                    break;
                }
                for record in records {
                    outcome.take(record, rank == 0, &mut peak);
                }
            }
            if let Some(peak) = peak {
                outcome.memory_bytes = Some(outcome.memory_bytes.unwrap_or(0) + peak);
            }
        }
        Ok(outcome)
    }

    fn take(&mut self, record: Record, is_first: bool, peak: &mut Option<u64>) {
        let Record { time_ms, event, .. } = record;
        match event {
            RunEvent::Telemetry(telemetry) => {
                *peak = (*peak).max(telemetry.memory_bytes);
                self.gpu_memory_bytes = self.gpu_memory_bytes.max(telemetry.gpu_memory_bytes);
            }
            RunEvent::Health(health) => *peak = (*peak).max(health.memory_bytes),
            RunEvent::RunStarted(_) if is_first => self.end = None,
            RunEvent::CheckpointSaved { step, .. } => self.newest_checkpoint = Some(step),
            // The rank that has the failure says so, whichever it is.
            RunEvent::RunEnded { status, message, .. }
                if self.end.as_ref().is_none_or(|end| end.time_ms <= time_ms) =>
            {
                self.end = Some(RunEnd { status, message, time_ms });
            }
            _ => {}
        }
    }
}

/// The scores of a run: those of the job that scores it, where there is one, else those of its own last evaluation.
/// None where there are none.
pub fn scores(
    run: &RunDirectory,
    evaluate: Option<&EvaluateSection>,
) -> Result<Option<Vec<CaseScores>>> {
    // Evaluations of a run itself are native.
    let scored_by = evaluate.map_or(ScoredBy::Native, |section| section.convention);
    let path = match evaluate {
        Some(section) => Some(run.scores().join(section.table())),
        None => newest_evaluation(&run.scores()),
    };
    let Some(path) = path else { return Ok(None) };
    match files::read_text(&path, JSON_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => {
            let text = text.context(|| format!("cannot read `{}`", path.display()))?;
            Ok(Some(scored_by.read(&text)).filter(|rows| !rows.is_empty()))
        }
    }
}

/// `step-00000600.csv` of the largest step.
fn newest_evaluation(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let step = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("step-")?.strip_suffix(".csv")?.parse::<u64>().ok()
    };
    let paths = entries.map(|entry| entry.path()).filter(|path| step(path).is_some());
    paths.max_by_key(step)
}

/// The last line of a log that tells of an error, without `error: `, else its last line; empty where there is none.
pub fn last_words(log: &Path) -> String {
    let mut bytes = Vec::new();
    // A log that cannot be read says nothing.
    let _ = files::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
        file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)
    });
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let error = lines.iter().rev().find_map(|line| line.strip_prefix("error: "));
    let words = error.or(lines.last().copied()).unwrap_or_default();
    words.chars().filter(|letter| !letter.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::scores::Score;
    use crate::runlog::Telemetry;
    use crate::runlog::io::{EventSink, LogWriter};

    fn telemetry(memory_bytes: u64) -> RunEvent {
        let memory_bytes = Some(memory_bytes);
        RunEvent::Telemetry(Telemetry { memory_bytes, ..Telemetry::default() })
    }

    #[test]
    fn peaks_of_ranks_add_up_and_the_last_end_counts() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        assert_eq!(RunOutcome::read(&run).unwrap(), RunOutcome::default());
        let ended = |status, message: &str| RunEvent::RunEnded {
            status,
            step: 1,
            message: message.to_owned(),
        };
        let events = [
            [ended(RunStatus::Stopped, "stopped on request"), telemetry(7), telemetry(5)],
            [telemetry(1), telemetry(30), ended(RunStatus::Failed, "bad luck")],
        ];
        for (rank, events) in events.iter().enumerate() {
            let mut log = LogWriter::open(&run.rank_events(rank), rank as u32).unwrap();
            for event in events {
                log.emit(event);
            }
        }
        let outcome = RunOutcome::read(&run).unwrap();
        assert_eq!((outcome.memory_bytes, outcome.gpu_memory_bytes), (Some(37), None));
        assert_eq!(outcome.end.unwrap().message, "bad luck");
    }

    #[test]
    fn scores_are_those_that_the_farm_asks_for() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        fs::create_dir(run.scores()).unwrap();
        let write = |name: &str, dice: f64| {
            let text = format!("case,structure,dice,hd95,asd,unit\na,LV,{dice},,,mm\n");
            fs::write(run.scores().join(name), text).unwrap();
        };
        let dice = |evaluate| {
            scores(&run, evaluate)
                .unwrap()
                .map(|rows: Vec<CaseScores>| rows[0].values[&Score::Dice])
        };
        assert_eq!(dice(None), None);
        write("step-00000002.csv", 0.2);
        write("step-00000010.csv", 0.5);
        assert_eq!(dice(None), Some(0.5));
        let section = EvaluateSection::default();
        assert_eq!(dice(Some(&section)), None);
        write("evaluate-last-native.csv", 0.75);
        assert_eq!(dice(Some(&section)), Some(0.75));
        let convention = ScoredBy::Lesion;
        let section = EvaluateSection { convention, ..EvaluateSection::default() };
        let text = "case,jaccard,accuracy,dice,sensitivity,specificity\na,1,1,0.25,1,1\n";
        fs::write(run.scores().join("evaluate-last-lesion.csv"), text).unwrap();
        assert_eq!(dice(Some(&section)), Some(0.25));
    }

    #[test]
    fn the_last_error_of_a_log_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        assert_eq!(last_words(&log), "");
        fs::write(&log, "mpirun -n 2\nerror: first\nerror: no \u{1b}[31mroom\n\nhint: x\n")
            .unwrap();
        assert_eq!(last_words(&log), "no [31mroom");
        fs::write(&log, "step 1\nstep 2\n").unwrap();
        assert_eq!(last_words(&log), "step 2");
    }
}
