//! Checkpoints: directories that either verify or do not exist.
//!
//! `step-00012000/` holds one shard for each rank that saved, and, written last, `manifest.json`
//! with their sizes and digests. A shard is a contiguous share of every flat tensor, so that any
//! number of ranks can restore it. Everything is written under a temporary name, flushed to disk
//! and renamed. Knows no method: a learner's tensors are all it sees.

mod exchange;
mod restore;
mod retention;
mod saver;
mod shard;
mod store;

pub use exchange::import;
pub use restore::{Loaded, load, refuse_differing_ranks, share_from_first_rank};
pub use retention::{Retention, doomed};
pub use saver::{Header, Progress, Saved, Saver};
pub use store::CheckpointStore;

use super::learner::Learner;
use super::non_finite::Rollback;
use crate::error::{Context, Failure, Result};
use crate::parameters::Slot;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "manifest.json";
const SCHEMA: u32 = 2;

/// A validation score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Step after which it was measured.
    pub step: u64,
    /// Mean Dice over cases and structures.
    pub mean_dice: f64,
}

/// What a checkpoint knows of the run beside tensors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunState {
    /// Steps that are done. The data order needs no other cursor: it is a function of the step.
    pub step: u64,
    /// The best validation scores up to this step, the very best first.
    pub best: Vec<Best>,
    /// The stretch that is trained again after gradients that were not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

impl RunState {
    /// The best validation score so far.
    pub fn best(&self) -> Option<Best> {
        self.best.first().copied()
    }

    /// Takes a score in if it is among the `keep` best so far, and says whether it is. Of equal
    /// scores the earlier one counts as better; what is not finite is no score.
    pub fn take_score(&mut self, score: Best, keep: usize) -> bool {
        let place = self.best.partition_point(|better| better.mean_dice >= score.mean_dice);
        if !score.mean_dice.is_finite() || place >= keep {
            return false;
        }
        self.best.insert(place, score);
        self.best.truncate(keep);
        true
    }
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
    /// The configuration it was trained with, every default filled in, as TOML.
    pub config: String,
    /// How far the run was.
    pub run: RunState,
    /// One entry per learner; the first predicts.
    pub learners: Vec<LearnerTable>,
    /// The shards, in the order of the shares that they hold.
    pub files: Vec<FileDigest>,
}

impl Manifest {
    /// Size of all shards together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The tensors of one learner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnerTable {
    /// Name of the learner.
    pub name: String,
    /// How often its weights were updated.
    pub updates: u64,
    /// Names of its flat tensors, `weights` first. Shard `i` of `n` holds the `i`-th of `n` shares
    /// of each, which differ by at most one element.
    pub flat: Vec<String>,
    /// Elements of each flat tensor over all shards.
    pub elements: i64,
    /// Where each parameter lies in the flat tensors.
    pub parameters: Vec<ParameterPlace>,
    /// Names of its running statistics and counters, which the first shard holds whole.
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
        let flat = learner.flat_parts();
        Self {
            name: learner.name().to_owned(),
            updates: learner.updates(),
            elements: flat.first().map_or(0, |part| part.total as i64),
            flat: flat.into_iter().map(|part| part.name.to_owned()).collect(),
            parameters: learner.slots().iter().map(place).collect(),
            buffers: learner.buffers().map(|entry| entry.name.clone()).collect(),
        }
    }

    /// Whether a learner of this table can take up the tensors of one of the other.
    fn is_like(&self, other: &Self) -> bool {
        Self { updates: 0, ..self.clone() } == Self { updates: 0, ..other.clone() }
    }
}

/// The name of a flat tensor in a shard.
fn flat_name(learner: &str, tensor: &str) -> String {
    format!("{learner}/{tensor}")
}

/// The name of a running statistic or counter in the first shard.
fn buffer_name(learner: &str, buffer: &str) -> String {
    format!("{learner}/buffer/{buffer}")
}

/// Reads the manifest of the checkpoint in directory `path`.
pub fn read_manifest(path: &Path) -> Result<Checkpoint> {
    parse_manifest(path, &manifest_text(path)?)
}

fn manifest_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path.join(MANIFEST))
        .context(|| format!("`{}` is no checkpoint: cannot read its `{MANIFEST}`", path.display()))
}

fn parse_manifest(path: &Path, text: &str) -> Result<Checkpoint> {
    let file = path.join(MANIFEST);
    refuse_other_layout(&file, text)?;
    let manifest =
        serde_json::from_str(text).context(|| format!("cannot understand `{}`", file.display()))?;
    Ok(Checkpoint { path: path.to_owned(), manifest })
}

/// A manifest of another layout is not damage: another version of the program can read it.
fn refuse_other_layout(file: &Path, text: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Layout {
        schema: u32,
        code_version: String,
    }
    match serde_json::from_str(text) {
        Ok(Layout { schema, code_version }) if schema != SCHEMA => Err(Failure::usage(format!(
            "`{}` has layout {schema}, expected {SCHEMA}",
            file.display()
        ))
        .hint(format!("scrimp {code_version} wrote it and can read it"))),
        _ => Ok(()),
    }
}

impl Checkpoint {
    /// Compares every file with its recorded size and digest.
    pub fn verify(&self) -> Result<()> {
        (0..self.manifest.files.len()).try_for_each(|index| self.inspect_shard(index).map(drop))
    }

    /// Reads one file through and compares it with its recorded size and digest.
    fn inspect_shard(&self, index: usize) -> Result<shard::Shard> {
        let expected = &self.manifest.files[index];
        let (found, contents) = shard::inspect(&self.path.join(&expected.name))
            .map_err(|failure| failure.during(self.is_damaged()))?;
        if found == *expected {
            return Ok(contents);
        }
        Err(Failure::new(format!(
            "{}: `{}` has {} bytes and digest {}, expected {} and {}",
            self.is_damaged(),
            expected.name,
            found.bytes,
            found.xxh3,
            expected.bytes,
            expected.xxh3
        )))
    }

    fn is_damaged(&self) -> String {
        format!("checkpoint `{}` is damaged", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_scores_are_kept_in_order() {
        let mut state = RunState::default();
        let mut take = |step, mean_dice| state.take_score(Best { step, mean_dice }, 2);
        let scores = [(1, 0.5), (2, f64::NAN), (3, 0.4), (4, 0.3), (5, 0.5), (6, 0.5), (7, 0.6)];
        let taken = scores.map(|(step, dice)| take(step, dice));
        assert_eq!(taken, [true, false, true, false, true, false, true]);
        assert_eq!(state.best.iter().map(|best| best.step).collect::<Vec<_>>(), [7, 1]);
    }

    #[test]
    fn another_layout_is_refused_with_the_version_that_can_read_it() {
        let text = r#"{"schema": 7, "code_version": "9.1.0", "shape": "unheard of"}"#;
        let failure = parse_manifest(Path::new("a/step-00000003"), text).unwrap_err();
        insta::assert_snapshot!(failure, @r"
        error: `a/step-00000003/manifest.json` has layout 7, expected 2

        hint: scrimp 9.1.0 wrote it and can read it
        ");
    }
}
