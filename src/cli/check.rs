//! The command line of `scrimp prepare check`: types only.

use clap::Args;
use std::path::PathBuf;

/// Arguments of `scrimp prepare check`.
#[derive(Debug, Args)]
pub struct CheckPacked {
    /// The packed file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Ask whether it can be trained on while this fold is held out, and scored with it
    #[arg(long)]
    pub fold: Option<u32>,
    /// Ask whether this annotation can be learnt from [default: any of those that are there]
    #[arg(long, value_name = "KIND")]
    pub annotation: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}
