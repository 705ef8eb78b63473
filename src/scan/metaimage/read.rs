//! MetaImage files from disk: scans, the numbers of label maps, and headers alone.
//!
//! Knows where header and voxels stand; what fields mean is for `header` to say.

use super::header::{Fields, Header, parse};
use crate::error::{Failure, Result};
use crate::limits::TEXT_HEADER_BYTES;
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::content::{Content, beside};
use crate::scan::notes::Notes;
use crate::scan::voxels::{Arrangement, Block};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the first line of a file begins with.
const FIRST: [&[u8]; 3] = [b"ObjectType", b"NDims", b"Comment"];

/// Whether a file begins as MetaImage does.
pub(in crate::scan) fn is_metaimage(start: &[u8]) -> bool {
    FIRST.iter().any(|key| {
        let rest = start.strip_prefix(*key).map(<[u8]>::trim_ascii_start);
        rest.is_some_and(|rest| rest.starts_with(b"="))
    })
}

/// Reads an image of two or three dimensions with any number of channels.
pub(in crate::scan) fn read(path: &Path, _notes: &Notes) -> Result<Scan> {
    let (content, header) = open(path)?;
    let FileGrid { grid, .. } = header.axes.grid(&content.name)?;
    let voxels = values(path, content, &header, |value| value as f32)?;
    let voxels = Arrangement::interleaved(grid.shape, header.channels).in_order(voxels);
    Ok(Scan { grid, channels: header.channels, voxels })
}

/// Reads the numbers of a label map. Refuses several for each voxel.
pub(in crate::scan) fn read_numbers(path: &Path, _notes: &Notes) -> Result<Numbers> {
    let (content, header) = open(path)?;
    let file = header.axes.grid(&content.name)?;
    if header.channels > 1 {
        return Err(Failure::new(format!(
            "{} has {} numbers for each voxel, expected one, its label",
            content.name, header.channels
        )));
    }
    let values = values(path, content, &header, |value| value)?;
    Ok(Numbers { values, step: 0.0, file, segments: None })
}

/// Reads the header alone.
pub(in crate::scan) fn read_grid(path: &Path, _notes: &Notes) -> Result<FileGrid> {
    let (content, header) = open(path)?;
    header.axes.grid(&content.name)
}

/// The file of the voxels, where they do not follow the header.
pub(in crate::scan) fn others(path: &Path) -> Result<Vec<PathBuf>> {
    let (content, header) = open(path)?;
    header.data.iter().map(|data| beside(path, &content.name, data)).collect()
}

/// The header of a file, and what follows it.
fn open(path: &Path) -> Result<(Content, Header)> {
    let mut content = Content::open(path)?;
    let (mut left, mut values) = (TEXT_HEADER_BYTES, BTreeMap::new());
    while let Some(line) = content.line(&mut left)? {
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        // Voxels follow this key, which is the last.
        let is_last = key == "ElementDataFile";
        values.insert(key, value);
        if is_last {
            let header = parse(&Fields { values, name: &content.name })?;
            return Ok((content, header));
        }
    }
    Err(Failure::new(format!(
        "{} is cut off: its header does not say where its voxels are (`ElementDataFile`)",
        content.name
    ))
    .hint("copy it again"))
}

/// The numbers of a file whose header was read.
fn values<T>(
    path: &Path,
    content: Content,
    header: &Header,
    value: impl Fn(f64) -> T,
) -> Result<Vec<T>> {
    let [columns, rows, slices] = header.axes.extents;
    let count = columns * rows * slices * header.channels;
    let mut content = match &header.data {
        None => content,
        Some(data) => Content::open_plain(&beside(path, &content.name, data)?)?,
    };
    if header.data.is_some() {
        let bytes = (count * header.stored.bytes()) as u64;
        let last = content.length_bytes().map_or(0, |length| length.saturating_sub(bytes));
        // What is missing is told with the voxels.
        content.skip(header.before.unwrap_or(last))?;
    }
    let (stored, big_endian) = (header.stored, header.big_endian);
    let block = Block { count, stored, big_endian, scaling: None };
    block.read(&mut content.unpacked(header.packing), value)
}
