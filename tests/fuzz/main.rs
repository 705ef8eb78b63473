//! Throws damaged files at everything that reads files: each must be taken or refused with a sentence,
//! without a panic, an abort, ten seconds of silence or a gigabyte of memory.
//!
//! ```sh
//! cargo test --test fuzz                                            # a few hundred mutants of each kind
//! SCRIMP_FUZZ_SECONDS=3600 cargo test --release --test fuzz nifti   # an hour of one kind
//! ```
//!
//! A mutant on which a reader fails is written to `tests/fuzz/corpus/KIND/`, which every later run reads first.
//! `SCRIMP_FUZZ_SEED` gives other mutants. Knows files from outside; that what is read is right, other tests
//! show.
#![allow(clippy::print_stdout, reason = "the numbers of mutants are for whoever watches")]
#![allow(
    clippy::print_stderr,
    reason = "the reading process says what it found to the one that watches it"
)]

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod process;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod targets;
