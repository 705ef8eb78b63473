//! `kill -9` at many moments, most of them inside a save: the run ends as if nothing had happened.
//!
//! The moments come from a seeded list that is printed. `SCRIMP_KILLS=50` takes so many for each
//! method instead of a few in all, `SCRIMP_KILLS=7..8` a single one. Moments inside a save are exact: a library that is loaded into
//! the process (`freeze.c`) stops it in front of a chosen act on the files of a checkpoint, or in
//! the middle of a write, and there it is killed.

use crate::running::Train;
use scrimp::methods::METHODS;
use scrimp::random::{Draws, Key};
use scrimp::runlog::RunEvent;
use scrimp::train::checkpoint::{FileDigest, read_manifest};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const SEED: u64 = 7;
const RANKS: usize = 2;
const STEPS: u64 = 6;
/// Kills in all where `SCRIMP_KILLS` is not set, but at least one for each method.
const FEW: usize = 5;

/// When to kill.
enum Moment {
    /// At this act of a rank on the files of checkpoints, counted from 1.
    Saving { rank: usize, act: u64 },
    /// So long after the log said that a step is done.
    Training { step: u64, delay: Duration },
}

/// Whom to kill.
enum Victim {
    Rank(usize),
    All,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saving { rank, act } => write!(f, "at act {act} of rank {rank} in a save"),
            Self::Training { step, delay } => write!(f, "{delay:?} after step {step}"),
        }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rank(rank) => write!(f, "rank {rank}"),
            Self::All => write!(f, "all"),
        }
    }
}

/// Builds the library that stops a process.
fn freezer(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/freeze.c");
    let library = folder.join("freeze.so");
    let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
    let output = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
    let output = output.args(["-ldl", "-pthread"]).output().expect("a C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// Saves, evaluates, keeps the best and gives up old checkpoints within a few steps.
fn small(method: &str, run: &Path) -> Train {
    Train::new(&format!("configs/smoke/{method}.toml"), run).sets(&[
        &format!("train.total_steps={STEPS}"),
        "train.save_every=2",
        "train.evaluate_every=3",
        "train.keep_checkpoints=1",
    ])
}

fn frozen(train: Train, library: &Path, (rank, act): (usize, u64), report: &Path) -> Train {
    let place = format!("{rank}:{act}:{}", report.display());
    train.variable("LD_PRELOAD", library.to_str().unwrap()).variable("SCRIMP_FREEZE", &place)
}

/// Digests of everything that the last checkpoint holds: weights, moments, buffers.
fn last_state(run: &Path) -> (Vec<FileDigest>, Vec<u64>) {
    let last = run.join(format!("checkpoints/step-{STEPS:08}"));
    let manifest = read_manifest(&last).unwrap().manifest;
    (manifest.files, manifest.learners.iter().map(|learner| learner.updates).collect())
}

/// One method, its run that nobody killed, and how often each rank touched the files of checkpoints.
struct Subject {
    method: &'static str,
    state: (Vec<FileDigest>, Vec<u64>),
    acts: Vec<u64>,
}

impl Subject {
    fn new(method: &'static str, library: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let mut acts = Vec::new();
        let mut state = None;
        for rank in 0..RANKS {
            let run = folder.path().join(format!("counting-{rank}"));
            let report = folder.path().join(format!("acts-{rank}"));
            frozen(small(method, &run), library, (rank, 0), &report).under_mpirun(RANKS).succeed();
            acts.push(fs::read_to_string(&report).unwrap().trim().parse().unwrap());
            let found = last_state(&run);
            assert!(state.is_none_or(|state| state == found), "{method} is not deterministic");
            state = Some(found);
        }
        Self { method, state: state.unwrap(), acts }
    }

    /// Two of three moments lie in a save.
    fn moment(&self, number: usize, draws: &mut Draws) -> Moment {
        if number % 3 == 2 {
            let delay = Duration::from_micros(draws.below(5_000));
            return Moment::Training { step: 1 + draws.below(STEPS - 2), delay };
        }
        let rank = draws.below(RANKS as u64) as usize;
        Moment::Saving { rank, act: 1 + draws.below(self.acts[rank]) }
    }

    /// Kills a run, lets it go on, and compares its end.
    fn survive(&self, moment: &Moment, victim: &Victim, library: &Path) {
        let folder = TempDir::new().unwrap();
        let [run, report] = ["run", "report"].map(|name| folder.path().join(name));
        let mut running = match moment {
            Moment::Saving { rank, act } => {
                frozen(small(self.method, &run), library, (*rank, *act), &report)
            }
            Moment::Training { .. } => small(self.method, &run),
        }
        .under_mpirun(RANKS)
        .start();
        match moment {
            Moment::Saving { .. } => running.wait_for_file(&report),
            Moment::Training { step, delay } => {
                running.wait_for(|event| matches!(event, RunEvent::Step(s) if s.step >= *step));
                std::thread::sleep(*delay);
            }
        }
        let killed = match victim {
            Victim::All => running.kill(),
            Victim::Rank(rank) => running.kill_rank(*rank),
        };
        assert!(killed.code != Some(0), "it ended before it could be killed: {}", killed.stderr);
        let resumed = Train::again(&run).under_mpirun(RANKS).succeed();
        assert!(last_state(&run) == self.state, "another end: {}", resumed.stderr);
        let left: Vec<_> = run.join("checkpoints").read_dir().unwrap().flatten().collect();
        assert!(left.iter().all(|entry| entry.path().extension().is_none()), "{left:?}");
    }
}

/// Which moments of each method's list to try, from `SCRIMP_KILLS`: a number, or `FIRST..END`.
fn wanted() -> Range<usize> {
    let Ok(asked) = std::env::var("SCRIMP_KILLS") else { return 0..FEW.div_ceil(METHODS.len()) };
    let (first, end) = asked.split_once("..").unwrap_or(("0", &asked));
    first.parse().unwrap()..end.parse().unwrap()
}

#[test]
fn a_run_that_is_killed_at_any_moment_ends_bit_for_bit_as_one_that_was_not() {
    let folder = TempDir::new().unwrap();
    let library = freezer(folder.path());
    let wanted = wanted();
    println!("seed {SEED}, kills {wanted:?} of each method's list");
    for definition in METHODS {
        let mut draws = Key::new(SEED).purpose(definition.name).draws();
        let subject = Subject::new(definition.name, &library);
        println!("{}: {:?} acts by rank in the whole run", definition.name, subject.acts);
        for number in 0..wanted.end {
            let moment = subject.moment(number, &mut draws);
            let victim = match (draws.below(2), &moment) {
                (0, _) => Victim::All,
                (_, Moment::Saving { rank, .. }) => Victim::Rank(*rank),
                _ => Victim::Rank(draws.below(RANKS as u64) as usize),
            };
            if wanted.contains(&number) {
                println!("{} {number}: {moment}, kills {victim}", definition.name);
                subject.survive(&moment, &victim, &library);
            }
        }
    }
}
