//! `scrimp prepare pseudo-labels --with network`: the training images of a run, labelled by its network.
//!
//! The data set is that of the run, whatever it came from, so that images look as the network knows
//! them. Cases that the run held out, or that say nothing of themselves, stay as they are.

use super::packing::{bar, claim_free, pack};
use super::run::{self, Place};
use super::{chosen, narrate};
use crate::cli;
use crate::comm::environment::Variables;
use crate::comm::{self, Host};
use crate::config;
use crate::config::sampling::Sampling;
use crate::data::augment::Centred;
use crate::data::pseudo::NETWORK;
use crate::data::stream::by_image_label;
use crate::data::{Case, Dataset, IGNORE, IMAGE_LABEL};
use crate::error::{Context, Exit, Failure, Result};
use crate::methods;
use crate::pseudo_labels::lesion::SoftLesion;
use crate::runlog::directory::RunDirectory;
use crate::train::checkpoint::restore_chosen;
use crate::train::inference::{Inference, most_likely};
use std::path::Path;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Labels the training images of `run` as the arguments say; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::PseudoLabels, run: &Path) -> Result<Exit> {
    let (comm, variables) = run::connect()?;
    label(arguments, run, (&comm, &variables)).map_err(|failure| narrate::tell(failure, &*comm))
}

fn label(
    arguments: &cli::PseudoLabels,
    run: &Path,
    (comm, variables): (&Host, &Variables),
) -> Result<Exit> {
    if comm.ranks() > 1 {
        let message = format!("a network labels on one process, started on {} ranks", comm.ranks());
        let refusal = Failure::usage(message).hint("run it without mpirun");
        return comm::agree(&**comm, Err(refusal));
    }
    let to = claim_free(&arguments.to)?;
    let directory = RunDirectory::new(run);
    let plan = run::resolve(&config::read(&directory.config(), &[])?, 1)?;
    chosen::find(&directory, &arguments.checkpoint)?;
    let place = Place::take(&plan, &**comm, variables)?;
    let mut dataset = run::dataset(&plan)?;
    let comm = &place.join(comm)?;
    let method = run::method(&plan, &dataset, place.device, comm)?;
    let choose = || chosen::path(&directory, &arguments.checkpoint);
    let checkpoint = restore_chosen(&choose, &*method, comm)?;
    let (sampling, target) = (plan.data.sampling, run::target(&plan, place.device));
    let labeller = Labeller {
        inference: Inference {
            is_in_colour: dataset.is_in_colour(),
            ..Inference::new(vec![&*method], sampling, target)
        },
        refine: arguments.refine,
        alpha: arguments.alpha,
    };
    let with_healthy = by_image_label(methods::find(&plan.method)?.streams);
    let fold = plan.data.fold;
    let cases = &mut Arc::make_mut(&mut dataset).cases;
    let bar = bar("labelling", cases.len(), "cases")?;
    for case in cases {
        bar.inc(1);
        let is_held_out = fold > 0 && case.fold == fold;
        if is_held_out || (with_healthy && !case.annotations.contains_key(IMAGE_LABEL)) {
            continue;
        }
        let labels = labeller
            .labels(case)
            .map_err(|failure| failure.during(format!("cannot label case `{}`", case.name)))?;
        case.annotations.insert(NETWORK.to_owned(), labels);
    }
    bar.finish_and_clear();
    let mut dataset = Arc::unwrap_or_clone(dataset);
    let line = format!(
        "`{NETWORK}` predicted by `{}` at step {}.",
        run.display(),
        checkpoint.manifest.run.step
    );
    dataset.provenance = format!("{}\n{line}", dataset.provenance.trim_end());
    pack(Dataset::into(dataset), to)
}

/// Labels of `size` x `size` pixels on the grid of `rows` x `columns` that the network's input was made of:
/// each pixel gets the label of the nearest one, by where [`resized_slice`](crate::data::resized_slice) took it
/// from. Unlike the zoom that scores are computed after, it leaves no row or column over, which would be learnt
/// from as background.
fn enlarge(labels: &[u8], size: usize, [rows, columns]: [usize; 2], is_in_colour: bool) -> Vec<u8> {
    let nearest = |index: usize, extent: usize| {
        let place = if is_in_colour {
            // The edges of both grids lie on each other.
            (index as f64 + 0.5) * size as f64 / extent as f64
        } else {
            // The first and last pixels of both grids do.
            index as f64 * (size - 1) as f64 / (extent - 1).max(1) as f64 + 0.5
        };
        (place as usize).min(size - 1)
    };
    let columns: Vec<usize> = (0..columns).map(|column| nearest(column, columns)).collect();
    let row = |row: usize| {
        let start = nearest(row, rows) * size;
        columns.iter().map(move |column| labels[start + column])
    };
    (0..rows).flat_map(row).collect()
}

/// Labels of a slice of `shape`, unknown around the `size` x `size` pixels about its middle: nobody looked there.
fn seen_alone(labels: &[u8], shape: [usize; 2], size: usize) -> Vec<u8> {
    let seen = Centred::cut(labels, shape, [size; 2], IGNORE);
    Centred::cut(&seen, [size; 2], shape, IGNORE)
}

/// A trained network, and what becomes of its predictions.
struct Labeller<'a> {
    inference: Inference<'a>,
    refine: cli::Refinement,
    alpha: u32,
}

impl Labeller<'_> {
    /// The class of every pixel of a case; an image whose label says that it is healthy is background.
    fn labels(&self, case: &Case) -> Result<Vec<u8>> {
        let [slices, rows, columns] = case.scan.grid.shape;
        let is_healthy = |slice: usize| {
            let known = case.annotation_slice(IMAGE_LABEL, slice);
            known.and_then(|labels| labels.first()) == Some(&0)
        };
        let mut labels = Vec::with_capacity(slices * rows * columns);
        if (0..slices).all(is_healthy) {
            labels.resize(slices * rows * columns, 0);
            return Ok(labels);
        }
        self.inference.each_slab(&case.scan, &mut |slab| {
            for (slice, probabilities) in (slab.first..).zip(slab.probabilities.unbind(1)) {
                if is_healthy(slice) {
                    labels.resize(labels.len() + rows * columns, 0);
                    continue;
                }
                let found = self.slice(case, slice, &probabilities)?;
                match self.inference.sampling {
                    Sampling::Slices { size } => {
                        let is_in_colour = self.inference.is_in_colour;
                        labels.extend(enlarge(&found, size, [rows, columns], is_in_colour));
                    }
                    Sampling::Cropped { size } => {
                        labels.extend(seen_alone(&found, [rows, columns], size));
                    }
                    Sampling::Patches { .. } => labels.extend(found),
                }
            }
            Ok(())
        })?;
        Ok(labels)
    }

    /// The labels of one slice on the grid of predictions, given their probabilities `[classes, rows,
    /// columns]`.
    fn slice(&self, case: &Case, slice: usize, probabilities: &Tensor) -> Result<Vec<u8>> {
        if self.refine == cli::Refinement::None {
            return most_likely(probabilities);
        }
        let (classes, channels) = (probabilities.size()[0], case.scan.channels);
        if classes != 2 || !self.inference.is_in_colour {
            let message = format!(
                "`--refine dense-crf` takes a lesion in a colour image, found {classes} classes in \
                 {channels} channels"
            );
            return Err(Failure::usage(message).hint("leave `--refine` out"));
        }
        let mask = probabilities.get(1).contiguous().view([-1]);
        let mask: Vec<f32> = Vec::try_from(mask).context(|| "cannot fetch a prediction")?;
        let image = self.inference.image(&case.scan, slice..slice + 1);
        let colours = (image.get(0).permute([1, 2, 0]) * 255.0).round().to_kind(Kind::Uint8);
        let colours: Vec<u8> =
            Vec::try_from(colours.contiguous().view([-1])).context(|| "cannot read an image")?;
        let columns = probabilities.size()[2] as usize;
        let lesion = SoftLesion { columns, image: &colours, mask: &mask };
        Ok(lesion.crf_label(self.alpha)?.into_iter().map(u8::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::zoom_labels;

    #[test]
    fn no_size_invents_background_at_the_edge() {
        let mut differ = 0;
        for size in [16, 255, 256] {
            let structure = vec![1; size * size];
            for extent in 2..300 {
                for is_in_colour in [false, true] {
                    let labels = enlarge(&structure, size, [extent, 3], is_in_colour);
                    assert!(labels == vec![1; extent * 3], "{size} to {extent}");
                }
                let zoomed = zoom_labels(&structure, [size; 2], [extent, 3]);
                differ += usize::from(zoomed.contains(&0));
            }
        }
        assert!(differ > 0, "otherwise this tests nothing");
    }

    #[test]
    fn labels_come_from_where_the_input_was_taken() {
        // 5 of 9 grey columns: first, last and middle lie on each other.
        let grey = enlarge(&[0, 1, 2, 3, 4].repeat(5), 5, [1, 9], false);
        assert_eq!(grey, [0, 1, 1, 2, 2, 3, 3, 4, 4]);
        // In colour each pixel covers two.
        let colour = enlarge(&[0, 1, 2, 3].repeat(4), 4, [1, 8], true);
        assert_eq!(colour, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(enlarge(&[7; 4], 2, [1, 1], false), [7]);
    }
}
