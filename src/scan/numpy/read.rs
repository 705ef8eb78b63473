//! Arrays of NumPy from disk: scans, the numbers of label maps, and shapes alone.
//!
//! A file does not say how far voxels are apart, nor where they lie. Knows which array of several is meant.

use super::archive::{self, Archive};
use super::header::{self, Header};
use crate::error::{Failure, Result};
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::content::Content;
use crate::scan::grid::Grid;
use crate::scan::notes::Notes;
use crate::scan::voxels::{Arrangement, Block};
use std::path::Path;

/// What the array of an image is called, and that of labels, where there are several.
const IMAGES: [&str; 3] = ["image", "arr_0", "data"];
const LABELS: [&str; 3] = ["label", "arr_0", "data"];

/// Whether a file begins as an array of NumPy does, or an archive.
pub(in crate::scan) fn is_numpy(start: &[u8]) -> bool {
    start.starts_with(header::MAGIC) || start.starts_with(archive::MAGIC)
}

/// Reads an image of two or three dimensions.
pub(in crate::scan) fn read(path: &Path, _notes: &Notes) -> Result<Scan> {
    let mut content = open(path, &IMAGES)?;
    let header = header::read(&mut content)?;
    let voxels = values(&mut content, &header, |value| value as f32)?;
    Ok(Scan { grid: Grid::unplaced(header.shape, None), channels: 1, voxels })
}

/// Reads the numbers of a label map.
pub(in crate::scan) fn read_numbers(path: &Path, _notes: &Notes) -> Result<Numbers> {
    let mut content = open(path, &LABELS)?;
    let header = header::read(&mut content)?;
    let values = values(&mut content, &header, |value| value)?;
    Ok(Numbers { values, step: 0.0, file: described(&header, content.name), segments: None })
}

/// Reads the header alone: that of an image, or of labels where there is no image.
pub(in crate::scan) fn read_grid(path: &Path, _notes: &Notes) -> Result<FileGrid> {
    let mut content = open(path, &IMAGES).or_else(|_none| open(path, &LABELS))?;
    let header = header::read(&mut content)?;
    Ok(described(&header, content.name))
}

fn described(header: &Header, name: String) -> FileGrid {
    let grid = Grid::unplaced(header.shape, None);
    FileGrid { grid, name, otherwise: None, unit_mm: None }
}

/// The only array of a file, or the one that has one of these names.
fn open(path: &Path, names: &[&str]) -> Result<Content> {
    let start = Content::open_plain(path)?.up_to(archive::MAGIC.len())?;
    if !start.starts_with(archive::MAGIC) {
        return Content::open(path);
    }
    let archive = Archive::open(path)?;
    let mut wanted = archive.arrays.iter().filter(|array| names.contains(&&*array.name));
    let chosen = match (&archive.arrays[..], wanted.next(), wanted.next()) {
        ([array], ..) | (_, Some(array), None) => array.clone(),
        (all, ..) => {
            let found: Vec<String> = all.iter().map(|array| format!("`{}`", array.name)).collect();
            let found = if found.is_empty() {
                "no array".to_owned()
            } else {
                format!("arrays {}", found.join(", "))
            };
            return Err(Failure::new(format!(
                "{} holds {found}, expected one, or one of several that is called `{}`",
                archive.name,
                names.join("` or `")
            ))
            .hint(format!("save it as `numpy.savez(FILE, {}=ARRAY)`", names[0])));
        }
    };
    archive.content(&chosen)
}

/// The numbers that follow a header, in the order slices, rows, columns.
fn values<T: Copy>(
    content: &mut Content,
    header: &Header,
    value: impl Fn(f64) -> T,
) -> Result<Vec<T>> {
    let Header { shape, is_fortran, stored, big_endian } = *header;
    let count = shape.iter().product();
    let values = Block { count, stored, big_endian, scaling: None }.read(content, value)?;
    let [slices, rows, columns] = shape;
    let arrangement = if is_fortran {
        let strides = [1, 1, slices, slices * rows];
        Arrangement { counts: [slices, 1, rows, columns], strides }
    } else {
        Arrangement::interleaved(shape, 1)
    };
    Ok(arrangement.in_order(values))
}
