//! What is known about a run: a pure fold of its records.
//!
//! No clock but the times in the records, no files, no terminal. Records of different ranks may
//! come in any order, and reading a log again changes nothing.

use super::numbers;
use super::series::Series;
use crate::runlog::{Evaluated, Health, Record, RunEvent, RunStarted, RunStatus, Step};
use std::collections::{BTreeMap, BTreeSet};

/// Messages that are kept; the oldest go first.
const MESSAGES: usize = 200;

/// Everything that the screen shows about one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dashboard {
    /// What the run said about itself when it last started, and when.
    pub started: Option<(u64, RunStarted)>,
    /// The latest step, and when it was logged.
    pub step: Option<(u64, Step)>,
    /// Time and number of the first step since the run last started.
    first_step: Option<(u64, u64)>,
    /// Loss terms by name.
    pub losses: BTreeMap<String, Series>,
    /// The latest evaluation.
    pub evaluated: Option<Evaluated>,
    /// Dice by structure.
    pub dice: BTreeMap<String, Series>,
    /// The latest health of each rank.
    pub ranks: BTreeMap<u32, Health>,
    /// What is worth reading, oldest first.
    pub messages: BTreeSet<Note>,
    /// How the run ended, unless it was continued since.
    pub ended: Option<RunStatus>,
}

/// Whether a process is writing a run, as its directory shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// Nobody is.
    #[default]
    Absent,
    /// Somebody is.
    Writing,
    /// Somebody is, and has been asked to save and end.
    Stopping,
}

/// A sentence with its time and author.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Who wrote it.
    pub rank: u32,
    /// Whether a person should act on it.
    pub is_warning: bool,
    /// The sentence.
    pub text: String,
}

impl Dashboard {
    /// Takes in one record.
    pub fn apply(&mut self, record: Record) {
        let Record { time_ms, rank, event } = record;
        if let Some((is_warning, text)) = note(&event) {
            self.messages.insert(Note { time_ms, rank, is_warning, text });
            if self.messages.len() > MESSAGES {
                self.messages.pop_first();
            }
        }
        match event {
            RunEvent::Health(health) => {
                self.ranks.insert(rank, health);
            }
            // Facts of the whole run are rank 0's; taking them from one file keeps their order.
            event if rank == 0 => self.apply_fact(time_ms, event),
            _ => {}
        }
    }

    fn apply_fact(&mut self, time_ms: u64, event: RunEvent) {
        match event {
            RunEvent::RunStarted(started) => {
                self.started = Some((time_ms, started));
                self.first_step = None;
                self.ended = None;
            }
            RunEvent::Resumed { .. } => {
                self.first_step = None;
                self.ended = None;
            }
            RunEvent::Step(step) => {
                self.first_step.get_or_insert((time_ms, step.step));
                for (name, value) in &step.loss {
                    self.losses.entry(name.clone()).or_default().add(step.step, *value);
                }
                self.step = Some((time_ms, step));
            }
            RunEvent::Evaluated(evaluated) => {
                for structure in &evaluated.structures {
                    let series = self.dice.entry(structure.name.clone()).or_default();
                    series.add(evaluated.step, structure.dice);
                }
                self.evaluated = Some(evaluated);
            }
            RunEvent::RunEnded { status, .. } => self.ended = Some(status),
            RunEvent::Health(_)
            | RunEvent::CheckpointSaved { .. }
            | RunEvent::Warning { .. }
            | RunEvent::Unknown => {}
        }
    }

    /// The last logged step, 0 before the first.
    pub fn current_step(&self) -> u64 {
        self.step.as_ref().map_or(0, |(_, step)| step.step)
    }

    /// Steps that the run is to have; 0 while unknown.
    pub fn total_steps(&self) -> u64 {
        self.started.as_ref().map_or(0, |(_, started)| started.total_steps)
    }

    /// How much of the run is done, in `[0, 1]`.
    pub fn progress(&self) -> f64 {
        match self.total_steps() {
            0 => 0.0,
            total => (self.current_step() as f64 / total as f64).clamp(0.0, 1.0),
        }
    }

    /// Time between the last start and the last step; 0 before the first step.
    pub fn elapsed_ms(&self) -> u64 {
        match (&self.started, &self.step) {
            (Some((start_ms, _)), Some((now_ms, _))) => now_ms.saturating_sub(*start_ms),
            _ => 0,
        }
    }

    /// Time that the remaining steps will take at the pace since the last start, evaluations and
    /// checkpoints included; `None` before there is a pace or after the end.
    pub fn remaining_ms(&self) -> Option<u64> {
        let ((now_ms, step), (first_ms, first)) = (self.step.as_ref()?, self.first_step?);
        let steps = step.step.checked_sub(first).filter(|&steps| steps > 0)?;
        let pace_ms = now_ms.saturating_sub(first_ms) as f64 / steps as f64;
        let remaining = self.total_steps().saturating_sub(step.step);
        (self.ended.is_none() && remaining > 0).then_some((pace_ms * remaining as f64) as u64)
    }

    /// The structures with their Dice over steps, in the order of their labels.
    pub fn dice_by_label(&self) -> Vec<(&str, &Series)> {
        let labels = self.evaluated.iter().flat_map(|evaluated| &evaluated.structures);
        labels
            .filter_map(|structure| self.dice.get_key_value(&structure.name))
            .map(|(name, series)| (name.as_str(), series))
            .collect()
    }
}

/// The sentence about an event that is worth reading later, and whether it is a warning.
fn note(event: &RunEvent) -> Option<(bool, String)> {
    Some(match event {
        RunEvent::RunStarted(started) => {
            (false, format!("started on {}", numbers::ranks(started.ranks)))
        }
        RunEvent::Resumed { step, checkpoint } => {
            (false, format!("resumed after step {step} from {checkpoint}"))
        }
        RunEvent::Evaluated(scores) if scores.best_step == scores.step => {
            (false, format!("step {}: best Dice {:.4}", scores.step, scores.mean_dice))
        }
        RunEvent::CheckpointSaved { step, bytes, .. } => {
            (false, format!("step {step}: checkpoint saved, {}", numbers::bytes(*bytes)))
        }
        RunEvent::Warning { message } => (true, message.clone()),
        RunEvent::RunEnded { status: RunStatus::Failed, step, message } => {
            (true, format!("failed after step {step}: {message}"))
        }
        RunEvent::RunEnded { step, message, .. } => {
            (false, format!("ended after step {step}: {message}"))
        }
        _ => return None,
    })
}
