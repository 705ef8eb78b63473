//! One slice of DICOM: where it lies, how far its pixels are apart, and what its numbers mean.
//!
//! Directions and places are those of the file: to the left, to the back, to the head. Knows no pixels.

use super::dataset::DataSet;
use super::tags::{
    EACH_FRAME, INTERCEPT, ORIENTATION, PIXEL_MEASURES, PIXEL_SPACING, PIXEL_VALUES,
    PLANE_ORIENTATION, PLANE_POSITION, POSITION, SHARED, SLICE_THICKNESS, SLOPE,
    SPACING_BETWEEN_SLICES, Tag,
};

/// A slice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plane {
    /// Centre of its first pixel, and the directions along its rows and along its columns, where the file says so.
    pub(super) place: Option<Place>,
    /// Distances between rows and between columns, where the file says so.
    pub(super) spacing_mm: Option<[f64; 2]>,
    /// Distance to the next slice, or how thick it is, where the file says so.
    pub(super) thickness_mm: Option<f64>,
    /// Slope and intercept to apply to what is stored, where they change anything.
    pub(super) scaling: Option<[f64; 2]>,
}

/// Where a slice lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) origin_mm: [f64; 3],
    /// From pixel to pixel of a row, and from row to row.
    pub(super) directions: [[f64; 3]; 2],
}

impl Plane {
    /// What a file says of one of its frames, counted from 0: for it alone, for all frames, or without speaking of
    /// frames.
    pub(super) fn of(data: &DataSet<'_>, frame: usize) -> Self {
        let numbers = |sequence: Tag, tag: Tag| {
            let groups = [data.items(EACH_FRAME).get(frame), data.items(SHARED).first()];
            let within = groups.into_iter().flatten();
            let mut said = within.filter_map(|group| group.items(sequence).first()?.decimals(tag));
            said.next().or_else(|| data.decimals(tag))
        };
        let number = |sequence, tag| numbers(sequence, tag).and_then(|all| all.first().copied());
        let is_distance = |mm: &f64| *mm > 0.0;
        let spacing_mm = numbers(PIXEL_MEASURES, PIXEL_SPACING).and_then(|mm| exactly::<2>(&mm));
        let thickness_mm = number(PIXEL_MEASURES, SPACING_BETWEEN_SLICES).filter(is_distance);
        let slope = number(PIXEL_VALUES, SLOPE).filter(|slope| *slope != 0.0).unwrap_or(1.0);
        let intercept = number(PIXEL_VALUES, INTERCEPT).unwrap_or(0.0);
        let origin_mm = numbers(PLANE_POSITION, POSITION).and_then(|place| exactly(&place));
        let directions =
            numbers(PLANE_ORIENTATION, ORIENTATION).and_then(|parts| exactly::<6>(&parts));
        let place = origin_mm.zip(directions).map(|(origin_mm, [a, b, c, d, e, f])| Place {
            origin_mm,
            directions: [[a, b, c], [d, e, f]],
        });
        Self {
            place,
            spacing_mm: spacing_mm.filter(|spacing| spacing.iter().all(is_distance)),
            thickness_mm: thickness_mm
                .or_else(|| number(PIXEL_MEASURES, SLICE_THICKNESS).filter(is_distance)),
            scaling: ((slope, intercept) != (1.0, 0.0)).then_some([slope, intercept]),
        }
    }
}

/// The numbers, if there are so many.
fn exactly<const COUNT: usize>(numbers: &[f64]) -> Option<[f64; COUNT]> {
    numbers.try_into().ok()
}
