//! A curve over steps in bounded memory that forgets no spike.
//!
//! Knows steps and values, nothing of where they come from or how they are drawn.

use std::collections::BTreeMap;

/// Buckets a series may hold; more than a wide terminal has dots in a row.
const CAPACITY: u64 = 512;

/// Values by step, merged into buckets of equal width once there are too many steps.
///
/// Buckets begin at multiples of a power of two that follows from the largest step alone, so the
/// same values give the same buckets in any order and however often they are added.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    width_log2: u32,
    buckets: BTreeMap<u64, Bucket>,
    /// The first step whose value was not finite.
    pub first_broken_step: Option<u64>,
}

/// The finite values of neighbouring steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The last step that has a value, and that value.
    pub last: (u64, f64),
}

impl Bucket {
    fn add(&mut self, other: Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.last.0 >= self.last.0 {
            self.last = other.last;
        }
    }
}

impl Series {
    /// Adds the value of a step. What is not finite is remembered as broken and not drawn.
    pub fn add(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            let first = self.first_broken_step.get_or_insert(step);
            *first = step.min(*first);
            return;
        }
        while step >> self.width_log2 >= CAPACITY {
            self.widen();
        }
        let added = Bucket { min: value, max: value, last: (step, value) };
        self.put(step >> self.width_log2, added);
    }

    fn put(&mut self, index: u64, added: Bucket) {
        self.buckets.entry(index).and_modify(|bucket| bucket.add(added)).or_insert(added);
    }

    fn widen(&mut self) {
        self.width_log2 += 1;
        for (index, bucket) in std::mem::take(&mut self.buckets) {
            self.put(index >> 1, bucket);
        }
    }

    /// The buckets in the order of their steps.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.values()
    }

    /// The value of the largest step that has one.
    pub fn last(&self) -> Option<f64> {
        self.buckets.values().next_back().map(|bucket| bucket.last.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_single_spike_of_a_million_steps_is_kept() {
        let mut series = Series::default();
        for step in 1..=1_000_000 {
            series.add(step, if step == 777_777 { 1e3 } else { 0.5 });
        }
        assert!(series.buckets().count() <= CAPACITY as usize);
        assert_eq!(series.buckets().filter(|bucket| bucket.max > 1.0).count(), 1);
        assert_eq!(series.last(), Some(0.5));
    }

    #[test]
    fn what_is_not_finite_is_reported_and_not_drawn() {
        let mut series = Series::default();
        series.add(9, f64::NAN);
        series.add(7, f64::INFINITY);
        assert_eq!((series.first_broken_step, series.buckets().count()), (Some(7), 0));
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(
            steps in prop::collection::vec(0u64..5_000, 0..60), rotation in any::<prop::sample::Index>(),
        ) {
            let fill = |steps: &[u64]| {
                let mut series = Series::default();
                for &step in steps {
                    series.add(step, (step as f64).sin());
                }
                series
            };
            let mut turned = steps.clone();
            if !turned.is_empty() {
                let by = rotation.index(turned.len());
                turned.rotate_left(by);
                turned.extend_from_slice(&steps);
            }
            prop_assert_eq!(fill(&steps), fill(&turned));
        }
    }
}
