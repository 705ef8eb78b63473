//! What ranks do together, and how a process finds out which rank it is.
//!
//! Everything here moves tensors and small messages; nothing knows what they mean.

#[cfg(feature = "mpi")]
pub mod mpi;
pub mod nccl;
pub mod threads;

use crate::error::{Exit, Result};
use crate::native::GroupSum;
use tch::Tensor;

/// The ranks of one run. Every rank makes the same calls, in the same order, with the same shapes.
///
/// The group is never assumed to be everything `mpirun` started: a run may be one of several.
pub trait Communicator: GroupSum {
    /// This process among the ranks, `0..ranks()`.
    fn rank(&self) -> usize;
    /// Copies `tensor` (contiguous) of rank `root` into `tensor` of every rank.
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()>;
    /// Waits until every rank has come here.
    fn barrier(&self) -> Result<()>;
    /// The largest `value` over all ranks.
    fn max(&self, value: i64) -> Result<i64>;
    /// The messages of all ranks, in rank order, on every rank. For small control data.
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>>;
    /// Ends every rank of the job at once with this exit code. For failures that one rank alone sees.
    fn abort(&self, exit: Exit) -> !;
    /// Whether any rank says so.
    fn any(&self, flag: bool) -> Result<bool> {
        Ok(self.max(i64::from(flag))? != 0)
    }
}
