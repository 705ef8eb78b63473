//! `scrimp prepare pseudo-labels --with network`: the training images of a run, labelled by its network, or by those
//! of several runs together.
//!
//! The data set is that of the first run, whatever it came from, so that images look as the networks know
//! them. Cases that the run did not learn from stay as they are: held out, there to be scored, or without a label.

use super::origin::learnt_cases;
use super::packing::{Remark, bar, claim_free, pack};
use super::run::{self, Place};
use super::{chosen, narrate};
use crate::cli;
use crate::comm::{self, Host};
use crate::config;
use crate::config::plan::RunPlan;
use crate::config::sampling::Sampling;
use crate::data::augment::Centred;
use crate::data::pseudo::{EXPANDED, NETWORK};
use crate::data::{Case, DENSE, Dataset, IGNORE, IMAGE_LABEL};
use crate::error::{Context, Exit, Failure, Result};
use crate::launchers::Variables;
use crate::pseudo_labels::expansion::{Added, Form, Within};
use crate::pseudo_labels::lesion::SoftLesion;
use crate::runlog::directory::RunDirectory;
use crate::train::checkpoint::restore_chosen;
use crate::train::inference::{Answering, Inference, most_likely};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Labels the training images of the first run as the arguments say; every rank of a launcher calls this.
pub(super) fn run(arguments: &cli::PseudoLabels) -> Result<Exit> {
    let (comm, variables) = run::connect()?;
    label(arguments, (&comm, &variables)).map_err(|failure| narrate::tell(failure, &*comm))
}

fn label(arguments: &cli::PseudoLabels, (comm, variables): (&Host, &Variables)) -> Result<Exit> {
    if comm.ranks() > 1 {
        let message = format!("a network labels on one process, started on {} ranks", comm.ranks());
        let refusal = Failure::usage(message).hint("run it without mpirun");
        return comm::agree(&**comm, Err(refusal));
    }
    let to = claim_free(&arguments.to, arguments.json)?;
    let plans = plans(arguments)?;
    let Some(plan) = plans.first() else {
        return Err(Failure::usage("no run is named whose network labels").hint("add `--run RUN`"));
    };
    let place = Place::take(plan, &**comm, variables)?;
    let (device, mut dataset) = (place.device, run::dataset(plan)?);
    let comm = &place.join(comm)?;
    let (mut methods, mut steps) = (Vec::new(), Vec::new());
    for (run, plan) in arguments.runs.iter().zip(&plans) {
        let method = run::method(plan, &dataset, device, comm)?;
        let choose = || chosen::path(&RunDirectory::new(run), &arguments.checkpoint);
        let checkpoint = restore_chosen(&choose, &*method, comm)?;
        methods.push(method);
        steps.push(format!("`{}` at step {}", run.display(), checkpoint.manifest.run.step));
    }
    let expansion = Expansion::of(arguments);
    let vote =
        |found: &Tensor| expansion.map_or_else(|| Ok(found.shallow_clone()), |e| e.vote(found));
    let members = methods.iter().map(|method| &**method).collect();
    let labeller = Labeller {
        inference: Inference {
            is_in_colour: dataset.is_in_colour(),
            mirrors: arguments.mirrors,
            answering: if expansion.is_some() { Answering::EveryDecoder } else { Answering::Main },
            beside: expansion.is_some().then_some(&vote),
            ..Inference::new(members, plan.data.sampling, run::target(plan, device))
        },
        refine: arguments.refine,
        alpha: arguments.alpha,
        expansion,
    };
    let learnt = learnt_cases(plan, &dataset, plan.data.fold)?;
    let added = labeller.add((plan, &learnt), &mut Arc::make_mut(&mut dataset).cases)?;
    let mut dataset = Arc::unwrap_or_clone(dataset);
    let line = format!("`{}` predicted by {}.", labeller.kind(), steps.join(", "));
    dataset.provenance = format!("{}\n{line}", dataset.provenance.trim_end());
    let remark = expansion.map(|_| remark(&added, &plan.data.annotation));
    pack(Dataset::into(dataset), to.with(remark))
}

/// The plans of all runs. Refuses networks that do not see the same of a scan.
fn plans(arguments: &cli::PseudoLabels) -> Result<Vec<RunPlan>> {
    if arguments.runs.len() > 1 && !matches!(&*arguments.checkpoint, "last" | "best") {
        let message = format!("`--checkpoint` names one for {} runs", arguments.runs.len());
        return Err(Failure::usage(message).hint("use `--checkpoint best` or `--checkpoint last`"));
    }
    let plan = |run: &PathBuf| {
        let directory = RunDirectory::new(run);
        let plan = run::resolve(&config::read(&directory.config(), &[])?, 1)?;
        chosen::find(&directory, &arguments.checkpoint)?;
        Ok(plan)
    };
    let plans = arguments.runs.iter().map(plan).collect::<Result<Vec<RunPlan>>>()?;
    for (run, other) in arguments.runs.iter().zip(&plans).skip(1) {
        let (own, others) = (&plans[0].data, &other.data);
        if own.sampling != others.sampling || own.colour != others.colour {
            let message = format!(
                "`{}` and `{}` cannot label together: they see {} of {} and {} of {}",
                arguments.runs[0].display(),
                run.display(),
                own.sampling.items(),
                own.sampling,
                others.sampling.items(),
                others.sampling
            );
            return Err(Failure::usage(message).hint("label with one of them"));
        }
    }
    Ok(plans)
}

/// How annotation is expanded.
#[derive(Debug, Clone, Copy)]
struct Expansion {
    /// Of the largest entropy; below it a window says that it is sure.
    share: f32,
    form: Form,
}

impl Expansion {
    fn of(arguments: &cli::PseudoLabels) -> Option<Self> {
        let form = match arguments.unsure {
            cli::Unsure::Unlabelled => Form::Unlabelled,
            cli::Unsure::Background => Form::Background,
        };
        arguments.uncertainty.map(|share| Self { share, form })
    }

    /// 1 where windows are sure and 0 elsewhere, `[N, 1, ...]`, by their probabilities `[N, classes, ...]`.
    fn vote(self, probabilities: &Tensor) -> Result<Tensor> {
        let by_class = probabilities.transpose(0, 1).to_kind(Kind::Float).to_device(Device::Cpu);
        let by_class = Vec::<f32>::try_from(by_class.contiguous().view([-1]))
            .context(|| "cannot fetch a prediction")?;
        let mut extents = probabilities.size();
        let uncertainty = self.form.uncertainty(&by_class, extents[1] as usize);
        extents[1] = 1;
        let is_sure = |&entropy: &f32| if entropy < self.share { 1.0f32 } else { 0.0 };
        let votes: Vec<f32> = uncertainty.iter().map(is_sure).collect();
        let votes = Tensor::from_slice(&votes).view(extents.as_slice());
        Ok(votes.to_kind(probabilities.kind()).to_device(probabilities.device()))
    }
}

/// What an expansion has added to what was `drawn`.
fn remark(added: &Added, drawn: &str) -> Remark {
    let Added { voxels, labelled, known, correct } = *added;
    let percent = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
    let added_share = percent(labelled, voxels);
    let share = percent(correct, known);
    let as_known = match known {
        0 => String::new(),
        _ => format!("; {share:.2} % of the {known} known ones as in `{DENSE}`"),
    };
    let words = format!(
        "`{EXPANDED}` labels {labelled} voxels that `{drawn}` leaves open, {added_share:.2} % of all{as_known}"
    );
    let facts = json!({
        "voxels": voxels,
        "labelled_voxels": labelled,
        "known_voxels": known,
        "correct_voxels": correct,
    });
    Remark { words, key: "expansion", facts }
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

/// Turns classes that nobody looked for in a case into background, which holds them in all of its annotations: what
/// networks say of them is nothing that somebody has seen.
fn unseen_as_background(labels: &mut [u8], case: &Case) {
    let unseen = |&label: &u8| label != IGNORE && !case.is_looked_for(label);
    labels.iter_mut().filter(|label| unseen(label)).for_each(|label| *label = 0);
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
    expansion: Option<Expansion>,
}

impl Labeller<'_> {
    /// What its annotation is called.
    fn kind(&self) -> &'static str {
        if self.expansion.is_some() { EXPANDED } else { NETWORK }
    }

    /// Adds its annotation to the cases that the plan learns from; what that says beside the plan's own annotation.
    fn add(
        &self,
        (plan, learnt): (&RunPlan, &BTreeSet<usize>),
        cases: &mut [Case],
    ) -> Result<Added> {
        let mut added = Added::default();
        let bar = bar("labelling", learnt.len(), "cases")?;
        let cases = cases.iter_mut().enumerate();
        for (_, case) in cases.filter(|(index, _)| learnt.contains(index)) {
            bar.inc(1);
            let labels = match self.expansion {
                Some(expansion) => self.expanded(case, expansion.form),
                None => self.labels(case),
            };
            let mut labels = labels
                .map_err(|failure| failure.during(format!("cannot label case `{}`", case.name)))?;
            unseen_as_background(&mut labels, case);
            let known = |kind: &str| case.annotations.get(kind).map(Vec::as_slice);
            added.count(&labels, known(&plan.data.annotation), known(DENSE));
            case.annotations.insert(self.kind().to_owned(), labels);
        }
        bar.finish_and_clear();
        Ok(added)
    }

    /// What networks are sure of in a case, of each class the largest part: of each slice where they see slices.
    fn expanded(&self, case: &Case, form: Form) -> Result<Vec<u8>> {
        let shape @ [_, rows, columns] = case.scan.grid.shape;
        let (mut labels, mut is_sure) = (Vec::new(), Vec::new());
        self.inference.each_slab(&case.scan, &mut |slab| {
            for found in slab.probabilities.unbind(1) {
                let classes = found.size()[0] - 1;
                let slice = most_likely(&found.narrow(0, 0, classes))?;
                labels.extend(self.on_scan(slice, [rows, columns]));
                // Over half of the windows that see a pixel.
                let votes = found.get(classes).gt(0.5).to_kind(Kind::Uint8).contiguous().view([-1]);
                let votes: Vec<u8> =
                    Vec::try_from(votes).context(|| "cannot fetch a prediction")?;
                is_sure.extend(self.on_scan(votes, [rows, columns]).iter().map(|&vote| vote == 1));
            }
            Ok(())
        })?;
        let is_deep = self.inference.sampling.extent()[0] > 1;
        let within = if is_deep { Within::Volume } else { Within::Slices };
        Ok(form.expanded(&labels, &is_sure, shape, within))
    }

    /// Labels on the grid of predictions on that of a scan with so many rows and columns.
    fn on_scan(&self, labels: Vec<u8>, extent: [usize; 2]) -> Vec<u8> {
        match self.inference.sampling {
            Sampling::Slices { size } => {
                enlarge(&labels, size, extent, self.inference.is_in_colour)
            }
            Sampling::Cropped { size } => seen_alone(&labels, extent, size),
            Sampling::Patches { .. } => labels,
        }
    }

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
                labels.extend(self.on_scan(found, [rows, columns]));
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
    fn a_network_says_nothing_of_classes_that_nobody_looked_for() {
        let grid = crate::scan::Grid::unplaced([1, 1, 5], None);
        let mut case = Case {
            name: "a".to_owned(),
            patient: "a".to_owned(),
            frame: 0,
            fold: 0,
            modality: String::new(),
            classes_annotated: vec![0, 2],
            scan: crate::scan::Scan { grid, channels: 1, voxels: vec![0.0; 5] },
            annotations: std::collections::BTreeMap::new(),
        };
        let of = |case: &Case| {
            let mut labels = vec![0, 1, 2, 3, IGNORE];
            unseen_as_background(&mut labels, case);
            labels
        };
        assert_eq!(of(&case), [0, 0, 2, 0, IGNORE]);
        case.classes_annotated.clear();
        assert_eq!(of(&case), [0, 1, 2, 3, IGNORE]);
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
