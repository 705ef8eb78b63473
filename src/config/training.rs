//! The part of a plan that says how long and how to train.
//!
//! Knows the number of ranks, and nothing of data, networks and methods.

use super::{DeviceChoice, GraphChoice, NonFinite, Precision, RunConfig, TimeSpan, TrainConfig};
use crate::error::Result;
use crate::limits::{BATCH_SIZE, CHECKPOINTS, STEPS, THREADS};
use std::time::Duration;

/// How long a step may stand still where nothing else is said.
const HANG_LIMIT: Duration = Duration::from_secs(30);

/// How long and how to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainPlan {
    /// How many steps to train, at least 1.
    pub total_steps: u64,
    /// Slices of one step over all ranks together, at least one for each rank.
    pub batch_size: usize,
    /// Into how many parts they are cut, which are computed one after the other; in each part there
    /// is at least one for each rank.
    pub micro_batches: usize,
    /// Where all random numbers come from.
    pub seed: u64,
    /// In which floating-point numbers to compute.
    pub precision: Precision,
    /// When to write to the run log.
    pub log_every: Cadence,
    /// When to evaluate the held-out fold.
    pub evaluate_every: Cadence,
    /// When to save a checkpoint.
    pub save_every: Cadence,
    /// How many of the newest checkpoints to keep, at least 1.
    pub keep_checkpoints: usize,
    /// How many of the checkpoints with the best validation scores to keep besides, at least 1.
    pub keep_best: usize,
    /// The checkpoints of every so many steps are kept for good; 0: none.
    pub keep_every: u64,
    /// Threads of each rank; 0 leaves it to the machine, see [`TrainPlan::threads_on`].
    pub threads: usize,
    /// Where to compute.
    pub device: DeviceChoice,
    /// After which time a process saves and stops; none: never.
    pub time_limit: Option<Duration>,
    /// How long a step may stand still; none: for ever.
    pub hang_limit: Option<Duration>,
    /// What to do after a gradient that is not finite.
    pub on_non_finite: NonFinite,
    /// Whether each rank keeps the moments of its share of the weights alone.
    pub shard_optimizer: bool,
    /// Whether steps are recorded once and replayed by one call to the GPU.
    pub graph: GraphChoice,
}

/// Every so many steps, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence(pub(super) u64);

impl Cadence {
    /// Whether it is time at `step`, counted from 1.
    pub fn due(self, step: u64) -> bool {
        step.is_multiple_of(self.0)
    }

    /// The number of steps between two times.
    pub fn steps(self) -> u64 {
        self.0
    }
}

impl TrainPlan {
    /// Refuses a batch that some rank gets nothing of.
    pub(super) fn resolve(config: &RunConfig, ranks: usize) -> Result<Self> {
        let written = &config.train;
        let cadence = |key: &str, steps: Option<u64>, default| {
            let key = format!("train.{key}");
            config.within(&key, steps.unwrap_or(default), 1..=STEPS).map(Cadence)
        };
        let count = |key: &str, count: usize, most: usize| {
            config.within(&format!("train.{key}"), count as u64, 1..=most as u64)?;
            Ok(count)
        };
        let batch_size = count("batch_size", written.batch_size.unwrap_or(12), BATCH_SIZE)?;
        if batch_size < ranks {
            let message = format!("world size {ranks} is larger than the batch of {batch_size}");
            return Err(config.refuse("train.batch_size", message).hint(format!(
                "start at most {batch_size} processes, or use `--set train.batch_size={ranks}`"
            )));
        }
        let micro_batches = count("micro_batches", written.micro_batches.unwrap_or(1), BATCH_SIZE)?;
        if batch_size / micro_batches < ranks {
            let most = batch_size / ranks;
            let message = format!(
                "a batch of {batch_size} in {micro_batches} parts has less than one slice for each of \
                 {ranks} ranks"
            );
            return Err(config
                .refuse("train.micro_batches", message)
                .hint(format!("use at most `--set train.micro_batches={most}`")));
        }
        Ok(Self {
            total_steps: config.within("train.total_steps", written.total_steps, 1..=STEPS)?,
            batch_size,
            micro_batches,
            seed: written.seed.unwrap_or(2022),
            precision: written.precision.unwrap_or(Precision::Fp32),
            log_every: cadence("log_every", written.log_every, 10)?,
            evaluate_every: cadence("evaluate_every", written.evaluate_every, 200)?,
            save_every: cadence("save_every", written.save_every, 1000)?,
            keep_checkpoints: count(
                "keep_checkpoints",
                written.keep_checkpoints.unwrap_or(2),
                CHECKPOINTS,
            )?,
            keep_best: count("keep_best", written.keep_best.unwrap_or(1), CHECKPOINTS)?,
            keep_every: config.within(
                "train.keep_every",
                written.keep_every.unwrap_or(0),
                0..=STEPS,
            )?,
            threads: within_threads(config)?,
            device: written.device.unwrap_or(DeviceChoice::Auto),
            time_limit: written.time_limit.and_then(|span| span.0),
            hang_limit: written.hang_limit.map_or(Some(HANG_LIMIT), |span| span.0),
            on_non_finite: written.on_non_finite.unwrap_or(NonFinite::Stop),
            shard_optimizer: written.shard_optimizer.unwrap_or(false),
            graph: written.graph.unwrap_or(GraphChoice::Auto),
        })
    }

    /// Threads of each rank on a node with `cores`, of which `ranks` share: the configured number, else
    /// that of `omp_num_threads`, the value of the variable of this name, else an equal share of the
    /// cores; at least 1.
    pub fn threads_on(&self, cores: usize, ranks: usize, omp_num_threads: Option<&str>) -> usize {
        if self.threads > 0 {
            return self.threads;
        }
        // With nested parallelism it is a list, whose first number is that of the outermost level.
        let first = omp_num_threads.and_then(|list| list.split(',').next());
        let asked = first.and_then(|number| number.trim().parse::<usize>().ok());
        let asked = asked.filter(|threads| (1..=THREADS).contains(threads));
        asked.unwrap_or((cores / ranks.max(1)).max(1))
    }

    /// Which checkpoints are kept, in words.
    pub(super) fn keeps(&self) -> String {
        let best = match self.keep_best {
            1 => "the best".to_owned(),
            count => format!("the best {count}"),
        };
        let milestones = match self.keep_every {
            0 => String::new(),
            steps => format!(" and one every {steps} steps"),
        };
        format!("{best} and the last {}{milestones}", self.keep_checkpoints)
    }

    /// The same as a user would write it, every key of it.
    pub(super) fn written_out(&self) -> TrainConfig {
        TrainConfig {
            total_steps: self.total_steps,
            batch_size: Some(self.batch_size),
            seed: Some(self.seed),
            micro_batches: Some(self.micro_batches),
            precision: Some(self.precision),
            log_every: Some(self.log_every.0),
            evaluate_every: Some(self.evaluate_every.0),
            save_every: Some(self.save_every.0),
            keep_checkpoints: Some(self.keep_checkpoints),
            keep_best: Some(self.keep_best),
            keep_every: Some(self.keep_every),
            threads: Some(self.threads),
            device: Some(self.device),
            time_limit: Some(TimeSpan(self.time_limit)),
            hang_limit: Some(TimeSpan(self.hang_limit)),
            on_non_finite: Some(self.on_non_finite),
            shard_optimizer: Some(self.shard_optimizer),
            graph: Some(self.graph),
        }
    }
}

fn within_threads(config: &RunConfig) -> Result<usize> {
    let threads = config.train.threads.unwrap_or(0);
    config.within("train.threads", threads as u64, 0..=THREADS as u64)?;
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::config::plan::RunPlan;

    const LEAST: &str =
        "[data]\npath = \"a.h5\"\n[method]\nname = \"partial-ce\"\n[train]\ntotal_steps = 5\n";

    fn resolve(text: &str, ranks: usize) -> Result<RunPlan> {
        RunPlan::resolve(parse(text, "a.toml", &[])?, ranks)
    }

    #[test]
    fn refuses_parts_of_a_batch_that_some_rank_has_nothing_of() {
        let text = format!("{LEAST}micro_batches = 5\n");
        insta::assert_snapshot!(resolve(&text, 3).unwrap_err(), @r"
        error: a batch of 12 in 5 parts has less than one slice for each of 3 ranks
          --> a.toml:7:17
          |
        7 | micro_batches = 5
          |                 ^

        hint: use at most `--set train.micro_batches=4`
        ");
        assert!(resolve(&text.replace("= 5\n", "= 4\n"), 3).is_ok());
        assert!(resolve(&text.replace("micro_batches = 5", "micro_batches = 0"), 1).is_err());
    }

    #[test]
    fn refuses_more_ranks_than_slices() {
        let text = format!("{LEAST}batch_size = 2\n");
        insta::assert_snapshot!(resolve(&text, 3).unwrap_err(), @r"
        error: world size 3 is larger than the batch of 2
          --> a.toml:7:14
          |
        7 | batch_size = 2
          |              ^

        hint: start at most 2 processes, or use `--set train.batch_size=3`
        ");
    }

    #[test]
    fn threads_share_the_cores_unless_configured() {
        let mut train = resolve(LEAST, 1).unwrap().train;
        let shares = [(16, 3), (2, 4), (8, 1)].map(|(c, r)| train.threads_on(c, r, None));
        assert_eq!(shares, [5, 1, 8]);
        for (variable, threads) in
            [("2", 2), (" 6,2", 6), ("0", 8), ("", 8), ("many", 8), ("-1", 8), ("99999999", 8)]
        {
            assert_eq!(train.threads_on(8, 1, Some(variable)), threads, "{variable}");
        }
        train.threads = 3;
        assert_eq!(train.threads_on(16, 1, Some("5")), 3);
    }

    #[test]
    fn a_cadence_is_due_at_its_multiples() {
        let due: Vec<u64> = (1..=10).filter(|&step| Cadence(4).due(step)).collect();
        assert_eq!(due, [4, 8]);
    }
}
