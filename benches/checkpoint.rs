//! Times saving and restoring a checkpoint here, with `torch.save`, and with
//! `torch.distributed.checkpoint`, in turns.
//!
//! `cargo bench --bench checkpoint`, with `-- unet` or `-- large` for one of the models. Weights and momentum of the U-Net (1.8 M values each) and of a
//! model of 100 M values, saved by 1, 2 and 4 ranks under `mpirun`. Every side has as many writers
//! as ranks, writes to `SCRIMP_BENCH_DIR` (default: the build directory), and flushes its files to
//! the disk. What is timed: how long training stands still for a save, how long until the save is on
//! the disk, and how long restoring takes. The other side is `benches/pytorch/checkpoint.py`, run by
//! `SCRIMP_BENCH_PYTHON` (default `python3`).
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark reports to its terminal"
)]

mod support;

use scrimp::comm::{self, Communicator};
use scrimp::error::{Context, Failure, Result};
use scrimp::nets::unet::UNet;
use scrimp::parameters::Scope;
use scrimp::random::Key;
use scrimp::train::checkpoint::{
    CheckpointStore, Header, Progress, Retention, RunState, Saver, load,
};
use scrimp::train::learner::{Learner, LearnerConfig, LearnerSetup, Moments};
use scrimp::train::optimizer::{OptimizerConfig, SgdConfig};
use scrimp::train::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use support::median;
use tch::{Device, Kind};

/// How often all contestants take turns.
const TURNS: usize = 2;
const RANKS: [usize; 3] = [1, 2, 4];
const MODELS: [Model; 2] = [
    Model { name: "unet", values: "1.8 M", saves: 5 },
    Model { name: "large", values: "100 M", saves: 3 },
];
const CONTESTANTS: [&str; 4] =
    ["scrimp", "torch.save", "distributed.checkpoint", "distributed.checkpoint, async"];
/// Square matrices of this size make up the large model.
const SIDE: i64 = 1024;
const MATRICES: usize = 96;

struct Model {
    name: &'static str,
    values: &'static str,
    saves: usize,
}

/// Seconds of single saves and restores, of the slowest rank.
#[derive(Default, Serialize, Deserialize)]
struct Times {
    stall: Vec<f64>,
    durable: Vec<f64>,
    restore: Vec<f64>,
}

fn learner(model: &str) -> Result<Learner> {
    tch::set_num_threads(1);
    let config = LearnerConfig {
        lr: 0.03,
        schedule: Schedule::Poly,
        clip_norm: 0.0,
        optimizer: OptimizerConfig::Sgd(SgdConfig::default()),
    };
    let setup = LearnerSetup {
        key: Key::new(1),
        kind: Kind::Float,
        computed: Kind::Float,
        device: Device::Cpu,
        moments: Moments::Whole,
    };
    let build = |scope: &mut Scope<'_>| match model {
        "unet" => drop(UNet::new(scope, 1, 4)),
        _ => (0..MATRICES).for_each(|number| {
            let _ = scope.sub(&format!("layer{number}")).constant("weight", &[SIDE, SIDE], 0.5);
        }),
    };
    Ok(Learner::new("model", config, setup, build)?.0)
}

/// The time of the slowest rank, in seconds.
fn slowest(start: Instant, comm: &dyn Communicator) -> Result<f64> {
    Ok(comm.max(start.elapsed().as_nanos() as i64)? as f64 / 1e9)
}

/// One rank of ours, under `mpirun`; rank 0 prints the times.
fn work(model: &str, saves: usize, folder: &Path) -> Result<()> {
    let host = comm::connect(&std::env::vars().collect())?;
    let comm = comm::with_device(&host, Device::Cpu)?;
    let learner = learner(model)?;
    let mut times = Times::default();
    let store = CheckpointStore::new(folder);
    let header = Header { method: "none".to_owned(), ..Header::default() };
    let retention = Retention { last: usize::MAX, every: 0 };
    let mut saver = Saver::new(store.clone(), header, retention, Arc::clone(comm.control()));
    // One more than is timed: the first takes memory.
    for step in 0..=saves as u64 {
        comm.barrier()?;
        let start = Instant::now();
        saver.begin(RunState { step, ..RunState::default() }, &[&learner])?;
        let stall = slowest(start, &*comm)?;
        let Progress::Saved(saved) = saver.finish()? else {
            return Err(Failure::new("a checkpoint could not be saved"));
        };
        let durable = slowest(start, &*comm)?;
        let start = Instant::now();
        load(&saved.path, &*comm)?.restore(vec![&learner], &comm)?;
        let restore = slowest(start, &*comm)?;
        if step > 0 {
            times.stall.push(stall);
            times.durable.push(durable);
            times.restore.push(restore);
        }
        if comm.rank() == 0 {
            store.remove(&saved.path);
        }
    }
    if comm.rank() == 0 {
        println!("{}", serde_json::to_string(&times).context(|| "cannot write times")?);
    }
    Ok(())
}

/// Runs one contestant and returns its times.
fn measure(contestant: &str, model: &Model, ranks: usize, folder: &Path) -> Result<Times> {
    let mut command = support::mpirun(&ranks.to_string());
    if contestant == "scrimp" {
        command.arg(std::env::current_exe().context(|| "this program has no path")?).arg("worker");
    } else {
        command.args([support::interpreter(), support::script("checkpoint.py")]).arg(contestant);
    }
    command.args([model.name, &model.saves.to_string()]).arg(folder);
    support::answer(&mut command, "torch")
}

fn compare(model: &Model, ranks: usize, folder: &Path) -> Result<()> {
    let mut measured = CONTESTANTS.map(|_| Times::default());
    for turn in 1..=TURNS {
        for (contestant, times) in CONTESTANTS.iter().zip(&mut measured) {
            eprintln!("{} on {ranks} ranks, turn {turn} of {TURNS}: {contestant}", model.name);
            let new = measure(contestant, model, ranks, folder)?;
            times.stall.extend(new.stall);
            times.durable.extend(new.durable);
            times.restore.extend(new.restore);
        }
    }
    let medians =
        measured.map(|mut t| [&mut t.stall, &mut t.durable, &mut t.restore].map(|all| median(all)));
    for (name, times) in CONTESTANTS.iter().zip(medians) {
        print!("{:<6} {ranks:>5}  {name:<30}", model.values);
        for (theirs, ours) in times.iter().zip(medians[0]) {
            print!(" {:>9.1} {:>6.2}", theirs * 1e3, ours / theirs);
        }
        println!();
    }
    Ok(())
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    if let [_, worker, model, saves, folder] = words.as_slice()
        && worker == "worker"
    {
        let saves = saves.parse().context(|| format!("`{saves}` is no number"))?;
        return work(model, saves, Path::new(folder));
    }
    let parent = std::env::var_os("SCRIMP_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder =
        tempfile::tempdir_in(&parent).context(|| format!("cannot use `{}`", parent.display()))?;
    println!("medians in milliseconds; a ratio is that of scrimp to the row");
    println!(
        "{:<6} {:>5}  {:<30} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6}",
        "values", "ranks", "", "stall", "ratio", "on disk", "ratio", "restore", "ratio"
    );
    // cargo adds `--bench`.
    let wanted = words.iter().skip(1).find(|word| !word.starts_with("--"));
    for model in MODELS.iter().filter(|model| wanted.is_none_or(|name| name == model.name)) {
        for ranks in RANKS {
            compare(model, ranks, folder.path())?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
