//! What `launch/gpu-pack` packs is enough for `launch/gpu-check` on a machine that has a C library, Python and PyTorch
//! and nothing else. Rehearsed on the CPU, at a reduced size, with MPI, HDF5 and libtorch of this machine hidden.

use crate::skips::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The most that one call on such a machine takes, in seconds.
const BUDGET: &str = "460";

fn in_repository(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn python() -> String {
    std::env::var("SCRIMP_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// The folder of the Python package `torch`, where it is that of libtorch 2.11.
fn torch_of_python() -> Option<PathBuf> {
    let words = "import torch, os; assert torch.__version__.startswith('2.11.'); \
                 print(os.path.dirname(torch.__file__))";
    let output = Command::new(python()).args(["-c", words]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then(|| fs::canonicalize(text).unwrap())
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// The folder with libtorch that this build links, where it is another one than Python's.
fn own_libtorch(torch: &Path) -> Option<PathBuf> {
    let linked = in_repository("ldd").arg(env!("CARGO_BIN_EXE_scrimp")).output().unwrap();
    let linked = text(&linked);
    let line = linked.lines().find(|line| line.contains("libtorch_cpu.so"))?;
    let library = line.split_whitespace().find(|word| word.starts_with('/'))?;
    let folder = fs::canonicalize(library).unwrap().ancestors().nth(2)?.to_owned();
    (folder != torch).then_some(folder)
}

#[test]
fn a_pack_is_enough_where_there_is_python_with_pytorch_and_nothing_else() {
    let Some(torch) = torch_of_python() else {
        skipped("no Python with PyTorch 2.11; set `SCRIMP_BENCH_PYTHON` to one");
        return;
    };
    let bare = |words: &[&str]| {
        let mut command = in_repository("tests/bare-machine");
        command.args(words);
        command
    };
    if !bare(&["true"]).output().is_ok_and(|output| output.status.success()) {
        skipped("this user may not hide files in a mount namespace");
        return;
    }
    let folder = TempDir::new().unwrap();
    let [archive, pack, out] = ["pack.tar.xz", "pack", "out"].map(|name| folder.path().join(name));
    let build = Path::new(env!("CARGO_BIN_EXE_scrimp")).parent().unwrap();
    let made = in_repository("launch/gpu-pack")
        .args(["--build".as_ref(), build.as_os_str(), "--to".as_ref(), archive.as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    fs::create_dir(&pack).unwrap();
    let unpacked =
        Command::new("tar").arg("-xJf").arg(&archive).current_dir(&pack).output().unwrap();
    assert!(unpacked.status.success(), "{}", text(&unpacked));

    // Not even the program starts there by itself.
    let mut alone = bare(&[env!("CARGO_BIN_EXE_scrimp"), "--version"]);
    assert!(!alone.output().unwrap().status.success(), "nothing is hidden");

    let mut check = bare(&["launch/gpu-check", "--device", "cpu", "--quick", "--budget", BUDGET]);
    if let Some(own) = own_libtorch(&torch) {
        check.env("HIDE", own);
    }
    let ended = check.arg("--pack").arg(&pack).arg("--out").arg(&out).output().unwrap();
    let log = fs::read_to_string(out.join("log.txt")).unwrap_or_default();
    assert!(ended.status.success(), "{}\n\n{log}", text(&ended));
    let summary = fs::read_to_string(out.join("summary.txt")).unwrap();
    assert!(summary.contains("all is well"), "{summary}");
}
