//! Rank agreement: the same training, whatever the number of ranks.
//!
//! In double precision whole runs agree, in single precision single steps do: rounding alone moves
//! a single-precision run by percents within ten steps.

use crate::running::{Ended, SMOKE, Train};
use scrimp::runlog::{RunEvent, Step};
use scrimp::train::checkpoint::{FileDigest, read_manifest};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// Sixteen slices in batches of 5, 5, 5 and 1: shares of ranks are uneven, and some are empty.
const UNEVEN: [&str; 4] =
    ["data.phantom.slices=2", "train.batch_size=5", "train.evaluate_every=10", "net.dropout=true"];

/// Twenty steps, that is five epochs, in which dropout and augmentation draw all the time.
fn verification(run: &Path) -> Train {
    verification_of(SMOKE, run)
}

fn verification_of(config: &str, run: &Path) -> Train {
    Train::new(config, run).sets(&UNEVEN).sets(&[
        "train.precision=fp64",
        "train.total_steps=20",
        "train.save_every=20",
    ])
}

/// Two epochs, where one step takes a while.
const SHORT: [&str; 3] = ["train.total_steps=8", "train.evaluate_every=4", "train.save_every=8"];

/// Every loss term and gradient norm of a step under its name.
fn numbers(step: &Step) -> BTreeMap<String, f64> {
    let norms = step.grad_norm.iter().map(|(name, norm)| (format!("{name}/grad_norm"), *norm));
    step.loss.clone().into_iter().chain(step.observed.clone()).chain(norms).collect()
}

fn assert_close(found: &Step, expected: &Step, tolerance: f64) {
    let (found_numbers, expected_numbers) = (numbers(found), numbers(expected));
    assert!(found_numbers.len() >= 2 && found_numbers.keys().eq(expected_numbers.keys()));
    for (name, expected_number) in expected_numbers {
        let scale = expected_number.abs().max(f64::MIN_POSITIVE);
        let difference = (found_numbers[&name] - expected_number).abs() / scale;
        assert!(difference <= tolerance, "`{name}` of step {}: {difference}", found.step);
    }
}

fn assert_same_run(found: &Ended, expected: &Ended) {
    let (found_steps, expected_steps) = (found.steps(), expected.steps());
    let count = expected_steps.len() as u64;
    assert!(count >= 8 && found_steps.keys().copied().eq(1..=count));
    for (step, expected_step) in expected_steps {
        assert_close(&found_steps[&step], &expected_step, 1e-9);
    }
    assert_eq!(dice(found), dice(expected));
}

/// Every validation score, by step.
fn dice(run: &Ended) -> BTreeMap<u64, f64> {
    let score = |event| match event {
        RunEvent::Evaluated(scores) => Some((scores.step, scores.mean_dice)),
        _ => None,
    };
    run.events().into_iter().filter_map(score).collect()
}

#[test]
fn rank_agreement_over_twenty_steps_on_one_to_four_ranks() {
    let folder = TempDir::new().unwrap();
    let alone = verification(&folder.path().join("alone")).succeed();
    for ranks in 1..=4 {
        let run = folder.path().join(format!("{ranks}-ranks"));
        assert_same_run(&verification(&run).under_mpirun(ranks).succeed(), &alone);
    }
}

#[test]
fn rank_agreement_of_two_players() {
    for mode in [
        ["method.params.adversary=shape", "method.params.masks=overlapping"],
        ["method.params.masks=per_sample", "method.params.largest_component=true"],
        ["method.params.adversary=detached", "method.params.masks=shared"],
    ] {
        let folder = TempDir::new().unwrap();
        let train = |name: &str| {
            let run = folder.path().join(name);
            verification_of("configs/smoke/maskmixadv.toml", &run).sets(&mode).sets(&SHORT)
        };
        let alone = train("alone").succeed();
        assert_same_run(&train("shared").under_mpirun(3).succeed(), &alone);
    }
}

#[test]
fn rank_agreement_of_methods_that_label_for_themselves() {
    for method in ["scribble2label", "ustm", "dmpls", "dmsps"] {
        let folder = TempDir::new().unwrap();
        let train = |name: &str| {
            let config = format!("configs/smoke/{method}.toml");
            let train = verification_of(&config, &folder.path().join(name));
            match method {
                "scribble2label" => {
                    train.sets(&["data.fit=crop", "data.size=16", "data.augment=full_rotation"])
                }
                _ => train,
            }
        };
        let alone = train("alone").succeed();
        assert_same_run(&train("shared").under_mpirun(3).succeed(), &alone);
    }
}

#[test]
fn rank_agreement_of_images_mixed_over_ranks() {
    let folder = TempDir::new().unwrap();
    let train = |name: &str| {
        verification_of("configs/smoke/cyclemix.toml", &folder.path().join(name))
            .set("method.params.transport_labels=true")
    };
    let alone = train("alone").succeed();
    for ranks in 2..=4 {
        let run = format!("{ranks}-ranks");
        assert_same_run(&train(&run).under_mpirun(ranks).succeed(), &alone);
    }
}

#[test]
fn rank_agreement_in_micro_batches() {
    for config in [SMOKE, "configs/smoke/scribble2label.toml"] {
        let folder = TempDir::new().unwrap();
        let train = |name: &str| {
            verification_of(config, &folder.path().join(name)).set("train.micro_batches=2")
        };
        let alone = train("alone").succeed();
        assert_same_run(&train("shared").under_mpirun(2).succeed(), &alone);
    }
}

#[test]
fn rank_agreement_of_networks_taught_by_gaze() {
    let folder = TempDir::new().unwrap();
    let train = |name: &str| {
        // Sixteen pictures in batches of 5, the last of one: shares of ranks are uneven, and some are empty.
        Train::new("configs/smoke/gazesup.toml", &folder.path().join(name)).sets(&[
            "train.precision=fp64",
            "train.total_steps=8",
            "train.evaluate_every=4",
            "train.save_every=8",
            "train.batch_size=5",
            "data.gaze_phantom.cases=16",
        ])
    };
    let alone = train("alone").succeed();
    for ranks in 2..=4 {
        let run = format!("{ranks}-ranks");
        assert_same_run(&train(&run).under_mpirun(ranks).succeed(), &alone);
    }
}

#[test]
fn rank_agreement_of_label_transfer() {
    let folder = TempDir::new().unwrap();
    let train = |name: &str| {
        Train::new("configs/smoke/cltn.toml", &folder.path().join(name)).sets(&[
            "train.precision=fp64",
            "train.total_steps=20",
            "train.evaluate_every=10",
            "train.save_every=20",
            "train.batch_size=3",
            "method.params.average=0.9",
        ])
    };
    let alone = train("alone").succeed();
    assert_same_run(&train("whole").under_mpirun(3).succeed(), &alone);
    let shared = train("shared").set("train.shard_optimizer=true").under_mpirun(2).succeed();
    assert_same_run(&shared, &alone);
}

#[test]
fn rank_agreement_of_all_regularisers_at_once() {
    let folder = TempDir::new().unwrap();
    let train = |name: &str| {
        verification(&folder.path().join(name)).sets(&[
            "method.params.dice=0.5",
            "method.params.entropy=0.1",
            "method.params.contour_length.weight=0.01",
            "method.params.gated_crf.weight=0.1",
            "method.params.mumford_shah.weight=1e-6",
            "method.params.intensity_variance.weight=0.1",
        ])
    };
    let alone = train("alone").succeed();
    assert_same_run(&train("shared").under_mpirun(3).succeed(), &alone);
}

#[test]
fn rank_agreement_on_patches_of_volumes() {
    for (config, slices) in [
        ("configs/smoke/partial-ce-3d.toml", 2),
        // Normalised over a few voxels that hardly differ, a network makes of rounding what it likes.
        ("configs/smoke/dmsps-3d.toml", 16),
    ] {
        let folder = TempDir::new().unwrap();
        let train = |name: &str| {
            let train = verification_of(config, &folder.path().join(name)).sets(&SHORT);
            train.set(&format!("data.phantom.slices={slices}"))
        };
        let alone = train("alone").succeed();
        assert_same_run(&train("shared").under_mpirun(3).succeed(), &alone);
    }
}

/// The digests of the last checkpoint's shards: weights, moments and buffers of every rank.
fn digests(run: &Ended, step: u64) -> Vec<FileDigest> {
    read_manifest(&run.run.checkpoints().join(format!("step-{step:08}"))).unwrap().manifest.files
}

#[test]
fn optimisers_whose_state_is_shared_out_give_the_same_bits() {
    let folder = TempDir::new().unwrap();
    for (config, ranks) in [(SMOKE, 2), (SMOKE, 3), ("configs/smoke/maskmixadv.toml", 3)] {
        let train = |name: &str, keys: &[&str]| {
            let run = folder.path().join(format!("{ranks}-{}-{name}", config.len()));
            let lengths = ["train.total_steps=8", "train.save_every=4", "train.threads=1"];
            Train::new(config, &run).sets(&UNEVEN).sets(&lengths).sets(keys).under_mpirun(ranks)
        };
        let whole = train("whole", &[]).succeed();
        let shared = train("shared", &["train.shard_optimizer=true"]).succeed();
        assert_eq!(whole.steps().len(), shared.steps().len());
        for (step, expected) in whole.steps() {
            assert_eq!(numbers(&shared.steps()[&step]), numbers(&expected), "step {step}");
        }
        assert_eq!(digests(&shared, 8), digests(&whole, 8));
    }
}

#[test]
fn shared_out_state_is_resumed_on_any_number_of_ranks_and_put_together_again() {
    let folder = TempDir::new().unwrap();
    let train = |name: &str, steps: &str| {
        let run = folder.path().join(name);
        verification(&run).sets(&["train.save_every=5", "train.keep_checkpoints=9", steps])
    };
    let whole = train("whole", "train.total_steps=20").succeed().steps();
    let mut from: Option<String> = None;
    for (ranks, shared, first_step) in [(3, true, 1), (2, true, 6), (2, false, 11), (4, true, 16)] {
        let name = format!("from-{first_step}");
        let shared = format!("train.shard_optimizer={shared}");
        let mut part = train(&name, "train.total_steps=20").set(&shared);
        for word in from.iter().flat_map(|from| ["--resume", from]) {
            part = part.argument(word);
        }
        let steps = part.on_ranks(ranks).succeed().steps();
        assert!(steps.keys().copied().eq(first_step..=20));
        for (step, found) in steps {
            assert_close(&found, &whole[&step], 1e-9);
        }
        let checkpoint = format!("{name}/checkpoints/step-{:08}", first_step + 4);
        from = Some(folder.path().join(checkpoint).to_str().unwrap().to_owned());
    }
}

#[test]
fn rank_agreement_when_a_run_goes_on_with_other_numbers_of_ranks() {
    let folder = TempDir::new().unwrap();
    let alone = verification(&folder.path().join("alone")).succeed().steps();
    let mut from: Option<String> = None;
    for (ranks, first_step) in [(4, 1), (1, 6), (3, 11), (2, 16)] {
        let run = folder.path().join(format!("{ranks}-ranks"));
        let keep = ["train.save_every=5", "train.keep_checkpoints=9"];
        let mut train = verification(&run).sets(&keep);
        for word in from.iter().flat_map(|from| ["--resume", from]) {
            train = train.argument(word);
        }
        let steps = train.on_ranks(ranks).succeed().steps();
        assert!(steps.keys().copied().eq(first_step..=20));
        for (step, found) in steps {
            assert_close(&found, &alone[&step], 1e-9);
        }
        let next = run.join(format!("checkpoints/step-{:08}", first_step + 4));
        from = Some(next.to_str().unwrap().to_owned());
    }
}

#[test]
fn one_single_precision_step_from_a_checkpoint_agrees_on_one_to_three_ranks() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let plan = ["train.total_steps=7", "train.save_every=2", "train.keep_checkpoints=9"];
    Train::new(SMOKE, &run).sets(&UNEVEN).sets(&plan).succeed();
    for step in [2, 4, 6] {
        let checkpoint = run.join(format!("checkpoints/step-{step:08}"));
        let next = |ranks| {
            let run = folder.path().join(format!("{ranks}-ranks-from-{step}"));
            let train = Train::new(SMOKE, &run).sets(&UNEVEN).sets(&plan);
            let resumed = train.argument("--resume").argument(checkpoint.to_str().unwrap());
            let (number, first) =
                resumed.on_ranks(ranks).succeed().steps().pop_first().expect("a step");
            assert_eq!(number, step + 1);
            first
        };
        let alone = next(1);
        for ranks in 2..=3 {
            assert_close(&next(ranks), &alone, 1e-4);
        }
    }
}
