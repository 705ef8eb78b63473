//! The loop: batch, step, and once in a while a line in the log, an evaluation, a checkpoint.
//!
//! The trainer knows the trait [`Method`] and writes files; it does not know who reads them.

use super::checkpoint::{Best, Checkpoint, CheckpointStore, RunState};
use super::evaluate::{Evaluator, Scores, recompute_statistics};
use super::meter::Meter;
use super::{Method, StepContext, StepReport};
use crate::comm::{Communicator, agree};
use crate::config::plan::{Cadence, TrainPlan};
use crate::data::batch::Batch;
use crate::data::loader::Loader;
use crate::error::{Context, Failure, Result};
use crate::random::Key;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::EventSink;
use crate::runlog::{self, RunEvent};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// Somebody asked for an end; everything is saved.
    Stopped,
}

/// What a trainer is made of.
pub struct Parts {
    /// Cadences and lengths.
    pub plan: TrainPlan,
    /// Name of the method, for checkpoints.
    pub method_name: String,
    /// The method, equal on all ranks.
    pub method: Box<dyn Method>,
    /// This rank's share of every global batch.
    pub loader: Loader,
    /// This rank's share of the held-out cases.
    pub evaluator: Evaluator,
    /// The ranks of this run.
    pub communicator: Arc<dyn Communicator>,
    /// Where everything is written.
    pub directory: RunDirectory,
    /// This rank's run log.
    pub events: Box<dyn EventSink>,
    /// Batches from which running statistics are made anew before each evaluation.
    pub statistics_batches: u64,
    /// Precision and place of images.
    pub target: (Kind, Device),
}

/// A run under way on one rank.
pub struct Trainer {
    parts: Parts,
    communicator: Arc<dyn Communicator>,
    meter: Arc<Meter>,
    checkpoints: CheckpointStore,
    state: RunState,
    saved_step: Option<u64>,
    finite: Option<Tensor>,
    pace: Pace,
}

/// What the steps since the last line in the log took.
#[derive(Debug, Default)]
struct Pace {
    steps: u32,
    images: usize,
    total: Duration,
    data_wait: Duration,
}

impl Trainer {
    /// Ready to start at step 1.
    pub fn new(parts: Parts) -> Self {
        let meter = Arc::new(Meter::new(Arc::clone(&parts.communicator)));
        let communicator: Arc<dyn Communicator> = meter.clone();
        let checkpoints = CheckpointStore::new(parts.directory.checkpoints());
        let state = RunState { step: 0, best: None };
        Self {
            parts,
            communicator,
            meter,
            checkpoints,
            state,
            saved_step: None,
            finite: None,
            pace: Pace::default(),
        }
    }

    /// Continues from a checkpoint.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let restored = checkpoint.restore(self.parts.method.learners_mut());
        agree(&*self.communicator, restored)?;
        self.state = checkpoint.manifest.run.clone();
        self.saved_step = Some(self.state.step);
        let checkpoint = relative(&checkpoint.path);
        self.emit(&RunEvent::Resumed { step: self.state.step, checkpoint });
        Ok(())
    }

    /// Writes an event to this rank's log.
    pub fn emit(&mut self, event: &RunEvent) {
        if self.communicator.rank() == 0 {
            self.parts.events.emit(event);
        }
    }

    /// Steps that are done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Trains to the end, or until somebody asks for a stop.
    pub fn run(&mut self) -> Result<Outcome> {
        self.broadcast()?;
        let total_steps = self.parts.plan.total_steps;
        while self.state.step < total_steps {
            let report = self.iterate()?;
            let step = self.state.step;
            let last = step == total_steps;
            let plan = &self.parts.plan;
            let (evaluate, save) = (plan.evaluate_every.due(step), plan.save_every.due(step));
            let log = self.logs(step);
            if log {
                let logged = self.log(&report);
                agree(&*self.communicator, logged)?;
            }
            let improved = if evaluate || last { self.evaluate()? } else { false };
            if save || last || improved {
                self.save()?;
            }
            if log && !last && self.stop_agreed()? {
                self.save()?;
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// Whether the numbers of `step` are written to the log.
    fn logs(&self, step: u64) -> bool {
        let plan = &self.parts.plan;
        let due = |cadence: Cadence| cadence.due(step);
        step == plan.total_steps
            || due(plan.log_every)
            || due(plan.evaluate_every)
            || due(plan.save_every)
    }

    /// Rank 0's weights and buffers are everybody's; a run that resumes broadcasts equal values.
    fn broadcast(&self) -> Result<()> {
        for learner in self.parts.method.learners() {
            for (_, tensor) in learner.flat_tensors() {
                self.communicator.broadcast(0, &tensor)?;
            }
            for entry in learner.buffers() {
                self.communicator.broadcast(0, &entry.tensor)?;
            }
        }
        Ok(())
    }

    fn iterate(&mut self) -> Result<StepReport> {
        let start = Instant::now();
        let step = self.state.step + 1;
        let (kind, device) = self.parts.target;
        let batch = self.parts.loader.batch(step)?;
        self.pace.data_wait += start.elapsed();
        let images = batch.global_size;
        let batch = batch.to(kind, device);
        let report = self.one_step(&batch, step)?;
        self.state.step = step;
        self.finite = match (self.finite.take(), report.finite()) {
            (Some(before), Some(now)) => Some(before.logical_and(now)),
            (before, now) => before.or_else(|| now.map(Tensor::shallow_clone)),
        };
        self.pace.steps += 1;
        self.pace.images += images;
        self.pace.total += start.elapsed();
        Ok(report)
    }

    fn one_step(&mut self, batch: &Batch, step: u64) -> Result<StepReport> {
        let plan = &self.parts.plan;
        let key = Key::new(plan.seed);
        let mut cx = StepContext::new(step, plan.total_steps, key, &self.communicator);
        cx.logged = self.logs(step);
        self.parts
            .method
            .step(batch, &mut cx)
            .map_err(|failure| failure.during(format!("step {step} failed")))?;
        Ok(cx.into_report())
    }

    /// Writes the numbers of the last step and the pace since the last line; refuses to go on
    /// from a gradient that was not finite. The weights never saw it.
    fn log(&mut self, report: &StepReport) -> Result<()> {
        let step = self.state.step;
        let numbers = report.fetch()?;
        let pace = std::mem::take(&mut self.pace);
        let steps = f64::from(pace.steps.max(1));
        let step_ms = pace.total.as_secs_f64() * 1e3 / steps;
        if self.communicator.rank() == 0 {
            self.parts.events.emit(&RunEvent::Step(runlog::Step {
                step,
                epoch: (step - 1) / self.parts.loader.order().steps_per_epoch() + 1,
                loss: numbers.losses.iter().cloned().collect(),
                observed: numbers.observations.iter().cloned().collect(),
                lr: numbers.learners.iter().map(|(name, lr, _)| (name.clone(), *lr)).collect(),
                grad_norm: numbers.learners.iter().map(|(name, _, n)| (name.clone(), *n)).collect(),
                step_ms,
                images_per_second: pace.images as f64 / pace.total.as_secs_f64().max(1e-9),
            }));
        }
        self.parts.events.emit(&RunEvent::Health(runlog::Health {
            step,
            step_ms,
            data_wait_ms: pace.data_wait.as_secs_f64() * 1e3 / steps,
            communication_ms: self.meter.take().as_secs_f64() * 1e3 / steps,
            memory_bytes: resident_memory_bytes(),
        }));
        let finite = self.finite.take().is_none_or(|flag| flag.int64_value(&[]) != 0);
        if finite {
            return Ok(());
        }
        let terms: Vec<String> =
            numbers.losses.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        Err(Failure::new(format!(
            "a gradient at or shortly before step {step} was not finite; the weights are those before it"
        ))
        .at(format!("  last losses: {}", terms.join(", ")))
        .hint("lower `method.params.learner.lr`, or set its `clip_norm`, and train again"))
    }

    /// Scores the held-out cases; true when the mean Dice is the best so far.
    fn evaluate(&mut self) -> Result<bool> {
        let start = Instant::now();
        let Parts { method, loader, statistics_batches, target, .. } = &mut self.parts;
        recompute_statistics(&**method, loader, *statistics_batches, *target)?;
        let scores = self.parts.evaluator.run(&*self.parts.method, &*self.communicator)?;
        let step = self.state.step;
        let mean_dice = scores.mean_dice();
        let improved =
            mean_dice.is_finite() && self.state.best.is_none_or(|best| mean_dice > best.mean_dice);
        if improved {
            self.state.best = Some(Best { step, mean_dice });
        }
        let root = self.communicator.rank() == 0 && !scores.cases.is_empty();
        let written = if root { self.write_scores(&scores) } else { Ok(()) };
        agree(&*self.communicator, written)?;
        if !root {
            return Ok(improved);
        }
        self.parts.events.emit(&RunEvent::Evaluated(runlog::Evaluated {
            step,
            mean_dice,
            best_mean_dice: self.state.best.map_or(f64::NAN, |best| best.mean_dice),
            best_step: self.state.best.map_or(0, |best| best.step),
            seconds: start.elapsed().as_secs_f64(),
            cases: scores.cases.len() as u64,
            structures: scores.structure_means(),
        }));
        Ok(improved)
    }

    fn write_scores(&self, scores: &Scores) -> Result<()> {
        let folder = self.parts.directory.scores();
        let path = folder.join(format!("step-{:08}.csv", self.state.step));
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&path, scores.to_csv()))
            .context(|| format!("cannot write `{}`", path.display()))
    }

    /// Rank 0 saves; every rank learns whether it could.
    fn save(&mut self) -> Result<()> {
        let step = self.state.step;
        if self.saved_step == Some(step) {
            return Ok(());
        }
        let saved = if self.communicator.rank() == 0 { self.write_checkpoint() } else { Ok(()) };
        agree(&*self.communicator, saved)?;
        self.saved_step = Some(step);
        Ok(())
    }

    fn write_checkpoint(&mut self) -> Result<()> {
        let start = Instant::now();
        let learners = self.parts.method.learners();
        let (checkpoint, bytes) =
            self.checkpoints.save(&self.parts.method_name, self.state.clone(), &learners)?;
        let best = self.state.best.map(|best| best.step);
        self.checkpoints.prune(self.parts.plan.keep_checkpoints, best);
        self.parts.events.emit(&RunEvent::CheckpointSaved {
            step: self.state.step,
            path: relative(&checkpoint.path),
            bytes,
            seconds: start.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    /// Whether `control/stop` exists, as rank 0 sees it.
    fn stop_agreed(&self) -> Result<bool> {
        let asked = self.communicator.rank() == 0 && self.parts.directory.stop_request().exists();
        self.communicator.any(asked)
    }
}

/// A checkpoint's directory as the run log names it: from the run directory on.
fn relative(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("checkpoints/{name}")
}

/// Memory of this process that lies in RAM, where the system says so.
fn resident_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
