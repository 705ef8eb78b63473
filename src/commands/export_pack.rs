//! `scrimp export --to nnunet`: a packed data set as a raw folder of nnU-Net.
//!
//! Knows how to talk about it; what nnU-Net reads stands in `data`.

use super::packing::{bar, say, warn};
use super::print_json;
use crate::cli::Export;
use crate::data::nnunet::RawFolderPlan;
use crate::data::store;
use crate::error::{Context, Exit, Failure, Result};
use crate::files::FreshFolder;
use std::path::Path;

/// Runs `scrimp export --to nnunet`.
pub(super) fn run(arguments: &Export) -> Result<Exit> {
    // The command line lets nothing through without it.
    let into = arguments.into.as_deref().unwrap_or(Path::new(""));
    let number = number(into)?;
    let folder = claim(into)?;
    if arguments.from.is_dir() {
        let message =
            format!("`{}` is a folder, expected a packed data set", arguments.from.display());
        return Err(Failure::usage(message).hint(
            "`--to nnunet` takes what `scrimp prepare` writes; runs become `csv` or `tensorboard`",
        ));
    }
    let dataset = store::read(&arguments.from)?;
    let plan = RawFolderPlan::of(&dataset, arguments.annotation.as_deref())?;
    let bar = bar("writing", plan.case_count(), "cases")?;
    plan.write(folder.partial(), &|| bar.inc(1))?;
    bar.finish_and_clear();
    let has_table = folder.partial().join("cases.csv").exists();
    folder.take_place_durably().context(|| cannot_write(into))?;
    warn(plan.notes().take())?;
    if arguments.json {
        print_json(&serde_json::json!({ "folder": into, "cases": plan.case_count() }))?;
        return Ok(Exit::Done);
    }
    let into = into.display();
    say(format_args!("wrote `{into}`: {}", plan.words()))?;
    if has_table {
        say(format_args!("`prepare nnunet --cases {into}/cases.csv` knows whose they are"))?;
    }
    say(format_args!(
        "look at it with `nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity`"
    ))?;
    Ok(Exit::Done)
}

/// The three digits of `DatasetNNN_NAME`. Refuses other names, which nnU-Net would not find.
fn number(into: &Path) -> Result<&str> {
    let name = into.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = name.strip_prefix("Dataset").and_then(|rest| rest.split_once('_'));
    let is_number =
        |digits: &str| digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
    match number {
        Some((digits, rest)) if is_number(digits) && !rest.is_empty() => Ok(digits),
        _ => Err(Failure::usage(format!(
            "`--into {}` does not end in `DatasetNNN_NAME`, with three digits, by which nnU-Net knows its data sets",
            into.display()
        ))
        .hint("give for example `--into nnUNet_raw/Dataset501_HEART`")),
    }
}

/// A folder that gets this name when everything is in it. Refuses a name that is taken.
fn claim(into: &Path) -> Result<FreshFolder> {
    if into.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("`{}` exists already", into.display()))
            .hint("give another name with `--into`, or remove it first"));
    }
    if let Some(parent) = into.parent() {
        std::fs::create_dir_all(parent).context(|| cannot_write(into))?;
    }
    FreshFolder::beside(into).context(|| cannot_write(into))
}

fn cannot_write(into: &Path) -> String {
    format!("cannot write `{}`", into.display())
}
