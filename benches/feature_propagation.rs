//! Times features that spread between pixels against the unfold form in PyTorch, and compares what both need in
//! memory.
//!
//! `cargo bench --bench feature_propagation`, with `-- SAMPLES CHANNELS SIZE` for other numbers than 8, 128 and 224, of
//! which PyTorch needs some tens of GB; the Python with torch and safetensors is `SCRIMP_BENCH_PYTHON`, by default
//! `python3`. One pass is the result, and the gradient of a sum of it, on one thread. Linux only.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use scrimp::error::{Context, Failure, Result};
use scrimp::native::{Form, propagate};
use serde::Deserialize;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use support::median;
use tch::{Device, Kind, Tensor};

/// Samples, channels, and rows or columns, as published.
const PUBLISHED: [i64; 3] = [8, 128, 224];
/// Both sides take turns, so that a busy moment of the machine does not hit one of them alone.
const TURNS: usize = 3;
const OWN_REPEATS_PER_TURN: usize = 5;
/// Largest relative difference of the numbers, which are sums in f32, or exponentials of such.
const LIMIT: f64 = 1e-3;

/// Times of single passes, some numbers, and by how much the resident memory grew at its peak.
#[derive(Deserialize)]
struct Timing {
    times_ms: Vec<f64>,
    /// The sum, the sum of the squares of the gradient, one of its elements in the middle, and the largest.
    numbers: Vec<f64>,
    memory_bytes: u64,
}

/// Features whose products are of the size at which the weights of neighbours differ, and factors of the sum.
fn inputs([samples, channels, size]: [i64; 3]) -> [Tensor; 2] {
    tch::manual_seed(1);
    let options = (Kind::Float, Device::Cpu);
    let coarse = Tensor::randn([samples, channels, size / 8, size / 8], options);
    let smooth = coarse.upsample_bilinear2d([size; 2], true, None, None);
    let noise = Tensor::randn([samples, channels, size, size], options);
    let features = (smooth + noise * 0.5) * (2.0 / channels as f64).sqrt();
    let factors = Tensor::randn([samples, channels, size, size], options);
    [features, factors]
}

fn numbers(sum: &Tensor, gradient: &Tensor) -> Vec<f64> {
    let size = gradient.size();
    let middle = gradient.double_value(&[0, 0, size[2] / 2, size[3] / 2]);
    vec![
        sum.double_value(&[]),
        gradient.square().sum(Kind::Double).double_value(&[]),
        middle,
        gradient.abs().max().double_value(&[]),
    ]
}

fn time_ours([features, factors]: &[Tensor; 2]) -> Result<Timing> {
    support::forget_peak()?;
    let before = support::memory("VmRSS")?;
    let mut timing = Timing { times_ms: Vec::new(), numbers: Vec::new(), memory_bytes: 0 };
    for _ in 0..OWN_REPEATS_PER_TURN {
        let features = features.detach().set_requires_grad(true);
        let start = Instant::now();
        let sum = (propagate(&features, Form::Own)? * factors).sum(Kind::Float);
        sum.backward();
        timing.times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        timing.memory_bytes = support::memory("VmHWM")?.saturating_sub(before);
        timing.numbers = numbers(&sum, &features.grad());
    }
    Ok(timing)
}

fn time_theirs(file: &Path) -> Result<Timing> {
    support::answer(support::python("feature_propagation.py").arg(file), "torch safetensors")
}

/// The sizes that the command line names.
fn sizes() -> Result<[i64; 3]> {
    let numbers: Vec<i64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    match *numbers.as_slice() {
        [] => Ok(PUBLISHED),
        [samples, channels, size] if samples > 0 && channels > 0 && size >= 8 => {
            Ok([samples, channels, size])
        }
        _ => {
            Err(Failure::usage(format!("expected samples, channels and a size, found {numbers:?}")))
        }
    }
}

fn compare(ours: &[f64], theirs: &[f64]) -> Result<()> {
    let apart = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs() / b.abs().max(LIMIT));
    match apart.fold(0.0, f64::max) {
        apart if apart <= LIMIT && ours.len() == theirs.len() => Ok(()),
        _ => Err(Failure::new(format!("found {ours:?}, PyTorch says {theirs:?}"))
            .hint("run `cargo test golden_propagation`")),
    }
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    let file = folder.path().join("inputs.safetensors");
    tch::set_num_threads(1);
    let sizes = sizes()?;
    let inputs = inputs(sizes);
    let named = [("features", &inputs[0]), ("factors", &inputs[1])];
    Tensor::write_safetensors(&named, &file)
        .context(|| format!("cannot write `{}`", file.display()))?;
    // As a network gives them.
    let [features, factors] = inputs;
    let inputs =
        [scrimp::native::channels_last(&features)?, scrimp::native::channels_last(&factors)?];
    drop((features, factors));
    let (mut ours_ms, mut theirs_ms) = (Vec::new(), Vec::new());
    let (mut our_bytes, mut their_bytes) = (0, u64::MAX);
    for _ in 0..TURNS {
        let ours = time_ours(&inputs)?;
        let theirs = time_theirs(&file)?;
        compare(&ours.numbers, &theirs.numbers)?;
        ours_ms.extend(ours.times_ms);
        theirs_ms.extend(theirs.times_ms);
        // To our disadvantage: later turns find memory that the first had taken.
        our_bytes = our_bytes.max(ours.memory_bytes);
        their_bytes = their_bytes.min(theirs.memory_bytes);
    }
    let (ours_ms, theirs_ms) = (median(&mut ours_ms), median(&mut theirs_ms));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let [samples, channels, size] = sizes;
    println!("features with gradient, [{samples}, {channels}, {size}, {size}] f32, one thread");
    println!(
        "time    scrimp {ours_ms:8.1} ms    PyTorch {theirs_ms:8.1} ms    {:6.1} x",
        theirs_ms / ours_ms
    );
    println!(
        "memory  scrimp {:8.0} MiB   PyTorch {:8.0} MiB   {:6.1} x",
        mib(our_bytes),
        mib(their_bytes),
        their_bytes as f64 / our_bytes.max(1) as f64
    );
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
