//! `scrimp export`: the log of a run as files of other programs.

use super::print;
use crate::cli::{Export, ExportFormat};
use crate::error::{Exit, Result};
use crate::export::{csv, tensorboard};
use crate::runlog::directory::RunDirectory;
use crate::watch::Feed;

/// Runs `scrimp export`.
pub(super) fn run(arguments: &Export) -> Result<Exit> {
    let directory = RunDirectory::new(&arguments.run);
    // Refuses what is no run, in the words of `scrimp watch`.
    Feed::open(directory.clone())?;
    let name = match arguments.to {
        ExportFormat::Csv => "csv",
        ExportFormat::Tensorboard => "tensorboard",
    };
    let folder =
        arguments.into.clone().unwrap_or_else(|| directory.root().join("export").join(name));
    let written = match arguments.to {
        ExportFormat::Csv => csv(&directory, &folder)?,
        ExportFormat::Tensorboard => tensorboard(&directory, &folder)?,
    };
    for path in &written {
        print(&format!("{}\n", path.display()))?;
    }
    if arguments.to == ExportFormat::Tensorboard {
        print(&format!("look at them with `tensorboard --logdir {}`\n", folder.display()))?;
    }
    Ok(Exit::Done)
}
