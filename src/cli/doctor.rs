//! The command line of `scrimp doctor`: types only.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `scrimp doctor`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Doctor {
    /// Look at something else
    #[command(subcommand)]
    pub part: Option<DoctorPart>,
    /// What is to be trained: its device, threads, data and run directory are looked at, too
    #[arg(value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// Change a key of the configuration, as for `scrimp train`
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    pub overrides: Vec<String>,
    /// Where the run would be written [default: `runs/` and the file stem of CONFIG]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// A packed data set to read to its end [default: that of CONFIG]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// A list of hosts, as `mpirun --hostfile` takes it, whose names are looked up
    #[arg(long, value_name = "FILE")]
    pub hostfile: Option<PathBuf>,
    /// How long ranks may take for each thing that they do together, in seconds; who takes longer is named
    /// [default: minutes, by what it is]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub limit: Option<u64>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What else `scrimp doctor` looks at.
#[derive(Debug, Subcommand)]
pub enum DoctorPart {
    /// Say where an image lies and whether labels lie on it, or what a packed data set holds
    Data(DoctorData),
}

/// Arguments of `scrimp doctor data`.
#[derive(Debug, Args)]
pub struct DoctorData {
    /// An image, a folder of images, or a packed data set
    #[arg(value_name = "IMAGE|DIR|PACK")]
    pub images: PathBuf,
    /// Its labels, or a folder of labels with the names of the images
    #[arg(value_name = "LABELS")]
    pub labels: Option<PathBuf>,
    /// Say how much memory predicting takes with this run, before anything is predicted
    #[arg(long, value_name = "RUN", conflicts_with = "labels")]
    pub run: Option<PathBuf>,
    /// Print what is found as JSON
    #[arg(long)]
    pub json: bool,
}
