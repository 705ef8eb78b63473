//! `scrimp completions` and `scrimp manual`: what shells and `man` want to know of the command line, made of its
//! definition.

use super::print;
use crate::cli::Cli;
use crate::error::{Context, Exit, Result};
use crate::files;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::path::Path;

/// Prints the script with which a shell completes the commands.
pub(super) fn completions(shell: Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "scrimp", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// Writes a page for each command into a folder, which is made where it is missing.
pub(super) fn pages(folder: &Path) -> Result<Exit> {
    std::fs::create_dir_all(folder)
        .context(|| format!("cannot make the folder `{}`", folder.display()))?;
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut written = Vec::new();
    write_pages(&root, folder, &mut written)?;
    print(&written.concat())?;
    Ok(Exit::Done)
}

fn write_pages(of: &Command, folder: &Path, written: &mut Vec<String>) -> Result<()> {
    let name = of.get_display_name().unwrap_or_else(|| of.get_name());
    let path = folder.join(format!("{name}.1"));
    let mut page = Vec::new();
    Man::new(of.clone())
        .render(&mut page)
        .and_then(|()| files::replace(&path, &page))
        .context(|| format!("cannot write `{}`", path.display()))?;
    written.push(format!("{}\n", path.display()));
    let mut parts = of.get_subcommands().filter(|part| !part.is_hide_set());
    parts.try_for_each(|part| write_pages(part, folder, written))
}
