//! The one integration-test binary: this file is its table of contents.
#![expect(clippy::float_cmp, reason = "tests compare exact values on purpose")]

#[cfg(test)]
mod cli;
#[cfg(feature = "mpi")]
mod comm;
#[cfg(test)]
mod dashboard;
#[cfg(feature = "torch")]
mod golden;
#[cfg(feature = "torch")]
mod golden_losses;
#[cfg(feature = "torch")]
mod golden_nets;
#[cfg(feature = "torch")]
mod native;
#[cfg(feature = "mpi")]
mod support;
