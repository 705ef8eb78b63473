//! The built program, as a shell sees it: texts on stderr and stdout, and exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs `scrimp` in the folder of this crate.
pub(crate) fn scrimp(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scrimp"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("the binary that cargo built starts")
}

/// The exit code, then everything on stderr.
pub(crate) fn complaint(output: &Output) -> String {
    let code = output.status.code().expect("no signal ends it");
    format!("exit code {code}\n{}", String::from_utf8_lossy(&output.stderr))
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

/// Compares what is said of every file of a folder.
fn explains_what_is_wrong_in(folder: &str) {
    let files = files_in(folder);
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let output = scrimp(&["config", "check", &format!("{folder}/{name}.toml")]);
        assert!(output.stdout.is_empty(), "{name}");
        insta::assert_snapshot!(format!("invalid_{name}"), complaint(&output));
    }
}

#[test]
fn every_mistake_in_a_configuration_is_explained() {
    explains_what_is_wrong_in("tests/it/invalid");
}

#[test]
#[cfg(feature = "torch")]
fn every_mistake_that_a_method_sees_is_explained() {
    explains_what_is_wrong_in("tests/it/invalid/methods");
}

#[test]
fn every_configuration_of_the_repository_is_sound_and_shows_itself() {
    let files = [files_in("configs"), files_in("configs/smoke")].concat();
    assert!(files.len() >= 2);
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let checked = scrimp(&["config", "check", file.to_str().unwrap()]);
        assert!(checked.status.success(), "{}", complaint(&checked));
        let shown = scrimp(&["config", "show", file.to_str().unwrap()]).stdout;
        let copy = folder.path().join("shown.toml");
        std::fs::write(&copy, &shown).unwrap();
        let again = scrimp(&["config", "show", copy.to_str().unwrap()]);
        assert_eq!(String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&shown));
    }
}

#[test]
fn every_farm_of_the_repository_is_sound() {
    let files = files_in("configs/farms");
    assert!(files.len() >= 2);
    for file in files {
        let printed = scrimp(&["farm", file.to_str().unwrap(), "--print"]);
        assert!(printed.status.success(), "{}", complaint(&printed));
    }
}

#[test]
fn a_missing_configuration_is_a_usage_error() {
    let output = scrimp(&["config", "check", "configs/absent.toml"]);
    insta::assert_snapshot!(complaint(&output), @r"
    exit code 2
    error: cannot read the configuration `configs/absent.toml`
      caused by: No such file or directory (os error 2)

    hint: list the configurations at hand with `ls configs`
    ");
}

#[test]
fn an_override_on_the_command_line_is_checked_like_the_file() {
    let output = scrimp(&[
        "config",
        "check",
        "tests/it/invalid/zero_cadence.toml",
        "--set",
        "train.log_every=5",
        "--set",
        "data.size=9000",
    ]);
    insta::assert_snapshot!(complaint(&output), @r"
    exit code 2
    error: `data.size` is 9000, expected 1 to 8192
      --> --set data.size=9000
    ");
}

#[test]
fn a_mistake_on_the_command_line_exits_with_2() {
    for arguments in [&["tarin"][..], &["config", "check"], &["watch"]] {
        assert_eq!(scrimp(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_scrimp"))
        .args(["config", "show", "configs/smoke/partial-ce.toml"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(complaint(&output), "exit code 0\n");
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_build_without_torch_says_what_it_lacks() {
    insta::assert_snapshot!(complaint(&scrimp(&["methods"])), @r"
    exit code 2
    error: this build has no `methods`: it was built without the feature `torch`

    hint: build it with `cargo build --release --features torch`
    ");
}
