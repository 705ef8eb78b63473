//! What a run begins from: `--resume`, the folder of checkpoints, and how the configuration changed.

use crate::comm::{Communicator, agree};
use crate::config::changes;
use crate::config::plan::RunPlan;
use crate::error::{Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::train::checkpoint::{CheckpointStore, Loaded, load};
use std::path::{Path, PathBuf};

/// The checkpoint that a run continues from, equal on every rank, and what a person should know.
pub(super) struct Beginning {
    loaded: Option<Loaded>,
    /// Sentences for the run log.
    notes: Vec<String>,
}

impl Beginning {
    /// The newest checkpoint that verifies, an explicit one, or none; every rank must call it.
    pub(super) fn find(
        directory: &RunDirectory,
        resume: &str,
        comm: &dyn Communicator,
    ) -> Result<Self> {
        let store = CheckpointStore::new(directory.checkpoints());
        match resume {
            "never" => Ok(Self { loaded: None, notes: Vec::new() }),
            "auto" => {
                let (loaded, damaged) = store.newest_sound(comm)?;
                let passed_over =
                    |failure: Failure| format!("passed over a checkpoint: {}", failure.sentence());
                Ok(Self { loaded, notes: damaged.into_iter().map(passed_over).collect() })
            }
            path => {
                let loaded = load(&own_name(&store, path), comm).map_err(|failure| {
                    failure
                        .hint("`--resume` takes `auto`, `never` or the directory of a checkpoint")
                })?;
                Ok(Self { loaded: Some(loaded), notes: Vec::new() })
            }
        }
    }

    /// The step after which the run goes on.
    pub(super) fn step(&self) -> Option<u64> {
        self.loaded.as_ref().map(|loaded| loaded.checkpoint().manifest.run.step)
    }

    /// Refuses a checkpoint of another method; notes what else changed in the configuration.
    pub(super) fn compare(&mut self, plan: &RunPlan, resolved: &str) -> Result<()> {
        let Some(loaded) = &self.loaded else { return Ok(()) };
        let (path, manifest) = (loaded.checkpoint().path.display(), &loaded.checkpoint().manifest);
        if manifest.method != plan.method {
            return Err(Failure::usage(format!(
                "checkpoint `{path}` is of method `{}`, the configuration says `{}`",
                manifest.method, plan.method
            ))
            .hint(format!("set `method.name = \"{}\"` to continue", manifest.method))
            .hint("or begin another run with `--run DIR`"));
        }
        let changed = changes(&manifest.config, resolved)?;
        self.notes.extend(
            changed
                .iter()
                .map(|change| format!("the configuration is not that of `{path}`: {change}")),
        );
        Ok(())
    }

    /// Takes possession of the folder: what is unfinished is removed, and what is newer than the
    /// beginning is set aside. Tells everything there is to tell and gives the checkpoint away.
    pub(super) fn take(
        self,
        directory: &RunDirectory,
        comm: &dyn Communicator,
        tell: &mut dyn FnMut(String),
    ) -> Result<Option<Loaded>> {
        let store = CheckpointStore::new(directory.checkpoints());
        let loaded = self.loaded.as_ref().map(Loaded::checkpoint);
        let is_own = |path: &Path| path.parent() == Some(&directory.checkpoints());
        let kept_until = loaded.filter(|found| is_own(&found.path));
        let kept_until = kept_until.map(|found| found.manifest.run.step);
        let tidied = if comm.rank() == 0 {
            store.sweep().and_then(|removed| Ok((removed, store.set_aside_after(kept_until)?)))
        } else {
            Ok((Vec::new(), Vec::new()))
        };
        let (removed, set_aside) = agree(comm, tidied)?;
        let removed = removed.iter().map(|path| {
            format!("removed `{}`, which another process left unfinished", path.display())
        });
        let set_aside = set_aside.iter().map(|path| {
            format!("set `{}` aside: the run does not continue from it", path.display())
        });
        self.notes.into_iter().chain(removed).chain(set_aside).for_each(tell);
        Ok(self.loaded)
    }
}

/// The path as the store spells it, where it leads into the store.
fn own_name(store: &CheckpointStore, path: &str) -> PathBuf {
    let given = Path::new(path);
    let is_same = |own: &PathBuf| own.canonicalize().ok() == given.canonicalize().ok();
    store.paths().into_iter().find(is_same).unwrap_or_else(|| given.to_owned())
}
