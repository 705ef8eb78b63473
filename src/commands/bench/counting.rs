//! A communicator that counts what goes over it.
//!
//! It passes every call on and remembers its bytes. It knows no steps: whoever asks says when.

use super::model::Traffic;
use crate::comm::{Communicator, Ranks, TensorSums};
use crate::error::{Exit, Result};
use crate::native::GroupSum;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::Tensor;

/// Bytes of the number that [`Communicator::max`] sends.
const NUMBER: usize = 8;

/// Passes calls on and counts them.
pub(super) struct Counting {
    inner: Ranks,
    traffic: Mutex<Traffic>,
}

impl Counting {
    pub(super) fn new(inner: Ranks) -> Self {
        Self { inner, traffic: Mutex::default() }
    }

    /// What was counted since the last call of this.
    pub(super) fn take(&self) -> Traffic {
        std::mem::take(&mut *self.traffic())
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

impl GroupSum for Counting {
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }

    fn sum(&self, tensor: &Tensor) {
        self.traffic().waited.push(bytes_of(tensor));
        self.inner.tensors().sum(tensor);
    }
}

impl TensorSums for Counting {
    fn sum_own_share(&self, tensor: &Tensor) {
        self.traffic().halves.push(bytes_of(tensor));
        self.inner.tensors().sum_own_share(tensor);
    }
    fn gather_shares(&self, tensor: &Tensor) -> Result<()> {
        self.traffic().halves.push(bytes_of(tensor));
        self.inner.tensors().gather_shares(tensor)
    }
    fn overlaps(&self) -> bool {
        self.inner.tensors().overlaps()
    }
    fn start_sum(&self, tensor: Tensor) {
        self.traffic().beside.push(bytes_of(&tensor));
        self.inner.tensors().start_sum(tensor);
    }
    fn finish_sums(&self) {
        self.inner.tensors().finish_sums();
    }
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        self.traffic().waited.push(bytes_of(tensor));
        self.inner.tensors().broadcast(root, tensor)
    }
}

// What is no sum of tensors is rare in a step and counted as one: it goes the same way at most.
impl Communicator for Counting {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn barrier(&self) -> Result<()> {
        self.traffic().waited.push(0);
        self.inner.barrier()
    }
    fn max(&self, value: i64) -> Result<i64> {
        self.traffic().waited.push(NUMBER);
        self.inner.max(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.traffic().waited.push(message.len() * self.inner.ranks());
        self.inner.gather(message)
    }
    fn note_progress(&self) {
        self.inner.note_progress();
    }
    fn abort(&self, exit: Exit) -> ! {
        self.inner.abort(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use tch::{Device, Kind};

    #[test]
    fn calls_are_passed_on_and_counted_once() {
        let outcomes = threads::run(2, |comm| {
            let counting = Counting::new(comm);
            let [first, second] =
                [Kind::Float, Kind::Double].map(|kind| Tensor::ones([6], (kind, Device::Cpu)));
            counting.sum(&first);
            counting.start_sum(second.shallow_clone());
            counting.finish_sums();
            counting.sum_own_share(&first);
            counting.gather_shares(&first)?;
            assert_eq!((first.double_value(&[5]), second.double_value(&[0])), (4.0, 2.0));
            assert_eq!(counting.max(counting.rank() as i64)?, 1);
            assert_eq!(counting.gather(&[1, 2, 3])?.len(), 2);
            Ok((counting.take(), counting.take()))
        });
        for outcome in outcomes {
            let (traffic, nothing) = outcome.unwrap();
            let expected =
                Traffic { waited: vec![24, 8, 6], halves: vec![24, 24], beside: vec![48] };
            assert_eq!((traffic, nothing), (expected, Traffic::default()));
        }
    }
}
