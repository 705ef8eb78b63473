//! The packed data set: one HDF5 file behind 512 bytes that hold a digest of it, layout "scrimp data set 2".
//!
//! ```text
//! 512 bytes of text    layout, length and digest of all that follows; HDF5 passes over them
//! /                    attributes layout, name, provenance, classes, in colour also channels
//! /cases               table: name, patient, frame, fold, slices, rows, columns, spacing_*_mm
//! /volumes/NAME/image         u8 or u16 codes, or f32 where a volume has too many intensities
//! /volumes/NAME/image_levels  f32, the intensity of each code
//! /volumes/NAME/scribble …    u8, one array per kind of annotation
//! ```
//! Arrays are `[slices, rows, columns]` in chunks of one slice; without the attribute `channels` an
//! image is grey, else it is `[slices, channels, rows, columns]`. Arrays carry the xxh3 of their decoded
//! little-endian bytes as attribute `xxh3`. Unknown spacing is NaN. Strings have a fixed length and are
//! filled up with zeros. Layout "scrimp data set 1", which is still read, has no bytes in front, hence no
//! digest, and strings of any length. This module knows no sources of data and no training.

mod destination;
mod heap;
mod read;
mod seal;
mod write;

pub use destination::{Destination, Existing};
pub use read::read;
pub use write::{Writer, write};

use hdf5::types::FixedUnicode;
use hdf5::{FileBuilder, H5Type};
use xxhash_rust::xxh3::Xxh3;

/// The value of the root attribute `layout`; another layout gets another number.
const LAYOUT: &str = "scrimp data set 2";

/// The layout of files that no digest covers.
const BARE_LAYOUT: &str = "scrimp data set 1";

/// The root attribute that says how many channels images have; absent from grey data sets.
const CHANNELS: &str = "channels";

/// UTF-8 bytes of the longest name of a case, patient, class or data set.
const NAME_BYTES: usize = 256;

/// UTF-8 bytes of the longest provenance.
const PROVENANCE_BYTES: usize = 1 << 14;

type Name = FixedUnicode<NAME_BYTES>;
type Provenance = FixedUnicode<PROVENANCE_BYTES>;

/// One row of `/cases`.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    patient: String,
    frame: u32,
    fold: u32,
    /// Slices, rows, columns.
    shape: [usize; 3],
    /// Of slices, rows, columns; NaN where unknown.
    spacing_mm: [f64; 3],
}

/// One row as it is stored, with strings of one length, or as [`BARE_LAYOUT`] has them of any.
#[derive(H5Type, Clone)]
#[repr(C)]
struct StoredRow<S: H5Type> {
    name: S,
    patient: S,
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
pub(super) fn without_locks() -> FileBuilder {
    let mut builder = hdf5::File::with_options();
    builder.with_fapl(|access| access.file_locking(false));
    builder
}

/// Checksum of the case table, over its rows as text.
fn table_checksum(rows: &[Row]) -> u64 {
    let mut hash = Xxh3::new();
    for row in rows {
        let [slices, lines, columns] = row.shape;
        let line = format!(
            "{}\t{}\t{}\t{}\t{slices}\t{lines}\t{columns}\t{:?}\n",
            row.name, row.patient, row.frame, row.fold, row.spacing_mm
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
