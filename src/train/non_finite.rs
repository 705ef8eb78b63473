//! What follows a gradient that is not finite. It has changed no weights: the optimiser saw to that
//! on the device. The flags of the steps stay there too, until a step is logged.
//!
//! Decides only; restoring is up to the trainer.

use super::learner::Learner;
use super::{StepNumbers, StepReport};
use crate::config::NonFinite;
use crate::error::{Context, Failure, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Steps that may be skipped one after the other; with one more the run fails.
const SKIPS_IN_A_ROW: u32 = 9;
/// How often a checkpoint is gone back to before the next one is reached.
const ROLLBACKS: u32 = 2;
/// Slices that a message names.
const NAMED_SLICES: usize = 6;

/// A stretch of the run that is trained again, with a lower rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// How often a checkpoint was gone back to on this stretch.
    pub times: u32,
    /// The last step of the stretch.
    pub until: u64,
}

impl Rollback {
    /// What follows a failure at `step` of a run that saves every `save_every` steps, after
    /// `earlier` ones: the stretch up to the next checkpoint again, or `None` once that was tried
    /// often enough.
    pub(super) fn after(earlier: Option<Self>, step: u64, save_every: u64) -> Option<Self> {
        let times =
            earlier.filter(|earlier| step <= earlier.until).map_or(0, |earlier| earlier.times);
        let until = (step / save_every + 1) * save_every;
        (times < ROLLBACKS).then_some(Self { times: times + 1, until })
    }

    /// The share of the learning rate at `step`: half of it for each time.
    pub(super) fn rate_share(self, step: u64) -> f64 {
        if step <= self.until { 0.5f64.powi(self.times as i32) } else { 1.0 }
    }
}

/// The steps of which it is not known yet whether their gradients were finite.
pub(super) struct Unread {
    policy: NonFinite,
    reports: Vec<(u64, StepReport)>,
    skipped_in_a_row: u32,
    /// Running statistics before the step under way, where it may be skipped.
    buffers: Vec<Tensor>,
}

/// Steps whose gradients were not finite.
#[derive(Debug)]
pub(super) struct Stumble {
    /// In ascending order, at least one.
    pub(super) steps: Vec<u64>,
    /// The losses of the first of them.
    losses: StepNumbers,
    /// Whether they are to be left out and nothing more.
    pub(super) is_skipped: bool,
}

impl Unread {
    pub(super) fn new(policy: NonFinite) -> Self {
        Self { policy, reports: Vec::new(), skipped_in_a_row: 0, buffers: Vec::new() }
    }

    /// Remembers the running statistics, which a forward pass changes whatever comes of it.
    pub(super) fn before_step(&mut self, learners: &[&Learner]) {
        if self.policy == NonFinite::Skip {
            let buffers = learners.iter().flat_map(|learner| learner.buffers());
            self.buffers = buffers.map(|entry| entry.tensor.copy()).collect();
        }
    }

    /// Takes the report of a step; a skipped one leaves the running statistics as they were.
    pub(super) fn after_step(&mut self, step: u64, report: StepReport, learners: &[&Learner]) {
        if let Some(finite) = report.finite() {
            let buffers = learners.iter().flat_map(|learner| learner.buffers());
            for (entry, before) in buffers.zip(self.buffers.drain(..)) {
                let mut target = entry.tensor.shallow_clone();
                tch::no_grad(|| target.copy_(&target.where_self(finite, &before)));
            }
        }
        self.reports.push((step, report));
    }

    /// The report of the last step.
    pub(super) fn last(&self) -> Option<&StepReport> {
        self.reports.last().map(|(_, report)| report)
    }

    /// Reads the flags of all steps since the last call, with one transfer.
    pub(super) fn read(&mut self) -> Result<Option<Stumble>> {
        let reports = std::mem::take(&mut self.reports);
        let flag = |report: &StepReport| report.finite().map(|flag| flag.to_kind(Kind::Uint8));
        let flagged: Vec<_> =
            reports.iter().filter_map(|(step, r)| Some((*step, r, flag(r)?))).collect();
        if flagged.is_empty() {
            return Ok(None);
        }
        let flags: Vec<&Tensor> = flagged.iter().map(|(_, _, flag)| flag).collect();
        let flags: Vec<u8> = Vec::try_from(Tensor::stack(&flags, 0))
            .context(|| "cannot fetch whether gradients were finite")?;
        let mut is_skipped = self.policy == NonFinite::Skip;
        let mut stumbles = Vec::new();
        for ((step, report, _), flag) in flagged.into_iter().zip(flags) {
            self.skipped_in_a_row = if flag == 0 { self.skipped_in_a_row + 1 } else { 0 };
            is_skipped &= self.skipped_in_a_row <= SKIPS_IN_A_ROW;
            if flag == 0 {
                stumbles.push((step, report));
            }
        }
        let Some((_, first)) = stumbles.first() else { return Ok(None) };
        let losses = first.fetch()?;
        let steps = stumbles.iter().map(|(step, _)| *step).collect();
        Ok(Some(Stumble { steps, losses, is_skipped }))
    }
}

impl Stumble {
    /// What happened, with the slices that the first of the steps learnt from.
    pub(super) fn failure(&self, slices: &[String]) -> Failure {
        let (named, rest) = slices.split_at(slices.len().min(NAMED_SLICES));
        let more = if rest.is_empty() { String::new() } else { format!(", {} more", rest.len()) };
        let losses = self.losses.losses.iter().map(|(name, value)| format!("{name} = {value}"));
        Failure::new(self.sentence())
            .at(format!(
                "  losses: {}\n  slices: {}{more}",
                losses.collect::<Vec<_>>().join(", "),
                named.join(", ")
            ))
            .hint("lower `method.params.learner.lr`, or set its `clip_norm`, and train again")
            .hint("look at these slices if it is always the same ones")
    }

    /// `the gradient of step 7 was not finite; it changed no weights`, or of how many steps.
    pub(super) fn sentence(&self) -> String {
        match &self.steps[..] {
            [first, .., last] => format!(
                "the gradients of {} steps from {first} to {last} were not finite; they changed no weights",
                self.steps.len()
            ),
            steps => {
                let first = steps.first().copied().unwrap_or_default();
                format!("the gradient of step {first} was not finite; it changed no weights")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_tried_again_twice_and_the_next_one_afresh() {
        let first = Rollback::after(None, 7, 10).unwrap();
        assert_eq!(first, Rollback { times: 1, until: 10 });
        let second = Rollback::after(Some(first), 10, 10).unwrap();
        assert_eq!(second, Rollback { times: 2, until: 20 });
        assert_eq!(Rollback::after(Some(second), 12, 10), None);
        assert_eq!(Rollback::after(Some(second), 21, 10), Some(Rollback { times: 1, until: 30 }));
    }

    #[test]
    fn each_time_halves_the_rate_to_the_end_of_the_stretch() {
        let rollback = Rollback { times: 2, until: 20 };
        let quarters = [1, 20, 21].map(|step| (4.0 * rollback.rate_share(step)) as u32);
        assert_eq!(quarters, [1, 1, 4]);
    }

    fn unread(policy: NonFinite, flags: &[bool]) -> Unread {
        let mut unread = Unread::new(policy);
        for (step, flag) in (1..).zip(flags) {
            let report = StepReport { finite: Some(Tensor::from(*flag)), ..StepReport::default() };
            unread.after_step(step, report, &[]);
        }
        unread
    }

    #[test]
    fn the_steps_that_stumbled_are_found() {
        let flags = [true, false, true, false];
        let mut some = unread(NonFinite::Stop, &flags);
        let stumble = some.read().unwrap().unwrap();
        assert_eq!((&stumble.steps[..], stumble.is_skipped), (&[2, 4][..], false));
        assert!(some.read().unwrap().is_none());
        assert!(unread(NonFinite::Stop, &[true, true]).read().unwrap().is_none());
        insta::assert_snapshot!(stumble.failure(&["a:3".to_owned(), "b:0".to_owned()]), @r"
        error: the gradients of 2 steps from 2 to 4 were not finite; they changed no weights
          losses: 
          slices: a:3, b:0

        hint: lower `method.params.learner.lr`, or set its `clip_norm`, and train again
        hint: look at these slices if it is always the same ones
        ");
    }

    #[test]
    fn only_so_many_steps_in_a_row_are_skipped() {
        let skipped = |flags: &[bool]| unread(NonFinite::Skip, flags).read().unwrap().unwrap();
        assert!(skipped(&[false; SKIPS_IN_A_ROW as usize]).is_skipped);
        assert!(!skipped(&[false; SKIPS_IN_A_ROW as usize + 1]).is_skipped);
        let parted = [&[false; 5][..], &[true], &[false; 5]].concat();
        assert!(skipped(&parted).is_skipped);
    }
}
