//! Device tensors over NCCL.
//!
//! Ranks, votes and messages stay with the communicator in host memory, which also carries the
//! unique id. It knows no MPI.

use crate::comm::{Communicator, TensorSums, agree, check_root, give_up, slice_of};
use crate::error::{Exit, Failure, Result};
use crate::native::GroupSum;
use crate::native::cuda::{self, SideStream};
use crate::native::nccl::{self, Collective, Group};
use crate::shares::local_share;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::Tensor;

/// The ranks of `control`, each with a GPU of its own.
///
/// Tensors on the GPU are summed and broadcast by NCCL, where torch computes or beside it; what ranks say to
/// each other goes over `control`. Tensors elsewhere are refused.
pub struct Nccl {
    /// None once this rank has left.
    ranks: Option<Group>,
    /// Where sums run that nobody waits for yet.
    beside: Mutex<SideStream>,
    control: Arc<dyn Communicator>,
}

impl Nccl {
    /// Joins the ranks of `control` with this rank's GPU, counted from 0 among the visible ones.
    ///
    /// Every rank must call it. It fails on all ranks when one has no such GPU or no NCCL.
    pub fn join(control: Arc<dyn Communicator>, device: usize) -> Result<Self> {
        let found = find(device);
        let (beside, nccl) = agree(control.as_ref(), found)?;
        let version = nccl.version()?;
        let id = if control.rank() == 0 { nccl.unique_id() } else { Ok(Vec::new()) };
        let ids = control.gather(&agree(control.as_ref(), id)?)?;
        let (rank, ranks) = (control.rank(), control.ranks());
        let joined = nccl.join(&ids[0], (rank, ranks), device);
        let joined = agree(control.as_ref(), joined)?;
        let card = cuda::describe(device)?;
        tracing::info!(rank, ranks, device, card, version, "joined over NCCL");
        Ok(Self { ranks: Some(joined), beside: Mutex::new(beside), control })
    }

    fn beside(&self) -> MutexGuard<'_, SideStream> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(
        &self,
        collective: Collective,
        tensor: &Tensor,
        beside: Option<&SideStream>,
    ) -> Result<()> {
        let left = || Failure::new("this rank has left the others");
        self.ranks.as_ref().ok_or_else(left)?.enqueue(collective, tensor, beside)
    }

    /// Ends the job over a collective that failed.
    fn must(&self, outcome: Result<()>) {
        if let Err(failure) = outcome {
            give_up(self, failure);
        }
    }

    /// Whether NCCL can cut `tensor` into shares: it wants them equal.
    fn has_equal_shares(&self, tensor: &Tensor) -> bool {
        tensor.numel().is_multiple_of(self.control.ranks())
    }

    fn sum_beside(&self, tensor: &Tensor) -> Result<()> {
        let mut beside = self.beside();
        beside.follow_main()?;
        self.enqueue(Collective::Sum, tensor, Some(&beside))?;
        beside.hold(tensor)
    }
}

/// A stream on GPU `device`, and the library.
fn find(device: usize) -> Result<(SideStream, nccl::Nccl)> {
    if cuda::devices() <= device {
        return Err(Failure::new(format!("libtorch finds no GPU {device}"))
            .hint("run `nvidia-smi -L` to see the GPUs of this machine"));
    }
    Ok((SideStream::new(device)?, nccl::Nccl::load()?))
}

impl GroupSum for Nccl {
    fn ranks(&self) -> usize {
        self.control.ranks()
    }

    fn sum(&self, tensor: &Tensor) {
        self.must(self.enqueue(Collective::Sum, tensor, None));
    }
}

impl TensorSums for Nccl {
    fn sum_own_share(&self, tensor: &Tensor) {
        if self.has_equal_shares(tensor) {
            self.must(self.enqueue(Collective::SumShares, tensor, None));
        } else {
            self.sum(tensor);
        }
    }

    fn gather_shares(&self, tensor: &Tensor) -> Result<()> {
        if self.has_equal_shares(tensor) {
            return self.enqueue(Collective::GatherShares, tensor, None);
        }
        let ranks = self.control.ranks();
        (0..ranks).try_for_each(|rank| {
            let share = local_share(tensor.numel(), ranks, rank);
            self.broadcast(rank, &slice_of(tensor, &share))
        })
    }

    fn overlaps(&self) -> bool {
        true
    }

    // Both streams run at once, and NCCL may run dry where ranks begin what they share in different orders:
    // every rank makes its calls in one order, that of its backward.
    fn start_sum(&self, tensor: Tensor) {
        self.must(self.sum_beside(&tensor));
    }

    // The host does not wait: what torch computes next does.
    fn finish_sums(&self) {
        let finished = self.beside().main_follows();
        self.must(finished);
    }

    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        check_root(root, self.control.ranks())?;
        self.enqueue(Collective::Broadcast { root }, tensor, None)
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn ranks(&self) -> usize {
        self.control.ranks()
    }

    fn barrier(&self) -> Result<()> {
        self.control.barrier()
    }

    // What every step ends with.
    fn max(&self, value: i64) -> Result<i64> {
        self.must(self.ranks.as_ref().map_or(Ok(()), Group::check_earlier_work));
        self.control.max(value)
    }

    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.control.gather(message)
    }

    fn abort(&self, exit: Exit) -> ! {
        self.control.abort(exit)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Work in flight would never end: `control`, dropped next, ends the job.
            return;
        }
        if let Some(Err(failure)) = self.ranks.take().map(Group::leave) {
            tracing::warn!("{failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Host, Solo, threads, with_device};
    use tch::Device;

    /// A GPU that no machine has.
    const NO_GPU: usize = 999;

    #[test]
    fn a_missing_gpu_is_a_failure_and_not_a_crash() {
        let failure = Nccl::join(Arc::new(Solo), NO_GPU).map(|_| ()).unwrap_err();
        let text = failure.to_string();
        assert!(text.contains("GPU 999") && text.contains("nvidia-smi -L"), "{text}");
    }

    #[test]
    fn every_rank_hears_that_one_has_no_gpu() {
        let outcomes =
            threads::run(2, |ranks| Nccl::join(Arc::clone(ranks.control()), NO_GPU).map(|_| ()));
        for outcome in outcomes {
            assert!(outcome.unwrap_err().to_string().contains("GPU 999"));
        }
    }

    #[test]
    fn one_rank_on_a_gpu_needs_no_nccl_and_mixed_devices_are_refused() {
        let solo =
            with_device(&Host::of(crate::comm::Ranks::alone()), Device::Cuda(NO_GPU)).unwrap();
        assert_eq!(solo.ranks(), 1);
        let outcomes = threads::run(2, |ranks| {
            let device = if ranks.rank() == 0 { Device::Cpu } else { Device::Cuda(0) };
            with_device(&Host::of(ranks), device).map(|_| ())
        });
        for outcome in outcomes {
            assert_eq!(
                outcome.unwrap_err().message(),
                "rank 0 computes on the CPU and rank 1 on a GPU: all ranks need the same"
            );
        }
    }
}
