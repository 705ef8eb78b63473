//! `train.graph`: replayed steps train what computed steps train, to the last bit.
//!
//! On a CPU a replayed step is computed from what was recorded of it: the point of the recorded step,
//! its batch's memory with new contents, and the numbers that were renewed. A number that a method took
//! from the point itself would be that of the wrong step.

use crate::running::{Ended, SMOKE, Train};
use scrimp::runlog::Step;
use scrimp::train::checkpoint::{FileDigest, read_manifest};
use std::collections::BTreeMap;
use tempfile::TempDir;

/// Dropout and augmentation draw all the time.
const RUN: [&str; 2] = ["train.batch_size=4", "net.dropout=true"];

fn numbers(run: &Ended) -> Vec<(u64, BTreeMap<String, f64>)> {
    let of = |step: Step| {
        let named = |prefix: &str, of: BTreeMap<String, f64>| {
            of.into_iter().map(move |(name, n)| (format!("{prefix}{name}"), n)).collect::<Vec<_>>()
        };
        let all = [
            named("", step.loss),
            named("", step.observed),
            named("lr ", step.lr),
            named("norm ", step.grad_norm),
        ];
        (step.step, all.concat().into_iter().collect())
    };
    run.steps().into_values().map(of).collect()
}

fn digests(run: &Ended, steps: u64) -> Vec<FileDigest> {
    read_manifest(&run.run.checkpoints().join(format!("step-{steps:08}"))).unwrap().manifest.files
}

/// A run as it comes and one that is replayed, of so many ranks and steps.
fn both(
    folder: &TempDir,
    (config, keys): (&str, &[&str]),
    (ranks, steps): (usize, u64),
) -> [Ended; 2] {
    ["false", "true"].map(|graph| {
        let run = folder.path().join(graph);
        let train = Train::new(config, &run).sets(&RUN);
        let train = ["total_steps", "log_every", "evaluate_every", "save_every"]
            .iter()
            .fold(train, |train, key| train.set(&format!("train.{key}={steps}")))
            .sets(keys)
            .set(&format!("train.graph={graph}"));
        let train = if ranks > 1 { train.under_mpirun(ranks) } else { train };
        train.succeed()
    })
}

#[test]
fn replayed_steps_are_those_that_would_have_been_computed() {
    let clipped = "method.params.learner.clip_norm=1.0";
    let adam = "method.params.learner.optimizer={ adamw = { weight_decay = 0.01 } }";
    let ramp =
        "method.params.intensity_variance={ weight = 0.1, ramp_units = 3, ramp_unit_steps = 4 }";
    // The last batch of an epoch is smaller, and every second step is logged.
    let uneven = ["train.batch_size=6", "train.log_every=2", "train.micro_batches=2"];
    let rising = ["method.params.shape.warm_up=0.45", "method.params.masks=overlapping", clipped];
    for (config, keys, ranks, steps) in [
        (SMOKE, [&uneven[..], &[adam, ramp, clipped]].concat(), 2, 24),
        ("configs/smoke/maskmixadv.toml", rising.to_vec(), 1, 14),
        // What is drawn for a mix differs in every step, and so does who is mixed with whom.
        (SMOKE, vec!["method.params.mixing=cutmix"], 2, 8),
        ("configs/smoke/dmpls.toml", vec![], 1, 8),
        ("configs/smoke/dmsps.toml", vec!["method.params.warm_up_steps=4"], 1, 8),
        ("configs/smoke/cltn.toml", vec!["method.params.average=0.9"], 1, 7),
        // The last batch of an epoch is smaller, and the learning rate changes with the third one.
        (
            "configs/smoke/gazesup.toml",
            vec!["train.batch_size=5", "data.gaze_phantom.cases=14"],
            1,
            8,
        ),
        // In four ways, as its images are turned.
        ("configs/smoke/ustm.toml", vec![], 1, 24),
    ] {
        let folder = TempDir::new().unwrap();
        let [computed, replayed] = both(&folder, (config, &keys), (ranks, steps));
        assert_eq!(numbers(&computed), numbers(&replayed), "{config} {keys:?}");
        assert_eq!(digests(&computed, steps), digests(&replayed, steps), "{config} {keys:?}");
        assert_eq!(replayed.warnings(), computed.warnings(), "{config} {keys:?}");
    }
}

#[test]
fn what_cannot_be_replayed_is_computed_with_a_warning() {
    let folder = TempDir::new().unwrap();
    let config = "configs/smoke/scribble2label.toml";
    let [computed, replayed] = both(&folder, (config, &[]), (1, 4));
    assert_eq!(digests(&computed, 4), digests(&replayed, 4));
    let warnings = replayed.warnings();
    let warned = warnings.iter().filter(|warning| warning.contains("`train.graph`"));
    assert_eq!(warned.count(), 1, "{warnings:?}");
}
