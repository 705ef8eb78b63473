//! One line that says what holds a run back, with the numbers that say so.
//!
//! Pure: what is known about a run in, a sentence out. Thresholds stand at the top.

use super::numbers;
use super::series::Series;
use super::state::{Curves, Dashboard};
use crate::runlog::RunStatus;

/// A rank that works longer than the middle one by this factor holds the others up.
const SLOW_RANK: f64 = 1.1;
/// Shares of a step from which waiting is what limits it.
const DATA_SHARE: f64 = 0.2;
const COMMUNICATION_SHARE: f64 = 0.3;
/// A loss that is this many times its lowest, smoothed, goes the wrong way.
const DIVERGING: f64 = 2.0;
/// Values that a curve needs before its course says anything.
const CURVE_VALUES: usize = 24;
/// Growth of memory over the second half of a run, as a share and in bytes.
const CREEP_SHARE: f64 = 0.05;
const CREEP_BYTES: f64 = 64e6;
/// Dice below the best, and evaluations since then, from which the best is history.
const OVERFITTING_DICE: f64 = 0.02;
const OVERFITTING_EVALUATIONS: usize = 3;

/// What holds a run back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In two or three words.
    pub words: &'static str,
    /// The numbers that say so.
    pub evidence: String,
    /// Whether a person should look at it.
    pub is_bad: bool,
}

/// The most urgent verdict; `None` before there is anything to judge.
pub fn verdict(dashboard: &Dashboard) -> Option<Verdict> {
    let bad = |words, evidence| Verdict { words, evidence, is_bad: true };
    broken(dashboard)
        .map(|evidence| bad("loss not finite", evidence))
        .or_else(|| diverging(&dashboard.losses).map(|e| bad("loss diverging", e)))
        .or_else(|| slow_rank(dashboard).map(|e| bad("one slow rank", e)))
        .or_else(|| waiting(dashboard))
        .or_else(|| creeping(dashboard).map(|e| bad("memory creeping", e)))
        .or_else(|| overfitting(dashboard).map(|e| bad("overfitting", e)))
        .or_else(|| computing(dashboard))
}

fn broken(dashboard: &Dashboard) -> Option<String> {
    let curves = dashboard.losses.iter().chain(&dashboard.gradients);
    let of = |(name, series): (&String, &Series)| {
        series.broken().last().map(|step| (*step, name.clone()))
    };
    let (step, name) = curves.filter_map(of).max()?;
    // What was skipped or resumed from long ago is in the messages.
    let is_recent = dashboard.step_ms.buckets().rev().take(CURVE_VALUES).any(|b| b.last.0 <= step);
    (is_recent || dashboard.ended() == Some(RunStatus::Failed))
        .then(|| format!("{name} at step {step}"))
}

fn diverging(losses: &Curves) -> Option<String> {
    losses.iter().find_map(|(name, series)| {
        let smooth = series.smoothed(4.0);
        if smooth.len() < CURVE_VALUES {
            return None;
        }
        let lowest = smooth[4..].iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        let (last, before) = (smooth[smooth.len() - 1], smooth[smooth.len() - 8]);
        let is_rising = last.1 > before.1 && lowest.0 < before.0;
        (lowest.1 > 0.0 && is_rising && last.1 > DIVERGING * lowest.1).then(|| {
            let [now, then] = [last.1, lowest.1].map(numbers::value);
            format!("{name} {now}, lowest {then} at step {}", lowest.0)
        })
    })
}

/// The rank that works longest, if it works notably longer than the middle one.
pub(super) fn straggler(dashboard: &Dashboard) -> Option<(u32, f64, f64)> {
    let times = dashboard.ranks().filter_map(|(rank, state)| Some((state.work_ms()?, rank)));
    let mut times: Vec<(f64, u32)> = times.collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (longest_ms, rank) = *times.last()?;
    let middle_ms = times[(times.len() - 1) / 2].0;
    (longest_ms > SLOW_RANK * middle_ms).then_some((rank, longest_ms, middle_ms))
}

fn slow_rank(dashboard: &Dashboard) -> Option<String> {
    let (rank, longest_ms, middle_ms) = straggler(dashboard)?;
    let [longest, middle] = [longest_ms, middle_ms].map(numbers::milliseconds);
    let state = dashboard.ranks().find(|(own, _)| *own == rank).map(|(_, state)| state);
    let host = state.and_then(|state| state.sampled(|t| t.host.clone()));
    let host = host.map_or_else(String::new, |host| format!(" on {host}"));
    Some(format!("rank {rank}{host} works {longest} ms a step, the middle one {middle} ms"))
}

/// Mean shares of a step over ranks: waiting for data, waiting for others.
fn shares(dashboard: &Dashboard) -> Option<[f64; 2]> {
    let shares: Vec<[f64; 2]> = dashboard.ranks().filter_map(|(_, state)| state.shares()).collect();
    let mean =
        |index: usize| shares.iter().map(|shares| shares[index]).sum::<f64>() / shares.len() as f64;
    (!shares.is_empty()).then(|| [mean(0), mean(1)])
}

fn waiting(dashboard: &Dashboard) -> Option<Verdict> {
    let [data, communication] = shares(dashboard)?;
    let [data_percent, other_percent] =
        [data, communication].map(|share| numbers::percent(Some(share * 100.0)));
    if data > DATA_SHARE && data >= communication {
        let evidence = format!("{data_percent} of a step is waiting for the next batch");
        return Some(Verdict { words: "data-bound", evidence, is_bad: true });
    }
    (communication > COMMUNICATION_SHARE).then(|| Verdict {
        words: "communication-bound",
        evidence: format!("{other_percent} of a step is summing over ranks"),
        is_bad: true,
    })
}

fn creeping(dashboard: &Dashboard) -> Option<String> {
    dashboard.ranks().find_map(|(rank, state)| {
        let values: Vec<(f64, f64)> =
            state.memory_bytes.buckets().map(|bucket| (bucket.min, bucket.max)).collect();
        let quarter = values.len() / 4;
        if values.len() < CURVE_VALUES {
            return None;
        }
        // A level that is reached and kept is no creep: each quarter lies above the one before.
        let low = |part: &[(f64, f64)]| part.iter().map(|v| v.0).fold(f64::INFINITY, f64::min);
        let high = |part: &[(f64, f64)]| part.iter().map(|v| v.1).fold(0.0, f64::max);
        let [second, third, fourth] =
            [1, 2, 3].map(|index| &values[index * quarter..(index + 1) * quarter]);
        let (before, now) = (high(second), low(fourth));
        let is_rising = low(third) >= before && now >= high(third);
        let growth = now - before;
        (is_rising && growth > CREEP_SHARE * before && growth > CREEP_BYTES).then(|| {
            let [before, now] = [before, now].map(|bytes| numbers::bytes(bytes as u64));
            format!("rank {rank} grew from {before} to {now} in the second half")
        })
    })
}

fn overfitting(dashboard: &Dashboard) -> Option<String> {
    let scores = dashboard.evaluated.as_ref()?;
    let since = dashboard.mean_dice.buckets().filter(|bucket| bucket.last.0 > scores.best_step);
    let recent: Vec<f64> = since.map(|bucket| bucket.max).collect();
    let below = recent.iter().all(|dice| *dice < scores.best_mean_dice - OVERFITTING_DICE);
    (recent.len() >= OVERFITTING_EVALUATIONS && below).then(|| {
        format!(
            "Dice {:.4}, best {:.4} at step {}, {} evaluations ago",
            scores.mean_dice,
            scores.best_mean_dice,
            scores.best_step,
            recent.len()
        )
    })
}

fn computing(dashboard: &Dashboard) -> Option<Verdict> {
    let [data, communication] = shares(dashboard)?;
    let share = numbers::percent(Some((1.0 - data - communication).max(0.0) * 100.0));
    let evidence = format!("{share} of a step is computing");
    Some(Verdict { words: "compute-bound", evidence, is_bad: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::{Evaluated, Health, Record, RunEvent, Step};
    use std::collections::BTreeMap;

    fn step(step: u64, loss: f64) -> Record {
        let one = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        let event = RunEvent::Step(Step {
            step,
            epoch: 1,
            loss: one("a/ce", loss),
            observed: BTreeMap::new(),
            lr: one("a", 0.1),
            grad_norm: one("a", 1.0),
            step_ms: 100.0,
            images_per_second: 10.0,
        });
        Record { time_ms: step, rank: 0, event }
    }

    fn health(rank: u32, (step, waits): (u64, [f64; 2]), memory: u64) -> Record {
        let [data_wait_ms, communication_ms] = waits;
        let event = RunEvent::Health(Health {
            step,
            step_ms: 100.0,
            data_wait_ms,
            communication_ms,
            memory_bytes: Some(memory),
        });
        Record { time_ms: step, rank, event }
    }

    fn evaluated(step: u64, dice: f64) -> Record {
        let event = RunEvent::Evaluated(Evaluated {
            step,
            mean_dice: dice,
            best_mean_dice: 0.9,
            best_step: 100,
            cases: 1,
            seconds: 1.0,
            structures: Vec::new(),
        });
        Record { time_ms: step, rank: 0, event }
    }

    fn words(records: impl IntoIterator<Item = Record>) -> Option<String> {
        let mut dashboard = Dashboard::default();
        records.into_iter().for_each(|record| dashboard.apply(record));
        verdict(&dashboard).map(|verdict| format!("{}: {}", verdict.words, verdict.evidence))
    }

    #[test]
    fn each_verdict_has_its_evidence() {
        let steps = |of: fn(u64) -> Record| (1..=64).map(of);
        let cases = [
            words([]),
            words(steps(|at| health(0, (at, [5.0, 5.0]), 1 << 30))),
            words(steps(|at| health(0, (at, [30.0, 5.0]), 1 << 30))),
            words(steps(|at| health(0, (at, [5.0, 50.0]), 1 << 30))),
            words((0..3).map(|rank| health(rank, (1, [1.0, [20.0, 18.0, 1.0][rank as usize]]), 1))),
            words(steps(|at| health(0, (at, [1.0, 1.0]), (1 << 30) + (at << 24)))),
            words(steps(|at| step(at, if at < 40 { 1.0 / at as f64 } else { at as f64 / 400.0 }))),
            words(steps(|at| step(at, if at == 60 { f64::NAN } else { 1.0 }))),
            words([100, 200, 300, 400].map(|at| evaluated(at, if at == 100 { 0.9 } else { 0.8 }))),
        ];
        let said = cases.map(|case| case.unwrap_or_else(|| "nothing yet".to_owned())).join("\n");
        insta::assert_snapshot!(said, @r"
        nothing yet
        compute-bound: 90% of a step is computing
        data-bound: 30% of a step is waiting for the next batch
        communication-bound: 50% of a step is summing over ranks
        one slow rank: rank 2 works 99.0 ms a step, the middle one 82.0 ms
        memory creeping: rank 0 grew from 1.5 GiB to 1.8 GiB in the second half
        loss diverging: a/ce 0.1461, lowest 0.0315 at step 39
        loss not finite: a/ce at step 60
        overfitting: Dice 0.8000, best 0.9000 at step 100, 3 evaluations ago
        ");
    }

    #[test]
    fn a_loss_that_falls_and_a_memory_that_stays_are_fine() {
        let falling = (1..=64).map(|at| step(at, 1.0 / at as f64));
        assert_eq!(words(falling), None);
        let level =
            (1..=64).map(|at| health(0, (at, [1.0, 1.0]), if at < 20 { 1 } else { 1 << 33 }));
        assert_eq!(words(level).unwrap(), "compute-bound: 98% of a step is computing");
    }
}
