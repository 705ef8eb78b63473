//! A communicator that measures how long its rank spends in it.

use crate::comm::Communicator;
use crate::error::{Exit, Result};
use crate::native::GroupSum;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tch::Tensor;

/// Passes every call on, and adds up the time of the sums.
pub(super) struct Meter {
    inner: Arc<dyn Communicator>,
    nanoseconds: AtomicU64,
}

impl Meter {
    pub(super) fn new(inner: Arc<dyn Communicator>) -> Self {
        Self { inner, nanoseconds: AtomicU64::new(0) }
    }

    /// The time since the last call.
    pub(super) fn take(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.swap(0, Ordering::Relaxed))
    }
}

impl GroupSum for Meter {
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }

    fn sum(&self, tensor: &Tensor) {
        let start = Instant::now();
        self.inner.sum(tensor);
        let nanoseconds = start.elapsed().as_nanos() as u64;
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Communicator for Meter {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        self.inner.broadcast(root, tensor)
    }
    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }
    fn max(&self, value: i64) -> Result<i64> {
        self.inner.max(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.inner.gather(message)
    }
    fn abort(&self, exit: Exit) -> ! {
        self.inner.abort(exit)
    }
}
