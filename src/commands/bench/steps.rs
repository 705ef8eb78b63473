//! Steps of a configuration one after another, without a run directory.
//!
//! They are what training computes; nothing is logged, scored or saved.

use super::Bench;
use crate::comm::{Communicator, Ranks, agree, give_up};
use crate::commands::run;
use crate::data::batch::Batch;
use crate::data::loader::Loader;
use crate::error::{Failure, Result};
use crate::random::Key;
use crate::train::point::StepPoint;
use crate::train::replay::{self, PendingStep, Replay};
use crate::train::{Method, StepReport};
use std::time::{Duration, Instant};

/// Steps that are replayed one after the other before they are timed: those of a method with several forms come
/// in any order.
const IN_A_ROW: u32 = 10;
/// Steps after which it is not waited for that any longer.
const MOST_BEFORE: u64 = 200;

/// A step that was computed; a GPU may still be busy with it.
pub(super) struct Advanced {
    pub(super) report: StepReport,
    /// How long it waited for data.
    pub(super) waited: Duration,
    /// Whether it was replayed.
    pub(super) is_replayed: bool,
}

/// A method under way.
pub(super) struct Steps<'a> {
    bench: &'a Bench,
    sums: Ranks,
    agrees: Ranks,
    loader: Loader,
    method: Box<dyn Method>,
    replay: Option<Replay>,
    /// How many are done.
    done: u64,
}

impl<'a> Steps<'a> {
    /// Before the first step of this rank's share of every batch. The method sums over `sums`; that a
    /// step went well is agreed on over `agrees`. Every rank of `bench` calls this.
    pub(super) fn new(bench: &'a Bench, sums: &Ranks, agrees: &Ranks) -> Result<Self> {
        let (plan, comm) = (&bench.plan, &*bench.ranks);
        let loader = run::loader(plan, &bench.dataset, comm);
        let loader = agree(comm, loader.and_then(|loader| bench.place.feed(loader)))?;
        let method = run::method(plan, &bench.dataset, bench.place.device, sums);
        Ok(Self {
            bench,
            sums: sums.clone(),
            agrees: agrees.clone(),
            loader,
            method: agree(comm, method)?,
            replay: Replay::chosen(plan.train.graph, bench.place.device),
            done: 0,
        })
    }

    /// Those who take part in [`Steps::advance`].
    pub(super) fn ranks(&self) -> &dyn Communicator {
        &*self.agrees
    }

    /// Goes on until steps are replayed, where they are to be and can; every rank calls this.
    pub(super) fn warm_up(&mut self) -> Result<()> {
        for _ in 0..MOST_BEFORE {
            let is_ready = self
                .replay
                .as_ref()
                .is_none_or(|replay| replay.in_a_row() >= IN_A_ROW || replay.reason().is_some());
            if !self.agrees.any(!is_ready)? {
                break;
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Why steps are not replayed, where it is known.
    pub(super) fn reason(&self) -> Option<&str> {
        self.replay.as_ref().and_then(Replay::reason)
    }

    /// Computes the next step, of a whole batch. A step that fails ends all ranks.
    pub(super) fn advance(&mut self) -> Result<Advanced> {
        self.done += 1;
        let plan = &self.bench.plan;
        let point = StepPoint::new(self.done, plan.train.total_steps, Key::new(plan.train.seed));
        let start = Instant::now();
        let batches = self.loader.micro_batches(self.done);
        let batches = batches.and_then(|batches| whole(batches, plan.train.batch_size));
        let batches = agree(&*self.agrees, batches)?.into_iter();
        let device = self.bench.place.device;
        let batches = batches.map(|batch| batch.to(run::kind(plan), device)).collect();
        let waited = start.elapsed();
        let due = PendingStep { batches, point, logged: false, communicator: &self.sums };
        let report = match &mut self.replay {
            Some(replay) => replay.step(&mut *self.method, due),
            None => replay::compute(&mut *self.method, &due),
        };
        let ranks = &*self.bench.ranks;
        let report = match report {
            // The others may be in a sum of this step, where nobody can be told.
            Err(failure) if ranks.ranks() > 1 => give_up(ranks, failure),
            report => report?,
        };
        let is_replayed = self.replay.as_ref().is_some_and(|replay| replay.in_a_row() > 0);
        Ok(Advanced { report, waited, is_replayed })
    }
}

/// The micro-batches of a step, where they hold `expected` slices of all ranks: what a smaller batch takes is no
/// time of such a step.
fn whole(batches: Vec<Batch>, expected: usize) -> Result<Vec<Batch>> {
    let found: usize = batches.iter().map(|batch| batch.global_size).sum();
    if found == expected {
        return Ok(batches);
    }
    Err(Failure::new(format!("a timed batch has {found} slices, expected {expected}")))
}
