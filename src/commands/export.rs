//! `scrimp export`: the log of a run as files of other programs.

use super::{print, print_json};
use crate::cli::{Export, ExportFormat};
use crate::error::{Exit, Failure, Result};
use crate::export::{csv, tensorboard};
use crate::runlog::directory::RunDirectory;
use crate::watch::Feed;

/// Runs `scrimp export` of a run.
pub(super) fn run(arguments: &Export) -> Result<Exit> {
    if let Some(kind) = &arguments.annotation {
        return Err(Failure::usage(format!("`--annotation {kind}` says nothing of a run"))
            .hint("it is for packed data sets, with `--to nnunet`"));
    }
    let directory = RunDirectory::new(&arguments.from);
    // Refuses what is no run, in the words of `scrimp watch`.
    Feed::open(directory.clone())?;
    let (name, is_for_tensorboard) = match arguments.to {
        ExportFormat::Tensorboard => ("tensorboard", true),
        _ => ("csv", false),
    };
    let folder =
        arguments.into.clone().unwrap_or_else(|| directory.root().join("export").join(name));
    let written = if is_for_tensorboard {
        tensorboard(&directory, &folder)?
    } else {
        csv(&directory, &folder)?
    };
    if arguments.json {
        print_json(&serde_json::json!({ "folder": folder, "files": written }))?;
        return Ok(Exit::Done);
    }
    for path in &written {
        print(&format!("{}\n", path.display()))?;
    }
    if is_for_tensorboard {
        print(&format!("look at them with `tensorboard --logdir {}`\n", folder.display()))?;
    }
    Ok(Exit::Done)
}
