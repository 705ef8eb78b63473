//! Times training steps over volumes here and in PyTorch, in turns, and the memory that they take.
//!
//! `cargo bench --bench step_3d`. Partial cross-entropy and Dice on the U-Net over volumes, with dropout and SGD, on
//! batches of 2 volumes of 16 x 96 x 96 in memory, one process of one thread on the CPU. PyTorch's side is
//! `benches/pytorch/step_3d.py`, run by `SCRIMP_BENCH_PYTHON` (default `python3`).
//! `-- dmsps` takes steps of DMSPS with its published network on 1 volume of 80 x 96 x 96 instead, `-- cuda` computes
//! on the first GPU, with batches of 4 volumes of 64 x 128 x 128.
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
use scrimp::error::{Context, Result};
use scrimp::methods::{self, Passes, Setup};
use scrimp::native::{allow_tf32, cuda, prepare_process, return_large_blocks};
use scrimp::random::Key;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{Method, StepContext};
use serde::{Deserialize, Serialize};
use std::process::{Command, ExitCode};
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
/// Of every method here.
const LEARNER: &str = "
[method.params.learner]
lr = 0.01
optimizer = { sgd = { momentum = 0.9, weight_decay = 1e-4 } }
[train]
total_steps = 1000
";
const PARTIAL_CE: &str = "
[method]
name = \"partial-ce\"
[method.params]
dice = 1.0
";
const DMSPS: &str = "
[method]
name = \"dmsps\"
";
/// The first word of the command line of a process that trains and prints its [`Times`].
const ALONE: &str = "alone";

/// What is trained on what, and where.
#[derive(Clone, Copy)]
struct Place {
    /// As `step_3d.py` calls it.
    method: &'static str,
    config: &'static str,
    device: Device,
    samples: i64,
    extent: [i64; 3],
}

impl Place {
    /// What the words of a command line ask for.
    fn asked(words: &[String]) -> Self {
        let is_there = |word: &str| words.iter().any(|found| found == word);
        let (method, config, samples, extent) = if is_there("dmsps") {
            ("dmsps", DMSPS, 1, [80, 96, 96])
        } else {
            ("partial-ce", PARTIAL_CE, 2, [16, 96, 96])
        };
        if is_there("cuda") {
            let (device, samples, extent) = (Device::Cuda(0), 4, [64, 128, 128]);
            return Self { method, config, device, samples, extent };
        }
        Self { method, config, device: Device::Cpu, samples, extent }
    }

    /// The words that ask for it.
    fn words(self) -> [&'static str; 2] {
        [self.method, if self.device == Device::Cpu { "cpu" } else { "cuda" }]
    }
}

/// Times of single steps, and the most memory that the process took.
#[derive(Default, Deserialize, Serialize)]
struct Times {
    step_ms: Vec<f64>,
    peak_bytes: u64,
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
            looked_for: None,
            items: (0..place.samples as usize).map(|case| Item::slice(case, 0, [1, 1])).collect(),
            positions: (0..place.samples as u64).collect(),
        };
        Batch::new(samples, place.samples as usize)
    };
    (0..BATCHES).map(batch).collect()
}

fn method(place: Place, computed: Kind) -> Result<Box<dyn Method>> {
    let text = [place.config, LEARNER].concat();
    let config = config::parse(&text, "step_3d.toml", &[])?;
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

/// Trains in this process.
fn train(place: Place, computed: Kind) -> Result<Times> {
    if place.device != Device::Cpu {
        cuda::open(0, None)?;
        allow_tf32(false)?;
    }
    prepare_process();
    return_large_blocks();
    tch::set_num_threads(1);
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
    times.peak_bytes = support::memory("VmHWM")?;
    Ok(times)
}

/// Trains in a process of its own, as PyTorch does.
fn time_ours(place: Place, computed: &str) -> Result<Times> {
    let program = std::env::current_exe().context(|| "cannot find this program".to_owned())?;
    let mut command = Command::new(program);
    command.arg(ALONE).args(place.words()).arg(computed);
    support::answer(&mut command, "torch")
}

fn time_theirs(place: Place, options: &[&str]) -> Result<Times> {
    let [method, device] = place.words();
    let mut command = support::python("step_3d.py");
    command
        .args(["--threads", "1", "--device", device, "--batch", &place.samples.to_string()])
        .args(["--method", method])
        .arg("--extent")
        .args(place.extent.map(|extent| extent.to_string()))
        .args(["--warmup", &WARMUP_STEPS.to_string(), "--steps", &TIMED_STEPS.to_string()])
        .args(options);
    support::answer(&mut command, "torch")
}

/// Who is timed.
enum Side {
    /// With convolutions in numbers of this kind, by its word.
    Scrimp(&'static str),
    /// With these options of `step_3d.py`.
    PyTorch(&'static [&'static str]),
}

fn compare(place: Place) -> Result<()> {
    let mut sides = vec![
        ("scrimp", Side::Scrimp("fp32")),
        ("PyTorch", Side::PyTorch(&[])),
        ("PyTorch, channels last", Side::PyTorch(&["--channels-last"])),
    ];
    if place.device != Device::Cpu {
        sides.push(("scrimp, bf16", Side::Scrimp("bf16")));
        let options: &[&str] = &["--channels-last", "--bf16"];
        sides.push(("PyTorch, channels last, bf16", Side::PyTorch(options)));
    }
    let mut measured: Vec<Times> = sides.iter().map(|_| Times::default()).collect();
    for turn in 1..=TURNS {
        for ((name, side), times) in sides.iter().zip(&mut measured) {
            eprintln!("turn {turn} of {TURNS}: {name}");
            let new = match side {
                Side::Scrimp(computed) => time_ours(place, computed),
                Side::PyTorch(options) => time_theirs(place, options),
            }?;
            times.step_ms.extend(new.step_ms);
            times.peak_bytes = times.peak_bytes.max(new.peak_bytes);
        }
    }
    let Place { method, samples, extent: [slices, rows, columns], .. } = place;
    println!(
        "a step of {method} on {samples} x {slices} x {rows} x {columns}: median, and memory of the process"
    );
    for ((name, _), times) in sides.iter().zip(&mut measured) {
        let gib = times.peak_bytes as f64 / f64::from(1 << 30);
        println!("{name:<30} {:>10.1} ms {gib:>8.2} GiB", median(&mut times.step_ms));
    }
    Ok(())
}

fn run() -> Result<()> {
    // cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).collect();
    let place = Place::asked(&words);
    if words.first().is_none_or(|word| word != ALONE) {
        return compare(place);
    }
    let is_half = words.iter().any(|word| word == "bf16");
    let times = train(place, if is_half { Kind::BFloat16 } else { Kind::Float })?;
    println!("{}", serde_json::to_string(&times).context(|| "cannot print times".to_owned())?);
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
