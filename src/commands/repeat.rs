//! `scrimp resume`: goes on with a run, or repeats its last logged steps and says whether their numbers are the same.
//!
//! What is repeated is read from the run's directory, and nothing is written there: no log, no checkpoint, no claim.
//! So the run may be alive meanwhile.

use super::narrate::together;
use super::origin::{Continued, Source};
use super::run::{self, Place};
use super::{print, print_json, say, train};
use crate::cli;
use crate::comm::{Communicator, Host, Ranks, agree, from_first_rank};
use crate::config::plan::RunPlan;
use crate::config::{self, Precision, changes};
use crate::data::Dataset;
use crate::error::{Exit, Failure, Result};
use crate::launchers::Variables;
use crate::panics;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::EventSink;
use crate::runlog::logged::{Difference, LoggedSteps, Stretch, differences};
use crate::runlog::{RunEvent, Step};
use crate::train::checkpoint::{CheckpointStore, Header, Loaded, load};
use crate::train::evaluate::Yardstick;
use crate::train::recorder::FlightRecorder;
use crate::train::stopping::StopRequests;
use crate::train::trainer::{Parts, Trainer};
use crate::watch::Feed;
use crate::words::counted;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tch::Device;

/// Runs `scrimp resume`; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::Resume) -> Result<Exit> {
    let Some(count) = arguments.verify else {
        return train::run(&cli::Train {
            config: None,
            run: Some(arguments.run.clone()),
            resume: "auto".to_owned(),
            overrides: Vec::new(),
            deadline: None,
        });
    };
    let (host, variables) = run::connect()?;
    together(&*host, || verify(arguments, count, &host, &variables))
}

fn verify(arguments: &cli::Resume, count: u64, host: &Host, variables: &Variables) -> Result<Exit> {
    let start = Instant::now();
    let directory = RunDirectory::new(&arguments.run);
    let mut logged = LoggedSteps::default();
    let task = from_first_rank(&**host, || {
        // Refuses what is no run, in the words of `scrimp watch`.
        Feed::open(directory.clone())?;
        logged = LoggedSteps::read(&directory)?;
        Task::of(&directory, &logged, count)
    })?;
    let mut notes = Vec::new();
    let from = sound(&task, &**host, &mut notes)?;
    let checkpoint = from.checkpoint().path.clone();
    let base = from.checkpoint().manifest.run.step;
    // The others have read no log, and refuse nothing.
    let made_by = logged.stretches_after(base);
    agree(&**host, refuse_others(&directory, made_by, host.ranks(), arguments))?;
    let plan = config::read(&directory.config(), &[])
        .and_then(|config| run::resolve(&config, host.ranks()));
    let plan = agree(&**host, plan)?;
    let place = Place::take(&plan, &**host, variables)?;
    agree(&**host, refuse_other_device(&task, place.device, arguments))?;
    let ranks = place.join(host)?;
    if ranks.rank() == 0 {
        let (first, last) = (base + 1, task.last);
        say(format_args!("computes steps {first} to {last} from `{}`", checkpoint.display()));
    }
    let mut repetition = Repetition { plan, directory, place, ranks: ranks.clone(), notes };
    let steps = panics::caught(|| repetition.steps(from, task.last));
    let steps = panics::unwound_if_alone(steps)?;
    let tolerance = arguments.tolerance.unwrap_or_else(|| repetition.tolerance());
    let told = (ranks.rank() == 0).then(|| {
        repetition.note_other_configuration(logged.stretches_after(base));
        let mut verdict = Verdict::of(logged.steps_after(task.before()), &steps, &task, tolerance);
        verdict.run.clone_from(&arguments.run);
        verdict.checkpoint = checkpoint;
        (verdict.ranks, verdict.threads) = (ranks.ranks(), place.threads);
        verdict.notes = std::mem::take(&mut repetition.notes);
        verdict.seconds = start.elapsed().as_secs_f64();
        let printed = if arguments.json { print_json(&verdict) } else { print(&verdict.text()) };
        printed.map(|()| verdict.is_same)
    });
    let is_same = agree(&*ranks, told.transpose())?.unwrap_or(true);
    Ok(if ranks.any(!is_same)? { Exit::Failed } else { Exit::Done })
}

/// What is to be repeated, equal on every rank.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    /// Checkpoints that lie before it, the newest last.
    checkpoints: Vec<PathBuf>,
    /// The first step that is compared.
    first: u64,
    /// The last one.
    last: u64,
    /// Where the run computed.
    device: String,
}

impl Task {
    /// The last `count` logged steps. Refuses a run without so many, and one without a checkpoint before them.
    fn of(directory: &RunDirectory, logged: &LoggedSteps, count: u64) -> Result<Self> {
        let (run, steps) = (directory.root().display(), logged.steps());
        let known = steps.len() as u64;
        let Some(last) = steps.last().filter(|_| known >= count) else {
            let failure = Failure::usage(format!(
                "`{run}` has logged {known} steps, expected at least the {count} of `--verify`"
            ));
            return Err(if known == 0 {
                failure
            } else {
                failure.hint(format!(
                    "use `--verify {known}` at most, once a checkpoint lies before these"
                ))
            });
        };
        let first = steps[(known - count) as usize].step;
        let back = logged.last_rollback();
        let found = CheckpointStore::new(directory.checkpoints()).paths()?;
        let is_before =
            |path: &PathBuf| step_of(path).is_some_and(|step| step < first && Some(step) > back);
        let checkpoints: Vec<PathBuf> =
            found.iter().filter(|path| is_before(path)).cloned().collect();
        if checkpoints.is_empty() {
            return Err(refused(directory, logged, count, first, &found));
        }
        let device = logged.stretches_after(first.saturating_sub(1)).last();
        let device = device.map_or_else(String::new, |stretch| stretch.started.device.clone());
        Ok(Self { checkpoints, first, last: last.step, device })
    }

    /// The step in front of the first one.
    fn before(&self) -> u64 {
        self.first.saturating_sub(1)
    }
}

/// The step in the name of a checkpoint.
fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// There is no checkpoint to begin with: why, and what would help.
fn refused(
    directory: &RunDirectory,
    logged: &LoggedSteps,
    count: u64,
    first: u64,
    found: &[PathBuf],
) -> Failure {
    let run = directory.root().display();
    let failure = Failure::usage(format!(
        "no checkpoint of `{run}` lies before step {first}, the first of its last {count} logged steps"
    ));
    let back = logged.last_rollback();
    let failure = match back {
        Some(step) => failure.because_of(&format!(
            "after step {step} the run went back to a checkpoint with a lower learning rate, which no checkpoint up to it knows of"
        )),
        None => failure,
    };
    let usable = found.iter().filter_map(|path| step_of(path)).filter(|step| Some(*step) > back);
    let behind = usable.map(|step| logged.steps_after(step).len()).max().unwrap_or(0);
    let failure = match behind {
        0 => failure,
        most => failure.hint(format!("use `--verify {most}` at most")),
    };
    failure.hint("keep older checkpoints: raise `train.keep_checkpoints`, or set `train.keep_every` for milestones")
}

/// Refuses numbers that nobody promises to be the same: of another version of this program, and without `--tolerance`
/// of another number of processes.
fn refuse_others(
    directory: &RunDirectory,
    stretches: &[Stretch],
    ranks: usize,
    arguments: &cli::Resume,
) -> Result<()> {
    let (run, own) = (directory.root().display(), env!("CARGO_PKG_VERSION"));
    for started in stretches.iter().map(|stretch| &stretch.started) {
        if started.code_version != own {
            return Err(Failure::usage(format!(
                "`{run}` was trained by scrimp {}, this is {own}, which need not compute the same numbers",
                started.code_version
            ))
            .hint(format!("repeat its steps with scrimp {}", started.code_version)));
        }
        let trained_on = started.ranks as usize;
        if trained_on != ranks && arguments.tolerance.is_none() {
            let count = arguments.verify.unwrap_or_default();
            return Err(Failure::usage(format!(
                "these steps of `{run}` were trained on {}, started on {}",
                counted(trained_on, "process"),
                counted(ranks, "process")
            ))
            .hint(format!("run `mpirun -n {trained_on} scrimp resume {run} --verify {count}`"))
            .hint("or say how far apart numbers may lie, as in `--tolerance 1e-3`: sums over other numbers of processes are rounded otherwise"));
        }
    }
    Ok(())
}

/// Refuses, without `--tolerance`, to compare a CPU with a GPU.
fn refuse_other_device(task: &Task, device: Device, arguments: &cli::Resume) -> Result<()> {
    let is_gpu = |is: bool| if is { "GPUs" } else { "CPUs" };
    let (then, now) = (task.device != "cpu", device != Device::Cpu);
    if then == now || arguments.tolerance.is_some() {
        return Ok(());
    }
    Err(Failure::usage(format!("these steps were trained on {}, and are to be repeated on {}", is_gpu(then), is_gpu(now)))
        .hint("repeat them on such a machine, or say how far apart numbers may lie, as in `--tolerance 1e-3`"))
}

/// The newest of the checkpoints that verifies; what is wrong with newer ones is noted.
fn sound(task: &Task, comm: &dyn Communicator, notes: &mut Vec<String>) -> Result<Loaded> {
    let mut refused = None;
    for path in task.checkpoints.iter().rev() {
        match load(path, comm) {
            Ok(found) => return Ok(found),
            Err(failure) => {
                notes.push(format!("passed over a checkpoint: {}", failure.sentence()));
                refused = Some(failure);
            }
        }
    }
    Err(refused.unwrap_or_else(|| Failure::new("there is no checkpoint to begin with")))
}

/// A run whose steps are done again.
struct Repetition {
    plan: RunPlan,
    directory: RunDirectory,
    place: Place,
    ranks: Ranks,
    notes: Vec<String>,
}

/// Keeps the steps that a trainer logs.
struct Kept(Rc<RefCell<Vec<Step>>>);

impl EventSink for Kept {
    fn emit(&mut self, event: &RunEvent) {
        if let RunEvent::Step(step) = event {
            self.0.borrow_mut().push(step.clone());
        }
    }
}

impl Repetition {
    /// Logged steps from a checkpoint to `last`, on rank 0. Refuses other data than the run learnt from.
    fn steps(&mut self, from: Loaded, last: u64) -> Result<Vec<Step>> {
        let (plan, comm) = (&self.plan, &*self.ranks);
        let source = agree(comm, Source::read(plan))?;
        let resolved = agree(comm, run::recorded(plan, &source.dataset).to_toml())?;
        let continued = Continued::new(from.checkpoint(), (plan, &source), true);
        let learnt_from = agree(comm, continued)?.learnt_from;
        let changed = agree(comm, changes(&from.checkpoint().manifest.config, &resolved))?;
        let path = from.checkpoint().path.display().to_string();
        let noted = |change| format!("the configuration is not that of `{path}`: {change}");
        self.notes.extend(changed.iter().map(noted));
        let dataset = run::labelled(plan, source.dataset, comm, self.place.threads)?;
        let (method, classes) = (plan.method.clone(), dataset.classes.clone());
        let header = Header { method, config: resolved, classes, learnt_from };
        let kept = Rc::default();
        let trainer = self.trainer(header, &dataset, Kept(Rc::clone(&kept)));
        agree(comm, trainer)?.repeat(from, last)?;
        Ok(kept.take())
    }

    fn trainer(&self, header: Header, dataset: &Arc<Dataset>, kept: Kept) -> Result<Trainer> {
        let Self { plan, directory, place, ranks, .. } = self;
        // A trainer that repeats saves nothing; this holds it to that.
        let guard = || Err(Failure::new("a run that is repeated is not changed"));
        Ok(Trainer::new(Parts {
            plan: plan.train.clone(),
            header,
            method: run::method(plan, dataset, place.device, ranks)?,
            loader: place.feed(run::loader(plan, dataset, &**ranks)?)?,
            evaluator: run::evaluator(plan, dataset, place.device, Yardstick::Native),
            communicator: ranks.clone(),
            recorder: Arc::new(FlightRecorder::new()),
            stop: (StopRequests::default(), None),
            directory: directory.clone(),
            store: CheckpointStore::new(directory.checkpoints()).guarded(Arc::new(guard)),
            events: Box::new(kept),
            statistics_batches: plan.net.recompute_statistics,
            target: run::target(plan, place.device),
        }))
    }

    /// How far apart numbers may lie: not at all on CPUs; on GPUs, whose libraries choose their algorithms anew, as
    /// far as differences of rounding grow over some steps.
    fn tolerance(&self) -> f64 {
        match (self.place.device, self.plan.train.precision) {
            (Device::Cpu, _) => 0.0,
            (_, Precision::Fp64) => 1e-9,
            (_, Precision::Fp32) => 1e-3,
            (_, Precision::Tf32) => 1e-2,
            (_, Precision::Bf16) => 5e-2,
        }
    }

    /// Notes where the run says that it began with another configuration than the one at hand.
    fn note_other_configuration(&mut self, stretches: &[Stretch]) {
        let text = std::fs::read(self.directory.config()).unwrap_or_default();
        let digest = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&text));
        for stretch in stretches.iter().filter(|one| one.started.config_digest != digest) {
            self.notes.push(format!(
                "`{}` is not the configuration with which the steps after {} were trained",
                self.directory.config().display(),
                stretch.after
            ));
        }
    }
}

/// What came of repeating steps, with its numbers.
#[derive(Debug, Serialize)]
struct Verdict {
    run: PathBuf,
    is_same: bool,
    first_step: u64,
    last_step: u64,
    logged_steps: usize,
    numbers: usize,
    differing_numbers: usize,
    relative_tolerance: f64,
    first_difference: Option<Difference>,
    checkpoint: PathBuf,
    ranks: usize,
    threads: usize,
    seconds: f64,
    notes: Vec<String>,
}

impl Verdict {
    fn of(logged: &[Step], repeated: &[Step], task: &Task, tolerance: f64) -> Self {
        // A run that is alive has logged more by now.
        let logged: Vec<&Step> = logged.iter().filter(|step| step.step <= task.last).collect();
        let (mut found, mut numbers) = (Vec::new(), 0);
        for step in &logged {
            let again = repeated.iter().find(|again| again.step == step.step);
            let (differing, compared) = differences(step, again, tolerance);
            found.extend(differing);
            numbers += compared;
        }
        Self {
            run: PathBuf::new(),
            is_same: found.is_empty(),
            first_step: task.first,
            last_step: task.last,
            logged_steps: logged.len(),
            numbers,
            differing_numbers: found.len(),
            relative_tolerance: tolerance,
            first_difference: found.into_iter().next(),
            checkpoint: PathBuf::new(),
            ranks: 0,
            threads: 0,
            seconds: 0.0,
            notes: Vec::new(),
        }
    }

    fn text(&self) -> String {
        let Self { numbers, logged_steps, first_step, last_step, ranks, .. } = self;
        let all = format!(
            "{numbers} numbers of {logged_steps} logged steps, {first_step} to {last_step}"
        );
        let within = match self.relative_tolerance {
            0.0 => "bit for bit".to_owned(),
            share => format!("to {share:e} of the larger one"),
        };
        let from =
            format!("from `{}` on {}", self.checkpoint.display(), counted(*ranks, "process"));
        let notes =
            self.notes.iter().fold(String::new(), |text, note| text + "note: " + note + "\n");
        let Some(first) = &self.first_difference else {
            return format!("the same: {all}, {within}, {from}\n{notes}");
        };
        let written = |number: Option<f64>| {
            number.map_or_else(|| "nothing".to_owned(), |number| number.to_string())
        };
        let by =
            first.relative_difference.map(|share| format!(", {share:.1e} of the larger one apart"));
        format!(
            "not the same: step {} differs first, in `{}`: the log says {}, repeated it is {}{}\n\
             {} of {all} differ, compared {within}, {from}\n\
             note: sums are rounded by the number of threads, which is {} here and has to be that of the run\n{notes}",
            first.step,
            first.key,
            written(first.logged),
            written(first.repeated),
            by.unwrap_or_default(),
            self.differing_numbers,
            self.threads
        )
    }
}
