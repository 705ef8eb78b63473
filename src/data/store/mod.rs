//! The packed data set: one HDF5 file, layout "scrimp data set 1".
//!
//! ```text
//! /                    attributes layout, name, provenance, classes, in colour also channels
//! /cases               table: name, patient, frame, fold, slices, rows, columns, spacing_*_mm
//! /volumes/NAME/image         u8 or u16 codes, or f32 where a volume has too many intensities
//! /volumes/NAME/image_levels  f32, the intensity of each code
//! /volumes/NAME/scribble …    u8, one array per kind of annotation
//! ```
//! Arrays are `[slices, rows, columns]` in chunks of one slice; without the attribute `channels` an
//! image is grey, else it is `[slices, channels, rows, columns]`. Arrays carry the xxh3 of their decoded
//! little-endian bytes as attribute `xxh3`. Unknown spacing is NaN. This module knows no sources
//! of data and no training.

mod read;
mod write;

pub use read::read;
pub use write::{Writer, write};

use hdf5::types::VarLenUnicode;
use hdf5::{FileBuilder, H5Type};
use xxhash_rust::xxh3::Xxh3;

/// The value of the root attribute `layout`; another layout gets another number.
const LAYOUT: &str = "scrimp data set 1";

/// The root attribute that says how many channels images have; absent from grey data sets.
const CHANNELS: &str = "channels";

/// One row of `/cases`.
#[derive(H5Type, Clone, Debug)]
#[repr(C)]
struct Row {
    name: VarLenUnicode,
    patient: VarLenUnicode,
    frame: u32,
    fold: u32,
    slices: u64,
    rows: u64,
    columns: u64,
    spacing_slices_mm: f64,
    spacing_rows_mm: f64,
    spacing_columns_mm: f64,
}

/// The extents of a stored image of `shape`, slices, rows and columns.
fn image_extents([slices, rows, columns]: [usize; 3], channels: usize) -> Vec<usize> {
    if channels == 1 { vec![slices, rows, columns] } else { vec![slices, channels, rows, columns] }
}

/// How packed files are opened. A file under its final name never changes, so a lock protects
/// nothing, and on shared file systems it fails where many ranks read.
fn without_locks() -> FileBuilder {
    let mut builder = hdf5::File::with_options();
    builder.with_fapl(|access| access.file_locking(false));
    builder
}

/// Checksum of the case table, over its rows as text: strings have no fixed bytes in HDF5.
fn table_checksum(rows: &[Row]) -> u64 {
    let mut hash = Xxh3::new();
    for row in rows {
        let spacing = [row.spacing_slices_mm, row.spacing_rows_mm, row.spacing_columns_mm];
        let line = format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{:?}\n",
            row.name, row.patient, row.frame, row.fold, row.slices, row.rows, row.columns, spacing
        );
        hash.update(line.as_bytes());
    }
    hash.digest()
}

/// Checksum of intensities, over their little-endian bytes.
pub(super) fn image_checksum(image: &[f32]) -> u64 {
    let mut hash = Xxh3::new();
    let mut bytes = Vec::with_capacity(1 << 16);
    for part in image.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
        hash.update(&bytes);
    }
    hash.digest()
}
