//! Trains the U-Net here and in PyTorch from the same weights on the same batches, and compares.
//!
//! `cargo bench --bench agreement`. The Python with torch and safetensors is
//! `SCRIMP_BENCH_PYTHON`, by default `python3`; its side is `benches/pytorch/agreement.py`. Dropout
//! is off and there is one rank, so that both are the same arithmetic in another order. In fp64 the
//! losses of a whole training are compared. In fp32 that training is chaotic: there the loss and
//! the gradient of single steps are, each from a state that both start from. Ends with exit code 1
//! where a difference is above its limit.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use scrimp::comm::Ranks;
use scrimp::config;
use scrimp::config::sampling::Sampling;
use scrimp::data::augment::Resample;
use scrimp::data::batch::Batch;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::stream::ANNOTATED;
use scrimp::data::{Dataset, SCRIBBLE};
use scrimp::error::{Context, Failure, Result};
use scrimp::methods::{self, Passes, Setup};
use scrimp::random::Key;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{Method, StepContext};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Batches of 4 slices of 64 x 64.
const SIZE: usize = 64;
const BATCH_SIZE: usize = 4;
const SEED: u64 = 2022;

/// Steps of the training in fp64.
const STEPS: u64 = 60;
/// Largest relative difference of its losses.
const FP64_LIMIT: f64 = 1e-6;

/// The steps of a training in fp32 that PyTorch repeats, each from our state before it. Not the
/// first: with initial weights rounding moves the gradient so far that PyTorch's own in fp32 and in
/// fp64 differ by 5e-3.
const SINGLE_STEPS: [u64; 5] = [11, 21, 31, 41, 51];
/// Largest relative difference of their losses and gradients.
const FP32_LIMIT: f64 = 1e-4;

/// Length of the run that the learning rate decays over, as in `agreement.py`.
const TOTAL_STEPS: u64 = 60_000;
/// The method of the comparison, its learner as in `benches/pytorch/training.py`.
const CONFIG: &str = "
[method]
name = \"partial-ce\"
[method.params.learner]
lr = 0.03
schedule = \"poly\"
optimizer = { sgd = { momentum = 0.9, weight_decay = 1e-4 } }
[train]
total_steps = 60_000
";

/// One side's training: a method and the batches of a rank that is alone.
struct Training {
    method: Box<dyn Method>,
    loader: Loader,
    communicator: Ranks,
    kind: Kind,
}

impl Training {
    fn new(dataset: &Arc<Dataset>, kind: Kind) -> Result<Self> {
        let plan = LoaderPlan {
            fold: 1,
            annotation: SCRIBBLE.into(),
            batch_size: BATCH_SIZE,
            drop_last: true,
            streams: ANNOTATED,
            sampling: Sampling::Slices { size: SIZE },
            augment: Resample::Reference,
            outside: scrimp::data::IGNORE,
            seed: SEED,
        };
        let config = config::parse(CONFIG, "agreement.toml", &[])?;
        let definition = methods::find(&config.method.name)?;
        let key = Key::new(SEED).purpose("weights");
        let setup = Setup {
            learner: LearnerSetup {
                key,
                kind,
                computed: kind,
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
        Ok(Self {
            method: (definition.build)(&(definition.check)(&config)?, &setup)?,
            loader: Loader::new(dataset, plan, 0, 1)?,
            communicator: Ranks::alone(),
            kind,
        })
    }

    fn batch(&mut self, step: u64) -> Result<Batch> {
        Ok(self.loader.batch(step)?.to(self.kind, Device::Cpu))
    }

    /// Trains one step and returns its loss.
    fn step(&mut self, step: u64, batch: &Batch) -> Result<f64> {
        let mut cx =
            StepContext::new(StepPoint::new(step, TOTAL_STEPS, Key::new(SEED)), &self.communicator);
        self.method.step(batch, &mut cx)?;
        let numbers = cx.into_report().fetch()?;
        Ok(numbers.losses.iter().map(|(_, value)| value).sum())
    }

    /// Weights and buffers by state-dict name, sharing storage with the network.
    fn state(&self) -> Vec<(String, Tensor)> {
        let learners = self.method.learners();
        let entries = learners.iter().flat_map(|learner| learner.entries());
        entries.map(|entry| (entry.name.clone(), entry.tensor.shallow_clone())).collect()
    }
}

/// What `agreement.py` is called with, in a folder that goes away.
struct PyTorch {
    folder: tempfile::TempDir,
}

#[derive(Deserialize)]
struct Losses {
    loss: Vec<f64>,
}

impl PyTorch {
    fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir().context(|| "cannot make a temporary folder")? })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.safetensors"))
    }

    fn write(&self, name: &str, tensors: &[(String, Tensor)]) -> Result<()> {
        Tensor::write_safetensors(tensors, self.file(name))
            .context(|| format!("cannot write `{name}.safetensors`"))
    }

    /// Trains from the files `init` and `batches`; the last gradients go to the file `gradients`.
    fn train(&self, precision: &str) -> Result<Vec<f64>> {
        let mut command = support::python("agreement.py");
        command
            .args([self.file("init"), self.file("batches")])
            .args(["--precision", precision, "--gradients"])
            .arg(self.file("gradients"))
            .env("OMP_NUM_THREADS", "1");
        support::answer(&mut command, "torch safetensors").map(|losses: Losses| losses.loss)
    }

    fn gradients(&self) -> Result<HashMap<String, Tensor>> {
        let read = Tensor::read_safetensors(self.file("gradients"))
            .context(|| "cannot read the gradients of PyTorch")?;
        Ok(read.into_iter().collect())
    }
}

/// A batch under the names that `agreement.py` reads.
fn named(batch: &Batch, number: u64) -> [(String, Tensor); 2] {
    let samples = batch.main();
    [
        (format!("image.{number}"), samples.image.shallow_clone()),
        (format!("label.{number}"), samples.annotation.shallow_clone()),
    ]
}

fn relative_difference(ours: f64, theirs: f64) -> f64 {
    (ours - theirs).abs() / theirs.abs()
}

/// The largest relative difference of the losses of a training in fp64.
fn whole_training(dataset: &Arc<Dataset>, pytorch: &PyTorch) -> Result<f64> {
    let mut training = Training::new(dataset, Kind::Double)?;
    pytorch.write("init", &training.state())?;
    let (mut batches, mut ours) = (Vec::new(), Vec::new());
    for step in 1..=STEPS {
        let batch = training.batch(step)?;
        batches.extend(named(&batch, step - 1));
        ours.push(training.step(step, &batch)?);
    }
    pytorch.write("batches", &batches)?;
    let theirs = pytorch.train("fp64")?;
    if theirs.len() != ours.len() {
        let (expected, found) = (ours.len(), theirs.len());
        return Err(Failure::new(format!("PyTorch trained {found} steps, expected {expected}")));
    }
    println!("fp64, one training of {STEPS} steps; limit {FP64_LIMIT:.0e}");
    println!("  step   loss scrimp          loss PyTorch         relative difference");
    let mut largest = 0.0f64;
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let difference = relative_difference(*ours, *theirs);
        // `max` passes over a NaN, which must not pass.
        largest = if difference.is_nan() { f64::INFINITY } else { largest.max(difference) };
        if index == 0 || (index + 1) % 10 == 0 {
            println!("  {:4}   {ours:<18.15}   {theirs:<18.15}   {difference:.1e}", index + 1);
        }
    }
    Ok(largest)
}

/// The norm of the difference of all gradients together, relative to that of PyTorch's.
fn gradient_difference(training: &Training, pytorch: &PyTorch) -> Result<f64> {
    let theirs = pytorch.gradients()?;
    let (mut difference, mut norm) = (0.0, 0.0);
    for (name, tensor) in training.state() {
        // Buffers have none on either side.
        let (Some(theirs), true) = (theirs.get(&name), tensor.requires_grad()) else { continue };
        let square = |x: Tensor| x.to_kind(Kind::Double).square().sum(Kind::Double);
        difference += square(tensor.grad() - theirs).double_value(&[]);
        norm += square(theirs.shallow_clone()).double_value(&[]);
    }
    Ok((difference / norm).sqrt())
}

/// The largest relative difference of loss and gradient in single steps in fp32.
fn single_steps(dataset: &Arc<Dataset>, pytorch: &PyTorch) -> Result<f64> {
    let mut training = Training::new(dataset, Kind::Float)?;
    println!("fp32, single steps from the same state; limit {FP32_LIMIT:.0e}");
    println!("  step   loss scrimp   loss PyTorch   relative difference   of the gradient");
    let mut largest = 0.0f64;
    let last = SINGLE_STEPS[SINGLE_STEPS.len() - 1];
    for step in 1..=last {
        let batch = training.batch(step)?;
        if !SINGLE_STEPS.contains(&step) {
            training.step(step, &batch)?;
            continue;
        }
        pytorch.write("init", &training.state())?;
        pytorch.write("batches", &named(&batch, 0))?;
        let ours = training.step(step, &batch)?;
        let theirs = pytorch.train("fp32")?[0];
        let loss = relative_difference(ours, theirs);
        let gradient = gradient_difference(&training, pytorch)?;
        println!("  {step:4}   {ours:<11.7}   {theirs:<12.7}   {loss:<19.1e}   {gradient:.1e}");
        let worse = if (loss + gradient).is_nan() { f64::INFINITY } else { loss.max(gradient) };
        largest = largest.max(worse);
    }
    Ok(largest)
}

fn run() -> Result<()> {
    tch::set_num_threads(1);
    let difficulty = Difficulty::Easy;
    let phantom = Phantom { cases: 10, slices: 4, size: SIZE, difficulty, seed: 1 };
    let dataset = Arc::new(generate(&phantom)?);
    let pytorch = PyTorch::new()?;
    let whole = whole_training(&dataset, &pytorch)?;
    let single = single_steps(&dataset, &pytorch)?;
    println!("largest relative difference: {whole:.1e} in fp64, {single:.1e} in fp32");
    if whole <= FP64_LIMIT && single <= FP32_LIMIT {
        return Ok(());
    }
    Err(Failure::new(format!(
        "scrimp and PyTorch differ by {whole:.1e} in fp64 and {single:.1e} in fp32, expected at most {FP64_LIMIT:.0e} and {FP32_LIMIT:.0e}"
    ))
    .hint("run `cargo test golden` to see which formula is another one"))
}

fn main() -> ExitCode {
    support::end(run())
}
