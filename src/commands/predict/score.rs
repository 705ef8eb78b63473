//! `scrimp evaluate RUN --images DIR --labels DIR`: what a run predicts of files is scored, image by image.
//!
//! Labels are those that `scrimp predict` writes, and are written nowhere. Knows no packed data: whether the run has
//! learnt from these images nobody can tell.

use super::images::{self, ImageFiles};
use super::members::Member;
use super::records::MadeWith;
use super::segment::Segmenter;
use crate::cli::{self, Convention};
use crate::comm::agree;
use crate::commands::evaluate_files::{self, Measure, Pair};
use crate::commands::narrate::together;
use crate::commands::run::connect;
use crate::commands::scoring::LabelledCase;
use crate::commands::table_file::TableFile;
use crate::config::DeviceChoice;
use crate::data::import::Classes;
use crate::error::{Exit, Failure, Result};
use crate::runlog::directory::RunDirectory;
use crate::scan::{Coding, Notes, read_grid};
use std::path::{Path, PathBuf};

/// Scores what a run, or a checkpoint, predicts of the files in `images` against those in `labels`, on one process.
pub(super) fn run(
    arguments: &cli::Evaluate,
    run: &Path,
    images: &Path,
    labels: &Path,
) -> Result<Exit> {
    let (host, variables) = connect()?;
    together(&*host, || {
        agree(&*host, evaluate_files::refuse_ranks(host.ranks()))?;
        let measure = agree(&*host, Measure::of(arguments))?;
        let member = Member::read(run, &arguments.checkpoint, arguments.modality.as_deref())?;
        let coding = coding(arguments, &member.classes)?;
        let found = found(&member, images, labels)?;
        let table = TableFile::claim(table(arguments, run)?)?;
        let place = member.place(DeviceChoice::Auto, &host, &variables)?;
        let ranks = place.join(&host)?;
        let methods = [member.restore(place, &ranks)?];
        let made_with = MadeWith::labels_alone(vec![member.identity()?]);
        let segmenter = Segmenter::new(&member, &methods, place.device, &made_with);
        let notes = Notes::default();
        let cases = found.iter().map(|(image, truth)| {
            let case = segmented(&segmenter, image, truth, &coding, &notes);
            case.map_err(|failure| failure.during(format!("cannot score `{}`", image.name)))
        });
        measure.write(Some(&member.classes), cases, &notes, table)
    })
}

/// The images, each with the file of its labels.
fn found(member: &Member, images: &Path, labels: &Path) -> Result<Vec<(ImageFiles, PathBuf)>> {
    let images = images::find(images, member.files_for_each())?;
    let first = |image: &ImageFiles| (image.name.clone(), image.files[0].clone());
    let pairs = evaluate_files::pairs("image", images.iter().map(first).collect(), labels)?;
    // Both are in the order of names.
    Ok(images.into_iter().zip(pairs).map(|(image, Pair { truth, .. })| (image, truth)).collect())
}

/// What the values of labels mean. Refuses other classes than `known`.
fn coding(arguments: &cli::Evaluate, known: &[String]) -> Result<Coding> {
    let Some(words) = &arguments.classes else {
        let names = known.iter().enumerate().map(|(class, name)| (name.clone(), class as u8));
        return Ok(Coding::classes(known.len()).or_named(names));
    };
    let classes = Classes::parse(words, "--classes")?;
    let found = classes.names();
    if found == known {
        return Ok(classes.coding());
    }
    let message = format!("`--classes` names {found:?}, expected {known:?} as the run has");
    Err(Failure::usage(message).hint("only values may differ from those of the run, in its order"))
}

/// Where the table goes. Refuses a checkpoint by itself, which has no place for it.
fn table(arguments: &cli::Evaluate, run: &Path) -> Result<PathBuf> {
    if let Some(to) = &arguments.to {
        return Ok(to.clone());
    }
    let directory = RunDirectory::new(run);
    if Member::is_checkpoint(run) {
        let message = format!("`{}` is a checkpoint, which keeps no scores", run.display());
        return Err(Failure::usage(message).hint("say where the table goes with `--to FILE`"));
    }
    let checkpoint = Path::new(&arguments.checkpoint).file_name().unwrap_or_default();
    let convention = match arguments.convention {
        Convention::Scribblebench => "-scribblebench",
        _ => "",
    };
    let name = format!("evaluate-files-{}{convention}.csv", checkpoint.to_string_lossy());
    Ok(directory.scores().join(name))
}

/// Segments an image, once its labels are known to lie on it.
fn segmented(
    segmenter: &Segmenter<'_>,
    image: &ImageFiles,
    truth: &Path,
    coding: &Coding,
    notes: &Notes,
) -> Result<LabelledCase> {
    let opened = segmenter.open(image, notes)?;
    // What is odd in the image is noted already.
    let file = read_grid(&image.files[0], &Notes::default())?;
    let truth = file.labels_at(truth, coding, notes).map_err(|failure| {
        if !failure.hints().is_empty() {
            return failure;
        }
        let classes = segmenter.classes.iter().enumerate();
        let classes: Vec<String> = classes.map(|(value, name)| format!("{value}={name}")).collect();
        failure.hint(format!(
            "labels need the numbers of the classes of the run, or those that `--classes` gives, as in `--classes '{}'`",
            classes.join(",")
        ))
    })?;
    let prediction = segmenter.labels(&opened)?;
    let name = image.name.clone();
    Ok(LabelledCase { name, grid: truth.grid, prediction, truth: truth.values })
}
