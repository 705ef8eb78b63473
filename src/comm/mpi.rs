//! Ranks as MPI processes: host tensors, ids and votes.
//!
//! The only file that names types of rsmpi. It knows no devices: tensors elsewhere than in host
//! memory are refused.

use crate::comm::background::{Background, Sum};
use crate::comm::{Communicator, TensorSums, check_root, give_up, last_words};
use crate::error::{Exit, Failure, Result};
use crate::native::{Element, GroupSum, with_slice_mut};
use crate::shares::local_share;
use mpi::Count;
use mpi::collective::{CommunicatorCollectives, Root, SystemOperation};
use mpi::datatype::PartitionMut;
use mpi::environment::{Threading, Universe};
use mpi::point_to_point::{Destination, Source};
use mpi::request::{LocalScope, Request, scope};
use mpi::topology::{Communicator as _, SimpleCommunicator};
use mpi::traits::Equivalence;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tch::{Kind, Tensor};

/// Elements per MPI call. Counts of MPI are 32-bit, and this bounds the scratch memory to 16 MiB.
const CHUNK: usize = 1 << 20;
/// Tensors of fewer elements are summed in one call: their time is that of the messages' way.
const SHORT: usize = 1 << 12;

/// Of the messages with which ranks say that they have come.
const ROLL_CALL: i32 = 1;
/// Time between two looks at a sum that goes on in the background: it should not take the processor
/// away from what it is hidden behind.
const LOOK: Duration = Duration::from_micros(100);

/// All processes that the launcher started.
///
/// MPI's own error handler is left in place: it ends the job with MPI's message, so no call here
/// returns after a failed communication. Dropping this ends MPI, which waits for the other ranks;
/// while its thread panics it ends the job instead, since the others would wait for ever.
pub struct Mpi {
    rank: usize,
    ranks: usize,
    scratch: Mutex<Scratch>,
    /// Goes before MPI ends.
    background: Background,
    /// Ends MPI when it is dropped.
    _universe: Universe,
}

/// Where sums and shares are sent from and arrive before they are copied back.
#[derive(Default)]
struct Scratch {
    f32: [Vec<f32>; 2],
    f64: [Vec<f64>; 2],
    i64: [Vec<i64>; 2],
}

/// How much of a sum a rank needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    OwnShare,
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
        // Every rank is here, and none calls anything else before the duplicate is made.
        let background = Background::start(|| Ok(sums_in_the_background()))?;
        Ok(Self {
            rank: world.rank() as usize,
            ranks: world.size() as usize,
            scratch: Mutex::default(),
            background,
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

    fn sum_or_end(&self, tensor: &Tensor, extent: Extent) {
        if let Err(failure) = Line::world().sum(tensor, &mut self.scratch(), extent) {
            give_up(self, failure);
        }
    }
}

/// What the MPI library that this program is linked with calls itself, for example `Open MPI v4.1.4`; it need not have
/// started.
pub fn library() -> String {
    let name = mpi::environment::library_version().unwrap_or_default();
    // Open MPI goes on with who packaged it, MPICH with how it was built.
    let first = name.trim_end_matches('\0').lines().next().unwrap_or_default();
    let first = first.split(',').next().unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Sums on communicators of their own, whatever goes on beside them.
fn sums_in_the_background() -> Sum {
    let line = Line { ranks: Mpi::world().duplicate(), wait: Wait::Asleep };
    let mut scratch = Scratch::default();
    Box::new(move |tensor| {
        if let Err(failure) = line.sum(tensor, &mut scratch, Extent::All) {
            let exit = failure.exit();
            last_words(line.ranks.rank() as usize, failure);
            line.ranks.abort(exit as i32);
        }
    })
}

fn unknown_kind(operation: &str, kind: Kind) -> Failure {
    Failure::new(format!("cannot {operation} a tensor of kind `{kind:?}` over MPI"))
        .hint("convert it to `Float`, `Double` or `Int64`")
}

/// What MPI can send and Rust can add.
trait Number: Element + Equivalence + Default + std::ops::AddAssign {}
impl Number for f32 {}
impl Number for f64 {}
impl Number for i64 {}

/// The way to the other ranks, and how to wait for them.
struct Line {
    ranks: SimpleCommunicator,
    wait: Wait,
}

/// How a rank waits for others.
#[derive(Clone, Copy)]
enum Wait {
    /// As the library does, which is soonest.
    Awake,
    /// Looking now and then.
    Asleep,
}

impl Line {
    fn world() -> Self {
        Self { ranks: Mpi::world(), wait: Wait::Awake }
    }

    fn sum(&self, tensor: &Tensor, scratch: &mut Scratch, extent: Extent) -> Result<()> {
        match tensor.kind() {
            Kind::Float => with_slice_mut(tensor, |all| self.add(all, &mut scratch.f32, extent)),
            Kind::Double => with_slice_mut(tensor, |all| self.add(all, &mut scratch.f64, extent)),
            Kind::Int64 => with_slice_mut(tensor, |all| self.add(all, &mut scratch.i64, extent)),
            kind => Err(unknown_kind("sum", kind)),
        }
    }

    /// The sum over all ranks. Long slices are summed share by share in the order of the ranks, so
    /// that a rank that needs its own share alone gets the same bits, whatever the library would do.
    fn add<T: Number>(&self, all: &mut [T], scratch: &mut [Vec<T>; 2], extent: Extent) {
        if all.len() < SHORT {
            let total = &mut scratch[0];
            total.resize(total.len().max(all.len()), T::default());
            let total = &mut total[..all.len()];
            self.all_reduce(all, total);
            all.copy_from_slice(total);
            return;
        }
        self.by_share(all, scratch, |parts, [sent, received]| {
            self.all_to_all(sent, received);
            let own = &mut parts[self.ranks.rank() as usize];
            let size = received.len() / self.ranks.size() as usize;
            own.copy_from_slice(&received[..own.len()]);
            for part in received[size..].chunks_exact(size) {
                own.iter_mut().zip(part).for_each(|(sum, &number)| *sum += number);
            }
        });
        if extent == Extent::All {
            self.gather(all, scratch);
        }
    }

    /// Every rank's share of the slice, from that rank.
    fn gather<T: Number>(&self, all: &mut [T], scratch: &mut [Vec<T>; 2]) {
        self.by_share(all, scratch, |parts, [sent, received]| {
            let size = received.len() / self.ranks.size() as usize;
            self.all_gather(&sent[self.ranks.rank() as usize * size..][..size], received);
            for (part, arrived) in parts.iter_mut().zip(received.chunks_exact(size)) {
                part.copy_from_slice(&arrived[..part.len()]);
            }
        });
    }

    /// Calls `exchange` for as many elements of every rank's share at once as one call may have: with
    /// their places in the slice, with a copy of them in parts of equal size, and with room for as
    /// many.
    fn by_share<T: Number>(
        &self,
        all: &mut [T],
        scratch: &mut [Vec<T>; 2],
        mut exchange: impl FnMut(&mut [&mut [T]], [&mut [T]; 2]),
    ) {
        let ranks = self.ranks.size() as usize;
        let (count, mut rest) = (all.len(), all);
        let mut shares = Vec::with_capacity(ranks);
        for rank in 0..ranks {
            let (share, behind) = rest.split_at_mut(local_share(count, ranks, rank).len());
            shares.push(share);
            rest = behind;
        }
        let size = shares[0].len().min((CHUNK / ranks).max(1));
        let [sent, received] = scratch.each_mut().map(|room| {
            room.resize(room.len().max(ranks * size), T::default());
            &mut room[..ranks * size]
        });
        while !shares[0].is_empty() {
            let mut parts: Vec<&mut [T]> = Vec::with_capacity(ranks);
            for share in &mut shares {
                let length = share.len().min(size);
                let (part, behind) = std::mem::take(share).split_at_mut(length);
                parts.push(part);
                *share = behind;
            }
            for (room, part) in sent.chunks_exact_mut(size).zip(&parts) {
                room[..part.len()].copy_from_slice(part);
            }
            exchange(&mut parts, [&mut *sent, &mut *received]);
        }
    }

    fn all_reduce<T: Number>(&self, own: &[T], total: &mut [T]) {
        let sum = SystemOperation::sum();
        match self.wait {
            Wait::Awake => self.ranks.all_reduce_into(own, total, sum),
            Wait::Asleep => scope(|scope| {
                sleep_until_done(self.ranks.immediate_all_reduce_into(scope, own, total, sum));
            }),
        }
    }

    fn all_to_all<T: Number>(&self, sent: &[T], received: &mut [T]) {
        match self.wait {
            Wait::Awake => self.ranks.all_to_all_into(sent, received),
            Wait::Asleep => scope(|scope| {
                sleep_until_done(self.ranks.immediate_all_to_all_into(scope, sent, received));
            }),
        }
    }

    fn all_gather<T: Number>(&self, own: &[T], received: &mut [T]) {
        match self.wait {
            Wait::Awake => self.ranks.all_gather_into(own, received),
            Wait::Asleep => scope(|scope| {
                sleep_until_done(self.ranks.immediate_all_gather_into(scope, own, received));
            }),
        }
    }
}

fn sleep_until_done<'a, D: ?Sized>(mut request: Request<'a, D, &LocalScope<'a>>) {
    while let Err(unfinished) = request.test() {
        request = unfinished;
        std::thread::sleep(LOOK);
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
        self.sum_or_end(tensor, Extent::All);
    }
}

impl TensorSums for Mpi {
    fn overlaps(&self) -> bool {
        self.ranks > 1
    }

    fn start_sum(&self, tensor: Tensor) {
        self.background.sum(tensor);
    }

    fn finish_sums(&self) {
        self.background.finish();
    }

    fn sum_own_share(&self, tensor: &Tensor) {
        self.sum_or_end(tensor, Extent::OwnShare);
    }

    fn gather_shares(&self, tensor: &Tensor) -> Result<()> {
        let (line, scratch) = (Line::world(), &mut *self.scratch());
        match tensor.kind() {
            Kind::Float => with_slice_mut(tensor, |all| line.gather(all, &mut scratch.f32)),
            Kind::Double => with_slice_mut(tensor, |all| line.gather(all, &mut scratch.f64)),
            Kind::Int64 => with_slice_mut(tensor, |all| line.gather(all, &mut scratch.i64)),
            kind => Err(unknown_kind("gather", kind)),
        }
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
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn barrier(&self) -> Result<()> {
        Self::world().barrier();
        Ok(())
    }

    fn assemble(&self, came: &mut dyn FnMut(usize)) -> Result<()> {
        let world = Self::world();
        if self.rank == 0 {
            for _ in 1..self.ranks {
                let (_, status) = world.any_process().receive_with_tag::<u8>(ROLL_CALL);
                came(status.source_rank() as usize);
            }
        } else {
            world.process_at_rank(0).send_with_tag(&0u8, ROLL_CALL);
        }
        // Nobody comes a second time before all have come.
        self.barrier()
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
