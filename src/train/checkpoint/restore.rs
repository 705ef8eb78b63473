//! From a directory to the learners of any number of ranks, each file read by one rank alone.
//!
//! A rank verifies its part of the files before any tensor is touched, then reads them to where they
//! belong and broadcasts them. So all ranks hold the same values, and no checkpoint is ever in memory
//! twice.

use super::manifest::{Checkpoint, LearnerTable, parse, refuse_other_layout, text};
use super::saver::gather;
use super::shard::Shard;
use super::{CheckpointStore, buffer_name, flat_name};
use crate::comm::{Communicator, Ranks, agree};
use crate::error::{Failure, Result};
use crate::native::with_bytes;
use crate::shares::local_share;
use crate::train::Method;
use crate::train::learner::{FlatPart, Learner};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};
use xxhash_rust::xxh3::Xxh3;

/// A checkpoint that verified, its shards divided among the ranks.
#[derive(Debug)]
pub struct Loaded {
    checkpoint: Checkpoint,
    /// This rank's part of the shards, by their number.
    shards: Vec<(usize, Shard)>,
}

/// Verifies the checkpoint in directory `path`; every rank must call it.
pub fn load(path: &Path, communicator: &dyn Communicator) -> Result<Loaded> {
    told_once(attempt(path, communicator)?, communicator)
}

/// A failure that is equal on every rank, for rank 0 to tell.
fn told_once<T>(result: Result<T>, communicator: &dyn Communicator) -> Result<T> {
    let is_root = communicator.rank() == 0;
    result.map_err(|failure| if is_root { failure } else { failure.told_elsewhere() })
}

/// How often a checkpoint is chosen while another process removes what was chosen.
const ATTEMPTS: u32 = 5;

/// Restores a method from the checkpoint whose directory `choose` names on rank 0, and from another one
/// where that was removed meanwhile; every rank must call it.
pub fn restore_chosen(
    choose: &dyn Fn() -> Result<PathBuf>,
    method: &dyn Method,
    ranks: &Ranks,
) -> Result<Checkpoint> {
    let communicator = &**ranks;
    let is_root = communicator.rank() == 0;
    let mut attempt = 1;
    loop {
        let path = told_once(from_root(communicator, choose)?, communicator)?;
        let restored = load(&path, communicator).and_then(|loaded| {
            let found = loaded.checkpoint.clone();
            loaded.restore(method.learners(), ranks)?;
            Ok(found)
        });
        let is_gone = is_root && restored.is_err() && has_vanished(&path);
        if attempt == ATTEMPTS || !communicator.any(is_gone)? {
            return restored;
        }
        attempt += 1;
    }
}

/// Restores what predicts of a method: weights and running statistics of its first learner. What only training
/// needs stays as it was built, and the checkpoint need not fit it. Every rank must call it.
pub fn restore_predicting(path: &Path, method: &dyn Method, ranks: &Ranks) -> Result<Checkpoint> {
    let loaded = load(path, &**ranks)?;
    let learners: Vec<&Learner> = method.learners().into_iter().take(1).collect();
    let fitting = learners.iter().try_for_each(|learner| loaded.refuse_other_networks(learner));
    agree(&**ranks, fitting)?;
    loaded.read(&learners, Wanted::Networks, ranks)?;
    Ok(loaded.checkpoint)
}

/// What is read of a learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Networks, moments and the number of updates.
    All,
    /// Weights and buffers alone.
    Networks,
}

impl Wanted {
    /// The flat tensors that are read.
    fn of(self, learner: &Learner) -> Vec<FlatPart> {
        let mut parts = learner.flat_parts();
        if self == Self::Networks {
            // Moments stand behind the weights.
            parts.truncate(1);
        }
        parts
    }
}

/// Whether nothing is left of the directory of a checkpoint.
pub fn has_vanished(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

impl CheckpointStore {
    /// The newest checkpoint that verifies, and what is wrong with each newer one; equal on every
    /// rank, all of which must call it.
    pub fn newest_sound(
        &self,
        communicator: &dyn Communicator,
    ) -> Result<(Option<Loaded>, Vec<Failure>)> {
        // Other clients of a network file system may see the folder as it was.
        let paths = from_root(communicator, || self.paths())?;
        let mut paths: Vec<PathBuf> = told_once(paths, communicator)?;
        let mut damaged = Vec::new();
        while let Some(path) = paths.pop() {
            match attempt(&path, communicator)? {
                Ok(found) => return Ok((Some(found), damaged)),
                Err(failure) => damaged.push(failure),
            }
        }
        Ok((None, damaged))
    }
}

/// What rank 0 makes, on every rank.
fn from_root<T: serde::Serialize + serde::de::DeserializeOwned>(
    communicator: &dyn Communicator,
    make: impl FnOnce() -> Result<T>,
) -> Result<Result<T>> {
    let made = if communicator.rank() == 0 { make().map(Some) } else { Ok(None) };
    Ok(gather(communicator, made)?.and_then(|all| {
        all.into_iter().flatten().next().ok_or_else(|| Failure::new("rank 0 said nothing"))
    }))
}

/// Loads a checkpoint; the inner failure, equal on every rank, says how it is damaged.
fn attempt(path: &Path, communicator: &dyn Communicator) -> Result<Result<Loaded>> {
    let text = match from_root(communicator, || text(path))? {
        Ok(text) => text,
        Err(failure) => return Ok(Err(failure)),
    };
    agree(communicator, refuse_other_layout(path, &text))?;
    let checkpoint = match parse(path, &text) {
        Ok(checkpoint) => checkpoint,
        Err(failure) => return Ok(Err(failure)),
    };
    let mine = (communicator.rank()..checkpoint.manifest.files.len()).step_by(communicator.ranks());
    let mut shards = Vec::new();
    let kinds = mine.map(|index| {
        let shard = checkpoint.inspect_shard(index)?;
        let kind = shard.kind().to_owned();
        shards.push((index, shard));
        Ok(kind)
    });
    let verdict = gather(communicator, kinds.collect::<Result<Vec<String>>>())?;
    Ok(verdict
        .and_then(|kinds| checkpoint.refuse_mixed_kinds(&kinds.concat()))
        .map(|()| Loaded { checkpoint, shards }))
}

impl Loaded {
    /// What was verified.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Forgets scores that say nothing of the run that goes on from here.
    pub fn forget_scores(&mut self) {
        self.checkpoint.manifest.run.best.clear();
    }

    /// The shards that this rank has verified, in their order; a single rank has verified all.
    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().map(|(_, shard)| shard)
    }

    /// Reads everything into the learners of every rank, which must be built alike.
    pub fn restore(self, learners: Vec<&Learner>, ranks: &Ranks) -> Result<()> {
        let fitting = self.refuse_other_learners(&learners);
        agree(&**ranks, fitting)?;
        self.read(&learners, Wanted::All, ranks)?;
        for (learner, table) in learners.into_iter().zip(&self.checkpoint.manifest.learners) {
            learner.restore_updates(table.updates);
        }
        Ok(())
    }

    /// Reads what is wanted of learners that are in the checkpoint.
    fn read(&self, learners: &[&Learner], wanted: Wanted, ranks: &Ranks) -> Result<()> {
        let filled = self.fill(learners, wanted);
        agree(&**ranks, filled)?;
        for learner in learners {
            self.spread(learner, wanted, ranks)?;
            learner.weights_were_set();
        }
        Ok(())
    }

    /// Refuses a checkpoint that does not hold the networks of a learner.
    fn refuse_other_networks(&self, learner: &Learner) -> Result<()> {
        let Checkpoint { path, manifest } = &self.checkpoint;
        let own = LearnerTable::of(learner);
        let is_own = |saved: &&LearnerTable| {
            saved.name == own.name
                && saved.parameters == own.parameters
                && saved.buffers == own.buffers
        };
        if manifest.learners.iter().any(|saved| is_own(&saved)) {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "checkpoint `{}` of method `{}` holds other networks than its own configuration describes",
            path.display(),
            manifest.method
        ))
        .hint(format!("scrimp {} wrote it and can read it", manifest.code_version)))
    }

    fn refuse_other_learners(&self, learners: &[&Learner]) -> Result<()> {
        let Checkpoint { path, manifest } = &self.checkpoint;
        let expected: Vec<LearnerTable> = learners.iter().map(|l| LearnerTable::of(l)).collect();
        let alike = manifest.learners.len() == expected.len()
            && manifest.learners.iter().zip(&expected).all(|(saved, table)| saved.is_like(table));
        if alike {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "checkpoint `{}` of method `{}` holds other networks or optimisers than this configuration",
            path.display(),
            manifest.method
        ))
        .hint("use another run directory with `--run DIR`, or `--resume never` in an empty one"))
    }

    /// The elements of a flat tensor that shard `index` holds.
    fn share(&self, flat: &FlatPart, index: usize) -> Range<usize> {
        local_share(flat.total, self.checkpoint.manifest.files.len(), index)
    }

    /// Reads this rank's shards to where they belong, as far as this rank holds all of it.
    fn fill(&self, learners: &[&Learner], wanted: Wanted) -> Result<()> {
        for (index, shard) in &self.shards {
            for learner in learners {
                for flat in wanted.of(learner).iter().filter(|flat| flat.is_whole) {
                    let name = flat_name(learner.name(), flat.name);
                    shard.read_into(&name, &mut flat.overlap(self.share(flat, *index)).1)?;
                }
                for entry in learner.buffers().filter(|_| *index == 0) {
                    let name = buffer_name(learner.name(), &entry.name);
                    shard.read_into(&name, &mut entry.tensor.shallow_clone())?;
                }
            }
        }
        Ok(())
    }

    /// Broadcasts every part from the rank that has read it.
    fn spread(&self, learner: &Learner, wanted: Wanted, ranks: &Ranks) -> Result<()> {
        for flat in wanted.of(learner) {
            if flat.is_whole {
                for index in 0..self.checkpoint.manifest.files.len() {
                    let (_, share) = flat.overlap(self.share(&flat, index));
                    ranks.tensors().broadcast(index % ranks.ranks(), &share)?;
                }
                self.put_in_order(&flat.tensor, learner);
            } else {
                self.hand_out(&flat, learner, ranks)?;
            }
        }
        for entry in learner.buffers() {
            ranks.tensors().broadcast(0, &entry.tensor)?;
        }
        Ok(())
    }

    /// Shows every rank all of a flat tensor, of which it takes its own part.
    fn hand_out(&self, flat: &FlatPart, learner: &Learner, ranks: &Ranks) -> Result<()> {
        let options = (flat.tensor.kind(), flat.tensor.device());
        // Parameters of a plain layout do not end where shards do: they are put in order whole.
        let is_plain = self.checkpoint.manifest.is_plain();
        let whole = is_plain.then(|| Tensor::empty([flat.total as i64], options));
        for index in 0..self.checkpoint.manifest.files.len() {
            let share = self.share(flat, index);
            let all = self.shown((learner, flat), index, ranks)?;
            if let Some(whole) = &whole {
                whole.narrow(0, share.start as i64, share.len() as i64).copy_(&all);
            } else {
                let (before, mut own) = flat.overlap(share);
                own.copy_(&all.narrow(0, before as i64, own.numel() as i64));
            }
        }
        if let Some(whole) = whole {
            self.put_in_order(&whole, learner);
            let own = whole.narrow(0, flat.start as i64, flat.tensor.numel() as i64);
            flat.tensor.shallow_clone().copy_(&own);
        }
        Ok(())
    }

    /// What shard `index` holds of a flat tensor, on every rank.
    fn shown(
        &self,
        (learner, flat): (&Learner, &FlatPart),
        index: usize,
        ranks: &Ranks,
    ) -> Result<Tensor> {
        let share = self.share(flat, index);
        let mine = self.shards.iter().find(|(own, _)| *own == index);
        let read = match mine {
            Some((_, shard)) => shard.tensor(&flat_name(learner.name(), flat.name)),
            None => Ok(Tensor::empty([share.len() as i64], (flat.tensor.kind(), Device::Cpu))),
        };
        let all = agree(&**ranks, read)?.to_device(flat.tensor.device());
        ranks.tensors().broadcast(index % ranks.ranks(), &all)?;
        Ok(all)
    }

    /// Puts a whole flat tensor in the order of the learner's slots where the checkpoint has another one.
    fn put_in_order(&self, flat: &Tensor, learner: &Learner) {
        if !self.checkpoint.manifest.is_plain() {
            return;
        }
        tch::no_grad(|| {
            for slot in learner.slots() {
                let plain = slot.plain_view(flat).copy();
                slot.view(flat).copy_(&plain);
            }
        });
    }
}

/// Gives every rank the tensors of rank 0, as a fresh start does.
pub fn share_from_first_rank(learners: &[&Learner], ranks: &Ranks) -> Result<()> {
    for learner in learners {
        for tensor in tensors(learner) {
            ranks.tensors().broadcast(0, &tensor)?;
        }
        learner.weights_were_set();
    }
    Ok(())
}

/// Refuses to go on from ranks that hold different tensors.
pub fn refuse_differing_ranks(
    learners: &[&Learner],
    communicator: &dyn Communicator,
) -> Result<()> {
    let mut hash = Xxh3::new();
    for tensor in learners.iter().flat_map(|learner| tensors(learner)) {
        let host = tensor.detach().to_device(Device::Cpu).contiguous();
        with_bytes(&host, |bytes| hash.update(bytes))?;
    }
    let digests = communicator.gather(&hash.digest().to_le_bytes())?;
    let Some(odd) = digests.iter().position(|digest| *digest != digests[0]) else { return Ok(()) };
    let failure = Failure::new(format!("rank {odd} starts from other tensors than rank 0")).hint(
        "the processes differ or the memory of a node is faulty: start again without that node",
    );
    Err(if communicator.rank() == 0 { failure } else { failure.told_elsewhere() })
}

/// Every tensor of a learner that training changes and all ranks hold, sharing storage.
fn tensors(learner: &Learner) -> Vec<Tensor> {
    // Moments of which each rank has a part differ, and begin at zero.
    let whole = learner.flat_parts().into_iter().filter(|flat| flat.is_whole);
    whole
        .map(|flat| flat.tensor)
        .chain(learner.buffers().map(|entry| entry.tensor.shallow_clone()))
        .collect()
}
