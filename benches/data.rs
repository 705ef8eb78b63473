//! Images per second of loading and augmenting on one thread, beside the same work in Python.
//!
//! `cargo bench --bench data`. The slices are those of ACDC where `SCRIMP_DATA_DIR` names a folder
//! that holds it, else of the phantom. `benches/pytorch/augment.py` is run with the interpreter
//! `SCRIMP_BENCH_PYTHON` (default `python3`) and one argument, a folder of `*_slice_*.h5` with the
//! same slices, and prints one JSON object with `images_per_second`. Both take turns, so that
//! neither has the quieter machine.

mod support;

use scrimp::config::sampling::Sampling;
use scrimp::data::augment::Resample;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::import::{Steps, acdc};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::stream::ANNOTATED;
use scrimp::data::{Case, DENSE, Dataset, IGNORE, SCRIBBLE};
use scrimp::error::{Context, Result};
use serde::Deserialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use support::median;

/// How often the measurements take turns.
const TURNS: usize = 5;

/// Batches of 12 images of 256 x 256, as in the published runs.
const BATCH_SIZE: usize = 12;
const SIZE: usize = 256;
const STEPS: u64 = 200;

/// Cases of ACDC to measure with: two folds, of which one is held out.
const ACDC_CASES: usize = 80;

fn main() -> ExitCode {
    support::end(run())
}

fn run() -> Result<()> {
    let dataset = Arc::new(dataset()?);
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    for case in dataset.cases.iter().filter(|case| case.fold != 1) {
        write_slices(case, folder.path()).context(|| "cannot write slices for Python")?;
    }
    scrimp::native::prepare_process();
    let mut measured: [Vec<f64>; 3] = Default::default();
    for _ in 0..TURNS {
        measured[0].push(ours(&dataset, Resample::Reference)?);
        measured[1].push(ours(&dataset, Resample::Bilinear)?);
        measured[2].push(python(folder.path())?);
    }
    let [reference, bilinear, python] = measured.map(|mut values| median(&mut values));
    writeln!(
        std::io::stdout(),
        "{}: reference {reference:.0}, bilinear {bilinear:.0}, python {python:.0} images/s; \
         reference is {:.0} times as fast",
        dataset.name,
        reference / python
    )
    .context(|| "cannot write to stdout")
}

fn dataset() -> Result<Dataset> {
    let Some(folder) = std::env::var_os("SCRIMP_DATA_DIR") else {
        let difficulty = Difficulty::Easy;
        return generate(&Phantom { cases: 10, slices: 8, size: SIZE, difficulty, seed: 1 });
    };
    let mut source = acdc::open(&PathBuf::from(folder).join("ACDC"), &Steps::as_published())?;
    source.cases = Box::new(source.cases.take(ACDC_CASES));
    source.collect()
}

/// Images per second of a loader that is always waited for: all its work is on its one thread.
fn ours(dataset: &Arc<Dataset>, augment: Resample) -> Result<f64> {
    let plan = LoaderPlan {
        fold: 1,
        annotation: SCRIBBLE.into(),
        batch_size: BATCH_SIZE,
        drop_last: true,
        streams: ANNOTATED,
        sampling: Sampling::Slices { size: SIZE },
        augment,
        outside: scrimp::data::IGNORE,
        seed: 1,
    };
    let mut loader = Loader::new(dataset, plan, 0, 1)?;
    loader.batch(1)?;
    let start = Instant::now();
    for step in 2..=STEPS + 1 {
        loader.batch(step)?;
    }
    Ok((STEPS * BATCH_SIZE as u64) as f64 / start.elapsed().as_secs_f64())
}

#[derive(Deserialize)]
struct Speed {
    images_per_second: f64,
}

fn python(slices: &Path) -> Result<f64> {
    let packages = "numpy scipy h5py torch";
    let speed: Speed = support::answer(support::python("augment.py").arg(slices), packages)?;
    Ok(speed.images_per_second)
}

/// Writes the slices of a case as WSL4MIS has them.
fn write_slices(case: &Case, folder: &Path) -> hdf5::Result<()> {
    let shape = [case.scan.grid.shape[1], case.scan.grid.shape[2]];
    for slice in 0..case.scan.grid.shape[0] {
        let file = hdf5::File::create(folder.join(format!("{}_slice_{slice}.h5", case.name)))?;
        let image = file.new_dataset::<f32>().shape(shape).deflate(4).create("image")?;
        image.write_raw(case.scan.slice(slice))?;
        for (kind, name) in [(DENSE, "label"), (SCRIBBLE, "scribble")] {
            let labels = case.annotation_slice(kind, slice).unwrap_or_default();
            let coded = |&label: &u8| if label == IGNORE { 4 } else { label };
            let coded: Vec<u8> = labels.iter().map(coded).collect();
            file.new_dataset::<u8>().shape(shape).deflate(4).create(name)?.write_raw(&coded)?;
        }
    }
    Ok(())
}
