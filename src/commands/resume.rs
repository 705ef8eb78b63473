//! What a run begins from: `--resume`, the folder of checkpoints, and how the configuration changed.

use super::origin::{Continued, Source};
use crate::comm::{Communicator, agree};
use crate::config::changes;
use crate::config::plan::RunPlan;
use crate::error::{Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::train::checkpoint::{CheckpointStore, LearntFrom, Loaded, load};
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
                let own = agree(comm, own_name(&store, path))?;
                let loaded = load(&own, comm).map_err(|failure| {
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

    /// Whether the checkpoint lies in the run's own folder.
    fn is_own(&self, directory: &RunDirectory) -> bool {
        let path = self.loaded.as_ref().map(|loaded| &loaded.checkpoint().path);
        path.is_some_and(|path| path.parent() == Some(&directory.checkpoints()))
    }

    /// Refuses a checkpoint of another method, and the run's own where it learnt from other data; notes
    /// what else changed. Returns what the weights will have learnt from.
    pub(super) fn compare(
        &mut self,
        directory: &RunDirectory,
        (plan, resolved): (&RunPlan, &str),
        source: &Source,
    ) -> Result<Vec<LearntFrom>> {
        let is_own = self.is_own(directory);
        let Some(loaded) = &mut self.loaded else { return Ok(vec![source.of_run(plan)?]) };
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
        let continued = Continued::new(loaded.checkpoint(), (plan, source), is_own)?;
        self.notes.extend(
            changed
                .iter()
                .map(|change| format!("the configuration is not that of `{path}`: {change}")),
        );
        self.notes.extend(continued.notes);
        if !continued.is_same {
            loaded.forget_scores();
        }
        Ok(continued.learnt_from)
    }

    /// Takes possession of the folder: what is unfinished is removed, and what is newer than the
    /// beginning is set aside. Tells everything there is to tell and gives the checkpoint away.
    pub(super) fn take(
        self,
        directory: &RunDirectory,
        store: &CheckpointStore,
        comm: &dyn Communicator,
        tell: &mut dyn FnMut(String),
    ) -> Result<Option<Loaded>> {
        let kept_until = if self.is_own(directory) { self.step() } else { None };
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
fn own_name(store: &CheckpointStore, path: &str) -> Result<PathBuf> {
    let given = Path::new(path);
    let Ok(place) = given.canonicalize() else { return Ok(given.to_owned()) };
    let is_same = |own: &PathBuf| own.canonicalize().is_ok_and(|own| own == place);
    Ok(store.paths()?.into_iter().find(is_same).unwrap_or_else(|| given.to_owned()))
}
