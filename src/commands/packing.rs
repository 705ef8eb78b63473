//! What commands share that write a packed file: its name, a bar while it takes, and what is said of it.
//!
//! Does not know where cases come from.

use super::{print_json, report};
use crate::cli::PackedFile;
use crate::data::import::Source;
use crate::data::report::{CaseMeasures, Purpose, Report, Survey};
use crate::data::store::{self, Destination, Existing};
use crate::error::{Context, Exit, Result};
use crate::words::counted;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// A packed file that is to be written, and how it is told.
pub(super) struct Packing {
    to: Destination,
    is_json: bool,
    remark: Option<Remark>,
}

/// What is said of a packed file behind the report on it.
pub(super) struct Remark {
    /// For a person, one line.
    pub(super) words: String,
    /// Of the facts, among what a program gets.
    pub(super) key: &'static str,
    /// The same for a program.
    pub(super) facts: Value,
}

impl Packing {
    /// The same with something to say behind the report.
    pub(super) fn with(self, remark: Option<Remark>) -> Self {
        Self { remark, ..self }
    }
}

/// Takes a name that is free. What goes in is a packed file too, which the wrong way round would destroy.
pub(super) fn claim_free(to: &Path, is_json: bool) -> Result<Packing> {
    let to = Destination::claim(to, Existing::Refused)?;
    Ok(Packing { to, is_json, remark: None })
}

/// Takes the name of the file to write before anything is read, and says so where it replaces another.
pub(super) fn claim(packed: &PackedFile) -> Result<Packing> {
    let to = Destination::claim(&packed.to, Existing::Replaced)?;
    if to.replaces() {
        let path = packed.to.display();
        writeln!(anstream::stderr(), "`{path}` is a packed data set, and is replaced")
            .context(|| "cannot write to stderr")?;
    }
    Ok(Packing { to, is_json: packed.json, remark: None })
}

/// A bar for `count` things, drawn on stderr and only where that is a terminal.
pub(super) fn bar(doing: &str, count: usize, things: &str) -> Result<ProgressBar> {
    let template = format!("{doing} {{bar:30}} {{pos}}/{{len}} {things}, {{eta}} left");
    let style =
        ProgressStyle::with_template(&template).context(|| "cannot draw the progress bar")?;
    Ok(ProgressBar::new(count as u64).with_style(style))
}

/// Writes what `source` gives into a packed file, and says so, and what it holds. Refuses what cannot be trained on.
pub(super) fn pack(source: Source, packing: Packing) -> Result<Exit> {
    let bar = bar("packing", source.case_count, "cases")?;
    let Packing { to, is_json, remark } = packing;
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
    let Source { name, provenance, classes, levels, preparation, test_fold, .. } = source;
    let survey = Survey { name, classes, levels, preparation, test_fold, cases };
    let report = Report::new(&survey, left_out, &Purpose::default());
    let refusal = report::refusal(&report);
    let bytes = if refusal.is_some() { None } else { Some(writer.finish()?) };
    let packed = Packed { path: &path, bytes, provenance: &provenance, report: &report, remark };
    let told = if is_json { print_json(&packed.facts()) } else { packed.tell() };
    told?;
    refusal.map_or(Ok(Exit::Done), |refusal| {
        Err(refusal.during(format!("`{}` is not written", path.display())))
    })
}

/// What there is to tell of a packed file.
struct Packed<'a> {
    path: &'a Path,
    /// Its size; none where it was refused, and is not there.
    bytes: Option<u64>,
    provenance: &'a str,
    report: &'a Report,
    remark: Option<Remark>,
}

impl Packed<'_> {
    /// To a program.
    fn facts(&self) -> Value {
        let file = self.bytes.map(|_| self.path.display().to_string());
        let mut facts = json!({
            "file": file,
            "bytes": self.bytes,
            "provenance": self.provenance,
            "report": self.report,
        });
        if let Some(Remark { key, facts: remark, .. }) = &self.remark {
            facts[*key] = remark.clone();
        }
        facts
    }

    /// To a person.
    fn tell(&self) -> Result<()> {
        if let Some(bytes) = self.bytes {
            say(format_args!(
                "packed {} with {} into `{}` ({})\n",
                counted(self.report.cases, "case"),
                counted(self.report.slices as usize, "slice"),
                self.path.display(),
                HumanBytes(bytes)
            ))?;
        }
        say(format_args!("{}", report::coloured(&report::text(self.report))))?;
        match self.remark.as_ref().filter(|_| self.bytes.is_some()) {
            Some(remark) => say(format_args!("{}", remark.words)),
            None => Ok(()),
        }
    }
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
