//! `scrimp predict`: segments images that nobody has annotated, with what was trained.
//!
//! Images are shared out over the ranks, and where there are fewer of them than ranks, the windows of each.
//! An image that cannot be segmented does not keep the others from being so: it is told in the end.

mod bound;
mod images;
mod members;
mod memory;
mod records;
mod results;
mod score;
mod segment;
mod share;
mod summary;
mod turned_back;

use crate::cli::{self, PredictDevice, Touching};
use crate::comm::{Host, Ranks, agree, from_first_rank};
use crate::commands::narrate::together;
use crate::commands::run::connect;
use crate::commands::{print, print_json, say};
use crate::config::DeviceChoice;
use crate::error::{Exit, Failure, Result};
use crate::launchers::Variables;
use crate::panics;
use crate::scan::{Grid, Notes, read_grid};
use crate::train::Method;
use crate::train::inference::SLICES_AT_ONCE;
use crate::words::counted;
use images::ImageFiles;
use indicatif::HumanBytes;
use members::Member;
use records::{MadeWith, Outputs};
use segment::Segmenter;
use serde::Serialize;
use share::{Ended, Job};
use std::path::{Path, PathBuf};
use summary::Summary;

/// Predicts as the arguments say; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::Predict) -> Result<Exit> {
    let (host, variables) = connect()?;
    together(&*host, || predict(arguments, &host, &variables))?;
    Ok(Exit::Done)
}

/// Scores what a run predicts of the files in `images` against those in `labels`, for `scrimp evaluate`.
pub(super) fn score(
    arguments: &cli::Evaluate,
    run: &Path,
    images: &Path,
    labels: &Path,
) -> Result<Exit> {
    score::run(arguments, run, images, labels)
}

/// What predicting the images at `images` with a run takes in memory at the most, in words, for `scrimp doctor`.
pub(super) fn memory_bound(run: &Path, images: &Path) -> Result<String> {
    bound::of(run, images)
}

fn predict(arguments: &cli::Predict, host: &Host, variables: &Variables) -> Result<()> {
    let members =
        Member::read_all(&arguments.runs, &arguments.checkpoint, arguments.modality.as_deref());
    let members = agree(&**host, members)?;
    let made_with = agree(&**host, made_with(arguments, &members))?;
    let mut summary = None;
    let jobs = from_first_rank(&**host, || {
        let (jobs, claimed) = claim(arguments, &members[0], &made_with)?;
        summary = Some(claimed);
        Ok(jobs)
    })?;
    let place = members[0].place(device(arguments), host, variables);
    let hint = "here a device is chosen with `--device auto|cpu|cuda`";
    let place = place.map_err(|failure| failure.hint(hint))?;
    let ranks = place.join(host)?;
    let ended = panics::caught(|| {
        let methods: Vec<Box<dyn Method>> =
            members.iter().map(|member| member.restore(place, &ranks)).collect::<Result<_>>()?;
        let segmenter = Segmenter::new(&members[0], &methods, place.device, &made_with);
        segment_all(segmenter, &jobs, arguments, &ranks)
    });
    let ended = panics::unwound_if_alone(ended.map_err(hinted))?;
    let told = summary.map_or(Ok(()), |summary| tell(summary, &jobs, ended, arguments.json));
    agree(&**host, told)
}

fn hinted(failure: Failure) -> Failure {
    if failure.is_out_of_memory() {
        return failure.hint("run it where there is more memory, or on fewer ranks of a node");
    }
    failure
}

/// What results depend on beside images.
fn made_with(arguments: &cli::Predict, members: &[Member]) -> Result<MadeWith> {
    Ok(MadeWith {
        members: members.iter().map(Member::identity).collect::<Result<_>>()?,
        modality: arguments.modality.clone(),
        mirrors: arguments.mirrors,
        overlap: arguments.overlap,
        probabilities: arguments.probabilities,
        uncertainty: arguments.uncertainty,
        keep_largest: arguments.keep_largest.map(|touching| match touching {
            Touching::Corners => 26,
            Touching::Faces => 6,
        }),
    })
}

/// The images to segment, with the files that each will get, which are this call's from here on.
fn claim(
    arguments: &cli::Predict,
    member: &Member,
    made_with: &MadeWith,
) -> Result<(Vec<Job>, Summary)> {
    let mut images = images::find(&arguments.images, member.files_for_each())?;
    if let Some(format) = arguments.format {
        for image in &mut images {
            format.ending().clone_into(&mut image.ending);
        }
    }
    let with_outputs = images
        .iter()
        .map(|image| (image, Outputs::of(&arguments.to, image, made_with)))
        .collect::<Vec<_>>();
    let summary = Summary::claim(&arguments.to, &member.classes[1..], &with_outputs)?;
    Ok((images.into_iter().map(job).collect(), summary))
}

/// The job of segmenting an image.
fn job(image: ImageFiles) -> Job {
    let grid = read_grid(&image.files[0], &Notes::default()).map(|file| file.grid);
    // What cannot be read is told when its turn comes.
    Job {
        shape: grid.as_ref().ok().map(|grid| grid.shape),
        spacing_mm: grid.ok().and_then(|grid| grid.spacing_mm),
        image,
    }
}

fn device(arguments: &cli::Predict) -> DeviceChoice {
    match arguments.device {
        PredictDevice::Auto => DeviceChoice::Auto,
        PredictDevice::Cpu => DeviceChoice::Cpu,
        PredictDevice::Cuda => DeviceChoice::Cuda,
    }
}

/// Segments all images that are not finished; how each ended, on every rank.
fn segment_all<'a>(
    mut segmenter: Segmenter<'a>,
    jobs: &[Job],
    arguments: &cli::Predict,
    ranks: &'a Ranks,
) -> Result<Vec<Ended>> {
    // The most that can come: whether they share each image depends on what is finished.
    segmenter.inference.share = (ranks.ranks() > 1).then_some(ranks);
    let needed = fit(&mut segmenter, jobs, arguments.memory);
    let needed = agree(&**ranks, needed)?;
    // Ranks that share an image cut it alike.
    let slices = -ranks.max(-(segmenter.inference.slices_at_once as i64))?;
    segmenter.inference.slices_at_once = slices as usize;
    let looked = share::look(jobs, &arguments.to, segmenter.made_with, &**ranks)?;
    if ranks.rank() == 0 {
        let finished = looked.iter().filter(|ended| matches!(ended, Ended::Finished(_))).count();
        let before =
            if finished > 0 { format!(", {finished} finished before") } else { String::new() };
        say(format_args!("{}{before}; {needed}", counted(jobs.len(), "image")));
    }
    share::segment(&segmenter, jobs, looked, &arguments.to, ranks)
}

/// Says what the largest image takes. Within `most_bytes` as many slices go through the networks together as fit, up to
/// those that do so without a limit; refuses an image that takes more in any case.
fn fit(segmenter: &mut Segmenter<'_>, jobs: &[Job], most_bytes: Option<u64>) -> Result<String> {
    let channels = segmenter.preparation.channels.len();
    let most = most_bytes.unwrap_or(u64::MAX);
    let is_fixed = most_bytes.is_none() || segmenter.inference.sampling.dims() == 3;
    if !is_fixed {
        segmenter.inference.slices_at_once = 1;
    }
    let program = memory::resident_bytes();
    loop {
        let networks = memory::with_networks(&segmenter.inference, channels)?;
        let Some((of_image, job)) = largest(segmenter, jobs) else {
            return Ok("what they take is not known".to_owned());
        };
        let bytes = networks + of_image;
        let [slices, rows, columns] = job.shape.unwrap_or_default();
        let takes = format!(
            "`{}` of {slices} x {rows} x {columns} voxels takes about {}",
            job.image.name,
            HumanBytes(bytes)
        );
        if bytes > most {
            let message = format!("{takes}, more than the {} of `--memory`", HumanBytes(most));
            return Err(Failure::usage(message)
                .hint("allow more, leave that image out, or start fewer processes on a machine"));
        }
        let slices = segmenter.inference.slices_at_once;
        if is_fixed || slices >= SLICES_AT_ONCE {
            return Ok(takes);
        }
        segmenter.inference.slices_at_once = 2 * slices;
        let of_image = largest(segmenter, jobs).map_or(of_image, |(bytes, _)| bytes);
        // Computed before it is measured: what that takes is never given back.
        if 2 * networks - program.min(networks) + of_image > most {
            segmenter.inference.slices_at_once = slices;
            return Ok(takes);
        }
    }
}

/// The image that takes most beside networks and program, of those whose headers can be read, with what it takes.
fn largest<'j>(segmenter: &Segmenter<'_>, jobs: &'j [Job]) -> Option<(u64, &'j Job)> {
    let of = |job: &Job| {
        let grid = Grid::unplaced(job.shape?, job.spacing_mm);
        Some(memory::held(memory::of_image(&grid, segmenter)))
    };
    jobs.iter().filter_map(|job| Some((of(job)?, job))).max_by_key(|(bytes, _)| *bytes)
}

/// How it went, as JSON: the images of this call, and all that lies in the folder.
#[derive(Serialize)]
struct Told<'a> {
    images: usize,
    segmented: usize,
    failed: usize,
    table: PathBuf,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Writes the summary, and says how it went.
fn tell(mut summary: Summary, jobs: &[Job], ended: Vec<Ended>, is_json: bool) -> Result<()> {
    let (mut problems, mut hints) = (Vec::new(), Vec::new());
    for (job, ended) in jobs.iter().zip(ended) {
        let outcome = match ended {
            Ended::Finished(outcome) => Ok(outcome),
            Ended::Failed { sentence, hints: of_it } => {
                problems.push(sentence.clone());
                hints.extend(of_it);
                Err(sentence)
            }
            Ended::Open(_) => Err("nobody segmented it".to_owned()),
        };
        summary.put(&job.image.name, outcome);
    }
    summary.write()?;
    let done = jobs.len() - problems.len();
    let table = summary.table();
    if is_json {
        let failed = problems.len();
        print_json(&Told {
            images: jobs.len(),
            segmented: done,
            failed,
            table,
            summary: &summary,
        })?;
    } else {
        print(&format!(
            "segmented {}, volumes in `{}`\n",
            counted(done, "image"),
            table.display()
        ))?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    let message = match jobs.len() {
        1 => "the image could not be segmented".to_owned(),
        all => format!("{} of {all} images could not be segmented", problems.len()),
    };
    let failure = Failure::new(message);
    let failure = problems.iter().fold(failure, |failure, problem| failure.because_of(problem));
    hints.sort();
    hints.dedup();
    let failure = hints.into_iter().fold(failure, Failure::hint);
    Err(failure.hint("run the same command again for these: what is finished stays"))
}
