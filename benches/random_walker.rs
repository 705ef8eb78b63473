//! Times random-walker labels against scikit-image's direct solver, and checks that both are the same.
//!
//! `SCRIMP_DATA_DIR=DIR cargo bench --bench random_walker`, where `DIR/ACDC` holds the data set;
//! without it on slices of a phantom. The Python with scikit-image is `SCRIMP_BENCH_PYTHON`, by default
//! `python3`. Both sides use one thread.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use safetensors::tensor::{Dtype, TensorView};
use scrimp::data::import::{Steps, acdc, phantom};
use scrimp::data::{Case, SCRIBBLE};
use scrimp::error::{Context, Failure, Result};
use scrimp::pseudo_labels::{Absent, Scribbled};
use serde::Deserialize;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use support::median;

const CLASSES: usize = 4;
/// Both sides take turns, so that a busy moment of the machine does not hit one of them alone.
const TURNS: usize = 3;
const OWN_REPEATS_PER_TURN: usize = 5;
/// Every how many cases give a slice: eight of the 200 of ACDC, of different sizes.
const CASES_BETWEEN: usize = 25;

struct Scene {
    name: String,
    shape: [usize; 2],
    image: Vec<f32>,
    scribble: Vec<u8>,
}

impl Scene {
    /// The first slice from the middle on whose scribble shows every class.
    fn of(case: &Case) -> Option<Self> {
        let slice = (case.scan.grid.shape[0] / 2..case.scan.grid.shape[0]).find(|&slice| {
            let scribble = case.annotation_slice(SCRIBBLE, slice).unwrap_or_default();
            (0..CLASSES as u8).all(|class| scribble.contains(&class))
        })?;
        Some(Self {
            name: format!("{}:{slice}", case.name),
            shape: [case.scan.grid.shape[1], case.scan.grid.shape[2]],
            image: case.scan.slice(slice).to_vec(),
            scribble: case.annotation_slice(SCRIBBLE, slice)?.to_vec(),
        })
    }

    fn labels(&self) -> Result<Vec<u8>> {
        let (columns, classes) = (self.shape[1], CLASSES);
        let scribbled =
            Scribbled { columns, classes, image: &self.image, scribble: &self.scribble };
        scribbled.random_walker(Absent::AllBackground)
    }
}

fn scenes() -> Result<Vec<Scene>> {
    if let Some(folder) = std::env::var_os("SCRIMP_DATA_DIR") {
        let cases = acdc::open(&PathBuf::from(folder).join("ACDC"), &Steps::as_published())?.cases;
        let chosen = cases.step_by(CASES_BETWEEN).map(|case| Ok(Scene::of(&case?)));
        return Ok(chosen.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect());
    }
    let difficulty = phantom::Difficulty::Hard;
    let phantom = phantom::Phantom { cases: 2, slices: 5, size: 224, difficulty, seed: 1 };
    Ok(phantom::generate(&phantom)?.cases.iter().filter_map(Scene::of).collect())
}

/// Milliseconds and labels of a pass over all scenes.
#[derive(Deserialize)]
struct Timing {
    times_ms: Vec<f64>,
    labels: Vec<Vec<u8>>,
}

fn time_python(file: &Path) -> Result<Timing> {
    let mut command = support::python("random_walker.py");
    command.arg(file).envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")]);
    support::answer(&mut command, "scikit-image safetensors")
}

fn write(scenes: &[Scene], file: &Path) -> Result<()> {
    let images: Vec<Vec<u8>> = scenes
        .iter()
        .map(|scene| scene.image.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let mut tensors = Vec::new();
    for (number, (scene, image)) in scenes.iter().zip(&images).enumerate() {
        let shape = scene.shape.to_vec();
        tensors
            .push((format!("{number}.image"), TensorView::new(Dtype::F32, shape.clone(), image)));
        let scribble = TensorView::new(Dtype::U8, shape, &scene.scribble);
        tensors.push((format!("{number}.scribble"), scribble));
    }
    let views = tensors.into_iter().map(|(key, view)| Ok((key, view?)));
    let views = views.collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    safetensors::serialize_to_file(views.context(|| "cannot describe the slices")?, None, file)
        .context(|| format!("cannot write `{}`", file.display()))
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    let file = folder.path().join("slices.safetensors");
    let scenes = scenes()?;
    write(&scenes, &file)?;
    let mut times_ms = vec![(Vec::new(), Vec::new()); scenes.len()];
    for _ in 0..TURNS {
        let theirs = time_python(&file)?;
        for (index, scene) in scenes.iter().enumerate() {
            let (ours_ms, theirs_ms) = &mut times_ms[index];
            theirs_ms.push(theirs.times_ms[index]);
            let labels = scene.labels()?;
            let differing =
                labels.iter().zip(&theirs.labels[index]).filter(|(a, b)| a != b).count();
            if differing > 0 || labels.len() != theirs.labels[index].len() {
                return Err(Failure::new(format!(
                    "{differing} labels of `{}` differ from those of scikit-image",
                    scene.name
                ))
                .hint("run `cargo test golden_random_walker`"));
            }
            for _ in 0..OWN_REPEATS_PER_TURN {
                let start = Instant::now();
                black_box(black_box(scene).labels()?);
                ours_ms.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    println!("random-walker labels of a slice, one thread, equal labels");
    let mut ratios = Vec::new();
    for (scene, (ours_ms, theirs_ms)) in scenes.iter().zip(&mut times_ms) {
        let (ours_ms, theirs_ms) = (median(ours_ms), median(theirs_ms));
        let (name, [rows, columns], ratio) = (&scene.name, scene.shape, theirs_ms / ours_ms);
        println!(
            "{name:<22} {rows} x {columns}   scrimp {ours_ms:7.2} ms   scikit-image {theirs_ms:7.1} ms   {ratio:5.1} x"
        );
        ratios.push(ratio);
    }
    println!("median ratio {:.1}", median(&mut ratios));
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
