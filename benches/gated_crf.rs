//! Times the gated CRF against the unfold form in PyTorch, and compares what both need in memory.
//!
//! `cargo bench --bench gated_crf`; the Python with torch and safetensors is `SCRIMP_BENCH_PYTHON`, by
//! default `python3`. One pass is softmax, value, and gradient of the logits, on one thread. Linux only.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use scrimp::error::{Context, Failure, Result};
use scrimp::losses::gated_crf::{Field, Kernel, gated_crf};
use scrimp::native::{Alone, Form};
use serde::Deserialize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use support::median;
use tch::{Device, Kind, Tensor};

const SAMPLES: i64 = 12;
const CLASSES: i64 = 4;
const SIZE: i64 = 256;
/// The settings of WSL4MIS.
const FIELD: Field<'static> = Field {
    kernels: &[Kernel::PUBLISHED],
    radius: [0, 5, 5],
    source: None,
    destination: None,
    form: Form::Own,
};
/// Both sides take turns, so that a busy moment of the machine does not hit one of them alone.
const TURNS: usize = 3;
const OWN_REPEATS_PER_TURN: usize = 10;
/// Largest relative difference of the two values, which are differences of large sums in f32.
const LIMIT: f64 = 1e-4;

/// Times of single passes, the value, and by how much the resident memory grew at its peak.
#[derive(Deserialize)]
struct Timing {
    times_ms: Vec<f64>,
    loss: f64,
    memory_bytes: u64,
}

/// Logits and images that change over some pixels, as those of slices do, with noise.
fn inputs() -> (Tensor, Tensor) {
    tch::manual_seed(1);
    let cpu = (Kind::Float, Device::Cpu);
    let smooth = |maps: i64, amplitude: f64| {
        let coarse = Tensor::randn([SAMPLES, maps, SIZE / 16, SIZE / 16], cpu) * amplitude;
        coarse.upsample_bilinear2d([SIZE, SIZE], true, None, None)
    };
    let noise = |maps: i64| Tensor::randn([SAMPLES, maps, SIZE, SIZE], cpu);
    let logits = smooth(CLASSES, 2.5) + noise(CLASSES) * 0.5;
    let image = (smooth(1, 0.2) + 0.4 + noise(1) * 0.03).clamp(0.0, 1.0);
    (logits, image)
}

fn time_ours(logits: &Tensor, image: &Tensor) -> Result<Timing> {
    support::forget_peak()?;
    let before = support::memory("VmRSS")?;
    let mut timing = Timing { times_ms: Vec::new(), loss: 0.0, memory_bytes: 0 };
    for _ in 0..OWN_REPEATS_PER_TURN {
        let logits = logits.detach().set_requires_grad(true);
        let start = Instant::now();
        let probabilities = logits.softmax(1, Kind::Float);
        let loss = gated_crf(&probabilities, image, &FIELD, SAMPLES as usize, &Alone)?;
        loss.backward();
        timing.times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        timing.loss = loss.double_value(&[]);
    }
    timing.memory_bytes = support::memory("VmHWM")?.saturating_sub(before);
    Ok(timing)
}

fn time_theirs(file: &Path) -> Result<Timing> {
    support::answer(support::python("gated_crf.py").arg(file), "torch safetensors")
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    let file = folder.path().join("inputs.safetensors");
    tch::set_num_threads(1);
    let (logits, image) = inputs();
    Tensor::write_safetensors(&[("logits", &logits), ("image", &image)], &file)
        .context(|| format!("cannot write `{}`", file.display()))?;
    let (mut ours_ms, mut theirs_ms) = (Vec::new(), Vec::new());
    let (mut our_bytes, mut their_bytes) = (0, u64::MAX);
    for _ in 0..TURNS {
        let ours = time_ours(&logits, &image)?;
        let theirs = time_theirs(&file)?;
        if (ours.loss - theirs.loss).abs() > LIMIT * theirs.loss.abs() {
            return Err(Failure::new(format!("value {}, PyTorch says {}", ours.loss, theirs.loss))
                .hint("run `cargo test golden_gated_crf`"));
        }
        ours_ms.extend(ours.times_ms);
        theirs_ms.extend(theirs.times_ms);
        // To our disadvantage: later turns find memory that the first had taken.
        our_bytes = our_bytes.max(ours.memory_bytes);
        their_bytes = their_bytes.min(theirs.memory_bytes);
    }
    let (ours_ms, theirs_ms) = (median(&mut ours_ms), median(&mut theirs_ms));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("gated CRF with gradient, [{SAMPLES}, {CLASSES}, {SIZE}, {SIZE}] f32, one thread");
    println!(
        "time    scrimp {ours_ms:8.1} ms    PyTorch {theirs_ms:8.1} ms    {:6.1} x",
        theirs_ms / ours_ms
    );
    println!(
        "memory  scrimp {:8.0} MiB   PyTorch {:8.0} MiB   {:6.1} x",
        mib(our_bytes),
        mib(their_bytes),
        their_bytes as f64 / our_bytes as f64
    );
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
