//! Saving while training goes on: a copy, a thread that writes it, and ranks that agree on the end.
//!
//! A step waits for nothing but the copy of this rank's share. The writing thread never calls the
//! communicator: at later step boundaries the ranks ask each other whether all have written, gather
//! the digests, and rank 0 makes the shards a checkpoint, in a thread again.

use super::manifest::{LearnerTable, LearntFrom, Manifest, SCHEMA, shard_name};
use super::store::Stored;
use super::{CheckpointStore, FileDigest, Retention, RunState, buffer_name, flat_name, shard};
use crate::comm::Communicator;
use crate::error::{Context, Failure, Result};
use crate::runlog::directory::make_folder;
use crate::shares::local_share;
use crate::train::learner::Learner;
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tch::{Device, Tensor};

const GO_ON: &str = "the same command goes on from the newest checkpoint";

/// What all checkpoints of a run have in common.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// The method that is trained.
    pub method: String,
    /// The configuration with every default filled in, as TOML.
    pub config: String,
    /// Names of the classes by label value.
    pub classes: Vec<String>,
    /// What the weights learn from and have learnt from before, the latest last.
    pub learnt_from: Vec<LearntFrom>,
}

/// Saves the checkpoints of one run; every rank has one and calls it in step with the others.
pub struct Saver {
    store: CheckpointStore,
    header: Header,
    retention: Retention,
    communicator: Arc<dyn Communicator>,
    pending: Option<Pending>,
    /// The copies of the last save, whose memory the next one uses again.
    copies: Copies,
}

/// Named tensors in host memory that share nothing with the live ones.
type Copies = Vec<(String, Tensor)>;

/// A save under way.
struct Pending {
    started: Instant,
    manifest: Manifest,
    work: Work,
}

enum Work {
    /// This rank writes its shard.
    Shard(JoinHandle<(Copies, Result<FileDigest>)>),
    /// Rank 0 makes the shards a checkpoint, the others have nothing to do.
    Commit(Option<JoinHandle<Result<()>>>),
}

/// How far saving is.
#[derive(Debug)]
pub enum Progress {
    /// Nothing is being saved.
    Idle,
    /// Something is.
    Writing,
    /// A checkpoint has just been completed.
    Saved(Saved),
    /// A checkpoint could not be saved; older ones are as they were. Rank 0 has the whole story.
    Failed(Failure),
}

/// A checkpoint that is complete on disk.
#[derive(Debug)]
pub struct Saved {
    /// The step after which it was saved.
    pub step: u64,
    /// Its directory.
    pub path: PathBuf,
    /// Size of all shards together.
    pub bytes: u64,
    /// From the copy to the last flush, or to the step boundary where that was noticed.
    pub seconds: f64,
}

impl Pending {
    fn is_done(&self) -> bool {
        match &self.work {
            Work::Shard(thread) => thread.is_finished(),
            Work::Commit(thread) => thread.as_ref().is_none_or(JoinHandle::is_finished),
        }
    }
}

impl Saver {
    /// Saves into `store` what `communicator`'s ranks train.
    pub fn new(
        store: CheckpointStore,
        header: Header,
        retention: Retention,
        communicator: Arc<dyn Communicator>,
    ) -> Self {
        Self { store, header, retention, communicator, pending: None, copies: Copies::new() }
    }

    /// Copies what there is to save and starts writing it. Every rank calls it at the same step,
    /// with nothing else being saved.
    pub fn begin(&mut self, run: RunState, learners: &[&Learner]) -> Result<()> {
        let started = Instant::now();
        let (rank, ranks) = (self.communicator.rank(), self.communicator.ranks());
        let folder = self.store.unfinished_path(run.step);
        let copies = self.copy(learners)?;
        let manifest = Manifest {
            schema: SCHEMA,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            method: self.header.method.clone(),
            config: self.header.config.clone(),
            classes: self.header.classes.clone(),
            run,
            learnt_from: self.header.learnt_from.clone(),
            learners: learners.iter().map(|learner| LearnerTable::of(learner)).collect(),
            files: Vec::new(),
        };
        let name = shard_name(rank, ranks);
        let thread = spawn(move || {
            let written = write_shard(&folder, &name, &copies);
            (copies, written)
        })?;
        self.pending = Some(Pending { started, manifest, work: Work::Shard(thread) });
        Ok(())
    }

    /// This rank's share of every flat tensor, and on rank 0 all buffers.
    fn copy(&mut self, learners: &[&Learner]) -> Result<Copies> {
        let (rank, ranks) = (self.communicator.rank(), self.communicator.ranks());
        let mut live = Copies::new();
        for learner in learners {
            for flat in learner.flat_parts() {
                let (_, share) = flat.overlap(local_share(flat.total, ranks, rank));
                live.push((flat_name(learner.name(), flat.name), share));
            }
            let buffers = learner.buffers().filter(|_| rank == 0);
            live.extend(buffers.map(|entry| {
                (buffer_name(learner.name(), &entry.name), entry.tensor.shallow_clone())
            }));
        }
        let mut copies = std::mem::take(&mut self.copies);
        let alike = |(a, b): (&(String, Tensor), &(String, Tensor))| {
            a.0 == b.0 && a.1.size() == b.1.size() && a.1.kind() == b.1.kind()
        };
        if copies.len() != live.len() || !copies.iter().zip(&live).all(alike) {
            let room =
                |tensor: &Tensor| Tensor::f_empty(tensor.size(), (tensor.kind(), Device::Cpu));
            copies = live
                .iter()
                .map(|(name, tensor)| Ok((name.clone(), room(tensor)?)))
                .collect::<std::result::Result<_, tch::TchError>>()
                .context(|| "no memory for the copy of a checkpoint")?;
        }
        for ((name, copy), (_, tensor)) in copies.iter_mut().zip(&live) {
            copy.f_copy_(&tensor.detach()).context(|| format!("cannot copy `{name}`"))?;
        }
        Ok(copies)
    }

    /// At a step boundary of every rank: goes on with a save if all ranks are ready to.
    pub fn advance(&mut self) -> Result<Progress> {
        let Some(pending) = &self.pending else { return Ok(Progress::Idle) };
        if self.communicator.any(!pending.is_done())? {
            return Ok(Progress::Writing);
        }
        self.next_phase()
    }

    /// Waits for the save under way, if there is one, and says how it ended.
    pub fn finish(&mut self) -> Result<Progress> {
        let mut progress = Progress::Idle;
        while self.pending.is_some() {
            progress = self.next_phase()?;
        }
        Ok(progress)
    }

    fn next_phase(&mut self) -> Result<Progress> {
        let Some(Pending { started, mut manifest, work }) = self.pending.take() else {
            return Ok(Progress::Idle);
        };
        let is_root = self.communicator.rank() == 0;
        match work {
            Work::Shard(thread) => {
                let written = joined(thread).and_then(|(copies, written)| {
                    self.copies = copies;
                    written
                });
                match gather(&*self.communicator, written)? {
                    Ok(files) => manifest.files = files,
                    Err(failure) => return Ok(self.give_up(manifest.run.step, failure)),
                }
                let thread = if is_root { Some(self.commit(manifest.clone())?) } else { None };
                self.pending = Some(Pending { started, manifest, work: Work::Commit(thread) });
                Ok(Progress::Writing)
            }
            Work::Commit(thread) => {
                let committed = thread.map_or(Ok(()), |thread| joined(thread).flatten());
                if let Err(failure) = gather(&*self.communicator, committed)? {
                    return Ok(self.give_up(manifest.run.step, failure));
                }
                Ok(Progress::Saved(Saved {
                    step: manifest.run.step,
                    path: self.store.path(manifest.run.step),
                    bytes: manifest.bytes(),
                    seconds: started.elapsed().as_secs_f64(),
                }))
            }
        }
    }

    fn commit(&self, manifest: Manifest) -> Result<JoinHandle<Result<()>>> {
        let (store, retention) = (self.store.clone(), self.retention);
        spawn(move || {
            store.commit(&manifest)?;
            let best: Vec<u64> = manifest.run.best.iter().map(|best| best.step).collect();
            store.prune(retention, &best);
            Ok(())
        })
    }

    fn give_up(&self, step: u64, failure: Failure) -> Progress {
        let is_root = self.communicator.rank() == 0;
        if is_root {
            self.store.discard(step);
        }
        let task = format!("cannot save checkpoint `{}`", self.store.path(step).display());
        let failure = match failure.during(task) {
            failure if failure.hints().is_empty() => failure.hint(GO_ON),
            failure => failure,
        };
        Progress::Failed(if is_root { failure } else { failure.told_elsewhere() })
    }
}

impl Drop for Saver {
    /// A thread that outlived the run would write into a directory that others may have taken.
    fn drop(&mut self) {
        match self.pending.take().map(|pending| pending.work) {
            Some(Work::Shard(thread)) => drop(thread.join()),
            Some(Work::Commit(Some(thread))) => drop(thread.join()),
            _ => {}
        }
    }
}

fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name("checkpoint".to_owned())
        .spawn(body)
        .context(|| "cannot start a thread that writes the checkpoint")
}

fn joined<T>(thread: JoinHandle<T>) -> Result<T> {
    thread.join().map_err(|_panic| Failure::new("the thread that writes the checkpoint panicked"))
}

fn write_shard(folder: &Path, name: &str, copies: &Copies) -> Result<FileDigest> {
    // Not the run directory: one that was removed or renamed does not come back.
    folder
        .parent()
        .map_or(Ok(()), make_folder)
        .and_then(|()| make_folder(folder))
        .stored(|| format!("cannot make the directory `{}`", folder.display()))?;
    shard::write(&folder.join(name), copies)
}

/// The results of all ranks in rank order, or the failure of the first rank that failed; equal on
/// every rank. The outer failure is that of the communicator.
pub(super) fn gather<T: Serialize + DeserializeOwned>(
    communicator: &dyn Communicator,
    result: Result<T>,
) -> Result<Result<Vec<T>>> {
    let refused = || "ranks do not understand each other's messages";
    let result = result.map_err(|failure| (failure.sentence(), failure.hints().to_vec()));
    let message = serde_json::to_vec(&result).context(refused)?;
    let messages = communicator.gather(&message)?;
    let results: Vec<std::result::Result<T, (String, Vec<String>)>> = messages
        .iter()
        .map(|message| serde_json::from_slice(message).context(refused))
        .collect::<Result<_>>()?;
    let told = |(sentence, hints): (String, Vec<String>)| {
        hints.into_iter().fold(Failure::new(sentence), Failure::hint)
    };
    Ok(results.into_iter().collect::<std::result::Result<_, _>>().map_err(told))
}
