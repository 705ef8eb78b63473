//! A run as plain lines, for output that is no terminal: a batch log, a pipe.

use super::feed::Feed;
use super::numbers;
use super::plain::harmless;
use super::state::Dashboard;
use crate::error::{Context, Result};
use crate::runlog::directory::RunDirectory;
use crate::runlog::{Evaluated, Record, Requested, RunEvent, RunStarted, Step};
use crate::words::counted;
use std::io::{ErrorKind, Write};
use std::time::Duration;

/// Time of the run between two lines about steps in its first minute, and later: a log of a day
/// stays readable.
const EARLY_MS: u64 = 3_000;
const LATER_MS: u64 = 30_000;
const MINUTE_MS: u64 = 60_000;
/// How often to look for new records.
const POLL: Duration = Duration::from_millis(500);

/// Writes what happens in a run until it ends or `done` says that nobody writes it any more.
///
/// Steps have a line every `interval`, or at a pace that suits a batch log. A reader of `out` that
/// goes away ends it without an error.
pub fn follow(
    directory: &RunDirectory,
    out: &mut dyn Write,
    interval: Option<Duration>,
    done: impl Fn() -> bool,
) -> Result<()> {
    let mut feed = Feed::open(directory.clone())?;
    let mut lines = Lines::every(interval);
    loop {
        // Asked before reading, so that the last records of a run that ends now are not missed.
        let is_last = done();
        let mut is_drained = false;
        while !is_drained {
            let records = feed.read()?;
            is_drained = records.is_empty();
            let mut told = Vec::new();
            for notice in feed.notices() {
                if notice.is_void {
                    lines = Lines::every(interval);
                }
                told.push(harmless(&format!("note: {}", notice.sentence)).into_owned());
            }
            told.extend(records.iter().filter_map(|record| lines.line(record)));
            for line in told {
                match writeln!(out, "{line}").and_then(|()| out.flush()) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written.context(|| "cannot write to stdout")?,
                }
            }
        }
        if is_last || lines.run.ended().is_some() {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

/// Chooses what is worth a line, and words it.
#[derive(Debug, Default)]
pub struct Lines {
    interval_ms: Option<u64>,
    run: Dashboard,
    last_step_ms: Option<u64>,
}

impl Lines {
    /// With a line about steps every `interval` of the run, or at a pace that suits a batch log.
    pub fn every(interval: Option<Duration>) -> Self {
        let interval_ms = interval.map(|interval| interval.as_millis() as u64);
        Self { interval_ms, ..Self::default() }
    }

    /// Whether a step at `time_ms` comes too soon after the last line about one.
    fn is_early(&self, time_ms: u64) -> bool {
        let start_ms = self.run.started.as_ref().map_or(time_ms, |(start_ms, _)| *start_ms);
        let is_first_minute = time_ms.saturating_sub(start_ms) <= MINUTE_MS;
        let pace_ms = if is_first_minute { EARLY_MS } else { LATER_MS };
        let pace_ms = self.interval_ms.unwrap_or(pace_ms);
        self.last_step_ms.is_some_and(|last_ms| time_ms < last_ms.saturating_add(pace_ms))
    }

    /// The line that tells `record`, if it is worth one; it holds nothing that a terminal obeys.
    pub fn line(&mut self, record: &Record) -> Option<String> {
        self.run.apply(record.clone());
        self.words(record).map(|line| harmless(&line).into_owned())
    }

    fn words(&mut self, record: &Record) -> Option<String> {
        Some(match &record.event {
            RunEvent::RunEnded { step, message, .. } if record.rank != 0 => {
                format!("rank {} ended after step {step}: {message}", record.rank)
            }
            RunEvent::Warning { message } => {
                format!("warning from rank {}: {message}", record.rank)
            }
            // Facts of the whole run are rank 0's.
            _ if record.rank != 0 => return None,
            RunEvent::RunStarted(started) => start_line(started),
            RunEvent::Step(step) => {
                if self.is_early(record.time_ms) && step.step != self.run.total_steps() {
                    return None;
                }
                self.last_step_ms = Some(record.time_ms);
                step_line(step, &self.run)
            }
            RunEvent::Evaluated(evaluated) => evaluation_line(evaluated),
            RunEvent::Resumed { step, checkpoint } => {
                format!("resumed after step {step} from {checkpoint}")
            }
            RunEvent::CheckpointSaved { step, path, bytes, .. } => {
                format!("step {step}: saved {path}, {}", numbers::bytes(*bytes))
            }
            RunEvent::RunEnded { step, message, .. } => {
                format!("ended after step {step}: {message}")
            }
            RunEvent::Requested(Requested { request, by, .. }) if by.is_empty() => {
                format!("{request} requested")
            }
            RunEvent::Requested(Requested { request, by, .. }) => {
                format!("{request} requested by {by}")
            }
            _ => return None,
        })
    }
}

fn start_line(started: &RunStarted) -> String {
    let RunStarted { run, method, dataset, annotation, ranks, batch_size, total_steps, .. } =
        started;
    format!(
        "{run}: {method} on {annotation} of {dataset}, {total_steps} steps of {batch_size} slices, {}",
        counted(*ranks as usize, "rank")
    )
}

fn step_line(step: &Step, run: &Dashboard) -> String {
    let total_steps = run.total_steps();
    let left = run.remaining_ms().map(|ms| format!("  {} left", numbers::duration(ms)));
    let losses = step.loss.iter().map(|(name, value)| format!("{name} {}", numbers::value(*value)));
    let width = total_steps.to_string().len();
    format!(
        "step {:>width$}/{total_steps}  {}  {} images/s  {} ms a step{}",
        step.step,
        losses.collect::<Vec<_>>().join("  "),
        numbers::value(step.images_per_second),
        numbers::milliseconds(step.step_ms),
        left.unwrap_or_default(),
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
