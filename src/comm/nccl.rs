//! Device tensors over NCCL.
//!
//! Ranks, votes and messages stay with the communicator in host memory, which also carries the
//! unique id. With `native/` the only place with unsafe code. It knows no MPI.
//!
//! NCCL is looked up at run time, so that the same binary starts where there is no GPU.

#![expect(unsafe_code, reason = "NCCL is a C library, called with the addresses of tensors")]

use crate::comm::{Communicator, agree, check_root, give_up, slice_of};
use crate::error::{Context, Exit, Failure, Result};
use crate::native::GroupSum;
use crate::shares::local_share;
use cudarc::driver::{CudaContext, CudaStream};
use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclUniqueId};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// The name under which every NCCL 2 is installed; libtorch for CUDA has usually loaded it already,
/// and then this is that very library.
const LIBRARY: &str = "libnccl.so.2";

type Address = *mut c_void;

/// A collective that adds up: from, to, elements, their kind, how, who, where.
type Reduction = unsafe extern "C" fn(
    *const c_void,
    Address,
    usize,
    ncclDataType_t,
    ncclRedOp_t,
    ncclComm_t,
    cudaStream_t,
) -> c_int;

/// The functions of NCCL 2 that are called here.
///
/// Results are plain numbers and not cudarc's enum: a newer NCCL may return codes that it lacks.
struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> c_int,
    init_rank: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int) -> c_int,
    all_reduce: Reduction,
    reduce_scatter: Reduction,
    all_gather: unsafe extern "C" fn(
        *const c_void,
        Address,
        usize,
        ncclDataType_t,
        ncclComm_t,
        cudaStream_t,
    ) -> c_int,
    broadcast: unsafe extern "C" fn(
        *const c_void,
        Address,
        usize,
        ncclDataType_t,
        c_int,
        ncclComm_t,
        cudaStream_t,
    ) -> c_int,
    async_error: unsafe extern "C" fn(ncclComm_t, *mut c_int) -> c_int,
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    finalize: unsafe extern "C" fn(ncclComm_t) -> c_int,
    destroy: unsafe extern "C" fn(ncclComm_t) -> c_int,
    last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
}

impl Functions {
    /// Finds NCCL as the dynamic linker does: loaded already, `LD_LIBRARY_PATH`, beside libtorch.
    fn load() -> Result<Self> {
        let failed = || format!("cannot load NCCL as `{LIBRARY}`");
        let hint = "put the folder that holds `libnccl.so.2` into `LD_LIBRARY_PATH`";
        // SAFETY: NCCL's initialisers have no requirements. Every symbol is read with the type that
        // nccl.h gives it, unchanged through all of NCCL 2, and the library is never unloaded.
        unsafe {
            let library =
                Library::new(LIBRARY).context(failed).map_err(|failure| failure.hint(hint))?;
            let functions = Self {
                get_unique_id: *library.get(b"ncclGetUniqueId").context(failed)?,
                init_rank: *library.get(b"ncclCommInitRank").context(failed)?,
                all_reduce: *library.get(b"ncclAllReduce").context(failed)?,
                reduce_scatter: *library.get(b"ncclReduceScatter").context(failed)?,
                all_gather: *library.get(b"ncclAllGather").context(failed)?,
                broadcast: *library.get(b"ncclBroadcast").context(failed)?,
                async_error: *library.get(b"ncclCommGetAsyncError").context(failed)?,
                version: *library.get(b"ncclGetVersion").context(failed)?,
                finalize: *library.get(b"ncclCommFinalize").context(failed)?,
                destroy: *library.get(b"ncclCommDestroy").context(failed)?,
                last_error: *library.get(b"ncclGetLastError").context(failed)?,
            };
            // Threads of NCCL run its code for as long as the process lives.
            std::mem::forget(library);
            Ok(functions)
        }
    }

    /// The version of the library, for example 2.28.9.
    fn version(&self) -> Result<String> {
        let mut number: c_int = 0;
        // SAFETY: NCCL writes one number to where it is told.
        self.check(unsafe { (self.version)(&raw mut number) }, "tell its version")?;
        Ok(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
    }

    /// Turns a result code into a failure with NCCL's own words.
    fn check(&self, code: c_int, operation: &str) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NCCL accepts a null communicator here and returns a string of its own, terminated
        // by zero.
        let text = unsafe { CStr::from_ptr((self.last_error)(std::ptr::null_mut())) };
        let text = text.to_string_lossy();
        Err(Failure::new(format!("NCCL could not {operation}: result {code}, `{}`", text.trim()))
            .hint("set `NCCL_DEBUG=INFO` and run it again"))
    }
}

/// NCCL's communicator of this rank.
struct Handle(ncclComm_t);

// SAFETY: a communicator of NCCL may be used from any thread, by one at a time; `Nccl` keeps it
// behind a mutex.
unsafe impl Send for Handle {}

/// The ranks of `control`, each with a GPU of its own.
///
/// Tensors on the GPU are summed and broadcast by NCCL, on the device's legacy default stream, which
/// is torch's, or beside it; everything else, tensors in host memory included, goes over `control`.
pub struct Nccl {
    handle: Mutex<Handle>,
    functions: Functions,
    context: Arc<CudaContext>,
    /// Where torch computes.
    computing: Arc<CudaStream>,
    /// Where sums run that nobody waits for yet.
    beside: Arc<CudaStream>,
    device: usize,
    control: Arc<dyn Communicator>,
}

enum Operation {
    Sum,
    /// A sum of which each rank gets its share, all of one size.
    SumShares,
    /// Shares of all ranks, all of one size, put together.
    GatherShares,
    Broadcast {
        root: usize,
    },
}

impl Operation {
    fn verb(&self) -> &'static str {
        match self {
            Self::Sum | Self::SumShares => "sum",
            Self::GatherShares => "gather",
            Self::Broadcast { .. } => "broadcast",
        }
    }
}

impl Nccl {
    /// Joins the ranks of `control` with this rank's GPU, counted from 0 among the visible ones.
    ///
    /// Every rank must call it. It fails on all ranks when one has no such GPU or no NCCL.
    pub fn join(control: Arc<dyn Communicator>, device: usize) -> Result<Self> {
        let opened = primary_context(device).and_then(|context| {
            let beside = context.new_stream().context(|| format!("no stream on GPU {device}"))?;
            Ok((context.default_stream(), beside, context, Functions::load()?))
        });
        let (computing, beside, context, functions) = agree(control.as_ref(), opened)?;
        let mut id = ncclUniqueId { internal: [0; 128] };
        let found = if control.rank() == 0 {
            // SAFETY: `id` is where nccl.h wants the 128 bytes written.
            functions.check(unsafe { (functions.get_unique_id)(&raw mut id) }, "make an id")
        } else {
            Ok(())
        };
        agree(control.as_ref(), found)?;
        let bytes = control.gather(&id.internal.map(i8::cast_unsigned))?;
        for (to, from) in id.internal.iter_mut().zip(&bytes[0]) {
            *to = from.cast_signed();
        }
        let (ranks, rank) = (control.ranks() as c_int, control.rank() as c_int);
        let mut handle: ncclComm_t = std::ptr::null_mut();
        // SAFETY: the device's context is current on this thread since `primary_context`, `id` is
        // rank 0's, and `handle` lives until the call returns.
        let code = unsafe { (functions.init_rank)(&raw mut handle, ranks, id, rank) };
        agree(control.as_ref(), functions.check(code, "join the ranks"))?;
        let version = functions.version()?;
        tracing::info!(rank, ranks, device, version, "joined over NCCL");
        let handle = Mutex::new(Handle(handle));
        Ok(Self { handle, functions, context, computing, beside, device, control })
    }

    fn handle(&self) -> MutexGuard<'_, Handle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues one collective on `tensor`, which the work before it on `stream` has made; only its
    /// result on the device says when it is done.
    fn collective(
        &self,
        operation: &Operation,
        tensor: &Tensor,
        stream: &CudaStream,
    ) -> Result<()> {
        if tensor.device() != Device::Cuda(self.device) {
            return Err(Failure::new(format!(
                "a tensor on `{:?}` was given to the rank on `Cuda({})`",
                tensor.device(),
                self.device
            )));
        }
        if !tensor.is_contiguous() {
            return Err(Failure::new("a tensor that is not contiguous cannot go over NCCL"));
        }
        let kind = data_type(tensor.kind())?;
        let count = tensor.numel();
        if count == 0 {
            return Ok(());
        }
        let handle = self.handle();
        self.context.bind_to_thread().context(|| format!("cannot use GPU {}", self.device))?;
        let (address, stream) = (tensor.data_ptr(), stream.cu_stream().cast());
        let share = count / self.ranks();
        let own =
            address.wrapping_byte_add(self.rank() * share * tensor.kind().elt_size_in_bytes());
        // SAFETY: `address` is the start of `count` contiguous elements of `kind` on this rank's
        // device, checked above, and `own` that of this rank's share of them, where their number is
        // a multiple of the ranks', as callers of those two operations see to; in-place operation
        // is allowed by nccl.h, there with the share in its place. `stream` is one of the
        // two of this rank. On `computing`, the legacy default stream, which is torch's current
        // stream unless somebody changes it, the collective runs after the kernels that wrote the
        // tensor and before those that read it, and torch cannot hand out the memory again before.
        // `beside` has been made to wait for `computing`, and `computing` waits for it before the
        // tensor is read (`start_sum`, `finish_sums`), which belongs to a learner that outlives
        // both. The communicator is alive until `drop`, and its mutex is held.
        let code = unsafe {
            match *operation {
                Operation::Sum => (self.functions.all_reduce)(
                    address,
                    address,
                    count,
                    kind,
                    ncclRedOp_t::ncclSum,
                    handle.0,
                    stream,
                ),
                Operation::SumShares => (self.functions.reduce_scatter)(
                    address,
                    own,
                    share,
                    kind,
                    ncclRedOp_t::ncclSum,
                    handle.0,
                    stream,
                ),
                Operation::GatherShares => {
                    (self.functions.all_gather)(own, address, share, kind, handle.0, stream)
                }
                Operation::Broadcast { root } => (self.functions.broadcast)(
                    address,
                    address,
                    count,
                    kind,
                    root as c_int,
                    handle.0,
                    stream,
                ),
            }
        };
        self.functions.check(code, operation.verb())
    }

    /// Whether NCCL can cut `tensor` into shares: it wants them equal.
    fn has_equal_shares(&self, tensor: &Tensor) -> bool {
        tensor.device() != Device::Cpu && tensor.numel().is_multiple_of(self.ranks())
    }

    /// Fails where something that was enqueued before could not be done, for example because a rank
    /// or a link is gone.
    fn check_earlier_work(&self) -> Result<()> {
        let mut state: c_int = 0;
        // SAFETY: the communicator is alive and its mutex is held; NCCL writes one number.
        let asked = unsafe { (self.functions.async_error)(self.handle().0, &raw mut state) };
        self.functions.check(asked, "tell how it does")?;
        // 7: in progress.
        if state == 7 { Ok(()) } else { self.functions.check(state, "do what it was given") }
    }
}

/// Makes the GPU that torch calls `Cuda(device)` current on this thread.
fn primary_context(device: usize) -> Result<Arc<CudaContext>> {
    // SAFETY: opens the driver's library and closes it again; its initialisers ask for nothing.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(Failure::new(format!("no CUDA driver on this machine for GPU {device}"))
            .hint("run `nvidia-smi -L` to see the GPUs of this machine"));
    }
    CudaContext::new(device)
        .context(|| format!("cannot use GPU {device}"))
        .map_err(|failure| failure.hint("run `nvidia-smi -L` to see the GPUs of this machine"))
}

fn data_type(kind: Kind) -> Result<ncclDataType_t> {
    match kind {
        Kind::Float => Ok(ncclDataType_t::ncclFloat32),
        Kind::Double => Ok(ncclDataType_t::ncclFloat64),
        Kind::Int64 => Ok(ncclDataType_t::ncclInt64),
        Kind::Half => Ok(ncclDataType_t::ncclFloat16),
        Kind::BFloat16 => Ok(ncclDataType_t::ncclBfloat16),
        kind => Err(Failure::new(format!("a tensor of kind `{kind:?}` cannot go over NCCL"))
            .hint("convert it to `Float`, `Double`, `Int64`, `Half` or `BFloat16`")),
    }
}

impl GroupSum for Nccl {
    fn ranks(&self) -> usize {
        self.control.ranks()
    }

    fn sum(&self, tensor: &Tensor) {
        if tensor.device() == Device::Cpu {
            self.control.sum(tensor);
        } else if let Err(failure) = self.collective(&Operation::Sum, tensor, &self.computing) {
            give_up(self, failure);
        }
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        if tensor.device() == Device::Cpu {
            return self.control.broadcast(root, tensor);
        }
        check_root(root, self.ranks())?;
        self.collective(&Operation::Broadcast { root }, tensor, &self.computing)
    }

    fn overlaps(&self) -> bool {
        true
    }

    // One communicator serves both streams: NCCL runs what it is given in the order of the calls, and
    // every rank makes them in one order, that of its backward.
    fn start_sum(&self, tensor: Tensor) {
        if tensor.device() == Device::Cpu {
            self.control.sum(&tensor);
            return;
        }
        let waiting = self.beside.join(&self.computing);
        let started = waiting
            .context(|| format!("cannot order the work of GPU {}", self.device))
            .and_then(|()| self.collective(&Operation::Sum, &tensor, &self.beside));
        if let Err(failure) = started {
            give_up(self, failure);
        }
    }

    fn finish_sums(&self) {
        // The host does not wait: what torch computes next does.
        let waiting = self.computing.join(&self.beside);
        if let Err(failure) =
            waiting.context(|| format!("cannot order the work of GPU {}", self.device))
        {
            give_up(self, failure);
        }
    }

    fn barrier(&self) -> Result<()> {
        self.control.barrier()
    }

    // What every step ends with.
    fn max(&self, value: i64) -> Result<i64> {
        let earlier = self.check_earlier_work();
        if let Err(failure) = earlier {
            give_up(self, failure);
        }
        self.control.max(value)
    }

    fn sum_own_share(&self, tensor: &Tensor) {
        if !self.has_equal_shares(tensor) {
            self.sum(tensor);
        } else if let Err(failure) = self.collective(&Operation::SumShares, tensor, &self.computing)
        {
            give_up(self, failure);
        }
    }

    fn gather_shares(&self, tensor: &Tensor) -> Result<()> {
        if self.has_equal_shares(tensor) {
            return self.collective(&Operation::GatherShares, tensor, &self.computing);
        }
        (0..self.ranks()).try_for_each(|rank| {
            let share = local_share(tensor.numel(), self.ranks(), rank);
            self.broadcast(rank, &slice_of(tensor, &share))
        })
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
        let handle = self.handle();
        let closed = self
            .context
            .synchronize()
            .context(|| format!("cannot wait for GPU {}", self.device))
            .and_then(|()| {
                // SAFETY: no work is in flight on the communicator, and nobody uses it afterwards.
                let code = unsafe { (self.functions.finalize)(handle.0) };
                self.functions.check(code, "finish its work")
            })
            .and_then(|()| {
                // SAFETY: as above; finalised on this rank, which is all that destroying needs.
                let code = unsafe { (self.functions.destroy)(handle.0) };
                self.functions.check(code, "leave the ranks")
            });
        if let Err(failure) = closed {
            tracing::warn!("{failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Solo, threads, with_device};

    /// A GPU that no machine has: the driver refuses it, or there is no driver.
    const NO_GPU: usize = 999;

    #[test]
    fn a_missing_gpu_is_a_failure_and_not_a_crash() {
        let failure = Nccl::join(Arc::new(Solo), NO_GPU).map(|_| ()).unwrap_err();
        let text = failure.to_string();
        assert!(text.contains("GPU 999") && text.contains("nvidia-smi -L"), "{text}");
    }

    #[test]
    fn every_rank_hears_that_one_has_no_gpu() {
        let outcomes = threads::run(2, |control| Nccl::join(control, NO_GPU).map(|_| ()));
        for outcome in outcomes {
            assert!(outcome.unwrap_err().to_string().contains("GPU 999"));
        }
    }

    #[test]
    fn one_rank_on_a_gpu_needs_no_nccl_and_mixed_devices_are_refused() {
        let solo = with_device(Arc::new(Solo), Device::Cuda(NO_GPU)).unwrap();
        assert_eq!(solo.ranks(), 1);
        let outcomes = threads::run(2, |control| {
            let device = if control.rank() == 0 { Device::Cpu } else { Device::Cuda(0) };
            with_device(control, device).map(|_| ())
        });
        for outcome in outcomes {
            assert_eq!(
                outcome.unwrap_err().message(),
                "rank 0 computes on the CPU and rank 1 on a GPU: all ranks need the same"
            );
        }
    }

    #[test]
    fn the_library_works_where_it_is_found_and_else_says_where_to_put_it() {
        match Functions::load() {
            Ok(functions) => {
                let mut id = ncclUniqueId { internal: [0; 128] };
                // SAFETY: as in `Nccl::join`.
                let code = unsafe { (functions.get_unique_id)(&raw mut id) };
                functions.check(code, "make an id").unwrap();
                assert!(id.internal.iter().any(|&byte| byte != 0));
                assert!(functions.version().unwrap().starts_with("2."));
                // Invalid argument, as nccl.h numbers it.
                let text = functions.check(4, "sum").unwrap_err().to_string();
                assert!(text.starts_with("error: NCCL could not sum: result 4, `"), "{text}");
            }
            Err(failure) => {
                let text = failure.to_string();
                assert!(text.contains("`libnccl.so.2`") && text.contains("LD_LIBRARY_PATH"));
            }
        }
    }

    #[test]
    fn kinds_that_training_never_sums_are_refused() {
        assert_eq!(data_type(Kind::BFloat16).unwrap(), ncclDataType_t::ncclBfloat16);
        assert_eq!(
            data_type(Kind::Bool).unwrap_err().message(),
            "a tensor of kind `Bool` cannot go over NCCL"
        );
    }
}
