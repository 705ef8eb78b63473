//! What follows a gradient that is not finite. The optimiser leaves its weights as they are on the device, and
//! running statistics are put back there; where the step is skipped, what other learners did in it, too.
//! The flags of the steps stay on the device too, until a step is logged or saved.
//!
//! Decides only; going back to a checkpoint is up to the trainer.

use super::learner::Learner;
use super::report::{FetchedNumbers, StepReport};
use crate::config::NonFinite;
use crate::error::{Context, Failure, Result};
use crate::native::{Form, flat};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Steps that may be skipped one after the other; with one more the run fails.
const SKIPS_IN_A_ROW: u32 = 9;
/// How often a checkpoint is gone back to before the next one is reached.
const ROLLBACKS: u32 = 2;
/// Steps whose reports are kept on the device: with one more, their flags are read.
const MOST_REPORTS: usize = 256;
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
    /// At most [`MOST_REPORTS`].
    reports: Vec<(u64, StepReport)>,
    /// What is known of the steps before those.
    stumble: Option<Stumble>,
    skipped_in_a_row: u32,
    /// What the step under way may change.
    changing: Vec<Tensor>,
    /// How that was before, in memory that all steps use.
    before: Vec<Tensor>,
}

/// Steps whose gradients were not finite.
#[derive(Debug)]
pub(super) struct Stumble {
    /// The first of them.
    pub(super) first: u64,
    last: u64,
    count: u64,
    /// The losses of the first of them.
    losses: FetchedNumbers,
    /// Whether they are to be left out and nothing more.
    pub(super) is_skipped: bool,
}

impl Unread {
    pub(super) fn new(policy: NonFinite) -> Self {
        let (reports, changing, before) = (Vec::new(), Vec::new(), Vec::new());
        Self { policy, reports, stumble: None, skipped_in_a_row: 0, changing, before }
    }

    /// Remembers what a step may change whatever comes of it: running statistics and, where the step may be
    /// skipped and several learners descend, the weights and moments of one whose gradient was finite.
    pub(super) fn before_step(&mut self, learners: &[&Learner]) -> Result<()> {
        let mut tensors: Vec<Tensor> =
            learners.iter().flat_map(|learner| learner.flat_buffers()).collect();
        let descending = learners.iter().filter(|learner| learner.descends()).count();
        if self.policy == NonFinite::Skip && descending > 1 {
            let parts = learners.iter().flat_map(|learner| learner.flat_parts());
            tensors.extend(parts.map(|part| part.tensor));
            tensors.extend(learners.iter().filter_map(|learner| learner.flat_narrowed()));
        }
        let alike = |(a, b): (&Tensor, &Tensor)| {
            (a.size(), a.kind(), a.device()) == (b.size(), b.kind(), b.device())
        };
        let has_room = self.before.len() == tensors.len();
        if !has_room || !self.before.iter().zip(&tensors).all(alike) {
            self.before = tensors.iter().map(Tensor::empty_like).collect();
        }
        self.changing = tensors;
        tch::no_grad(|| flat::copy(&self.before, &self.changing, None, Form::Own))
    }

    /// Takes the report of a step; one that stumbled leaves everything as it was.
    pub(super) fn after_step(&mut self, step: u64, report: StepReport) -> Result<()> {
        let changed = std::mem::take(&mut self.changing);
        if let Some(finite) = report.finite() {
            tch::no_grad(|| flat::copy(&changed, &self.before, Some(finite), Form::Own))?;
        }
        if self.reports.len() == MOST_REPORTS {
            self.fold()?;
        }
        self.reports.push((step, report));
        Ok(())
    }

    /// The report of the last step.
    pub(super) fn last(&self) -> Option<&StepReport> {
        self.reports.last().map(|(_, report)| report)
    }

    /// Reads the flags of all steps since the last call, with one transfer, and gives those that
    /// stumbled; equal on all ranks.
    pub(super) fn read(&mut self) -> Result<Option<Stumble>> {
        self.fold()?;
        Ok(self.stumble.take())
    }

    /// Reads flags with one transfer, and keeps of the steps what there is to say about them.
    fn fold(&mut self) -> Result<()> {
        let reports = std::mem::take(&mut self.reports);
        let flag = |report: &StepReport| report.finite().map(|flag| flag.to_kind(Kind::Uint8));
        let flagged: Vec<_> =
            reports.iter().filter_map(|(step, r)| Some((*step, r, flag(r)?))).collect();
        if flagged.is_empty() {
            return Ok(());
        }
        let flags: Vec<&Tensor> = flagged.iter().map(|(_, _, flag)| flag).collect();
        let flags: Vec<u8> = Vec::try_from(Tensor::stack(&flags, 0))
            .context(|| "cannot fetch whether gradients were finite")?;
        for ((step, report, _), flag) in flagged.into_iter().zip(flags) {
            self.skipped_in_a_row = if flag == 0 { self.skipped_in_a_row + 1 } else { 0 };
            if flag == 0 {
                self.note(step, report)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, step: u64, report: &StepReport) -> Result<()> {
        let may_skip = self.policy == NonFinite::Skip && self.skipped_in_a_row <= SKIPS_IN_A_ROW;
        match &mut self.stumble {
            Some(stumble) => {
                stumble.last = step;
                stumble.count += 1;
                stumble.is_skipped &= may_skip;
            }
            none => {
                let losses = report.fetch()?;
                let (first, last, count) = (step, step, 1);
                *none = Some(Stumble { first, last, count, losses, is_skipped: may_skip });
            }
        }
        Ok(())
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
        let Self { first, last, count, .. } = self;
        if *count == 1 {
            return format!("the gradient of step {first} was not finite; it changed no weights");
        }
        format!(
            "the gradients of {count} steps from {first} to {last} were not finite; they changed no weights"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::learner::{LearnerConfig, LearnerSetup, Moments};

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
            let report = StepReport::of_gradients(*flag);
            unread.after_step(step, report).unwrap();
        }
        unread
    }

    #[test]
    fn the_steps_that_stumbled_are_found() {
        let flags = [true, false, true, false];
        let mut some = unread(NonFinite::Stop, &flags);
        let stumble = some.read().unwrap().unwrap();
        assert_eq!((stumble.first, stumble.is_skipped), (2, false));
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

    fn learner(name: &'static str) -> Learner {
        let config: LearnerConfig =
            toml::from_str("lr = 1.0\noptimizer = { sgd = { momentum = 0.9 } }").unwrap();
        let (kind, device) = (Kind::Float, tch::Device::Cpu);
        let key = crate::random::Key::new(1);
        let setup = LearnerSetup { key, kind, computed: kind, device, moments: Moments::Whole };
        let build = |scope: &mut crate::parameters::Scope<'_>| {
            let _ = scope.constant("weight", &[3], 1.0);
            let _ = scope.buffer("running_mean", &[3], 2.0);
        };
        Learner::new(name, config, setup, build).unwrap().0
    }

    /// All numbers of some learners after a step that sets them to NaN and has this flag.
    fn after_step(learners: &[&Learner], finite: bool) -> Vec<f64> {
        let mut unread = Unread::new(NonFinite::Skip);
        unread.before_step(learners).unwrap();
        for learner in learners {
            let tensors = learner.flat_parts().into_iter().map(|part| part.tensor);
            tch::no_grad(|| {
                tensors.chain(learner.flat_buffers()).for_each(|mut t| drop(t.fill_(f64::NAN)));
            });
        }
        let report = StepReport::of_gradients(finite);
        unread.after_step(1, report).unwrap();
        let numbers = |learner: &&Learner| {
            let entries = learner.entries().iter().map(|entry| entry.tensor.double_value(&[0]));
            entries.collect::<Vec<_>>()
        };
        learners.iter().flat_map(numbers).collect()
    }

    #[test]
    fn a_step_that_stumbles_is_empty_for_all_of_its_learners() {
        let (one, other) = (learner("one"), learner("other"));
        assert_eq!(after_step(&[&one, &other], false), [1.0, 2.0, 1.0, 2.0]);
        assert!(after_step(&[&one, &other], true).iter().all(|number| number.is_nan()));
        // The optimiser of a single one has looked at the flag already.
        let alone = after_step(&[&learner("one")], false);
        assert!(alone[0].is_nan());
        assert_eq!(alone[1..], [2.0]);
    }

    #[test]
    fn reports_do_not_pile_up_and_none_is_forgotten() {
        let mut flags = [true; 3 * MOST_REPORTS];
        flags[4] = false;
        flags[2 * MOST_REPORTS] = false;
        let mut unread = unread(NonFinite::Skip, &flags);
        assert!(unread.reports.len() <= MOST_REPORTS && unread.last().is_some());
        let stumble = unread.read().unwrap().unwrap();
        let expected = (5, 2 * MOST_REPORTS as u64 + 1, 2);
        assert_eq!((stumble.first, stumble.last, stumble.count), expected);
        assert!(stumble.is_skipped && unread.read().unwrap().is_none());
    }
}
