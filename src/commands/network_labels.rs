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
use crate::data::pseudo::NETWORK;
use crate::data::{Case, Dataset, IMAGE_LABEL};
use crate::error::{Context, Exit, Failure, Result};
use crate::methods;
use crate::pseudo_labels::lesion::SoftLesion;
use crate::runlog::directory::RunDirectory;
use crate::train::Method;
use crate::train::checkpoint::restore_chosen;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

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
    let labeller = Labeller {
        method: &*method,
        size: plan.data.size,
        target: (run::kind(&plan), place.device),
        refine: arguments.refine,
        alpha: arguments.alpha,
    };
    let with_healthy = methods::find(&plan.method)?.needs_healthy;
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
/// each pixel gets the label of the nearest one, by where [`Case::input_slice`] took it from. Unlike the
/// zoom that scores are computed after, it leaves no row or column over, which would be learnt from as
/// background.
fn enlarge(labels: &[u8], size: usize, [rows, columns]: [usize; 2], channels: usize) -> Vec<u8> {
    let nearest = |index: usize, extent: usize| {
        let place = if channels == 1 {
            // The first and last pixels of both grids lie on each other.
            index as f64 * (size - 1) as f64 / (extent - 1).max(1) as f64 + 0.5
        } else {
            // The edges of both grids do.
            (index as f64 + 0.5) * size as f64 / extent as f64
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

/// A trained network, and what becomes of its predictions.
struct Labeller<'a> {
    method: &'a dyn Method,
    /// Rows and columns of its input.
    size: usize,
    target: (Kind, Device),
    refine: cli::Refinement,
    alpha: u32,
}

impl Labeller<'_> {
    /// The class of every pixel of a case; an image whose label says that it is healthy is background.
    fn labels(&self, case: &Case) -> Result<Vec<u8>> {
        let [slices, rows, columns] = case.scan.grid.shape;
        let mut labels = Vec::with_capacity(slices * rows * columns);
        for slice in 0..slices {
            let known = case.annotation_slice(IMAGE_LABEL, slice);
            if known.and_then(|labels| labels.first()) == Some(&0) {
                labels.resize(labels.len() + rows * columns, 0);
                continue;
            }
            let found = self.slice(case, slice)?;
            labels.extend(enlarge(&found, self.size, [rows, columns], case.scan.channels));
        }
        Ok(labels)
    }

    /// The labels of one slice on the network's grid.
    fn slice(&self, case: &Case, slice: usize) -> Result<Vec<u8>> {
        let image = case.input_slice(slice, self.size);
        let extents = [1, case.scan.channels as i64, self.size as i64, self.size as i64];
        let (kind, device) = self.target;
        let input = Tensor::from_slice(&image).view(extents).to_kind(kind).to_device(device);
        let probabilities = self.method.predict(&input)?;
        let fetched = || "cannot fetch a prediction";
        if self.refine == cli::Refinement::None {
            let classes =
                probabilities.argmax(1, false).to_kind(Kind::Uint8).to_device(Device::Cpu);
            return Vec::try_from(classes.contiguous().view([-1])).context(fetched);
        }
        if probabilities.size()[1] != 2 || case.scan.channels != 3 {
            let message = format!(
                "`--refine dense-crf` takes a lesion in a colour image, found {} classes in {} channels",
                probabilities.size()[1],
                case.scan.channels
            );
            return Err(Failure::usage(message).hint("leave `--refine` out"));
        }
        let mask = probabilities.select(1, 1).to_kind(Kind::Float).to_device(Device::Cpu);
        let mask: Vec<f32> = Vec::try_from(mask.contiguous().view([-1])).context(fetched)?;
        let pixels = self.size * self.size;
        let levels = |value: f32| (value * 255.0).round() as u8;
        let image: Vec<u8> = (0..pixels)
            .flat_map(|pixel| (0..3).map(move |channel| channel * pixels + pixel))
            .map(|index| levels(image[index]))
            .collect();
        let lesion = SoftLesion { columns: self.size, image: &image, mask: &mask };
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
                for channels in [1, 3] {
                    let labels = enlarge(&structure, size, [extent, 3], channels);
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
        let grey = enlarge(&[0, 1, 2, 3, 4].repeat(5), 5, [1, 9], 1);
        assert_eq!(grey, [0, 1, 1, 2, 2, 3, 3, 4, 4]);
        // In colour each pixel covers two.
        let colour = enlarge(&[0, 1, 2, 3].repeat(4), 4, [1, 8], 3);
        assert_eq!(colour, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(enlarge(&[7; 4], 2, [1, 1], 1), [7]);
    }
}
