//! scrimp trains medical image segmentation from scrimped annotations on as many processes as
//! `mpirun` starts.
//!
//! A configuration becomes a [`config`] plan; each rank builds a method and hands it to the
//! trainer; facts go to the [`runlog`], which [`watch`] reads from another process. Formulas know
//! nothing, the trainer knows the trait, the dashboard knows the log, and only `commands` knows
//! everybody. Read in this order: `train/method.rs`, `methods/partial_ce/mod.rs`, `train/trainer.rs`,
//! `runlog/mod.rs`, `watch/state.rs`.
//!
//! Without the feature `torch` only the half that needs no libtorch is built: configurations,
//! the run log, the metrics and the dashboard.

pub mod error;
pub mod files;
pub mod launchers;
pub mod limits;
pub mod panics;
pub mod random;
pub mod shares;
pub mod signals;
pub mod words;

pub mod config;
pub mod crf;
pub mod gaze;
pub mod metrics;
pub mod mixing;
pub mod preparation;
pub mod pseudo_labels;
pub mod runlog;
pub mod scan;
pub mod scribbles;

pub mod launch;
pub mod watch;

pub mod farm;

pub mod export;

pub mod telemetry;

pub mod doctor;

pub mod cli;
pub mod commands;

#[cfg(feature = "hdf5")]
pub mod data;

#[cfg(feature = "torch")]
pub mod comm;
#[cfg(feature = "torch")]
pub mod losses;
#[cfg(feature = "torch")]
pub mod methods;
#[cfg(feature = "torch")]
pub mod native;
#[cfg(feature = "torch")]
pub mod nets;
#[cfg(feature = "torch")]
pub mod parameters;
#[cfg(feature = "torch")]
pub mod train;
