//! A gradient that is not finite changes no weights, under every policy, and no run loops for ever.

use scrimp::comm::{Communicator, Solo};
use scrimp::config;
use scrimp::config::plan::RunPlan;
use scrimp::data::Dataset;
use scrimp::data::augment::Resample;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::error::{Exit, Result};
use scrimp::methods::{self, Passes, Setup};
use scrimp::native::GroupSum;
use scrimp::random::Key;
use scrimp::runlog::RunEvent;
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::io::EventSink;
use scrimp::train::Method;
use scrimp::train::checkpoint::Header;
use scrimp::train::evaluate::{Evaluator, Yardstick};
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::recorder::FlightRecorder;
use scrimp::train::stopping::StopRequests;
use scrimp::train::trainer::{Outcome, Parts, Trainer};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

/// Sums of a method's gradient are larger than this, those of batch normalisation smaller.
const GRADIENT: usize = 100_000;

/// A single rank whose memory is struck when its gradients are summed.
struct Struck {
    is_struck: fn(u64) -> bool,
    sums: AtomicU64,
}

impl GroupSum for Struck {
    fn ranks(&self) -> usize {
        1
    }
    fn sum(&self, tensor: &Tensor) {
        if tensor.numel() > GRADIENT
            && (self.is_struck)(self.sums.fetch_add(1, Ordering::Relaxed) + 1)
        {
            let _ = tensor.get(7).fill_(f64::NAN);
        }
    }
}

impl Communicator for Struck {
    fn rank(&self) -> usize {
        0
    }
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        Solo.broadcast(root, tensor)
    }
    fn barrier(&self) -> Result<()> {
        Solo.barrier()
    }
    fn max(&self, value: i64) -> Result<i64> {
        Solo.max(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        Solo.gather(message)
    }
    fn abort(&self, exit: Exit) -> ! {
        Solo.abort(exit)
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
        size: 0,
    };
    (methods::find(&plan.method).unwrap().build)(&plan.method_params, &setup).unwrap()
}

/// A run of 12 steps that logs each, evaluates after the last and saves after 4, 8 and 12.
fn trainer(
    policy: &str,
    dataset: Dataset,
    is_struck: fn(u64) -> bool,
    run: &Path,
) -> (Trainer, Events) {
    let overrides = [
        format!("train.on_non_finite={policy}"),
        "train.total_steps=12".to_owned(),
        "train.save_every=4".to_owned(),
        "train.evaluate_every=12".to_owned(),
        "method.params.learner.schedule=constant".to_owned(),
    ];
    let config = config::read(Path::new("configs/smoke/partial-ce.toml"), &overrides).unwrap();
    let mut plan = RunPlan::resolve(config.clone(), 1).unwrap();
    plan.method_params = (methods::find(&plan.method).unwrap().check)(&config).unwrap();
    let dataset = Arc::new(dataset);
    let loader = LoaderPlan {
        fold: 1,
        annotation: plan.data.annotation.clone(),
        batch_size: plan.train.batch_size,
        drop_last: false,
        with_healthy: false,
        size: plan.data.size,
        augment: Resample::Reference,
        outside: scrimp::data::IGNORE,
        seed: plan.train.seed,
    };
    let events = Events::default();
    let target = (Kind::Float, Device::Cpu);
    let trainer = Trainer::new(Parts {
        header: Header { method: plan.method.clone(), ..Header::default() },
        method: method(&plan, &dataset),
        loader: Loader::new(&dataset, loader, 0, 1).unwrap(),
        evaluator: Evaluator {
            dataset: Arc::clone(&dataset),
            fold: 1,
            size: plan.data.size,
            target,
            yardstick: Yardstick::Voxels,
            volume_statistics: false,
            annotation: "scribble".to_owned(),
        },
        communicator: Arc::new(Struck { is_struck, sums: AtomicU64::new(0) }),
        recorder: Arc::new(FlightRecorder::new()),
        stop: (StopRequests::default(), None),
        directory: RunDirectory::new(run),
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
    let mut dataset = phantoms();
    // Of a fold that is learnt from; every epoch of 8 slices holds these two.
    let damaged = dataset.cases.iter_mut().find(|case| case.fold != 1).unwrap();
    damaged.image.fill(f32::NAN);
    let (mut trainer, events) = trainer("skip", dataset, |_| false, folder.path());
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
