//! The file that commands of `scrimp prepare` make: types only.

use clap::Args;
use std::path::PathBuf;

/// The packed file that a command makes, and how it is told.
#[derive(Debug, Args)]
pub struct PackedFile {
    /// The packed file to write
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Print the file and the report on it as JSON
    #[arg(long)]
    pub json: bool,
}
