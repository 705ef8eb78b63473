//! From what a header says of its axes, where each runs and how far apart voxels are, to a grid in the patient.
//!
//! Knows the two ways in which programs name directions in a patient; fields and files are for formats to know.

use super::alignment::FileGrid;
use super::grid::{Grid, Placement};
use super::vectors::{completed, determinant, unit};
use crate::error::{Failure, Result};

/// How much three directions must differ from a plane.
const FLAT: f64 = 1e-3;

/// The axes x, y, z of a file, of which x is fastest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axes {
    /// Voxels along each.
    pub(super) extents: [usize; 3],
    /// Distance of voxel centres along each, where the header says so.
    pub(super) spacing_mm: Option<[f64; 3]>,
    /// Where they run, where the header says so.
    pub(super) course: Option<Course>,
}

/// Where axes begin and run, in the coordinates of [`Grid`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Course {
    /// Vectors of length 1 along x, y, z; of 0 where the header knows no such axis.
    pub(super) directions: [[f64; 3]; 3],
    /// Centre of the first voxel.
    pub(super) origin_mm: [f64; 3],
}

impl Course {
    /// The same of directions that lead to the left and to the back, as ITK, Slicer and DICOM have them; and back.
    pub(super) fn mirrored(self) -> Self {
        let mirrored = |[x, y, z]: [f64; 3]| [-x, -y, z];
        Self { directions: self.directions.map(mirrored), origin_mm: mirrored(self.origin_mm) }
    }

    /// Where the columns, rows and slices of a grid run: along x, y, z of a file.
    pub(super) fn of(placement: &Placement) -> Self {
        let [slices, rows, columns] = placement.direction;
        Self { directions: [columns, rows, slices], origin_mm: placement.origin_mm }
    }
}

impl Axes {
    /// The grid of a file that is called `name`.
    ///
    /// Refuses distances that are none, and directions in which voxels would lie on each other.
    pub(super) fn grid(&self, name: &str) -> Result<FileGrid> {
        let wrong = |what: String| {
            Failure::new(format!("{name} {what}")).hint(
                "the header is wrong; save the file again with the program that it comes from",
            )
        };
        let mut spacing_mm = self.spacing_mm;
        for (mm, extent) in spacing_mm.iter_mut().flatten().zip(self.extents) {
            let is_distance = mm.is_finite() && *mm > 0.0;
            if !is_distance && extent > 1 {
                return Err(wrong(format!("has voxel spacing {mm}, expected more than 0")));
            }
            *mm = if is_distance { *mm } else { 1.0 };
        }
        let placement = self.course.map(|course| {
            let [x, y, z] = completed(course.directions);
            let placement = Placement { direction: [z, y, x], origin_mm: course.origin_mm };
            let numbers = placement.direction.iter().chain([&placement.origin_mm]).flatten();
            let is_place = numbers.clone().all(|number| number.is_finite())
                && determinant(&placement.direction.map(unit)).abs() > FLAT;
            is_place.then_some(placement).ok_or_else(|| {
                wrong("has axes whose directions are no placement in the scanner".to_owned())
            })
        });
        let reversed = |[x, y, z]: [f64; 3]| [z, y, x];
        let [columns, rows, slices] = self.extents;
        let grid = Grid {
            shape: [slices, rows, columns],
            spacing_mm: spacing_mm.map(reversed),
            placement: placement.transpose()?,
        };
        Ok(FileGrid { grid, name: name.to_owned(), otherwise: None, unit_mm: Some(1.0) })
    }
}
