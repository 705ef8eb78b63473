//! What the dashboard says of a run, as numbers for other programs.

use super::feed::Feed;
use super::header;
use super::state::Presence;
use super::theme::Theme;
use super::verdict::verdict;
use super::watched::Watched;
use crate::error::Result;
use crate::runlog::directory::RunDirectory;
use crate::runlog::{RunStatus, StructureScore};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A run at one moment. What is not known is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunFacts {
    /// Its directory.
    pub run: PathBuf,
    /// The word that its dashboard has for what it does, or how it ended.
    pub state: String,
    /// How it ended, unless it goes on.
    pub ended: Option<RunStatus>,
    /// Whether a process writes it.
    pub is_written: bool,
    /// The name of the method.
    pub method: Option<String>,
    /// The name of the data set.
    pub data_set: Option<String>,
    /// The annotation that is learnt from.
    pub annotation: Option<String>,
    /// The fold that is held out; 0 where none is.
    pub fold: Option<u32>,
    /// How many processes train together.
    pub ranks: Option<u32>,
    /// The last logged step, 0 before the first.
    pub step: u64,
    /// How many steps it is to have; 0 while unknown.
    pub total_steps: u64,
    /// The share of them that is done, in `[0, 1]`.
    pub progress: f64,
    /// Time that the remaining steps take at the pace since the last start.
    pub left_ms: Option<u64>,
    /// Losses of that step, by `learner/term`.
    pub loss: BTreeMap<String, f64>,
    /// Learning rates of that step, by learner.
    pub lr: BTreeMap<String, f64>,
    /// Time of a step.
    pub step_ms: Option<f64>,
    /// Images of all processes together in a second.
    pub images_per_second: Option<f64>,
    /// Mean Dice of the last evaluation.
    pub mean_dice: Option<f64>,
    /// The best one so far.
    pub best_mean_dice: Option<f64>,
    /// The step of the best one.
    pub best_step: Option<u64>,
    /// Every structure of the last evaluation.
    pub structures: Vec<StructureScore>,
    /// The step of the newest checkpoint.
    pub checkpoint_step: Option<u64>,
    /// What holds it back, and the numbers that say so.
    pub verdict: Option<String>,
    /// Times of the first and the last record, milliseconds since 1970 (UTC).
    pub first_record_ms: Option<u64>,
    /// The same of the last one.
    pub last_record_ms: Option<u64>,
}

impl RunFacts {
    /// Reads all that a run has logged. Refuses what is no run.
    pub fn read(directory: &RunDirectory) -> Result<Self> {
        let watched = Watched::read(&mut Feed::open(directory.clone())?, directory)?;
        let shown = watched.shown(Theme::default());
        let dashboard = shown.dashboard;
        let started = dashboard.started.as_ref().map(|(_, started)| started);
        let step = dashboard.step.as_ref().map(|(_, step)| step);
        let scores = dashboard.evaluated.as_ref();
        let presence = shown.presence;
        let words =
            |verdict: super::verdict::Verdict| format!("{}: {}", verdict.words, verdict.evidence);
        // The mark in front of the word is for eyes.
        let state = header::state(&shown).0;
        let state = state.split_once(' ').map_or(state.as_str(), |(_, word)| word).to_owned();
        Ok(Self {
            run: directory.root().to_owned(),
            state,
            ended: dashboard.ended(),
            is_written: matches!(presence, Presence::Writing | Presence::Stopping),
            method: started.map(|started| started.method.clone()),
            data_set: started.map(|started| started.dataset.clone()),
            annotation: started.map(|started| started.annotation.clone()),
            fold: started.map(|started| started.fold),
            ranks: started.map(|started| started.ranks),
            step: dashboard.current_step(),
            total_steps: dashboard.total_steps(),
            progress: dashboard.progress(),
            left_ms: dashboard.remaining_ms(),
            loss: step.map(|step| step.loss.clone()).unwrap_or_default(),
            lr: step.map(|step| step.lr.clone()).unwrap_or_default(),
            step_ms: step.map(|step| step.step_ms),
            images_per_second: step.map(|step| step.images_per_second),
            mean_dice: scores.map(|scores| scores.mean_dice),
            best_mean_dice: scores.map(|scores| scores.best_mean_dice),
            best_step: scores.map(|scores| scores.best_step),
            structures: scores.map(|scores| scores.structures.clone()).unwrap_or_default(),
            checkpoint_step: dashboard.checkpoint.map(|(_, step, _)| step),
            verdict: verdict(dashboard).map(words),
            first_record_ms: dashboard.times_ms.map(|times| times[0]),
            last_record_ms: dashboard.times_ms.map(|times| times[1]),
        })
    }
}
