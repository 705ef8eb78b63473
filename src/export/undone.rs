//! Which records of a log tell of steps that were undone: a run that goes on from a checkpoint trains the
//! steps after it anew, and the log keeps both.
//!
//! Rank 0 says where it goes on. The other ranks say nothing, so that of theirs the order in their own
//! file and the time of rank 0's word decide.

use crate::runlog::{Record, RunEvent};
use std::collections::BTreeMap;

/// Kinds of records that belong to a step; each is counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Step,
    Health,
    Evaluated,
}

/// A point in a file from which on steps from `step` on are trained anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rewind {
    /// How many records of the kind stand before it.
    after: usize,
    step: u64,
}

/// The records of one kind of one rank.
#[derive(Debug, Default)]
struct History {
    count: usize,
    largest: u64,
    rewinds: Vec<Rewind>,
}

impl History {
    fn rewind(&mut self, step: u64) {
        let rewind = Rewind { after: self.count, step };
        if self.count > 0 && self.rewinds.last() != Some(&rewind) {
            self.rewinds.push(rewind);
        }
        self.largest = self.largest.min(step.saturating_sub(1));
    }

    fn add(&mut self, step: u64) {
        if self.count > 0 && step <= self.largest {
            self.rewind(step);
        }
        self.count += 1;
        self.largest = self.largest.max(step);
    }
}

/// Where a log goes back, learnt from all its records.
#[derive(Debug, Default)]
pub(super) struct Rewinds {
    histories: BTreeMap<(u32, Kind), History>,
    /// When rank 0 went on, and the first step that it trained then.
    starts: Vec<(u64, u64)>,
    /// When processes started that have not said yet where they go on.
    started_ms: Option<u64>,
}

impl Rewinds {
    /// Takes note of the next record of a rank.
    pub(super) fn learn(&mut self, record: &Record) {
        let (time_ms, rank) = (record.time_ms, record.rank);
        match record.event {
            RunEvent::RunStarted(_) if rank == 0 => self.started_ms = Some(time_ms),
            RunEvent::Resumed { step, .. } if rank == 0 => {
                self.started_ms = None;
                self.go_on(time_ms, step.saturating_add(1));
            }
            _ => {
                let Some((kind, step)) = place(&record.event) else { return };
                if rank == 0
                    && let Some(started_ms) = self.started_ms.take()
                {
                    // Nothing was resumed: the run began anew.
                    self.go_on(started_ms, 0);
                }
                self.histories.entry((rank, kind)).or_default().add(step);
            }
        }
    }

    fn go_on(&mut self, time_ms: u64, step: u64) {
        self.starts.push((time_ms, step));
        for kind in [Kind::Step, Kind::Health, Kind::Evaluated] {
            self.histories.entry((0, kind)).or_default().rewind(step);
        }
    }

    /// Goes through the same records again.
    pub(super) fn again(&self) -> Reading<'_> {
        Reading { rewinds: self, counts: BTreeMap::new() }
    }
}

/// A second reading of a log whose end is known.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    rewinds: &'a Rewinds,
    counts: BTreeMap<(u32, Kind), usize>,
}

impl Reading<'_> {
    /// Whether the step of the next record was undone later; `None` where it belongs to no step.
    pub(super) fn is_undone(&mut self, record: &Record) -> Option<bool> {
        let (kind, step) = place(&record.event)?;
        let key = (record.rank, kind);
        let index = self.counts.entry(key).or_default();
        let own = self.rewinds.histories.get(&key).map_or(&[][..], |history| &history.rewinds);
        // Those of rank 0 stand among its own.
        let starts = if record.rank == 0 { &[][..] } else { &self.rewinds.starts };
        let is_undone = own.iter().any(|rewind| rewind.after > *index && rewind.step <= step)
            || starts.iter().any(|(time_ms, first)| *time_ms > record.time_ms && *first <= step);
        *index += 1;
        Some(is_undone)
    }
}

fn place(event: &RunEvent) -> Option<(Kind, u64)> {
    match event {
        RunEvent::Step(step) => Some((Kind::Step, step.step)),
        RunEvent::Health(health) => Some((Kind::Health, health.step)),
        RunEvent::Evaluated(scores) => Some((Kind::Evaluated, scores.step)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::Health;

    fn health(rank: u32, time_ms: u64, step: u64) -> Record {
        let event = RunEvent::Health(Health {
            step,
            step_ms: 1.0,
            data_wait_ms: 0.0,
            communication_ms: 0.0,
            memory_bytes: None,
        });
        Record { time_ms, rank, event }
    }

    fn resumed(time_ms: u64, step: u64) -> Record {
        let event = RunEvent::Resumed { step, checkpoint: String::new() };
        Record { time_ms, rank: 0, event }
    }

    /// The steps that were undone, in the order of the records.
    fn undone(records: &[Record]) -> Vec<u64> {
        let mut rewinds = Rewinds::default();
        for record in records {
            rewinds.learn(record);
        }
        let mut reading = rewinds.again();
        let step = |record: &Record| place(&record.event).map(|(_, step)| step);
        let undone = records.iter().filter(|record| reading.is_undone(record) == Some(true));
        undone.filter_map(step).collect()
    }

    #[test]
    fn steps_after_the_checkpoint_are_undone_whether_they_are_trained_again_or_not() {
        let own = [health(0, 1, 10), health(0, 2, 20), health(0, 3, 30), resumed(9, 20)];
        assert_eq!(undone(&own), [30]);
        let again = [&own[..], &[health(0, 10, 25)], &[resumed(20, 10)]].concat();
        assert_eq!(undone(&again), [20, 30, 25]);
        assert_eq!(undone(&[&own[..], &[health(0, 10, 30)]].concat()), [30]);
    }

    #[test]
    fn other_ranks_go_back_with_rank_0_and_by_their_own_order() {
        let own = [health(0, 1, 10), health(0, 2, 20), resumed(9, 10), health(0, 11, 20)];
        // A rank that is not there any more, and one whose clock runs ahead.
        let lost = [health(1, 1, 10), health(1, 2, 20)];
        let ahead = [health(2, 101, 10), health(2, 102, 20), health(2, 111, 20)];
        assert_eq!(undone(&[&own[..], &lost, &ahead].concat()), [20, 20, 20]);
    }

    #[test]
    fn a_run_without_a_checkpoint_begins_anew_only_where_it_trains() {
        let Ok(started) = serde_json::from_str::<Record>(
            r#"{"time_ms":5,"rank":0,"event":"run_started","schema":1,"run":"a","method":"b",
            "dataset":"c","classes":[],"fold":1,"annotation":"d","ranks":1,"batch_size":1,
            "total_steps":9,"train_slices":1,"seed":1,"precision":"fp32","device":"cpu",
            "code_version":"1","config_digest":"0"}"#,
        ) else {
            panic!("the line is a record")
        };
        let first = [health(0, 1, 10), health(0, 2, 20)];
        let failed_at_once = [&first[..], &[started.clone(), resumed(6, 20)]].concat();
        assert!(undone(&failed_at_once).is_empty());
        let anew = [&first[..], &[started], &[health(0, 7, 5)]].concat();
        assert_eq!(undone(&anew), [10, 20]);
    }
}
