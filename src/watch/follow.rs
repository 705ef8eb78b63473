//! A run as plain lines, for output that is no terminal: a batch log, a pipe.

use super::feed::Feed;
use super::numbers;
use crate::error::{Context, Result};
use crate::runlog::directory::RunDirectory;
use crate::runlog::{Evaluated, Record, RunEvent, RunStarted, Step};
use std::io::{ErrorKind, Write};
use std::time::Duration;

/// Time of the run between two lines about steps; a log of a day stays readable.
const STEP_LINES_MS: u64 = 3_000;
/// How often to look for new records.
const POLL: Duration = Duration::from_millis(500);

/// Writes what happens in a run until it ends or `done` says that nobody writes it any more.
///
/// A reader of `out` that goes away ends it without an error.
pub fn follow(
    directory: &RunDirectory,
    out: &mut dyn Write,
    done: impl Fn() -> bool,
) -> Result<()> {
    let mut feed = Feed::open(directory.clone())?;
    let mut lines = Lines::default();
    loop {
        // Asked before reading, so that the last records of a run that ends now are not missed.
        let is_last = done();
        let mut is_drained = false;
        while !is_drained {
            let records = feed.read()?;
            is_drained = records.is_empty();
            for line in records.iter().filter_map(|record| lines.line(record)) {
                match writeln!(out, "{line}").and_then(|()| out.flush()) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written.context(|| "cannot write to stdout")?,
                }
            }
        }
        if is_last || lines.has_ended {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

/// Chooses what is worth a line, and words it.
#[derive(Debug, Default)]
pub struct Lines {
    total_steps: u64,
    last_step_ms: Option<u64>,
    has_ended: bool,
}

impl Lines {
    /// The line that tells `record`, if it is worth one.
    pub fn line(&mut self, record: &Record) -> Option<String> {
        Some(match &record.event {
            RunEvent::RunStarted(started) => {
                self.total_steps = started.total_steps;
                self.has_ended = false;
                start_line(started)
            }
            RunEvent::Step(step) => {
                let is_early = self
                    .last_step_ms
                    .is_some_and(|last_ms| record.time_ms < last_ms.saturating_add(STEP_LINES_MS));
                if is_early && step.step != self.total_steps {
                    return None;
                }
                self.last_step_ms = Some(record.time_ms);
                step_line(step, self.total_steps)
            }
            RunEvent::Evaluated(evaluated) => evaluation_line(evaluated),
            RunEvent::Resumed { step, checkpoint } => {
                format!("resumed after step {step} from {checkpoint}")
            }
            RunEvent::CheckpointSaved { step, path, bytes, .. } => {
                format!("step {step}: saved {path}, {}", numbers::bytes(*bytes))
            }
            RunEvent::Warning { message } => {
                format!("warning from rank {}: {message}", record.rank)
            }
            RunEvent::RunEnded { step, message, .. } => {
                self.has_ended = true;
                format!("ended after step {step}: {message}")
            }
            RunEvent::Health(_) | RunEvent::Unknown => return None,
        })
    }
}

fn start_line(started: &RunStarted) -> String {
    let RunStarted { run, method, dataset, annotation, ranks, batch_size, total_steps, .. } =
        started;
    format!(
        "{run}: {method} on {annotation} of {dataset}, {total_steps} steps of {batch_size} slices, {}",
        numbers::ranks(*ranks)
    )
}

fn step_line(step: &Step, total_steps: u64) -> String {
    let losses = step.loss.iter().map(|(name, value)| format!("{name} {}", numbers::value(*value)));
    let width = total_steps.to_string().len();
    format!(
        "step {:>width$}/{total_steps}  {}  {} images/s  {} ms a step",
        step.step,
        losses.collect::<Vec<_>>().join("  "),
        numbers::value(step.images_per_second),
        numbers::milliseconds(step.step_ms),
    )
}

fn evaluation_line(evaluated: &Evaluated) -> String {
    let structures = evaluated
        .structures
        .iter()
        .map(|structure| format!("{} {:.4}", structure.name, structure.dice));
    format!(
        "step {}: mean Dice {:.4} ({}), best {:.4} at step {}",
        evaluated.step,
        evaluated.mean_dice,
        structures.collect::<Vec<_>>().join(", "),
        evaluated.best_mean_dice,
        evaluated.best_step,
    )
}
