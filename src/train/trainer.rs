//! The loop: batch, step, and once in a while a line in the log, an evaluation, a checkpoint.
//!
//! The trainer knows the trait [`Method`] and writes files; it does not know who reads them.

use super::checkpoint::{Best, Checkpoint, CheckpointStore, RunState};
use super::evaluate::{Evaluator, Scores};
use super::non_finite::{Rollback, Stumble, Unread};
use super::recorder::FlightRecorder;
use super::stopping::{Reason, StopRequests, Stopping};
use super::{Method, StepContext, StepReport};
use crate::comm::{Communicator, agree};
use crate::config::NonFinite;
use crate::config::plan::TrainPlan;
use crate::data::batch::Batch;
use crate::data::loader::Loader;
use crate::error::{Context, Failure, Result};
use crate::random::Key;
use crate::runlog::directory::RunDirectory;
use crate::runlog::flight::Phase;
use crate::runlog::io::EventSink;
use crate::runlog::{self, RunEvent};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// An end before that was asked for; everything is saved.
    Stopped(Reason),
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
    /// The ranks of this run, their calls noted in `recorder`.
    pub communicator: Arc<dyn Communicator>,
    /// What this rank is busy with.
    pub recorder: Arc<FlightRecorder>,
    /// Where requests to stop are noted, and when the run has to be over.
    pub stop: (StopRequests, Option<Instant>),
    /// Where everything is written.
    pub directory: RunDirectory,
    /// This rank's run log.
    pub events: Box<dyn EventSink>,
    /// Precision and place of images.
    pub target: (Kind, Device),
}

/// A run under way on one rank.
pub struct Trainer {
    parts: Parts,
    communicator: Arc<dyn Communicator>,
    checkpoints: CheckpointStore,
    stopping: Stopping,
    state: RunState,
    saved_step: Option<u64>,
    unread: Unread,
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
        let communicator = Arc::clone(&parts.communicator);
        let checkpoints = CheckpointStore::new(parts.directory.checkpoints());
        let (requests, deadline) = parts.stop.clone();
        let unread = Unread::new(parts.plan.on_non_finite);
        Self {
            parts,
            communicator,
            checkpoints,
            stopping: Stopping::new(requests, deadline),
            state: RunState { step: 0, best: None, rollback: None },
            saved_step: None,
            unread,
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
        if self.parts.plan.on_non_finite == NonFinite::Rollback {
            // So that there is always one to go back to.
            self.save()?;
        }
        let total_steps = self.parts.plan.total_steps;
        while self.state.step < total_steps {
            self.iterate()?;
            let step = self.state.step;
            let last = step == total_steps;
            let plan = &self.parts.plan;
            let (evaluate, save) = (plan.evaluate_every.due(step), plan.save_every.due(step));
            let log = last || evaluate || save || plan.log_every.due(step);
            if log {
                let logged = self.log();
                if let Some(stumble) = agree(&*self.communicator, logged)? {
                    self.roll_back(&stumble)?;
                    continue;
                }
            }
            let improved = if evaluate || last { self.evaluate()? } else { false };
            if save || last || improved {
                self.save()?;
            }
            if log && self.communicator.rank() == 0 && self.parts.directory.stop_request().exists()
            {
                self.stopping.requests().ask(Reason::Requested);
            }
            self.parts.recorder.enter(Phase::Agreeing);
            if let Some(reason) = self.stopping.vote(&*self.communicator)?.filter(|_| !last) {
                self.save()?;
                return Ok(Outcome::Stopped(reason));
            }
        }
        Ok(Outcome::Finished)
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

    fn iterate(&mut self) -> Result<()> {
        let start = Instant::now();
        let step = self.state.step + 1;
        let (kind, device) = self.parts.target;
        self.parts.recorder.begin_step(step);
        let batch = self.parts.loader.batch(step)?;
        self.pace.data_wait += start.elapsed();
        self.parts.recorder.enter(Phase::Step);
        let images = batch.global_size;
        let batch = batch.to(kind, device);
        self.unread.before_step(&self.parts.method.learners());
        let report = self.one_step(&batch, step)?;
        self.unread.after_step(step, report, &self.parts.method.learners());
        self.state.step = step;
        self.pace.steps += 1;
        self.pace.images += images;
        self.pace.total += start.elapsed();
        self.parts.recorder.end_step(start.elapsed());
        Ok(())
    }

    fn one_step(&mut self, batch: &Batch, step: u64) -> Result<StepReport> {
        let plan = &self.parts.plan;
        let key = Key::new(plan.seed);
        let mut cx = StepContext::new(step, plan.total_steps, key, &self.communicator);
        cx.rate_share = self.state.rollback.map_or(1.0, |rollback| rollback.rate_share(step));
        self.parts
            .method
            .step(batch, &mut cx)
            .map_err(|failure| failure.during(format!("step {step} failed")))?;
        Ok(cx.into_report())
    }

    /// Writes the numbers of the last step and the pace since the last line. Refuses to go on from
    /// a gradient that was not finite, or returns it where a checkpoint is to be gone back to.
    fn log(&mut self) -> Result<Option<Stumble>> {
        self.parts.recorder.enter(Phase::Logging);
        let step = self.state.step;
        let numbers = self.unread.last().map(StepReport::fetch).transpose()?.unwrap_or_default();
        let pace = std::mem::take(&mut self.pace);
        let steps = f64::from(pace.steps.max(1));
        let step_ms = pace.total.as_secs_f64() * 1e3 / steps;
        if self.communicator.rank() == 0 {
            self.parts.events.emit(&RunEvent::Step(runlog::Step {
                step,
                epoch: (step - 1) / self.parts.loader.order().steps_per_epoch() + 1,
                loss: numbers.losses.iter().cloned().collect(),
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
            communication_ms: self.parts.recorder.take_sum_time().as_secs_f64() * 1e3 / steps,
            memory_bytes: resident_memory_bytes(),
        }));
        let Some(stumble) = self.unread.read()? else { return Ok(None) };
        if stumble.is_skipped {
            let message = format!("{}; skipped", stumble.sentence());
            self.emit(&RunEvent::Warning { message });
            return Ok(None);
        }
        match self.parts.plan.on_non_finite {
            NonFinite::Rollback => Ok(Some(stumble)),
            NonFinite::Stop | NonFinite::Skip => Err(self.failure_of(&stumble)),
        }
    }

    fn failure_of(&self, stumble: &Stumble) -> Failure {
        let first = stumble.steps.first().copied().unwrap_or_default();
        stumble.failure(&self.parts.loader.slices(first))
    }

    /// Goes back to the newest checkpoint and lowers the rate up to the next one; fails where that
    /// was tried before.
    fn roll_back(&mut self, stumble: &Stumble) -> Result<()> {
        let step = self.state.step;
        let save_every = self.parts.plan.save_every.steps();
        let Some(rollback) = Rollback::after(self.state.rollback, step, save_every) else {
            return Err(self.failure_of(stumble).during("going back to a checkpoint did not help"));
        };
        let message = format!(
            "{}; going back to the newest checkpoint, {} of the learning rate up to step {}",
            stumble.sentence(),
            rollback.rate_share(0),
            rollback.until
        );
        self.emit(&RunEvent::Warning { message });
        self.parts.recorder.enter(Phase::Saving);
        let (found, _) = self.checkpoints.newest_sound();
        let found = found.ok_or_else(|| self.failure_of(stumble).during("no checkpoint is sound"));
        let found = agree(&*self.communicator, found)?;
        self.restore(&found)?;
        self.state.rollback = Some(rollback);
        Ok(())
    }

    /// Scores the held-out cases; true when the mean Dice is the best so far.
    fn evaluate(&mut self) -> Result<bool> {
        let start = Instant::now();
        self.parts.recorder.enter(Phase::Evaluating);
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
        let start = Instant::now();
        self.parts.recorder.enter(Phase::Saving);
        let saved = if self.communicator.rank() == 0 { self.write_checkpoint() } else { Ok(()) };
        agree(&*self.communicator, saved)?;
        self.stopping.saved(start.elapsed());
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
