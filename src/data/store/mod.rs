//! The packed data set: one HDF5 file behind 512 bytes that hold a digest of it, layout "scrimp data set 3".
//!
//! ```text
//! 512 bytes of text    layout, length and digest of all that follows; HDF5 passes over them
//! /                    attributes layout, name, provenance, classes, preparation (TOML, where known),
//!                      channels (where there are more than one), levels (f64, where there is gaze),
//!                      test_fold (where there are cases to test with)
//! /cases               table: name, patient, frame, fold, slices, rows, columns, spacing_*_mm
//! /placements          f64 [cases, 4, 3]: where the first voxel lies in mm, unit vectors along slices,
//!                      rows, columns
//! /modalities          strings [cases]: what each was taken with; absent where nobody says it
//! /classes_annotated   u8 [cases, classes]: 1 for each class that was looked for, else 0; absent where all were
//! /volumes/NAME/image         u8 or u16 codes, or f32 where a volume has too many intensities
//! /volumes/NAME/image_levels  f32, the intensity of each code
//! /volumes/NAME/scribble …    u8, one array per kind of annotation
//! ```
//! Arrays are `[slices, rows, columns]`; without the attribute `channels` an image has one, else it is
//! `[slices, channels, rows, columns]`. Arrays carry the xxh3 of their decoded little-endian bytes as
//! attribute `xxh3`. Unknown spacing and placement are NaN. Strings have a fixed length and are filled up
//! with zeros.
//!
//! An array of one slice is one chunk. Others lie in chunks of up to 16 slices of 64 x 64 pixels of one
//! channel, so that a patch can be had without the rest of its volume; reading all of ACDC takes 1.3 s,
//! in chunks of one slice each 1.1 s.
//!
//! Layouts that are still read: "scrimp data set 2" has neither placements nor a preparation, and
//! "scrimp data set 1" moreover no bytes in front, hence no digest, and strings of any length. This module
//! knows no sources of data and no training.

mod destination;
mod heap;
mod read;
mod seal;
mod text;
mod write;

pub use destination::{Destination, Existing};
pub use read::{each_case, is_packed, read};
pub use write::{About, Writer, write};

use crate::error::{Failure, Result};
use crate::scan::Placement;
use hdf5::types::{FixedUnicode, TypeDescriptor};
use hdf5::{FileBuilder, H5Type};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The value of the root attribute `layout`; another layout gets another number.
const LAYOUT: &str = "scrimp data set 3";

/// A layout that is read as well, without placements and preparation.
const UNPLACED_LAYOUT: &str = "scrimp data set 2";

/// The layout of files that no digest covers.
const BARE_LAYOUT: &str = "scrimp data set 1";

/// The root attribute that says how many channels images have; absent where they have one.
const CHANNEL_COUNT: &str = "channels";

/// The root attribute that says how scans were prepared; absent where that is not known.
const PREPARATION: &str = "preparation";

/// The root attribute that says what the values of gaze stand for; absent where there are none.
const LEVELS: &str = "levels";

/// The root attribute that says which fold no run learns from; absent where there is none.
const TEST_FOLD: &str = "test_fold";

/// The array of where cases lie in the patient.
const PLACEMENTS: &str = "placements";

/// The array of what cases were taken with.
const MODALITIES: &str = "modalities";

/// The array of the classes that were looked for in each case.
const CLASSES_ANNOTATED: &str = "classes_annotated";

/// UTF-8 bytes of the longest name of a case, patient, class or data set.
const NAME_BYTES: usize = 256;

/// UTF-8 bytes of the longest provenance and the longest preparation.
const TEXT_BYTES: usize = 1 << 14;

type Name = FixedUnicode<NAME_BYTES>;
type LongText = FixedUnicode<TEXT_BYTES>;

/// A row of [`PLACEMENTS`]: origin, then directions of slices, rows, columns; NaN where unknown.
type StoredPlacement = [[f64; 3]; 4];

/// One row of `/cases`.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    patient: String,
    frame: u32,
    fold: u32,
    modality: String,
    /// As [`super::Case::classes_annotated`].
    classes_annotated: Vec<u8>,
    /// Slices, rows, columns.
    shape: [usize; 3],
    /// Of slices, rows, columns; NaN where unknown.
    spacing_mm: [f64; 3],
    placement: StoredPlacement,
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

/// Codes of two bytes have no more levels.
const MOST_LEVELS: usize = 1 << 16;

/// Where a case lies that does not say so.
const UNPLACED: StoredPlacement = [[f64::NAN; 3]; 4];

fn stored_placement(placement: Placement) -> StoredPlacement {
    let [slices, rows, columns] = placement.direction;
    [placement.origin_mm, slices, rows, columns]
}

fn placement([origin_mm, slices, rows, columns]: StoredPlacement) -> Option<Placement> {
    let direction = [slices, rows, columns];
    let is_known = direction.iter().chain([&origin_mm]).flatten().all(|number| number.is_finite());
    is_known.then_some(Placement { direction, origin_mm })
}

/// A row of [`CLASSES_ANNOTATED`]: 1 for each class that was looked for, else 0.
fn stored_classes(classes_annotated: &[u8], class_count: usize) -> Vec<u8> {
    if classes_annotated.is_empty() {
        return vec![1; class_count];
    }
    let is_looked_for =
        |class: usize| classes_annotated.iter().any(|&one| usize::from(one) == class);
    (0..class_count).map(|class| u8::from(is_looked_for(class))).collect()
}

/// The classes that a row of [`CLASSES_ANNOTATED`] names, none where it names all. Refuses a row without background,
/// which would name none.
fn classes_annotated(row: &[u8]) -> Result<Vec<u8>> {
    if row.first() != Some(&1) || row.iter().any(|&flag| flag > 1) {
        let what = format!(
            "a row of it is {row:?}, expected 1 or 0 for each class, and 1 for the background"
        );
        return Err(Failure::new(what));
    }
    if row.iter().all(|&flag| flag == 1) {
        return Ok(Vec::new());
    }
    Ok((0..=u8::MAX).zip(row).filter(|&(_, &flag)| flag == 1).map(|(class, _)| class).collect())
}

/// Whether the columns of a table lie within its rows; the library copies them without looking.
fn fits(table: &TypeDescriptor) -> bool {
    let TypeDescriptor::Compound(table) = table else { return false };
    table.fields.iter().all(|column| {
        column.offset.checked_add(column.ty.size()).is_some_and(|end| end <= table.size)
    })
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

/// Checksum of where cases lie, over the little-endian bytes.
fn placements_checksum<'a>(placements: impl Iterator<Item = &'a StoredPlacement>) -> u64 {
    let numbers = placements.flatten().flatten();
    xxh3_64(&numbers.flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
}

/// Checksum of what cases were taken with, over their names, each on a line.
fn modalities_checksum(rows: &[Row]) -> u64 {
    let names: Vec<&str> = rows.iter().flat_map(|row| [&*row.modality, "\n"]).collect();
    xxh3_64(names.concat().as_bytes())
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
