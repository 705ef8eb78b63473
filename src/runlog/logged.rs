//! The logged steps that a run stands on: what was lost and trained again counts once, as it was done last.
//!
//! Says which start of the run made which steps, and whether two records of a step hold the same numbers. Who
//! trains them again is not known here.

use super::directory::RunDirectory;
use super::io::Tail;
use super::{Record, RunEvent, RunStarted, Step};
use crate::error::Result;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Steps that one start of a run made in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The step after which it begins.
    pub after: u64,
    /// What the run said of itself.
    pub started: RunStarted,
    /// Whether it begins where training went back to a checkpoint after a gradient that was not finite, with a
    /// lower learning rate.
    pub is_rollback: bool,
}

/// The logged steps of a run, in their order, and who made them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoggedSteps {
    steps: Vec<Step>,
    stretches: Vec<Stretch>,
    /// A start of which no step is known yet.
    starting: Option<RunStarted>,
}

impl LoggedSteps {
    /// Reads the log of rank 0, as far as it is written.
    pub fn read(directory: &RunDirectory) -> Result<Self> {
        let mut logged = Self::default();
        let mut tail = Tail::new(directory.rank_events(0));
        loop {
            let records = tail.read()?;
            if tail.was_replaced() {
                logged = Self::default();
            }
            if records.is_empty() {
                return Ok(logged);
            }
            for record in records {
                logged.apply(record);
            }
        }
    }

    /// Takes in the next record of rank 0.
    pub fn apply(&mut self, record: Record) {
        match record.event {
            RunEvent::RunStarted(started) => self.starting = Some(started),
            RunEvent::Resumed { step, .. } => self.begin(step),
            RunEvent::Step(step) => {
                if self.starting.is_some() {
                    // It went on from nothing.
                    self.begin(0);
                }
                self.forget_after(step.step.saturating_sub(1));
                self.steps.push(step);
            }
            _ => {}
        }
    }

    fn begin(&mut self, after: u64) {
        let started = self.starting.take();
        let is_rollback = started.is_none();
        let last = self.stretches.last().map(|stretch| stretch.started.clone());
        self.forget_after(after);
        self.stretches.retain(|stretch| stretch.after < after);
        // A log that begins in the middle does not say by whom.
        if let Some(started) = started.or(last) {
            self.stretches.push(Stretch { after, started, is_rollback });
        }
    }

    fn forget_after(&mut self, step: u64) {
        while self.steps.last().is_some_and(|last| last.step > step) {
            self.steps.pop();
        }
    }

    /// All of them.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Those behind `step`.
    pub fn steps_after(&self, step: u64) -> &[Step] {
        &self.steps[self.steps.partition_point(|own| own.step <= step)..]
    }

    /// What made the steps behind `step`.
    pub fn stretches_after(&self, step: u64) -> &[Stretch] {
        let later = self.stretches.partition_point(|stretch| stretch.after <= step);
        &self.stretches[later.saturating_sub(1)..]
    }

    /// The newest step after which training went back to a checkpoint with a lower learning rate. No checkpoint
    /// up to it knows of that.
    pub fn last_rollback(&self) -> Option<u64> {
        let back = self.stretches.iter().rev().find(|stretch| stretch.is_rollback);
        back.map(|stretch| stretch.after)
    }
}

/// A number of a step that is another one in a second record of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The step.
    pub step: u64,
    /// The field of the record and the name in it, as `loss.segmenter/partial_ce`.
    pub key: String,
    /// What the log says; none where it does not have the number.
    pub logged: Option<f64>,
    /// What came out the second time.
    pub repeated: Option<f64>,
    /// Their distance as a share of the larger one, in `[0, 2]`; none where that is no number.
    pub relative_difference: Option<f64>,
}

/// The fields of a step that a second run of it repeats, in the order in which they are written: all but its times.
fn fields(step: &Step) -> [(&'static str, &BTreeMap<String, f64>); 4] {
    [
        ("loss", &step.loss),
        ("observed", &step.observed),
        ("lr", &step.lr),
        ("grad_norm", &step.grad_norm),
    ]
}

/// The numbers of a step that lie further apart in its two records than `tolerance`, a share of the larger one, and how
/// many were compared; all differ where there is no second record. With 0 they have to be equal, bit for bit; what is
/// not finite equals its like.
pub fn differences(
    logged: &Step,
    repeated: Option<&Step>,
    tolerance: f64,
) -> (Vec<Difference>, usize) {
    let nothing = BTreeMap::new();
    let (mut found, mut compared) = (Vec::new(), 0);
    for (index, (field, old)) in fields(logged).into_iter().enumerate() {
        let new = repeated.map_or(&nothing, |step| fields(step)[index].1);
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        compared += names.len();
        for name in names {
            let pair = [old.get(name).copied(), new.get(name).copied()];
            if !is_same(pair, tolerance) {
                found.push(Difference {
                    step: logged.step,
                    key: format!("{field}.{name}"),
                    logged: pair[0],
                    repeated: pair[1],
                    relative_difference: relative(pair),
                });
            }
        }
    }
    (found, compared)
}

fn is_same(pair: [Option<f64>; 2], tolerance: f64) -> bool {
    let [Some(old), Some(new)] = pair else { return false };
    let is_equal = old.to_bits() == new.to_bits() || (!old.is_finite() && !new.is_finite());
    is_equal || relative(pair).is_some_and(|distance| tolerance > 0.0 && distance <= tolerance)
}

fn relative(pair: [Option<f64>; 2]) -> Option<f64> {
    let [old, new] = [pair[0]?, pair[1]?];
    let larger = old.abs().max(new.abs());
    let share = if larger == 0.0 { 0.0 } else { (old - new).abs() / larger };
    share.is_finite().then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(ranks: u32) -> RunEvent {
        let text = format!(
            r#"{{"schema":1,"run":"r","method":"m","dataset":"d","classes":["background","a"],"fold":1,
            "annotation":"scribble","ranks":{ranks},"batch_size":4,"total_steps":9,"train_slices":9,"seed":1,
            "precision":"fp32","device":"cpu","code_version":"0.1.0","config_digest":"00"}}"#
        );
        RunEvent::RunStarted(serde_json::from_str(&text).unwrap())
    }

    fn step(step: u64, loss: f64) -> RunEvent {
        let one = |value| BTreeMap::from([("a/ce".to_owned(), value)]);
        RunEvent::Step(Step {
            step,
            epoch: 1,
            loss: one(loss),
            observed: BTreeMap::new(),
            lr: one(0.1),
            grad_norm: one(1.0),
            step_ms: step as f64,
            images_per_second: 1.0,
        })
    }

    fn resumed(step: u64) -> RunEvent {
        RunEvent::Resumed { step, checkpoint: String::new() }
    }

    fn folded(events: impl IntoIterator<Item = RunEvent>) -> LoggedSteps {
        let mut logged = LoggedSteps::default();
        for event in events {
            logged.apply(Record { time_ms: 1, rank: 0, event });
        }
        logged
    }

    fn losses(logged: &LoggedSteps) -> Vec<(u64, f64)> {
        logged.steps().iter().map(|step| (step.step, step.loss["a/ce"])).collect()
    }

    #[test]
    fn a_step_that_was_lost_counts_as_it_was_done_last() {
        let first = [started(1), step(1, 1.0), step(2, 2.0), step(3, 3.0)];
        let second = [started(2), resumed(2), step(3, 4.0), step(4, 5.0)];
        let logged = folded(first.into_iter().chain(second));
        assert_eq!(losses(&logged), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0)]);
        let made = |step| -> Vec<(u64, u32)> {
            let stretches = logged.stretches_after(step).iter();
            stretches.map(|stretch| (stretch.after, stretch.started.ranks)).collect()
        };
        assert_eq!(made(0), [(0, 1), (2, 2)]);
        assert_eq!(made(1), [(0, 1), (2, 2)]);
        assert_eq!([made(2), made(3)], [[(2, 2)], [(2, 2)]]);
        assert_eq!(logged.steps_after(3).len(), 1);
        assert_eq!(logged.last_rollback(), None);
    }

    #[test]
    fn a_start_from_nothing_forgets_everything_and_one_without_a_step_nothing() {
        let first = [started(1), step(1, 1.0), step(2, 2.0)];
        let logged = folded(first.clone().into_iter().chain([started(2)]));
        assert_eq!(losses(&logged).len(), 2);
        assert_eq!(logged.stretches_after(0)[0].started.ranks, 1);
        let again = [started(2), started(4), step(1, 3.0)];
        let logged = folded(first.into_iter().chain(again));
        assert_eq!(losses(&logged), [(1, 3.0)]);
        assert_eq!(logged.stretches_after(0)[0].started.ranks, 4);
    }

    #[test]
    fn going_back_with_a_lower_rate_is_remembered_until_the_run_is_continued_from_there() {
        let back = [started(1), step(1, 1.0), step(2, 2.0), resumed(1), step(2, 3.0), step(3, 1.0)];
        let logged = folded(back.clone());
        assert_eq!(losses(&logged), [(1, 1.0), (2, 3.0), (3, 1.0)]);
        assert_eq!(logged.last_rollback(), Some(1));
        let again = [started(1), resumed(1), step(2, 4.0)];
        assert_eq!(folded(back.into_iter().chain(again)).last_rollback(), None);
    }

    fn compared(old: RunEvent, new: RunEvent, tolerance: f64) -> (Vec<String>, usize) {
        let (RunEvent::Step(old), RunEvent::Step(new)) = (old, new) else { unreachable!() };
        let (found, compared) = differences(&old, Some(&new), tolerance);
        (found.into_iter().map(|difference| difference.key).collect(), compared)
    }

    #[test]
    fn times_may_differ_and_nothing_else() {
        let with = |change: fn(&mut Step)| {
            let RunEvent::Step(mut step) = step(3, 1.0) else { unreachable!() };
            change(&mut step);
            RunEvent::Step(step)
        };
        let next = f64::from_bits(1.0f64.to_bits() + 1);
        assert_eq!(compared(step(3, 1.0), with(|s| s.step_ms = 7.0), 0.0), (vec![], 3));
        assert_eq!(compared(step(3, 1.0), step(3, next), 0.0).0, ["loss.a/ce"]);
        assert_eq!(compared(step(3, 1.0), step(3, next), 1e-12).0, [""; 0]);
        assert_eq!(compared(step(3, 1.0), step(3, 1.1), 1e-3).0, ["loss.a/ce"]);
        assert_eq!(compared(step(3, f64::NAN), step(3, f64::INFINITY), 0.0).0, [""; 0]);
        assert_eq!(compared(step(3, f64::NAN), step(3, 1.0), 0.5).0, ["loss.a/ce"]);
        let other = with(|step| {
            step.lr.clear();
            step.observed.insert("b".to_owned(), 1.0);
        });
        assert_eq!(
            compared(step(3, 1.0), other, 1.0),
            (vec!["observed.b".into(), "lr.a/ce".into()], 4)
        );
    }
}
