//! The log of a run as files of other programs: tables, or what TensorBoard reads.
//!
//! Reads the run directory and writes elsewhere; a run that is under way can be exported as far as
//! it is.

mod crc;
mod csv;
mod tensorboard;
mod undone;

pub use csv::csv;
pub use tensorboard::tensorboard;

use crate::error::{Context, Result};
use crate::runlog::Record;
use crate::runlog::directory::RunDirectory;
use crate::runlog::io::Tail;
use crate::watch::harmless;
use std::path::PathBuf;

/// Gives every record to `take`, rank by rank, each rank's in the order in which it wrote them.
fn for_each_record(logs: &[PathBuf], mut take: impl FnMut(Record) -> Result<()>) -> Result<()> {
    for path in logs {
        let mut tail = Tail::new(path);
        loop {
            let records = tail.read()?;
            if records.is_empty() {
                break;
            }
            records.into_iter().try_for_each(&mut take)?;
        }
    }
    Ok(())
}

/// The logs of all ranks, in rank order.
fn logs(directory: &RunDirectory) -> Result<Vec<PathBuf>> {
    let events = directory.events();
    let doing = || format!("cannot list the run logs in `{}`", events.display());
    let mut paths = Vec::new();
    for entry in events.read_dir().context(doing)? {
        let path = entry.context(doing)?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    // A pipe or a folder that is named like a log would be waited for, or end the rest.
    let (logs, others): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().partition(|path| path.is_file());
    for path in others {
        tracing::warn!("`{}` is no file and is left out", harmless(&path.to_string_lossy()));
    }
    Ok(logs)
}
