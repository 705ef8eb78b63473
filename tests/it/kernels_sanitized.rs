//! The kernels for GPUs under the sanitizers of the host's compiler: `tests/kernels-sanitized` runs each of them on
//! buffers of the very size and on several threads at once. What this cannot see is what only a GPU does.

use crate::skips::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use tempfile::TempDir;

/// What one run of the program looks for.
const SANITIZERS: [&str; 2] = ["address,undefined", "thread"];

/// A program of the file `source`, in `folder`.
fn compile(sanitizer: &str, source: &Path, folder: &Path) -> (PathBuf, Output) {
    let program = folder.join("program");
    let output = Command::new(std::env::var("CXX").as_deref().unwrap_or("g++"))
        .args([
            "-std=c++17",
            "-O0",
            "-g1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pthread",
            "-Isrc/native",
        ])
        .arg(format!("-fsanitize={sanitizer}"))
        .arg("-fno-sanitize-recover=all")
        .arg(source)
        .arg("-o")
        .arg(&program)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    (program, output)
}

fn run(program: &Path) -> Output {
    Command::new(program)
        .env("TSAN_OPTIONS", "halt_on_error=1")
        // Containers may not let a process look at itself, and the program forgets nothing on purpose.
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .output()
        .unwrap()
}

/// Whether a program that does nothing can be made and run.
fn works(sanitizer: &str, folder: &Path) -> bool {
    let source = folder.join("nothing.cpp");
    fs::write(&source, "int main() {}\n").unwrap();
    let (program, output) = compile(sanitizer, &source, folder);
    output.status.success() && run(&program).status.success()
}

/// Runs all kernels; false where that sanitizer is not there.
fn sanitized(sanitizer: &str, folder: &Path) -> bool {
    if !works(sanitizer, folder) {
        return false;
    }
    let (program, made) = compile(sanitizer, Path::new("tests/kernels-sanitized/main.cpp"), folder);
    let words = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(made.status.success(), "-fsanitize={sanitizer}\n{}", words(&made));
    let ended = run(&program);
    assert!(ended.status.success(), "-fsanitize={sanitizer}\n{}", words(&ended));
    assert!(String::from_utf8_lossy(&ended.stdout).ends_with(" kernels\n"));
    true
}

#[test]
fn no_kernel_leaves_its_memory_or_races_with_itself() {
    let folder = TempDir::new().unwrap();
    thread::scope(|scope| {
        let runs = SANITIZERS.map(|sanitizer| {
            let folder = folder.path().join(sanitizer);
            fs::create_dir(&folder).unwrap();
            scope.spawn(move || sanitized(sanitizer, &folder))
        });
        for (sanitizer, run) in SANITIZERS.iter().zip(runs) {
            if !run.join().unwrap() {
                skipped(&format!("programs with -fsanitize={sanitizer} cannot be made or run"));
            }
        }
    });
}
