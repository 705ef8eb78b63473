//! The loop: batch, step, and once in a while a line in the log, an evaluation, a checkpoint.
//!
//! The trainer knows the trait [`Method`] and writes files; it does not know who reads them. What is for
//! looking at alone, log lines, scores and pictures, costs a warning where it cannot be written; what a run goes
//! on from must be written in the end.

mod repeating;
mod scoring;

use super::checkpoint::{
    CheckpointStore, Header, Loaded, Progress, Retention, RunState, Saver, refuse_differing_ranks,
    share_from_first_rank,
};
use super::evaluate::Evaluator;
use super::inference::Target;
use super::method::Method;
use super::non_finite::{Rollback, Stumble, Unread};
use super::pace::Pace;
use super::point::StepPoint;
use super::recorder::FlightRecorder;
use super::replay::{self, PendingStep, Replay};
use super::report::StepReport;
use super::stopping::{Deadline, Reason, StopRequests, Stopping};
use crate::comm::{Ranks, agree};
use crate::config::NonFinite;
use crate::config::plan::{Cadence, TrainPlan};
use crate::data::batch::Batch;
use crate::data::loader::Loader;
use crate::error::{Failure, Result};
use crate::random::Key;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::EventSink;
use crate::runlog::{self, Phase, RunEvent, flight};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// What every checkpoint says of the run.
    pub header: Header,
    /// The method, equal on all ranks.
    pub method: Box<dyn Method>,
    /// This rank's share of every global batch.
    pub loader: Loader,
    /// This rank's share of the held-out cases.
    pub evaluator: Evaluator,
    /// The ranks of this run, their calls noted in `recorder`.
    pub communicator: Ranks,
    /// What this rank is busy with.
    pub recorder: Arc<FlightRecorder>,
    /// Where requests to stop are noted, and when the run has to be over.
    pub stop: (StopRequests, Option<Deadline>),
    /// Where everything is written.
    pub directory: RunDirectory,
    /// The checkpoints of the run, which is asked before each act on them whether they are still its own.
    pub store: CheckpointStore,
    /// This rank's run log.
    pub events: Box<dyn EventSink>,
    /// Batches from which running statistics are made anew before each evaluation.
    pub statistics_batches: u64,
    /// Precision and place of images.
    pub target: Target,
}

/// A run under way on one rank.
pub struct Trainer {
    parts: Parts,
    communicator: Ranks,
    saver: Saver,
    stopping: Stopping,
    state: RunState,
    /// Whether weights came from a checkpoint and are equal on all ranks.
    is_restored: bool,
    saved_step: Option<u64>,
    unread: Unread,
    /// Where steps are to be replayed.
    replay: Option<Replay>,
    pace: Pace,
}

impl Trainer {
    /// Ready to start at step 1.
    pub fn new(parts: Parts) -> Self {
        let communicator = parts.communicator.clone();
        let (requests, deadline) = parts.stop.clone();
        let unread = Unread::new(parts.plan.on_non_finite);
        let replay = Replay::chosen(parts.plan.graph, parts.target.device);
        let store = parts.store.clone();
        let retention =
            Retention { last: parts.plan.keep_checkpoints, every: parts.plan.keep_every };
        let control = Arc::clone(communicator.control());
        let saver = Saver::new(store, parts.header.clone(), retention, control);
        Self {
            parts,
            communicator,
            saver,
            stopping: Stopping::new(requests, deadline),
            state: RunState::default(),
            is_restored: false,
            saved_step: None,
            unread,
            replay,
            pace: Pace::new(),
        }
    }

    /// Continues from a checkpoint; from one of another run by saving it as the first of this one.
    pub fn restore(&mut self, loaded: Loaded) -> Result<()> {
        let found = loaded.checkpoint().clone();
        loaded.restore(self.parts.method.learners(), &self.communicator)?;
        self.state = found.manifest.run;
        self.is_restored = true;
        if let Some(replay) = &mut self.replay {
            replay.forget();
        }
        let own = self.parts.directory.checkpoints();
        let is_own = found.path.parent() == Some(&own);
        self.saved_step = is_own.then_some(self.state.step);
        let checkpoint =
            if is_own { relative(&found.path) } else { found.path.display().to_string() };
        self.emit(&RunEvent::Resumed { step: self.state.step, checkpoint });
        Ok(())
    }

    /// Writes an event of the whole run, which rank 0 tells for all.
    pub fn emit(&mut self, event: &RunEvent) {
        if self.communicator.rank() == 0 {
            self.parts.events.emit(event);
        }
    }

    /// Steps that are done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Writes an event of this rank alone to its log.
    pub fn emit_own(&mut self, event: &RunEvent) {
        self.parts.events.emit(event);
    }

    /// Trains to the end, or until somebody asks for a stop.
    pub fn run(&mut self) -> Result<Outcome> {
        self.equalise()?;
        if self.parts.plan.on_non_finite == NonFinite::Rollback {
            // So that there is always one to go back to.
            self.save()?;
        }
        let total_steps = self.parts.plan.total_steps;
        while self.state.step < total_steps {
            self.iterate()?;
            let progress = self.saver.advance()?;
            self.note(progress);
            let step = self.state.step;
            let last = step == total_steps;
            let plan = &self.parts.plan;
            let (evaluate, save) = (plan.evaluate_every.due(step), plan.save_every.due(step));
            let log = self.logs(step);
            if log {
                self.log()?;
                if let Some(stumble) = self.look_back()? {
                    self.roll_back(&stumble)?;
                    continue;
                }
            }
            let improved = if evaluate || last { self.evaluate_or_save()? } else { false };
            if save || last || improved {
                self.save()?;
            }
            if let Some(reason) = self.vote(log)?.filter(|_| !last) {
                return self.stop(reason);
            }
        }
        self.finish_save()?;
        Ok(Outcome::Finished)
    }

    /// Saves and leaves. Where the last steps stumbled, the run is what it was before them.
    fn stop(&mut self, reason: Reason) -> Result<Outcome> {
        self.tell_stop_request();
        if let Some(stumble) = self.look_back()? {
            self.roll_back(&stumble)?;
        }
        self.save()?;
        self.finish_save()?;
        Ok(Outcome::Stopped(reason))
    }

    /// Finds out together whether a gradient since the last look was not finite. Refuses to go on from
    /// one, or returns it where a checkpoint is to be gone back to. Where the ranks fail, what they
    /// were saving is kept.
    fn look_back(&mut self) -> Result<Option<Stumble>> {
        let read = self.unread.read();
        let stumble = agree(&*self.communicator, read)?;
        let Some(stumble) = stumble else { return Ok(None) };
        if stumble.is_skipped {
            let message = format!("{}; skipped", stumble.sentence());
            self.emit(&RunEvent::Warning { message });
            return Ok(None);
        }
        if self.parts.plan.on_non_finite == NonFinite::Rollback {
            return Ok(Some(stumble));
        }
        let progress = self.saver.finish()?;
        self.note(progress);
        let failure = self.failure_of(&stumble);
        agree(&*self.communicator, Err(failure))
    }

    /// Whether to stop, and why. Requests in the run directory are looked at in logged steps only.
    fn vote(&mut self, look: bool) -> Result<Option<Reason>> {
        if look {
            self.take_stop_request();
            self.save_on_request()?;
        }
        self.parts.recorder.enter(flight::Phase::Agreeing);
        self.stopping.vote(&*self.communicator)
    }

    /// Passes on what `control/stop` asks for, as rank 0 sees it.
    fn take_stop_request(&self) {
        let directory = &self.parts.directory;
        let is_root = self.communicator.rank() == 0;
        if is_root && directory.requested(&directory.stop_request()).is_some() {
            self.stopping.requests().ask(Reason::Requested);
        }
    }

    /// Writes down who asked for the stop, whoever noticed it first.
    fn tell_stop_request(&mut self) {
        let directory = &self.parts.directory;
        if let Some(requested) = directory.requested(&directory.stop_request()) {
            self.emit(&RunEvent::Requested(requested));
        }
    }

    /// Saves if `control/checkpoint` asks for it, as rank 0 sees it, and withdraws the request.
    fn save_on_request(&mut self) -> Result<()> {
        let directory = &self.parts.directory;
        let path = directory.checkpoint_request();
        let root = self.communicator.rank() == 0;
        let requested = if root { directory.requested(&path) } else { None };
        // What cannot be withdrawn would be obeyed at every step.
        let requested = requested.filter(|_| directory.withdraw(&path).is_ok());
        if self.communicator.any(requested.is_some())? {
            self.save()?;
        }
        if let Some(requested) = requested {
            self.emit(&RunEvent::Requested(requested));
        }
        Ok(())
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

    /// Rank 0's weights and buffers are everybody's at a fresh start; no run starts from ranks that
    /// hold different ones.
    fn equalise(&mut self) -> Result<()> {
        let learners = self.parts.method.learners();
        if !self.is_restored {
            share_from_first_rank(&learners, &self.communicator)?;
        }
        refuse_differing_ranks(&learners, &*self.communicator)?;
        if self.is_restored { self.save() } else { Ok(()) }
    }

    fn iterate(&mut self) -> Result<()> {
        let start = Instant::now();
        self.pace.begin_step();
        let step = self.state.step + 1;
        let Target { kind, device } = self.parts.target;
        self.parts.recorder.begin_step(step);
        let parts = self.parts.loader.micro_batches(step)?;
        let data_wait = start.elapsed();
        self.parts.recorder.enter(flight::Phase::Step);
        let images: usize = parts.iter().map(|batch| batch.global_size).sum();
        let parts: Vec<Batch> = parts.into_iter().map(|batch| batch.to(kind, device)).collect();
        self.unread.before_step(&self.parts.method.learners())?;
        let report = self.one_step(parts, step)?;
        self.unread.after_step(step, report)?;
        self.state.step = step;
        self.pace.end_step(images, data_wait);
        self.parts.recorder.end_step(start.elapsed());
        Ok(())
    }

    fn one_step(&mut self, batches: Vec<Batch>, step: u64) -> Result<StepReport> {
        let plan = &self.parts.plan;
        let rate_share = self.state.rollback.map_or(1.0, |rollback| rollback.rate_share(step));
        let point = StepPoint::new(step, plan.total_steps, Key::new(plan.seed));
        let point = point
            .in_epochs_of(self.parts.loader.order().steps_per_epoch())
            .with_rate_share(rate_share);
        let (logged, communicator) = (self.logs(step), &self.communicator);
        let due = PendingStep { batches, point, logged, communicator };
        let method = &mut *self.parts.method;
        let report = match &mut self.replay {
            Some(replay) => replay.step(method, due),
            None => replay::compute(method, &due),
        };
        let news = self.replay.as_mut().and_then(Replay::take_news);
        if let Some(news) = news {
            self.emit(&news);
        }
        report.map_err(|failure| failure.during(format!("step {step} failed")))
    }

    /// Writes the numbers of the last step and the pace since the last line.
    fn log(&mut self) -> Result<()> {
        self.parts.recorder.enter(flight::Phase::Logging);
        let step = self.state.step;
        let (communicator, unread) = (&*self.communicator, &self.unread);
        let (numbers, stretch) = self.pace.up_to(|| {
            let numbers = unread.last().map(StepReport::fetch).transpose();
            agree(communicator, numbers)
        })?;
        let numbers = numbers.unwrap_or_default();
        let step_ms = stretch.step_ms();
        if self.communicator.rank() == 0 {
            self.parts.events.emit(&RunEvent::Step(runlog::Step {
                step,
                epoch: (step - 1) / self.parts.loader.order().steps_per_epoch() + 1,
                loss: numbers.losses.iter().cloned().collect(),
                observed: numbers.observations.iter().cloned().collect(),
                lr: numbers.learners.iter().map(|(name, lr, _)| (name.clone(), *lr)).collect(),
                grad_norm: numbers.learners.iter().map(|(name, _, n)| (name.clone(), *n)).collect(),
                step_ms,
                images_per_second: stretch.images_per_second(),
            }));
        }
        self.parts.events.emit(&RunEvent::Health(runlog::Health {
            step,
            step_ms,
            data_wait_ms: stretch.data_wait_ms(),
            communication_ms: stretch.ms_of_a_step(self.parts.recorder.take_sum_time()),
            memory_bytes: resident_memory_bytes(),
        }));
        Ok(())
    }

    fn failure_of(&self, stumble: &Stumble) -> Failure {
        stumble.failure(&self.parts.loader.slices(stumble.first))
    }

    /// Goes back to the newest checkpoint and lowers the rate up to the next one; fails where that
    /// was tried before.
    fn roll_back(&mut self, stumble: &Stumble) -> Result<()> {
        self.pace.pause();
        let step = self.state.step;
        let save_every = self.parts.plan.save_every.steps();
        let Some(rollback) = Rollback::after(self.state.rollback, step, save_every) else {
            let failure = self.failure_of(stumble);
            let failure = failure.during("going back to a checkpoint did not help");
            return agree(&*self.communicator, Err(failure));
        };
        let message = format!(
            "{}; going back to the newest checkpoint, {} of the learning rate up to step {}",
            stumble.sentence(),
            rollback.rate_share(0),
            rollback.until
        );
        self.emit(&RunEvent::Warning { message });
        // One that failed is no reason not to go back to an older one.
        let progress = self.saver.finish()?;
        self.note(progress);
        let store = self.parts.store.clone();
        let (found, _) = store.newest_sound(&*self.communicator)?;
        let found = found.ok_or_else(|| self.failure_of(stumble).during("no checkpoint is sound"));
        let found = agree(&*self.communicator, found)?;
        // Damaged ones would be in the way of what is saved in their place.
        let step = found.checkpoint().manifest.run.step;
        let root = self.communicator.rank() == 0;
        let cleared = if root { store.set_aside_after(Some(step)).map(drop) } else { Ok(()) };
        agree(&*self.communicator, cleared)?;
        self.restore(found)?;
        self.state.rollback = Some(rollback);
        Ok(())
    }

    /// Starts saving where this step is not saved yet; waits for the copy, and for an earlier save.
    /// Refuses to save what followed a gradient of which nobody knows whether it was finite.
    fn save(&mut self) -> Result<()> {
        let step = self.state.step;
        if self.saved_step == Some(step) {
            return Ok(());
        }
        self.pace.pause();
        self.parts.recorder.enter(flight::Phase::Saving);
        if let Some(stumble) = self.look_back()? {
            return agree(&*self.communicator, Err(self.failure_of(&stumble)));
        }
        let progress = self.saver.finish()?;
        self.note(progress);
        let begun = self.saver.begin(self.state.clone(), &self.parts.method.learners());
        agree(&*self.communicator, begun)?;
        self.saved_step = Some(step);
        Ok(())
    }

    /// Waits for the last save. Where it failed, so has the run: what it trained would be lost.
    fn finish_save(&mut self) -> Result<()> {
        self.parts.recorder.enter(flight::Phase::Saving);
        self.emit(&RunEvent::Phase { step: self.state.step, phase: Phase::Saving });
        match self.saver.finish()? {
            Progress::Failed(failure) => Err(failure.known_to_all()),
            progress => {
                self.note(progress);
                Ok(())
            }
        }
    }

    /// Tells how saving went on. A failure is no reason to end a run that can save again later.
    fn note(&mut self, progress: Progress) {
        match progress {
            Progress::Idle | Progress::Writing => {}
            Progress::Saved(saved) => {
                self.stopping.saved(Duration::from_secs_f64(saved.seconds));
                self.emit(&RunEvent::CheckpointSaved {
                    step: saved.step,
                    path: relative(&saved.path),
                    bytes: saved.bytes,
                    seconds: saved.seconds,
                });
            }
            Progress::Failed(failure) => {
                let message = format!("{}; training goes on", failure.sentence());
                self.emit(&RunEvent::Warning { message });
            }
        }
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
