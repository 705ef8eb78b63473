//! GPUs: streams beside each other, recorded work, memory.
//!
//! Calls into `shim_cuda.cpp` and `cuda_kernels.cpp`, one library that is loaded where a GPU is used; nothing CUDA is needed before. It
//! knows no networks, no communicators and no steps.
#![expect(unsafe_code, reason = "this file is the foreign-function border to libtorch's CUDA half")]

use super::ffi::{adopted_text, checked, handle};
use super::nvrtc::Compiler;
use crate::error::{Failure, Result};
use libloading::Library;
use libloading::os::unix::{Library as Global, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use tch::{Device, Tensor};

/// Holds what `shim_cuda.cpp` became; looked for beside the program, then where it was built.
const LIBRARY: &str = "libscrimp_cuda.so";
/// Where the build put it; empty where the build found no headers of CUDA.
const BUILT: &str = env!("SCRIMP_CUDA_LIBRARY");

type Pointer = *mut c_void;
type ErrorText = *mut c_char;
/// A call that gives something for a device.
type OfDevice<T> = unsafe extern "C" fn(*mut T, c_int) -> ErrorText;
/// A call on one object of the library.
type OnObject = unsafe extern "C" fn(Pointer) -> ErrorText;

unsafe extern "C" {
    fn scrimp_use_device_kernels(kernels: *const c_void);
    fn scrimp_use_kernel_launcher(launcher: *const c_void);
}

/// The functions of `shim_cuda.cpp` and `cuda_kernels.cpp`, which say what each does.
struct Functions {
    open: unsafe extern "C" fn(c_int) -> ErrorText,
    select: unsafe extern "C" fn(c_int) -> ErrorText,
    describe: OfDevice<*mut c_char>,
    current_stream: OfDevice<Pointer>,
    synchronise: unsafe extern "C" fn(c_int) -> ErrorText,
    memory: OfDevice<Memory>,
    side_new: OfDevice<Pointer>,
    side_free: unsafe extern "C" fn(Pointer),
    side_stream: unsafe extern "C" fn(Pointer) -> Pointer,
    side_follows: OnObject,
    follow_side: OnObject,
    side_holds: unsafe extern "C" fn(Pointer, Pointer) -> ErrorText,
    graph_begin: unsafe extern "C" fn(*mut Pointer, Pointer) -> ErrorText,
    graph_end: OnObject,
    graph_replay: OnObject,
    graph_free: unsafe extern "C" fn(Pointer),
    architecture: OfDevice<c_int>,
    load_kernels: unsafe extern "C" fn(c_int, *const c_void) -> ErrorText,
    kernels: unsafe extern "C" fn() -> *const c_void,
    kernel_launcher: unsafe extern "C" fn() -> *const c_void,
}

/// Loads libtorch's CUDA half; false where it is not installed.
///
/// Linking drops `libtorch_cuda.so`, because nothing refers to it. Its symbols are made known to what is
/// loaded after it.
fn load_torch() -> bool {
    static LOADED: OnceLock<bool> = OnceLock::new();
    *LOADED.get_or_init(|| {
        // SAFETY: loading runs the library's initialisers, which register CUDA with libtorch; it is
        // made for being loaded this way and stays loaded.
        let library = unsafe { Global::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
        library.map(std::mem::forget).is_ok()
    })
}

fn functions() -> Result<&'static Functions> {
    static FUNCTIONS: OnceLock<std::result::Result<Functions, String>> = OnceLock::new();
    let loaded = FUNCTIONS.get_or_init(load_functions);
    loaded.as_ref().map_err(|message| {
        Failure::new(format!("cannot use a GPU: {message}"))
            .hint("run `SCRIMP_CUDA=1 ./launch/setup` and keep `libscrimp_cuda.so` beside `scrimp`")
            .hint("with a libtorch of your own, set `CUDA_HOME` to a CUDA toolkit and build again")
    })
}

fn load_functions() -> std::result::Result<Functions, String> {
    if !load_torch() {
        return Err("libtorch has no CUDA half here".to_owned());
    }
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name(LIBRARY));
    let built = (!BUILT.is_empty()).then(|| PathBuf::from(BUILT));
    let found = beside.into_iter().chain(built).find(|path| path.exists());
    let path = found.ok_or_else(|| format!("`{LIBRARY}` is missing"))?;
    let words = |error: libloading::Error| format!("`{}`: {error}", path.display());
    // SAFETY: the library's initialisers ask for nothing. Every symbol is read with the type that
    // shim_cuda.cpp of the same build gives it, and the library is never unloaded.
    unsafe {
        let library = Library::new(&path).map_err(words)?;
        let functions = Functions {
            open: *library.get(b"scrimp_cuda_open").map_err(words)?,
            select: *library.get(b"scrimp_cuda_use").map_err(words)?,
            describe: *library.get(b"scrimp_cuda_describe").map_err(words)?,
            current_stream: *library.get(b"scrimp_cuda_current_stream").map_err(words)?,
            synchronise: *library.get(b"scrimp_cuda_synchronise").map_err(words)?,
            memory: *library.get(b"scrimp_cuda_memory").map_err(words)?,
            side_new: *library.get(b"scrimp_cuda_side_new").map_err(words)?,
            side_free: *library.get(b"scrimp_cuda_side_free").map_err(words)?,
            side_stream: *library.get(b"scrimp_cuda_side_stream").map_err(words)?,
            side_follows: *library.get(b"scrimp_cuda_side_follows").map_err(words)?,
            follow_side: *library.get(b"scrimp_cuda_follow_side").map_err(words)?,
            side_holds: *library.get(b"scrimp_cuda_side_holds").map_err(words)?,
            graph_begin: *library.get(b"scrimp_cuda_graph_begin").map_err(words)?,
            graph_end: *library.get(b"scrimp_cuda_graph_end").map_err(words)?,
            graph_replay: *library.get(b"scrimp_cuda_graph_replay").map_err(words)?,
            graph_free: *library.get(b"scrimp_cuda_graph_free").map_err(words)?,
            architecture: *library.get(b"scrimp_cuda_architecture").map_err(words)?,
            load_kernels: *library.get(b"scrimp_cuda_load_kernels").map_err(words)?,
            kernels: *library.get(b"scrimp_cuda_kernels").map_err(words)?,
            kernel_launcher: *library.get(b"scrimp_cuda_kernel_launcher").map_err(words)?,
        };
        std::mem::forget(library);
        Ok(functions)
    }
}

/// The number of GPUs that libtorch can use; 0 where its CUDA half is not installed.
///
/// To be asked before this process computes anything, also on the CPU: a convolution or a backward makes
/// libtorch look once for its CUDA half, and where that is not loaded by then there is none for good.
pub fn devices() -> usize {
    if load_torch() { usize::try_from(tch::Cuda::device_count()).unwrap_or(0) } else { 0 }
}

/// Where compiled kernels are kept between runs, by names that differ where their contents do.
pub trait KernelStore {
    /// What was kept under this name, whole, or nothing.
    fn read(&self, name: &str) -> Option<Vec<u8>>;
    /// Keeps it where that is possible.
    fn keep(&self, name: &str, code: &[u8]);
}

/// Makes a GPU, counted from 0 among the visible ones, the current one of this thread, with a stream of
/// its own for everything that torch computes here, and loads the kernels for it. To be called before
/// anything lives on the GPU; takes seconds where the kernels are not in the store.
pub fn open(device: usize, store: Option<&dyn KernelStore>) -> Result<()> {
    // SAFETY: the arguments are plain values.
    checked(unsafe { (functions()?.open)(device as c_int) })?;
    if let Err(failure) = take_kernels(device, store) {
        let words = failure.message();
        tracing::warn!(
            "GPU {device} has no kernels of its own: {words}; plain tensor operations are slower"
        );
    }
    Ok(())
}

/// Makes the kernels those of [`super::Form::Own`] on a GPU from now on. An error, with the compiler's log,
/// leaves plain tensor operations in their place.
fn take_kernels(device: usize, store: Option<&dyn KernelStore>) -> Result<()> {
    static LOADED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.contains(&device) {
        return Ok(());
    }
    let compiler = Compiler::load()?;
    let architecture = architecture(device)?;
    kept_or_made(
        store,
        &compiler.name_of(&architecture),
        || Ok(compiler.compile(&architecture)?.code),
        |code| load_kernels(device, code),
    )?;
    loaded.push(device);
    let functions = functions()?;
    // SAFETY: the tables are statics of the library, which is never unloaded, and made by the compiler of the
    // shims that take them.
    unsafe {
        scrimp_use_device_kernels((functions.kernels)());
        scrimp_use_kernel_launcher((functions.kernel_launcher)());
    }
    HAS_KERNELS.store(true, Ordering::Relaxed);
    Ok(())
}

/// Loads what the store has under a name; where it has nothing, or what cannot be loaded, what is made anew,
/// and keeps that.
fn kept_or_made(
    store: Option<&dyn KernelStore>,
    name: &str,
    make: impl FnOnce() -> Result<Vec<u8>>,
    load: impl Fn(&[u8]) -> Result<()>,
) -> Result<()> {
    if let Some(code) = store.and_then(|store| store.read(name)) {
        match load(&code) {
            Ok(()) => return Ok(()),
            Err(failure) => {
                tracing::debug!("the kernels kept as `{name}` are of no use: {failure}");
            }
        }
    }
    let code = make()?;
    load(&code)?;
    if let Some(store) = store {
        store.keep(name, &code);
    }
    Ok(())
}

/// Whether kernels were compiled.
static HAS_KERNELS: AtomicBool = AtomicBool::new(false);

/// Whether [`super::Form::Own`] computes with kernels of our own on GPUs, and not with plain tensor operations.
pub fn has_kernels() -> bool {
    HAS_KERNELS.load(Ordering::Relaxed)
}

/// What machine code for a GPU is for, as `sm_90`.
fn architecture(device: usize) -> Result<String> {
    let mut number = 0;
    // SAFETY: `number` is where the shim writes one number.
    checked(unsafe { (functions()?.architecture)(&raw mut number, device as c_int) })?;
    Ok(format!("sm_{number}"))
}

/// Brings compiled kernels to a GPU, all of them or none.
fn load_kernels(device: usize, code: &[u8]) -> Result<()> {
    if !code.starts_with(b"\x7fELF") {
        return Err(Failure::new("these are no compiled kernels"));
    }
    // SAFETY: `code` is a whole cubin, as the compiler made it and as stores give it back; it is
    // only read, as far as its headers say.
    checked(unsafe { (functions()?.load_kernels)(device as c_int, code.as_ptr().cast()) })
}

/// Makes a GPU the current one of this thread.
pub fn select(device: usize) -> Result<()> {
    // SAFETY: the arguments are plain values.
    checked(unsafe { (functions()?.select)(device as c_int) })
}

/// The name of a GPU and the place of its card, for example `NVIDIA H200 at 0000:18:00.0`.
pub fn describe(device: usize) -> Result<String> {
    let mut text: *mut c_char = std::ptr::null_mut();
    // SAFETY: `text` is where the shim writes one address.
    checked(unsafe { (functions()?.describe)(&raw mut text, device as c_int) })?;
    Ok(adopted_text(text))
}

/// Waits until a GPU has done everything that it was given.
pub fn synchronise(device: usize) -> Result<()> {
    // SAFETY: the arguments are plain values.
    checked(unsafe { (functions()?.synchronise)(device as c_int) })
}

/// Where torch computes on this thread, as NCCL wants it: a `cudaStream_t`, for use at once.
pub fn current_stream(device: usize) -> Result<*mut c_void> {
    let mut stream: Pointer = std::ptr::null_mut();
    // SAFETY: `stream` is where the shim writes one address.
    checked(unsafe { (functions()?.current_stream)(&raw mut stream, device as c_int) })?;
    Ok(stream)
}

/// The memory of a GPU, in bytes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Memory {
    /// What no process holds.
    pub free: u64,
    /// All of it.
    pub total: u64,
    /// In tensors of this process.
    pub allocated: u64,
    /// The most that tensors of this process ever held.
    pub allocated_peak: u64,
}

/// How the memory of a GPU is used.
pub fn memory(device: usize) -> Result<Memory> {
    let mut memory = Memory::default();
    // SAFETY: `memory` has the layout that the shim writes.
    checked(unsafe { (functions()?.memory)(&raw mut memory, device as c_int) })?;
    Ok(memory)
}

/// The same numbers on a device. The host does not wait for a GPU to have got them.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    tensor.to_device_(device, tensor.kind(), true, false)
}

/// A stream beside the one on which torch computes.
pub struct SideStream {
    functions: &'static Functions,
    side: Pointer,
}

// SAFETY: the shim's object holds two events and the number of a stream, all of which CUDA lets any
// thread use; calls that change the events take `&mut self` or come one at a time by contract.
unsafe impl Send for SideStream {}

impl SideStream {
    /// A stream of a GPU.
    pub fn new(device: usize) -> Result<Self> {
        let functions = functions()?;
        let mut side: Pointer = std::ptr::null_mut();
        // SAFETY: `side` is where the shim writes one address.
        checked(unsafe { (functions.side_new)(&raw mut side, device as c_int) })?;
        Ok(Self { functions, side })
    }

    /// As NCCL wants it: a `cudaStream_t`, valid as long as the process.
    pub fn stream(&self) -> *mut c_void {
        // SAFETY: the object is alive; streams of the pool are never destroyed.
        unsafe { (self.functions.side_stream)(self.side) }
    }

    /// Lets what is enqueued here next wait for what torch has enqueued on this thread so far.
    pub fn follow_main(&mut self) -> Result<()> {
        // SAFETY: the object is alive and borrowed alone.
        checked(unsafe { (self.functions.side_follows)(self.side) })
    }

    /// Lets what torch enqueues on this thread next wait for what was enqueued here so far.
    pub fn main_follows(&mut self) -> Result<()> {
        // SAFETY: the object is alive and borrowed alone.
        checked(unsafe { (self.functions.follow_side)(self.side) })
    }

    /// Keeps the memory of `tensor` until what was enqueued here so far is done, also when every handle
    /// of it is gone.
    pub fn hold(&mut self, tensor: &Tensor) -> Result<()> {
        // SAFETY: the object is alive; the handle belongs to a tensor borrowed for this call.
        checked(unsafe { (self.functions.side_holds)(self.side, handle(tensor)) })
    }
}

impl Drop for SideStream {
    fn drop(&mut self) {
        // SAFETY: made by `side_new`, and nobody uses it afterwards.
        unsafe { (self.functions.side_free)(self.side) }
    }
}

/// How many graphs of this process are alive.
static GRAPHS: AtomicUsize = AtomicUsize::new(0);

/// How many graphs of this process are alive: what was recorded in them is still in use.
pub fn graphs_alive() -> usize {
    GRAPHS.load(Ordering::SeqCst)
}

/// Work that was recorded once and can be done again, on the same memory, by one call.
pub struct Graph {
    functions: &'static Functions,
    graph: Pointer,
}

impl Graph {
    /// Records what `work` enqueues on this thread's GPU, and in its backward; nothing of it is done.
    ///
    /// `work` must not read from the GPU, copy from ordinary host memory or wait. Tensors that it makes
    /// hold nothing before the first replay, and new values after every further one. With `shared`
    /// memory is taken from that graph: neither may run while the results of the other are needed.
    /// Fails where something cannot be recorded, or `work` fails or panics.
    pub fn record<T>(shared: Option<&Self>, work: impl FnOnce() -> Result<T>) -> Result<(Self, T)> {
        let functions = functions()?;
        let pool = shared.map_or(std::ptr::null_mut(), |shared| shared.graph);
        let mut graph: Pointer = std::ptr::null_mut();
        // SAFETY: `graph` is where the shim writes one address; `pool` is null or a live graph.
        checked(unsafe { (functions.graph_begin)(&raw mut graph, pool) })?;
        GRAPHS.fetch_add(1, Ordering::SeqCst);
        let graph = Self { functions, graph };
        // tch panics where an operation is refused, which the recording must not survive as begun.
        let made = catch_unwind(AssertUnwindSafe(work));
        // SAFETY: the graph is alive and its recording was begun on this thread.
        let ended = checked(unsafe { (functions.graph_end)(graph.graph) });
        let made = made.map_err(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
            let first_line = words.lines().next().unwrap_or_default();
            Failure::new(format!("an operation cannot be recorded: {first_line}"))
        })??;
        ended?;
        Ok((graph, made))
    }

    /// Does it again, after what torch has enqueued on this thread so far.
    pub fn replay(&self) -> Result<()> {
        // SAFETY: the graph is alive and recorded.
        checked(unsafe { (self.functions.graph_replay)(self.graph) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `graph_begin`, and nobody uses it afterwards.
        unsafe { (self.functions.graph_free)(self.graph) }
        GRAPHS.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_every_call_says_so() {
        if devices() > 0 {
            return;
        }
        for failure in [
            open(0, None).unwrap_err(),
            memory(0).map(drop).unwrap_err(),
            SideStream::new(0).map(drop).unwrap_err(),
            Graph::record(None, || Ok(())).map(drop).unwrap_err(),
        ] {
            let text = failure.to_string();
            // Of this file where there is no CUDA at all, of libtorch where there is no driver.
            assert!(text.contains("cannot use a GPU") || text.contains("CUDA"), "{text}");
        }
    }

    /// Holds one thing under one name.
    struct Shelf(std::cell::RefCell<Option<Vec<u8>>>);

    impl KernelStore for Shelf {
        fn read(&self, _name: &str) -> Option<Vec<u8>> {
            self.0.borrow().clone()
        }
        fn keep(&self, _name: &str, code: &[u8]) {
            *self.0.borrow_mut() = Some(code.to_vec());
        }
    }

    #[test]
    fn what_is_kept_is_not_made_again_and_what_cannot_be_loaded_is_replaced() {
        let load = |code: &[u8]| {
            if code == b"good" { Ok(()) } else { Err(Failure::new("no kernel image")) }
        };
        for (kept, made) in [(None, 1), (Some("good"), 0), (Some("of another driver"), 1)] {
            let shelf = Shelf(std::cell::RefCell::new(kept.map(Into::into)));
            let mut times = 0;
            let mut make = || {
                times += 1;
                Ok(b"good".to_vec())
            };
            kept_or_made(Some(&shelf), "sm_90", &mut make, load).unwrap();
            assert_eq!(times, made, "{kept:?}");
            assert_eq!(shelf.0.into_inner().as_deref(), Some(b"good".as_slice()));
        }
        let shelf = Shelf(std::cell::RefCell::new(None));
        for make in [|| Ok(b"bad".to_vec()), || Err(Failure::new("refused"))] {
            assert!(kept_or_made(Some(&shelf), "sm_90", make, load).is_err());
        }
        assert_eq!(shelf.0.into_inner(), None);
        kept_or_made(None, "sm_90", || Ok(b"good".to_vec()), load).unwrap();
    }

    #[test]
    fn on_a_cpu_nothing_is_uploaded() {
        let tensor = Tensor::from_slice(&[1.0, 2.0]);
        assert!(upload(&tensor, Device::Cpu).equal(&tensor));
    }
}
