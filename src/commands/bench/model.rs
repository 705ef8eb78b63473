//! What a step takes on many ranks, by arithmetic on what a few of them measured.
//!
//! Pure: it knows numbers, and neither tensors nor ranks. What it assumes is in the comments here and
//! in the words of `scale`.

use crate::error::{Failure, Result};

/// The share of computing that is backward, beside which gradients are summed: forward multiplies once
/// with each weight, backward twice.
const BACKWARD: f64 = 2.0 / 3.0;

/// What a message between two ranks costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Link {
    /// Seconds of a message without contents, at least 0.
    pub(super) latency: f64,
    /// Seconds that every byte adds, at least 0.
    pub(super) seconds_per_byte: f64,
    /// The largest share by which it is off a time that it was fitted to.
    pub(super) error: f64,
    /// What the times did not tell.
    pub(super) note: Option<&'static str>,
}

impl Link {
    /// Fits the link to sums over `ranks` ranks: bytes, and the seconds that a sum of them took.
    ///
    /// By least squares of the shares by which times are off: short sums count as much as long ones.
    /// Refuses times that tell nothing: of fewer than two ranks or two lengths, or not above 0.
    pub(super) fn fit(ranks: usize, sums: &[(f64, f64)]) -> Result<Self> {
        let usable = |&(bytes, seconds): &(f64, f64)| bytes >= 0.0 && seconds > 0.0;
        if ranks < 2
            || !sums.iter().all(|sum| usable(sum) && sum.0.is_finite() && sum.1.is_finite())
        {
            return Err(unusable("sums need at least 2 ranks and have to take some time"));
        }
        // Each row says: what a hop adds times latency, and what a byte adds times its time, is 1.
        let rows: Vec<[f64; 2]> =
            sums.iter().map(|&(bytes, time)| ring(ranks, bytes).map(|part| part / time)).collect();
        let product = |i: usize, j: usize| rows.iter().map(|row| row[i] * row[j]).sum::<f64>();
        let total = |i: usize| rows.iter().map(|row| row[i]).sum::<f64>();
        let (hops, both, bytes) = (product(0, 0), product(0, 1), product(1, 1));
        let determinant = hops * bytes - both * both;
        if determinant.is_nan() || determinant <= 1e-9 * hops * bytes {
            return Err(unusable("sums of one length do not tell latency from bandwidth"));
        }
        let latency = (total(0) * bytes - total(1) * both) / determinant;
        let seconds_per_byte = (total(1) * hops - total(0) * both) / determinant;
        let (latency, seconds_per_byte, note) = if latency < 0.0 {
            let note = "latency was too short to be seen and is taken as 0";
            (0.0, total(1) / bytes, Some(note))
        } else if seconds_per_byte < 0.0 {
            let note = "longer sums took no longer: bandwidth is taken as unlimited";
            (total(0) / hops, 0.0, Some(note))
        } else {
            (latency, seconds_per_byte, None)
        };
        let off = |row: &[f64; 2]| (row[0] * latency + row[1] * seconds_per_byte - 1.0).abs();
        let error = rows.iter().map(off).fold(0.0, f64::max);
        Ok(Self { latency, seconds_per_byte, error, note })
    }

    /// Seconds of a sum of `bytes` over `ranks` ranks: round a ring, or up and down a tree through
    /// which long sums go in pieces, whichever is shorter.
    pub(super) fn sum(&self, ranks: usize, bytes: f64) -> f64 {
        let [hops, sent] = ring(ranks, bytes);
        let ring = hops * self.latency + sent * self.seconds_per_byte;
        let levels = f64::from(ranks.next_power_of_two().ilog2());
        let tree = 2.0 * (levels * self.latency + bytes * self.seconds_per_byte);
        ring.min(tree)
    }
}

/// Messages one after another, and bytes on the busiest link, of a sum round a ring.
fn ring(ranks: usize, bytes: f64) -> [f64; 2] {
    let others = ranks as f64 - 1.0;
    [2.0 * others, 2.0 * others / ranks as f64 * bytes]
}

fn unusable(message: &str) -> Failure {
    Failure::new(message).hint("measure again without `--quick`, nothing else running")
}

/// What a rank sums with the others in one step: the bytes of each call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// What the step waits for.
    pub(super) waited: Vec<usize>,
    /// Halves of sums that it waits for: every rank gets its share, or everybody's.
    pub(super) halves: Vec<usize>,
    /// What is summed beside backward.
    pub(super) beside: Vec<usize>,
}

/// What one rank's step took without the others, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Alone {
    /// All of it.
    pub(super) step: f64,
    /// Waiting for data, which is part of it.
    pub(super) wait: f64,
}

/// A step as a function of the number of ranks, each with the same share of a batch that grows.
#[derive(Debug)]
pub(super) struct StepModel {
    link: Link,
    traffic: Traffic,
    /// Times of steps alone, in ascending order.
    alone: Vec<f64>,
    /// Seconds of a step beside which gradients are summed.
    hides: f64,
}

impl StepModel {
    /// Refuses to be made of no steps, and of times that are not finite.
    pub(super) fn new(link: Link, traffic: Traffic, steps: &[Alone]) -> Result<Self> {
        let is_sound = |time: &Alone| time.step.is_finite() && time.wait.is_finite();
        if steps.is_empty() || !steps.iter().all(is_sound) {
            return Err(Failure::new("a model of a step needs the times of some steps"));
        }
        let computing = steps.iter().map(|time| time.step - time.wait).sum::<f64>();
        let hides = BACKWARD * (computing / steps.len() as f64).max(0.0);
        let mut alone: Vec<f64> = steps.iter().map(|time| time.step).collect();
        alone.sort_unstable_by(f64::total_cmp);
        Ok(Self { link, traffic, alone, hides })
    }

    /// Seconds of a step on `ranks` ranks, at least 1: on one it is the mean of those measured.
    pub(super) fn seconds(&self, ranks: usize) -> f64 {
        let sums = |lengths: &[usize]| {
            lengths.iter().map(|&bytes| self.link.sum(ranks, bytes as f64)).sum::<f64>()
        };
        let Traffic { waited, halves, beside } = &self.traffic;
        let exposed = (sums(beside) - self.hides).max(0.0);
        self.slowest(ranks) + sums(waited) + sums(halves) / 2.0 + exposed
    }

    /// The share of the ranks' work that is not waiting: 1 on one rank.
    pub(super) fn efficiency(&self, ranks: usize) -> f64 {
        self.seconds(1) / self.seconds(ranks)
    }

    /// The expected slowest of `ranks` steps that are drawn from those measured, with replacement.
    fn slowest(&self, ranks: usize) -> f64 {
        let count = self.alone.len() as f64;
        // How likely none of them is behind the first `index` in the order.
        let within = |index: usize| (index as f64 / count).powf(ranks as f64);
        let steps = self.alone.iter().enumerate();
        steps.map(|(index, time)| time * (within(index + 1) - within(index))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINK: Link = Link { latency: 5e-6, seconds_per_byte: 1e-10, error: 0.0, note: None };

    fn lengths() -> impl Iterator<Item = f64> {
        (0..9).map(|power| 1024.0 * 4f64.powi(power))
    }

    fn steps(times: &[f64]) -> Vec<Alone> {
        times.iter().map(|&step| Alone { step, wait: 0.0 }).collect()
    }

    fn model(traffic: Traffic, times: &[f64]) -> StepModel {
        StepModel::new(LINK, traffic, &steps(times)).unwrap()
    }

    proptest! {
        #[test]
        fn the_fit_finds_the_link_behind_noisy_times(
            ranks in 2usize..64,
            latency in 1e-6f64..1e-4,
            bandwidth in 1e8f64..1e11,
            noise in prop::collection::vec(-0.05f64..0.05, 9),
        ) {
            let link = Link { latency, seconds_per_byte: 1.0 / bandwidth, ..LINK };
            let time = |bytes| {
                let [hops, sent] = ring(ranks, bytes);
                hops * link.latency + sent * link.seconds_per_byte
            };
            let exact: Vec<_> = lengths().map(|bytes| (bytes, time(bytes))).collect();
            let found = Link::fit(ranks, &exact).unwrap();
            prop_assert!((found.latency / latency - 1.0).abs() < 1e-6, "{found:?}");
            prop_assert!((found.seconds_per_byte * bandwidth - 1.0).abs() < 1e-6, "{found:?}");
            prop_assert!(found.error < 1e-6 && found.note.is_none());
            // Compared are times: where one of the two hardly counts, noise hides it.
            let noisy = exact.iter().zip(&noise).map(|(&(b, time), noise)| (b, time * (1.0 + noise)));
            let found = Link::fit(ranks, &noisy.collect::<Vec<_>>()).unwrap();
            let again = |bytes| {
                let [hops, sent] = ring(ranks, bytes);
                hops * found.latency + sent * found.seconds_per_byte
            };
            for (bytes, time) in exact {
                prop_assert!((again(bytes) / time - 1.0).abs() < 0.2, "{bytes}: {found:?}");
            }
        }

        #[test]
        fn more_ranks_never_take_less_and_one_takes_what_was_measured(
            times in prop::collection::vec(1e-3f64..1.0, 1..40),
            waited in prop::collection::vec(0usize..100_000, 0..50),
            halves in prop::collection::vec(0usize..10_000_000, 0..3),
            beside in prop::collection::vec(0usize..10_000_000, 0..8),
        ) {
            let model = model(Traffic { waited, halves, beside }, &times);
            let mean = times.iter().sum::<f64>() / times.len() as f64;
            prop_assert!((model.seconds(1) / mean - 1.0).abs() < 1e-9);
            prop_assert!((model.efficiency(1) - 1.0).abs() < 1e-12);
            for ranks in 1..200 {
                prop_assert!(model.seconds(ranks + 1) >= model.seconds(ranks) * (1.0 - 1e-12));
            }
        }
    }

    #[test]
    fn two_ranks_measure_a_latency_and_a_bandwidth() {
        let sums = [(0.0, 10e-6), (1e6, 110e-6), (1e8, 10_010e-6)];
        let link = Link::fit(2, &sums).unwrap();
        assert!((link.latency - 5e-6).abs() < 1e-12, "{link:?}");
        assert!((link.seconds_per_byte - 1e-10).abs() < 1e-18, "{link:?}");
    }

    #[test]
    fn times_that_tell_nothing_are_refused_or_told() {
        for (ranks, sums) in [
            (1, &[(1.0, 1.0), (2.0, 2.0)][..]),
            (2, &[(1.0, 0.0), (2.0, 2.0)]),
            (2, &[(1.0, f64::NAN), (2.0, 2.0)]),
            (2, &[(1.0, 1.0), (2.0, f64::INFINITY)]),
        ] {
            let failure = Link::fit(ranks, sums).unwrap_err();
            let expected = "sums need at least 2 ranks and have to take some time";
            assert_eq!(failure.message(), expected, "{sums:?}");
        }
        for sums in [&[][..], &[(8.0, 1.0)], &[(8.0, 1.0), (8.0, 2.0)], &[(0.0, 1.0), (0.0, 2.0)]] {
            let failure = Link::fit(2, sums).unwrap_err();
            let expected = "sums of one length do not tell latency from bandwidth";
            assert_eq!(failure.message(), expected, "{sums:?}");
        }
        let link = Link::fit(2, &[(1e3, 2e-3), (1e6, 1e-3)]).unwrap();
        assert!(link.seconds_per_byte == 0.0);
        assert!(link.latency > 0.4e-3 && link.latency < 1e-3, "{link:?}");
        assert!(link.note.unwrap().contains("unlimited") && link.error > 0.1);
        let link = Link::fit(2, &[(1e3, 1e-6), (1e6, 9e-3)]).unwrap();
        assert!(link.latency == 0.0);
        assert!(link.seconds_per_byte > 0.0 && link.note.unwrap().contains("latency"), "{link:?}");
    }

    #[test]
    fn short_sums_go_over_a_tree_and_long_ones_round_a_ring() {
        assert!(LINK.sum(1, 1e9) == 0.0);
        assert!((LINK.sum(1024, 0.0) - 20.0 * LINK.latency).abs() < 1e-12);
        assert!((LINK.sum(1000, 0.0) - 20.0 * LINK.latency).abs() < 1e-12);
        let ring = 14.0 * LINK.latency + 1.75e9 * LINK.seconds_per_byte;
        assert!((LINK.sum(8, 1e9) - ring).abs() < 1e-9);
    }

    #[test]
    fn what_backward_hides_costs_nothing_and_the_rest_its_time() {
        let beside = |bytes| Traffic { beside: vec![bytes], ..Traffic::default() };
        // 10 ms of 15 are backward; the sum takes 1 ms.
        assert!((model(beside(10_000_000), &[15e-3]).seconds(2) - 15e-3).abs() < 1e-12);
        let exposed = model(beside(200_000_000), &[15e-3]).seconds(2) - 15e-3;
        assert!((exposed - (LINK.sum(2, 2e8) - 10e-3)).abs() < 1e-12);
        let waits = [Alone { step: 15e-3, wait: 15e-3 }];
        let model = StepModel::new(LINK, beside(10_000_000), &waits).unwrap();
        assert!((model.seconds(2) - 15e-3 - LINK.sum(2, 1e7)).abs() < 1e-12);
        let halves = Traffic { halves: vec![4096, 4096], ..Traffic::default() };
        let model = StepModel::new(LINK, halves, &waits).unwrap();
        assert!((model.seconds(4) - 15e-3 - LINK.sum(4, 4096.0)).abs() < 1e-12);
    }

    #[test]
    fn the_slowest_of_many_is_expected_among_those_seen() {
        let model = model(Traffic::default(), &[3.0, 1.0, 1.0, 1.0]);
        assert!((model.seconds(2) - (1.0 + 2.0 * 7.0 / 16.0)).abs() < 1e-12);
        assert!((model.seconds(1024) - 3.0).abs() < 1e-12);
        assert!((model.efficiency(1024) - 0.5).abs() < 1e-12);
        assert!(StepModel::new(LINK, Traffic::default(), &[]).is_err());
        assert!(StepModel::new(LINK, Traffic::default(), &steps(&[f64::NAN])).is_err());
    }
}
