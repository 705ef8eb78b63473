//! `scrimp prepare`: from a source of cases to the one packed file, with a bar while it takes.
//!
//! Knows how to talk about it; reading, scaling and packing stand in `data`.

use super::annotate;
use crate::cli;
use crate::data::import::{
    Source, acdc, brats, label_transfer, lesion_phantom, mscmr, nifti, phantom,
};
use crate::data::store::{self, Destination, Existing};
use crate::data::tally::Tally;
use crate::error::{Context, Exit, Result};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::Path;

/// Packs the data set that the command line names, and says on stdout what was written.
pub(super) fn run(prepare: &cli::Prepare) -> Result<Exit> {
    match prepare {
        cli::Prepare::Acdc { from, to } => {
            let to = claim(to)?;
            pack(acdc::open(from)?, to)
        }
        cli::Prepare::Mscmr { from, to } => {
            let to = claim(to)?;
            let exit = pack(mscmr::open(from)?, to)?;
            let left_out = mscmr::left_out(from);
            if left_out > 0 {
                let what =
                    "label volumes of `TestSet` are no cases; `data.shapes.path` can name them";
                say(format_args!("the {left_out} {what}"))?;
            }
            Ok(exit)
        }
        cli::Prepare::Nifti(arguments) => pack_nifti(arguments),
        cli::Prepare::Phantom { cases, slices, size, difficulty, seed, to } => {
            let phantom = phantom::Phantom {
                cases: *cases,
                slices: *slices,
                size: *size,
                difficulty: match difficulty {
                    cli::Difficulty::Easy => phantom::Difficulty::Easy,
                    cli::Difficulty::Hard => phantom::Difficulty::Hard,
                },
                seed: *seed,
            };
            let to = claim(to)?;
            pack(phantom::open(phantom)?, to)
        }
        cli::Prepare::LabelTransfer(arguments) => pack_label_transfer(arguments),
        cli::Prepare::Brats(arguments) => pack_brats(arguments),
        cli::Prepare::LesionPhantom(arguments) => pack_lesion_phantom(arguments),
        cli::Prepare::PseudoLabels(arguments) => annotate::pseudo_labels(arguments),
        cli::Prepare::Scribbles(arguments) => annotate::scribbles(arguments),
    }
}

fn pack_nifti(arguments: &cli::Nifti) -> Result<Exit> {
    let to = claim(&arguments.to)?;
    let source = nifti::open(&nifti::Folders {
        images: arguments.images.clone(),
        scribbles: arguments.scribbles.clone(),
        dense: arguments.dense.clone(),
        classes: arguments.classes.clone(),
        dense_classes: arguments.dense_classes.clone(),
        unlabelled: arguments.ignore,
        patients: arguments.patients.clone(),
    })?;
    pack(source, to)
}

fn pack_label_transfer(arguments: &cli::LabelTransfer) -> Result<Exit> {
    let to = claim(&arguments.to)?;
    let (source, warnings) = label_transfer::open(&label_transfer::Package {
        folder: arguments.from.clone(),
        size: arguments.size,
        test_only: arguments.test_only,
    })?;
    warn(warnings)?;
    pack(source, to)
}

fn pack_brats(arguments: &cli::Brats) -> Result<Exit> {
    let to = claim(&arguments.to)?;
    let source = brats::open(&brats::Volumes {
        folder: arguments.from.clone(),
        size: arguments.size,
        min_lesion: arguments.min_lesion,
        every: arguments.every,
        depth_percent: [arguments.depth_from, arguments.depth_to],
        held_out_shares: [arguments.val_share, arguments.test_share],
        seed: arguments.seed,
    })?;
    pack(source, to)
}

fn pack_lesion_phantom(arguments: &cli::LesionPhantom) -> Result<Exit> {
    let to = claim(&arguments.to)?;
    let source = lesion_phantom::open(lesion_phantom::LesionPhantom {
        cases: arguments.cases,
        healthy: arguments.healthy,
        validation: arguments.validation,
        test: arguments.test,
        size: arguments.size,
        seed: arguments.seed,
    })?;
    pack(source, to)
}

/// Takes the name of the file to write before anything is read, and says so where it replaces another.
fn claim(to: &Path) -> Result<Destination> {
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

/// Writes what `source` gives into a packed file, and says so.
pub(super) fn pack(source: Source, to: Destination) -> Result<Exit> {
    let bar = bar("packing", source.case_count, "cases")?;
    let path = to.path().to_owned();
    let about = store::About {
        name: &source.name,
        provenance: &source.provenance,
        classes: &source.classes,
        preparation: source.preparation.as_ref(),
    };
    let mut writer = store::Writer::create(to, about)?;
    let (mut case_count, mut slice_count) = (0, 0);
    let mut tally = Tally::default();
    for case in source.cases {
        let case = case.map_err(|failure| {
            failure.hint("mend or remove the named file, then run the same command again")
        })?;
        writer.add(&case)?;
        tally.add(&case);
        case_count += 1;
        slice_count += case.scan.grid.shape[0];
        bar.inc(1);
    }
    bar.finish_and_clear();
    warn(source.notes.take())?;
    tally.check(&source.classes)?;
    warn(tally.warnings(&source.classes))?;
    let size_bytes = writer.finish()?;
    say(format_args!(
        "packed {case_count} cases with {slice_count} slices into `{}` ({})",
        path.display(),
        HumanBytes(size_bytes)
    ))?;
    say(format_args!("{}", tally.table(&source.classes)))?;
    Ok(Exit::Done)
}

fn warn(sentences: Vec<String>) -> Result<()> {
    for sentence in sentences {
        writeln!(anstream::stderr(), "warning: {sentence}").context(|| "cannot write to stderr")?;
    }
    Ok(())
}

fn say(line: std::fmt::Arguments<'_>) -> Result<()> {
    writeln!(anstream::stdout(), "{line}").context(|| "cannot write to stdout")
}
