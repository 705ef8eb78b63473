//! Who sees which slice when, as a pure function of the step.
//!
//! Every rank computes the same global batch and takes its own part of it; there is no state, so
//! a resumed run and another number of ranks see the same batches; what is kept between steps saves time alone. Knows numbers only.

use crate::random::{Key, permutation, permuted};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Epochs whose orders are kept: the one under way, the next, which threads look ahead to, and the first,
/// from whose batches statistics are made anew.
const KEPT: usize = 3;

/// The order in which `slice_count` slices are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Slices to learn from, at least 1 and at most [`u32::MAX`].
    pub slice_count: usize,
    /// Samples of one step over all ranks, at least 1.
    pub batch_size: usize,
    /// Leaves out the last batch of an epoch where it is not full. Then there must be as many
    /// slices as one batch has samples.
    pub drop_last: bool,
    /// The seed of the run.
    pub seed: u64,
}

impl Order {
    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        let full = self.slice_count / self.batch_size;
        let partial = !self.drop_last && !self.slice_count.is_multiple_of(self.batch_size);
        full as u64 + u64::from(partial)
    }

    /// The slices of the global batch of `step`, counted from 1, by position in the batch. Takes as long
    /// as an epoch is large: [`Epochs::batch`] is for all but single steps.
    pub fn batch(&self, step: u64) -> Vec<usize> {
        self.cut(step, &self.epoch(self.place(step).0))
    }

    /// The order of all slices in one epoch, counted from 0.
    fn epoch(&self, epoch: u64) -> Arc<[u32]> {
        let key = Key::new(self.seed).purpose("shuffle").number(epoch);
        permutation(key, self.slice_count).into_iter().map(|slice| slice as u32).collect()
    }

    /// The epoch of a step, and the steps that were done in it before.
    fn place(&self, step: u64) -> (u64, u64) {
        let steps_done = step.saturating_sub(1);
        (steps_done / self.steps_per_epoch(), steps_done % self.steps_per_epoch())
    }

    /// The part of an epoch's order that is shown in `step`.
    fn cut(&self, step: u64, epoch: &[u32]) -> Vec<usize> {
        epoch[self.span(step)].iter().map(|&slice| slice as usize).collect()
    }

    /// The places in an epoch's order that are shown in `step`.
    fn span(&self, step: u64) -> Range<usize> {
        let first = self.place(step).1 as usize * self.batch_size;
        first..(first + self.batch_size).min(self.slice_count)
    }

    /// As [`Order::batch`], in another order, of which no more is computed than the batch.
    pub fn keyed_batch(&self, step: u64) -> Vec<usize> {
        let key = Key::new(self.seed).purpose("items").number(self.place(step).0);
        let count = self.slice_count as u64;
        self.span(step).map(|place| permuted(key, count, place as u64) as usize).collect()
    }

    /// The random numbers that say where the patch at `position` of the global batch of `step` lies.
    pub fn patch(&self, step: u64, position: usize) -> Key {
        Key::new(self.seed).purpose("patch").number(step).number(position as u64)
    }

    /// The random numbers that augment the sample at `position` of the global batch of `step`.
    pub fn augmentation(&self, step: u64, position: usize) -> Key {
        Key::new(self.seed).purpose("augment").number(step).number(position as u64)
    }

    /// The random numbers that choose the mask beside this sample.
    pub fn shapes(&self, step: u64, position: usize) -> Key {
        Key::new(self.seed).purpose("shapes").number(step).number(position as u64)
    }
}

/// An order whose epochs are shuffled once, however many batches and threads ask for them.
#[derive(Debug)]
pub struct Epochs {
    order: Order,
    /// The epochs asked for last, latest first.
    kept: Mutex<Vec<(u64, Arc<[u32]>)>>,
}

impl Epochs {
    /// Nothing is shuffled yet.
    pub fn new(order: Order) -> Self {
        Self { order, kept: Mutex::default() }
    }

    /// What is shuffled, and how.
    pub fn order(&self) -> Order {
        self.order
    }

    /// As [`Order::batch`].
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let (epoch, _) = self.order.place(step);
        self.order.cut(step, &self.epoch(epoch))
    }

    /// As [`Order::epoch`]; other threads wait for one that shuffles rather than do the same.
    fn epoch(&self, epoch: u64) -> Arc<[u32]> {
        // A thread that panics leaves the orders that were there.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(number, _)| *number == epoch);
        let found = match known {
            Some(place) => kept.remove(place).1,
            None => self.order.epoch(epoch),
        };
        kept.truncate(KEPT - 1);
        kept.insert(0, (epoch, Arc::clone(&found)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Order = Order { slice_count: 10, batch_size: 3, drop_last: false, seed: 5 };

    #[test]
    fn batches_are_those_of_the_order_in_whichever_sequence_they_are_asked_for() {
        let epochs = Epochs::new(ORDER);
        for step in (1..30).chain([2, 40, 3, 17, 1]) {
            assert_eq!(epochs.batch(step), ORDER.batch(step), "step {step}");
        }
    }

    #[test]
    fn an_epoch_is_shuffled_once_for_all_threads_and_for_looks_back_to_the_first() {
        let epochs = Epochs::new(ORDER);
        let first = epochs.epoch(0);
        let orders = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| [0, 1].map(|epoch| epochs.epoch(epoch)));
            let threads: Vec<_> = (0..4).map(|_| ask()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for [again, second] in &orders {
            assert!(Arc::ptr_eq(again, &first) && Arc::ptr_eq(second, &orders[0][1]));
        }
        for epoch in [2, 0, 3, 0, 4] {
            epochs.epoch(epoch);
        }
        assert!(Arc::ptr_eq(&epochs.epoch(0), &first));
        assert!(epochs.kept.lock().unwrap().len() <= KEPT);
    }

    #[test]
    fn batches_of_a_million_slices_cost_what_they_hold() {
        let order = Order { slice_count: 1_000_000, batch_size: 12, drop_last: false, seed: 1 };
        let epochs = Epochs::new(order);
        // Shuffling for each of them would take many minutes.
        let sum: usize = (1..=10_000).flat_map(|step| epochs.batch(step)).sum();
        let expected: usize = order.epoch(0)[..120_000].iter().map(|&slice| slice as usize).sum();
        assert_eq!(sum, expected);
    }
}
