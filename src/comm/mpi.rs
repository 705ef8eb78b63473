//! Ranks as MPI processes: host tensors, ids and votes.
//!
//! The only file that names types of rsmpi. It knows no devices: tensors elsewhere than in host
//! memory are refused.

use crate::comm::{Communicator, check_root, give_up};
use crate::error::{Exit, Failure, Result};
use crate::native::{Element, GroupSum, with_slice_mut};
use mpi::Count;
use mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use mpi::datatype::PartitionMut;
use mpi::environment::{Threading, Universe};
use mpi::topology::{Communicator as _, SimpleCommunicator};
use mpi::traits::Equivalence;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

/// Elements per MPI call. Counts of MPI are 32-bit, and this bounds the scratch memory to 8 MiB.
const CHUNK: usize = 1 << 20;

/// All processes that the launcher started.
///
/// MPI's own error handler is left in place: it ends the job with MPI's message, so no call here
/// returns after a failed communication. Dropping this ends MPI, which waits for the other ranks;
/// while its thread panics it ends the job instead, since the others would wait for ever.
pub struct Mpi {
    rank: usize,
    ranks: usize,
    scratch: Mutex<Scratch>,
    /// Ends MPI when it is dropped.
    _universe: Universe,
}

/// Where sums arrive before they are copied back.
#[derive(Default)]
struct Scratch {
    f32: Vec<f32>,
    f64: Vec<f64>,
    i64: Vec<i64>,
}

impl Mpi {
    /// Starts MPI, with leave for every thread to call it.
    ///
    /// Fails where MPI was started before, and where the library was built without threads.
    pub fn start() -> Result<Self> {
        let (universe, provided) = mpi::initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| Failure::new("MPI was already started in this process"))?;
        if provided != Threading::Multiple {
            return Err(Failure::new(format!(
                "this MPI library offers thread support `{provided:?}`, expected `Multiple`"
            ))
            .hint("run `ompi_info | grep -i thread` and load an MPI with MPI_THREAD_MULTIPLE"));
        }
        let world = universe.world();
        Ok(Self {
            rank: world.rank() as usize,
            ranks: world.size() as usize,
            scratch: Mutex::default(),
            _universe: universe,
        })
    }

    /// Anew for every call: rsmpi's communicators stay on one thread, this struct does not.
    fn world() -> SimpleCommunicator {
        SimpleCommunicator::world()
    }

    fn scratch(&self) -> MutexGuard<'_, Scratch> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_sum(&self, tensor: &Tensor) -> Result<()> {
        let scratch = &mut *self.scratch();
        match tensor.kind() {
            Kind::Float => with_slice_mut(tensor, |all| sum_chunks(all, &mut scratch.f32)),
            Kind::Double => with_slice_mut(tensor, |all| sum_chunks(all, &mut scratch.f64)),
            Kind::Int64 => with_slice_mut(tensor, |all| sum_chunks(all, &mut scratch.i64)),
            kind => Err(unknown_kind("sum", kind)),
        }
    }
}

fn unknown_kind(operation: &str, kind: Kind) -> Failure {
    Failure::new(format!("cannot {operation} a tensor of kind `{kind:?}` over MPI"))
        .hint("convert it to `Float`, `Double` or `Int64`")
}

fn sum_chunks<T: Element + Equivalence + Default>(all: &mut [T], scratch: &mut Vec<T>) {
    let world = Mpi::world();
    scratch.resize(scratch.len().max(all.len().min(CHUNK)), T::default());
    for chunk in all.chunks_mut(CHUNK) {
        let total = &mut scratch[..chunk.len()];
        world.all_reduce_into(&*chunk, total, SystemOperation::sum());
        chunk.copy_from_slice(total);
    }
}

fn broadcast_chunks<T: Element + Equivalence>(root: usize, all: &mut [T]) {
    let world = Mpi::world();
    let root = world.process_at_rank(root as i32);
    for chunk in all.chunks_mut(CHUNK) {
        root.broadcast_into(chunk);
    }
}

impl GroupSum for Mpi {
    fn ranks(&self) -> usize {
        self.ranks
    }

    fn sum(&self, tensor: &Tensor) {
        if let Err(failure) = self.try_sum(tensor) {
            give_up(self, failure);
        }
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        check_root(root, self.ranks)?;
        match tensor.kind() {
            Kind::Float => with_slice_mut::<f32, _>(tensor, |all| broadcast_chunks(root, all)),
            Kind::Double => with_slice_mut::<f64, _>(tensor, |all| broadcast_chunks(root, all)),
            Kind::Int64 => with_slice_mut::<i64, _>(tensor, |all| broadcast_chunks(root, all)),
            kind => Err(unknown_kind("broadcast", kind)),
        }
    }

    fn barrier(&self) -> Result<()> {
        Self::world().barrier();
        Ok(())
    }

    fn max(&self, value: i64) -> Result<i64> {
        let mut largest = value;
        Self::world().all_reduce_into(&value, &mut largest, SystemOperation::max());
        Ok(largest)
    }

    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        let world = Self::world();
        // One byte more: an empty slice may have the address 1, which is Open MPI's MPI_IN_PLACE.
        let sent = [message, &[0]].concat();
        let mut lengths = vec![0u64; self.ranks];
        world.all_gather_into(&(sent.len() as u64), &mut lengths);
        let total: u64 = lengths.iter().sum();
        if total > Count::MAX as u64 {
            // Every rank knows all lengths, so every rank fails here.
            return Err(Failure::new(format!(
                "messages of {total} bytes in all cannot be gathered, at most {} can",
                Count::MAX
            )));
        }
        let counts: Vec<Count> = lengths.iter().map(|&length| length as Count).collect();
        let starts: Vec<Count> = counts
            .iter()
            .scan(0, |end, &count| {
                *end += count;
                Some(*end - count)
            })
            .collect();
        let mut bytes = vec![0u8; total as usize];
        let mut parts = PartitionMut::new(&mut bytes[..], &counts[..], &starts[..]);
        world.all_gather_varcount_into(&sent[..], &mut parts);
        Ok(starts
            .iter()
            .zip(&counts)
            .map(|(&start, &count)| bytes[start as usize..(start + count - 1) as usize].to_vec())
            .collect())
    }

    fn abort(&self, exit: Exit) -> ! {
        Self::world().abort(exit as i32)
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort(Exit::Failed);
        }
    }
}
