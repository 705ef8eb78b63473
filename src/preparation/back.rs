//! From class probabilities on the prepared grid to labels on the grid of the file, slice after slice.
//!
//! Probabilities of all classes on the grid of the file never exist at once: two prepared slices of each class
//! are kept, one between them, and of the native slice the best probability so far with its class.

use super::between::Between;
use super::linear::{linear_along, shares};
use super::regrid::Regrid;
use super::spline::Axis;
use super::steps::Interpolation;
use crate::error::{Failure, Result};

/// Turns probabilities that come slice after slice into labels on the grid of the file.
///
/// Each voxel of the file gets the class whose probability is largest there, of equal ones the smallest;
/// probabilities are interpolated linearly along each axis, and along a coarse one (see [`Regrid`]) taken from
/// the nearest voxel; after [`Interpolation::Linear`] they are also smoothed within slices where those of the file
/// have fewer voxels. Outside of the kept box it is 0, background. Where the grids are the same, each voxel
/// gets the class of its own probabilities.
#[derive(Debug)]
pub struct NativeLabels {
    regrid: Regrid,
    classes: usize,
    /// The last but one and the last prepared slice: `[classes, rows, columns]`.
    recent: [Vec<f32>; 2],
    /// Prepared slices that came so far.
    came: usize,
    /// Slices of the file that were given so far.
    given: usize,
}

/// A slice of the file.
#[derive(Debug)]
pub struct NativeSlice<'a> {
    /// `[rows, columns]`.
    pub labels: &'a [u8],
    /// `[classes, rows, columns]`; empty where they were not asked for. Outside of the kept box background is
    /// certain.
    pub probabilities: &'a [f32],
}

impl NativeLabels {
    /// Labels of `classes` classes on the grid of the file of `regrid`.
    pub fn new(regrid: Regrid, classes: usize) -> Self {
        Self { regrid, classes, recent: [Vec::new(), Vec::new()], came: 0, given: 0 }
    }

    /// Takes the next prepared slices, `[classes, slices, rows, columns]`, and hands out the slices of the file
    /// that are complete with them, one by one, with the probabilities of all classes where they are asked for.
    ///
    /// Refuses a slab of another size, and more slices than the prepared grid has.
    pub fn each_slice(
        &mut self,
        slab: &[f32],
        with_probabilities: bool,
        take: &mut dyn FnMut(NativeSlice<'_>) -> Result<()>,
    ) -> Result<()> {
        let [total, rows, columns] = self.regrid.prepared.shape;
        let (pixels, of_one) = (rows * columns, rows * columns * self.classes);
        let slices = slab.len().checked_div(of_one).unwrap_or(0);
        if slices * of_one != slab.len() || slices > total - self.came {
            return Err(Failure::new(format!(
                "{} probabilities came, expected {} classes of {rows} x {columns} pixels for at most {} more \
                 slices",
                slab.len(),
                self.classes,
                total - self.came
            )));
        }
        for slice in 0..slices {
            self.recent.swap(0, 1);
            let last = &mut self.recent[1];
            last.clear();
            for class in 0..self.classes {
                last.extend_from_slice(&slab[(class * slices + slice) * pixels..][..pixels]);
            }
            self.came += 1;
            self.give(with_probabilities, take)?;
        }
        Ok(())
    }

    /// Refuses prepared slices that ended before every slice of the file was given.
    pub fn finish(self) -> Result<()> {
        let slices = self.regrid.file.shape[0];
        if self.given == slices {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{} prepared slices came, of which {} slices of the file were made, expected all {slices}",
            self.came, self.given
        )))
    }

    /// Hands out every slice of the file that is complete.
    fn give(
        &mut self,
        with_probabilities: bool,
        take: &mut dyn FnMut(NativeSlice<'_>) -> Result<()>,
    ) -> Result<()> {
        let [slices, rows, columns] = self.regrid.file.shape;
        let (kept, pixels) = (self.regrid.kept[0].clone(), rows * columns);
        while self.given < slices {
            let place = kept.contains(&self.given).then(|| self.given - kept.start);
            let between = place.map(|place| self.between(0, place));
            let is_complete = match between {
                Some(between) => between.last() < self.came,
                None => self.given < kept.start || self.came == self.regrid.prepared.shape[0],
            };
            if !is_complete {
                break;
            }
            let mut labels = vec![0; pixels];
            let mut probabilities = Vec::new();
            if with_probabilities {
                probabilities.resize(self.classes * pixels, 0.0);
                // Background, where nothing else is known.
                probabilities[..pixels].fill(1.0);
            }
            if let Some(between) = between {
                self.slice(between, &mut labels, &mut probabilities);
            }
            self.given += 1;
            take(NativeSlice { labels: &labels, probabilities: &probabilities })?;
        }
        Ok(())
    }

    /// Where a kept voxel of the file lies along an axis of the prepared grid.
    fn between(&self, axis: usize, index: usize) -> Between {
        let (from, to) = (self.regrid.extents()[axis], self.regrid.prepared.shape[axis]);
        if self.regrid.coarse == Some(axis) {
            Between::nearest(index, from, to)
        } else {
            Between::of(index, from, to)
        }
    }

    /// Writes one slice of the file, which holds 0, of what lies between the last two prepared ones, and its
    /// probabilities where there is room for them.
    fn slice(&self, between: Between, labels: &mut [u8], probabilities: &mut [f32]) {
        let [_, rows, columns] = self.regrid.prepared.shape;
        let [_, file_rows, file_columns] = self.regrid.file.shape;
        let [_, kept_rows, kept_columns] = self.regrid.kept.clone();
        let first = &self.recent[usize::from(between.first + 1 == self.came)];
        let mut best = vec![f32::NEG_INFINITY; file_rows * file_columns];
        let pixels = rows * columns;
        let mut plane = vec![0.0; pixels];
        let mut kept = Vec::with_capacity(kept_rows.len() * kept_columns.len());
        for class in 0..self.classes {
            plane.copy_from_slice(&first[class * pixels..][..pixels]);
            if between.share > 0.0 {
                let second = &self.recent[1][class * pixels..][..pixels];
                for (value, &other) in plane.iter_mut().zip(second) {
                    *value = between.mix(*value, other);
                }
            }
            self.within_slice(&plane, &mut kept);
            for (row, line) in kept_rows.clone().zip(kept.chunks_exact(kept_columns.len())) {
                let start = row * file_columns + kept_columns.start;
                let of_class = class * labels.len() + start;
                if let Some(written) = probabilities.get_mut(of_class..of_class + line.len()) {
                    written.copy_from_slice(line);
                }
                for (place, &value) in (start..).zip(line) {
                    if value > best[place] {
                        (best[place], labels[place]) = (value, class as u8);
                    }
                }
            }
        }
    }

    /// One class of a slice of the prepared grid, `plane`, on the rows and columns of the kept box.
    fn within_slice(&self, plane: &[f32], kept: &mut Vec<f32>) {
        let [_, rows, columns] = self.regrid.prepared.shape;
        let [_, kept_rows, kept_columns] = self.regrid.extents();
        kept.clear();
        if self.regrid.interpolation == Interpolation::Linear {
            let along_rows = Axis { outer: 1, extent: rows, inner: columns };
            let along_columns = Axis { outer: kept_rows, extent: columns, inner: 1 };
            let resampled = linear_along(plane, along_rows, kept_rows);
            kept.extend(linear_along(&resampled, along_columns, kept_columns));
            // What comes from beyond the edges is nobody's: the probabilities of a voxel add up to 1.
            let [down, across] = [shares(rows, kept_rows), shares(columns, kept_columns)];
            for (line, down) in kept.chunks_exact_mut(kept_columns).zip(down) {
                line.iter_mut().zip(&across).for_each(|(value, across)| *value /= down * across);
            }
            return;
        }
        let across: Vec<Between> =
            (0..kept_columns).map(|column| self.between(2, column)).collect();
        let mut line = vec![0.0; columns];
        for row in 0..kept_rows {
            let down = self.between(1, row);
            let above = &plane[down.first * columns..][..columns];
            let below = &plane[down.second * columns..][..columns];
            for ((value, &above), &below) in line.iter_mut().zip(above).zip(below) {
                *value = down.mix(above, below);
            }
            kept.extend(across.iter().map(|at| at.mix(line[at.first], line[at.second])));
        }
    }
}
