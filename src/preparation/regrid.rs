//! The way of voxels from the grid of a file to the prepared one, and of labels back.
//!
//! Knows positions and labels, and no intensities.

use super::steps::{Crop, Interpolation, Preparation, Spacing};
use crate::error::{Failure, Result};
use crate::limits::{EXTENT, VOLUME_VOXELS, elements};
use crate::scan::{Grid, Placement, Scan, elect};
use std::ops::Range;

/// The label of voxels that nobody annotated.
const UNKNOWN: u8 = 255;

/// How many times as far as along the finest axis voxels lie apart along a coarse one, at least.
const COARSE: f64 = 3.0;

/// From the grid of a file to the prepared grid: first a box is kept, then its voxels become fewer or more.
///
/// The edges of the box and of the prepared grid coincide, so that of `n` prepared voxels along an axis of
/// `m` kept ones voxel `i` has its centre at `(i + 1/2) m / n - 1/2` of the kept ones. Values are never taken
/// between the voxels of a coarse axis, the only one along which they lie more than 3 times as far apart as
/// along the finest, in the file or prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Regrid {
    /// The grid of the file.
    pub file: Grid,
    /// Slices, rows, columns of the file that are kept.
    pub kept: [Range<usize>; 3],
    /// The prepared grid.
    pub prepared: Grid,
    /// The axis between whose voxels nothing lies.
    pub(super) coarse: Option<usize>,
    /// How numbers are taken between other voxels.
    pub(super) interpolation: Interpolation,
}

/// An annotation on the prepared grid, and what became of its voxels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Class of each prepared voxel; 255 where nobody said.
    pub values: Vec<u8>,
    /// Annotated voxels of the file.
    pub annotated: usize,
    /// Annotated voxels of the prepared grid.
    pub carried: usize,
}

impl Preparation {
    /// The way of the voxels of `scan`. Refuses distances for a file that has none, and prepared grids of
    /// more than [`VOLUME_VOXELS`].
    pub fn regrid(&self, scan: &Scan) -> Result<Regrid> {
        let kept = match self.crop {
            Crop::None => scan.grid.shape.map(|extent| 0..extent),
            Crop::Nonzero => nonzero_box(scan),
            Crop::NonzeroButLast => nonzero_box(scan).map(|Range { start, end }| {
                let end = end.saturating_sub(1).max(start + 1);
                start..end
            }),
            Crop::Foreground => content_box(scan, |channel, value| {
                let scaled = self.channels.get(channel);
                scaled.is_some_and(|channel| channel.intensities.is_foreground(value))
            }),
        };
        self.regrid_of(scan.grid.clone(), kept)
    }

    /// The way of the voxels that are `kept` of a scan on the grid `file`, whatever [`Preparation::crop`] says.
    pub(super) fn regrid_of(&self, file: Grid, kept: [Range<usize>; 3]) -> Result<Regrid> {
        let extents = [0, 1, 2].map(|axis| kept[axis].len());
        let interpolation = self.interpolation;
        let Some(shape) = self.resampled(&file, extents)? else {
            let prepared = cut(&file, &kept, extents, file.spacing_mm);
            return Ok(Regrid { file, kept, prepared, coarse: None, interpolation });
        };
        let spacing = file.spacing_mm.map(|stored| {
            [0, 1, 2].map(|axis| stored[axis] * extents[axis] as f64 / shape[axis] as f64)
        });
        // Within slices straight lines are drawn whatever lies between voxels.
        let is_kept = |axis: &usize| *axis == 0 || interpolation == Interpolation::Cubic;
        let coarse_of = |spacing: Option<[f64; 3]>| spacing.and_then(coarse_axis);
        let coarse = coarse_of(file.spacing_mm).or_else(|| coarse_of(spacing)).filter(is_kept);
        let prepared = cut(&file, &kept, shape, spacing);
        Ok(Regrid { file, kept, prepared, coarse, interpolation })
    }

    /// Slices, rows, columns that a scan on the grid `file` has once it is prepared, at the most: without a crop
    /// exactly these. Refuses what [`Preparation::regrid`] refuses of a scan that is not cropped.
    pub fn largest_shape(&self, file: &Grid) -> Result<[usize; 3]> {
        Ok(self.resampled(file, file.shape)?.unwrap_or(file.shape))
    }

    /// How many voxels take the place of `extents` voxels of a file; none where they stay.
    fn resampled(&self, file: &Grid, extents: [usize; 3]) -> Result<Option<[usize; 3]>> {
        if let Spacing::Size([rows, columns]) = self.spacing {
            let shape = [extents[0], rows, columns];
            return self.refuse_large(shape, "resized").map(|()| Some(shape));
        }
        let (Some(stored), Some(target)) = (file.spacing_mm, self.target(file)?) else {
            return Ok(None);
        };
        let shape = [0, 1, 2].map(|axis| {
            let extent = (extents[axis] as f64 * stored[axis] / target[axis]).round();
            (extent as usize).max(1)
        });
        let how = format!("with voxels {target:?} mm apart instead of {stored:?}");
        self.refuse_large(shape, &how).map(|()| Some(shape))
    }

    /// Refuses prepared grids that are too large; `how` they came about.
    fn refuse_large(&self, shape: [usize; 3], how: &str) -> Result<()> {
        let [slices, rows, columns] = shape;
        let counts = [slices, rows, columns, self.channels.len()];
        let fits = shape.iter().all(|&extent| extent <= EXTENT);
        if fits && elements(&counts, VOLUME_VOXELS).is_some() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{how} the scan has shape {shape:?}, expected at most {EXTENT} along each axis and {VOLUME_VOXELS} \
             voxels"
        ))
        .hint("prepare the data with larger distances between voxels"))
    }

    /// The wished distances of slices, rows, columns; none where they stay.
    fn target(&self, file: &Grid) -> Result<Option<[f64; 3]>> {
        if self.spacing == Spacing::AsStored {
            return Ok(None);
        }
        let Some([slices, _, _]) = file.spacing_mm else {
            return Err(Failure::new(
                "the file does not say how far apart its voxels are, and the preparation resamples them",
            )
            .hint("save it in a format that holds the spacing, such as NIfTI"));
        };
        Ok(match self.spacing {
            Spacing::AsStored | Spacing::Size(_) => None,
            Spacing::InPlane([rows, columns]) => Some([slices, rows, columns]),
            Spacing::Volume(all) => Some(all),
        })
    }
}

/// The smallest box of voxels that are not 0 in every channel.
fn nonzero_box(scan: &Scan) -> [Range<usize>; 3] {
    content_box(scan, |_, value| value.abs() > 0.0)
}

/// The smallest box outside of which no channel has content; everything where none has any.
fn content_box(scan: &Scan, is_content: impl Fn(usize, f32) -> bool) -> [Range<usize>; 3] {
    let [_, rows, columns] = scan.grid.shape;
    // First and last slice, row, column.
    let mut bounds: Option<[[usize; 2]; 3]> = None;
    for (index, line) in scan.voxels.chunks_exact(columns.max(1)).enumerate() {
        let channel = index / rows % scan.channels;
        let is_content = |value: &f32| is_content(channel, *value);
        let Some(first) = line.iter().position(is_content) else { continue };
        let last = line.iter().rposition(is_content).unwrap_or(first);
        let (slice, row) = (index / (rows * scan.channels), index % rows);
        let found = [[slice; 2], [row; 2], [first, last]];
        let known = bounds.unwrap_or(found);
        bounds = Some([0, 1, 2].map(|axis| {
            let ([first, last], [from, to]) = (known[axis], found[axis]);
            [first.min(from), last.max(to)]
        }));
    }
    bounds.map_or(scan.grid.shape.map(|extent| 0..extent), |bounds| {
        bounds.map(|[first, last]| first..last + 1)
    })
}

/// The box `kept` of `file` with `shape` voxels, whose edges are those of the box.
fn cut(
    file: &Grid,
    kept: &[Range<usize>; 3],
    shape: [usize; 3],
    spacing_mm: Option<[f64; 3]>,
) -> Grid {
    let placement = file.placement.map(|Placement { direction, mut origin_mm }| {
        let (stored, prepared) =
            (file.spacing_mm.unwrap_or([1.0; 3]), spacing_mm.unwrap_or([1.0; 3]));
        for axis in 0..3 {
            let shift =
                kept[axis].start as f64 * stored[axis] + (prepared[axis] - stored[axis]) / 2.0;
            for (origin, along) in origin_mm.iter_mut().zip(direction[axis]) {
                *origin += shift * along;
            }
        }
        Placement { direction, origin_mm }
    });
    Grid { shape, spacing_mm, placement }
}

/// The only axis along which voxels lie more than [`COARSE`] times as far apart as along the finest.
fn coarse_axis(spacing: [f64; 3]) -> Option<usize> {
    let finest = spacing.iter().copied().fold(f64::INFINITY, f64::min);
    let mut coarse = (0..3).filter(|&axis| spacing[axis] > COARSE * finest);
    coarse.next().filter(|_| coarse.next().is_none())
}

/// Which of `to` voxels has voxel `index` of `from` within it, where the edges of both rows coincide.
pub(super) fn nearest(index: usize, from: usize, to: usize) -> usize {
    (2 * index + 1) * to / (2 * from)
}

/// Which of `to` voxels the first edge of voxel `index` of `from` lies in, by single-precision numbers as in PyTorch.
fn corner(index: usize, from: usize, to: usize) -> usize {
    let scale = to as f32 / from as f32;
    ((index as f32 * scale) as usize).min(to - 1)
}

impl Regrid {
    /// Whether every voxel stays where it is.
    pub fn is_same(&self) -> bool {
        self.file.shape == self.extents() && self.file.shape == self.prepared.shape
    }

    /// Kept slices, rows, columns.
    pub(super) fn extents(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.kept[axis].len())
    }

    /// An annotation of the file on the prepared grid, voxel by voxel.
    ///
    /// Each annotated voxel goes to the prepared voxel that it lies in. Where several meet, the class of most
    /// of them holds, and of equally many the smallest that is not the background. A prepared voxel
    /// that no annotated one goes to is unknown. Where straight lines are drawn, labels are those of
    /// [`Regrid::carry_dense`]. Refuses an annotation of another length.
    pub fn carry_annotation(&self, values: &[u8]) -> Result<Carried> {
        check_length(values.len(), &self.file)?;
        let annotated = values.iter().filter(|&&label| label != UNKNOWN).count();
        if self.is_same() {
            return Ok(Carried { values: values.to_vec(), annotated, carried: annotated });
        }
        if self.interpolation != Interpolation::Cubic {
            let values = self.carry_dense(values)?;
            let carried = values.iter().filter(|&&label| label != UNKNOWN).count();
            return Ok(Carried { values, annotated, carried });
        }
        let (extents, shape) = (self.extents(), self.prepared.shape);
        let [to_slices, to_rows, to_columns] = [0, 1, 2].map(|axis| {
            (0..extents[axis]).map(|i| nearest(i, extents[axis], shape[axis])).collect::<Vec<_>>()
        });
        let mut votes: Vec<(usize, u8)> = Vec::new();
        for (slice, to_slice) in to_slices.iter().enumerate() {
            for (row, to_row) in to_rows.iter().enumerate() {
                let line = self.kept_line(values, slice, row);
                let start = (to_slice * shape[1] + to_row) * shape[2];
                let known = line.iter().zip(&to_columns).filter(|(label, _)| **label != UNKNOWN);
                votes.extend(known.map(|(label, column)| (start + column, *label)));
            }
        }
        let mut values = vec![UNKNOWN; shape.iter().product()];
        let carried = elect(votes, &mut values);
        Ok(Carried { values, annotated, carried })
    }

    /// Labels of every voxel of the file on the prepared grid: each prepared voxel has the label of the one
    /// that its centre lies in, or with [`Interpolation::Bilinear`] its first corner. Refuses labels of another length.
    pub fn carry_dense(&self, values: &[u8]) -> Result<Vec<u8>> {
        check_length(values.len(), &self.file)?;
        if self.is_same() {
            return Ok(values.to_vec());
        }
        let (extents, shape) = (self.extents(), self.prepared.shape);
        let from = |axis: usize, index: usize| match self.interpolation {
            Interpolation::Bilinear => corner(index, shape[axis], extents[axis]),
            _ => nearest(index, shape[axis], extents[axis]),
        };
        let columns: Vec<usize> = (0..shape[2]).map(|column| from(2, column)).collect();
        let mut carried = Vec::with_capacity(shape.iter().product());
        for slice in 0..shape[0] {
            for row in 0..shape[1] {
                let line = self.kept_line(values, from(0, slice), from(1, row));
                carried.extend(columns.iter().map(|&column| line[column]));
            }
        }
        Ok(carried)
    }

    /// Where a row of the kept box lies among the voxels of the file.
    fn kept_place(&self, slice: usize, row: usize) -> Range<usize> {
        let [slices, rows, columns] = &self.kept;
        let [_, file_rows, file_columns] = self.file.shape;
        let start = ((slices.start + slice) * file_rows + rows.start + row) * file_columns;
        start + columns.start..start + columns.end
    }

    fn kept_line<'a>(&self, values: &'a [u8], slice: usize, row: usize) -> &'a [u8] {
        &values[self.kept_place(slice, row)]
    }
}

fn check_length(found: usize, grid: &Grid) -> Result<()> {
    let expected = grid.voxels();
    if found == expected {
        return Ok(());
    }
    Err(Failure::new(format!(
        "a label map has {found} voxels, expected {expected} for shape {:?}",
        grid.shape
    )))
}
