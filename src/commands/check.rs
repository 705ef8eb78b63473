//! `scrimp prepare check`: what a packed file holds, and whether it can be trained on.
//!
//! Reads one case at a time, and writes nothing.

use super::{print, print_json, report};
use crate::cli;
use crate::data::Dataset;
use crate::data::report::{CaseMeasures, Purpose, Report, Survey};
use crate::data::store;
use crate::error::{Exit, Result};

/// Prints the report. Fails where the file cannot be trained on as the arguments say.
pub(super) fn run(arguments: &cli::CheckPacked) -> Result<Exit> {
    let mut cases = Vec::new();
    let mut measure = |case| cases.push(CaseMeasures::of(&case));
    let about = store::each_case(&arguments.file, &mut measure)?;
    let Dataset { name, classes, levels, preparation, test_fold, .. } = about;
    let survey = Survey { name, classes, levels, preparation, test_fold, cases };
    let (fold, annotation) = (arguments.fold.unwrap_or(0), arguments.annotation.clone());
    let report = Report::new(&survey, Vec::new(), &Purpose { fold, annotation });
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&format!("{}\n", report::coloured(&report::text(&report))))?;
    }
    report::refusal(&report).map_or(Ok(Exit::Done), |refusal| {
        Err(refusal.during(format!("`{}` cannot be trained on", arguments.file.display())))
    })
}
