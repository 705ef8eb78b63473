//! Times maps of gaze and their refinement against scipy and `pydensecrf`, and checks that both give the same maps.
//!
//! `cargo bench --bench gaze`; the Python with both packages is `SCRIMP_BENCH_PYTHON`, by default `python3`. Pictures
//! have the size that most of Kvasir-SEG have, and as many fixations. The times beside each other are those of one
//! thread; those of all cores of this machine stand behind.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use scrimp::crf::Image;
use scrimp::error::{Context, Failure, Result};
use scrimp::gaze::{FIELD, Fixation, heatmap, refined, scan_path};
use scrimp::random::Key;
use serde::Deserialize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const PICTURES: usize = 20;
/// Rows and columns.
const SHAPE: [usize; 2] = [529, 622];
const DEVIATION: f64 = 70.0;
/// The share of pixels whose refined levels may differ by more than [`LEVELS`].
const APART: f64 = 1e-3;
const LEVELS: u8 = 2;

/// A disc on shaded ground, with noise, and a look at it.
struct Scene {
    image: Vec<u8>,
    fixations: Vec<Fixation>,
}

impl Scene {
    fn new(number: u64) -> Self {
        let [rows, columns] = SHAPE;
        let mut draws = Key::new(number).purpose("gaze").draws();
        let [row, column] = [0; 2].map(|_| draws.range(0.3, 0.7));
        let radius = draws.range(0.1, 0.25) * rows as f64;
        let (mut image, mut mask) = (Vec::with_capacity(3 * rows * columns), Vec::new());
        for pixel in 0..rows * columns {
            let (down, across) = ((pixel / columns) as f64, (pixel % columns) as f64);
            let distance = (down - row * rows as f64).hypot(across - column * columns as f64);
            let shade = 20.0 * (across / 97.0).sin() + 15.0 * (down / 71.0).cos();
            let is_in = distance < radius;
            let colour = if is_in { [190.0, 110.0, 90.0] } else { [150.0, 80.0, 70.0] };
            image.extend(colour.map(|level| (level + shade + 6.0 * draws.normal()) as u8));
            mask.push(u8::from(is_in));
        }
        Self { image, fixations: scan_path(&mask, columns, &mut draws) }
    }

    fn heat(&self) -> Result<Vec<u8>> {
        heatmap(&self.fixations, DEVIATION, SHAPE)
    }

    fn refined(&self, heat: &[u8]) -> Result<Vec<u8>> {
        refined(heat, Image { columns: SHAPE[1], pixels: &self.image }, &FIELD)
    }
}

/// Milliseconds of all pictures.
#[derive(Deserialize)]
struct Timing {
    heat_ms: f64,
    refine_ms: f64,
}

fn time_python(pictures: &Path, maps: &Path) -> Result<Timing> {
    let mut command = support::python("gaze.py");
    command.args([pictures, maps]);
    command.envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")]);
    support::answer(&mut command, "numpy scipy pydensecrf2 opencv-python-headless safetensors")
}

fn write(scenes: &[Scene], file: &Path) -> Result<()> {
    let bytes = |scene: &Scene| {
        let numbers = scene.fixations.iter().flat_map(|look| [look.x, look.y, look.duration_ms]);
        numbers.flat_map(f64::to_le_bytes).collect::<Vec<u8>>()
    };
    let points: Vec<Vec<u8>> = scenes.iter().map(bytes).collect();
    let mut tensors = Vec::new();
    for (number, (scene, points)) in scenes.iter().zip(&points).enumerate() {
        let image = TensorView::new(Dtype::U8, vec![SHAPE[0], SHAPE[1], 3], &scene.image);
        tensors.push((format!("{number}.image"), image));
        let looks = TensorView::new(Dtype::F64, vec![scene.fixations.len(), 3], points);
        tensors.push((format!("{number}.points"), looks));
    }
    let views = tensors.into_iter().map(|(key, view)| Ok((key, view?)));
    let views = views.collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    safetensors::serialize_to_file(views.context(|| "cannot describe the pictures")?, None, file)
        .context(|| format!("cannot write `{}`", file.display()))
}

/// The share of pixels that differ by more than [`LEVELS`] from those that Python wrote.
fn apart(own: &[Vec<u8>], file: &Path, what: &str) -> Result<f64> {
    let bytes = std::fs::read(file).context(|| format!("cannot read `{}`", file.display()))?;
    let file = SafeTensors::deserialize(&bytes).context(|| "cannot read the maps")?;
    let mut differing = 0;
    for (number, own) in own.iter().enumerate() {
        let key = format!("{number}.{what}");
        let theirs = file.tensor(&key).context(|| format!("there is no `{key}`"))?;
        let pairs = own.iter().zip(theirs.data());
        differing += pairs.filter(|(own, theirs)| own.abs_diff(**theirs) > LEVELS).count();
    }
    let share = differing as f64 / (own.len() * SHAPE[0] * SHAPE[1]) as f64;
    if share <= APART {
        return Ok(share);
    }
    Err(Failure::new(format!("{:.2} % of the pixels of `{what}` differ", 100.0 * share))
        .hint("run `cargo test golden_gaze`"))
}

/// Milliseconds that all pictures take on all cores.
fn on_all_cores(scenes: &[Scene]) -> f64 {
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(scene) = scenes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    drop(scene.heat().and_then(|heat| scene.refined(&heat)));
                }
            });
        }
    });
    begun.elapsed().as_secs_f64() * 1e3
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    let (pictures, maps) =
        (folder.path().join("pictures.safetensors"), folder.path().join("maps.safetensors"));
    let scenes: Vec<Scene> = (0..PICTURES as u64).map(Scene::new).collect();
    write(&scenes, &pictures)?;
    let theirs = time_python(&pictures, &maps)?;
    let begun = Instant::now();
    let heats = scenes.iter().map(Scene::heat).collect::<Result<Vec<_>>>()?;
    let heat_ms = begun.elapsed().as_secs_f64() * 1e3;
    let begun = Instant::now();
    let refined = scenes.iter().zip(&heats).map(|(scene, heat)| scene.refined(heat));
    let refined = refined.collect::<Result<Vec<_>>>()?;
    let refine_ms = begun.elapsed().as_secs_f64() * 1e3;
    let apart = [apart(&heats, &maps, "heat")?, apart(&refined, &maps, "refined")?];
    println!("{PICTURES} pictures of {} x {}, one thread", SHAPE[1], SHAPE[0]);
    let whole = (heat_ms + refine_ms, theirs.heat_ms + theirs.refine_ms);
    for (what, (own, theirs)) in [
        ("map of gaze", (heat_ms, theirs.heat_ms)),
        ("refinement", (refine_ms, theirs.refine_ms)),
        ("both", whole),
    ] {
        println!(
            "{what:<12} scrimp {own:8.0} ms   Python {theirs:8.0} ms   {:5.1} x",
            theirs / own
        );
    }
    let all_ms = on_all_cores(&scenes);
    println!("both on all cores of this machine {all_ms:.0} ms   {:5.1} x", whole.1 / all_ms);
    println!(
        "more than {LEVELS} levels apart: {:.1e} of maps, {:.1e} of refined ones",
        apart[0], apart[1]
    );
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
