//! Steps of a configuration one after another, without a run directory.
//!
//! They are what training computes; nothing is logged, scored or saved.

use super::Bench;
use crate::comm::{Communicator, Ranks, agree, give_up};
use crate::commands::run;
use crate::data::loader::Loader;
use crate::error::Result;
use crate::random::Key;
use crate::train::moment::Moment;
use crate::train::replay::{self, Due, Replay};
use crate::train::{Method, StepReport};
use std::time::{Duration, Instant};

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
            replay: plan.train.graph.then(|| Replay::on(bench.place.device)),
            done: 0,
        })
    }

    /// Those who take part in [`Steps::advance`].
    pub(super) fn ranks(&self) -> &dyn Communicator {
        &*self.agrees
    }

    /// Computes the next step; also says how long it waited for data. A GPU may still be busy with it. A
    /// step that fails ends all ranks.
    pub(super) fn advance(&mut self) -> Result<(StepReport, Duration)> {
        self.done += 1;
        let plan = &self.bench.plan;
        let moment = Moment::new(self.done, plan.train.total_steps, Key::new(plan.train.seed));
        let start = Instant::now();
        let batches = agree(&*self.agrees, self.loader.micro_batches(self.done))?.into_iter();
        let device = self.bench.place.device;
        let batches = batches.map(|batch| batch.to(run::kind(plan), device)).collect();
        let waited = start.elapsed();
        let due = Due { batches, moment, logged: false, communicator: &self.sums };
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
        Ok((report, waited))
    }
}
