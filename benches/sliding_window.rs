//! Times the segmentation of a volume in overlapping windows here and in MONAI, in turns, and compares the
//! probabilities.
//!
//! `cargo bench --bench sliding_window`. The U-Net over volumes, whose normalisations have statistics of their own,
//! sees a volume of 48 x 96 x 96 in windows of 32 x 64 x 64 that overlap by half, as they are and mirrored along
//! every subset of the axes, on the CPU. The other side is `benches/pytorch/sliding_window.py`, run by
//! `SCRIMP_BENCH_PYTHON` (default `python3`). `-- quick` leaves the mirrors out. Ends with exit code 1 where
//! probabilities differ by more than the limit.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark reports to its terminal"
)]

mod support;

use scrimp::config;
use scrimp::config::sampling::Sampling;
use scrimp::error::{Context, Failure, Result};
use scrimp::methods::{self, Passes, Setup};
use scrimp::native::prepare_process;
use scrimp::random::Key;
use scrimp::scan::{Grid, Scan};
use scrimp::train::Method;
use scrimp::train::inference::{Inference, OVERLAP, Target};
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::windows::weights;
use serde::Deserialize;
use std::process::ExitCode;
use std::time::Instant;
use support::median;
use tch::{Device, Kind, Tensor};

const CLASSES: i64 = 4;
const VOLUME: [usize; 3] = [48, 96, 96];
const WINDOW: [usize; 3] = [32, 64, 64];
/// How often all sides take turns.
const TURNS: usize = 3;
/// Largest difference of a probability.
const LIMIT: f64 = 1e-5;
const CONFIG: &str = "
[method]
name = \"partial-ce\"
[method.params.learner]
lr = 0.01
optimizer = { sgd = { momentum = 0.9, weight_decay = 1e-4 } }
[train]
total_steps = 1000
";
/// Options of `sliding_window.py`.
const MONAI: [(&str, &[&str]); 4] = [
    ("MONAI", &[]),
    ("MONAI, 4 windows at once", &["--windows-at-once", "4"]),
    ("MONAI, channels last", &["--channels-last"]),
    ("MONAI, channels last, 4 windows at once", &["--channels-last", "--windows-at-once", "4"]),
];

#[derive(Deserialize)]
struct Times {
    volume_ms: Vec<f64>,
}

/// A network, a volume, and how it is cut.
struct Given {
    method: Box<dyn Method>,
    scan: Scan,
    mirrors: bool,
    folder: tempfile::TempDir,
}

impl Given {
    fn new(mirrors: bool) -> Result<Self> {
        let mut draws = Key::new(1).draws();
        let grid = Grid::unplaced(VOLUME, None);
        let voxels = (0..grid.voxels()).map(|_| draws.uniform() as f32).collect();
        let scan = Scan { grid, channels: 1, voxels };
        let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
        let given = Self { method: method()?, scan, mirrors, folder };
        given.write()?;
        Ok(given)
    }

    /// The state dictionary, the volume and the weights of a window, for `sliding_window.py`.
    fn write(&self) -> Result<()> {
        let shape = |extents: [usize; 3]| extents.map(|extent| extent as i64);
        let image = Tensor::from_slice(&self.scan.voxels).view(shape(VOLUME));
        let learners = self.method.learners();
        let entries = learners.iter().flat_map(|learner| learner.entries());
        let mut tensors: Vec<(String, Tensor)> =
            entries.map(|entry| (entry.name.clone(), entry.tensor.detach().contiguous())).collect();
        tensors.push(("image".into(), image.unsqueeze(0).unsqueeze(0)));
        tensors.push(("weights".into(), Tensor::from_slice(&weights(WINDOW)).view(shape(WINDOW))));
        Tensor::write_safetensors(&tensors, self.folder.path().join("given.safetensors"))
            .context(|| "cannot write `given.safetensors`")
    }

    /// Milliseconds and the probabilities `[classes, D, H, W]`.
    fn ours(&self) -> Result<(f64, Tensor)> {
        let sampling = Sampling::Patches { extent: WINDOW, per_case: 1, foreground_share: 0.0 };
        let target = Target { kind: Kind::Float, device: Device::Cpu };
        let mut inference = Inference::new(vec![&*self.method], sampling, target);
        inference.mirrors = self.mirrors;
        let start = Instant::now();
        let mut slabs = Vec::new();
        inference.each_slab(&self.scan, &mut |slab| {
            slabs.push(slab.probabilities);
            Ok(())
        })?;
        Ok((start.elapsed().as_secs_f64() * 1e3, Tensor::cat(&slabs, 1)))
    }

    fn theirs(&self, threads: i32, options: &[&str]) -> Result<(f64, Tensor)> {
        let file = |name: &str| self.folder.path().join(name);
        let found = file("found.safetensors");
        let mut command = support::python("sliding_window.py");
        command.arg(file("given.safetensors"));
        command.arg("--patch").args(WINDOW.map(|extent| extent.to_string()));
        command.args(["--overlap", &OVERLAP.to_string(), "--threads", &threads.to_string()]);
        command.arg("--to").arg(&found).args(options);
        if !self.mirrors {
            command.arg("--no-mirrors");
        }
        let times: Times = support::answer(&mut command, "torch monai safetensors")?;
        let tensors =
            Tensor::read_safetensors(&found).context(|| "cannot read what MONAI found")?;
        let probabilities = tensors.into_iter().find(|(name, _)| name == "probabilities");
        match (times.volume_ms.first(), probabilities) {
            (Some(&ms), Some((_, probabilities))) => Ok((ms, probabilities)),
            _ => Err(Failure::new("MONAI found nothing")),
        }
    }
}

/// The U-Net over volumes with weights as they are drawn, and running statistics of noise.
fn method() -> Result<Box<dyn Method>> {
    let config = config::parse(CONFIG, "sliding_window.toml", &[])?;
    let definition = methods::find(&config.method.name)?;
    let setup = Setup {
        learner: LearnerSetup {
            key: Key::new(2022).purpose("weights"),
            kind: Kind::Float,
            computed: Kind::Float,
            device: Device::Cpu,
            moments: Moments::Whole,
        },
        classes: CLASSES,
        channels: 1,
        passes: Passes::new(false, None),
        slices: Vec::new(),
        sample: WINDOW,
        spacing_mm: None,
        levels: Vec::new(),
    };
    let method = (definition.build)(&(definition.check)(&config)?, &setup)?;
    tch::manual_seed(1);
    let extents = [&[2, 1][..], &WINDOW.map(|extent| extent as i64)].concat();
    let noise = Tensor::rand(&extents, (Kind::Float, Device::Cpu));
    method.adapt_statistics(&noise, 1.0)?;
    Ok(method)
}

/// Prints the medians of all sides, and returns the largest difference of a probability.
fn compare(given: &Given, threads: i32) -> Result<f64> {
    tch::set_num_threads(threads);
    // Takes memory and chooses kernels.
    let (_, expected) = given.ours()?;
    let (mut ours, mut theirs, mut largest) = (Vec::new(), vec![Vec::new(); MONAI.len()], 0.0f64);
    for turn in 1..=TURNS {
        eprintln!("{threads} threads, turn {turn} of {TURNS}");
        for ((_, options), times) in MONAI.iter().zip(&mut theirs) {
            ours.push(given.ours()?.0);
            let (ms, found) = given.theirs(threads, options)?;
            let difference = (found - &expected).abs().max().double_value(&[]);
            // `max` passes over a NaN, which must not pass.
            largest = if difference.is_nan() { f64::INFINITY } else { largest.max(difference) };
            times.push(ms);
        }
    }
    println!("{threads} threads: median of a volume, and that of scrimp over it");
    let own = median(&mut ours);
    println!("{:<42} {own:>10.0} ms", "scrimp");
    for ((name, _), times) in MONAI.iter().zip(&mut theirs) {
        let ms = median(times);
        println!("{name:<42} {ms:>10.0} ms {:>6.2}", own / ms);
    }
    Ok(largest)
}

fn run() -> Result<()> {
    prepare_process();
    // cargo adds `--bench`.
    let given = Given::new(std::env::args().skip(1).all(|word| word != "quick"))?;
    let mut largest = 0.0f64;
    for threads in [1, 2] {
        largest = largest.max(compare(&given, threads)?);
    }
    println!("largest difference of a probability: {largest:.1e}, limit {LIMIT:.0e}");
    if largest <= LIMIT {
        return Ok(());
    }
    Err(Failure::new(format!(
        "probabilities differ by {largest:.1e}, at most {LIMIT:.0e} expected"
    )))
}

fn main() -> ExitCode {
    support::end(run())
}
