//! Who of the ranks segments what: image by image, or where there are fewer images than ranks, all of them
//! together the windows of one after the other.
//!
//! Knows what a rank alone can fail in: that is told of its image, and the others go on.

use super::images::ImageFiles;
use super::memory;
use super::records::{self, MadeWith, Outcome, Outputs};
use super::results::Results;
use super::segment::{Segmenter, Spent};
use crate::comm::{Communicator, Ranks, agree};
use crate::commands::packing;
use crate::error::{Context, Failure, Result};
use crate::panics;
use crate::scan::Notes;
use crate::train::checkpoint::FileDigest;
use crate::train::inference::Inference;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// An image to segment, with what its header says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) image: ImageFiles,
    /// Slices, rows, columns, where the header can be read.
    pub(super) shape: Option<[usize; 3]>,
    pub(super) spacing_mm: Option<[f64; 3]>,
}

/// How far an image has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Ended {
    /// Nobody has segmented these files yet.
    Open(Vec<FileDigest>),
    Finished(Outcome),
    Failed {
        sentence: String,
        hints: Vec<String>,
    },
}

impl Ended {
    fn failed(image: &ImageFiles, failure: &Failure) -> Self {
        let sentence = format!("`{}`: {}", image.name, failure.sentence());
        Self::Failed { sentence, hints: failure.hints().to_vec() }
    }
}

/// What earlier calls have finished in the folder `to`, on every rank. Each looks at its share of the images.
pub(super) fn look(
    jobs: &[Job],
    to: &Path,
    made_with: &MadeWith,
    comm: &dyn Communicator,
) -> Result<Vec<Ended>> {
    let look = |job: &Job| {
        let input = records::inputs(&job.image)?;
        let finished = Outputs::of(to, &job.image, made_with).finished(&input, made_with)?;
        Ok(finished.map_or(Ended::Open(input), Ended::Finished))
    };
    let own = jobs.iter().enumerate().skip(comm.rank()).step_by(comm.ranks());
    let own = own.map(|(index, job)| {
        comm.note_progress();
        (index, look(job).unwrap_or_else(|failure| Ended::failed(&job.image, &failure)))
    });
    let own: Vec<(usize, Ended)> = own.collect();
    gathered(&own, comm).map(|all| all.into_iter().map(|(_, ended)| ended).collect())
}

/// What all ranks have of some images, in the order of these.
fn gathered(own: &[(usize, Ended)], comm: &dyn Communicator) -> Result<Vec<(usize, Ended)>> {
    let cannot = || "cannot tell the other ranks how images ended";
    let message = agree(comm, serde_json::to_vec(own).context(cannot))?;
    let messages = comm.gather(&message)?;
    let lists = messages.iter().map(|message| serde_json::from_slice(message).context(cannot));
    let lists = agree(comm, lists.collect::<Result<Vec<Vec<(usize, Ended)>>>>())?;
    let mut all = lists.concat();
    all.sort_by_key(|(index, _)| *index);
    Ok(all)
}

/// An image that is open.
struct OpenJob<'a> {
    index: usize,
    job: &'a Job,
    input: Vec<FileDigest>,
}

/// Segments what is open in `looked`; how each image ended, on every rank.
pub(super) fn segment(
    segmenter: &Segmenter<'_>,
    jobs: &[Job],
    mut looked: Vec<Ended>,
    to: &Path,
    ranks: &Ranks,
) -> Result<Vec<Ended>> {
    let open = jobs.iter().zip(&looked).enumerate().filter_map(|(index, (job, ended))| {
        let Ended::Open(input) = ended else { return None };
        Some(OpenJob { index, job, input: input.clone() })
    });
    let open: Vec<OpenJob<'_>> = open.collect();
    let together = ranks.ranks() > 1 && open.len() < ranks.ranks();
    let own = open.into_iter().enumerate();
    let own = own.filter(|(number, _)| together || number % ranks.ranks() == ranks.rank());
    let own: Vec<OpenJob<'_>> = own.map(|(_, open)| open).collect();
    let slices = own.iter().filter_map(|open| open.job.shape).map(|[slices, ..]| slices).sum();
    let bar = if ranks.rank() == 0 && slices > 0 {
        packing::bar("predicting", slices, "slices")?
    } else {
        ProgressBar::hidden()
    };
    let on_progress = || ranks.note_progress();
    let segmenter = Segmenter {
        inference: Inference {
            share: together.then_some(ranks),
            on_progress: Some(&on_progress),
            ..segmenter.inference.clone()
        },
        ..*segmenter
    };
    let worker = Worker { segmenter, to, bar, notes: Notes::default() };
    let mut ended = Vec::new();
    for open in own {
        let found = if together { worker.together(&open, ranks) } else { worker.alone(&open) };
        ended.push((open.index, found));
    }
    worker.bar.finish_and_clear();
    // Where all have worked on all, the first rank has written.
    let own = if together && ranks.rank() > 0 { Vec::new() } else { ended };
    for (index, found) in gathered(&own, &**ranks)? {
        looked[index] = found;
    }
    if ranks.rank() == 0 || !together {
        // Nobody reading them is no reason to fail.
        drop(packing::warn(worker.notes.take()));
    }
    Ok(looked)
}

/// What segments one image after the other.
struct Worker<'a> {
    segmenter: Segmenter<'a>,
    to: &'a Path,
    bar: ProgressBar,
    notes: Notes,
}

impl Worker<'_> {
    /// Segments an image on this rank.
    fn alone(&self, open: &OpenJob<'_>) -> Ended {
        let begun = Instant::now();
        memory::forget_peak();
        let outputs = Outputs::of(self.to, &open.job.image, self.segmenter.made_with);
        let ended = panics::caught(|| {
            outputs.clear()?;
            let opened = self.segmenter.open(&open.job.image, &self.notes)?;
            let on_slice = || self.bar.inc(1);
            let mut results =
                Results::begin(&self.segmenter, &opened, &open.job.image, &outputs, &on_slice)?;
            let spent = self.segmenter.predict(&opened, Some(&mut |slice| results.take(slice)))?;
            self.finish(open, results, &outputs, (begun, spent))
        });
        ended.unwrap_or_else(|failure| Ended::failed(&open.job.image, &failure))
    }

    /// Segments an image with all ranks; the first one writes. What one fails in, all fail in.
    fn together(&self, open: &OpenJob<'_>, ranks: &Ranks) -> Ended {
        let (begun, is_first) = (Instant::now(), ranks.rank() == 0);
        memory::forget_peak();
        let image = &open.job.image;
        let outputs = Outputs::of(self.to, image, self.segmenter.made_with);
        let on_slice = || self.bar.inc(1);
        let ready = panics::caught(|| {
            let opened = self.segmenter.open(image, &self.notes)?;
            if !is_first {
                return Ok((opened, None));
            }
            outputs.clear()?;
            let results = Results::begin(&self.segmenter, &opened, image, &outputs, &on_slice)?;
            Ok((opened, Some(results)))
        });
        let ended = agree(&**ranks, ready).and_then(|(opened, mut results)| {
            // What a rank alone fails in here keeps the others waiting: it ends them.
            let predicted = match &mut results {
                None => self.segmenter.predict(&opened, None),
                Some(results) => {
                    self.segmenter.predict(&opened, Some(&mut |slice| results.take(slice)))
                }
            };
            let spent = panics::unwound_if_alone(predicted)?;
            let written = panics::caught(|| {
                let finish = |results| self.finish(open, results, &outputs, (begun, spent));
                results.map(finish).transpose()
            });
            agree(&**ranks, written)
        });
        match ended {
            Ok(Some(ended)) => ended,
            Ok(None) => Ended::Open(Vec::new()),
            Err(failure) => Ended::failed(image, &failure),
        }
    }

    /// Writes what is left to be written, the record last, of an image that was begun then and has taken so long.
    fn finish(
        &self,
        open: &OpenJob<'_>,
        results: Results<'_>,
        outputs: &Outputs,
        (begun, spent): (Instant, Spent),
    ) -> Result<Ended> {
        let (like, predicted) = (&open.job.image.files[0], Instant::now());
        let structures = results.finish(&self.segmenter, &outputs.labels, like)?;
        let outcome = Outcome {
            structures,
            seconds: begun.elapsed().as_secs_f64(),
            inference_seconds: spent.inference.as_secs_f64(),
            export_seconds: (spent.export + predicted.elapsed()).as_secs_f64(),
            peak_memory_bytes: memory::peak_bytes(),
        };
        outputs.finish(open.input.clone(), self.segmenter.made_with, &outcome)?;
        Ok(Ended::Finished(outcome))
    }
}
