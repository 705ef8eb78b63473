//! Steps of a run done again, for comparing their numbers: nothing is saved, scored, or asked of anybody.
//!
//! Where the numbers go is up to the sink that the trainer was given.

use super::Trainer;
use crate::comm::agree;
use crate::error::Result;
use crate::train::checkpoint::{Loaded, refuse_differing_ranks};

impl Trainer {
    /// Goes on from a checkpoint up to step `last` and emits what a run logs on the way. Every rank calls this.
    ///
    /// Running statistics are made anew where a run would score itself: later steps may use them. Refuses to pass
    /// a gradient that is not finite, unless such steps are skipped.
    pub fn repeat(&mut self, from: Loaded, last: u64) -> Result<()> {
        self.restore(from)?;
        refuse_differing_ranks(&self.parts.method.learners(), &*self.communicator)?;
        while self.state.step < last {
            self.iterate()?;
            let step = self.state.step;
            if self.logs(step) {
                self.log()?;
                if let Some(stumble) = self.look_back()? {
                    let failure = self.failure_of(&stumble);
                    return agree(&*self.communicator, Err(failure));
                }
            }
            if step < last && self.parts.plan.evaluate_every.due(step) {
                self.renew_statistics()?;
            }
        }
        Ok(())
    }
}
