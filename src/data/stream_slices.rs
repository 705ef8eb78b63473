//! Which slices of a data set the samples of each stream are.
//!
//! Refuses data of which nothing can be learnt. Knows cases and folds, no tensors and no steps.

use super::stream::{Select, StreamSpec, kept, training_slices, unlabelled_slices};
use super::{Case, Dataset, GAZE, IGNORE, IMAGE_LABEL};
use crate::error::{Failure, Result};
use std::collections::BTreeSet;

/// What [`training_slices`] finds for a stream. Refuses a fold that no case has or that leaves nothing to train on, a
/// case without the annotation, a modality that no case has, and annotation that shows no two classes.
fn annotated_slices(
    dataset: &Dataset,
    fold: u32,
    annotation: &str,
    stream: &StreamSpec,
) -> Result<Vec<(usize, usize)>> {
    refuse_set(dataset, fold)?;
    let slices = training_slices(dataset, fold, annotation);
    refuse_without(slices.iter().map(|(index, _)| &dataset.cases[*index]), annotation)?;
    if slices.is_empty() {
        refuse_without(kept(dataset, fold).map(|(_, case)| case), annotation)?;
        return Err(Failure::usage(format!(
            "fold {fold} holds out every case of `{}`, expected some to train on",
            dataset.name
        ))
        .hint("set `data.fold` to another fold, or pack more cases"));
    }
    let slices = of_modality(dataset, slices, stream, "annotated")?;
    refuse_untold(dataset, &slices, annotation)?;
    Ok(slices)
}

/// The slices of all cases that may be looked at and say nothing. Refuses a data set without any.
fn seen_slices(dataset: &Dataset, fold: u32, stream: &StreamSpec) -> Result<Vec<(usize, usize)>> {
    refuse_set(dataset, fold)?;
    of_modality(dataset, unlabelled_slices(dataset, fold), stream, "unlabelled")
}

/// Those of `slices` that a stream takes. Refuses to leave none; `what` says what they are.
fn of_modality(
    dataset: &Dataset,
    slices: Vec<(usize, usize)>,
    stream: &StreamSpec,
    what: &str,
) -> Result<Vec<(usize, usize)>> {
    let slices = slices.into_iter().filter(|(case, _)| stream.takes(&dataset.cases[*case]));
    let slices: Vec<_> = slices.collect();
    if !slices.is_empty() {
        return Ok(slices);
    }
    let of = stream.modality.map_or(String::new(), |modality| format!(" of modality `{modality}`"));
    let failure = Failure::usage(format!(
        "`{}` has no {what} cases{of} to train on, which stream `{}` is made of",
        dataset.name, stream.name
    ));
    let known: BTreeSet<&str> = dataset.cases.iter().map(|case| &*case.modality).collect();
    let is_known = stream.modality.is_none_or(|modality| known.contains(modality));
    Err(failure.hint(match stream.select {
        _ if !is_known => {
            "pack one that says what cases were taken with: `scrimp prepare amos` or `two-modality-phantom`"
        }
        Select::Unlabelled => "pack it again with a smaller `--labelled-share`",
        _ => "pack it again with a larger `--labelled-share`",
    }))
}

/// Refuses a data set without cases or with nothing to tell apart, with images of different channels, and
/// a fold that no case has.
fn refuse_set(dataset: &Dataset, fold: u32) -> Result<()> {
    let name = &dataset.name;
    let Some(first) = dataset.cases.first() else {
        return Err(Failure::usage(format!("`{name}` has no cases")));
    };
    if dataset.classes.len() < 2 {
        return Err(Failure::usage(format!(
            "`{name}` has {} classes, expected the background and at least one other",
            dataset.classes.len()
        ))
        .hint("pack it again with the names of all classes"));
    }
    if let Some(case) = dataset.cases.iter().find(|case| case.scan.channels != first.scan.channels)
    {
        return Err(Failure::usage(format!(
            "case `{}` of `{name}` has images of {} channels and case `{}` of {}, expected the same",
            first.name, first.scan.channels, case.name, case.scan.channels
        ))
        .hint("pack grey images and coloured ones apart"));
    }
    if fold != 0 {
        dataset.held_out(fold)?;
    }
    Ok(())
}

/// Refuses slices of which nothing is annotated, or only one class: nothing can be learnt of them.
fn refuse_untold(dataset: &Dataset, slices: &[(usize, usize)], annotation: &str) -> Result<()> {
    let mut is_shown = [false; 256];
    for &(case, slice) in slices {
        let labels = dataset.cases[case].annotation_slice(annotation, slice).unwrap_or_default();
        for &label in labels {
            // Whatever reaches a level is shown.
            let class = if annotation == GAZE { label.min(1) } else { label };
            is_shown[usize::from(class)] = true;
        }
    }
    is_shown[usize::from(IGNORE)] = false;
    let mut shown = dataset.classes.iter().zip(is_shown).filter(|(_, is_shown)| *is_shown);
    let count = slices.len();
    let message = match (shown.next(), shown.next()) {
        (Some(_), Some(_)) => return Ok(()),
        (None, _) => format!("no pixel of `{annotation}` is annotated in {count} training slices"),
        (Some((class, _)), None) => format!(
            "`{annotation}` shows nothing but `{class}` in {count} training slices, expected at least \
             two classes"
        ),
    };
    Err(Failure::usage(message).hint(
        "look whether the labels were packed with the right values for classes and for unlabelled pixels",
    ))
}

/// The slices of each stream, in the order of `streams`; masks of other patients have none. Beside what
/// [`annotated_slices`] refuses, a data set without images of a class that a stream wants is refused. Cases
/// without image-level labels are left out of such streams: they are there to be scored.
pub(super) fn stream_slices(
    dataset: &Dataset,
    fold: u32,
    annotation: &str,
    streams: &[StreamSpec],
) -> Result<Vec<Vec<(usize, usize)>>> {
    let of = |stream: &StreamSpec| match stream.select {
        Select::Annotated => annotated_slices(dataset, fold, annotation, stream),
        Select::Unlabelled => seen_slices(dataset, fold, stream),
        Select::ImageLabel(class) => {
            let slices = labelled_slices(dataset, fold, annotation, class)?;
            of_modality(dataset, slices, stream, "labelled")
        }
        Select::OtherPatients => Ok(Vec::new()),
    };
    let found = streams.iter().map(of).collect::<Result<Vec<_>>>()?;
    let labelled = streams.iter().zip(&found);
    for (stream, slices) in labelled.filter(|(stream, _)| stream.select != Select::Unlabelled) {
        let cases = slices.iter().map(|(case, _)| &dataset.cases[*case]);
        refuse_without(cases, stream.annotation.unwrap_or(annotation))?;
    }
    Ok(found)
}

/// The slices whose image-level label is `class`.
fn labelled_slices(
    dataset: &Dataset,
    fold: u32,
    annotation: &str,
    class: u8,
) -> Result<Vec<(usize, usize)>> {
    refuse_set(dataset, fold)?;
    let label = |&(case, slice): &(usize, usize)| {
        dataset.cases[case].annotation_slice(IMAGE_LABEL, slice)?.first().copied()
    };
    let slices = training_slices(dataset, fold, annotation).into_iter();
    let slices: Vec<_> = slices.filter(|slice| label(slice) == Some(class)).collect();
    if slices.is_empty() {
        let named = if class == 0 { "healthy" } else { "diseased" };
        return Err(Failure::usage(format!(
            "`{}` has no {named} images to train on: none that is not held out and whose \
             `{IMAGE_LABEL}` says so",
            dataset.name
        ))
        .hint("pack one with `scrimp prepare label-transfer`, `brats` or `lesion-phantom`"));
    }
    Ok(slices)
}

fn refuse_without<'a>(mut cases: impl Iterator<Item = &'a Case>, annotation: &str) -> Result<()> {
    let Some(case) = cases.find(|case| !case.annotations.contains_key(annotation)) else {
        return Ok(());
    };
    let known: Vec<&str> = case.annotations.keys().map(String::as_str).collect();
    let message = format!("case `{}` has no annotation `{annotation}`, only {known:?}", case.name);
    Err(Failure::usage(message).hint("set `data.annotation` to one of these"))
}
