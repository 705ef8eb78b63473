//! `scrimp checkpoint`: lists checkpoints, and writes one for use elsewhere.

use crate::cli;
use crate::error::{Exit, Result};
use crate::runlog::directory::RunDirectory;
use crate::train::checkpoint::CheckpointStore;

/// Does what the arguments say.
pub(super) fn run(arguments: &cli::Checkpoint) -> Result<Exit> {
    match arguments {
        cli::Checkpoint::List { run } => {
            for found in CheckpointStore::new(RunDirectory::new(run).checkpoints()).list() {
                let (manifest, path) = (&found.manifest, found.path.display());
                let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
                let best = manifest.run.best.is_some_and(|best| best.step == manifest.run.step);
                let mark = if best { "  best" } else { "" };
                super::print(&format!("{path}  {:.1} MB{mark}\n", bytes as f64 / 1e6))?;
            }
        }
        cli::Checkpoint::Export { run, checkpoint, to } => {
            let found = super::evaluate::checkpoint(&RunDirectory::new(run), checkpoint)?;
            found.export(to)?;
            super::print(&format!(
                "wrote `{}` from step {}\n",
                to.display(),
                found.manifest.run.step
            ))?;
        }
    }
    Ok(Exit::Done)
}
