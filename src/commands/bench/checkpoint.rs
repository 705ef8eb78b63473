//! `scrimp bench checkpoint`: saving and restoring beside what the disk takes and gives.

use super::{Bench, Told, median, milliseconds as ms, slowest};
use crate::comm::{Communicator, agree};
use crate::commands::run;
use crate::error::{Context, Failure, Result};
use crate::signals::{self, Signal};
use crate::train::Method;
use crate::train::checkpoint::{
    CheckpointStore, Header, Progress, Retention, RunState, Saver, load,
};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A folder of its own, which is gone when the benchmark is over.
struct Folder<'a> {
    path: PathBuf,
    ranks: &'a dyn Communicator,
}

impl<'a> Folder<'a> {
    /// Makes it in `parent`. Refuses what somebody else has made.
    fn new(parent: &Path, ranks: &'a dyn Communicator) -> Result<Self> {
        let path = parent.join("bench-checkpoint");
        let made = if ranks.rank() == 0 { std::fs::create_dir(&path) } else { Ok(()) };
        let made = made.context(|| format!("cannot make the folder `{}`", path.display()));
        let made = made.map_err(|failure| failure.hint("name another one with `--to DIR`"));
        let is_heard = made.and_then(|()| remove_on_signals(path.clone(), ranks.rank()));
        agree(ranks, is_heard)?;
        Ok(Self { path, ranks })
    }
}

/// From now on the first rank removes the folder when it is asked to end: what it holds is large.
fn remove_on_signals(path: PathBuf, rank: usize) -> Result<()> {
    if rank > 0 {
        return Ok(());
    }
    let signals = [Signal::Terminate, Signal::Interrupt, Signal::HangUp];
    signals::listen(&signals, move |received| {
        // A second time for what was written meanwhile.
        for _ in 0..2 {
            let _ = std::fs::remove_dir_all(&path);
        }
        received.signal.end_process();
    })
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        if self.ranks.rank() == 0 {
            // What cannot be removed is small and has a name that tells where it comes from.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// What saves took, one number for each.
#[derive(Default)]
struct Times {
    stall: Vec<Duration>,
    on_disk: Vec<Duration>,
    restored: Vec<Duration>,
    bytes: u64,
}

/// Saves and restores the method of `bench` in a new folder of `parent`.
pub(super) fn saves(bench: &Bench, parent: &Path) -> Result<Told> {
    let comm = &*bench.ranks;
    let folder = Folder::new(parent, comm)?;
    let method = run::method(&bench.plan, &bench.dataset, bench.place.device, &bench.ranks);
    let mut method = agree(comm, method)?;
    let mut times = timed(bench, &mut *method, &folder.path)?;
    let own = times.bytes.div_ceil(comm.ranks() as u64) as usize;
    let plain = plain_files(comm, &folder.path, (own, bench.timed as usize))?;
    let rate = |time: Duration| times.bytes as f64 / time.as_secs_f64() / 1e9;
    let [stall, on_disk, restored] =
        [&mut times.stall, &mut times.on_disk, &mut times.restored].map(|times| median(times));
    let facts = serde_json::json!({
        "method": bench.plan.method,
        "ranks": comm.ranks(),
        "folder": parent,
        "bytes": times.bytes,
        "stall_ms": ms(stall),
        "on_disk_ms": ms(on_disk),
        "on_disk_bytes_per_second": 1e9 * rate(on_disk),
        "restored_ms": ms(restored),
        "plain_files_ms": ms(plain),
        "plain_files_bytes_per_second": 1e9 * rate(plain),
        "timed_saves": bench.timed,
    });
    let text = format!(
        "a checkpoint of `{}`, {:.1} MB from {} ranks to `{}`: training waits {:.1} ms, on disk after \
         {:.1} ms ({:.2} GB/s), restored in {:.1} ms; medians of {} saves\n\
         as many bytes in plain files, one a rank, written and flushed: {:.1} ms ({:.2} GB/s)\n",
        bench.plan.method,
        times.bytes as f64 / 1e6,
        comm.ranks(),
        parent.display(),
        ms(stall),
        ms(on_disk),
        rate(on_disk),
        ms(restored),
        bench.timed,
        ms(plain),
        rate(plain)
    );
    Ok(Told { text, facts })
}

/// Saves and restores over and over; times are those of this rank, which ends with all others.
fn timed(bench: &Bench, method: &mut dyn Method, folder: &Path) -> Result<Times> {
    let comm = &*bench.ranks;
    let header = Header {
        method: bench.plan.method.clone(),
        config: bench.plan.to_toml()?,
        ..Header::default()
    };
    let retention = Retention { last: 1, every: 0 };
    let store = CheckpointStore::new(folder);
    let mut saver = Saver::new(store, header, retention, Arc::clone(bench.ranks.control()));
    let mut times = Times::default();
    for step in 1..=bench.timed {
        comm.barrier()?;
        let start = Instant::now();
        let run = RunState { step, ..RunState::default() };
        agree(comm, saver.begin(run, &method.learners()))?;
        times.stall.push(start.elapsed());
        let saved = match saver.finish()? {
            Progress::Saved(saved) => Ok(saved),
            Progress::Failed(failure) => Err(failure),
            Progress::Idle | Progress::Writing => Err(Failure::new("a save did not end")),
        };
        let saved = agree(comm, saved)?;
        times.on_disk.push(start.elapsed());
        times.bytes = saved.bytes;
        let start = Instant::now();
        load(&saved.path, comm)?.restore(method.learners(), &bench.ranks)?;
        comm.barrier()?;
        times.restored.push(start.elapsed());
    }
    Ok(times)
}

/// The time for `bytes` of each rank in a file of its own, on disk when it is over.
fn plain_files(
    comm: &dyn Communicator,
    folder: &Path,
    (bytes, repeats): (usize, usize),
) -> Result<Duration> {
    // Not zeros, which some file systems leave out.
    let content: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
    let path = folder.join(format!("plain-{:04}", comm.rank()));
    slowest(comm, repeats, || {
        File::create(&path)
            .and_then(|mut file| file.write_all(&content).and_then(|()| file.sync_all()))
            .context(|| format!("cannot write `{}`", path.display()))
    })
}
