//! What is odd about where voxels lie: slices along another axis, axes that run otherwise than in other cases, and
//! distances that are not known.
//!
//! Knows grids alone.

use super::Severity::{Note, Warning};
use super::{Finding, Named, explained, named};
use crate::data::report::measures::CaseMeasures;
use crate::data::report::survey::Survey;
use crate::preparation::Spacing;
use crate::scan::{Placement, slices_along};
use std::collections::BTreeMap;

/// How much closer together slices are than pixels, where they are hardly slices.
const CLOSE: f64 = 1.5;

/// The cosine of an angle beyond which two axes run otherwise: planes through the heart are turned by less from patient
/// to patient, and an axis that is exchanged or reversed by more.
const TURNED: f64 = 0.5;

/// Cases whose slices seem to lie along another axis than the first.
pub(super) fn slices_across(survey: &Survey) -> Vec<Finding> {
    let mut along: BTreeMap<&str, Vec<Named>> = BTreeMap::new();
    let mut close = Vec::new();
    for case in &survey.cases {
        let (shape, spacing_mm) = (case.grid.shape, case.grid.spacing_mm);
        if let Some(axis) = slices_along(shape, spacing_mm) {
            along.entry(axis).or_default().push(named(&case.name));
        } else if let Some([slices, rows, columns]) = spacing_mm
            && shape.iter().all(|&extent| extent > 1)
            && slices * CLOSE <= rows.min(columns)
        {
            close
                .push(explained(&case.name, &format!("{slices} mm, pixels {rows} x {columns} mm")));
        }
    }
    let across = along.into_iter().filter_map(|(axis, cases)| {
        let sentence =
            format!("slices seem to lie along {axis}, so that planes across them would be learnt");
        Finding::of_cases(Warning, "slices_along_another_axis", sentence, cases)
    });
    let sentence = "slices lie closer together than the pixels in them, and may be none";
    across.chain(Finding::of_cases(Warning, "slices_close_together", sentence, close)).collect()
}

fn dot(one: [f64; 3], other: [f64; 3]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// Whether an axis runs far from where it runs on average.
fn is_turned(placement: &Placement, means: &[[f64; 3]; 3]) -> bool {
    placement
        .direction
        .iter()
        .zip(means)
        .any(|(&axis, &mean)| dot(axis, mean) < TURNED * (dot(axis, axis) * dot(mean, mean)).sqrt())
}

/// Cases whose axes run otherwise in the patient than those of most, and those of which it is not known.
pub(super) fn orientation(survey: &Survey) -> Vec<Finding> {
    let placed = || survey.cases.iter().filter_map(|case| Some((case, case.grid.placement?)));
    let mut by_course: BTreeMap<[&str; 3], Vec<Placement>> = BTreeMap::new();
    for (_, placement) in placed() {
        by_course.entry(placement.course()).or_default().push(placement);
    }
    let most = by_course.into_iter().max_by_key(|(course, alike)| (alike.len(), *course));
    let Some((usual, alike)) = most else { return Vec::new() };
    let mut means = [[0.0; 3]; 3];
    for placement in &alike {
        for (mean, axis) in means.iter_mut().flatten().zip(placement.direction.iter().flatten()) {
            *mean += axis / alike.len() as f64;
        }
    }
    let turned = placed().filter(|(_, placement)| is_turned(placement, &means));
    let turned = turned.map(|(case, placement)| {
        let [slices, rows, columns] = placement.course();
        explained(&case.name, &format!("{slices}, {rows}, {columns}"))
    });
    let [slices, rows, columns] = usual;
    let sentence = format!(
        "axes run otherwise in the patient than in most cases, whose slices, rows and columns run to {slices}, {rows} and {columns}"
    );
    let turned = Finding::of_cases(Warning, "other_orientation", sentence, turned.collect());
    let unplaced = survey.cases.iter().filter(|case| case.grid.placement.is_none());
    let unplaced = unplaced.map(|case| named(&case.name)).collect();
    let sentence = "it is not known where these lie in the patient, as it is of others";
    let unplaced = Finding::of_cases(Note, "placement_unknown", sentence, unplaced);
    turned.into_iter().chain(unplaced).collect()
}

/// Distances of voxels that are not known, or are what programs write that do not know them.
pub(super) fn spacing(survey: &Survey) -> Vec<Finding> {
    let unknown = survey.cases.iter().filter(|case| case.grid.spacing_mm.is_none());
    let unknown: Vec<Named> = unknown.map(|case| named(&case.name)).collect();
    if !unknown.is_empty() && unknown.len() == survey.cases.len() {
        let sentence =
            "no case says how far apart its voxels lie: distances are measured in voxels";
        return vec![Finding::of_all(Note, "spacing_unknown", sentence)];
    }
    let made = survey.preparation.as_ref().is_some_and(|done| done.spacing != Spacing::AsStored);
    let is_default = |case: &CaseMeasures| case.grid.spacing_mm == Some([1.0; 3]);
    if !made && !survey.cases.is_empty() && survey.cases.iter().all(is_default) {
        let sentence = "voxels of all cases lie 1 mm apart along each axis, which some programs write that do not know it";
        return vec![Finding::of_all(Note, "spacing_default", sentence)];
    }
    let sentence = "it is not known how far apart these voxels lie, as it is of others";
    Finding::of_cases(Warning, "spacing_unknown", sentence, unknown).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::samples::cases;
    use crate::preparation::{Intensities, Preparation};

    fn said(found: Vec<Finding>) -> Vec<String> {
        found.into_iter().map(|finding| finding.sentence).collect()
    }

    #[test]
    fn slices_that_are_none_are_named() {
        let mut survey = cases(3);
        assert_eq!(slices_across(&survey), []);
        survey.cases[0].grid.shape = [256, 216, 10];
        survey.cases[0].grid.spacing_mm = Some([1.4, 1.4, 8.0]);
        survey.cases[1].grid.shape = [100, 100, 100];
        survey.cases[1].grid.spacing_mm = Some([0.5, 1.0, 1.0]);
        assert_eq!(
            said(slices_across(&survey)),
            [
                "slices seem to lie along columns, so that planes across them would be learnt: `c0`",
                "slices lie closer together than the pixels in them, and may be none: `c1` (0.5 mm, pixels 1 x 1 mm)",
            ]
        );
    }

    #[test]
    fn axes_that_run_otherwise_are_named_and_those_that_are_tilted_are_not() {
        let placed = |direction: [[f64; 3]; 3]| Some(Placement { direction, origin_mm: [0.0; 3] });
        let mut survey = cases(5);
        assert_eq!(orientation(&survey), [], "nobody says where anything lies");
        for case in &mut survey.cases {
            case.grid.placement = placed([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]);
        }
        // By 50 degrees: the nearest directions are others.
        let (sine, cosine) = (50f64.to_radians().sin(), 50f64.to_radians().cos());
        survey.cases[1].grid.placement =
            placed([[0.0, sine, cosine], [0.0, -cosine, sine], [-1.0, 0.0, 0.0]]);
        assert_eq!(orientation(&survey), []);
        survey.cases[2].grid.placement =
            placed([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]);
        survey.cases[3].grid.placement = None;
        assert_eq!(
            said(orientation(&survey)),
            [
                "axes run otherwise in the patient than in most cases, whose slices, rows and columns run to head, back and left: `c2` (head, back, right)",
                "it is not known where these lie in the patient, as it is of others: `c3`",
            ]
        );
    }

    #[test]
    fn distances_that_are_not_known_are_told() {
        let mut survey = cases(2);
        assert_eq!(spacing(&survey), []);
        survey.cases[1].grid.spacing_mm = None;
        let some = "it is not known how far apart these voxels lie, as it is of others: `c1`";
        assert_eq!(said(spacing(&survey)), [some]);
        survey.cases[0].grid.spacing_mm = None;
        assert!(said(spacing(&survey))[0].starts_with("no case says"));
        for case in &mut survey.cases {
            case.grid.spacing_mm = Some([1.0; 3]);
        }
        assert!(said(spacing(&survey))[0].starts_with("voxels of all cases lie 1 mm apart"));
        let all = Preparation::grey(Intensities::AsStored);
        survey.preparation = Some(Preparation { spacing: Spacing::Volume([1.0; 3]), ..all });
        assert_eq!(spacing(&survey), [], "it was made so");
    }
}
