//! Times the metrics of an ACDC-sized case and of large volumes against medpy, and checks that both give the
//! same numbers.
//!
//! `cargo bench --bench metrics`; the Python with medpy is `SCRIMP_BENCH_PYTHON`, by default `python3`.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use safetensors::tensor::{Dtype, TensorView};
use scrimp::error::{Context, Failure, Result};
use scrimp::metrics::LabelPair;
use scrimp::random::Key;
use serde::Deserialize;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use support::median;

/// Slices, rows and columns of a common ACDC case.
const SHAPE: [usize; 3] = [10, 256, 216];
const SPACING_MM: [f64; 3] = [10.0, 1.5625, 1.5625];
/// A CT of the abdomen.
const LARGE_SHAPE: [usize; 3] = [200, 300, 300];
const LARGE_SPACING_MM: [f64; 3] = [2.5, 0.8, 0.8];
/// Both sides take turns, so that a busy moment of the machine does not hit one of them alone.
const TURNS: usize = 3;
const OWN_REPEATS_PER_TURN: usize = 20;
const THEIR_REPEATS_PER_TURN: usize = 3;

/// A prediction and a truth.
struct Scene {
    name: &'static str,
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    /// How many, the background among them.
    classes: u8,
    /// How often either side measures it in a turn.
    repeats: usize,
    prediction: Vec<u8>,
    truth: Vec<u8>,
}

/// A heart in short axis: left ventricle (3) in myocardium (2), right ventricle (1) beside it,
/// tapering over the slices. `shift` moves and deforms it as a prediction errs.
fn heart(shift: f64) -> Vec<u8> {
    let [depth, height, width] = SHAPE;
    let mut labels = Vec::with_capacity(depth * height * width);
    for z in 0..depth {
        let taper = 1.0 - 0.06 * z as f64;
        for y in 0..height {
            for x in 0..width {
                let (dy, dx) = (y as f64 - 128.0 - shift, x as f64 - 108.0 + shift);
                let wobble = 1.0 + 0.03 * shift * (3.0 * dy.atan2(dx) + z as f64).sin();
                let from_left = dy.hypot(dx) / (taper * wobble);
                let from_right = (dy / 1.6).hypot(dx + 38.0) / (taper * wobble);
                labels.push(match (from_left, from_right) {
                    (radius, _) if radius < 17.0 => 3,
                    (radius, _) if radius < 26.0 => 2,
                    (_, radius) if radius < 20.0 => 1,
                    _ => 0,
                });
            }
        }
    }
    labels
}

/// An ellipsoid in a large volume, by its middle and half axes in voxels.
fn organ(middle: [f64; 3], half_axes: [f64; 3]) -> Vec<u8> {
    let [depth, height, width] = LARGE_SHAPE;
    let squares = [0, 1, 2].map(|axis| -> Vec<f64> {
        let from_middle = (0..LARGE_SHAPE[axis]).map(|index| index as f64 - middle[axis]);
        from_middle.map(|steps| (steps / half_axes[axis]).powi(2)).collect()
    });
    let mut labels = Vec::with_capacity(depth * height * width);
    for z in &squares[0] {
        for y in &squares[1] {
            labels.extend(squares[2].iter().map(|x| u8::from(z + y + x <= 1.0)));
        }
    }
    labels
}

/// A good prediction, one with voxels of every class strewn over the whole volume; and of a large organ one
/// that is close, one elsewhere, and one of noise.
fn scenes() -> Vec<Scene> {
    let classes = 4;
    let mut draws = Key::new(7).purpose("strewn voxels").draws();
    let mut strewn = heart(1.5);
    for _ in 0..200 {
        let voxel = draws.below(strewn.len() as u64) as usize;
        strewn[voxel] = 1 + draws.below(u64::from(classes) - 1) as u8;
    }
    let small = |name, prediction| Scene {
        name,
        shape: SHAPE,
        spacing_mm: SPACING_MM,
        classes,
        repeats: OWN_REPEATS_PER_TURN,
        prediction,
        truth: heart(0.0),
    };
    let large = |name, prediction| Scene {
        name,
        shape: LARGE_SHAPE,
        spacing_mm: LARGE_SPACING_MM,
        classes: 2,
        repeats: 1,
        prediction,
        truth: organ([100.0, 150.0, 150.0], [40.0, 70.0, 80.0]),
    };
    let noise = (0..LARGE_SHAPE.iter().product()).map(|_: usize| draws.below(2) as u8).collect();
    vec![
        small("close", heart(1.5)),
        small("strewn", strewn),
        large("large, close", organ([101.0, 152.0, 148.0], [40.0, 71.0, 79.0])),
        large("large, elsewhere", organ([25.0, 40.0, 40.0], [20.0, 35.0, 35.0])),
        large("large, noise", noise),
    ]
}

/// Dice, HD95 and ASD of each class but the background.
type Scores = Vec<[f64; 3]>;

fn measure(scene: &Scene) -> Result<Scores> {
    let pair = LabelPair::new(&scene.prediction, &scene.truth, scene.shape, scene.spacing_mm)?;
    (1..scene.classes)
        .map(|class| {
            let measures = pair.measure(class);
            let both = measures.overlap.dice().zip(measures.surface.distances());
            let (dice, distances) = both.ok_or_else(|| {
                Failure::new(format!("class {class} of scene `{}` is empty", scene.name))
            })?;
            Ok([dice, distances.hd95, distances.asd])
        })
        .collect()
}

/// Times of single passes over one scene, and what they measured.
#[derive(Deserialize)]
struct Timing {
    times_ms: Vec<f64>,
    scores: Scores,
}

fn time_ours(scene: &Scene) -> Result<Timing> {
    let mut timing = Timing { times_ms: Vec::new(), scores: measure(scene)? };
    for _ in 0..scene.repeats {
        let start = Instant::now();
        black_box(measure(black_box(scene))?);
        timing.times_ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(timing)
}

fn time_medpy(file: &Path, scene: &Scene) -> Result<Timing> {
    let mut command = support::python("metrics.py");
    command.args([file, Path::new(scene.name)]);
    command.arg(scene.repeats.min(THEIR_REPEATS_PER_TURN).to_string());
    support::answer(&mut command, "medpy safetensors")
}

fn write(scenes: &[Scene], file: &Path) -> Result<()> {
    let bytes_of = |scene: &Scene| -> Vec<u8> {
        scene.spacing_mm.iter().flat_map(|step| step.to_le_bytes()).collect()
    };
    let spacings: Vec<Vec<u8>> = scenes.iter().map(bytes_of).collect();
    let mut tensors = Vec::new();
    for (Scene { name, shape, prediction, truth, .. }, spacing) in scenes.iter().zip(&spacings) {
        tensors.push((format!("{name}.spacing"), Dtype::F64, vec![3], spacing.as_slice()));
        tensors.push((format!("{name}.prediction"), Dtype::U8, shape.to_vec(), prediction));
        tensors.push((format!("{name}.truth"), Dtype::U8, shape.to_vec(), truth));
    }
    let views = tensors
        .into_iter()
        .map(|(key, dtype, shape, bytes)| Ok((key, TensorView::new(dtype, shape, bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>()
        .context(|| "cannot describe the volumes")?;
    safetensors::serialize_to_file(views, None, file)
        .context(|| format!("cannot write `{}`", file.display()))
}

fn check_same(scene: &str, ours: &Scores, theirs: &Scores) -> Result<()> {
    let same = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b.abs();
    if ours.len() == theirs.len() && ours.as_flattened().iter().zip(theirs.as_flattened()).all(same)
    {
        return Ok(());
    }
    Err(Failure::new(format!("scene `{scene}`: measured {ours:?}, medpy says {theirs:?}"))
        .hint("run `cargo test golden_metrics`"))
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    let file = folder.path().join("volumes.safetensors");
    let scenes = scenes();
    write(&scenes, &file)?;
    println!("Dice, HD95 and ASD on one thread");
    for scene in &scenes {
        let (mut ours_ms, mut theirs_ms) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let ours = time_ours(scene)?;
            let theirs = time_medpy(&file, scene)?;
            check_same(scene.name, &ours.scores, &theirs.scores)?;
            ours_ms.extend(ours.times_ms);
            theirs_ms.extend(theirs.times_ms);
        }
        let (ours_ms, theirs_ms) = (median(&mut ours_ms), median(&mut theirs_ms));
        let (name, ratio) = (scene.name, theirs_ms / ours_ms);
        let size = format!("{:?} voxels, {} classes", scene.shape, scene.classes - 1);
        println!(
            "{name:<17} {size:<34} scrimp {ours_ms:8.3} ms   medpy {theirs_ms:8.1} ms   {ratio:6.0} x"
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
