//! `scrimp train`: sets a run up on every rank, trains, and ends all ranks together.

use super::journal;
use super::narrate::{Narrated, tell};
use super::resume::Beginning;
use super::run::{self, Place};
use super::supervise::{Supervision, clear_reports};
use super::{run_directory, say};
use crate::cli;
use crate::comm::environment::Variables;
use crate::comm::{Communicator, agree, with_device};
use crate::config::plan::RunPlan;
use crate::config::{self, Precision};
use crate::data::Dataset;
use crate::error::{Context, Exit, Failure, Result};
use crate::runlog::claim::{Claim, Fence};
use crate::runlog::directory::{RunDirectory, host};
use crate::runlog::io::{EventSink, LogWriter, SharedLog};
use crate::runlog::{RunEvent, RunStarted, RunStatus, SCHEMA};
use crate::telemetry::Sampler;
use crate::train::checkpoint::Header;
use crate::train::evaluate::Yardstick;
use crate::train::stopping;
use crate::train::trainer::{Outcome, Parts, Trainer};
use crate::train::watchdog::Watchdog;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tch::Device;

/// Trains as the arguments say; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::Train) -> Result<Exit> {
    let (host, variables) = run::connect()?;
    let supervision = agree(&*host, Supervision::begin(&variables, host.rank()));
    let prepared = supervision
        .and_then(|supervision| prepare(arguments, &host, &variables, &supervision))
        .map_err(|failure| tell(failure, &*host))?;
    let Some(mut prepared) = prepared else { return Ok(Exit::Done) };
    match prepared.train(&*host) {
        Ok(Outcome::Finished) => Ok(Exit::Done),
        Ok(Outcome::Stopped(_)) => Ok(Exit::Stopped),
        Err(failure) if failure.is_told_elsewhere() || host.ranks() == 1 => Err(failure),
        // The others may be waiting for this rank: say why, then end all.
        Err(failure) => {
            say(format_args!("{failure}"));
            host.abort(failure.exit())
        }
    }
}

/// A run that is ready to train on this rank.
struct Prepared {
    trainer: Trainer,
    /// Ends before MPI does.
    _watchdog: Watchdog,
    /// Writes telemetry until the end.
    _sampler: Sampler,
    /// Whether the run directory is still that of this run.
    fence: Fence,
    /// Rank 0's claim on the run directory, given back at the end.
    _claim: Option<Claim>,
}

impl Prepared {
    fn train(&mut self, ranks: &dyn Communicator) -> Result<Outcome> {
        let outcome = self.trainer.run();
        // Whatever the last steps wrote, they may have written it elsewhere.
        let outcome =
            outcome.and_then(|outcome| agree(ranks, self.fence.check()).map(|()| outcome));
        let step = self.trainer.step();
        let (status, message) = match &outcome {
            Ok(Outcome::Finished) => (RunStatus::Finished, "all steps are done".to_owned()),
            Ok(Outcome::Stopped(reason)) => (RunStatus::Stopped, reason.to_string()),
            Err(failure) => (RunStatus::Failed, failure.message().to_owned()),
        };
        let told_elsewhere = outcome.as_ref().is_err_and(Failure::is_told_elsewhere);
        // The log of a run that was taken over is another one's.
        if !told_elsewhere && self.fence.check().is_ok() {
            self.trainer.emit(&RunEvent::RunEnded { status, step, message });
        }
        outcome
    }
}

/// Where a run reads its configuration and writes everything else.
pub(super) fn places(config: Option<&Path>, run: Option<&Path>) -> (PathBuf, RunDirectory) {
    let directory = run_directory(config, run);
    (config.map_or_else(|| directory.config(), Path::to_owned), directory)
}

/// Everything before the first step. `None`: the run is finished already, which rank 0 says.
fn prepare(
    arguments: &cli::Train,
    host_ranks: &Arc<dyn Communicator>,
    variables: &Variables,
    supervision: &Supervision,
) -> Result<Option<Prepared>> {
    let comm = &*supervision.recorded(host_ranks);
    let root = comm.rank() == 0;
    let (config, directory) = places(arguments.config.as_deref(), arguments.run.as_deref());
    let plan = config::read(&config, &arguments.overrides)
        .and_then(|config| run::resolve(&config, comm.ranks()));
    let plan = agree(comm, plan)?;
    let claim = if root { claim(&directory, &arguments.resume).map(Some) } else { Ok(None) };
    let claim = agree(comm, claim)?;
    if let Some(claim) = &claim {
        let requests = supervision.requests.clone();
        claim.when_lost(move |failure| requests.give_up(failure));
    }
    let fence = claim.as_ref().map_or_else(|| directory.fence(), |claim| Ok(claim.fence()));
    let fence = agree(comm, fence)?;
    let watchdog = supervision.watch(host_ranks, &directory, plan.train.hang_limit);
    let watchdog = agree(comm, watchdog)?;
    let place = agree(comm, Place::take(&plan, comm, variables))?;
    let ranks = supervision.recorded(&with_device(Arc::clone(host_ranks), place.device)?);
    let mut beginning = Beginning::find(&directory, &arguments.resume, comm)?;
    if beginning.step().is_some_and(|step| step >= plan.train.total_steps) {
        beginning.take(&directory, comm, &mut |message| {
            if root {
                say(format_args!("{message}"));
            }
        })?;
        if root {
            say(format_args!("`{}` is finished: all steps are done", directory.root().display()));
        }
        return Ok(None);
    }
    let resolved = agree(comm, plan.to_toml())?;
    agree(comm, beginning.compare(&plan, &resolved))?;
    let dataset = agree(comm, run::dataset(&plan))?;
    let dataset = run::labelled(&plan, dataset, comm, place.threads)?;
    let deadline = stopping::deadline(plan.train.time_limit, supervision.started, variables);
    let started =
        build((&plan, resolved), &directory, &dataset, (place, &ranks), (supervision, deadline));
    let (mut trainer, started, log) = agree(comm, started)?;
    trainer.emit(&started);
    let gpu = if let Device::Cuda(index) = place.device { Some(index) } else { None };
    let sampler = Sampler::start(log, gpu);
    let loaded = beginning.take(&directory, comm, &mut |message| {
        trainer.emit(&RunEvent::Warning { message });
    })?;
    if let Some(loaded) = loaded {
        trainer.restore(loaded)?;
    }
    Ok(Some(Prepared { trainer, _sampler: sampler, _watchdog: watchdog, fence, _claim: claim }))
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
    (plan, resolved): (&RunPlan, String),
    directory: &RunDirectory,
    dataset: &Arc<Dataset>,
    (place, ranks): (Place, &Arc<dyn Communicator>),
    (supervision, deadline): (&Supervision, Option<Instant>),
) -> Result<(Trainer, RunEvent, SharedLog)> {
    let loader = place.feed(run::loader(plan, dataset, &**ranks)?)?;
    let train_slices = loader.order().slice_count as u64;
    if ranks.rank() == 0 {
        let path = directory.config();
        std::fs::write(&path, &resolved)
            .context(|| format!("cannot write `{}`", path.display()))?;
        for line in plan.summary() {
            say(format_args!("{line}"));
        }
        let shape = if place.threads == 1 { "thread" } else { "threads" };
        say(format_args!(
            "{} on this node, {} {shape} each, on {}",
            if place.ranks_on_node == 1 {
                "1 rank".into()
            } else {
                format!("{} ranks", place.ranks_on_node)
            },
            place.threads,
            device_name(place.device)
        ));
        say(format_args!("watch it with `scrimp watch {}`", directory.root().display()));
    }
    let started =
        started(plan, directory, dataset, (train_slices, &resolved, ranks.ranks()), place.device);
    let log = LogWriter::open(&directory.rank_events(ranks.rank()), ranks.rank() as u32)?;
    let log = SharedLog::new(log);
    journal::keep_in(log.clone());
    let shared = log.clone();
    let events: Box<dyn EventSink> =
        if ranks.rank() == 0 { Box::new(Narrated::new(log)) } else { Box::new(log) };
    let trainer = Trainer::new(Parts {
        plan: plan.train.clone(),
        header: Header { method: plan.method.clone(), config: resolved },
        method: run::method(plan, dataset, place.device, ranks)?,
        loader,
        evaluator: run::evaluator(plan, dataset, place.device, Yardstick::Native),
        communicator: Arc::clone(ranks),
        recorder: Arc::clone(&supervision.recorder),
        stop: (supervision.requests.clone(), deadline),
        directory: directory.clone(),
        events,
        statistics_batches: plan.net.recompute_statistics,
        target: (run::kind(plan), place.device),
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
    (train_slices, resolved, ranks): (u64, &str, usize),
    device: Device,
) -> RunEvent {
    let run = directory.root().file_name().unwrap_or_default().to_string_lossy().into_owned();
    RunEvent::RunStarted(RunStarted {
        schema: SCHEMA,
        run,
        method: plan.method.clone(),
        dataset: dataset.name.clone(),
        classes: dataset.classes.clone(),
        fold: plan.data.fold,
        annotation: plan.data.annotation.clone(),
        ranks: ranks as u32,
        hosts: vec![host(); usize::from(ranks == 1)],
        batch_size: plan.train.batch_size as u64,
        total_steps: plan.train.total_steps,
        train_slices,
        seed: plan.train.seed,
        precision: match plan.train.precision {
            Precision::Fp32 => "fp32".to_owned(),
            Precision::Tf32 => "tf32".to_owned(),
            Precision::Bf16 => "bf16".to_owned(),
            Precision::Fp64 => "fp64".to_owned(),
        },
        device: device_name(device),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        config_digest: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(resolved.as_bytes())),
    })
}
