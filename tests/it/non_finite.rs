//! A gradient that is not finite changes no weights, under every policy, no run loops for ever, and no
//! run that fails loses what it could save.

use safetensors::{Dtype, SafeTensors};
use scrimp::comm::{Communicator, Ranks, TensorSums, threads};
use scrimp::config;
use scrimp::config::plan::RunPlan;
use scrimp::data::Dataset;
use scrimp::data::augment::Resample;
use scrimp::data::batch::Batch;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::stream::ANNOTATED;
use scrimp::error::{Exit, Result};
use scrimp::methods::{self, Passes, Setup};
use scrimp::native::GroupSum;
use scrimp::random::Key;
use scrimp::runlog::RunEvent;
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::io::EventSink;
use scrimp::train::checkpoint::{CheckpointStore, Header};
use scrimp::train::evaluate::{Evaluator, Yardstick};
use scrimp::train::inference::Target;
use scrimp::train::learner::Learner;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::recorder::FlightRecorder;
use scrimp::train::stopping::{Reason, StopRequests};
use scrimp::train::trainer::{Outcome, Parts, Trainer};
use scrimp::train::{ForwardMode, Method, StepContext};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Sums of a method's gradient are larger than this, those of batch normalisation smaller.
const GRADIENT: usize = 100_000;

/// Ranks whose memory is struck, and which are asked to stop, when their gradients are summed.
struct Struck {
    inner: Ranks,
    strikes: fn(u64) -> bool,
    /// After this sum a stop is asked for; 0: never.
    stop_after: u64,
    requests: StopRequests,
    sums: AtomicU64,
}

impl Struck {
    fn new(inner: Ranks, strikes: fn(u64) -> bool, stop_after: u64) -> Self {
        let requests = StopRequests::default();
        Self { inner, strikes, stop_after, requests, sums: AtomicU64::new(0) }
    }
}

impl GroupSum for Struck {
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn sum(&self, tensor: &Tensor) {
        self.inner.tensors().sum(tensor);
        if tensor.numel() < GRADIENT {
            return;
        }
        let sum = self.sums.fetch_add(1, Ordering::Relaxed) + 1;
        if (self.strikes)(sum) {
            let _ = tensor.get(7).fill_(f64::NAN);
        }
        if sum == self.stop_after {
            self.requests.ask(Reason::Requested);
        }
    }
}

impl TensorSums for Struck {
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        self.inner.tensors().broadcast(root, tensor)
    }
}

impl Communicator for Struck {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }
    fn max(&self, value: i64) -> Result<i64> {
        self.inner.max(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.inner.gather(message)
    }
    fn abort(&self, exit: Exit) -> ! {
        self.inner.abort(exit)
    }
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<RunEvent>>>);

impl EventSink for Events {
    fn emit(&mut self, event: &RunEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Events {
    fn warnings(&self) -> Vec<String> {
        let warning = |event: &RunEvent| match event {
            RunEvent::Warning { message } => Some(message.clone()),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(warning).collect()
    }

    /// Logged steps with their learning rates, in the order in which they were done.
    fn rates(&self) -> Vec<(u64, f64)> {
        let rate = |event: &RunEvent| match event {
            RunEvent::Step(step) => Some((step.step, step.lr["segmenter"])),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(rate).collect()
    }
}

fn phantoms() -> Dataset {
    let difficulty = Difficulty::Easy;
    generate(&Phantom { cases: 5, slices: 2, size: 32, difficulty, seed: 3 }).unwrap()
}

fn method(plan: &RunPlan, dataset: &Dataset) -> Box<dyn Method> {
    let key = Key::new(plan.train.seed).purpose("weights");
    let setup = Setup {
        learner: LearnerSetup {
            key,
            kind: Kind::Float,
            computed: Kind::Float,
            device: Device::Cpu,
            moments: Moments::Whole,
        },
        classes: dataset.classes.len() as i64,
        channels: 1,
        passes: Passes::new(false, None),
        slices: Vec::new(),
        sample: [1, 0, 0],
        spacing_mm: None,
        levels: Vec::new(),
    };
    (methods::find(&plan.method).unwrap().build)(&plan.method_params, &setup).unwrap()
}

/// A run of 12 steps that logs each, evaluates after the last and saves after 4, 8 and 12.
fn trainer(
    policy: &str,
    dataset: Dataset,
    strikes: fn(u64) -> bool,
    run: &Path,
) -> (Trainer, Events) {
    let plan = [format!("train.on_non_finite={policy}"), "train.save_every=4".to_owned()];
    trainer_of(&plan, dataset, Struck::new(Ranks::alone(), strikes, 0), run, |method| method)
}

/// A run of 12 steps that evaluates after the last, on this rank.
fn trainer_of(
    overrides: &[String],
    dataset: Dataset,
    ranks: Struck,
    run: &Path,
    change: impl FnOnce(Box<dyn Method>) -> Box<dyn Method>,
) -> (Trainer, Events) {
    let mut plan = vec![
        "train.total_steps=12".to_owned(),
        "train.evaluate_every=12".to_owned(),
        "method.params.learner.schedule=constant".to_owned(),
    ];
    plan.extend_from_slice(overrides);
    let overrides = plan;
    let config = config::read(Path::new("configs/smoke/partial-ce.toml"), &overrides).unwrap();
    let mut plan = RunPlan::resolve(config.clone(), ranks.inner.ranks()).unwrap();
    plan.method_params = (methods::find(&plan.method).unwrap().check)(&config).unwrap();
    let dataset = Arc::new(dataset);
    let loader = LoaderPlan {
        fold: 1,
        annotation: plan.data.annotation.clone(),
        batch_size: plan.train.batch_size,
        drop_last: false,
        streams: ANNOTATED,
        sampling: plan.data.sampling,
        augment: Resample::Reference,
        outside: scrimp::data::IGNORE,
        seed: plan.train.seed,
    };
    std::fs::create_dir_all(run).unwrap();
    let events = Events::default();
    let target = Target { kind: Kind::Float, device: Device::Cpu };
    let trainer = Trainer::new(Parts {
        header: Header { method: plan.method.clone(), ..Header::default() },
        method: change(method(&plan, &dataset)),
        loader: Loader::new(&dataset, loader, ranks.inner.rank(), ranks.inner.ranks()).unwrap(),
        evaluator: Evaluator {
            dataset: Arc::clone(&dataset),
            fold: 1,
            sampling: plan.data.sampling,
            target,
            yardstick: Yardstick::Voxels,
            volume_statistics: false,
            annotation: "scribble".to_owned(),
        },
        stop: (ranks.requests.clone(), None),
        communicator: Ranks::of(Arc::new(ranks)),
        recorder: Arc::new(FlightRecorder::new()),
        directory: RunDirectory::new(run),
        store: CheckpointStore::new(RunDirectory::new(run).checkpoints()),
        events: Box::new(events.clone()),
        statistics_batches: 0,
        target,
        plan: plan.train,
    });
    (trainer, events)
}

fn half_rate(full: f64, halvings: i32) -> f64 {
    full * 0.5f64.powi(halvings)
}

#[test]
fn stop_says_which_step_losses_and_slices_it_was() {
    let folder = TempDir::new().unwrap();
    let (mut trainer, events) = trainer("stop", phantoms(), |sum| sum == 7, folder.path());
    let text = trainer.run().unwrap_err().to_string();
    assert!(text.starts_with("error: the gradient of step 7 was not finite"), "{text}");
    assert!(text.contains("  losses: segmenter/partial_ce = "), "{text}");
    assert!(text.contains("  slices: phantom000"), "{text}");
    assert_eq!(events.rates().last().unwrap().0, 7);
    assert!(!folder.path().join("checkpoints/step-00000008").exists());
}

#[test]
fn skip_goes_on_and_tells_until_it_is_ten_in_a_row() {
    let folder = TempDir::new().unwrap();
    let (mut some, events) =
        trainer("skip", phantoms(), |sum| [3, 7].contains(&sum), &folder.path().join("some"));
    assert_eq!(some.run().unwrap(), Outcome::Finished);
    let skipped = |step| {
        format!("the gradient of step {step} was not finite; it changed no weights; skipped")
    };
    assert_eq!(events.warnings(), [skipped(3), skipped(7)]);
    let (mut all, events) = trainer("skip", phantoms(), |_| true, &folder.path().join("all"));
    let failure = all.run().unwrap_err();
    assert!(failure.message().contains("step 10 was"), "{failure}");
    assert_eq!(events.warnings().len(), 9);
}

#[test]
fn a_skipped_step_leaves_the_running_statistics_as_they_were() {
    let folder = TempDir::new().unwrap();
    let (mut trainer, events) = trainer("skip", damaged(), |_| false, folder.path());
    assert_eq!(trainer.run().unwrap(), Outcome::Finished);
    let skipped = events.warnings().len();
    assert!((4..12).contains(&skipped), "{:?}", events.warnings());
    let evaluated = events.0.lock().unwrap().iter().find_map(|event| match event {
        RunEvent::Evaluated(evaluated) => Some(evaluated.clone()),
        _ => None,
    });
    // A network whose statistics are not finite calls everything background.
    assert!(evaluated.unwrap().mean_dice > 0.0);
}

/// The phantoms, the slices of one of whose cases are not numbers: of a fold that is learnt from, so that
/// every epoch of 8 slices, two steps, has two of them.
fn damaged() -> Dataset {
    let mut dataset = phantoms();
    let damaged = dataset.cases.iter_mut().find(|case| case.fold != 1).unwrap();
    damaged.scan.voxels.fill(f32::NAN);
    dataset
}

/// Whether all checkpoints of a run hold numbers alone, and their names.
fn checkpoints(run: &Path) -> (bool, Vec<String>) {
    let folder = run.join("checkpoints");
    let mut names = Vec::new();
    let mut are_finite = true;
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        names.push(entry.file_name().into_string().unwrap());
        for shard in entry.path().read_dir().unwrap().flatten() {
            if shard.path().extension().is_none_or(|kind| kind != "safetensors") {
                continue;
            }
            let bytes = std::fs::read(shard.path()).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            for (_, tensor) in tensors.tensors().iter().filter(|(_, t)| t.dtype() == Dtype::F32) {
                let numbers = tensor.data().chunks_exact(4);
                let mut numbers = numbers.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                are_finite &= numbers.all(f32::is_finite);
            }
        }
    }
    names.sort();
    (are_finite, names)
}

#[test]
fn a_stop_at_a_step_that_is_not_logged_saves_nothing_poisoned() {
    let folder = TempDir::new().unwrap();
    let outcomes = |policy: &str, ranks: usize| {
        let run = folder.path().join(format!("{policy}-{ranks}"));
        let plan = [
            format!("train.on_non_finite={policy}"),
            "train.log_every=50".to_owned(),
            "train.save_every=50".to_owned(),
        ];
        let ended = threads::run(ranks, |comm| {
            let struck = Struck::new(comm, |_| false, 9);
            trainer_of(&plan, damaged(), struck, &run, |method| method).0.run()
        });
        (ended, checkpoints(&run))
    };
    for ranks in [1, 2] {
        let (ended, saved) = outcomes("stop", ranks);
        let failure = ended[0].as_ref().unwrap_err();
        assert!(failure.message().contains("not finite"), "{failure}");
        assert!(ended.iter().all(|outcome| outcome.as_ref().unwrap_err().is_known_to_all()));
        assert_eq!(saved, (true, Vec::new()), "on {ranks} ranks");
        let (ended, saved) = outcomes("skip", ranks);
        assert_eq!(*ended[0].as_ref().unwrap(), Outcome::Stopped(Reason::Requested));
        assert_eq!(saved, (true, vec!["step-00000009".to_owned()]), "on {ranks} ranks");
        let (ended, saved) = outcomes("rollback", ranks);
        assert_eq!(*ended[0].as_ref().unwrap(), Outcome::Stopped(Reason::Requested));
        assert_eq!(saved, (true, vec!["step-00000000".to_owned()]), "on {ranks} ranks");
    }
}

/// A method that needs more memory for a prediction than there is.
struct Exhausted(Box<dyn Method>);

impl Method for Exhausted {
    fn form(&self, point: &StepPoint) -> Option<u32> {
        self.0.form(point)
    }
    fn step(&mut self, batch: &Batch, cx: &mut StepContext<'_>) -> Result<()> {
        self.0.step(batch, cx)
    }
    fn forward(&self, image: &Tensor, _mode: ForwardMode) -> Result<Tensor> {
        Ok(image + Tensor::zeros([1 << 46], (Kind::Float, Device::Cpu)))
    }
    fn learners(&self) -> Vec<&Learner> {
        self.0.learners()
    }
}

#[test]
fn an_evaluation_that_fails_loses_no_steps() {
    let folder = TempDir::new().unwrap();
    let plan = ["train.evaluate_every=5".to_owned(), "train.save_every=50".to_owned()];
    for ranks in [1, 2] {
        let run = folder.path().join(format!("on-{ranks}"));
        let ended = threads::run(ranks, |comm| {
            let struck = Struck::new(comm, |_| false, 0);
            // Its memory does not suffice, on rank 0 alone.
            let alone = struck.rank() == 0;
            let exhaust = |method| -> Box<dyn Method> {
                if alone { Box::new(Exhausted(method)) } else { method }
            };
            trainer_of(&plan, phantoms(), struck, &run, exhaust).0.run()
        });
        let failure = ended[0].as_ref().unwrap_err();
        assert!(failure.is_out_of_memory() && failure.is_known_to_all(), "{failure}");
        assert_eq!(failure.message(), "the evaluation after step 5 failed");
        let text = failure.to_string();
        assert!(text.contains("can't allocate memory") && !text.contains("frame #"), "{text}");
        assert!(text.contains("hint: step 5 is saved"), "{text}");
        assert_eq!(checkpoints(&run), (true, vec!["step-00000005".to_owned()]), "on {ranks} ranks");
    }
}

#[test]
fn scores_and_pictures_that_cannot_be_written_are_a_warning() {
    let folder = TempDir::new().unwrap();
    for name in ["scores", "previews"] {
        // In the place of a folder.
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let (mut trainer, events) = trainer("stop", phantoms(), |_| false, folder.path());
    assert_eq!(trainer.run().unwrap(), Outcome::Finished);
    let warnings = events.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("/previews/") && warnings[1].contains("/scores/"), "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.ends_with("; training goes on")));
    assert!(folder.path().join("checkpoints/step-00000012").exists());
}

#[test]
fn rollback_trains_the_stretch_again_at_half_the_rate() {
    let folder = TempDir::new().unwrap();
    let (mut trainer, events) = trainer("rollback", phantoms(), |sum| sum == 7, folder.path());
    assert_eq!(trainer.run().unwrap(), Outcome::Finished);
    let [warning] = &events.warnings()[..] else { panic!("{:?}", events.warnings()) };
    assert_eq!(
        warning,
        "the gradient of step 7 was not finite; it changed no weights; going back to the newest \
         checkpoint, 0.5 of the learning rate up to step 8"
    );
    let rates = events.rates();
    let steps: Vec<u64> = rates.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10, 11, 12]);
    let full = rates[0].1;
    let expected: Vec<f64> =
        (0..15).map(|place| half_rate(full, i32::from((7..11).contains(&place)))).collect();
    assert_eq!(rates.iter().map(|(_, rate)| *rate).collect::<Vec<_>>(), expected);
}

#[test]
fn rollback_gives_up_when_the_same_stretch_fails_a_third_time() {
    let folder = TempDir::new().unwrap();
    let (mut trainer, events) = trainer("rollback", phantoms(), |_| true, folder.path());
    let failure = trainer.run().unwrap_err();
    assert_eq!(failure.message(), "going back to a checkpoint did not help");
    assert_eq!(events.warnings().len(), 2);
    let rates = events.rates();
    let full = rates[0].1;
    assert_eq!(rates, [(1, full), (1, half_rate(full, 1)), (1, half_rate(full, 2))]);
}
