//! What a preparation does to a scan.
//!
//! Knows the order of the steps; what each of them does stands beside it.

use super::between::between_along;
use super::intensities::{self, check_finite};
use super::linear::linear_along;
use super::regrid::Regrid;
use super::spline::{Axis, cubic_along, nearest_along};
use super::steps::{Intensities, Interpolation, Over, Preparation};
use super::turn::Turn;
use crate::error::{Failure, Result};
use crate::scan::{Grid, Scan};
use std::ops::Range;

/// A scan as networks see it, and the way back.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The scan on the prepared grid, its intensities finite.
    pub scan: Scan,
    /// How the voxels of the turned scan came there, and how labels go back.
    pub regrid: Regrid,
    /// How the scan of the file was turned before.
    pub turn: Turn,
}

impl Preparation {
    /// Prepares a scan as it was read from its file.
    ///
    /// Intensities are resampled by cubic splines, cut to the range that the channel had, and along a coarse
    /// axis taken from the nearest voxel, see [`Regrid`]; then they are scaled, or before that, see
    /// [`Interpolation`]. A preparation that keeps grid and intensities returns every bit of the scan.
    ///
    /// Refuses another number of channels than the preparation has, values that are not finite, and what
    /// [`Preparation::regrid`] and [`intensities::scale`] refuse.
    pub fn apply(&self, scan: Scan) -> Result<Prepared> {
        if !self.modalities.is_empty() {
            return self.of_modality(None)?.apply(scan);
        }
        self.check_voxels(&scan)?;
        let (scan, turn) = self.turned(scan);
        let regrid = self.regrid(&scan)?;
        self.applied(scan, regrid, turn)
    }

    /// Prepares the voxels of a scan that are `kept`, slices, rows and columns once it is turned, instead of those that
    /// [`Preparation::crop`] names: for a box that labels say, which a scan without labels cannot have.
    ///
    /// Refuses a box without voxels or beyond the scan, and what [`Preparation::apply`] refuses.
    pub fn apply_within(&self, scan: Scan, kept: [Range<usize>; 3]) -> Result<Prepared> {
        self.check_voxels(&scan)?;
        let (scan, turn) = self.turned(scan);
        let shape = scan.grid.shape;
        let mut axes = kept.iter().zip(shape);
        if axes.any(|(kept, extent)| kept.is_empty() || kept.end > extent) {
            return Err(Failure::new(format!(
                "the voxels {kept:?} are to be kept, expected some within shape {shape:?}"
            )));
        }
        let regrid = self.regrid_of(scan.grid.clone(), kept)?;
        self.applied(scan, regrid, turn)
    }

    fn turned(&self, scan: Scan) -> (Scan, Turn) {
        let turn = Turn::of(self.orientation, &scan.grid);
        (turn.apply(scan), turn)
    }

    /// Refuses another number of channels than the preparation has, and values that are not finite.
    fn check_voxels(&self, scan: &Scan) -> Result<()> {
        if scan.channels != self.channels.len() {
            let names: Vec<&str> =
                self.channels.iter().map(|channel| channel.name.as_str()).collect();
            return Err(Failure::new(format!(
                "the scan has {} channels, expected {}: `{}`",
                scan.channels,
                names.len(),
                names.join("`, `")
            )));
        }
        check_finite(&scan.voxels)
    }

    fn applied(&self, scan: Scan, regrid: Regrid, turn: Turn) -> Result<Prepared> {
        let scan = kept_box(scan, &regrid);
        let scan = match self.interpolation {
            Interpolation::Cubic => self.scaled(resampled(scan, &regrid))?,
            Interpolation::Linear | Interpolation::Bilinear => {
                resampled(self.scaled(scan)?, &regrid)
            }
        };
        Ok(Prepared { scan, regrid, turn })
    }

    /// The scan with its intensities scaled.
    fn scaled(&self, mut scan: Scan) -> Result<Scan> {
        let pixels = scan.grid.pixels();
        if let [only] = &self.channels[..] {
            scan.voxels = scaled(only.intensities, &scan.voxels, pixels)?;
            return Ok(scan);
        }
        for (index, channel) in self.channels.iter().enumerate() {
            let values = channel_of(&scan, index);
            let values = scaled(channel.intensities, &values, pixels).map_err(|failure| {
                failure.during(format!("cannot scale channel `{}`", channel.name))
            })?;
            put_channel(&mut scan, index, &values);
        }
        Ok(scan)
    }
}

/// The numbers of one channel scaled, slices of so many pixels one by one where that is meant.
fn scaled(intensities: Intensities, values: &[f32], pixels: usize) -> Result<Vec<f32>> {
    if intensities != (Intensities::ZScore { over: Over::Slice }) {
        return intensities::scale(intensities, values);
    }
    let slices = values.chunks_exact(pixels.max(1));
    Ok(slices
        .map(|slice| intensities::scale(intensities, slice))
        .collect::<Result<Vec<_>>>()?
        .concat())
}

/// The numbers of one channel, slice after slice.
fn channel_of(scan: &Scan, channel: usize) -> Vec<f32> {
    let pixels = scan.grid.pixels().max(1);
    let planes = scan.voxels.chunks_exact(pixels).skip(channel).step_by(scan.channels);
    planes.flatten().copied().collect()
}

fn put_channel(scan: &mut Scan, channel: usize, values: &[f32]) {
    let pixels = scan.grid.pixels().max(1);
    let planes = scan.voxels.chunks_exact_mut(pixels).skip(channel).step_by(scan.channels);
    for (plane, values) in planes.zip(values.chunks_exact(pixels)) {
        plane.copy_from_slice(values);
    }
}

/// The kept box of a scan.
fn kept_box(scan: Scan, regrid: &Regrid) -> Scan {
    let (shape, extents) = (scan.grid.shape, regrid.extents());
    if extents == shape {
        return scan;
    }
    let voxels = kept(&scan.voxels, (shape, scan.channels), regrid);
    Scan { grid: Grid { shape: extents, ..scan.grid }, voxels, ..scan }
}

/// The kept box of a scan with the voxels of the prepared grid.
fn resampled(scan: Scan, regrid: &Regrid) -> Scan {
    let Scan { grid, channels, mut voxels } = scan;
    let [slices, rows, columns] = grid.shape;
    let [to_slices, to_rows, to_columns] = regrid.prepared.shape;
    // Along slices last, when the other axes are as they will be.
    let steps = [
        (2, Axis { outer: slices * channels * rows, extent: columns, inner: 1 }, to_columns),
        (1, Axis { outer: slices * channels, extent: rows, inner: to_columns }, to_rows),
        (0, Axis { outer: 1, extent: slices, inner: channels * to_rows * to_columns }, to_slices),
    ];
    let ranges = ranges(&voxels, channels, rows * columns);
    let mut is_smooth = false;
    for (axis, along, to) in steps.into_iter().filter(|(_, along, to)| along.extent != *to) {
        voxels = match regrid.interpolation {
            _ if regrid.coarse == Some(axis) => nearest_along(&voxels, along, to),
            Interpolation::Linear => linear_along(&voxels, along, to),
            Interpolation::Bilinear => between_along(&voxels, along, to),
            Interpolation::Cubic => {
                is_smooth = true;
                cubic_along(&voxels, along, to)
            }
        };
    }
    if is_smooth {
        let planes = voxels.chunks_exact_mut(to_rows * to_columns);
        for (plane, (low, high)) in planes.zip(ranges.into_iter().cycle()) {
            for value in plane {
                *value = value.clamp(low, high);
            }
        }
    }
    Scan { grid: regrid.prepared.clone(), channels, voxels }
}

/// The voxels of the kept box.
fn kept(
    voxels: &[f32],
    ([_, rows, columns], channels): ([usize; 3], usize),
    regrid: &Regrid,
) -> Vec<f32> {
    let [in_slices, in_rows, in_columns] = regrid.kept.clone();
    let mut kept = Vec::with_capacity(regrid.extents().iter().product::<usize>() * channels);
    for plane in in_slices.start * channels..in_slices.end * channels {
        for row in in_rows.clone() {
            let line = &voxels[(plane * rows + row) * columns..][..columns];
            kept.extend_from_slice(&line[in_columns.clone()]);
        }
    }
    kept
}

/// Smallest and largest value of each channel.
fn ranges(voxels: &[f32], channels: usize, pixels: usize) -> Vec<(f32, f32)> {
    let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); channels];
    for (index, plane) in voxels.chunks_exact(pixels.max(1)).enumerate() {
        let (low, high) = &mut ranges[index % channels];
        for &value in plane {
            (*low, *high) = (low.min(value), high.max(value));
        }
    }
    ranges
}
