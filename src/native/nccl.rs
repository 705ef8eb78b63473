//! Collectives of NCCL on torch's memory and torch's streams.
//!
//! Calls of nccl.h, looked up at run time, so that the same binary starts where there is no GPU. Who the
//! ranks are, and what is to be done about a failure, is not known here.
#![expect(unsafe_code, reason = "NCCL is a C library, called with the addresses of tensors")]

use super::cuda::{self, SideStream};
use crate::error::{Context, Failure, Result};
use cudarc::nccl::sys::{
    cudaStream_t, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclRedOp_t, ncclUniqueId,
};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// The name under which every NCCL 2 is installed; libtorch for CUDA has usually loaded it already,
/// and then this is that very library.
const LIBRARY: &str = "libnccl.so.2";
/// Result of what goes on beside its caller.
const IN_PROGRESS: c_int = 7;
/// How long ranks wait for each other before they are called missing.
const LONGEST_JOIN: Duration = Duration::from_mins(5);
/// How long they wait for each other when they leave, which they do at the same moment.
const LONGEST_LEAVE: Duration = Duration::from_mins(1);
/// Between two questions whether something is done.
const PAUSE: Duration = Duration::from_micros(100);

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
#[derive(Clone, Copy)]
struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> c_int,
    init_rank: unsafe extern "C" fn(
        *mut ncclComm_t,
        c_int,
        ncclUniqueId,
        c_int,
        *mut ncclConfig_t,
    ) -> c_int,
    split:
        unsafe extern "C" fn(ncclComm_t, c_int, c_int, *mut ncclComm_t, *mut ncclConfig_t) -> c_int,
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
    abort: unsafe extern "C" fn(ncclComm_t) -> c_int,
    last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
}

impl Functions {
    /// Finds NCCL as the dynamic linker does: loaded already, `LD_LIBRARY_PATH`, beside libtorch.
    fn load() -> Result<Self> {
        let failed = || format!("cannot load NCCL as `{LIBRARY}`");
        let hint = "put the folder that holds `libnccl.so.2` into `LD_LIBRARY_PATH`";
        // SAFETY: NCCL's initialisers have no requirements. Every symbol is read with the type that
        // nccl.h gives it, unchanged since NCCL 2.18, and the library is never unloaded.
        unsafe {
            let library =
                Library::new(LIBRARY).context(failed).map_err(|failure| failure.hint(hint))?;
            let functions = Self {
                get_unique_id: *library.get(b"ncclGetUniqueId").context(failed)?,
                init_rank: *library.get(b"ncclCommInitRankConfig").context(failed)?,
                split: *library.get(b"ncclCommSplit").context(failed)?,
                all_reduce: *library.get(b"ncclAllReduce").context(failed)?,
                reduce_scatter: *library.get(b"ncclReduceScatter").context(failed)?,
                all_gather: *library.get(b"ncclAllGather").context(failed)?,
                broadcast: *library.get(b"ncclBroadcast").context(failed)?,
                async_error: *library.get(b"ncclCommGetAsyncError").context(failed)?,
                version: *library.get(b"ncclGetVersion").context(failed)?,
                finalize: *library.get(b"ncclCommFinalize").context(failed)?,
                destroy: *library.get(b"ncclCommDestroy").context(failed)?,
                abort: *library.get(b"ncclCommAbort").context(failed)?,
                last_error: *library.get(b"ncclGetLastError").context(failed)?,
            };
            // Threads of NCCL run its code for as long as the process lives.
            std::mem::forget(library);
            Ok(functions)
        }
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

/// What is to be done with a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collective {
    /// Every rank gets the sum over the ranks.
    Sum,
    /// Each rank gets its share of the sum, all of one size, in its place.
    SumShares,
    /// The shares of all ranks, all of one size, are put together.
    GatherShares,
    /// Every rank gets what `root` has.
    Broadcast {
        /// A rank.
        root: usize,
    },
}

impl Collective {
    fn verb(self) -> &'static str {
        match self {
            Self::Sum | Self::SumShares => "sum",
            Self::GatherShares => "gather",
            Self::Broadcast { .. } => "broadcast",
        }
    }
}

/// A communicator of NCCL, as this rank has it.
struct Handle {
    address: ncclComm_t,
    functions: Functions,
}

// SAFETY: a communicator of NCCL may be used from any thread, by one at a time; `Group` keeps each
// behind a mutex.
unsafe impl Send for Handle {}

impl Handle {
    /// How it does: 0, in progress, or what went wrong.
    fn state(&self) -> Result<c_int> {
        let mut state: c_int = 0;
        // SAFETY: the communicator is alive and nobody else uses it meanwhile; NCCL writes one number.
        let asked = unsafe { (self.functions.async_error)(self.address, &raw mut state) };
        self.functions.check(asked, "tell how it does")?;
        Ok(state)
    }

    /// Waits until a call is over that does not wait itself and returned `code`.
    fn settle(&self, mut code: c_int, verb: &str, longest: Duration) -> Result<()> {
        let start = Instant::now();
        while code == IN_PROGRESS {
            if start.elapsed() > longest {
                return Err(too_long(verb, longest));
            }
            std::thread::sleep(PAUSE);
            code = self.state()?;
        }
        self.functions.check(code, verb)
    }

    /// A communicator of the same ranks whose calls wait until the GPU has been told, and no longer.
    fn split(&self, rank: usize) -> Result<Self> {
        let mut config = settings(Calls::Wait);
        let place = Box::into_raw(Box::new(std::ptr::null_mut()));
        // SAFETY: the communicator is alive and nobody else uses it meanwhile, `config` is filled in as
        // nccl.h wants it, and `place` lives until NCCL has written to it, or for ever.
        let code = unsafe {
            (self.functions.split)(self.address, 0, rank as c_int, place, &raw mut config)
        };
        self.settle(code, "join the ranks", LONGEST_JOIN)?;
        // SAFETY: made above by `Box::into_raw`; the call is over, and NCCL does not write there any more.
        let address = *unsafe { Box::from_raw(place) };
        let child = Self { address, functions: self.functions };
        if address.is_null() {
            return Err(Failure::new("NCCL joined the ranks without a communicator for this one"));
        }
        child.settle(child.state()?, "join the ranks", LONGEST_JOIN)?;
        Ok(child)
    }

    /// Leaves the ranks, which all of them do together.
    fn leave(self) -> Result<()> {
        // SAFETY: no work is in flight on the communicator, and nobody uses it afterwards.
        let code = unsafe { (self.functions.finalize)(self.address) };
        self.settle(code, "finish its work", LONGEST_LEAVE)?;
        // SAFETY: as above; finalised on this rank, which is all that destroying needs.
        let code = unsafe { (self.functions.destroy)(self.address) };
        self.functions.check(code, "leave the ranks")
    }

    /// Gives up ranks that never came together.
    fn forsake(self) {
        if !self.address.is_null() {
            // SAFETY: the communicator exists, and nobody uses it afterwards.
            unsafe { (self.functions.abort)(self.address) };
        }
    }
}

fn too_long(verb: &str, longest: Duration) -> Failure {
    Failure::new(format!("NCCL could not {verb} within {} s", longest.as_secs()))
        .hint("set `NCCL_DEBUG=INFO` and run it again, to see whom it waits for")
}

/// NCCL, loaded and with a way to find the other ranks.
pub struct Nccl {
    functions: Functions,
}

impl Nccl {
    /// Loads NCCL. Fails where it is not installed.
    pub fn load() -> Result<Self> {
        Ok(Self { functions: Functions::load()? })
    }

    /// The version of the library, for example 2.28.9.
    pub fn version(&self) -> Result<String> {
        let mut number: c_int = 0;
        // SAFETY: NCCL writes one number to where it is told.
        let code = unsafe { (self.functions.version)(&raw mut number) };
        self.functions.check(code, "tell its version")?;
        Ok(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
    }

    /// What tells the ranks of one group from all others: 128 bytes that one of them makes for all.
    pub fn unique_id(&self) -> Result<Vec<u8>> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: `id` is where nccl.h wants the 128 bytes written.
        let code = unsafe { (self.functions.get_unique_id)(&raw mut id) };
        self.functions.check(code, "make an id")?;
        Ok(id.internal.map(c_char::cast_unsigned).to_vec())
    }

    /// Joins the group of `id` as `(rank, ranks)`, with GPU `device`. Fails where the others do not
    /// come within five minutes.
    pub fn join(self, id: &[u8], (rank, ranks): (usize, usize), device: usize) -> Result<Group> {
        let mut unique = ncclUniqueId { internal: [0; 128] };
        for (to, from) in unique.internal.iter_mut().zip(id) {
            *to = from.cast_signed();
        }
        cuda::select(device)?;
        let mut config = settings(Calls::ReturnAtOnce);
        let mut address: ncclComm_t = std::ptr::null_mut();
        // SAFETY: the device is current on this thread, `config` is filled in as nccl.h wants it, and
        // `address` lives until the call returns.
        let code = unsafe {
            let (ranks, rank) = (ranks as c_int, rank as c_int);
            (self.functions.init_rank)(&raw mut address, ranks, unique, rank, &raw mut config)
        };
        let meeting = Handle { address, functions: self.functions };
        let split = meeting
            .settle(code, "join the ranks", LONGEST_JOIN)
            .and_then(|()| Ok([meeting.split(rank)?, meeting.split(rank)?]));
        let [main, beside] = match split {
            Ok(handles) => handles,
            Err(failure) => {
                meeting.forsake();
                return Err(failure);
            }
        };
        meeting.leave()?;
        let (main, beside) = (Mutex::new(main), Mutex::new(beside));
        Ok(Group { main, beside, functions: self.functions, device, rank, size: ranks })
    }
}

/// Whether calls of a communicator wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// They go on beside their caller, who asks for them: a rank that never comes must not hold the others
    /// for ever.
    ReturnAtOnce,
    /// They wait for what the host has to do, which is no more than telling the GPU once all ranks have met.
    Wait,
}

fn settings(calls: Calls) -> ncclConfig_t {
    ncclConfig_t {
        size: size_of::<ncclConfig_t>(),
        magic: 0xcafe_beef,
        version: 22_800,
        blocking: c_int::from(calls == Calls::Wait),
        cgaClusterSize: c_int::MIN,
        minCTAs: c_int::MIN,
        maxCTAs: c_int::MIN,
        netName: std::ptr::null(),
        splitShare: c_int::MIN,
        trafficClass: c_int::MIN,
        commName: std::ptr::null(),
        collnetEnable: c_int::MIN,
        CTAPolicy: c_int::MIN,
        shrinkShare: c_int::MIN,
        nvlsCTAs: c_int::MIN,
        nChannelsPerNetPeer: c_int::MIN,
        nvlinkCentricSched: c_int::MIN,
    }
}

/// Ranks that have joined, each with a GPU of its own.
///
/// NCCL runs what one communicator is given one after another, whatever the stream: there is one for each of
/// the two streams, so that neither waits for the other.
pub struct Group {
    /// For where torch computes.
    main: Mutex<Handle>,
    /// For the stream beside.
    beside: Mutex<Handle>,
    functions: Functions,
    device: usize,
    rank: usize,
    /// How many have joined.
    size: usize,
}

fn lock(handle: &Mutex<Handle>) -> MutexGuard<'_, Handle> {
    handle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    /// Enqueues a collective on a tensor in the memory of this rank's GPU: where torch computes on this
    /// thread, or beside it. Only its result on the device says when it is done.
    ///
    /// Every rank makes the same calls in the same order. Of a collective with shares the number of
    /// elements is a multiple of the number of ranks.
    pub fn enqueue(
        &self,
        collective: Collective,
        tensor: &Tensor,
        beside: Option<&SideStream>,
    ) -> Result<()> {
        let (kind, count) = self.accepted(collective, tensor)?;
        if count == 0 {
            return Ok(());
        }
        cuda::select(self.device)?;
        let (handle, stream) = match beside {
            Some(side) => (lock(&self.beside), side.stream()),
            None => (lock(&self.main), cuda::current_stream(self.device)?),
        };
        let (address, stream, share) = (tensor.data_ptr(), stream.cast(), count / self.size);
        let own = address.wrapping_byte_add(self.rank * share * tensor.kind().elt_size_in_bytes());
        let (nccl, to) = (&self.functions, handle.address);
        // SAFETY: `address` is the start of `count` contiguous elements of `kind` on this rank's
        // device, checked above, and `own` that of this rank's share of them; in-place operation is
        // allowed by nccl.h, with shares in their place. On torch's own stream the collective runs after
        // the kernels that wrote the tensor and before those that read it, and torch cannot hand out
        // the memory again before. On a side stream whoever calls sees to that, with the side stream's
        // own means. The communicator is alive until `leave`, and its mutex is held.
        let code = unsafe {
            match collective {
                Collective::Sum => {
                    (nccl.all_reduce)(address, address, count, kind, ADD, to, stream)
                }
                Collective::SumShares => {
                    (nccl.reduce_scatter)(address, own, share, kind, ADD, to, stream)
                }
                Collective::GatherShares => {
                    (nccl.all_gather)(own, address, share, kind, to, stream)
                }
                Collective::Broadcast { root } => {
                    (nccl.broadcast)(address, address, count, kind, root as c_int, to, stream)
                }
            }
        };
        self.functions.check(code, collective.verb())
    }

    /// The kind and the number of elements of a tensor that NCCL can work on.
    fn accepted(&self, collective: Collective, tensor: &Tensor) -> Result<(ncclDataType_t, usize)> {
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
        let in_shares = matches!(collective, Collective::SumShares | Collective::GatherShares);
        if in_shares && !tensor.numel().is_multiple_of(self.size) {
            return Err(Failure::new(format!(
                "{} elements cannot be shared equally by {} ranks",
                tensor.numel(),
                self.size
            )));
        }
        Ok((data_type(tensor.kind())?, tensor.numel()))
    }

    /// Fails where something that was enqueued before could not be done, for example because a rank
    /// or a link is gone.
    pub fn check_earlier_work(&self) -> Result<()> {
        [&self.main, &self.beside].into_iter().try_for_each(|handle| {
            let state = lock(handle).state()?;
            let state = if state == IN_PROGRESS { 0 } else { state };
            self.functions.check(state, "do what it was given")
        })
    }

    /// Leaves the group, which all ranks do together, once the GPU has done everything.
    ///
    /// Refuses to as long as recorded work is alive: NCCL would wait for its end. Fails where the others do
    /// not leave within a minute.
    pub fn leave(self) -> Result<()> {
        refuse_while_recorded(cuda::graphs_alive())?;
        cuda::synchronise(self.device)?;
        let handles = [self.main, self.beside]
            .map(|handle| handle.into_inner().unwrap_or_else(PoisonError::into_inner));
        let (tell, told) = mpsc::channel();
        // Calls that wait know no deadline: one that waits in vain is left behind with its thread.
        std::thread::Builder::new()
            .name("leaves the ranks".into())
            .spawn(move || {
                let left = cuda::select(self.device)
                    .and_then(|()| handles.into_iter().try_for_each(Handle::leave));
                let _ = tell.send(left);
            })
            .context(|| "cannot start the thread that leaves NCCL")?;
        match told.recv_timeout(LONGEST_LEAVE) {
            Err(RecvTimeoutError::Timeout) => Err(too_long("leave the ranks", LONGEST_LEAVE)),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::new("leaving NCCL has panicked")),
            Ok(left) => left,
        }
    }
}

fn refuse_while_recorded(graphs: usize) -> Result<()> {
    if graphs == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "NCCL cannot end before what was recorded with it, of which {graphs} are left"
    ))
    .hint("use `--set train.graph=false`"))
}

const ADD: ncclRedOp_t = ncclRedOp_t::ncclSum;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_works_where_it_is_found_and_else_says_where_to_put_it() {
        match Nccl::load() {
            Ok(nccl) => {
                let id = nccl.unique_id().unwrap();
                assert!(id.len() == 128 && id.iter().any(|&byte| byte != 0));
                assert!(nccl.version().unwrap().starts_with("2."));
                // Invalid argument, as nccl.h numbers it.
                let text = nccl.functions.check(4, "sum").unwrap_err().to_string();
                assert!(text.starts_with("error: NCCL could not sum: result 4, `"), "{text}");
            }
            Err(failure) => {
                let text = failure.to_string();
                assert!(text.contains("`libnccl.so.2`") && text.contains("LD_LIBRARY_PATH"));
            }
        }
    }

    #[test]
    fn nobody_leaves_before_what_was_recorded_is_gone() {
        refuse_while_recorded(0).unwrap();
        let failure = refuse_while_recorded(2).unwrap_err();
        let expected = "NCCL cannot end before what was recorded with it, of which 2 are left";
        assert_eq!(failure.message(), expected);
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
