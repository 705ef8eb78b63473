//! Checkpoints: directories that either verify or do not exist.
//!
//! `step-00012000/` holds shards and, written last, `manifest.json` with their sizes and digests.
//! Everything is written under a temporary name, flushed to disk and renamed. Knows no method:
//! a learner's tensors are all it sees.

use super::learner::Learner;
use super::non_finite::Rollback;
use crate::error::{Context, Failure, Result};
use crate::parameters::Slot;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tch::Tensor;
use xxhash_rust::xxh3::xxh3_64;

const MANIFEST: &str = "manifest.json";
const SCHEMA: u32 = 1;

/// The best validation score so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Step after which it was measured.
    pub step: u64,
    /// Mean Dice over cases and structures.
    pub mean_dice: f64,
}

/// What a checkpoint knows of the run beside tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Steps that are done. The data order needs no other cursor: it is a function of the step.
    pub step: u64,
    /// Best validation score up to this step.
    pub best: Option<Best>,
    /// The stretch that is trained again after gradients that were not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// The table of contents of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub schema: u32,
    /// Version of scrimp that wrote it.
    pub code_version: String,
    /// The method that was trained.
    pub method: String,
    /// How far the run was.
    pub run: RunState,
    /// One entry per learner; the first predicts.
    pub learners: Vec<LearnerTable>,
    /// The files beside the manifest.
    pub files: Vec<FileDigest>,
}

/// The tensors of one learner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnerTable {
    /// Name of the learner.
    pub name: String,
    /// How often its weights were updated.
    pub updates: u64,
    /// Names of its flat tensors, `weights` first.
    pub flat: Vec<String>,
    /// Where each parameter lies in the flat tensors.
    pub parameters: Vec<ParameterPlace>,
    /// Names of its running statistics and counters.
    pub buffers: Vec<String>,
}

/// Where one parameter lies in the flat tensors of its learner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterPlace {
    /// Name in the state dictionary.
    pub name: String,
    /// Shape of the tensor.
    pub shape: Vec<i64>,
    /// First element.
    pub offset: i64,
}

/// Size and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Name beside the manifest.
    pub name: String,
    /// Size of the file.
    pub bytes: u64,
    /// XXH3-64 of its contents, hexadecimal.
    pub xxh3: String,
}

/// A checkpoint on disk whose manifest could be read.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// Its table of contents.
    pub manifest: Manifest,
}

impl LearnerTable {
    fn of(learner: &Learner) -> Self {
        let place = |slot: &Slot| ParameterPlace {
            name: slot.name.clone(),
            shape: slot.shape.clone(),
            offset: slot.offset,
        };
        Self {
            name: learner.name().to_owned(),
            updates: learner.updates(),
            flat: learner.flat_tensors().iter().map(|(name, _)| (*name).to_owned()).collect(),
            parameters: learner.slots().iter().map(place).collect(),
            buffers: learner.buffers().map(|entry| entry.name.clone()).collect(),
        }
    }
}

/// Every tensor of a learner under its name in the shard, sharing storage.
fn named_tensors(learner: &Learner) -> Vec<(String, Tensor)> {
    let name = learner.name();
    let flat = learner.flat_tensors().into_iter().map(|(key, t)| (format!("{name}/{key}"), t));
    let buffers = learner
        .buffers()
        .map(|entry| (format!("{name}/buffer/{}", entry.name), entry.tensor.shallow_clone()));
    flat.chain(buffers).collect()
}

/// Flushes a file or directory to the disk.
fn flush(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .context(|| format!("cannot flush `{}` to disk", path.display()))
}

fn digest(path: &Path) -> Result<FileDigest> {
    let contents = fs::read(path).context(|| format!("cannot read `{}`", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(FileDigest {
        name,
        bytes: contents.len() as u64,
        xxh3: format!("{:016x}", xxh3_64(&contents)),
    })
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    folder: PathBuf,
}

impl CheckpointStore {
    /// Keeps checkpoints in `folder`, which is made by the first save.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the checkpoint of a step lies.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:08}"))
    }

    /// Writes one checkpoint, in place of an older one of the same step, and returns it with its
    /// size in bytes.
    pub fn save(
        &self,
        method: &str,
        run: RunState,
        learners: &[&Learner],
    ) -> Result<(Checkpoint, u64)> {
        let path = self.path(run.step);
        let temporary = path.with_extension("tmp");
        Self::write(&temporary, method, run, learners)
            .and_then(|manifest| {
                let _ = fs::remove_dir_all(&path);
                fs::rename(&temporary, &path)
                    .context(|| format!("cannot rename `{}`", temporary.display()))?;
                flush(&self.folder)?;
                let bytes = manifest.files.iter().map(|file| file.bytes).sum();
                Ok((Checkpoint { path: path.clone(), manifest }, bytes))
            })
            .map_err(|failure| {
                let _ = fs::remove_dir_all(&temporary);
                failure.during(format!("cannot save checkpoint `{}`", path.display())).hint(
                    "make room there, then run the same command again: it goes on from the newest checkpoint",
                )
            })
    }

    fn write(
        temporary: &Path,
        method: &str,
        run: RunState,
        learners: &[&Learner],
    ) -> Result<Manifest> {
        let _ = fs::remove_dir_all(temporary);
        fs::create_dir_all(temporary)
            .context(|| format!("cannot make the directory `{}`", temporary.display()))?;
        let shard = temporary.join("shard-0000-of-0001.safetensors");
        let tensors: Vec<(String, Tensor)> =
            learners.iter().flat_map(|learner| named_tensors(learner)).collect();
        Tensor::write_safetensors(&tensors, &shard)
            .context(|| format!("cannot write `{}`", shard.display()))?;
        flush(&shard)?;
        let manifest = Manifest {
            schema: SCHEMA,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            method: method.to_owned(),
            run,
            learners: learners.iter().map(|learner| LearnerTable::of(learner)).collect(),
            files: vec![digest(&shard)?],
        };
        let text =
            serde_json::to_string_pretty(&manifest).context(|| "cannot write the manifest")?;
        let path = temporary.join(MANIFEST);
        fs::write(&path, text).context(|| format!("cannot write `{}`", path.display()))?;
        flush(&path)?;
        flush(temporary)?;
        Ok(manifest)
    }

    /// All checkpoints with a readable manifest, oldest first.
    pub fn list(&self) -> Vec<Checkpoint> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<Checkpoint> =
            entries.filter_map(|entry| read_manifest(&entry.path()).ok()).collect();
        found.sort_by_key(|checkpoint| checkpoint.manifest.run.step);
        found
    }

    /// The newest checkpoint that verifies, and what is wrong with each newer one.
    pub fn newest_sound(&self) -> (Option<Checkpoint>, Vec<Failure>) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_saved = |path: &PathBuf| path.extension().is_none();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_saved).collect();
        paths.sort();
        let mut damaged = Vec::new();
        while let Some(path) = paths.pop() {
            match read_manifest(&path).and_then(|found| found.verify().map(|()| found)) {
                Ok(found) => return (Some(found), damaged),
                Err(failure) => damaged.push(failure),
            }
        }
        (None, damaged)
    }

    /// Removes what the retention gives up. Failing to remove is no reason to end a run.
    pub fn prune(&self, keep_last: usize, best: Option<u64>) {
        let steps: Vec<u64> = self.list().iter().map(|found| found.manifest.run.step).collect();
        for step in doomed(&steps, keep_last, best) {
            let _ = fs::remove_dir_all(self.path(step));
        }
    }
}

/// The steps that a retention of the last `keep_last` (at least 1) and the best gives up.
pub fn doomed(steps: &[u64], keep_last: usize, best: Option<u64>) -> Vec<u64> {
    let kept_from = steps.len().saturating_sub(keep_last.max(1));
    steps[..kept_from].iter().copied().filter(|step| Some(*step) != best).collect()
}

/// Reads the manifest of the checkpoint in directory `path`.
pub fn read_manifest(path: &Path) -> Result<Checkpoint> {
    let file = path.join(MANIFEST);
    let text = fs::read_to_string(&file).context(|| {
        format!("`{}` is no checkpoint: cannot read its `{MANIFEST}`", path.display())
    })?;
    let manifest: Manifest = serde_json::from_str(&text)
        .context(|| format!("cannot understand `{}`", file.display()))?;
    if manifest.schema != SCHEMA {
        return Err(Failure::new(format!(
            "`{}` has layout {}, expected {SCHEMA}",
            file.display(),
            manifest.schema
        )));
    }
    Ok(Checkpoint { path: path.to_owned(), manifest })
}

impl Checkpoint {
    /// Compares every file with its recorded size and digest.
    pub fn verify(&self) -> Result<()> {
        for expected in &self.manifest.files {
            let found = digest(&self.path.join(&expected.name))?;
            if found != *expected {
                return Err(Failure::new(format!(
                    "checkpoint `{}` is damaged: `{}` has {} bytes and digest {}, expected {} and {}",
                    self.path.display(),
                    expected.name,
                    found.bytes,
                    found.xxh3,
                    expected.bytes,
                    expected.xxh3
                )));
            }
        }
        Ok(())
    }

    /// All tensors by their names in the shards.
    fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let mut tensors = HashMap::new();
        for file in &self.manifest.files {
            let path = self.path.join(&file.name);
            tensors.extend(
                Tensor::read_safetensors(&path)
                    .context(|| format!("cannot read `{}`", path.display()))?,
            );
        }
        Ok(tensors)
    }

    /// Verifies, then copies everything into the learners, which must be built alike.
    pub fn restore(&self, learners: Vec<&mut Learner>) -> Result<()> {
        self.verify()?;
        let saved: Vec<&LearnerTable> = self.manifest.learners.iter().collect();
        let expected: Vec<LearnerTable> = learners.iter().map(|l| LearnerTable::of(l)).collect();
        let alike = |(a, b): (&&LearnerTable, &LearnerTable)| {
            a.name == b.name
                && a.flat == b.flat
                && a.parameters == b.parameters
                && a.buffers == b.buffers
        };
        if saved.len() != expected.len() || !saved.iter().zip(&expected).all(alike) {
            return Err(Failure::usage(format!(
                "checkpoint `{}` of method `{}` holds other networks or optimisers than this configuration",
                self.path.display(),
                self.manifest.method
            ))
            .hint("use another run directory with `--run DIR`, or `--resume never` in an empty one"));
        }
        let tensors = self.tensors()?;
        for (learner, table) in learners.into_iter().zip(saved) {
            for (name, mut target) in named_tensors(learner) {
                let source = tensors.get(&name).ok_or_else(|| {
                    Failure::new(format!("checkpoint `{}` lacks `{name}`", self.path.display()))
                })?;
                tch::no_grad(|| target.f_copy_(source))
                    .context(|| format!("cannot restore `{name}`"))?;
            }
            learner.restore_updates(table.updates);
        }
        Ok(())
    }

    /// Writes weights and buffers of the first learner as one safetensors file, under the names
    /// of the reference network's state dictionary. Equal checkpoints give equal bytes.
    pub fn export(&self, to: &Path) -> Result<()> {
        self.verify()?;
        let table = self.manifest.learners.first().ok_or_else(|| {
            Failure::new(format!("checkpoint `{}` holds no learner", self.path.display()))
        })?;
        let tensors = self.tensors()?;
        let missing = |name: &str| {
            Failure::new(format!("checkpoint `{}` lacks `{name}`", self.path.display()))
        };
        let key = format!("{}/weights", table.name);
        let weights = tensors.get(&key).ok_or_else(|| missing(&key))?;
        let mut exported = Vec::new();
        for place in &table.parameters {
            let slot =
                Slot { name: place.name.clone(), shape: place.shape.clone(), offset: place.offset };
            exported.push((place.name.clone(), slot.view(weights)));
        }
        for name in &table.buffers {
            let key = format!("{}/buffer/{name}", table.name);
            let buffer = tensors.get(&key).ok_or_else(|| missing(&key))?;
            exported.push((name.clone(), buffer.shallow_clone()));
        }
        Tensor::write_safetensors(&exported, to)
            .context(|| format!("cannot write `{}`", to.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_keeps_the_last_and_the_best() {
        assert_eq!(doomed(&[1, 2, 3, 4], 2, Some(1)), [2]);
        assert_eq!(doomed(&[1, 2, 3], 2, None), [1]);
        assert_eq!(doomed(&[7], 0, None), Vec::<u64>::new());
    }
}
