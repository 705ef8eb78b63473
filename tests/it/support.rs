//! Communicators that tests wrap around another: one that records calls, one that misbehaves.

use scrimp::comm::{Communicator, Ranks, TensorSums};
use scrimp::error::{Exit, Failure, Result};
use scrimp::native::GroupSum;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tch::Tensor;

/// Records the sequence of calls, as `sum Float [2, 3]`, for comparing it between ranks.
pub(crate) struct Counted {
    inner: Ranks,
    calls: Mutex<Vec<String>>,
}

impl Counted {
    pub(crate) fn new(inner: Ranks) -> Self {
        Self { inner, calls: Mutex::default() }
    }

    /// What was called so far, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }
}

impl GroupSum for Counted {
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn sum(&self, tensor: &Tensor) {
        self.note(format!("sum {:?} {:?}", tensor.kind(), tensor.size()));
        self.inner.tensors().sum(tensor);
    }
}

impl TensorSums for Counted {
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        self.note(format!("broadcast {root} {:?} {:?}", tensor.kind(), tensor.size()));
        self.inner.tensors().broadcast(root, tensor)
    }
}

impl Communicator for Counted {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn barrier(&self) -> Result<()> {
        self.note("barrier");
        self.inner.barrier()
    }
    fn max(&self, value: i64) -> Result<i64> {
        self.note("max");
        self.inner.max(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.note("gather");
        self.inner.gather(message)
    }
    fn abort(&self, exit: Exit) -> ! {
        self.inner.abort(exit)
    }
}

/// What goes wrong in the chosen call of [`Faulty`].
pub(crate) enum Fault {
    /// The call fails without reaching the other ranks; a sum ends the rank.
    Fails,
    /// The call comes this much later.
    Delays(Duration),
}

/// Misbehaves in one call, counted from 0 over all operations.
pub(crate) struct Faulty {
    inner: Ranks,
    bad_call: usize,
    fault: Fault,
    calls: AtomicUsize,
}

impl Faulty {
    pub(crate) fn new(inner: Ranks, bad_call: usize, fault: Fault) -> Self {
        Self { inner, bad_call, fault, calls: AtomicUsize::new(0) }
    }

    fn pass(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Fails if call == self.bad_call => Err(Failure::new(format!(
                "call {call} of rank {} fails on purpose",
                self.inner.rank()
            ))),
            Fault::Delays(time) if call == self.bad_call => {
                std::thread::sleep(time);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl GroupSum for Faulty {
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn sum(&self, tensor: &Tensor) {
        self.pass().unwrap();
        self.inner.tensors().sum(tensor);
    }
}

impl TensorSums for Faulty {
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        self.pass()?;
        self.inner.tensors().broadcast(root, tensor)
    }
}

impl Communicator for Faulty {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn barrier(&self) -> Result<()> {
        self.pass()?;
        self.inner.barrier()
    }
    fn max(&self, value: i64) -> Result<i64> {
        self.pass()?;
        self.inner.max(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.pass()?;
        self.inner.gather(message)
    }
    fn abort(&self, exit: Exit) -> ! {
        self.inner.abort(exit)
    }
}
