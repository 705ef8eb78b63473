//! Times `PuzzleMix` against gco-wrapper with the published tensor operations around it, and checks that both
//! make the same mixes.
//!
//! `cargo bench --bench puzzle_mix`; the Python with gco-wrapper and torch is `SCRIMP_BENCH_PYTHON`, by default
//! `python3`. Both sides use one thread and the settings of CycleMix, which
//! `benches/pytorch/puzzle_mix.py` repeats.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use scrimp::error::{Context, Failure, Result};
use scrimp::mixing::puzzle::{Draw, Mix, Settings, View, mix_all};
use scrimp::random::Key;
use serde::Deserialize;
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use support::median;

const SIZE: usize = 256;
const PIXELS: usize = SIZE * SIZE;
const PARTNERS: [usize; 4] = [2, 0, 3, 1];
const DRAWS: [Draw; 4] = [
    Draw { blocks: 2, share: 0.6 },
    Draw { blocks: 4, share: 0.45 },
    Draw { blocks: 8, share: 0.3 },
    Draw { blocks: 16, share: 0.55 },
];
/// Before and after the other side each, so that a busy moment of the machine does not hit one of them alone.
const OWN_REPEATS: usize = 21;

/// Images, and what is salient in them.
struct Batch {
    images: Vec<Vec<f32>>,
    saliency: Vec<Vec<f32>>,
}

impl Batch {
    /// Two discs of different brightness on shaded ground with noise; the saliency is noise that is strong
    /// within them. Nowhere so strong that gco-wrapper's 32 bits would not do.
    fn new() -> Self {
        let mut batch = Self { images: Vec::new(), saliency: Vec::new() };
        for item in 0..PARTNERS.len() {
            let mut draws = Key::new(item as u64).purpose("discs").draws();
            let discs: Vec<[f64; 4]> = (0..2)
                .map(|_| {
                    let [row, column] = [0; 2].map(|_| draws.range(0.3, 0.7) * SIZE as f64);
                    [row, column, draws.range(15.0, 40.0), draws.range(-2.0, 2.0)]
                })
                .collect();
            let (mut image, mut saliency) = (Vec::new(), Vec::new());
            for pixel in 0..PIXELS {
                let (row, column) = ((pixel / SIZE) as f64, (pixel % SIZE) as f64);
                let within = |disc: &&[f64; 4]| (row - disc[0]).hypot(column - disc[1]) < disc[2];
                let disc = discs.iter().find(within);
                let shade = (column / 37.0).sin() + 0.5 * (row / 29.0).cos();
                let brightness = shade + disc.map_or(0.0, |disc| disc[3]) + 0.2 * draws.normal();
                image.push(brightness as f32);
                let strength = if disc.is_some() { 1.0 } else { 0.1 };
                saliency.push((draws.uniform() * strength) as f32);
            }
            batch.images.push(image);
            batch.saliency.push(saliency);
        }
        batch
    }

    fn pairs(&self) -> Vec<[View<'_>; 2]> {
        let view = |item: usize| View { image: &self.images[item], saliency: &self.saliency[item] };
        PARTNERS.iter().enumerate().map(|(item, &partner)| [view(item), view(partner)]).collect()
    }

    fn write(&self, file: &Path) -> Result<()> {
        let items = PARTNERS.len();
        let singles = |maps: &[Vec<f32>]| bytes(maps.iter().flatten().copied(), f32::to_le_bytes);
        let partners = bytes(PARTNERS.map(|item| item as i64), i64::to_le_bytes);
        let tensors = [
            ("image", Dtype::F32, vec![items, SIZE, SIZE], singles(&self.images)),
            ("saliency", Dtype::F32, vec![items, SIZE, SIZE], singles(&self.saliency)),
            ("partner", Dtype::I64, vec![items], partners),
        ];
        let views = tensors.iter().map(|(key, kind, shape, bytes)| {
            let view = TensorView::new(*kind, shape.clone(), bytes);
            Ok((*key, view.context(|| "cannot describe the batch")?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        safetensors::serialize_to_file(views, None, file)
            .context(|| format!("cannot write `{}`", file.display()))
    }
}

fn bytes<T, const N: usize>(
    values: impl IntoIterator<Item = T>,
    of: impl Fn(T) -> [u8; N],
) -> Vec<u8> {
    values.into_iter().flat_map(of).collect()
}

/// The shares of a mix and the mixed image, `[SIZE * SIZE]` each.
fn composed(mix: &Mix, views: &[View<'_>; 2]) -> [Vec<f32>; 2] {
    let [first, second] = [0, 1].map(|image| mix.sources(image));
    let shares = mix.shares();
    let pixel = |image: usize, source: i32| {
        usize::try_from(source).map_or(0.0, |source| views[image].image[source])
    };
    let places = first.into_iter().zip(second).zip(&shares);
    let mixed = places
        .map(|((first, second), share)| share * pixel(0, first) + (1.0 - share) * pixel(1, second));
    let mixed = mixed.collect();
    [shares, mixed]
}

/// Milliseconds of a batch.
#[derive(Deserialize)]
struct Timing {
    shares_ms: f64,
    mix_ms: f64,
}

fn time_python(batch: &Path, draw: Draw, mix: &Path) -> Result<Timing> {
    let mut command = support::python("puzzle_mix.py");
    command.arg(batch).args([draw.blocks.to_string(), draw.share.to_string()]).arg(mix);
    command.envs([("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")]);
    support::answer(&mut command, "gco-wrapper torch safetensors")
}

/// Refuses mixes that are not those that Python wrote.
fn compare(mixes: &[[Vec<f32>; 2]], blocks: usize, file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).context(|| format!("cannot read `{}`", file.display()))?;
    let file = SafeTensors::deserialize(&bytes).context(|| "cannot read the mixes")?;
    for (part, name) in ["share", "mixed"].into_iter().enumerate() {
        let tensor = file.tensor(name);
        let tensor = tensor.context(|| format!("there is no {name} of {blocks} blocks"))?;
        let theirs = tensor.data().as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it));
        let ours = mixes.iter().flat_map(|mix| &mix[part]);
        let differing = ours.zip(theirs).filter(|(ours, theirs)| (*ours - theirs).abs() > 0.0);
        let differing = differing.count();
        if differing > 0 || tensor.data().len() != 4 * PIXELS * mixes.len() {
            return Err(Failure::new(format!(
                "{differing} pixels of {name} with {blocks} blocks differ from those of gco-wrapper"
            ))
            .hint("run `cargo test golden_puzzle`"));
        }
    }
    Ok(())
}

/// Milliseconds of the shares of a batch alone, and of the whole mix.
fn time_own(pairs: &[[View<'_>; 2]], draw: Draw) -> Result<[f64; 2]> {
    let settings = Settings::default();
    let still = Settings { transport: None, ..settings };
    let start = Instant::now();
    black_box(mix_all(black_box(pairs), SIZE, &still, draw, 1)?);
    let shares_ms = start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    for (mix, views) in mix_all(black_box(pairs), SIZE, &settings, draw, 1)?.iter().zip(pairs) {
        black_box(composed(mix, views));
    }
    Ok([shares_ms, start.elapsed().as_secs_f64() * 1e3])
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    let [file, mix] =
        ["batch", "mix"].map(|name| folder.path().join(name).with_extension("safetensors"));
    let batch = Batch::new();
    batch.write(&file)?;
    let pairs = batch.pairs();
    println!("PuzzleMix of {} images of {SIZE} x {SIZE}, one thread, equal mixes", PARTNERS.len());
    for draw in DRAWS {
        let own = || (0..OWN_REPEATS).map(|_| time_own(&pairs, draw)).collect::<Result<Vec<_>>>();
        let mut times_ms = own()?;
        let theirs = time_python(&file, draw, &mix)?;
        times_ms.extend(own()?);
        let found = mix_all(&pairs, SIZE, &Settings::default(), draw, 1)?;
        let found = found.iter().zip(&pairs).map(|(mix, views)| composed(mix, views));
        compare(&found.collect::<Vec<_>>(), draw.blocks, &mix)?;
        for (part, what) in ["shares", "mixes"].into_iter().enumerate() {
            let ours_ms = median(&mut times_ms.iter().map(|times| times[part]).collect::<Vec<_>>());
            let theirs_ms = [theirs.shares_ms, theirs.mix_ms][part];
            println!(
                "{:>2} blocks, {what}   scrimp {ours_ms:6.3} ms   gco-wrapper {theirs_ms:10.2} ms   {:8.1} x",
                draw.blocks,
                theirs_ms / ours_ms,
            );
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
