//! Tests that cannot run here say so, and are written down for those who did not look.
//!
//! Each adds a line to [`LIST`], which `.ci/run` clears before the tests and shows after them.

use std::fs::OpenOptions;
use std::io::Write;

/// One line for each test that skipped.
const LIST: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/skipped");

/// Says why the calling test, which is to return now, cannot run.
pub(crate) fn skipped(why: &str) {
    println!("skipped: {why}");
    let thread = std::thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    // One write, as several tests and processes add to the file.
    let file = OpenOptions::new().append(true).create(true).open(LIST);
    file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
}

/// Whether there is a GPU to test on. Where `SCRIMP_TEST_DEVICE` is `cuda` there has to be one: a test
/// that skipped would say nothing.
#[cfg(feature = "torch")]
pub(crate) fn gpu_is_there() -> bool {
    let is_there = scrimp::native::cuda::devices() > 0;
    let is_expected = std::env::var("SCRIMP_TEST_DEVICE").is_ok_and(|device| device == "cuda");
    assert!(is_there || !is_expected, "`SCRIMP_TEST_DEVICE` is `cuda`, and there is no GPU");
    is_there
}
