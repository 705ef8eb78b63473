//! DICOM from disk: scans, the numbers of label maps, and places alone, of a file or of a folder of slices.
//!
//! Slices are read in the order of the grid, one after the other. Knows neither how elements are written nor how slices
//! are sorted.

use super::file::Loaded;
use super::series::{Series, dicom_files};
use crate::error::{Failure, Result};
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::notes::Notes;
use std::path::{Path, PathBuf};

pub(in crate::scan) use super::file::is_dicom;

/// Reads an image, grey or in colour.
pub(in crate::scan) fn read(path: &Path, notes: &Notes) -> Result<Scan> {
    let series = Series::open(path, notes)?;
    let voxels = values(&series, |value| value as f32)?;
    Ok(Scan { grid: series.file.grid, channels: series.channels, voxels })
}

/// Reads the numbers of a label map. Refuses colours.
pub(in crate::scan) fn read_numbers(path: &Path, notes: &Notes) -> Result<Numbers> {
    let series = Series::open(path, notes)?;
    if series.channels > 1 {
        return Err(Failure::new(format!(
            "{} has {} numbers for each voxel, expected one, its label",
            series.file.name, series.channels
        )));
    }
    let values = values(&series, |value| value)?;
    let slopes = series.slices.iter().filter_map(|slice| slice.plane.scaling);
    let step = slopes.map(|[slope, _intercept]| slope.abs()).fold(0.0, f64::max);
    Ok(Numbers { values, step, file: series.file, segments: None })
}

/// Reads where slices lie, and no pixels.
pub(in crate::scan) fn read_grid(path: &Path, notes: &Notes) -> Result<FileGrid> {
    Series::open(path, notes).map(|series| series.file)
}

/// The files of the slices in a folder.
pub(in crate::scan) fn others(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() { dicom_files(path, &Notes::default()) } else { Ok(Vec::new()) }
}

/// Slices, channels, rows, columns, after slope and intercept.
fn values<T>(series: &Series, value: impl Fn(f64) -> T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    // Slices of one file follow each other as a rule.
    let by_image = series.slices.chunk_by(|one, other| one.image == other.image);
    for slices in by_image {
        let image = &series.images[slices[0].image];
        let loaded = Loaded::open(&image.path)?;
        let data = loaded.data()?;
        for slice in slices {
            let frame = [slice.frame, image.frames.len()];
            let numbers = image.form.numbers(&loaded, &data, frame)?;
            values.extend(numbers.into_iter().map(|stored| match slice.plane.scaling {
                Some([slope, intercept]) => value(stored * slope + intercept),
                None => value(stored),
            }));
        }
    }
    Ok(values)
}
