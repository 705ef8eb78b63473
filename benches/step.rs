//! Times training steps of `scrimp train` and of PyTorch under `DistributedDataParallel`, in turns.
//!
//! `cargo bench --bench step`, with `-- METHOD` for another method than `partial-ce`: `ustm`, `dmpls` or
//! `maskmixadv`, which are timed against our own `partial-ce` too. Two ranks of one thread each train on batches of 12 images
//! of 256 x 256 on the CPU, both sides started by the same `mpirun`. Our steps are those of the
//! program, with reading, augmentation and logging; those of `benches/pytorch/step.py`, run by
//! `SCRIMP_BENCH_PYTHON` (default `python3`), find their batches in memory.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark reports to its terminal"
)]

mod support;

use scrimp::error::{Context, Result};
use scrimp::runlog::{Record, RunEvent};
use serde::Deserialize;
use std::path::Path;
use std::process::ExitCode;
use support::median;

const RANKS: &str = "2";
/// How often all contestants take turns.
const TURNS: usize = 3;
/// Steps in front of the timed ones, in which memory is taken and kernels are chosen.
const WARMUP_STEPS: usize = 2;
const TIMED_STEPS: usize = 5;
const LOCAL: &[&str] = &["net.batch_norm=local"];
/// Who is timed, by what stands behind the program's name.
const CONTESTANTS: [Contestant; 7] = [
    Contestant { name: "scrimp, partial-ce", side: Side::Baseline },
    Contestant { name: "scrimp, local batch norm", side: Side::Scrimp(LOCAL) },
    Contestant {
        name: "scrimp, global batch norm",
        side: Side::Scrimp(&["net.batch_norm=global"]),
    },
    Contestant {
        name: "scrimp, local, bf16",
        side: Side::Scrimp(&["net.batch_norm=local", "train.precision=bf16"]),
    },
    Contestant { name: "PyTorch", side: Side::PyTorch(&[]) },
    Contestant { name: "PyTorch, channels last", side: Side::PyTorch(&["--channels-last"]) },
    Contestant {
        name: "PyTorch, channels last, bf16",
        side: Side::PyTorch(&["--channels-last", "--bf16"]),
    },
];

struct Contestant {
    name: &'static str,
    side: Side,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// Our partial cross-entropy, to see how much more other methods cost.
    Baseline,
    /// With these settings.
    Scrimp(&'static [&'static str]),
    /// With these options of `step.py`.
    PyTorch(&'static [&'static str]),
}

/// Times of single steps, of one rank.
#[derive(Default, Deserialize)]
struct Times {
    step_ms: Vec<f64>,
}

/// Trains once; step times by the run log.
fn train(method: &str, settings: &[&str], steps: usize, run: &Path) -> Result<Vec<f64>> {
    // The other one has masks for methods that learn from them.
    let plays = method == "maskmixadv";
    let config = if plays { "phantom-maskmixadv" } else { "phantom-partial-ce" };
    let config = format!("{}/configs/{config}.toml", env!("CARGO_MANIFEST_DIR"));
    let mut command = support::mpirun(RANKS);
    command.arg(env!("CARGO_BIN_EXE_scrimp")).args(["train", &config, "--run"]).arg(run);
    for setting in [
        "data.size=256",
        "data.phantom.size=256",
        "data.phantom.cases=10",
        "data.phantom.slices=4",
        "train.batch_size=12",
        "train.device=cpu",
        "train.threads=1",
        "train.log_every=1",
        "train.evaluate_every=1000",
        &format!("train.total_steps={steps}"),
        &format!("method.name={method}"),
    ]
    .iter()
    .chain(settings)
    {
        command.args(["--set", setting]);
    }
    if plays {
        command.args(["--set", "method.params.shape.warm_up=0.0"]);
    }
    support::printed(&mut command, "torch")?;
    let log = run.join("events").join("rank-0000.jsonl");
    let log =
        std::fs::read_to_string(&log).context(|| format!("cannot read `{}`", log.display()))?;
    let step_ms = log.lines().filter_map(|line| match serde_json::from_str(line) {
        Ok(Record { event: RunEvent::Step(step), .. }) => Some(step.step_ms),
        _ => None,
    });
    Ok(step_ms.collect())
}

fn time_ours(method: &str, settings: &[&str]) -> Result<Times> {
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder")?;
    let steps = WARMUP_STEPS + TIMED_STEPS;
    let step_ms = train(method, settings, steps, &folder.path().join("run"))?;
    Ok(Times { step_ms: step_ms.into_iter().skip(WARMUP_STEPS).collect() })
}

fn time_theirs(method: &str, options: &[&str]) -> Result<Times> {
    let mut command = support::mpirun(RANKS);
    command
        .args([support::interpreter(), support::script("step.py")])
        .args(["--method", method])
        .args(["--warmup", &WARMUP_STEPS.to_string(), "--steps", &TIMED_STEPS.to_string()])
        .args(options);
    support::answer(&mut command, "torch")
}

/// Whether a contestant has this method; the baseline is not compared with itself.
fn takes_part(side: Side, method: &str) -> bool {
    match side {
        Side::Baseline => method != "partial-ce",
        Side::Scrimp(_) | Side::PyTorch(_) => true,
    }
}

fn run() -> Result<()> {
    // cargo adds `--bench`.
    let method = std::env::args().skip(1).find(|word| !word.starts_with("--"));
    let method = method.unwrap_or_else(|| "partial-ce".to_owned());
    let contestants = CONTESTANTS.iter().filter(|c| takes_part(c.side, &method));
    let mut measured: Vec<_> = contestants.map(|c| (c, Times::default())).collect();
    for turn in 1..=TURNS {
        for (contestant, times) in &mut measured {
            eprintln!("turn {turn} of {TURNS}: {}", contestant.name);
            let new = match contestant.side {
                Side::Baseline => time_ours("partial-ce", LOCAL),
                Side::Scrimp(settings) => time_ours(&method, settings),
                Side::PyTorch(options) => time_theirs(&method, options),
            }?;
            times.step_ms.extend(new.step_ms);
        }
    }
    println!(
        "{method}: medians of a step; the ratio is that of scrimp with local batch norm to it"
    );
    println!("{:<30} {:>10} {:>7}", "", "ms", "ratio");
    let medians: Vec<_> =
        measured.into_iter().map(|(c, mut times)| (c, median(&mut times.step_ms))).collect();
    let ours = medians.iter().find(|(c, _)| matches!(c.side, Side::Scrimp(_)));
    let ours = ours.map_or(f64::NAN, |(_, ms)| *ms);
    for (contestant, ms) in medians {
        println!("{:<30} {ms:>10.0} {:>7.2}", contestant.name, ours / ms);
    }
    Ok(())
}

fn main() -> ExitCode {
    support::end(run())
}
