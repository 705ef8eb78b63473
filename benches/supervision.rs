//! Times what supervision adds to a training step: the flight recorder's notes and the vote on
//! whether to stop.
//!
//! `cargo bench --bench supervision`. Starts itself with `mpirun` on two ranks for the vote; on
//! fewer than two idle cores it times the other processes as well.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use scrimp::comm::{Communicator, Ranks, Solo, connect};
use scrimp::error::{Context, Failure, Result};
use scrimp::launchers::Variables;
use scrimp::native::GroupSum;
use scrimp::train::recorder::{FlightRecorder, Recorded};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Tells a process that it is a rank.
const RANK_MARK: &str = "SCRIMP_BENCH_RANK";
/// Collective calls of one step of the U-Net: batch normalisation forward and backward, the
/// gradient, the vote.
const CALLS_OF_A_STEP: usize = 42;
const TIMED_STEPS: usize = 2000;

/// Mean time of `steps` rounds of `round`, in microseconds.
fn mean_us(steps: usize, mut round: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..steps).for_each(|_| round());
    start.elapsed().as_secs_f64() * 1e6 / steps as f64
}

/// What the recorder adds to the calls of one step, measured on calls that do nothing.
fn notes_us() -> f64 {
    let tensor = Tensor::zeros([264], (Kind::Float, Device::Cpu));
    let recorded = Recorded::new(Ranks::alone(), Arc::new(FlightRecorder::new()));
    let calls = |comm: &dyn GroupSum| (0..CALLS_OF_A_STEP).for_each(|_| comm.sum(&tensor));
    let with_notes = mean_us(TIMED_STEPS, || calls(&recorded));
    with_notes - mean_us(TIMED_STEPS, || calls(&Solo))
}

/// Median time of a vote of ranks that come to it together, in microseconds.
fn vote_us(comm: &dyn Communicator) -> Result<f64> {
    let mut times = Vec::with_capacity(TIMED_STEPS);
    for _ in 0..TIMED_STEPS {
        comm.barrier()?;
        let start = Instant::now();
        comm.max(0)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn rank() -> Result<()> {
    let variables: Variables = std::env::vars().collect();
    let comm = connect(&variables)?;
    let vote = vote_us(&*comm)?;
    if comm.rank() == 0 {
        println!("a vote of {} ranks: {vote:.1} us", comm.ranks());
    }
    Ok(())
}

fn run() -> Result<()> {
    if std::env::var_os(RANK_MARK).is_some() {
        return rank();
    }
    println!("notes of {CALLS_OF_A_STEP} calls: {:.1} us", notes_us());
    let program = std::env::current_exe().context(|| "cannot find this program's own file")?;
    let status = support::mpirun("2")
        .arg(program)
        .env(RANK_MARK, "1")
        .status()
        .context(|| "cannot start `mpirun`")?;
    if status.success() { Ok(()) } else { Err(Failure::new("`mpirun` failed")) }
}

fn main() -> ExitCode {
    support::end(run())
}
