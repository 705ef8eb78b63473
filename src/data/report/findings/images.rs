//! What is odd about images: of one intensity, there twice, or of an unusual extent.
//!
//! Knows digests and extents, no annotation.

use super::Severity::{Note, Warning};
use super::{Finding, Named, explained, named};
use crate::data::report::measures::CaseMeasures;
use crate::data::report::numbers::Spread;
use crate::data::report::survey::Survey;
use crate::scan::list;
use std::collections::{BTreeMap, BTreeSet};

/// How many times larger or smaller an extent is that lies far from that of others.
const FAR_EXTENT: f64 = 4.0;

/// The same of a distance of voxels.
const FAR_SPACING: f64 = 3.0;

/// Of fewer cases nobody can tell what is usual.
const FEWEST_CASES: usize = 5;

/// Up to which share of the cases something is unusual, as one of so many.
const FEW_OF: usize = 10;

/// Images, or channels of them, all of whose voxels have one intensity.
pub(super) fn constant(survey: &Survey) -> Vec<Finding> {
    let cases = survey.cases.iter().filter(|case| case.grid.voxels() > 1);
    let constant = cases.filter_map(|case| match &case.constant_channels[..] {
        [] => None,
        _ if case.channels == 1 => Some(named(&case.name)),
        channels => {
            let numbers: Vec<String> = channels.iter().map(usize::to_string).collect();
            Some(explained(&case.name, &format!("channel {}", numbers.join(", "))))
        }
    });
    let sentence = "all voxels have the same intensity";
    Finding::of_cases(Warning, "constant_image", sentence, constant.collect()).into_iter().collect()
}

/// Images that stand under two names.
pub(super) fn same(survey: &Survey) -> Vec<Finding> {
    let mut by_digest: BTreeMap<u128, Vec<&str>> = BTreeMap::new();
    for case in survey.cases.iter().filter(|case| case.constant_channels.len() < case.channels) {
        by_digest.entry(case.image_digest).or_default().push(&case.name);
    }
    let mut same: Vec<Vec<&str>> = by_digest.into_values().filter(|all| all.len() > 1).collect();
    same.sort_unstable();
    if same.is_empty() {
        return Vec::new();
    }
    let quoted = |names: &Vec<&str>| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(" = ")
    };
    let shown: Vec<String> = same.iter().map(quoted).collect();
    let sentence = format!("the same image stands under several names: {}", list(&shown));
    let cases = same.into_iter().flatten().map(str::to_owned).collect();
    vec![Finding { cases, ..Finding::of_all(Warning, "same_image", sentence) }]
}

/// Three numbers of a case, along slices, rows and columns.
type OfCase = fn(&CaseMeasures) -> Option<[f64; 3]>;

/// Cases of which a number is `factor` times larger or smaller than the middle of those of their modality, if these are
/// few; and the middle ones, where there is one modality alone.
fn far(survey: &Survey, number: OfCase, factor: f64) -> (Vec<Named>, Option<String>) {
    let modalities: BTreeSet<&str> = survey.cases.iter().map(|case| &*case.modality).collect();
    let (mut far, mut usual) = (BTreeMap::new(), None);
    for modality in &modalities {
        let own = survey.cases.iter().filter(|case| case.modality == *modality);
        let own: Vec<_> = own.filter_map(|case| Some((case, number(case)?))).collect();
        let middles: Vec<f64> = (0..3)
            .filter_map(|axis| Spread::of(own.iter().map(|(_, found)| found[axis])))
            .map(|spread| spread.median)
            .collect();
        for (axis, middle) in middles.iter().enumerate() {
            let is_far =
                |found: &[f64; 3]| found[axis] > factor * middle || found[axis] * factor < *middle;
            let of_axis: Vec<_> = own.iter().filter(|(_, found)| is_far(found)).collect();
            if own.len() >= FEWEST_CASES && of_axis.len() * FEW_OF <= own.len().max(FEW_OF) {
                far.extend(of_axis.into_iter().map(|(case, found)| (&case.name, *found)));
            }
        }
        usual = (modalities.len() == 1).then(|| in_words(&middles));
    }
    let cases = far.into_iter().map(|(name, found)| explained(name, &in_words(&found)));
    (cases.collect(), usual)
}

fn in_words(numbers: &[f64]) -> String {
    let rounded = numbers.iter().map(|number| (number * 1e4).round() / 1e4);
    rounded.map(|number| number.to_string()).collect::<Vec<_>>().join(" x ")
}

/// Cases that are much larger or smaller than the others.
pub(super) fn far_shape(survey: &Survey) -> Vec<Finding> {
    let shape: OfCase = |case| Some(case.grid.shape.map(|extent| extent as f64));
    let (cases, usual) = far(survey, shape, FAR_EXTENT);
    let usual = usual.map_or(String::new(), |usual| format!(", which is {usual}"));
    let sentence = format!("shape far from the usual one{usual}");
    Finding::of_cases(Note, "far_shape", sentence, cases).into_iter().collect()
}

/// Cases whose voxels lie much farther apart or closer together than those of the others.
pub(super) fn far_spacing(survey: &Survey) -> Vec<Finding> {
    let (cases, usual) = far(survey, |case| case.grid.spacing_mm, FAR_SPACING);
    let usual = usual.map_or(String::new(), |usual| format!(", which is {usual} mm"));
    let sentence = format!("spacing far from the usual one{usual}");
    Finding::of_cases(Warning, "far_spacing", sentence, cases).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::samples::cases;

    fn said(found: Vec<Finding>) -> Vec<String> {
        found.into_iter().map(|finding| finding.sentence).collect()
    }

    #[test]
    fn images_of_one_intensity_are_named_with_their_channels() {
        let mut survey = cases(3);
        assert_eq!(constant(&survey), []);
        survey.cases[0].constant_channels = vec![0];
        survey.cases[2].channels = 3;
        survey.cases[2].constant_channels = vec![1, 2];
        let expected = "all voxels have the same intensity: `c0`, `c2` (channel 1, 2)";
        assert_eq!(said(constant(&survey)), [expected]);
    }

    #[test]
    fn images_under_several_names_are_found_and_empty_ones_are_no_images() {
        let mut survey = cases(4);
        assert_eq!(same(&survey), []);
        survey.cases[3].image_digest = survey.cases[1].image_digest;
        let found = same(&survey);
        assert_eq!(found[0].sentence, "the same image stands under several names: `c1` = `c3`");
        assert_eq!(found[0].cases, ["c1", "c3"]);
        survey.cases[1].constant_channels = vec![0];
        survey.cases[3].constant_channels = vec![0];
        assert_eq!(same(&survey), []);
    }

    #[test]
    fn few_cases_far_from_the_others_are_named() {
        let mut survey = cases(10);
        assert_eq!((far_shape(&survey), far_spacing(&survey)), (vec![], vec![]));
        survey.cases[4].grid.shape = [9, 1, 2];
        survey.cases[7].grid.spacing_mm = Some([5.0, 0.001, 1.0]);
        let shape = "shape far from the usual one, which is 2 x 1 x 2: `c4` (9 x 1 x 2)";
        assert_eq!(said(far_shape(&survey)), [shape]);
        let spacing = "spacing far from the usual one, which is 5 x 1 x 1 mm: `c7` (5 x 0.001 x 1)";
        assert_eq!(said(far_spacing(&survey)), [spacing]);
        // Another modality has its own usual shape, and where many differ, none is usual.
        survey.cases[4].modality = "mr".into();
        assert_eq!(far_shape(&survey), []);
        for case in &mut survey.cases[..3] {
            case.grid.spacing_mm = Some([5.0, 0.001, 1.0]);
        }
        assert_eq!(far_spacing(&survey), []);
    }
}
