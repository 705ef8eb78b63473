//! The one integration-test binary: this file is its table of contents.
#![expect(clippy::float_cmp, reason = "tests compare exact values on purpose")]

#[cfg(test)]
mod architecture;
#[cfg(feature = "mpi")]
mod comm;
#[cfg(feature = "torch")]
mod golden;
#[cfg(feature = "torch")]
mod golden_losses;
#[cfg(test)]
mod golden_metrics;
#[cfg(feature = "torch")]
mod golden_nets;
#[cfg(test)]
mod laws_metrics;
#[cfg(feature = "torch")]
mod native;
#[cfg(feature = "mpi")]
mod support;

#[cfg(test)]
#[cfg(feature = "hdf5")]
mod data;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod golden_augment;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod laws_data;
