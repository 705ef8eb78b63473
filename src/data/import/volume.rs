//! One NIfTI volume from disk, its axes turned to slices, rows, columns, and labels that lie on it.
//!
//! Knows files and what may be wrong with them; what the numbers mean is for the sources to say.

use super::grid::{Doubt, Grid, Order, grid};
use super::labels::{Coding, Numbers};
use super::nifti_file;
use super::nifti_header::Header;
use super::notes::Notes;
use crate::error::{Failure, Result};
use std::path::{Path, PathBuf};

/// A NIfTI volume: `[x, y, z]` with x fastest on disk is `[z, y, x]` in row-major order as it is.
pub(super) struct Volume {
    path: PathBuf,
    /// Slices, rows, columns.
    pub(super) shape: [usize; 3],
    /// Distance of voxel centres along slices, rows, columns.
    pub(super) spacing_mm: [f64; 3],
    /// Intensities after the file's own slope and intercept; none where they were not asked for.
    pub(super) values: Vec<f64>,
    /// Distance of neighbouring values where integers are scaled, else 0.
    step: f64,
    grid: Grid,
}

/// Distances of voxels outside of which a file is probably wrong about its unit.
const PLAUSIBLE_MM: std::ops::RangeInclusive<f64> = 0.001..=100.0;

/// How much further apart slices are than pixels, where this tells them from rows and columns.
const SLICE_SPACING: f64 = 1.5;

/// How much fewer slices are than rows and columns, where this tells them apart.
const SLICE_COUNT: usize = 4;

/// Reads a `.nii` or `.nii.gz` of two or three dimensions, and notes what is odd in its header.
pub(super) fn read(path: &Path, notes: &Notes) -> Result<Volume> {
    let file = nifti_file::read(path)?;
    Ok(Volume { values: file.values, ..placed(path, &file.header, notes)? })
}

/// A volume without its values, for where it lies alone.
pub(super) fn read_place(path: &Path, notes: &Notes) -> Result<Volume> {
    placed(path, &nifti_file::read_header(path)?, notes)
}

fn placed(path: &Path, header: &Header, notes: &Notes) -> Result<Volume> {
    let name = format!("`{}`", path.display());
    let (grid, doubts) = grid(header).map_err(|spacing| {
        Failure::new(format!("{name} has voxel spacing {spacing}, expected more than 0"))
            .hint("the header is wrong; save the file again with the program that it comes from")
    })?;
    for doubt in doubts {
        let sentence = match doubt {
            Doubt::Sform => {
                "the sform of the header is no placement in the scanner and was passed over"
            }
            Doubt::Qform => {
                "the qform of the header is no placement in the scanner and was passed over"
            }
            Doubt::Spacing => {
                "`pixdim` and the sform of the header differ about the spacing, and the sform was followed"
            }
        };
        notes.add(sentence, &name);
    }
    let [x, y, z] = grid.extents;
    let [between_columns, between_rows, between_slices] = grid.spacing_mm;
    let step = header.scaling.filter(|_| !header.stored.is_float());
    Ok(Volume {
        path: path.to_owned(),
        shape: [z, y, x],
        spacing_mm: [between_slices, between_rows, between_columns],
        values: Vec::new(),
        step: step.map_or(0.0, |[slope, _]| slope.abs()),
        grid,
    })
}

impl Volume {
    /// The labels of the file at `path`, voxel by voxel of this image.
    ///
    /// Labels with axes stored in another order or direction are turned. Refuses labels that lie
    /// elsewhere in the scanner, or, where a file does not say where it lies, have another shape or
    /// spacing.
    pub(super) fn labels_at(&self, path: &Path, coding: &Coding, notes: &Notes) -> Result<Vec<u8>> {
        let labels = read(path, notes)?;
        let Some(order) = self.grid.order_of(&labels.grid) else {
            return Err(self.elsewhere(&labels));
        };
        let name = format!("`{}`", path.display());
        if self.grid.matrix.is_none() || labels.grid.matrix.is_none() {
            notes.add(
                "labels or their image do not say where they lie in the scanner; that they lie on each other could not be checked",
                &name,
            );
        }
        if order == Order::SAME {
            return labels.labels(coding, notes);
        }
        notes.add(
            "labels that are stored with other axes than their image were turned to lie on it",
            &name,
        );
        let values = order.carry(&labels.values, labels.grid.extents);
        Volume { values, shape: self.shape, ..labels }.labels(coding, notes)
    }

    fn elsewhere(&self, labels: &Self) -> Failure {
        let difference = self.grid.difference(&labels.grid);
        let failure = Failure::new(format!("`{}` {difference}", labels.path.display()));
        let mut two_ways =
            [self, labels].into_iter().filter(|one| one.grid.contradiction.is_some());
        match two_ways.next() {
            Some(one) if self.grid.agrees_otherwise(&labels.grid) => failure.hint(format!(
                "`{}` has an sform and a qform that differ, and the sform is what counts; one of them is wrong",
                one.path.display()
            )),
            _ => failure.hint("draw or resample the labels on the image itself"),
        }
    }

    /// The values of this file itself as labels.
    pub(super) fn labels(&self, coding: &Coding, notes: &Notes) -> Result<Vec<u8>> {
        let name = format!("`{}`", self.path.display());
        let numbers = Numbers { values: &self.values, shape: self.shape, step: self.step, name };
        coding.labels(&numbers, notes)
    }

    /// Notes what makes the shape or the spacing of this image unlikely.
    pub(super) fn note_oddities(&self, notes: &Notes) {
        let name = format!("`{}`", self.path.display());
        if let Some(axis) = slices_along(self.shape, Some(self.spacing_mm)) {
            notes.add(&not_slices(axis), &name);
        }
        let wide = (0..3).filter(|&axis| self.shape[axis] > 1);
        if let Some(mm) =
            wide.map(|axis| self.spacing_mm[axis]).find(|mm| !PLAUSIBLE_MM.contains(mm))
        {
            let sentence = "voxels are so large or small that the unit of length in the header is probably wrong";
            notes.add(sentence, format!("{name} ({mm} mm)"));
        }
        if self.grid.contradiction.is_some() {
            let sentence = "the sform and the qform of the header place the image differently, and the sform was followed";
            notes.add(sentence, &name);
        }
    }
}

/// What to say of images whose slices seem to lie along another axis than they should.
pub(super) fn not_slices(axis: &str) -> String {
    format!(
        "slices seem to lie along {axis}: planes across them would be learnt; reorder the axes so that slices come last in NIfTI, first in HDF5"
    )
}

/// The axis along which slices seem to lie, where it is not the first of `shape`.
pub(super) fn slices_along(
    shape: [usize; 3],
    spacing_mm: Option<[f64; 3]>,
) -> Option<&'static str> {
    if shape.contains(&1) {
        return None;
    }
    let sparse = |axis: usize| {
        spacing_mm
            .map(|mm| (0..3).all(|other| other == axis || mm[axis] >= SLICE_SPACING * mm[other]))
    };
    let few = |axis: usize| {
        (0..3).all(|other| other == axis || shape[axis] * SLICE_COUNT <= shape[other])
    };
    if sparse(0) == Some(true) {
        return None;
    }
    let across = [(1, "rows"), (2, "columns")];
    let found = across.iter().find(|&&(axis, _)| sparse(axis) == Some(true));
    found.or_else(|| across.iter().find(|&&(axis, _)| few(axis))).map(|&(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::slices_along;

    #[test]
    fn slices_are_few_and_far_apart() {
        assert_eq!(slices_along([10, 256, 216], Some([8.0, 1.4, 1.4])), None);
        assert_eq!(slices_along([216, 256, 10], Some([1.4, 1.4, 8.0])), Some("columns"));
        assert_eq!(slices_along([256, 10, 216], None), Some("rows"));
        // Few planes, but those are what lies far apart.
        assert_eq!(slices_along([216, 256, 10], Some([8.0, 1.4, 1.4])), None);
        assert_eq!(slices_along([155, 240, 240], Some([1.0; 3])), None);
        assert_eq!(slices_along([1, 256, 10], None), None);
    }
}
