//! A curve over steps in bounded memory that forgets no spike.
//!
//! Knows steps and values, nothing of where they come from or how they are drawn.

use std::collections::BTreeSet;

/// Buckets a series may hold: several for each dot of a wide terminal, so that there is something
/// to zoom into.
const CAPACITY: u32 = 2048;
/// Buckets of a series of which there are many, one for each rank.
const SMALL_CAPACITY: u32 = 128;
/// Steps without a finite value that are remembered, the newest ones.
const BROKEN: usize = 64;

/// Values by step, merged into buckets of equal width once there are too many steps.
///
/// Buckets begin at multiples of a power of two that follows from the largest step alone, so the
/// same values give the same buckets in any order and however often they are added.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    capacity: u32,
    width_log2: u32,
    buckets: Vec<(u64, Bucket)>,
    broken: BTreeSet<u64>,
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

impl Default for Series {
    fn default() -> Self {
        Self { capacity: CAPACITY, width_log2: 0, buckets: Vec::new(), broken: BTreeSet::new() }
    }
}

impl Series {
    /// A series that takes little memory.
    pub fn small() -> Self {
        Self { capacity: SMALL_CAPACITY, ..Self::default() }
    }

    /// Adds the value of a step. What is not finite is remembered as broken and not drawn.
    pub fn add(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            self.broken.insert(step);
            if self.broken.len() > BROKEN {
                self.broken.pop_first();
            }
            return;
        }
        while step >> self.width_log2 >= u64::from(self.capacity) {
            self.widen();
        }
        let added = Bucket { min: value, max: value, last: (step, value) };
        self.put(step >> self.width_log2, added);
    }

    fn put(&mut self, index: u64, added: Bucket) {
        // Nearly always the last bucket or a new one after it.
        let place = match self.buckets.last() {
            None => Err(0),
            Some((last, _)) if *last < index => Err(self.buckets.len()),
            Some((last, _)) if *last == index => Ok(self.buckets.len() - 1),
            Some(_) => self.buckets.binary_search_by_key(&index, |(index, _)| *index),
        };
        match place {
            Ok(place) => self.buckets[place].1.add(added),
            Err(place) => self.buckets.insert(place, (index, added)),
        }
    }

    fn widen(&mut self) {
        self.width_log2 += 1;
        for (index, bucket) in std::mem::take(&mut self.buckets) {
            self.put(index >> 1, bucket);
        }
    }

    /// The buckets in the order of their steps.
    pub fn buckets(&self) -> impl DoubleEndedIterator<Item = &Bucket> + Clone {
        self.buckets.iter().map(|(_, bucket)| bucket)
    }

    /// Whether there is no finite value.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The value of the largest step that has one.
    pub fn last(&self) -> Option<f64> {
        self.buckets.last().map(|(_, bucket)| bucket.last.1)
    }

    /// The first and last step that stand for a bucket.
    pub fn extent(&self) -> Option<[u64; 2]> {
        Some([self.buckets.first()?.1.last.0, self.buckets.last()?.1.last.0])
    }

    /// The bucket whose last step is nearest to `step`.
    pub fn nearest(&self, step: u64) -> Option<&Bucket> {
        let after = self.buckets.partition_point(|(_, bucket)| bucket.last.0 < step);
        let around = &self.buckets[after.saturating_sub(1)..(after + 1).min(self.buckets.len())];
        let distance = |bucket: &Bucket| bucket.last.0.abs_diff(step);
        around.iter().map(|(_, bucket)| bucket).min_by_key(|bucket| distance(bucket))
    }

    /// Steps whose value was not finite, the newest ones.
    pub fn broken(&self) -> &BTreeSet<u64> {
        &self.broken
    }

    /// The values at the ends of the buckets, smoothed by an exponential mean that forgets half of
    /// what it knows in `half_life` buckets. The first values count as much as the later ones.
    pub fn smoothed(&self, half_life: f64) -> Vec<(u64, f64)> {
        let keep = 0.5f64.powf(1.0 / half_life);
        let (mut sum, mut weight) = (0.0, 0.0);
        let smooth = |bucket: &Bucket| {
            sum = sum * keep + bucket.last.1;
            weight = weight * keep + 1.0;
            (bucket.last.0, sum / weight)
        };
        self.buckets().map(smooth).collect()
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
        assert_eq!(series.broken().iter().copied().collect::<Vec<_>>(), [7, 9]);
        assert!(series.is_empty());
        for step in 100..200 {
            series.add(step, f64::NAN);
        }
        assert_eq!((series.broken().len(), series.broken().last()), (BROKEN, Some(&199)));
    }

    #[test]
    fn smoothing_follows_a_level_and_forgets_a_spike_by_half() {
        let mut series = Series::default();
        for step in 0..100 {
            series.add(step, 2.0);
        }
        series.add(100, 102.0);
        for step in 101..110 {
            series.add(step, 2.0);
        }
        let smooth = series.smoothed(3.0);
        assert!((smooth[50].1 - 2.0).abs() < 1e-12);
        let [at, later] = [100, 103].map(|index: usize| smooth[index].1 - 2.0);
        assert!((later / at - 0.5).abs() < 1e-6, "{at} {later}");
    }

    #[test]
    fn the_nearest_bucket_is_found() {
        let mut series = Series::default();
        assert_eq!(series.nearest(4), None);
        for step in [10, 20, 30] {
            series.add(step, step as f64);
        }
        let nearest = [0, 14, 16, 1000].map(|step| series.nearest(step).unwrap().last.0);
        assert_eq!(nearest, [10, 10, 20, 30]);
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
