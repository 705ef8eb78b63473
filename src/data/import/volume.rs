//! One NIfTI volume from disk, its axes turned to slices, rows, columns.
//!
//! Knows the file format and its mistakes; what the numbers mean is for the sources to say.

use super::Intensities;
use crate::error::{Context, Failure, Result};
use nifti::volume::{InMemNiftiVolume, NiftiVolume};
use nifti::{NiftiHeader, NiftiObject, NiftiType, ReaderOptions};
use std::path::Path;

/// A NIfTI volume: `[x, y, z]` with x fastest on disk is `[z, y, x]` in row-major order as it is.
pub(super) struct Volume {
    /// Slices, rows, columns.
    pub(super) shape: [usize; 3],
    /// Distance of voxel centres along slices, rows, columns.
    pub(super) spacing_mm: [f64; 3],
    /// Intensities after the file's own slope and intercept.
    pub(super) raw: Intensities,
    /// Where the voxels lie in the scanner, as a matrix; headers need not say.
    matrix: Option<[f32; 12]>,
    /// The same as a quaternion with an offset.
    quaternion: Option<[f32; 7]>,
}

/// Reads a `.nii` or `.nii.gz` of three dimensions.
pub(super) fn read(path: &Path) -> Result<Volume> {
    let cannot = || format!("cannot read `{}` as NIfTI, expected a whole file", path.display());
    let object = ReaderOptions::new().read_file(path).context(cannot)?;
    let header = object.header().clone();
    let volume = object.into_volume();
    let shape = shape(volume.dim()).ok_or_else(|| {
        Failure::new(format!(
            "`{}` has dimensions {:?}, expected three",
            path.display(),
            volume.dim()
        ))
    })?;
    let spacing_mm = spacing_mm(&header);
    if let Some(wrong) = spacing_mm.iter().find(|mm| !(mm.is_finite() && **mm > 0.0)) {
        return Err(Failure::new(format!(
            "`{}` has voxel spacing {wrong}, expected more than 0",
            path.display()
        )));
    }
    let raw = intensities(volume, &header).context(cannot)?;
    let (matrix, quaternion) = (matrix(&header), quaternion(&header));
    Ok(Volume { shape, spacing_mm, raw, matrix, quaternion })
}

/// Extents as slices, rows, columns; trailing dimensions of extent 1 do not count.
fn shape(extents: &[u16]) -> Option<[usize; 3]> {
    match extents {
        [columns, rows, slices, rest @ ..] if rest.iter().all(|&extent| extent == 1) => {
            Some([*slices, *rows, *columns].map(usize::from))
        }
        _ => None,
    }
}

fn spacing_mm(header: &NiftiHeader) -> [f64; 3] {
    // Shortest decimal of the stored f32: 1.5625, 1.37 rather than 1.37000000477.
    let millimetres = |axis: usize| {
        header.pixdim[axis].to_string().parse().unwrap_or(f64::from(header.pixdim[axis]))
    };
    [millimetres(3), millimetres(2), millimetres(1)]
}

fn matrix(header: &NiftiHeader) -> Option<[f32; 12]> {
    let rows = [header.srow_x, header.srow_y, header.srow_z];
    (header.sform_code > 0).then(|| std::array::from_fn(|cell| rows[cell / 4][cell % 4]))
}

fn quaternion(header: &NiftiHeader) -> Option<[f32; 7]> {
    (header.qform_code > 0).then_some([
        header.pixdim[0],
        header.quatern_b,
        header.quatern_c,
        header.quatern_d,
        header.quatern_x,
        header.quatern_y,
        header.quatern_z,
    ])
}

fn intensities(volume: InMemNiftiVolume, header: &NiftiHeader) -> nifti::Result<Intensities> {
    let stored = volume.data_type();
    let mut values: Vec<f64> = match stored {
        NiftiType::Uint8 => numbers(volume.into_nifti_typed_data::<u8>()?),
        NiftiType::Int8 => numbers(volume.into_nifti_typed_data::<i8>()?),
        NiftiType::Uint16 => numbers(volume.into_nifti_typed_data::<u16>()?),
        NiftiType::Int16 => numbers(volume.into_nifti_typed_data::<i16>()?),
        NiftiType::Uint32 => numbers(volume.into_nifti_typed_data::<u32>()?),
        NiftiType::Int32 => numbers(volume.into_nifti_typed_data::<i32>()?),
        NiftiType::Float32 => numbers(volume.into_nifti_typed_data::<f32>()?),
        NiftiType::Float64 => volume.into_nifti_typed_data::<f64>()?,
        other => return Err(nifti::NiftiError::UnsupportedDataType(other)),
    };
    let (slope, intercept) = (f64::from(header.scl_slope), f64::from(header.scl_inter));
    // A slope of 0 means by the standard that there is none.
    let scaled = slope != 0.0 && (slope, intercept) != (1.0, 0.0);
    if scaled {
        for value in &mut values {
            *value = *value * slope + intercept;
        }
    }
    let whole = !scaled && !matches!(stored, NiftiType::Float32 | NiftiType::Float64);
    Ok(Intensities { values, whole })
}

fn numbers<T: Into<f64>>(stored: Vec<T>) -> Vec<f64> {
    stored.into_iter().map(Into::into).collect()
}

/// How far two headers may differ and still place their volumes alike: rounding in conversions.
const TOLERANCE: f64 = 1e-3;

fn close(found: &[f64], expected: &[f64]) -> bool {
    found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= TOLERANCE * (1.0 + b.abs()))
}

impl Volume {
    /// Refuses `labels` that do not lie on this image: another shape, spacing or placement.
    pub(super) fn check_labels(&self, labels: &Self, path: &Path) -> Result<()> {
        let differ = |what: &str, found: String, expected: String| {
            Err(Failure::new(format!(
                "`{}` has {what} {found}, expected {expected} as its image has",
                path.display()
            )))
        };
        if labels.shape != self.shape {
            let (found, expected) = (labels.shape, self.shape);
            return differ("shape", format!("{found:?}"), format!("{expected:?}"));
        }
        if !close(&labels.spacing_mm, &self.spacing_mm) {
            let (found, expected) = (labels.spacing_mm, self.spacing_mm);
            return differ("spacing", format!("{found:?}"), format!("{expected:?}"));
        }
        if let (Some(found), Some(expected)) = (labels.matrix, self.matrix) {
            if !close(&found.map(f64::from), &expected.map(f64::from)) {
                return differ("affine", format!("{found:?}"), format!("{expected:?}"));
            }
        } else if let (Some(found), Some(expected)) = (labels.quaternion, self.quaternion)
            && !close(&found.map(f64::from), &expected.map(f64::from))
        {
            return differ("quaternion", format!("{found:?}"), format!("{expected:?}"));
        }
        Ok(())
    }

    /// The values as labels, `translate` saying which number means which label; `coding` says the
    /// same in words.
    pub(super) fn labels(
        &self,
        path: &Path,
        coding: &str,
        translate: impl Fn(f64) -> Option<u8>,
    ) -> Result<Vec<u8>> {
        let labels = self.raw.values.iter().enumerate().map(|(index, &value)| {
            translate(value).ok_or_else(|| {
                Failure::new(format!(
                    "`{}` holds label {value} {}, expected {coding}",
                    path.display(),
                    crate::data::place(index, self.shape)
                ))
            })
        });
        labels.collect()
    }
}
