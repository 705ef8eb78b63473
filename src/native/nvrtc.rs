//! NVRTC, which compiles the kernels for GPUs when the program runs. It needs neither a GPU nor libtorch.
//!
//! Knows no devices: what machine code is for is a name, as `sm_90`, and who loads it is up to the caller.
#![expect(unsafe_code, reason = "this file is the foreign-function border to NVRTC")]

use crate::error::{Failure, Result};
use libloading::Library;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_128;

/// The files with the kernels, in an order in which each may include those before it. Hosts compile them too.
const FILES: [(&CStr, &str); 6] = [
    (c"device_elements.h", concat!(include_str!("device_elements.h"), "\0")),
    (c"device_sums.h", concat!(include_str!("device_sums.h"), "\0")),
    (c"device_kernels.h", concat!(include_str!("device_kernels.h"), "\0")),
    (c"flat_kernels.h", concat!(include_str!("flat_kernels.h"), "\0")),
    (c"spectral_kernels.h", concat!(include_str!("spectral_kernels.h"), "\0")),
    (c"propagation_kernels.h", concat!(include_str!("propagation_kernels.h"), "\0")),
];

/// How they are compiled, beside the architecture. The compiler's log then tells what each kernel needs.
const OPTIONS: [&CStr; 2] = [c"--std=c++17", c"--ptxas-options=-v"];

/// Looked for in this order: what libtorch's CUDA half brings depends on NVRTC and knows where it lies.
const LIBRARIES: [&str; 2] = ["libcaffe2_nvrtc.so", "libnvrtc.so.13"];

type Program = *mut c_void;
/// A call that writes the two numbers of a version.
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
/// A call that gives a number of bytes.
type SizeOf = unsafe extern "C" fn(Program, *mut usize) -> c_int;
/// A call that writes these many bytes.
type Fill = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
/// Makes a program of its text, its name, and the number, texts and names of what it may include.
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;

unsafe extern "C" {
    fn scrimp_kernel_names() -> *const c_char;
}

/// The names of all kernels, as they are looked for in machine code.
pub fn kernel_names() -> Vec<&'static str> {
    // SAFETY: the text is a literal of the shim, which ends with a NUL.
    let names = unsafe { CStr::from_ptr(scrimp_kernel_names()) };
    names.to_str().unwrap_or_default().lines().collect()
}

/// Machine code of all kernels for one architecture.
#[derive(Debug)]
pub struct Compiled {
    /// A cubin.
    pub code: Vec<u8>,
    /// What the compiler says of each kernel: registers, memory, and what did not fit into registers.
    pub log: String,
}

/// The functions of NVRTC that are used; they return 0 or an error.
pub struct Compiler {
    create: Create,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: SizeOf,
    log: Fill,
    code_size: SizeOf,
    code: Fill,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    error_text: unsafe extern "C" fn(c_int) -> *const c_char,
    version: (c_int, c_int),
}

impl Compiler {
    /// NVRTC as it is installed, loaded once; an error says where it is missing.
    pub fn load() -> Result<&'static Self> {
        static COMPILER: OnceLock<std::result::Result<Compiler, String>> = OnceLock::new();
        let loaded = COMPILER.get_or_init(load);
        loaded.as_ref().map_err(|message| {
            Failure::new(format!("cannot use NVRTC, the compiler for GPUs: {message}"))
                .hint("run `./launch/setup`, or name its folder in `LD_LIBRARY_PATH`")
        })
    }

    /// A name of what [`Compiler::compile`] makes for an architecture: another one for other kernels, other
    /// options and another version of NVRTC.
    pub fn name_of(&self, architecture: &str) -> String {
        let mut text = Vec::new();
        for (name, file) in FILES {
            text.extend_from_slice(name.to_bytes_with_nul());
            text.extend_from_slice(file.as_bytes());
        }
        for option in OPTIONS {
            text.extend_from_slice(option.to_bytes_with_nul());
        }
        let (major, minor) = self.version;
        format!("{architecture}-nvrtc-{major}.{minor}-{:032x}", xxh3_128(&text))
    }

    /// Compiles all kernels for an architecture, for example `sm_90`. Takes seconds; may run on several
    /// threads at once. An error holds the compiler's log.
    pub fn compile(&self, architecture: &str) -> Result<Compiled> {
        let target =
            CString::new(format!("--gpu-architecture={architecture}")).map_err(|_nul| {
                Failure::new(format!("no architecture is called `{}`", architecture.escape_debug()))
            })?;
        let mut options = vec![target.as_ptr()];
        options.extend(OPTIONS.map(CStr::as_ptr));
        let program = Source::new(self)?;
        // SAFETY: the program is alive, and the texts of the options live until the call returns.
        let result =
            unsafe { (self.compile)(program.program, options.len() as c_int, options.as_ptr()) };
        let log = program.bytes(self.log_size, self.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n']).to_owned();
        if result != 0 {
            let words = self.words(result);
            return Err(Failure::new(format!("NVRTC refused the kernels: {words}\n{log}")));
        }
        let code = program.bytes(self.code_size, self.code)?;
        Ok(Compiled { code, log })
    }

    fn words(&self, result: c_int) -> String {
        // SAFETY: every result has a text, which is never freed.
        unsafe { CStr::from_ptr((self.error_text)(result)) }.to_string_lossy().into_owned()
    }

    fn checked(&self, result: c_int) -> Result<()> {
        if result == 0 {
            Ok(())
        } else {
            Err(Failure::new(format!("NVRTC: {}", self.words(result))))
        }
    }
}

/// A program that includes all files.
struct Source<'a> {
    compiler: &'a Compiler,
    program: Program,
}

impl<'a> Source<'a> {
    fn new(compiler: &'a Compiler) -> Result<Self> {
        let includes: String = FILES
            .iter()
            .map(|(name, _)| format!("#include \"{}\"\n", name.to_string_lossy()))
            .chain(["\0".to_owned()])
            .collect();
        let texts = FILES.map(|(_, text)| text.as_ptr().cast());
        let names = FILES.map(|(name, _)| name.as_ptr());
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: all texts end with a NUL and are copied by the call, which writes one address.
        compiler.checked(unsafe {
            (compiler.create)(
                &raw mut program,
                includes.as_ptr().cast(),
                c"kernels".as_ptr(),
                FILES.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        })?;
        Ok(Self { compiler, program })
    }

    fn bytes(&self, size_of: SizeOf, fill: Fill) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: the program is alive, and the second call writes as many bytes as the first one says.
        unsafe {
            self.compiler.checked(size_of(self.program, &raw mut size))?;
            let mut bytes = vec![0_u8; size];
            self.compiler.checked(fill(self.program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `create`, and nobody uses it afterwards.
        unsafe { (self.compiler.destroy)(&raw mut self.program) };
    }
}

fn load() -> std::result::Result<Compiler, String> {
    // The system's own words are in the source.
    let words = |error: libloading::Error| {
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    };
    let mut missing = Vec::new();
    let library = LIBRARIES.into_iter().find_map(|name| {
        // SAFETY: the initialisers of NVRTC ask for nothing.
        unsafe { Library::new(name) }.map_err(|error| missing.push(words(error))).ok()
    });
    let library = library.ok_or_else(|| missing.join("; "))?;
    // SAFETY: every symbol is read with the type that nvrtc.h gives it, and the library is never unloaded.
    let mut compiler = unsafe {
        Compiler {
            create: *library.get(b"nvrtcCreateProgram").map_err(words)?,
            compile: *library.get(b"nvrtcCompileProgram").map_err(words)?,
            log_size: *library.get(b"nvrtcGetProgramLogSize").map_err(words)?,
            log: *library.get(b"nvrtcGetProgramLog").map_err(words)?,
            code_size: *library.get(b"nvrtcGetCUBINSize").map_err(words)?,
            code: *library.get(b"nvrtcGetCUBIN").map_err(words)?,
            destroy: *library.get(b"nvrtcDestroyProgram").map_err(words)?,
            error_text: *library.get(b"nvrtcGetErrorString").map_err(words)?,
            version: (0, 0),
        }
    };
    let (mut major, mut minor) = (0, 0);
    // SAFETY: as above; the call writes two numbers.
    let result = unsafe {
        let version = library.get::<Version>(b"nvrtcVersion").map_err(words)?;
        version(&raw mut major, &raw mut minor)
    };
    compiler.checked(result).map_err(|failure| failure.to_string())?;
    compiler.version = (major, minor);
    std::mem::forget(library);
    load_builtins(&compiler);
    Ok(compiler)
}

/// Loads the library that NVRTC asks for by its name alone: whether it is found would otherwise depend on
/// who loaded NVRTC first.
fn load_builtins(compiler: &Compiler) {
    let (major, minor) = compiler.version;
    let Some(nvrtc) = file_of(compiler.create as *const c_void) else { return };
    let builtins = nvrtc.with_file_name(format!("libnvrtc-builtins.so.{major}.{minor}"));
    // SAFETY: the library holds data; it stays loaded. Without it compiling fails, with NVRTC's own words.
    let loaded = unsafe { Library::new(builtins) };
    drop(loaded.map(std::mem::forget));
}

/// What `dladdr` tells of an address.
#[repr(C)]
struct Object {
    file: *const c_char,
    base: *const c_void,
    symbol: *const c_char,
    address: *const c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, object: *mut Object) -> c_int;
}

/// The file of the library that holds a function.
fn file_of(function: *const c_void) -> Option<PathBuf> {
    let mut object = Object {
        file: std::ptr::null(),
        base: std::ptr::null(),
        symbol: std::ptr::null(),
        address: std::ptr::null(),
    };
    // SAFETY: `object` has the layout that the call writes; its texts live as long as the library.
    unsafe {
        if dladdr(function, &raw mut object) == 0 || object.file.is_null() {
            return None;
        }
        let file = CStr::from_ptr(object.file).to_bytes();
        Some(Path::new(OsStr::from_bytes(file)).to_owned())
    }
}
