//! Who sees which slice when, as a pure function of the step.
//!
//! Every rank computes the same global batch and takes its own part of it; there is no state, so
//! a resumed run and another number of ranks see the same batches. Knows numbers only.

use crate::random::{Key, permutation};

/// The order in which `slice_count` slices are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Slices to learn from, at least 1.
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

    /// The slices of the global batch of `step`, counted from 1, by position in the batch.
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let steps_done = step.saturating_sub(1);
        let epoch = steps_done / self.steps_per_epoch();
        let first = (steps_done % self.steps_per_epoch()) as usize * self.batch_size;
        let end = (first + self.batch_size).min(self.slice_count);
        let key = Key::new(self.seed).purpose("shuffle").number(epoch);
        permutation(key, self.slice_count)[first..end].to_vec()
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
