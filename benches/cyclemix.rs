//! Times steps of CycleMix, and beside them the passes of their network alone, in turns.
//!
//! `cargo bench --bench cyclemix`: the published network on batches of 4 synthetic hearts of 212 x 212, one process on
//! the CPU with as many threads as libtorch takes. The passes are those of a step: forward of plain images, the
//! gradient of their loss to the images, forward of mixed ones, and backward of both. What a step has beyond them is
//! mixing on the host and on the device, the other losses, and the update. `-- cuda` computes on the first GPU.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark reports to its terminal"
)]

use scrimp::comm::Ranks;
use scrimp::config;
use scrimp::config::sampling::Sampling;
use scrimp::data::augment::Resample;
use scrimp::data::batch::Batch;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::stream::ANNOTATED;
use scrimp::data::{IGNORE, SCRIBBLE};
use scrimp::error::{Context, Failure, Result};
use scrimp::losses::mixed::partial_cross_entropy_of_probabilities;
use scrimp::losses::one_hot;
use scrimp::methods::{self, Passes, Setup};
use scrimp::native::{allow_tf32, cuda, prepare_process};
use scrimp::nets::valid_unet::ValidUNet;
use scrimp::parameters::{Entry, Parameters, Role};
use scrimp::random::Key;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{Method, StepContext};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

const CLASSES: i64 = 4;
const SAMPLES: usize = 4;
const SIZE: usize = 212;
/// How often both sides take turns.
const TURNS: usize = 3;
/// Steps in front of the timed ones, in which memory is taken and kernels are chosen.
const WARMUP_STEPS: u64 = 1;
const TIMED_STEPS: u64 = 4;
/// The share of a step that its passes may be divided by: mixing has to hide behind them.
const LIMIT: f64 = 1.1;
const CONFIG: &str = "
[method]
name = \"cyclemix\"
[method.params.learner]
lr = 1e-4
schedule = \"constant\"
optimizer = { adam = { weight_decay = 1e-4 } }
[data]
size = 212
[train]
total_steps = 1000
";

/// Slices with scribbles, different in every step.
fn loader() -> Result<Loader> {
    let phantom =
        Phantom { cases: 12, slices: 4, size: 256, difficulty: Difficulty::Easy, seed: 1 };
    let plan = LoaderPlan {
        fold: 1,
        annotation: SCRIBBLE.into(),
        batch_size: SAMPLES,
        drop_last: true,
        streams: ANNOTATED,
        sampling: Sampling::Slices { size: SIZE },
        augment: Resample::Reference,
        outside: IGNORE,
        seed: 1,
    };
    Loader::new(&Arc::new(generate(&phantom)?), plan, 0, 1)
}

fn setup(device: Device) -> Setup {
    Setup {
        learner: LearnerSetup {
            key: Key::new(2022).purpose("weights"),
            kind: Kind::Float,
            computed: Kind::Float,
            device,
            moments: Moments::Whole,
        },
        classes: CLASSES,
        channels: 1,
        passes: Passes::new(false, None),
        slices: Vec::new(),
        sample: [1, SIZE, SIZE],
        spacing_mm: None,
        levels: Vec::new(),
    }
}

/// The network of a step by itself.
struct Alone {
    net: ValidUNet,
    weights: Vec<Tensor>,
    passes: Passes,
}

/// Who is timed.
enum Side {
    Step(Box<dyn Method>),
    Passes(Box<Alone>),
}

impl Side {
    fn step(device: Device) -> Result<Self> {
        let config = config::parse(CONFIG, "cyclemix.toml", &[])?;
        let definition = methods::find(&config.method.name)?;
        Ok(Self::Step((definition.build)(&(definition.check)(&config)?, &setup(device))?))
    }

    fn passes(device: Device) -> Self {
        let Setup { learner, passes, .. } = setup(device);
        let mut parameters = Parameters::new(learner.key, learner.kind, device);
        let net = ValidUNet::new(&mut parameters.root(), 1, CLASSES);
        let trained = |entry: &&Entry| entry.role != Role::Buffer;
        let weights = parameters.entries().iter().filter(trained);
        let weights = weights.map(|entry| entry.tensor.shallow_clone()).collect();
        Self::Passes(Box::new(Alone { net, weights, passes }))
    }

    fn run(&mut self, batch: &Batch, mut cx: StepContext<'_>) -> Result<()> {
        let Alone { net, weights, passes } = match self {
            Self::Step(method) => {
                method.step(batch, &mut cx)?;
                // Reads the losses, which on a GPU is what ends the step.
                return cx.into_report().fetch().map(drop);
            }
            Self::Passes(alone) => &**alone,
        };
        let samples = batch.main();
        let image = samples.image.detach().set_requires_grad(true);
        let loss = |image: &Tensor, purpose: &str| -> Result<Tensor> {
            let prediction = net.forward(image, &passes.train(purpose, samples, &cx))?;
            let labels = one_hot(&samples.annotation, &prediction);
            Ok(partial_cross_entropy_of_probabilities(&prediction, &labels, SAMPLES, cx.group()))
        };
        let plain = loss(&image, "plain")?;
        let saliency = cx.saliency(&plain, &image)?;
        let mixed = loss(&saliency, "mixed")?;
        let gradients = Tensor::f_run_backward(&[plain + mixed], weights, false, false);
        let gradients = gradients.context(|| "backward failed")?;
        let first = gradients.first().ok_or_else(|| Failure::new("there are no weights"))?;
        let _ = first.sum(Kind::Float).double_value(&[]);
        Ok(())
    }
}

fn time(side: &mut Side, device: Device, loader: &mut Loader) -> Result<Vec<f64>> {
    let ranks = Ranks::alone();
    let mut times_ms = Vec::new();
    for step in 1..=WARMUP_STEPS + TIMED_STEPS {
        let batch = loader.batch(step)?.to(Kind::Float, device);
        let cx = StepContext::new(StepPoint::new(step, 1000, Key::new(1)), &ranks);
        let start = Instant::now();
        side.run(&batch, cx)?;
        if step > WARMUP_STEPS {
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times_ms)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn run() -> Result<()> {
    // cargo adds `--bench`.
    let on_gpu = std::env::args().skip(1).any(|word| word == "cuda");
    let device = if on_gpu { Device::Cuda(0) } else { Device::Cpu };
    if on_gpu {
        cuda::open(0, None)?;
        allow_tf32(false)?;
    }
    prepare_process();
    let mut sides = [("passes", Side::passes(device)), ("step", Side::step(device)?)];
    let mut measured = [Vec::new(), Vec::new()];
    for turn in 1..=TURNS {
        for ((name, side), times_ms) in sides.iter_mut().zip(&mut measured) {
            eprintln!("turn {turn} of {TURNS}: {name}");
            times_ms.extend(time(side, device, &mut loader()?)?);
        }
    }
    let [passes, step] = measured.each_mut().map(|times_ms| median(times_ms));
    println!("medians, {SAMPLES} images of {SIZE} x {SIZE}, {} threads", tch::get_num_threads());
    println!("passes of the network {passes:>10.1} ms");
    println!("step of CycleMix      {step:>10.1} ms");
    println!("ratio                 {:>10.3}", step / passes);
    if step <= LIMIT * passes {
        return Ok(());
    }
    Err(Failure::new(format!("a step takes more than {LIMIT} times its passes")))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit() as u8)
        }
    }
}
