//! Times training steps over volumes here and in PyTorch, in turns.
//!
//! `cargo bench --bench step_3d`. Partial cross-entropy and Dice on the U-Net over volumes, with dropout and SGD, on
//! batches of 2 volumes of 16 x 96 x 96 in memory, one process of one thread on the CPU. PyTorch's side is
//! `benches/pytorch/step_3d.py`, run by `SCRIMP_BENCH_PYTHON` (default `python3`).
//! `-- cuda` computes on the first GPU, with batches of 4 volumes of 64 x 128 x 128.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark reports to its terminal"
)]

mod support;

use scrimp::comm::Ranks;
use scrimp::config;
use scrimp::data::IGNORE;
use scrimp::data::batch::Batch;
use scrimp::data::item::Item;
use scrimp::data::samples::Samples;
use scrimp::error::Result;
use scrimp::methods::{self, Passes, Setup};
use scrimp::native::{allow_tf32, cuda, prepare_process};
use scrimp::random::Key;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{Method, StepContext};
use serde::Deserialize;
use std::process::ExitCode;
use std::time::Instant;
use support::median;
use tch::{Device, Kind, Tensor};

const CLASSES: i64 = 4;
/// How often both sides take turns.
const TURNS: usize = 3;
/// Steps in front of the timed ones, in which memory is taken and kernels are chosen.
const WARMUP_STEPS: usize = 2;
const TIMED_STEPS: usize = 5;
/// Different batches in turn, as in `step_3d.py`.
const BATCHES: usize = 4;
const CONFIG: &str = "
[method]
name = \"partial-ce\"
[method.params]
dice = 1.0
[method.params.learner]
lr = 0.01
optimizer = { sgd = { momentum = 0.9, weight_decay = 1e-4 } }
[train]
total_steps = 1000
";

/// What is trained on, and where.
#[derive(Clone, Copy)]
struct Place {
    device: Device,
    samples: i64,
    extent: [i64; 3],
}

const ON_CPU: Place = Place { device: Device::Cpu, samples: 2, extent: [16, 96, 96] };
const ON_GPU: Place = Place { device: Device::Cuda(0), samples: 4, extent: [64, 128, 128] };

/// Times of single steps.
#[derive(Default, Deserialize)]
struct Times {
    step_ms: Vec<f64>,
}

/// Random volumes with scribbles on one voxel in a hundred.
fn batches(place: Place) -> Vec<Batch> {
    tch::manual_seed(1);
    let [slices, rows, columns] = place.extent;
    let cpu = (Kind::Float, Device::Cpu);
    let batch = |_| {
        let annotation = Tensor::randint(CLASSES, [place.samples, slices, rows, columns], cpu);
        let is_open = annotation.rand_like().gt(0.01);
        let annotation = annotation.to_kind(Kind::Int64).masked_fill(&is_open, i64::from(IGNORE));
        let samples = Samples {
            image: Tensor::rand([place.samples, 1, slices, rows, columns], cpu)
                .to_device(place.device),
            annotation: annotation.to_device(place.device),
            items: (0..place.samples as usize).map(|case| Item::slice(case, 0, [1, 1])).collect(),
            positions: (0..place.samples as u64).collect(),
        };
        Batch::new(samples, place.samples as usize)
    };
    (0..BATCHES).map(batch).collect()
}

fn method(place: Place, computed: Kind) -> Result<Box<dyn Method>> {
    let config = config::parse(CONFIG, "step_3d.toml", &[])?;
    let definition = methods::find(&config.method.name)?;
    let setup = Setup {
        learner: LearnerSetup {
            key: Key::new(2022).purpose("weights"),
            kind: Kind::Float,
            computed,
            device: place.device,
            moments: Moments::Whole,
        },
        classes: CLASSES,
        channels: 1,
        passes: Passes::new(true, None),
        slices: Vec::new(),
        sample: place.extent.map(|extent| extent as usize),
        spacing_mm: None,
        levels: Vec::new(),
    };
    (definition.build)(&(definition.check)(&config)?, &setup)
}

fn time_ours(place: Place, computed: Kind) -> Result<Times> {
    let (mut method, batches) = (method(place, computed)?, batches(place));
    let (ranks, mut times) = (Ranks::alone(), Times::default());
    for step in 0..WARMUP_STEPS + TIMED_STEPS {
        let start = Instant::now();
        let point = StepPoint::new(step as u64 + 1, 1000, Key::new(1));
        let mut cx = StepContext::new(point, &ranks);
        method.step(&batches[step % BATCHES], &mut cx)?;
        // Reads the loss, which on a GPU is what ends the step.
        cx.into_report().fetch()?;
        if step >= WARMUP_STEPS {
            times.step_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times)
}

fn time_theirs(place: Place, options: &[&str]) -> Result<Times> {
    let device = if place.device == Device::Cpu { "cpu" } else { "cuda" };
    let mut command = support::python("step_3d.py");
    command
        .args(["--threads", "1", "--device", device, "--batch", &place.samples.to_string()])
        .arg("--extent")
        .args(place.extent.map(|extent| extent.to_string()))
        .args(["--warmup", &WARMUP_STEPS.to_string(), "--steps", &TIMED_STEPS.to_string()])
        .args(options);
    support::answer(&mut command, "torch")
}

/// Who is timed.
enum Side {
    /// With convolutions in numbers of this kind.
    Scrimp(Kind),
    /// With these options of `step_3d.py`.
    PyTorch(&'static [&'static str]),
}

fn run() -> Result<()> {
    // cargo adds `--bench`.
    let on_gpu = std::env::args().skip(1).any(|word| word == "cuda");
    let place = if on_gpu { ON_GPU } else { ON_CPU };
    if on_gpu {
        cuda::open(0, None)?;
        allow_tf32(false)?;
    }
    prepare_process();
    tch::set_num_threads(1);
    let mut sides = vec![
        ("scrimp", Side::Scrimp(Kind::Float)),
        ("PyTorch", Side::PyTorch(&[])),
        ("PyTorch, channels last", Side::PyTorch(&["--channels-last"])),
    ];
    if on_gpu {
        sides.push(("scrimp, bf16", Side::Scrimp(Kind::BFloat16)));
        let options: &[&str] = &["--channels-last", "--bf16"];
        sides.push(("PyTorch, channels last, bf16", Side::PyTorch(options)));
    }
    let mut measured: Vec<Times> = sides.iter().map(|_| Times::default()).collect();
    for turn in 1..=TURNS {
        for ((name, side), times) in sides.iter().zip(&mut measured) {
            eprintln!("turn {turn} of {TURNS}: {name}");
            let new = match side {
                Side::Scrimp(computed) => time_ours(place, *computed),
                Side::PyTorch(options) => time_theirs(place, options),
            };
            times.step_ms.extend(new?.step_ms);
        }
    }
    let Place { samples, extent: [slices, rows, columns], .. } = place;
    println!("medians of a step, {samples} volumes of {slices} x {rows} x {columns}");
    let medians = measured.iter_mut().map(|times| median(&mut times.step_ms));
    for ((name, _), ms) in sides.iter().zip(medians) {
        println!("{name:<30} {ms:>10.1} ms");
    }
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
