//! Times the dense CRF against `pydensecrf`, and checks that both give the same marginals.
//!
//! `cargo bench --bench dense_crf`; the Python with `pydensecrf` is `SCRIMP_BENCH_PYTHON`, by default
//! `python3`. Both sides use one thread and the settings of CLTN, which `benches/pytorch/dense_crf.py` repeats.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use scrimp::crf::{Image, unary_costs};
use scrimp::error::{Context, Failure, Result};
use scrimp::pseudo_labels::lesion::FIELD;
use scrimp::random::Key;
use serde::Deserialize;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use support::median;

/// Both sides take turns, so that a busy moment of the machine does not hit one of them alone.
const TURNS: usize = 5;
const OWN_REPEATS_PER_TURN: usize = 5;
/// How far marginals may be apart.
const TOLERANCE: f32 = 1e-4;

/// A square picture with a disc for every label but the first, and the costs of the labels.
struct Scene {
    size: usize,
    labels: usize,
    image: Vec<u8>,
    unary: Vec<f32>,
}

impl Scene {
    /// Discs of one colour each on shaded ground, with noise of six grey levels, and scores that
    /// see them blurred and noisy.
    fn new(size: usize, labels: usize) -> Self {
        let mut draws = Key::new(size as u64).purpose("discs").draws();
        let discs: Vec<[f64; 6]> = (1..labels)
            .map(|_| {
                let [row, column] = [0; 2].map(|_| draws.range(0.25, 0.75) * size as f64);
                let [red, green, blue] = [0; 3].map(|_| draws.range(30.0, 220.0));
                [row, column, draws.range(0.12, 0.25) * size as f64, red, green, blue]
            })
            .collect();
        let mut image = Vec::with_capacity(3 * size * size);
        let mut scores = vec![0.0; labels * size * size];
        for pixel in 0..size * size {
            let (row, column) = ((pixel / size) as f64, (pixel % size) as f64);
            let shade = 20.0 * (column / 37.0).sin() + 15.0 * (row / 29.0).cos();
            let mut colour = [180.0 + shade, 150.0 + shade, 140.0 + shade];
            scores[pixel] = draws.range(0.2, 0.5);
            for (index, [down, across, radius, red, green, blue]) in discs.iter().enumerate() {
                let distance = (row - down).hypot(column - across) / radius;
                if distance < 1.0 {
                    colour = [*red, *green, *blue];
                }
                scores[(index + 1) * size * size + pixel] =
                    (-distance * distance / 1.4).exp() * 0.8 + draws.range(0.0, 0.2);
            }
            image.extend(colour.map(|level| (level + 6.0 * draws.normal()) as u8));
        }
        Self { size, labels, image, unary: unary_costs(&scores) }
    }

    fn marginals(&self) -> Result<Vec<f32>> {
        FIELD.marginals(Image { columns: self.size, pixels: &self.image }, &self.unary)
    }
}

/// Milliseconds of each picture.
#[derive(Deserialize)]
struct Timing {
    times_ms: Vec<f64>,
}

fn time_python(pictures: &Path, marginals: &Path) -> Result<Vec<f64>> {
    let mut command = support::python("dense_crf.py");
    command.args([pictures, marginals]);
    command.envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")]);
    let timing: Timing = support::answer(&mut command, "pydensecrf2 safetensors")?;
    Ok(timing.times_ms)
}

fn write(scenes: &[Scene], file: &Path) -> Result<()> {
    let bytes = |scene: &Scene| scene.unary.iter().flat_map(|cost| cost.to_le_bytes()).collect();
    let costs: Vec<Vec<u8>> = scenes.iter().map(bytes).collect();
    let mut tensors = Vec::new();
    for (number, (scene, costs)) in scenes.iter().zip(&costs).enumerate() {
        let (labels, size) = (scene.labels, scene.size);
        let image = TensorView::new(Dtype::U8, vec![size, size, 3], &scene.image);
        tensors.push((format!("{number}.image"), image));
        let unary = TensorView::new(Dtype::F32, vec![labels, size * size], costs);
        tensors.push((format!("{number}.unary"), unary));
    }
    let views = tensors.into_iter().map(|(key, view)| Ok((key, view?)));
    let views = views.collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    safetensors::serialize_to_file(views.context(|| "cannot describe the pictures")?, None, file)
        .context(|| format!("cannot write `{}`", file.display()))
}

/// The largest difference to the marginals that Python wrote.
fn difference(own: &[f32], file: &Path, number: usize) -> Result<f32> {
    let bytes = std::fs::read(file).context(|| format!("cannot read `{}`", file.display()))?;
    let file = SafeTensors::deserialize(&bytes).context(|| "cannot read the marginals")?;
    let tensor = file
        .tensor(&format!("{number}.marginals"))
        .context(|| format!("there are no marginals of picture {number}"))?;
    let theirs = tensor.data().as_chunks::<4>().0;
    if theirs.len() != own.len() {
        return Err(Failure::new(format!(
            "picture {number} has {} marginals, expected {}",
            theirs.len(),
            own.len()
        )));
    }
    let differences =
        own.iter().zip(theirs).map(|(own, theirs)| (own - f32::from_le_bytes(*theirs)).abs());
    Ok(differences.fold(0.0, f32::max))
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    let pictures = folder.path().join("pictures.safetensors");
    let marginals = folder.path().join("marginals.safetensors");
    let scenes = [Scene::new(256, 2), Scene::new(384, 4)];
    write(&scenes, &pictures)?;
    let mut times_ms = vec![(Vec::new(), Vec::new()); scenes.len()];
    let mut differences = vec![0.0; scenes.len()];
    for _ in 0..TURNS {
        let theirs_ms = time_python(&pictures, &marginals)?;
        for (number, scene) in scenes.iter().enumerate() {
            times_ms[number].1.push(theirs_ms[number]);
            differences[number] = difference(&scene.marginals()?, &marginals, number)?;
            if differences[number] > TOLERANCE {
                return Err(Failure::new(format!(
                    "marginals of picture {number} differ by {:e} from those of pydensecrf",
                    differences[number]
                ))
                .hint("run `cargo test golden_dense_crf`"));
            }
            for _ in 0..OWN_REPEATS_PER_TURN {
                let start = Instant::now();
                black_box(black_box(scene).marginals()?);
                times_ms[number].0.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    println!("dense CRF of a picture, {} iterations, one thread", FIELD.iterations);
    for (number, (scene, (ours_ms, theirs_ms))) in scenes.iter().zip(&mut times_ms).enumerate() {
        let (ours_ms, theirs_ms) = (median(ours_ms), median(theirs_ms));
        println!(
            "{size} x {size}, {} labels   scrimp {ours_ms:6.1} ms   pydensecrf {theirs_ms:6.1} ms   {:4.1} x   marginals to {:.1e}",
            scene.labels,
            theirs_ms / ours_ms,
            differences[number],
            size = scene.size,
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
