//! The kernels for GPUs as NVRTC compiles them for the architectures of today: all of them are there, keep
//! everything in registers, and leave room for as many threads as their grids count on. Needs no GPU.

use scrimp::native::nvrtc::{Compiler, kernel_names};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::thread;

/// From Turing, the oldest that libtorch's wheels know, to the Blackwell of workstations.
const ARCHITECTURES: [&str; 5] = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"];

/// Registers of a multiprocessor, given out in eights to each thread.
const REGISTERS: usize = 65536;
/// Shared memory of a block that needs no permission.
const SHARED_BYTES: usize = 48 << 10;
/// Threads of a kernel that grids count on, at least, on one multiprocessor at once.
const THREADS_AT_ONCE: usize = 512;

/// Bytes that may leave the registers: in double, which is for verification, an exponential is a call.
fn spill_allowed(kernel: &str) -> usize {
    if kernel == "neighbours_double_4" { 64 } else { 0 }
}

/// What a kernel needs, from the compiler's log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Needs {
    registers: usize,
    spilt_bytes: usize,
    shared_bytes: usize,
}

impl Needs {
    fn complaint(self, spill_allowed: usize) -> Option<String> {
        let threads = REGISTERS / self.registers.next_multiple_of(8).max(8);
        if self.spilt_bytes > spill_allowed {
            Some(format!("spills {} bytes", self.spilt_bytes))
        } else if self.shared_bytes > SHARED_BYTES {
            Some(format!("has {} bytes of shared memory", self.shared_bytes))
        } else if threads < THREADS_AT_ONCE {
            let of = self.registers;
            Some(format!("has room for {threads} threads of {of} registers, not {THREADS_AT_ONCE}"))
        } else {
            None
        }
    }
}

/// The number in front of `what` in a line of the log, 0 where there is none.
fn number_before(line: &str, what: &str) -> usize {
    let before = line.find(what).map_or("", |at| &line[..at]);
    before.split([' ', ',']).rfind(|word| !word.is_empty()).map_or(0, |word| word.parse().unwrap())
}

/// By name of the kernel.
fn needs_in(log: &str) -> BTreeMap<String, Needs> {
    let mut kernels: BTreeMap<String, Needs> = BTreeMap::new();
    let mut current = None;
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let (name, _) = rest.split_once('\'').unwrap();
            current = Some(kernels.entry(name.to_owned()).or_default());
        } else if let Some(needs) = current.as_mut() {
            // Of functions that are not inlined too, which stand behind the kernel.
            needs.spilt_bytes += number_before(line, " bytes spill stores");
            needs.spilt_bytes += number_before(line, " bytes spill loads");
            needs.registers = needs.registers.max(number_before(line, " registers"));
            needs.shared_bytes = needs.shared_bytes.max(number_before(line, " bytes smem"));
        }
    }
    kernels
}

/// Whether machine code has a section of a kernel's instructions.
fn holds(code: &[u8], kernel: &str) -> bool {
    let section = format!("\0.text.{kernel}\0");
    code.windows(section.len()).any(|window| window == section.as_bytes())
}

/// Registers, and what spills, of each kernel on each architecture.
fn table(needs: &[BTreeMap<String, Needs>]) -> String {
    let mut text = format!("{:<26}", "registers");
    for architecture in ARCHITECTURES {
        let _ = write!(text, "{architecture:>10}");
    }
    let kernels: BTreeSet<&String> = needs.iter().flat_map(BTreeMap::keys).collect();
    for kernel in kernels {
        let _ = write!(text, "\n{kernel:<26}");
        for kernels in needs {
            let Needs { registers, spilt_bytes, .. } =
                kernels.get(kernel).copied().unwrap_or_default();
            let spilt = if spilt_bytes > 0 { format!("+{spilt_bytes}B") } else { String::new() };
            let _ = write!(text, "{:>10}", format!("{registers}{spilt}"));
        }
    }
    text
}

#[test]
fn every_kernel_compiles_for_every_architecture_and_stays_in_registers() {
    let compiler = Compiler::load().unwrap();
    let made = thread::scope(|scope| {
        ARCHITECTURES
            .map(|architecture| scope.spawn(move || compiler.compile(architecture).unwrap()))
            .map(|thread| thread.join().unwrap())
    });
    let needs = made.each_ref().map(|compiled| needs_in(&compiled.log));
    let names = kernel_names();
    let mut wrong = Vec::new();
    for ((architecture, compiled), needs) in ARCHITECTURES.iter().zip(&made).zip(&needs) {
        for &kernel in &names {
            if !holds(&compiled.code, kernel) {
                wrong.push(format!("{architecture}: `{kernel}` is not in the machine code"));
            }
        }
        let told: Vec<&str> = needs.keys().map(String::as_str).collect();
        let mut expected = names.clone();
        expected.sort_unstable();
        assert_eq!(told, expected, "kernels in the log for {architecture}:\n{}", compiled.log);
        wrong.extend(needs.iter().filter_map(|(kernel, needs)| {
            Some(format!("{architecture}: `{kernel}` {}", needs.complaint(spill_allowed(kernel))?))
        }));
    }
    println!("{}", table(&needs));
    assert!(wrong.is_empty(), "\n{}\n\n{}\n", wrong.join("\n"), table(&needs));
}

#[test]
fn names_of_kept_kernels_differ_by_architecture_and_are_names_of_files() {
    let compiler = Compiler::load().unwrap();
    let names = ARCHITECTURES.map(|architecture| compiler.name_of(architecture));
    assert_eq!(BTreeSet::from(names.clone()).len(), names.len());
    for (name, architecture) in names.iter().zip(ARCHITECTURES) {
        assert!(name.starts_with(&format!("{architecture}-nvrtc-")), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)), "{name}");
    }
}

#[test]
fn an_architecture_that_is_none_is_refused_in_nvrtcs_words() {
    let failure = Compiler::load().unwrap().compile("sm_1").unwrap_err();
    assert!(failure.message().contains("--gpu-architecture"), "{failure}");
}

#[test]
fn the_log_of_the_compiler_is_understood() {
    let log = "ptxas info    : 316 bytes gmem\n\
        ptxas info    : Compiling entry function 'first' for 'sm_90'\n\
        ptxas info    : Function properties for first\n\
        ptxas         .     8 bytes stack frame, 8 bytes spill stores, 16 bytes spill loads\n\
        ptxas info    : Used 130 registers, used 1 barriers, 8 bytes cumulative stack size\n\
        ptxas info    : Compiling entry function 'second' for 'sm_90'\n\
        ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 129 registers, used 1 barriers, 49153 bytes smem, 424 bytes cmem[0]\n";
    let needs = needs_in(log);
    assert_eq!(needs["first"], Needs { registers: 130, spilt_bytes: 24, shared_bytes: 0 });
    assert_eq!(needs["second"], Needs { registers: 129, spilt_bytes: 0, shared_bytes: 49153 });
    let complaint = |registers, spilt_bytes, shared_bytes| {
        Needs { registers, spilt_bytes, shared_bytes }.complaint(0)
    };
    assert_eq!(complaint(128, 0, SHARED_BYTES), None);
    assert_eq!(complaint(128, 8, 0).unwrap(), "spills 8 bytes");
    assert_eq!(complaint(128, 0, 49153).unwrap(), "has 49153 bytes of shared memory");
    assert_eq!(complaint(129, 0, 0).unwrap(), "has room for 481 threads of 129 registers, not 512");
    assert!(holds(b"\0.text.moments_float_4\0", "moments_float_4"));
    assert!(!holds(b"\0.text.moments_float_4\0", "moments_float_"));
}
