//! What is known about a run: a pure fold of its records.
//!
//! No clock but the times in the records, no files, no terminal. Records of different ranks may
//! come in any order, and reading a log again changes nothing.

use super::numbers;
use super::rank::RankState;
use super::series::Series;
use crate::runlog::{
    Evaluated, Level, Phase, Record, Requested, RunEvent, RunStarted, RunStatus, Step, Unit,
};
use crate::words::counted;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Messages that are kept; the oldest go first.
const MESSAGES: usize = 1000;
/// Marks of one kind that are kept; the oldest go first.
const MARKS: usize = 256;

/// Curves by name.
pub type Curves = BTreeMap<String, Series>;

/// Everything that the screen shows about one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dashboard {
    /// What the run said about itself when it last started, and when.
    pub started: Option<(u64, RunStarted)>,
    /// The latest step, and when it was logged.
    pub step: Option<(u64, Step)>,
    /// Time and number of the first step since the run last started.
    first_step: Option<(u64, u64)>,
    /// What rank 0 said last that it does beside training.
    pub phase: Option<Phase>,
    /// Loss terms by `learner/term`.
    pub losses: Curves,
    /// What a method reports beside its losses, by `learner/name`.
    pub observed: Curves,
    /// Learning rate by learner.
    pub rates: Curves,
    /// Norm of the gradient by learner.
    pub gradients: Curves,
    /// Time of a step, milliseconds.
    pub step_ms: Series,
    /// Images of all ranks in a second.
    pub images_per_second: Series,
    /// The latest evaluation.
    pub evaluated: Option<Evaluated>,
    /// Mean Dice over cases and structures.
    pub mean_dice: Series,
    /// Dice by structure.
    pub dice: Curves,
    /// HD95 by structure.
    pub hd95: Curves,
    /// In what distances are measured, where the log says so.
    pub distance_unit: Option<Unit>,
    /// The latest checkpoint: when, after which step, bytes.
    pub checkpoint: Option<(u64, u64, u64)>,
    /// What happened at which step.
    pub marks: Marks,
    /// Each rank that ever wrote; see [`Dashboard::ranks`].
    all_ranks: BTreeMap<u32, RankState>,
    /// What is worth reading, oldest first.
    pub messages: BTreeSet<Note>,
    /// When and how rank 0 said that the run ended, unless it said since that it goes on.
    own_end: Option<(u64, RunStatus)>,
    /// When and how the other ranks last said so.
    other_ends: BTreeMap<u32, (u64, RunStatus)>,
    /// Times of the first and the last record.
    pub times_ms: Option<[u64; 2]>,
}

/// Steps at which something happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// A checkpoint was saved.
    pub checkpoints: BTreeSet<u64>,
    /// The run was resumed after this step.
    pub resumes: BTreeSet<u64>,
    /// The mean Dice was the best so far.
    pub bests: BTreeSet<u64>,
}

fn keep(marks: &mut BTreeSet<u64>, step: u64) {
    marks.insert(step);
    if marks.len() > MARKS {
        marks.pop_first();
    }
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
    /// The directory itself is gone.
    Gone,
}

/// A sentence with its time and author.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Who wrote it.
    pub rank: u32,
    /// How much it matters.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

impl Note {
    /// Whether a person should act on it.
    pub fn is_warning(&self) -> bool {
        self.level >= Level::Warning
    }
}

impl Dashboard {
    /// Takes in one record.
    pub fn apply(&mut self, record: Record) {
        let Record { time_ms, rank, event } = record;
        let times = self.times_ms.get_or_insert([time_ms, time_ms]);
        *times = [times[0].min(time_ms), times[1].max(time_ms)];
        if let Some((level, text)) = note(&event) {
            self.messages.insert(Note { time_ms, rank, level, text });
            if self.messages.len() > MESSAGES {
                self.messages.pop_first();
            }
        }
        match event {
            RunEvent::Health(health) => {
                self.all_ranks.entry(rank).or_default().health(time_ms, health);
            }
            RunEvent::Telemetry(telemetry) => {
                self.all_ranks.entry(rank).or_default().telemetry(time_ms, telemetry);
            }
            RunEvent::RunEnded { status, .. } if rank != 0 => {
                let end = self.other_ends.entry(rank).or_insert((time_ms, status));
                // One that is not newer is read again.
                if time_ms > end.0 {
                    *end = (time_ms, status);
                }
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
                self.begin_again();
            }
            RunEvent::Resumed { step, .. } => {
                keep(&mut self.marks.resumes, step);
                self.begin_again();
            }
            RunEvent::Step(step) => self.apply_step(time_ms, step),
            RunEvent::Evaluated(evaluated) => self.apply_scores(evaluated),
            RunEvent::CheckpointSaved { step, bytes, .. } => {
                self.phase = None;
                self.checkpoint = Some((time_ms, step, bytes));
                keep(&mut self.marks.checkpoints, step);
            }
            RunEvent::Phase { phase, .. } => self.phase = Some(phase),
            RunEvent::RunEnded { status, .. } => {
                self.phase = None;
                self.own_end = Some((time_ms, status));
            }
            _ => {}
        }
    }

    fn begin_again(&mut self) {
        self.first_step = None;
        self.phase = None;
        self.own_end = None;
    }

    fn apply_step(&mut self, time_ms: u64, step: Step) {
        self.phase = None;
        self.first_step.get_or_insert((time_ms, step.step));
        let groups = [
            (&mut self.losses, &step.loss),
            (&mut self.observed, &step.observed),
            (&mut self.rates, &step.lr),
            (&mut self.gradients, &step.grad_norm),
        ];
        for (curves, values) in groups {
            for (name, value) in values {
                add(curves, name, (step.step, *value));
            }
        }
        self.step_ms.add(step.step, step.step_ms);
        self.images_per_second.add(step.step, step.images_per_second);
        self.step = Some((time_ms, step));
    }

    fn apply_scores(&mut self, evaluated: Evaluated) {
        self.phase = None;
        self.mean_dice.add(evaluated.step, evaluated.mean_dice);
        for structure in &evaluated.structures {
            self.distance_unit = structure.unit.or(self.distance_unit);
            // A distance to what is not there is undefined; that is no fault of the training.
            let scores = [(&mut self.dice, structure.dice), (&mut self.hd95, structure.hd95)];
            for (curves, value) in scores.into_iter().filter(|(_, value)| value.is_finite()) {
                add(curves, &structure.name, (evaluated.step, value));
            }
        }
        if evaluated.best_step == evaluated.step {
            keep(&mut self.marks.bests, evaluated.step);
        }
        self.evaluated = Some(evaluated);
    }

    /// How the run ended, unless it was continued since: what any rank said last.
    ///
    /// Files are read one after the other, so an end that was read may belong to processes before the
    /// last start: what rank 0 said is known by its place in its file, and what others said by its time.
    pub fn ended(&self) -> Option<RunStatus> {
        let start_ms = self.started.as_ref().map_or(0, |(start_ms, _)| *start_ms);
        let others = self.other_ends.values().filter(|(time_ms, _)| *time_ms >= start_ms);
        let last = others.chain(&self.own_end).max_by_key(|(time_ms, _)| *time_ms);
        last.map(|(_, status)| *status)
    }

    /// The ranks that train since the last start, in their order; those of earlier starts with more of
    /// them are left out.
    pub fn ranks(&self) -> impl DoubleEndedIterator<Item = (u32, &RankState)> + Clone {
        let end = self
            .started
            .as_ref()
            .map_or(Bound::Unbounded, |(_, started)| Bound::Excluded(started.ranks));
        self.all_ranks.range((Bound::Unbounded, end)).map(|(rank, state)| (*rank, state))
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
    /// checkpoints included, the steps up to the first line of the log left out; `None` before
    /// there is a pace or after the end.
    pub fn remaining_ms(&self) -> Option<u64> {
        let ((now_ms, step), (first_ms, first)) = (self.step.as_ref()?, self.first_step?);
        let steps = step.step.checked_sub(first).filter(|&steps| steps > 0)?;
        let pace_ms = now_ms.saturating_sub(first_ms) as f64 / steps as f64;
        let remaining = self.total_steps().saturating_sub(step.step);
        (self.ended().is_none() && remaining > 0).then_some((pace_ms * remaining as f64) as u64)
    }

    /// The curves of the structures, in the order of their labels.
    pub fn by_label<'a>(&'a self, curves: &'a Curves) -> Vec<(&'a str, &'a Series)> {
        let labels = self.evaluated.iter().flat_map(|evaluated| &evaluated.structures);
        labels
            .filter_map(|structure| curves.get_key_value(&structure.name))
            .map(|(name, series)| (name.as_str(), series))
            .collect()
    }

    /// The first and last step that anything was logged for, at least one step apart.
    pub fn extent(&self) -> [u64; 2] {
        let curves = [&self.losses, &self.dice].into_iter().flat_map(Curves::values);
        let extents = curves.chain([&self.step_ms]).filter_map(Series::extent);
        let merge = |a: [u64; 2], b: [u64; 2]| [a[0].min(b[0]), a[1].max(b[1])];
        let [first, last] = extents.reduce(merge).unwrap_or([0, 1]);
        [first, last.max(first.saturating_add(1))]
    }
}

fn add(curves: &mut Curves, name: &str, (step, value): (u64, f64)) {
    if let Some(series) = curves.get_mut(name) {
        series.add(step, value);
    } else {
        curves.entry(name.to_owned()).or_default().add(step, value);
    }
}

/// The sentence about an event that is worth reading later, and how much it matters.
fn note(event: &RunEvent) -> Option<(Level, String)> {
    let (level, text) = match event {
        RunEvent::RunStarted(started) => {
            (Level::Info, format!("started on {}", counted(started.ranks as usize, "rank")))
        }
        RunEvent::Resumed { step, checkpoint } => {
            (Level::Info, format!("resumed after step {step} from {checkpoint}"))
        }
        RunEvent::Evaluated(scores) if scores.best_step == scores.step => {
            (Level::Info, format!("step {}: best Dice {:.4}", scores.step, scores.mean_dice))
        }
        RunEvent::CheckpointSaved { step, bytes, .. } => {
            (Level::Info, format!("step {step}: checkpoint saved, {}", numbers::bytes(*bytes)))
        }
        RunEvent::Warning { message } => (Level::Warning, message.clone()),
        RunEvent::Log { level, message } => (*level, message.clone()),
        RunEvent::Requested(Requested { request, by, host }) => {
            let by = if by.is_empty() { "somebody" } else { by };
            let at = if host.is_empty() { String::new() } else { format!(" on {host}") };
            (Level::Info, format!("{request} requested by {by}{at}"))
        }
        RunEvent::RunEnded { status: RunStatus::Failed, step, message } => {
            (Level::Error, format!("failed after step {step}: {message}"))
        }
        RunEvent::RunEnded { step, message, .. } => {
            (Level::Info, format!("ended after step {step}: {message}"))
        }
        _ => return None,
    };
    Some((level, text))
}
