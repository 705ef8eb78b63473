//! One file per subcommand.

#[cfg(feature = "hdf5")]
pub mod prepare;
