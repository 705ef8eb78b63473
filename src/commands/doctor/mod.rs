//! `scrimp doctor`: every rank looks at its host, and the first one tells what is wrong with all of them.
//!
//! What is looked at, and what follows from it, stands in `doctor`.

#[cfg(feature = "hdf5")]
mod files;
mod observe;
#[cfg(feature = "hdf5")]
mod pack;
mod ranks;

#[cfg(feature = "hdf5")]
use super::check;
use super::{print, print_json, run_directory};
use crate::cli::{self, DoctorPart};
use crate::doctor::checks;
use crate::doctor::guard::Guard;
use crate::doctor::report::State;
use crate::error::{Exit, Result};
use crate::runlog::directory::RunDirectory;
use crate::watch::Abilities;
use ranks::Ranks;
use serde::Serialize;
use std::time::Duration;

/// How long ranks may take to find each other.
const START: Duration = Duration::from_mins(3);
/// Columns of the table where there is no terminal.
const COLUMNS: u16 = 110;

/// Looks at machines, or at files; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::Doctor) -> Result<Exit> {
    match &arguments.part {
        #[cfg(feature = "hdf5")]
        Some(DoctorPart::Data(data)) => examine_files(data),
        #[cfg(not(feature = "hdf5"))]
        Some(DoctorPart::Data(_)) => Err(super::absent("doctor data", "hdf5")),
        None => examine_machines(arguments),
    }
}

fn examine_machines(arguments: &cli::Doctor) -> Result<Exit> {
    let ranks = Ranks::join(Guard::over("ranks find each other", START)?);
    if ranks.is_left_out() {
        // The first one tells. Where another one ended with a failure, the launcher would end it before.
        return Ok(Exit::Done);
    }
    let run = match (&arguments.config, &arguments.run) {
        (None, None) => RunDirectory::new("runs"),
        (config, run) => run_directory(config.as_deref(), run.as_deref()),
    };
    ranks.together(|| {
        let report = checks::examine(&observe::all(arguments, run, &ranks)?);
        if ranks.rank() == 0 {
            tell(&report, arguments.json, |columns| report.text(columns))?;
        }
        // A launcher ends all as soon as one has ended: nobody does before it is told.
        ranks.gather(&[])?;
        Ok(if report.can_train { Exit::Done } else { Exit::Failed })
    })
}

/// Exits with 1 where labels do not lie on their image, or something cannot be read.
#[cfg(feature = "hdf5")]
fn examine_files(arguments: &cli::DoctorData) -> Result<Exit> {
    if let Some(pack) = files::pack(arguments)? {
        return check::run(&pack);
    }
    let told = files::look(arguments)?;
    tell(&told, arguments.json, |columns| told.text(columns))?;
    Ok(if told.is_usable { Exit::Done } else { Exit::Failed })
}

/// Prints what is known as JSON, or as a table of so many columns.
fn tell(known: &impl Serialize, as_json: bool, table: impl FnOnce(usize) -> String) -> Result<()> {
    if as_json {
        return print_json(known);
    }
    print(&shown(table))
}

/// What is said of data where this build reads none.
#[cfg(not(feature = "hdf5"))]
fn reads_no_data() -> crate::error::Failure {
    super::absent("doctor --data", "hdf5")
}

/// A table as it fits this terminal, with colours where there is one: ranks of `mpirun` believe to have one, and write
/// into whatever it writes to.
fn shown(table: impl FnOnce(usize) -> String) -> String {
    let terminal = Abilities::find();
    let columns = terminal.size.map_or(COLUMNS, |(columns, _)| columns.clamp(60, 160));
    let text = table(usize::from(columns));
    if terminal.is_terminal { coloured(&text) } else { text }
}

/// The same with the states in front of lines in colour; the stream drops colours that nobody wants.
fn coloured(text: &str) -> String {
    let colours = [
        (State::Fails, "1;31"),
        (State::Warning, "1;33"),
        (State::Ok, "32"),
        (State::NotHere, "2"),
    ];
    let colour = |line: &str| {
        let found = colours.iter().find_map(|&(state, code)| {
            let rest = line.strip_prefix(state.word())?;
            let colour = || format!("\x1b[{code}m{}\x1b[0m{rest}\n", state.word());
            rest.starts_with("  ").then(colour)
        });
        found.unwrap_or_else(|| format!("{line}\n"))
    };
    text.lines().map(colour).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_alone_are_in_colour() {
        let text = "2 ranks\n\nfails     data  x\n          fails\nok        MPI   y\n";
        let expected = "2 ranks\n\n\u{1b}[1;31mfails\u{1b}[0m     data  x\n          fails\n\
                        \u{1b}[32mok\u{1b}[0m        MPI   y\n";
        assert_eq!(coloured(text), expected);
    }
}
