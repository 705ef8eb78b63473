//! `scrimp train`: sets a run up on every rank, trains, and ends all ranks together.

use super::batch_job::is_preempted;
use super::narrate::{Narrated, together};
use super::origin::Source;
use super::resume::Beginning;
use super::run::{self, Place};
use super::supervise::{Supervision, clear_reports, leave, note_end};
use super::{examine, journal};
use super::{run_directory, say, store_within, withdraw_stop, write_config};
use crate::cli;
use crate::comm::{Communicator, Host, Ranks, agree};
use crate::config;
use crate::config::plan::RunPlan;
use crate::data::Dataset;
use crate::error::{Exit, Failure, Result};
use crate::launchers::{self, Variables};
use crate::panics;
use crate::runlog::claim::{Claim, Fence};
use crate::runlog::directory::{RunDirectory, host};
use crate::runlog::io::{EventSink, LogWriter, SharedLog};
use crate::runlog::{RunEvent, RunStarted, RunStatus, SCHEMA};
use crate::signals::Signal;
use crate::telemetry::Sampler;
use crate::train::checkpoint::{CheckpointStore, Header};
use crate::train::evaluate::Yardstick;
use crate::train::stopping::{Deadline, Reason};
use crate::train::trainer::{Outcome, Parts, Trainer};
use crate::train::watchdog::Watchdog;
use crate::words::counted;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Device;

/// Trains as the arguments say; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::Train) -> Result<Exit> {
    let (_, directory) = places(arguments.config.as_deref(), arguments.run.as_deref());
    // Before MPI starts, which waits for all ranks.
    let supervision = Supervision::begin(&launchers::variables(), &directory)?;
    let (host, variables) = run::connect()?;
    together(&*host, || train(arguments, &host, &variables, &supervision))
}

fn train(
    arguments: &cli::Train,
    host: &Host,
    variables: &Variables,
    supervision: &Supervision,
) -> Result<Exit> {
    let (plan, directory) = read(arguments, &**host)?;
    let claim =
        if host.rank() == 0 { claim(&directory, &arguments.resume).map(Some) } else { Ok(None) };
    let claim = agree(&**host, claim)?;
    if let Some(claim) = &claim {
        let requests = supervision.requests.clone();
        claim.when_lost(move |failure| requests.give_up(failure));
    }
    let fence = claim.as_ref().map_or_else(|| directory.fence(), |claim| Ok(claim.fence()));
    let fence = agree(&**host, fence)?;
    let store = store_within(&directory, fence.clone());
    let task = Task { plan: &plan, directory: &directory, store, arguments, supervision };
    let prepared = panics::caught(|| prepare(&task, host, variables));
    let prepared = prepared.inspect_err(|failure| {
        // Before there is a log there is nothing that could look as if it went on.
        if !failure.is_told_elsewhere() && directory.rank_events(0).exists() {
            note_end(&directory, host.rank(), supervision.recorder.steps_done(), failure);
        }
    })?;
    let Some(mut prepared) = prepared else { return Ok(Exit::Done) };
    let outcome = prepared.train(&**host, &directory, &fence).map_err(hinted);
    let outcome = panics::unwound_if_alone(outcome)?;
    let is_obeyed = matches!(outcome, Outcome::Finished | Outcome::Stopped(Reason::Requested));
    if is_obeyed && claim.is_some() {
        withdraw_stop(&directory);
    }
    Ok(exit(&Ok(outcome)))
}

/// The same; where `SIGTERM` ended it, rank 0 asks whether Slurm needs the place, and all know it.
fn explained(outcome: Outcome, host: &dyn Communicator) -> Result<Outcome> {
    if !matches!(outcome, Outcome::Stopped(Reason::Signal(Signal::Terminate))) {
        return Ok(outcome);
    }
    let is_needed = host.any(host.rank() == 0 && is_preempted())?;
    Ok(if is_needed { Outcome::Stopped(Reason::Preempted) } else { outcome })
}

/// How the process ends after training.
fn exit(outcome: &Result<Outcome>) -> Exit {
    match outcome {
        Ok(Outcome::Finished) => Exit::Done,
        Ok(Outcome::Stopped(reason)) => reason.exit(),
        Err(failure) => failure.exit(),
    }
}

/// What is trained, where, and who looks after it.
struct Task<'a> {
    plan: &'a RunPlan,
    directory: &'a RunDirectory,
    store: CheckpointStore,
    arguments: &'a cli::Train,
    supervision: &'a Supervision,
}

fn hinted(failure: Failure) -> Failure {
    if failure.is_out_of_memory() {
        return failure
            .hint("lower `train.batch_size` or `data.size`, or raise `train.micro_batches`: `--set KEY=VALUE`");
    }
    failure
}

/// A run that is ready to train on this rank.
struct Prepared {
    trainer: Trainer,
    /// Ends before MPI does.
    _watchdog: Watchdog,
    /// Writes telemetry until the end.
    _sampler: Sampler,
}

impl Prepared {
    /// Trains to the end; who has the failure writes it down.
    fn train(
        &mut self,
        host: &dyn Communicator,
        directory: &RunDirectory,
        fence: &Fence,
    ) -> Result<Outcome> {
        let outcome = panics::caught(|| self.trainer.run());
        let outcome = outcome.and_then(|outcome| explained(outcome, host));
        // Whatever the last steps wrote, they may have written it elsewhere.
        let outcome = outcome.and_then(|outcome| agree(host, fence.check()).map(|()| outcome));
        let step = self.trainer.step();
        let (status, message) = match &outcome {
            Ok(Outcome::Finished) => (RunStatus::Finished, "all steps are done".to_owned()),
            Ok(Outcome::Stopped(reason)) => (RunStatus::Stopped, reason.to_string()),
            Err(failure) => (RunStatus::Failed, failure.sentence()),
        };
        let ended = RunEvent::RunEnded { status, step, message };
        match &outcome {
            Ok(_) => self.trainer.emit(&ended),
            Err(failure) if failure.is_told_elsewhere() => return outcome,
            // The log of a run that was taken over is another one's.
            Err(_) if fence.check().is_err() => return outcome,
            Err(_) => self.trainer.emit_own(&ended),
        }
        if host.rank() == 0 || outcome.is_err() {
            leave(directory, exit(&outcome));
        }
        outcome
    }
}

/// Where a run reads its configuration and writes everything else.
pub(super) fn places(config: Option<&Path>, run: Option<&Path>) -> (PathBuf, RunDirectory) {
    let directory = run_directory(config, run);
    (config.map_or_else(|| directory.config(), Path::to_owned), directory)
}

/// What is to be run, and where it is written.
fn read(arguments: &cli::Train, host: &dyn Communicator) -> Result<(RunPlan, RunDirectory)> {
    let (config, directory) = places(arguments.config.as_deref(), arguments.run.as_deref());
    let plan = config::read(&config, &arguments.overrides)
        .and_then(|config| run::resolve(&config, host.ranks()));
    Ok((agree(host, plan)?, directory))
}

/// Everything between the claim and the first step. `None`: the run is finished already, which rank 0
/// says.
fn prepare(task: &Task<'_>, host: &Host, variables: &Variables) -> Result<Option<Prepared>> {
    let Task { plan, directory, arguments, supervision, .. } = *task;
    let watchdog = supervision.watch(host, directory, plan.train.hang_limit);
    let watchdog = agree(&**host, watchdog)?;
    let place = Place::take(plan, &**host, variables)?;
    let ranks = supervision.recorded(place.join(host)?);
    let limits = (plan.train.time_limit, arguments.deadline);
    let deadline = supervision.deadline(limits, host.rank());
    let begun = panics::caught(|| begin(task, deadline, place, &ranks));
    let begun = panics::unwound_if_alone(begun.map_err(hinted))?;
    Ok(begun.map(|(trainer, sampler)| Prepared { trainer, _sampler: sampler, _watchdog: watchdog }))
}

/// What there is to continue, the data and the trainer; `ranks` can sum where `place` computes.
fn begin(
    task: &Task<'_>,
    (deadline, ignored): (Option<Deadline>, Option<String>),
    place: Place,
    ranks: &Ranks,
) -> Result<Option<(Trainer, Sampler)>> {
    let Task { plan, directory, ref store, arguments, .. } = *task;
    let comm = &**ranks;
    let mut say_on_root = |message: String| {
        if comm.rank() == 0 {
            say(format_args!("{message}"));
        }
    };
    let mut beginning = Beginning::find(directory, &arguments.resume, comm)?;
    if beginning.step().is_some_and(|step| step >= plan.train.total_steps) {
        beginning.take(directory, store, comm, &mut say_on_root)?;
        let name = directory.root().display();
        say_on_root(format!("`{name}` is finished: all steps are done"));
        return Ok(None);
    }
    let source = Source::read(plan);
    let examined = source.and_then(|source| examine::data(plan, &source.dataset).map(|()| source));
    let source = agree(comm, examined)?;
    let resolved = agree(comm, run::recorded(plan, &source.dataset).to_toml())?;
    let learnt_from = agree(comm, beginning.compare(directory, (plan, &resolved), &source))?;
    let dataset = run::labelled(plan, source.dataset, comm, place.threads)?;
    let (method, classes) = (plan.method.clone(), dataset.classes.clone());
    let header = Header { method, config: resolved, classes, learnt_from };
    let started = build(task, header, &dataset, (place, ranks), deadline);
    let (mut trainer, started, log) = agree(comm, started)?;
    trainer.emit(&started);
    for message in examine::warnings(plan, &dataset).into_iter().chain(ignored) {
        trainer.emit(&RunEvent::Warning { message });
    }
    let gpu = if let Device::Cuda(index) = place.device { Some(index) } else { None };
    let sampler = Sampler::start(log, gpu);
    let loaded = beginning.take(directory, store, comm, &mut |message| {
        trainer.emit(&RunEvent::Warning { message });
    })?;
    if let Some(loaded) = loaded {
        trainer.restore(loaded)?;
    }
    Ok(Some((trainer, sampler)))
}

/// Takes the run directory; `never` wants an empty one.
fn claim(directory: &RunDirectory, resume: &str) -> Result<Claim> {
    let used = directory.root().read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if resume == "never" && used {
        let name = directory.root().display();
        return Err(Failure::usage(format!(
            "`{name}` is not empty, and `--resume never` starts afresh"
        ))
        .hint(format!("choose another `--run DIR`, or remove it with `rm -r {name}`")));
    }
    let claim = directory.claim()?;
    clear_reports(directory)?;
    Ok(claim)
}

/// The trainer, the first event of its log, and the log.
fn build(
    task: &Task<'_>,
    header: Header,
    dataset: &Arc<Dataset>,
    (place, ranks): (Place, &Ranks),
    deadline: Option<Deadline>,
) -> Result<(Trainer, RunEvent, SharedLog)> {
    let Task { plan, directory, ref store, supervision, .. } = *task;
    let loader = place.feed(run::loader(plan, dataset, &**ranks)?)?;
    let train_slices = loader.order().slice_count as u64;
    if ranks.rank() == 0 {
        write_config(directory, &header.config)?;
        for line in plan.summary() {
            say(format_args!("{line}"));
        }
        say(format_args!(
            "{} on this node, {} each, on {}",
            counted(place.ranks_on_node, "rank"),
            counted(place.threads, "thread"),
            device_name(place.device)
        ));
        say(format_args!("watch it with `scrimp watch {}`", directory.root().display()));
    }
    let started =
        started(plan, directory, dataset, (train_slices, &header, ranks.ranks()), place.device);
    let log = LogWriter::open(&directory.rank_events(ranks.rank()), ranks.rank() as u32)?;
    let log = SharedLog::new(log);
    journal::keep_in(log.clone());
    let shared = log.clone();
    let events: Box<dyn EventSink> =
        if ranks.rank() == 0 { Box::new(Narrated::new(log)) } else { Box::new(log) };
    let trainer = Trainer::new(Parts {
        plan: plan.train.clone(),
        header,
        method: run::method(plan, dataset, place.device, ranks)?,
        loader,
        evaluator: run::evaluator(plan, dataset, place.device, Yardstick::Native),
        communicator: ranks.clone(),
        recorder: Arc::clone(&supervision.recorder),
        stop: (supervision.requests.clone(), deadline),
        directory: directory.clone(),
        store: store.clone(),
        events,
        statistics_batches: plan.net.recompute_statistics,
        target: run::target(plan, place.device),
    });
    Ok((trainer, started, shared))
}

fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

fn started(
    plan: &RunPlan,
    directory: &RunDirectory,
    dataset: &Dataset,
    (train_slices, header, ranks): (u64, &Header, usize),
    device: Device,
) -> RunEvent {
    let run = directory.root().file_name().unwrap_or_default().to_string_lossy().into_owned();
    RunEvent::RunStarted(RunStarted {
        schema: SCHEMA,
        run,
        method: plan.method.clone(),
        dataset: dataset.name.clone(),
        data_digest: header.learnt_from.last().map_or_else(String::new, |now| now.digest.clone()),
        classes: dataset.classes.clone(),
        fold: plan.data.fold,
        annotation: plan.data.annotation.clone(),
        ranks: ranks as u32,
        hosts: vec![host(); usize::from(ranks == 1)],
        batch_size: plan.train.batch_size as u64,
        total_steps: plan.train.total_steps,
        train_slices,
        seed: plan.train.seed,
        precision: plan.train.precision.name().to_owned(),
        device: device_name(device),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        config_digest: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(header.config.as_bytes())),
    })
}
