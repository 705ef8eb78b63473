//! What commands share that write a packed file: its name, a bar while it takes, and what is said of it.
//!
//! Does not know where cases come from.

use super::report;
use crate::data::import::Source;
use crate::data::report::{CaseMeasures, Purpose, Report, Survey};
use crate::data::store::{self, Destination, Existing};
use crate::error::{Context, Exit, Result};
use crate::words::counted;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::Path;

/// Takes a name that is free. What goes in is a packed file too, which the wrong way round would destroy.
pub(super) fn claim_free(to: &Path) -> Result<Destination> {
    Destination::claim(to, Existing::Refused)
}

/// Takes the name of the file to write before anything is read, and says so where it replaces another.
pub(super) fn claim(to: &Path) -> Result<Destination> {
    let destination = Destination::claim(to, Existing::Replaced)?;
    if destination.replaces() {
        writeln!(anstream::stderr(), "`{}` is a packed data set, and is replaced", to.display())
            .context(|| "cannot write to stderr")?;
    }
    Ok(destination)
}

/// A bar for `count` things, drawn on stderr and only where that is a terminal.
pub(super) fn bar(doing: &str, count: usize, things: &str) -> Result<ProgressBar> {
    let template = format!("{doing} {{bar:30}} {{pos}}/{{len}} {things}, {{eta}} left");
    let style =
        ProgressStyle::with_template(&template).context(|| "cannot draw the progress bar")?;
    Ok(ProgressBar::new(count as u64).with_style(style))
}

/// Writes what `source` gives into a packed file, and says so, and what it holds. Refuses what cannot be trained on.
pub(super) fn pack(source: Source, to: Destination) -> Result<Exit> {
    let bar = bar("packing", source.case_count, "cases")?;
    let path = to.path().to_owned();
    let about = store::About {
        name: &source.name,
        provenance: &source.provenance,
        classes: &source.classes,
        preparation: source.preparation.as_ref(),
        levels: &source.levels,
        test_fold: source.test_fold,
    };
    let mut writer = store::Writer::create(to, about)?;
    let mut cases = Vec::new();
    for case in source.cases {
        let case = case.map_err(|failure| {
            failure.hint("mend or remove the named file, then run the same command again")
        })?;
        writer.add(&case)?;
        cases.push(CaseMeasures::of(&case));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let left_out = source.notes.take_left_out();
    warn(source.notes.take())?;
    let Source { name, classes, levels, preparation, test_fold, .. } = source;
    let survey = Survey { name, classes, levels, preparation, test_fold, cases };
    let report = Report::new(&survey, left_out, &Purpose::default());
    if let Some(refusal) = report::refusal(&report) {
        say(format_args!("{}", report::coloured(&report::text(&report))))?;
        return Err(refusal.during(format!("`{}` is not written", path.display())));
    }
    let size_bytes = writer.finish()?;
    say(format_args!(
        "packed {} with {} into `{}` ({})\n",
        counted(report.cases, "case"),
        counted(report.slices as usize, "slice"),
        path.display(),
        HumanBytes(size_bytes)
    ))?;
    say(format_args!("{}", report::coloured(&report::text(&report))))?;
    Ok(Exit::Done)
}

/// Writes each sentence to stderr as a warning.
pub(super) fn warn(sentences: Vec<String>) -> Result<()> {
    for sentence in sentences {
        writeln!(anstream::stderr(), "warning: {sentence}").context(|| "cannot write to stderr")?;
    }
    Ok(())
}

/// Writes a line to stdout.
pub(super) fn say(line: std::fmt::Arguments<'_>) -> Result<()> {
    writeln!(anstream::stdout(), "{line}").context(|| "cannot write to stdout")
}
