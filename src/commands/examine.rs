//! What is certain about a run before its first step: whether its data can be trained on and scored.
//!
//! Asks those who know, and looks at nothing on a device.

use super::run;
use crate::config::Split;
use crate::config::plan::{DataSource, RunPlan, ShapesSource};
use crate::data::held_out::{HeldOut, patients_on_both_sides};
use crate::data::loader::{Loader, LoaderPlan};
use crate::data::pseudo::Labelling;
use crate::data::stream::lacks_classes;
use crate::data::{Case, Dataset, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::methods;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Refuses a data set that a plan cannot be trained on or evaluated with, as it is before a random
/// walker labels it.
pub(super) fn data(plan: &RunPlan, dataset: &Arc<Dataset>) -> Result<()> {
    let fold = plan.data.fold;
    if fold > 0 {
        HeldOut::cases(dataset, fold)?;
    }
    let method = methods::find(&plan.method)?;
    (method.refuse_images)(&plan.method_params, dataset.channels())?;
    let wanted = run::loader_plan(plan)?;
    if lacks_classes(dataset, (fold, &wanted.annotation), wanted.streams) {
        (method.refuse_lacking_classes)(&plan.method_params)?;
    }
    let held_out = (fold > 0).then_some(fold);
    if Labelling::of(dataset, &wanted.annotation, held_out).is_none() {
        return Loader::new(dataset, wanted, 0, 1).map(drop);
    }
    if dataset.channels() != 1 {
        return Err(Failure::usage(format!(
            "`{}` is made of grey images, and those of `{}` are in colour",
            wanted.annotation, dataset.name
        ))
        .hint("pack the images in grey, or learn from the scribbles themselves"));
    }
    // Where some cases have labels and no scribbles, their loader will tell.
    let is_scribbled = |case: &Case| case.fold == fold || case.annotations.contains_key(SCRIBBLE);
    if dataset.cases.iter().all(is_scribbled) {
        let scribbled = LoaderPlan { annotation: SCRIBBLE.to_owned(), ..wanted };
        Loader::new(dataset, scribbled, 0, 1)?;
    }
    Ok(())
}

/// What a person should know of the scores of a plan, in sentences.
pub(super) fn warnings(plan: &RunPlan, dataset: &Dataset) -> Vec<String> {
    let fold = plan.data.fold;
    let [both, all] = patients_on_both_sides(dataset, fold, &plan.data.annotation);
    if both == 0 {
        return Vec::new();
    }
    let folds = match plan.data.split {
        Some(Split::Dmsps) => "; without `data.split` folds are by patient",
        Some(Split::Scribblebench) | None => "",
    };
    vec![format!(
        "of {both} of the {all} patients that fold {fold} holds out, other scans are trained on: scores say little \
         about new patients{folds}"
    )]
}

/// What was found out about all that a plan is trained on.
pub(super) enum Found {
    /// At this path is nothing, and nothing was opened.
    Absent(PathBuf),
    /// It can be trained on; what a person should know of it.
    Sound(Vec<String>),
}

/// Opens everything that a plan is trained on and refuses what cannot be.
pub(super) fn all(plan: &RunPlan) -> Result<Found> {
    let packed = match &plan.data.source {
        DataSource::Packed(path) => Some(path),
        DataSource::Phantom(_)
        | DataSource::LesionPhantom(_)
        | DataSource::GazePhantom(_)
        | DataSource::TwoModalityPhantom(_) => None,
    };
    let shapes = plan.data.shapes.as_ref();
    let masks = shapes.and_then(|shapes| match &shapes.source {
        ShapesSource::Path(path) => Some(path),
        ShapesSource::Phantom(_) => None,
    });
    let is_absent = |path: &&PathBuf| !Path::exists(path);
    if let Some(path) = packed.into_iter().chain(masks).find(is_absent) {
        return Ok(Found::Absent(path.clone()));
    }
    let plan = drawn_small(plan.clone());
    let dataset = run::dataset(&plan)?;
    data(&plan, &dataset)?;
    if let Some(shapes) = &plan.data.shapes {
        run::shapes(shapes, &dataset)?;
    }
    Ok(Found::Sound(warnings(&plan, &dataset)))
}

/// Rows and columns of the smallest synthetic images.
const SMALLEST_SIZE: usize = 32;

/// The same plan with small synthetic images: nothing that is looked at depends on how large they are.
fn drawn_small(mut plan: RunPlan) -> RunPlan {
    match &mut plan.data.source {
        DataSource::Packed(_) => {}
        DataSource::Phantom(phantom) => phantom.size = SMALLEST_SIZE,
        DataSource::LesionPhantom(phantom) => phantom.size = SMALLEST_SIZE,
        DataSource::GazePhantom(phantom) => phantom.size = SMALLEST_SIZE,
        DataSource::TwoModalityPhantom(phantom) => phantom.size = SMALLEST_SIZE,
    }
    let source = plan.data.shapes.as_mut().map(|shapes| &mut shapes.source);
    if let Some(ShapesSource::Phantom(phantom)) = source {
        phantom.size = SMALLEST_SIZE;
    }
    plan
}
