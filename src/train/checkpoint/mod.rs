//! Checkpoints: directories that either verify or do not exist.
//!
//! `step-00012000/` holds one shard for each rank that saved, and, written last, `manifest.json`
//! with their sizes and digests and a digest of its own. A shard is a contiguous share of every flat tensor, so that any
//! number of ranks can restore it. Everything is written under a temporary name, flushed to disk
//! and renamed. Knows no method: a learner's tensors are all it sees.

mod exchange;
mod manifest;
mod restore;
mod retention;
mod saver;
mod shard;
mod store;

pub use exchange::import;
pub use manifest::{
    Checkpoint, FileDigest, LearnerTable, LearntFrom, Manifest, ParameterPlace, read_manifest,
};
pub use restore::{
    Loaded, has_vanished, load, refuse_differing_ranks, restore_chosen, restore_predicting,
    share_from_first_rank,
};
pub use retention::{Retention, doomed};
pub use saver::{Header, Progress, Saved, Saver};
pub use store::{CheckpointStore, Guard};

use super::non_finite::Rollback;
use crate::error::{Failure, Result};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;

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

/// The name of a flat tensor in a shard.
fn flat_name(learner: &str, tensor: &str) -> String {
    format!("{learner}/{tensor}")
}

/// The name of a running statistic or counter in the first shard.
fn buffer_name(learner: &str, buffer: &str) -> String {
    format!("{learner}/buffer/{buffer}")
}

impl Checkpoint {
    /// Compares every file with its recorded size and digest, and what it holds with the manifest.
    pub fn verify(&self) -> Result<()> {
        let shards = 0..self.manifest.files.len();
        let kinds = shards.map(|index| Ok(self.inspect_shard(index)?.kind().to_owned()));
        self.refuse_mixed_kinds(&kinds.collect::<Result<Vec<_>>>()?)
    }

    /// Reads one file through and compares it with what the manifest says of it.
    fn inspect_shard(&self, index: usize) -> Result<shard::Shard> {
        let expected = &self.manifest.files[index];
        let name = &expected.name;
        let path = self.path.join(name);
        let (found, contents) = shard::inspect(&path, expected.bytes).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                return Failure::new(format!(
                    "checkpoint `{}` lacks `{name}`",
                    self.path.display()
                ));
            }
            Failure::new(format!("cannot read `{}`", path.display())).because(&error)
        })?;
        if found != *expected {
            let more = if found.bytes > expected.bytes { "or more " } else { "" };
            return Err(self.damaged(&format!(
                "`{name}` has {} bytes {more}and digest {}, expected {} and {}",
                found.bytes, found.xxh3, expected.bytes, expected.xxh3
            )));
        }
        contents
            .and_then(|shard| shard.check(&self.manifest.expected_in(index)))
            .map_err(|how| self.damaged(&format!("`{name}` {how}")))
    }

    /// Refuses shards whose flat tensors are of several kinds: they are parts of one.
    fn refuse_mixed_kinds(&self, kinds: &[String]) -> Result<()> {
        match kinds.iter().find(|kind| **kind != kinds[0]) {
            None => Ok(()),
            Some(other) => {
                Err(self.damaged(&format!("its shards hold numbers of {} and {other}", kinds[0])))
            }
        }
    }

    fn damaged(&self, how: &str) -> Failure {
        Failure::new(format!("checkpoint `{}` is damaged: {how}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    //! Small checkpoints on the disk, damaged in every way, and ranks that have next to nothing to save.

    use super::manifest::{MANIFEST, parse, text};
    use super::*;
    use crate::comm::{Solo, threads};
    use crate::random::Key;
    use crate::train::learner::{Learner, LearnerConfig, LearnerSetup, Moments};
    use crate::train::optimizer::{OptimizerConfig, SgdConfig};
    use crate::train::point::StepPoint;
    use crate::train::schedule::Schedule;
    use crate::train::{ForwardMode, Method, StepContext};
    use proptest::prelude::*;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use serde_json::{Value, json};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tch::{Device, Kind, Tensor};
    use tempfile::TempDir;

    /// A learner of one value, which its flat tensors pad to 16 elements, and a counter.
    fn learner(moments: Moments) -> Learner {
        let config = LearnerConfig {
            lr: 0.5,
            schedule: Schedule::Constant,
            clip_norm: 0.0,
            optimizer: OptimizerConfig::Sgd(SgdConfig::default()),
        };
        let (kind, device) = (Kind::Float, Device::Cpu);
        let setup = LearnerSetup { key: Key::new(1), kind, computed: kind, device, moments };
        let build = |scope: &mut crate::parameters::Scope<'_>| {
            let _ = scope.counter("seen");
            scope.constant("weight", &[1], 0.5)
        };
        Learner::new("model", config, setup, build).unwrap().0
    }

    fn header() -> Header {
        let learnt = LearntFrom {
            data_set: "phantom".to_owned(),
            digest: "00ff".to_owned(),
            fold: 1,
            annotation: "scribble".to_owned(),
            images: vec!["0123".to_owned()],
        };
        let config = "[data]\nfold = 1\n".to_owned();
        Header {
            method: "none".to_owned(),
            config,
            classes: vec!["background".to_owned(), "lesion".to_owned()],
            learnt_from: vec![learnt],
        }
    }

    const RETENTION: Retention = Retention { last: 2, every: 0 };

    /// Saves a checkpoint of step 40 on so many ranks.
    fn saved(folder: &Path, ranks: usize) -> PathBuf {
        let run =
            RunState { step: 40, best: vec![Best { step: 20, mean_dice: 0.25 }], rollback: None };
        let outcomes = threads::run(ranks, |comm| {
            let learner = learner(Moments::Whole);
            let store = CheckpointStore::new(folder);
            let mut saver = Saver::new(store, header(), RETENTION, Arc::clone(comm.control()));
            saver.begin(run.clone(), &[&learner])?;
            match saver.finish()? {
                Progress::Saved(saved) => Ok(saved.path),
                other => Err(Failure::new(format!("{other:?}"))),
            }
        });
        outcomes.into_iter().next().unwrap().unwrap()
    }

    /// Whether a checkpoint can be used, as every command that reads one decides.
    fn verified(path: &Path) -> Result<()> {
        read_manifest(path)?.verify()?;
        load(path, &Solo).map(drop)
    }

    fn said(result: Result<()>, path: &Path) -> String {
        let failure = result.expect_err("it is refused");
        failure.sentence().replace(&path.display().to_string(), "PATH")
    }

    #[test]
    fn every_flipped_bit_and_every_other_byte_of_a_manifest_is_noticed() {
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 2);
        verified(&path).unwrap();
        let whole = text(&path).unwrap().into_bytes();
        let refuse = |bytes: Vec<u8>, how: &str| {
            if let Ok(text) = String::from_utf8(bytes) {
                let failure = parse(&path, &text).map(drop).expect_err(how);
                let name = path.display().to_string();
                assert!(
                    failure.message().starts_with(&format!("checkpoint `{name}` is damaged")),
                    "{how}: {failure}"
                );
            }
        };
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[index] ^= 1 << bit;
                refuse(bytes, &format!("bit {bit} of byte {index}"));
            }
            for byte in
                [b'0', b'9', b' ', b'"', b'\n', 0].into_iter().filter(|b| *b != whole[index])
            {
                let mut bytes = whole.clone();
                bytes[index] = byte;
                refuse(bytes, &format!("byte {index} as {byte}"));
            }
            refuse(whole[..index].to_vec(), &format!("cut after {index}"));
            let more = [&whole[..index], b"1", &whole[index..]].concat();
            refuse(more, &format!("one more at {index}"));
        }
        refuse([whole.as_slice(), b"\n"].concat(), "one more line");
        // What is no text is refused where it is read.
        fs::write(path.join(MANIFEST), [&[0xff], &whole[1..]].concat()).unwrap();
        let expected = "checkpoint `PATH` is damaged: its `manifest.json` is no UTF-8 text";
        assert_eq!(said(verified(&path), &path), expected);
    }

    #[test]
    fn every_flipped_bit_of_a_shard_is_noticed() {
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 2);
        let checkpoint = read_manifest(&path).unwrap();
        for index in 0..2 {
            let file = path.join(&checkpoint.manifest.files[index].name);
            let whole = fs::read(&file).unwrap();
            for byte in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[byte] ^= 1 << (byte % 8);
                fs::write(&file, bytes).unwrap();
                assert!(checkpoint.verify().is_err(), "byte {byte}");
            }
            fs::write(&file, &whole).unwrap();
            checkpoint.verify().unwrap();
            for wrong in [whole[..whole.len() - 1].to_vec(), [&whole[..], b"\0"].concat()] {
                fs::write(&file, wrong).unwrap();
                assert!(checkpoint.verify().is_err());
            }
            fs::write(&file, &whole).unwrap();
        }
    }

    /// Writes a manifest with the digest that belongs to it.
    fn forge(path: &Path, value: &Value) {
        let body = serde_json::to_string_pretty(value).unwrap();
        let body = body.strip_suffix("\n}").unwrap();
        let digest = xxhash_rust::xxh3::xxh3_64(body.as_bytes());
        fs::write(path.join(MANIFEST), format!("{body},\n  \"xxh3\": \"{digest:016x}\"\n}}\n"))
            .unwrap();
    }

    fn manifest_value(path: &Path) -> Value {
        let mut value: Value = serde_json::from_str(&text(path).unwrap()).unwrap();
        value.as_object_mut().unwrap().remove("xxh3");
        value
    }

    /// A place in a manifest, what stands there, and what is said of it.
    type Change = (&'static str, Value, &'static str);

    fn impossible_files() -> Vec<Change> {
        vec![
            ("/run/step", json!(60), "is of step 60, its directory of step 40"),
            ("/run/best/0/step", json!(41), "has mean Dice 0.25 after step 41"),
            ("/run/best/0/mean_dice", json!(1.5), "has mean Dice 1.5 after step 20"),
            ("/files", json!([]), "lists no shards or no learners"),
            ("/learners", json!([]), "lists no shards or no learners"),
            (
                "/files/0/name",
                json!("../../../etc/passwd"),
                "lists file `../../../etc/passwd`, expected `shard-0000-of-0002.safetensors`",
            ),
            (
                "/files/1/name",
                json!("/dev/zero"),
                "lists file `/dev/zero`, expected `shard-0001-of-0002.safetensors`",
            ),
            (
                "/files/1/name",
                json!("shard-0000-of-0002.safetensors"),
                "lists file `shard-0000-of-0002.safetensors`, expected `shard-0001-of-0002.safetensors`",
            ),
        ]
    }

    fn impossible_learners() -> Vec<Change> {
        vec![
            ("/learners/0/flat", json!([]), "lists no weights of learner `model`"),
            (
                "/learners/0/flat",
                json!(["momentum", "weights"]),
                "lists no weights of learner `model`",
            ),
            ("/learners/0/flat", json!(["weights", "weights"]), "names a tensor twice"),
            ("/learners/0/flat", json!(["weights", "buffer/seen"]), "names a tensor twice"),
            ("/learners/0/parameters", json!([]), "lists no weights of learner `model`"),
            (
                "/learners/0/parameters/0/shape",
                json!([-1]),
                "puts `weight` of learner `model` with shape [-1] to element 0",
            ),
            (
                "/learners/0/parameters/0/shape",
                json!([i64::MAX, 4]),
                "puts `weight` of learner `model` with shape [9223372036854775807, 4] to element 0",
            ),
            (
                "/learners/0/parameters/0/shape",
                json!([17]),
                "has 16 elements of learner `model`, which end at 17",
            ),
            (
                "/learners/0/parameters/0/offset",
                json!(1),
                "puts `weight` of learner `model` with shape [1] to element 1",
            ),
            (
                "/learners/0/parameters/0/offset",
                json!(-16),
                "puts `weight` of learner `model` with shape [1] to element -16",
            ),
            (
                "/learners/0/parameters/0/name",
                json!("seen"),
                "names a tensor of learner `model` twice",
            ),
            (
                "/learners/0/elements",
                json!(32),
                "has 32 elements of learner `model`, which end at 1",
            ),
            (
                "/learners/0/elements",
                json!(-16),
                "has -16 elements of learner `model`, which end at 1",
            ),
            ("/learners/0/elements", json!(0), "has 0 elements of learner `model`, which end at 1"),
        ]
    }

    #[test]
    fn what_no_checkpoint_can_say_is_refused_whatever_its_digest() {
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 2);
        let sound = manifest_value(&path);
        forge(&path, &sound);
        verified(&path).unwrap();
        let learner = "/learners/0";
        for (place, value, expected) in impossible_files().into_iter().chain(impossible_learners())
        {
            let mut forged = sound.clone();
            *forged.pointer_mut(place).unwrap() = value;
            forge(&path, &forged);
            let expected = format!("checkpoint `PATH` is damaged: its `manifest.json` {expected}");
            assert_eq!(said(verified(&path), &path), expected, "{place}");
        }
        let mut twice = sound.clone();
        let copy = sound.pointer(learner).unwrap().clone();
        twice["learners"].as_array_mut().unwrap().push(copy);
        forge(&path, &twice);
        assert!(said(verified(&path), &path).ends_with("names a tensor twice"));
        for (name, expected) in [
            ("flat", "`shard-0000-of-0002.safetensors` also holds `model/momentum`"),
            ("buffers", "`shard-0000-of-0002.safetensors` also holds `model/buffer/seen`"),
        ] {
            let mut less = sound.clone();
            less.pointer_mut(learner).unwrap()[name].as_array_mut().unwrap().pop();
            forge(&path, &less);
            let expected = format!("checkpoint `PATH` is damaged: {expected}");
            assert_eq!(said(verified(&path), &path), expected);
        }
    }

    /// Rewrites the table of a shard; its digest and size in the manifest are made to fit.
    fn forge_table(path: &Path, index: usize, change: impl Fn(&mut Value)) {
        let mut manifest = manifest_value(path);
        let file = path.join(manifest["files"][index]["name"].as_str().unwrap());
        let whole = fs::read(&file).unwrap();
        let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let mut table: Value = serde_json::from_slice(&whole[8..8 + length]).unwrap();
        change(&mut table);
        let table = serde_json::to_vec(&table).unwrap();
        let bytes =
            [&(table.len() as u64).to_le_bytes(), table.as_slice(), &whole[8 + length..]].concat();
        manifest["files"][index]["bytes"] = json!(bytes.len());
        let digest = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes));
        manifest["files"][index]["xxh3"] = json!(digest);
        fs::write(file, bytes).unwrap();
        forge(path, &manifest);
    }

    #[test]
    fn shards_hold_what_the_manifest_says_and_nothing_else() {
        let huge = 1_i64 << 62;
        let changes: [(&str, &str, Value, &str); 9] = [
            ("weights", "dtype", json!("I64"), "puts `model/weights`, I64 [8], to bytes [8, 40]"),
            ("weights", "dtype", json!("X"), "puts `model/weights`, X [8], to bytes [8, 40]"),
            ("weights", "shape", json!([2, 4]), "holds `model/weights` as [2, 4], expected [8]"),
            ("weights", "shape", json!([-8]), "puts `model/weights`, F32 [-8], to bytes [8, 40]"),
            (
                "weights",
                "shape",
                json!([huge, 4]),
                "puts `model/weights`, F32 [4611686018427387904, 4], to bytes [8, 40]",
            ),
            (
                "weights",
                "data_offsets",
                json!([u64::MAX - 1, u64::MAX]),
                "puts `model/momentum`, F32 [8], to bytes [40, 72]",
            ),
            (
                "momentum",
                "data_offsets",
                json!([8, 40]),
                "puts `model/weights`, F32 [8], to bytes [8, 40]",
            ),
            (
                "momentum",
                "data_offsets",
                json!([0, 0]),
                "puts `model/momentum`, F32 [8], to bytes [0, 0]",
            ),
            ("weights", "shape", json!(null), "has no table that can be read"),
        ];
        for (tensor, field, value, expected) in changes {
            let folder = TempDir::new().unwrap();
            let path = saved(folder.path(), 2);
            let tensor = format!("model/{tensor}");
            forge_table(&path, 0, |table| table[&tensor][field] = value.clone());
            let expected = format!(
                "checkpoint `PATH` is damaged: `shard-0000-of-0002.safetensors` {expected}"
            );
            assert_eq!(said(verified(&path), &path), expected);
        }
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 2);
        forge_table(&path, 1, |table| drop(table.as_object_mut().unwrap().remove("model/weights")));
        let expected =
            "checkpoint `PATH` is damaged: `shard-0001-of-0002.safetensors` lacks `model/weights`";
        assert_eq!(said(verified(&path), &path), expected);
    }

    #[test]
    fn shards_of_two_precisions_are_no_checkpoint() {
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 2);
        let mut manifest = manifest_value(&path);
        let name = manifest["files"][1]["name"].as_str().unwrap().to_owned();
        let tensor =
            |name: &str| (format!("model/{name}"), Tensor::zeros([8], (Kind::Double, Device::Cpu)));
        let written =
            shard::write(&path.join(name), &[tensor("weights"), tensor("momentum")]).unwrap();
        manifest["files"][1] = serde_json::to_value(written).unwrap();
        forge(&path, &manifest);
        let expected = "checkpoint `PATH` is damaged: its shards hold numbers of F32 and F64";
        assert_eq!(said(verified(&path), &path), expected);
        assert_eq!(said(load(&path, &Solo).map(drop), &path), expected);
    }

    #[test]
    fn what_is_missing_or_no_file_is_not_called_damaged_and_nobody_waits_for_it() {
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 1);
        let shard = path.join("shard-0000-of-0001.safetensors");
        fs::remove_file(&shard).unwrap();
        let expected = "checkpoint `PATH` lacks `shard-0000-of-0001.safetensors`";
        assert_eq!(said(verified(&path), &path), expected);
        mkfifoat(CWD, &shard, Mode::from_raw_mode(0o600)).unwrap();
        let expected = "cannot read `PATH/shard-0000-of-0001.safetensors`: it is a named pipe, expected a file";
        assert_eq!(said(verified(&path), &path), expected);
        fs::remove_file(&shard).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &shard).unwrap();
        assert!(said(verified(&path), &path).ends_with("it is a device, expected a file"));
        let manifest = path.join(MANIFEST);
        fs::remove_file(&manifest).unwrap();
        let expected = "`PATH` is no checkpoint: it holds no `manifest.json`";
        assert_eq!(said(verified(&path), &path), expected);
        mkfifoat(CWD, &manifest, Mode::from_raw_mode(0o600)).unwrap();
        let expected = "cannot read `PATH/manifest.json`: it is a named pipe, expected a file";
        assert_eq!(said(verified(&path), &path), expected);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(said(verified(&path), &path), "`PATH` is no checkpoint: nothing is there");
        fs::write(&path, "").unwrap();
        let expected = "`PATH` is no checkpoint: it is a file, expected a directory";
        assert_eq!(said(verified(&path), &path), expected);
    }

    #[test]
    fn the_layout_before_is_read_and_another_one_says_who_can_read_it() {
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 1);
        let mut old = manifest_value(&path);
        old["schema"] = json!(2);
        for field in ["learnt_from", "classes"] {
            assert!(old.as_object_mut().unwrap().remove(field).is_some(), "{field}");
        }
        fs::write(path.join(MANIFEST), serde_json::to_string_pretty(&old).unwrap()).unwrap();
        verified(&path).unwrap();
        let Manifest { learnt_from, classes, .. } = read_manifest(&path).unwrap().manifest;
        assert!(learnt_from.is_empty() && classes.is_empty());
        forge(&path, &old);
        assert!(said(verified(&path), &path).ends_with("has another layout"));
        old["schema"] = json!(3);
        fs::write(path.join(MANIFEST), serde_json::to_string_pretty(&old).unwrap()).unwrap();
        assert!(said(verified(&path), &path).ends_with("has no digest"));
        forge(&path, &json!({"schema": 7, "code_version": "9.1.0", "shape": "unheard of"}));
        let failure = read_manifest(&path).unwrap_err().to_string();
        insta::assert_snapshot!(failure.replace(path.to_str().unwrap(), "PATH"), @r"
    error: `PATH/manifest.json` has layout 7, expected 2 to 4

    hint: scrimp 9.1.0 wrote it and can read it
    ");
    }

    /// A learner with the weights of convolutions, drawn from `seed`, and a bias.
    fn convolution(seed: u64, moments: Moments) -> Learner {
        let adam = crate::train::optimizer::AdamConfig::default();
        let config = LearnerConfig {
            lr: 0.5,
            schedule: Schedule::Constant,
            clip_norm: 0.0,
            optimizer: OptimizerConfig::AdamW(adam),
        };
        let (kind, device) = (Kind::Float, Device::Cpu);
        let setup = LearnerSetup { key: Key::new(seed), kind, computed: kind, device, moments };
        let build = |scope: &mut crate::parameters::Scope<'_>| {
            let _ = scope.uniform("weight", &[3, 5, 2, 2], 1.0);
            let _ = scope.uniform("weight_of_volumes", &[2, 3, 2, 1, 2], 1.0);
            let _ = scope.uniform("bias", &[3], 1.0);
        };
        Learner::new("model", config, setup, build).unwrap().0
    }

    /// Saves on two ranks what a learner has, with moments counted up, in the layout before.
    fn saved_plain(folder: &Path, learner: &Learner) -> PathBuf {
        for flat in learner.flat_parts().iter().skip(1) {
            let values = Tensor::arange(flat.total as i64, (Kind::Float, Device::Cpu));
            flat.tensor.shallow_clone().copy_(&values);
        }
        let outcomes = threads::run(2, |comm| {
            let store = CheckpointStore::new(folder);
            let mut saver = Saver::new(store, header(), RETENTION, Arc::clone(comm.control()));
            let copy = convolution(1, Moments::Whole);
            saver.begin(RunState { step: 40, ..RunState::default() }, &[&copy])?;
            match saver.finish()? {
                Progress::Saved(saved) => Ok(saved.path),
                other => Err(Failure::new(format!("{other:?}"))),
            }
        });
        let path = outcomes.into_iter().next().unwrap().unwrap();
        let mut manifest = manifest_value(&path);
        manifest["schema"] = json!(3);
        for rank in 0..2 {
            let shares = learner.flat_parts().into_iter().map(|flat| {
                let plain = flat.tensor.zeros_like();
                for slot in learner.slots() {
                    slot.plain_view(&plain).copy_(&slot.view(&flat.tensor));
                }
                let share = crate::shares::local_share(flat.total, 2, rank);
                let share = plain.narrow(0, share.start as i64, share.len() as i64);
                (flat_name("model", flat.name), share.contiguous())
            });
            let name = manifest["files"][rank]["name"].as_str().unwrap().to_owned();
            let written = shard::write(&path.join(name), &shares.collect::<Vec<_>>()).unwrap();
            manifest["files"][rank] = serde_json::to_value(written).unwrap();
        }
        forge(&path, &manifest);
        path
    }

    #[test]
    fn weights_and_moments_of_the_layout_before_come_to_their_places() {
        let folder = TempDir::new().unwrap();
        let saved = Arc::new(std::sync::Mutex::new(convolution(1, Moments::Whole)));
        let path = saved_plain(folder.path(), &saved.lock().unwrap());
        for (ranks, is_shared) in [(1, false), (2, true), (3, true), (3, false)] {
            let outcomes = threads::run(ranks, |comm| {
                let rank = comm.rank();
                let moments = Moments::Share { rank, ranks };
                let moments = if is_shared { moments } else { Moments::Whole };
                let method = Tiny(convolution(2, moments));
                restore_chosen(&|| Ok(path.clone()), &method, &comm)?;
                let saved = saved.lock().unwrap();
                for (expected, found) in saved.flat_parts().iter().zip(method.0.flat_parts()) {
                    let start = found.start as i64;
                    let expected = expected.tensor.narrow(0, start, found.tensor.numel() as i64);
                    // Padding is never saved as anything but zero, nor used.
                    for place in 0..found.tensor.size()[0] {
                        let is_used = saved.slots().iter().any(|slot| {
                            (slot.offset..slot.offset + slot.count()).contains(&(start + place))
                        });
                        let [wanted, found_there] =
                            [&expected, &found.tensor].map(|t| t.get(place));
                        assert!(!is_used || wanted.equal(&found_there), "{} {place}", found.name);
                    }
                }
                for (expected, found) in saved.entries().iter().zip(method.0.entries()) {
                    assert!(expected.tensor.equal(&found.tensor), "{}", found.name);
                }
                Ok(())
            });
            for outcome in outcomes {
                outcome.unwrap();
            }
        }
        let to = folder.path().join("weights.safetensors");
        read_manifest(&path).unwrap().export(&to).unwrap();
        let exported = Tensor::read_safetensors(&to).unwrap();
        for (name, tensor) in exported {
            let saved = saved.lock().unwrap();
            let entry = saved.entries().iter().find(|entry| entry.name == name).unwrap();
            assert!(tensor.equal(&entry.tensor), "{name}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(|number| json!(number)),
            prop::sample::select(vec![
                json!(null),
                json!([]),
                json!({}),
                json!(""),
                json!([-1]),
                json!([1_i64 << 62, 4]),
                json!(u64::MAX),
                json!(i64::MIN),
                json!(0.5),
                json!("../../etc/passwd"),
            ]),
        ]
    }

    /// The places of all values in a JSON text.
    fn places(value: &Value, at: &str, found: &mut Vec<String>) {
        let mut below = |key: &str, value: &Value| {
            let place = format!("{at}/{}", key.replace('/', "~1"));
            found.push(place.clone());
            places(value, &place, found);
        };
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| below(key, value)),
            Value::Array(all) => {
                all.iter().enumerate().for_each(|(key, value)| below(&key.to_string(), value));
            }
            _ => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn forged_manifests_and_tables_end_in_words(
            in_table in any::<bool>(), choice in any::<prop::sample::Index>(), value in any_value(),
        ) {
            let folder = TempDir::new().unwrap();
            let path = saved(folder.path(), 1);
            let change = |all: &mut Value| {
                let mut found = Vec::new();
                places(all, "", &mut found);
                *all.pointer_mut(choice.get(&found[..]).as_str()).unwrap() = value.clone();
            };
            if in_table {
                forge_table(&path, 0, change);
            } else {
                let mut forged = manifest_value(&path);
                change(&mut forged);
                forge(&path, &forged);
            }
            let to = folder.path().join("weights");
            // What is accepted can be used.
            match verified(&path) {
                Ok(()) => read_manifest(&path).unwrap().export(&to).unwrap(),
                Err(failure) => prop_assert!(!failure.to_string().contains("frame #")),
            }
        }
    }

    struct Tiny(Learner);

    impl Method for Tiny {
        fn step(
            &mut self,
            _batch: &crate::data::batch::Batch,
            _cx: &mut StepContext<'_>,
        ) -> Result<()> {
            Ok(())
        }
        fn forward(&self, image: &Tensor, _mode: ForwardMode) -> Result<Tensor> {
            Ok(image.shallow_clone())
        }
        fn form(&self, _point: &StepPoint) -> Option<u32> {
            None
        }
        fn learners(&self) -> Vec<&Learner> {
            vec![&self.0]
        }
    }

    #[test]
    fn ranks_without_a_share_save_and_restore_as_the_others() {
        for ranks in [2, 3, 17] {
            let folder = TempDir::new().unwrap();
            let outcomes = threads::run(ranks, |comm| {
                let shared = || learner(Moments::Share { rank: comm.rank(), ranks });
                let (kept, store) = (shared(), CheckpointStore::new(folder.path()));
                kept.restore_updates(7);
                let mut saver = Saver::new(store, header(), RETENTION, Arc::clone(comm.control()));
                saver.begin(RunState { step: 3, ..RunState::default() }, &[&kept])?;
                let Progress::Saved(saved) = saver.finish()? else {
                    return Err(Failure::new("it is not saved"));
                };
                let method = Tiny(shared());
                let found = restore_chosen(&|| Ok(saved.path.clone()), &method, &comm)?;
                refuse_differing_ranks(&method.learners(), &*comm)?;
                assert_eq!(method.0.updates(), 7);
                Ok(found.manifest.files.len())
            });
            for outcome in outcomes {
                assert_eq!(outcome.unwrap(), ranks);
            }
        }
    }

    #[test]
    fn a_checkpoint_that_is_removed_while_it_is_read_is_chosen_again_on_all_ranks() {
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 1);
        let gone = path.with_file_name("step-00000039");
        let is_first = AtomicBool::new(true);
        let choose = || {
            let first = is_first.swap(false, Ordering::Relaxed);
            Ok(if first { gone.clone() } else { path.clone() })
        };
        let outcomes =
            threads::run(2, |comm| restore_chosen(&choose, &Tiny(learner(Moments::Whole)), &comm));
        for outcome in outcomes {
            assert_eq!(outcome.unwrap().path, path);
        }
        let outcomes = threads::run(2, |comm| {
            restore_chosen(&|| Ok(gone.clone()), &Tiny(learner(Moments::Whole)), &comm)
        });
        assert_eq!(outcomes.into_iter().filter(Result::is_err).count(), 2);
    }

    /// A store whose process has lost the folder.
    fn lost(folder: &Path) -> CheckpointStore {
        CheckpointStore::new(folder).guarded(Arc::new(|| Err(Failure::new("it is lost"))))
    }

    #[test]
    fn nothing_is_changed_where_the_folder_belongs_to_somebody_else() {
        let folder = TempDir::new().unwrap();
        let path = saved(folder.path(), 1);
        fs::create_dir(folder.path().join("step-00000041.tmp")).unwrap();
        let before = names(folder.path());
        let store = lost(folder.path());
        assert_eq!(store.sweep().unwrap_err().message(), "it is lost");
        assert_eq!(store.set_aside_after(None).unwrap_err().message(), "it is lost");
        assert!(!store.remove(&path));
        assert_eq!(store.prune(Retention { last: 1, every: 0 }, &[]), Vec::<PathBuf>::new());
        store.discard(41);
        let mut saver = Saver::new(store, header(), RETENTION, Arc::new(Solo));
        let learner = learner(Moments::Whole);
        saver.begin(RunState { step: 41, ..RunState::default() }, &[&learner]).unwrap();
        let Progress::Failed(failure) = saver.finish().unwrap() else { panic!("it is saved") };
        let failure = failure.to_string();
        assert!(
            failure.contains("caused by: it is lost") && !failure.contains("make room"),
            "{failure}"
        );
        assert_eq!(names(folder.path()), before);
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_name_that_is_taken_is_no_full_disk() {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("step-00000041/mine")).unwrap();
        let store = CheckpointStore::new(folder.path());
        let mut saver = Saver::new(store, header(), RETENTION, Arc::new(Solo));
        let learner = learner(Moments::Whole);
        saver.begin(RunState { step: 41, ..RunState::default() }, &[&learner]).unwrap();
        let Progress::Failed(failure) = saver.finish().unwrap() else { panic!("it is saved") };
        insta::assert_snapshot!(failure.to_string().replace(folder.path().to_str().unwrap(), "FOLDER"), @r"
    error: cannot save checkpoint `FOLDER/step-00000041`
      caused by: cannot rename `FOLDER/step-00000041.tmp`: Directory not empty (os error 39)

    hint: the same command goes on from the newest checkpoint
    ");
    }

    #[test]
    fn foreign_names_are_left_alone_and_ours_are_ordered_as_numbers() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (ours, foreign) = (
            ["step-00000009", "step-99999999", "step-100000000", "step-1000000000"],
            [
                "notes.tmp",
                "step-7",
                "step-00000007.tmp.gz",
                "step-00000007.set-aside-x",
                "step-0000007x",
            ],
        );
        ours.iter().chain(&foreign).for_each(|name| fs::create_dir(at(name)).unwrap());
        fs::write(at("more.tmp"), "mine").unwrap();
        fs::write(at("step-00000040"), "mine").unwrap();
        fs::write(at("step-00000041.tmp"), "mine").unwrap();
        fs::create_dir(at("step-00000042.tmp")).unwrap();
        let store = CheckpointStore::new(folder.path());
        let order = [
            "step-00000009",
            "step-00000040",
            "step-99999999",
            "step-100000000",
            "step-1000000000",
        ];
        assert_eq!(store.paths().unwrap(), order.map(at));
        assert_eq!(store.sweep().unwrap(), [at("step-00000042.tmp")]);
        let later = [
            "step-00000040",
            "step-00000041.tmp",
            "step-99999999",
            "step-100000000",
            "step-1000000000",
        ];
        assert_eq!(store.set_aside_after(Some(9)).unwrap(), later.map(at));
        // A second one of the same step leaves the first.
        fs::create_dir(at("step-99999999")).unwrap();
        store.set_aside_after(Some(9)).unwrap();
        let mut expected: Vec<String> = [
            "step-00000009",
            "step-00000040.set-aside",
            "step-00000041.set-aside",
            "step-99999999.set-aside",
            "step-99999999.set-aside-2",
            "step-100000000.set-aside",
            "step-1000000000.set-aside",
            "more.tmp",
        ]
        .iter()
        .chain(&foreign)
        .map(|name| (*name).to_owned())
        .collect();
        expected.sort();
        assert_eq!(names(folder.path()), expected);
        assert_eq!(store.set_aside().unwrap().len(), 6);
        assert!(!store.remove(&at("step-00000040.set-aside")));
        assert!(store.remove(&at("step-99999999.set-aside-2")));
        assert_eq!(fs::read(at("step-00000040.set-aside")).unwrap(), b"mine");
        // A folder that cannot be listed is not an empty one.
        assert!(CheckpointStore::new(at("more.tmp")).paths().is_err());
        assert_eq!(CheckpointStore::new(at("nowhere")).paths().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_best_scores_are_kept_in_order() {
        let mut state = RunState::default();
        let mut take = |step, mean_dice| state.take_score(Best { step, mean_dice }, 2);
        let scores = [(1, 0.5), (2, f64::NAN), (3, 0.4), (4, 0.3), (5, 0.5), (6, 0.5), (7, 0.6)];
        let taken = scores.map(|(step, dice)| take(step, dice));
        assert_eq!(taken, [true, false, true, false, true, false, true]);
        assert_eq!(state.best.iter().map(|best| best.step).collect::<Vec<_>>(), [7, 1]);
    }
}
