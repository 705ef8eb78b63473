//! What ranks do together, and how a process finds out which rank it is.
//!
//! Everything here moves tensors and small messages; nothing knows what they mean.

mod background;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod nccl;
mod placement;
pub mod threads;

pub use placement::Placement;

use crate::error::{Context, Exit, Failure, Result};
use crate::launchers::{self, Announced, Start, Variables};
use crate::native::GroupSum;
use crate::shares::local_share;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::ops::{Deref, Range};
use std::sync::Arc;
use tch::{Device, Tensor};

/// What the ranks of one run say to each other: votes and small messages, from host to host.
///
/// Every rank makes the same calls, in the same order. The group is never assumed to be everything `mpirun`
/// started: a run may be one of several. Only one thread of a rank calls at a time. Tensors go another way
/// ([`TensorSums`]), which a rank has once it is known where it computes ([`with_device`]).
pub trait Communicator: Send + Sync {
    /// This process among the ranks, `0..ranks()`.
    fn rank(&self) -> usize;
    /// How many ranks there are, at least 1.
    fn ranks(&self) -> usize;
    /// Waits until every rank has come here.
    fn barrier(&self) -> Result<()>;
    /// Waits as [`Communicator::barrier`] does, and tells rank 0 of each other rank as it comes: so one that stays away
    /// has a number.
    fn assemble(&self, came: &mut dyn FnMut(usize)) -> Result<()> {
        self.barrier()?;
        if self.rank() == 0 {
            (1..self.ranks()).for_each(came);
        }
        Ok(())
    }
    /// The largest `value` over all ranks.
    fn max(&self, value: i64) -> Result<i64>;
    /// The messages of all ranks, in rank order, on every rank. For small control data.
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>>;
    /// This rank has got further on its own: nobody waits for it in vain. For work that takes long
    /// between two calls; only a communicator that is watched listens.
    fn note_progress(&self) {}
    /// Ends every rank of the job at once with this exit code. For failures that one rank alone sees.
    fn abort(&self, exit: Exit) -> !;
    /// Whether any rank says so.
    fn any(&self, flag: bool) -> Result<bool> {
        Ok(self.max(i64::from(flag))? != 0)
    }
}

/// What the ranks of one run do with tensors in the memory of the device where each of them computes.
///
/// Every rank makes the same calls, in the same order, with the same shapes. Tensors are contiguous and of
/// kind f32, f64 or i64; on a GPU also f16 and bf16. They may be empty. Only one thread of a rank calls
/// at a time.
pub trait TensorSums: GroupSum {
    /// Like [`GroupSum::sum`] of a 1-dimensional tensor, of which only this rank's
    /// [`local_share`] has to be right afterwards. The bits are the same on CPUs; on GPUs, where NCCL
    /// adds in another order, the numbers are the same to rounding.
    fn sum_own_share(&self, tensor: &Tensor) {
        self.sum(tensor);
    }
    /// Gives every rank all of a 1-dimensional tensor of which each rank has its
    /// [`local_share`].
    fn gather_shares(&self, tensor: &Tensor) -> Result<()> {
        (0..self.ranks()).try_for_each(|rank| {
            let share = local_share(tensor.numel(), self.ranks(), rank);
            self.broadcast(rank, &slice_of(tensor, &share))
        })
    }
    /// Whether what [`TensorSums::start_sum`] starts goes on while its caller does something else.
    fn overlaps(&self) -> bool {
        false
    }
    /// Starts what [`GroupSum::sum`] does, on CPUs bits included; `tensor` may be used again after
    /// [`TensorSums::finish_sums`]. All ranks start the same ones in the same order, also among other
    /// sums of the same thread.
    fn start_sum(&self, tensor: Tensor) {
        self.sum(&tensor);
    }
    /// Waits until all sums are done that were started.
    fn finish_sums(&self) {}
    /// Copies `tensor` (contiguous) of rank `root` into `tensor` of every rank.
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()>;
}

/// The ranks of one run, each with a device: what they say to each other, and what they do with tensors.
///
/// It is used as its [`Communicator`]; tensors go over [`Ranks::tensors`].
#[derive(Clone)]
pub struct Ranks {
    control: Arc<dyn Communicator>,
    tensors: Arc<dyn TensorSums>,
}

impl Ranks {
    /// Ranks whose messages and tensors go one way.
    pub fn of<R: Communicator + TensorSums + 'static>(ranks: Arc<R>) -> Self {
        Self { control: Arc::clone(&ranks) as Arc<dyn Communicator>, tensors: ranks }
    }

    /// One process by itself.
    pub fn alone() -> Self {
        Self::of(Arc::new(Solo))
    }

    /// What they say to each other.
    pub fn control(&self) -> &Arc<dyn Communicator> {
        &self.control
    }

    /// What they do with tensors where they compute.
    pub fn tensors(&self) -> &Arc<dyn TensorSums> {
        &self.tensors
    }
}

impl Deref for Ranks {
    type Target = dyn Communicator;

    fn deref(&self) -> &Self::Target {
        &*self.control
    }
}

/// The processes that were started together, before each knows where it computes.
///
/// It is used as its [`Communicator`], and has nothing for tensors: [`with_device`] makes ranks of it that do.
///
/// ```compile_fail,E0599
/// fn sums(host: &scrimp::comm::Host, tensor: &tch::Tensor) {
///     host.sum(tensor);
/// }
/// ```
pub struct Host(Ranks);

impl Host {
    /// Processes whose tensors are in host memory.
    pub fn of(ranks: Ranks) -> Self {
        Self(ranks)
    }

    /// What they say to each other.
    pub fn control(&self) -> &Arc<dyn Communicator> {
        self.0.control()
    }
}

impl Deref for Host {
    type Target = dyn Communicator;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// The group of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Solo;

impl GroupSum for Solo {
    fn ranks(&self) -> usize {
        1
    }
    fn sum(&self, _tensor: &Tensor) {}
}

impl TensorSums for Solo {
    fn broadcast(&self, root: usize, _tensor: &Tensor) -> Result<()> {
        check_root(root, 1)
    }
}

impl Communicator for Solo {
    fn rank(&self) -> usize {
        0
    }
    fn ranks(&self) -> usize {
        1
    }
    fn barrier(&self) -> Result<()> {
        Ok(())
    }
    fn max(&self, value: i64) -> Result<i64> {
        Ok(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![message.to_vec()])
    }
    fn abort(&self, exit: Exit) -> ! {
        std::process::exit(exit as i32)
    }
}

/// Joins the processes that were started together.
///
/// Without a launcher the process is [`Solo`], and MPI is not started. Call it once, early, and let
/// the last handle go on the same thread: that is where MPI has to end.
pub fn connect(variables: &Variables) -> Result<Host> {
    match launchers::start(variables)? {
        Start::Alone => Ok(Host::of(Ranks::alone())),
        Start::Launched(announced) => join(announced),
    }
}

#[cfg(feature = "mpi")]
fn join(announced: Announced) -> Result<Host> {
    let host = Host::of(Ranks::of(Arc::new(mpi::Mpi::start()?)));
    if host.ranks() == 1 && announced.contradicts_one_rank() {
        return Err(launchers::strangers(
            announced,
            "this MPI library does not understand the launcher's process management interface",
        ));
    }
    Ok(host)
}

#[cfg(not(feature = "mpi"))]
fn join(_announced: Announced) -> Result<Host> {
    Err(launchers::unjoined())
}

/// The same ranks as `host`, which compute on `device`, each on its own, and sum tensors there.
///
/// Every rank of `host` must join. On CPUs tensors go where messages go, on GPUs over NCCL; a single rank has
/// nobody to sum with.
pub fn with_device(host: &Host, device: Device) -> Result<Ranks> {
    let gpu = if let Device::Cuda(index) = device { Some(index) } else { None };
    let gpu_ranks = host.gather(&[u8::from(gpu.is_some())])?;
    if let Some(odd) = gpu_ranks.iter().position(|kind| *kind != gpu_ranks[0]) {
        let name = |rank: usize| if gpu_ranks[rank] == [1] { "a GPU" } else { "the CPU" };
        return Err(Failure::usage(format!(
            "rank 0 computes on {} and rank {odd} on {}: all ranks need the same",
            name(0),
            name(odd)
        ))
        .hint("run `nvidia-smi -L` on every node to see its GPUs"));
    }
    match gpu {
        Some(index) if host.ranks() > 1 => {
            let nccl = nccl::Nccl::join(Arc::clone(host.control()), index)?;
            Ok(Ranks::of(Arc::new(nccl)))
        }
        _ => Ok(host.0.clone()),
    }
}

/// Makes one rank's failure everybody's, so that nobody waits for a rank that has given up.
///
/// The first failing rank gets its own failure back and reports it; all others get one that names
/// that rank, carries its exit code and is marked as told elsewhere. Every rank must call it.
///
/// What one rank alone can fail in is agreed on before the first collective call that follows it: ranks that
/// have gone on wait in that call for ever. A failure between two collective calls cannot be agreed
/// on any more; whoever has it ends the others ([`Communicator::abort`]).
pub fn agree<T>(comm: &dyn Communicator, result: Result<T>) -> Result<T> {
    let verdict = match &result {
        Ok(_) => Vec::new(),
        Err(failure) => [&[failure.exit() as u8], failure.message().as_bytes()].concat(),
    };
    let verdicts = comm.gather(&verdict)?;
    match verdicts.iter().enumerate().find_map(|(rank, v)| Some((rank, v.split_first()?))) {
        Some((rank, (code, message))) if rank != comm.rank() => {
            let message = String::from_utf8_lossy(message);
            Err(Failure::new(format!("rank {rank} failed: {message}"))
                .exit_with(Exit::of_code(i32::from(*code)))
                .told_elsewhere())
        }
        _ => result.map_err(Failure::known_to_all),
    }
}

/// What rank 0 makes, on every rank, which must all call it.
pub fn from_first_rank<T: Serialize + DeserializeOwned>(
    comm: &dyn Communicator,
    make: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let cannot = || "cannot tell the other ranks what to do";
    let made = if comm.rank() == 0 {
        make().and_then(|made| serde_json::to_vec(&made).context(cannot))
    } else {
        Ok(Vec::new())
    };
    let messages = comm.gather(&agree(comm, made)?)?;
    agree(comm, serde_json::from_slice(&messages[0]).context(cannot))
}

/// A range of a 1-dimensional tensor, as a view.
fn slice_of(tensor: &Tensor, range: &Range<usize>) -> Tensor {
    tensor.narrow(0, range.start as i64, range.len() as i64)
}

fn check_root(root: usize, ranks: usize) -> Result<()> {
    if root < ranks {
        return Ok(());
    }
    Err(Failure::new(format!("broadcast from rank {root}, but there are only {ranks} ranks")))
}

/// Ends the job over what failed on this rank alone, while others may be in a sum: there is nobody to return
/// an error to, and nobody to agree with.
pub fn give_up(comm: &dyn Communicator, failure: Failure) -> ! {
    let exit = failure.exit();
    last_words(comm.rank(), failure);
    comm.abort(exit)
}

/// Says on `rank` why the job ends.
fn last_words(rank: usize, failure: Failure) {
    let failure = failure.at(format!("  --> rank {rank}"));
    // Written past any logging, since it is the last thing that the process says; and where stderr
    // is closed, there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{failure}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_launcher_there_is_one_rank() {
        let comm = connect(&Variables::new()).unwrap();
        assert_eq!((comm.rank(), comm.ranks()), (0, 1));
        assert_eq!(comm.gather(b"here").unwrap(), [b"here".to_vec()]);
        assert!(comm.any(true).unwrap());
        let ranks = with_device(&comm, Device::Cpu).unwrap();
        let failure = ranks.tensors().broadcast(1, &Tensor::from(1.0f32)).unwrap_err();
        assert_eq!(failure.message(), "broadcast from rank 1, but there are only 1 ranks");
    }
}
