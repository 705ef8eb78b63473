//! The one integration-test binary: this file is its table of contents.
#![expect(clippy::float_cmp, reason = "tests compare exact values on purpose")]

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod cli;
#[cfg(feature = "mpi")]
mod comm;
#[cfg(test)]
mod dashboard;
#[cfg(all(test, feature = "hdf5"))]
mod data;
#[cfg(feature = "torch")]
mod golden;
#[cfg(all(test, feature = "hdf5"))]
mod golden_augment;
#[cfg(feature = "torch")]
mod golden_losses;
#[cfg(test)]
mod golden_metrics;
#[cfg(feature = "torch")]
mod golden_nets;
#[cfg(all(test, feature = "hdf5"))]
mod laws_data;
#[cfg(test)]
mod laws_metrics;
#[cfg(feature = "torch")]
mod native;
#[cfg(feature = "mpi")]
mod support;
