//! The table of contents of a checkpoint: its text, the digest at its end, and what it may say.
//!
//! A manifest that differs from its digest in one bit is refused, and so is one that names files, tensors
//! or places that no checkpoint can have. Opens no shard.

use super::{RunState, buffer_name, flat_name};
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::{CLASSES, MANIFEST_BYTES, elements};
use crate::parameters::{ALIGNMENT, Slot};
use crate::shares::local_share;
use crate::train::learner::Learner;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

pub(super) const MANIFEST: &str = "manifest.json";
/// The layout that is written: flat tensors hold parameters as slots view them.
pub(super) const SCHEMA: u32 = 4;
/// A layout that is read as well: in flat tensors the last extent of every parameter runs fastest.
const PLAIN: u32 = 3;
/// The same, whose text does not end with its own digest and does not say what was learnt from.
const WITHOUT_DIGEST: u32 = 2;
/// What stands between a manifest and its digest.
const BEFORE_DIGEST: &str = ",\n  \"xxh3\": \"";
/// What stands behind the digest.
const BEHIND_DIGEST: &str = "\"\n}\n";
/// Hexadecimal digits of a digest.
const DIGITS: usize = 16;

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
    /// Names of the classes by label value; empty where that is not known.
    #[serde(default)]
    pub classes: Vec<String>,
    /// How far the run was.
    pub run: RunState,
    /// What the weights learnt from, the latest last; empty where that is not known.
    #[serde(default)]
    pub learnt_from: Vec<LearntFrom>,
    /// One entry per learner; the first predicts.
    pub learners: Vec<LearnerTable>,
    /// The shards, in the order of the shares that they hold.
    pub files: Vec<FileDigest>,
}

/// A data set that weights learnt from, and which part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearntFrom {
    /// The name of the data set.
    pub data_set: String,
    /// Digest of all that the data set holds, hexadecimal.
    pub digest: String,
    /// The fold that was held out, counted from 1; 0: none.
    pub fold: u32,
    /// The annotation that was learnt from.
    pub annotation: String,
    /// Digests of the images that were learnt from, hexadecimal, in ascending order.
    pub images: Vec<String>,
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

/// A checkpoint on disk whose manifest is sound.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// Its table of contents.
    pub manifest: Manifest,
}

/// The tensors that a shard has to hold, and how many elements each has; `None`: any number.
pub(super) type Expected = BTreeMap<String, Option<usize>>;

/// The name of shard `index` of `count`.
pub(super) fn shard_name(index: usize, count: usize) -> String {
    format!("shard-{index:04}-of-{count:04}.safetensors")
}

/// The step in a directory's name, `step-00000040` or with an extension behind it.
pub(super) fn step_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.split_once('.').map_or(name, |(stem, _)| stem).strip_prefix("step-")?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Reads the manifest of the checkpoint in directory `path`. Refuses one that is damaged, or that says
/// what no checkpoint can be.
pub fn read_manifest(path: &Path) -> Result<Checkpoint> {
    parse(path, &text(path)?)
}

/// The text of the manifest of the checkpoint in directory `path`.
pub(super) fn text(path: &Path) -> Result<String> {
    let file = path.join(MANIFEST);
    let is_no_checkpoint =
        |why: &str| Failure::new(format!("`{}` is no checkpoint: {why}", path.display()));
    let bytes = files::read_at_most(&file, MANIFEST_BYTES).map_err(|error| match error.kind() {
        ErrorKind::NotADirectory => is_no_checkpoint("it is a file, expected a directory"),
        ErrorKind::NotFound if path.is_dir() => {
            is_no_checkpoint(&format!("it holds no `{MANIFEST}`"))
        }
        ErrorKind::NotFound => is_no_checkpoint("nothing is there"),
        _ => Failure::new(format!("cannot read `{}`", file.display())).because(&error),
    })?;
    String::from_utf8(bytes).map_err(|_not_utf8| damaged(path, "is no UTF-8 text"))
}

fn damaged(path: &Path, how: &str) -> Failure {
    Failure::new(format!("checkpoint `{}` is damaged: its `{MANIFEST}` {how}", path.display()))
}

/// What the end of a manifest says of the rest.
enum Seal {
    Whole,
    Broken,
    Absent,
}

impl Seal {
    fn of(text: &str) -> Self {
        let start = text.len().checked_sub(BEFORE_DIGEST.len() + DIGITS + BEHIND_DIGEST.len());
        let Some((body, end)) = start.and_then(|start| text.split_at_checked(start)) else {
            return Self::Absent;
        };
        if !end.starts_with(BEFORE_DIGEST) {
            return Self::Absent;
        }
        if end == seal(body) { Self::Whole } else { Self::Broken }
    }
}

/// What stands behind `body`, the text of a manifest up to its last field.
fn seal(body: &str) -> String {
    format!("{BEFORE_DIGEST}{:016x}{BEHIND_DIGEST}", xxh3_64(body.as_bytes()))
}

/// A manifest of another layout is not damage: another version of the program can read it.
pub(super) fn refuse_other_layout(path: &Path, text: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Layout {
        schema: u32,
        code_version: String,
    }
    let (Ok(Layout { schema, code_version }), Seal::Whole | Seal::Absent) =
        (serde_json::from_str(text), Seal::of(text))
    else {
        return Ok(());
    };
    if (WITHOUT_DIGEST..=SCHEMA).contains(&schema) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "`{}` has layout {schema}, expected {WITHOUT_DIGEST} to {SCHEMA}",
        path.join(MANIFEST).display()
    ))
    .hint(format!("scrimp {code_version} wrote it and can read it")))
}

/// The checkpoint at `path` whose manifest has this text.
pub(super) fn parse(path: &Path, text: &str) -> Result<Checkpoint> {
    refuse_other_layout(path, text)?;
    let is_sealed = match Seal::of(text) {
        Seal::Broken => return Err(damaged(path, "differs from the digest at its end")),
        Seal::Whole => true,
        Seal::Absent => false,
    };
    let manifest: Manifest = serde_json::from_str(text)
        .map_err(|error| damaged(path, "cannot be understood").because(&error))?;
    if is_sealed == (manifest.schema == WITHOUT_DIGEST) {
        return Err(damaged(path, if is_sealed { "has another layout" } else { "has no digest" }));
    }
    manifest.check(path).map_err(|how| damaged(path, &how))?;
    Ok(Checkpoint { path: path.to_owned(), manifest })
}

impl Manifest {
    /// Whether the last extent of every parameter runs fastest in the flat tensors.
    pub(super) fn is_plain(&self) -> bool {
        self.schema <= PLAIN
    }

    /// Size of all shards together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// The text of the manifest, its digest at the end.
    pub(super) fn sealed(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).context(|| "cannot write the manifest")?;
        let body = text.strip_suffix("\n}").unwrap_or(&text);
        Ok(format!("{body}{}", seal(body)))
    }

    /// Says what no checkpoint in directory `path` can have.
    fn check(&self, path: &Path) -> std::result::Result<(), String> {
        if let Some(step) = step_of(path).filter(|step| *step != self.run.step) {
            return Err(format!("is of step {}, its directory of step {step}", self.run.step));
        }
        if self.classes.len() == 1 || self.classes.len() > CLASSES {
            return Err(format!("names {} classes", self.classes.len()));
        }
        if self.files.is_empty() || self.learners.is_empty() {
            return Err("lists no shards or no learners".to_owned());
        }
        for (index, file) in self.files.iter().enumerate() {
            let expected = shard_name(index, self.files.len());
            if file.name != expected {
                return Err(format!("lists file `{}`, expected `{expected}`", file.name));
            }
        }
        if let Some(best) = self
            .run
            .best
            .iter()
            .find(|best| best.step > self.run.step || !(0.0..=1.0).contains(&best.mean_dice))
        {
            return Err(format!("has mean Dice {} after step {}", best.mean_dice, best.step));
        }
        self.learners.iter().try_for_each(LearnerTable::check)?;
        let named = self.learners.iter().map(|learner| learner.flat.len() + learner.buffers.len());
        if self.expected_in(0).len() != named.sum::<usize>() {
            return Err("names a tensor twice".to_owned());
        }
        Ok(())
    }

    /// What shard `index` has to hold.
    pub(super) fn expected_in(&self, index: usize) -> Expected {
        let mut expected = Expected::new();
        for learner in &self.learners {
            let share = local_share(learner.elements as usize, self.files.len(), index).len();
            let flat = learner.flat.iter().map(|name| flat_name(&learner.name, name));
            expected.extend(flat.map(|name| (name, Some(share))));
            let buffers = learner.buffers.iter().filter(|_| index == 0);
            expected.extend(buffers.map(|name| (buffer_name(&learner.name, name), None)));
        }
        expected
    }
}

impl LearnerTable {
    pub(super) fn of(learner: &Learner) -> Self {
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
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { updates: 0, ..self.clone() } == Self { updates: 0, ..other.clone() }
    }

    /// Says where the parameters do not lie one behind the other and fill the flat tensors.
    fn check(&self) -> std::result::Result<(), String> {
        let name = &self.name;
        if self.flat.first().is_none_or(|first| first != "weights") || self.parameters.is_empty() {
            return Err(format!("lists no weights of learner `{name}`"));
        }
        let (mut end, mut names) = (0, BTreeSet::new());
        for place in &self.parameters {
            let count = place.count().and_then(|count| place.offset.checked_add(count));
            let (Some(next), true) = (count, aligned(end) == Some(place.offset)) else {
                return Err(format!(
                    "puts `{}` of learner `{name}` with shape {:?} to element {}",
                    place.name, place.shape, place.offset
                ));
            };
            end = next;
            names.insert(&place.name);
        }
        names.extend(&self.buffers);
        if names.len() != self.parameters.len() + self.buffers.len() {
            return Err(format!("names a tensor of learner `{name}` twice"));
        }
        if aligned(end) != Some(self.elements) || self.elements == 0 {
            let found = self.elements;
            return Err(format!("has {found} elements of learner `{name}`, which end at {end}"));
        }
        Ok(())
    }
}

/// Where the next parameter begins behind element `end`.
fn aligned(end: i64) -> Option<i64> {
    let start = u64::try_from(end).ok()?.checked_next_multiple_of(ALIGNMENT as u64)?;
    i64::try_from(start).ok()
}

impl ParameterPlace {
    /// How many elements it has; `None` where no tensor has such a shape.
    fn count(&self) -> Option<i64> {
        let extents: Option<Vec<usize>> =
            self.shape.iter().map(|&extent| usize::try_from(extent).ok()).collect();
        elements(&extents?, i64::MAX as usize).map(|count| count as i64)
    }
}
