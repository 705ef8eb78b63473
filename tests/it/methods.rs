//! What every method of the list must have, so that none of it can be forgotten.

use crate::running::Train;
use scrimp::comm::{Ranks, Solo};
use scrimp::config;
use scrimp::config::sampling::Sampling;
use scrimp::data::augment::Resample;
use scrimp::data::import::gaze_phantom::{self, GazePhantom};
use scrimp::data::import::lesion_phantom::{self, LesionPhantom};
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::import::two_modality::{self, TwoModalityPhantom};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::shapes::Shapes;
use scrimp::data::stream::{by_masks, training_slices};
use scrimp::data::{DENSE, Dataset, GAZE, IGNORE, IMAGE_LABEL};
use scrimp::error::Exit;
use scrimp::methods::{METHODS, MethodDef, Passes, Setup};
use scrimp::random::Key;
use scrimp::train::checkpoint::{
    CheckpointStore, Header, Progress, Retention, RunState, Saver, load,
};
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{FetchedNumbers, Method, StepContext, step_in_parts};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn smoke_config(definition: &MethodDef) -> String {
    format!("configs/smoke/{}.toml", definition.name)
}

#[test]
fn names_are_unique_and_in_kebab_case() {
    let names: BTreeSet<&str> = METHODS.iter().map(|method| method.name).collect();
    assert_eq!(names.len(), METHODS.len());
    for name in names {
        let is_word = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        assert!(name.split('-').all(is_word), "`{name}`");
    }
}

#[test]
fn the_list_and_the_files_agree() {
    let files = repository("src/methods").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let stems = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned());
    // Parameters that several methods share are no method.
    let found: BTreeSet<String> = stems.filter(|stem| stem != "mod" && stem != "puzzle").collect();
    let expected = METHODS.iter().map(|method| method.name.replace('-', "_")).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_method_is_explained() {
    for method in METHODS {
        assert!(!method.summary.is_empty() && !method.paper.is_empty(), "{}", method.name);
        let page = format!("docs/methods/{}.md", method.name);
        assert!(repository(&page).is_file(), "`{page}` is missing");
    }
}

#[test]
fn every_method_trains_two_finite_steps_as_its_smoke_configuration_says() {
    for method in METHODS {
        let folder = TempDir::new().unwrap();
        let train = Train::new(&smoke_config(method), &folder.path().join("run"));
        let ended = train.set("train.total_steps=2").set("train.log_every=1").succeed();
        let steps = ended.steps();
        assert_eq!(steps.len(), 2, "{}", method.name);
        for step in steps.values() {
            let mut numbers = step.loss.values().chain(step.grad_norm.values());
            assert!(step.loss.len() * step.grad_norm.len() > 0);
            assert!(numbers.all(|number| number.is_finite()), "{}: {step:?}", method.name);
        }
    }
}

#[test]
fn every_method_refuses_a_parameter_that_it_does_not_know() {
    for method in METHODS {
        let override_ = ["method.params.no_such_parameter=1".to_owned()];
        let config = config::read(&repository(&smoke_config(method)), &override_).unwrap();
        let failure = (method.check)(&config).expect_err(method.name);
        assert!(failure.message().contains("no_such_parameter"), "{failure}");
    }
}

/// Every number in a table, by its dotted key.
fn numbers(prefix: &str, table: &toml::Table, found: &mut Vec<(String, bool)>) {
    for (key, value) in table {
        let key = format!("{prefix}.{key}");
        match value {
            toml::Value::Table(table) => numbers(&key, table, found),
            toml::Value::Float(_) => found.push((key, true)),
            toml::Value::Integer(_) => found.push((key, false)),
            _ => {}
        }
    }
}

#[test]
fn every_method_refuses_numbers_that_nothing_can_be_computed_with() {
    for method in METHODS {
        let check = |overrides: &[String]| {
            let config = config::read(&repository(&smoke_config(method)), overrides).unwrap();
            (method.check)(&config)
        };
        let mut found = Vec::new();
        numbers("method.params", &check(&[]).unwrap(), &mut found);
        assert!(found.len() > 2, "{}", method.name);
        for (key, is_float) in found {
            let values: &[&str] = if is_float {
                &["nan", "inf", "-inf", "-1"]
            } else {
                &["-1", "9223372036854775807"]
            };
            for value in values {
                let override_ = format!("{key}={value}");
                let failure = check(std::slice::from_ref(&override_)).expect_err(&override_);
                assert_eq!(failure.exit(), Exit::Usage);
                assert!(failure.to_string().contains(&format!("--set {override_}")), "{failure}");
            }
        }
    }
}

const PHANTOM: Phantom =
    Phantom { cases: 5, slices: 2, size: 32, difficulty: Difficulty::Easy, seed: 1 };

/// A small data set with this annotation, and how samples are cut from it.
fn learnt_from(annotation: &str) -> (Arc<Dataset>, Sampling) {
    let slices = Sampling::Slices { size: 32 };
    let patches = Sampling::Patches { extent: [8, 16, 16], per_case: 4, foreground_share: 0.5 };
    let (dataset, sampling) = match annotation {
        IMAGE_LABEL => {
            let lesions =
                LesionPhantom { cases: 6, healthy: 5, validation: 2, test: 0, size: 32, seed: 1 };
            (lesion_phantom::generate(&lesions), slices)
        }
        GAZE => {
            let levels = vec![0.3, 0.5];
            let gazed = GazePhantom { cases: 8, validation: 2, test: 0, size: 32, levels, seed: 1 };
            (gaze_phantom::generate(&gazed, 1), slices)
        }
        DENSE => {
            let (cases, validation, labelled_share) = (2, 1, 0.5);
            let (slices, size, seed) = (16, 32, 1);
            let phantom =
                TwoModalityPhantom { cases, validation, slices, size, labelled_share, seed };
            (two_modality::generate(&phantom), patches)
        }
        _ => (generate(&PHANTOM), slices),
    };
    (Arc::new(dataset.unwrap()), sampling)
}

/// A method on a small phantom, one step at a time, without a trainer.
struct Bench {
    method: Box<dyn Method>,
    loader: Loader,
    communicator: Ranks,
}

impl Bench {
    fn new(definition: &MethodDef) -> Self {
        Self::computing_in(Kind::Float, definition)
    }

    fn computing_in(computed: Kind, definition: &MethodDef) -> Self {
        Self::with((Kind::Float, computed), definition, &[])
    }

    fn with(kinds: (Kind, Kind), definition: &MethodDef, overrides: &[String]) -> Self {
        let config = config::read(&repository(&smoke_config(definition)), overrides).unwrap();
        Self::on(learnt_from(config.data.annotation()), kinds, definition, overrides)
    }

    fn on(
        (dataset, sampling): (Arc<Dataset>, Sampling),
        (kind, computed): (Kind, Kind),
        definition: &MethodDef,
        overrides: &[String],
    ) -> Self {
        tch::set_num_threads(1);
        let config = config::read(&repository(&smoke_config(definition)), overrides).unwrap();
        let params = (definition.check)(&config).unwrap();
        let annotation = config.data.annotation();
        let learner = LearnerSetup {
            key: Key::new(1),
            kind,
            computed,
            device: Device::Cpu,
            moments: Moments::Whole,
        };
        let classes = dataset.classes.len() as i64;
        let slices = training_slices(&dataset, 1, annotation);
        let slices = slices.iter().map(|_| [PHANTOM.size; 2]).collect();
        let passes = Passes::new(true, None);
        let setup = Setup {
            learner,
            classes,
            channels: dataset.channels() as i64,
            passes,
            slices,
            sample: sampling.extent(),
            spacing_mm: None,
            levels: dataset.levels.clone(),
        };
        let plan = LoaderPlan {
            fold: 1,
            annotation: annotation.to_owned(),
            batch_size: 4,
            drop_last: false,
            streams: definition.streams,
            sampling,
            outside: IGNORE,
            augment: Resample::Reference,
            seed: 1,
        };
        let loader = Loader::new(&dataset, plan, 0, 1).unwrap();
        let others = Phantom { seed: 2, ..PHANTOM };
        let shapes = || Shapes::of(generate(&others).unwrap(), dataset.classes.len()).unwrap();
        Self {
            method: (definition.build)(&params, &setup).unwrap(),
            loader: if by_masks(definition.streams) {
                loader.with_shapes(shapes())
            } else {
                loader
            },
            communicator: Ranks::alone(),
        }
    }

    fn step(&mut self, step: u64) -> FetchedNumbers {
        let batch = self.loader.batch(step).unwrap().to(Kind::Float, Device::Cpu);
        let mut context =
            StepContext::new(StepPoint::new(step, 10, Key::new(1)), &self.communicator);
        self.method.step(&batch, &mut context).unwrap();
        context.into_report().fetch().unwrap()
    }

    /// The flat weights of every learner after a step whose micro-batches are so many times the batch.
    fn weights_after_equal_parts(&mut self, times: usize) -> Vec<(&'static str, Tensor)> {
        let mut part = || self.loader.batch(1).unwrap().to(Kind::Double, Device::Cpu);
        let parts: Vec<_> = (0..times).map(|_| part()).collect();
        let mut context = StepContext::new(StepPoint::new(1, 10, Key::new(1)), &self.communicator);
        step_in_parts(&mut *self.method, &parts, &mut context).unwrap();
        let flat = |l: &scrimp::train::learner::Learner| l.flat_parts()[0].tensor.copy();
        self.method.learners().into_iter().map(|l| (l.name(), flat(l))).collect()
    }

    /// Copies of every tensor that a checkpoint holds, by learner.
    fn tensors(&self) -> Vec<(&'static str, Vec<Tensor>)> {
        let copies = |learner: &scrimp::train::learner::Learner| {
            let flat = learner.flat_parts().into_iter().map(|part| part.tensor.copy());
            flat.chain(learner.buffers().map(|entry| entry.tensor.copy())).collect()
        };
        self.method.learners().into_iter().map(|l| (l.name(), copies(l))).collect()
    }
}

#[test]
fn every_method_starts_alike_with_convolutions_in_bf16() {
    for definition in METHODS {
        let [plain, short] = [Kind::Float, Kind::BFloat16].map(|computed| {
            let mut bench = Bench::computing_in(computed, definition);
            let numbers = bench.step(1);
            let tensors = bench.tensors();
            let kept = tensors.iter().flat_map(|(_, tensors)| tensors);
            assert!(kept.into_iter().all(|tensor| tensor.kind() != Kind::BFloat16));
            numbers
        });
        assert_ne!(plain, short, "`{}` computes everything in single precision", definition.name);
        for ((name, expected), (_, found)) in plain.losses.iter().zip(&short.losses) {
            let difference = (found - expected).abs() / expected.abs().max(0.1);
            assert!(difference < 0.03, "{}: {name} {found}, not {expected}", definition.name);
        }
        for ((name, _, expected), (_, _, found)) in plain.learners.iter().zip(&short.learners) {
            let difference = (found - expected).abs() / expected;
            assert!(difference < 0.1, "{}: {name} {found}, not {expected}", definition.name);
        }
    }
}

#[test]
fn every_method_learns_from_equal_micro_batches_what_it_learns_from_one_of_them() {
    // Its norms are estimated better with each pass, whatever is learnt in it.
    let overrides = ["method.params.shape.spectral_norm=false".to_owned()];
    for definition in METHODS.iter().filter(|definition| definition.in_micro_batches) {
        let overrides = if definition.name == "maskmixadv" { &overrides[..] } else { &[] };
        let after = |times| {
            let mut bench = Bench::with((Kind::Double, Kind::Double), definition, overrides);
            bench.weights_after_equal_parts(times)
        };
        for ((name, one), (_, three)) in after(1).iter().zip(after(3)) {
            let difference = (one - three).abs().max().double_value(&[]);
            assert!(difference < 1e-9, "{}: `{name}` differs by {difference:e}", definition.name);
        }
    }
}

#[test]
fn a_method_whose_learners_learn_from_each_other_within_a_step_refuses_micro_batches() {
    let method = METHODS.iter().find(|method| method.name == "cltn").unwrap();
    let check = |count: usize| {
        let override_ = [format!("train.micro_batches={count}")];
        (method.check)(&config::read(&repository(&smoke_config(method)), &override_).unwrap())
    };
    assert!(check(1).is_ok());
    insta::assert_snapshot!(check(2).unwrap_err(), @r"
    error: `cltn` takes no micro-batches: a part of a step needs what its other parts have or have changed
      --> --set train.micro_batches=2

    hint: use `--set train.micro_batches=1` with a smaller `train.batch_size`, or more processes
    ");
}

/// Methods that learn around classes that nobody looked for; all others refuse such data.
const AROUND_CLASSES: [&str; 7] =
    ["partial-ce", "scribble2label", "ustm", "dmpls", "dmsps", "maskmixadv", "cyclemix"];

#[test]
fn every_method_learns_around_classes_that_nobody_looked_for_or_refuses_them() {
    for definition in METHODS {
        let config = config::read(&repository(&smoke_config(definition)), &[]).unwrap();
        let params = (definition.check)(&config).unwrap();
        let refused = (definition.refuse_lacking_classes)(&params);
        if !AROUND_CLASSES.contains(&definition.name) {
            let failure = refused.expect_err(definition.name);
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.message().contains(definition.name), "{failure}");
            continue;
        }
        refused.unwrap();
        let first_losses = |says: bool| {
            let (dataset, sampling) = learnt_from(config.data.annotation());
            let mut dataset = Arc::unwrap_or_clone(dataset);
            for case in &mut dataset.cases {
                case.classes_annotated = if says { vec![0, 1, 3] } else { Vec::new() };
                let labels = case.annotations.values_mut().flatten();
                labels.filter(|label| **label == 2).for_each(|label| *label = 0);
            }
            let kinds = (Kind::Float, Kind::Float);
            Bench::on((Arc::new(dataset), sampling), kinds, definition, &[]).step(1).losses
        };
        // Less of what is background is wrong, in every term that compares with annotation.
        let mut compared = 0;
        for ((name, around), (_, plain)) in first_losses(true).iter().zip(first_losses(false)) {
            if name.contains("partial_ce") {
                assert!(*around < plain - 1e-3, "{}: {name} {around} {plain}", definition.name);
                compared += 1;
            }
        }
        assert!(compared > 0, "{}", definition.name);
    }
}

#[test]
fn every_learner_learns() {
    for definition in METHODS {
        let mut bench = Bench::new(definition);
        let before = bench.tensors();
        // Some change with every second step of their smoke configuration only.
        (1..=3).for_each(|step| drop(bench.step(step)));
        for ((name, old), (_, new)) in before.iter().zip(bench.tensors()) {
            assert!(old[0] != new[0], "the weights of `{name}` stay as they are");
        }
    }
}

#[test]
fn every_method_goes_on_from_a_checkpoint_as_if_nothing_had_happened() {
    for definition in METHODS {
        let folder = TempDir::new().unwrap();
        let store = CheckpointStore::new(folder.path());
        let mut kept = Bench::new(definition);
        kept.step(1);
        let header = Header { method: definition.name.to_owned(), ..Header::default() };
        let retention = Retention { last: 1, every: 0 };
        let mut saver = Saver::new(store, header, retention, Arc::new(Solo));
        let run = RunState { step: 1, ..RunState::default() };
        saver.begin(run, &kept.method.learners()).unwrap();
        let Progress::Saved(saved) = saver.finish().unwrap() else { panic!("it is not saved") };
        let mut restored = Bench::new(definition);
        load(&saved.path, &Solo)
            .unwrap()
            .restore(restored.method.learners(), &Ranks::alone())
            .unwrap();
        for step in 2..=4 {
            kept.step(step);
            restored.step(step);
        }
        assert!(kept.tensors() == restored.tensors(), "{}", definition.name);
    }
}
