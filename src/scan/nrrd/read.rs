//! NRRD files from disk: scans, the numbers of label maps and segmentations, and headers alone.
//!
//! Knows where header and numbers stand; what fields mean is for `header` to say.

use super::fields::{Fields, MAGIC};
use super::header::{Encoding, Header, parse};
use crate::error::{Failure, Result};
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::content::{Content, Packing, beside};
use crate::scan::notes::Notes;
use crate::scan::segments::{StoredSegment, flatten};
use crate::scan::voxels::Block;
use std::path::{Path, PathBuf};

/// Letters of a number that is written as text, at most on average.
const LETTERS: usize = 32;

/// Letters that numbers may have beyond that.
const UNASKED_LETTERS: usize = 1 << 16;

/// Whether a file begins as NRRD does.
pub(in crate::scan) fn is_nrrd(start: &[u8]) -> bool {
    start.starts_with(MAGIC.as_bytes())
}

/// Reads an image of two or three dimensions with any number of channels.
pub(in crate::scan) fn read(path: &Path, notes: &Notes) -> Result<Scan> {
    let (content, header) = open(path)?;
    let FileGrid { grid, .. } = described(&header, &content.name, notes)?;
    let voxels = values(path, content, &header, |value| value as f32)?;
    let voxels = header.axes.arrangement.in_order(voxels);
    Ok(Scan { grid, channels: header.axes.channels, voxels })
}

/// Reads the numbers of a label map, or of the segments of a segmentation.
pub(in crate::scan) fn read_numbers(path: &Path, notes: &Notes) -> Result<Numbers> {
    let (content, header) = open(path)?;
    let file = described(&header, &content.name, notes)?;
    let name = content.name.clone();
    let channels = header.axes.channels;
    if channels > 1 && header.segments.is_none() {
        return Err(Failure::new(format!(
            "{name} has {channels} numbers for each voxel, expected one, its label"
        )));
    }
    let values = header.axes.arrangement.in_order(values(path, content, &header, |value| value)?);
    match &header.segments {
        None => Ok(Numbers { values, step: 0.0, file, segments: None }),
        Some(segments) => segmented(segments, &values, (file, channels), notes),
    }
}

/// Reads the header alone.
pub(in crate::scan) fn read_grid(path: &Path, notes: &Notes) -> Result<FileGrid> {
    let (content, header) = open(path)?;
    described(&header, &content.name, notes)
}

/// The file of the numbers, where they do not follow the header.
pub(in crate::scan) fn others(path: &Path) -> Result<Vec<PathBuf>> {
    let (content, header) = open(path)?;
    header.data.iter().map(|data| beside(path, &content.name, data)).collect()
}

/// One number for each voxel of `values`, which are slices, layers, rows, columns.
fn segmented(
    segments: &[StoredSegment],
    values: &[f64],
    (file, layers): (FileGrid, usize),
    notes: &Notes,
) -> Result<Numbers> {
    let pixels = file.grid.pixels().max(1);
    let layer = |layer: usize| {
        let planes = values.chunks(pixels).skip(layer).step_by(layers);
        planes.flatten().copied().collect()
    };
    let layers: Vec<Vec<f64>> = (0..layers).map(layer).collect();
    let flat = flatten(segments, &layers, &file.name)?;
    if flat.shared > 0 {
        let which = format!("{} ({} voxels)", file.name, flat.shared);
        notes.add("segments share voxels, which the last of them gets", which);
    }
    Ok(Numbers { values: flat.values, step: 0.0, file, segments: Some(flat.segments) })
}

/// The header of a file, and what follows it.
fn open(path: &Path) -> Result<(Content, Header)> {
    let mut content = Content::open(path)?;
    let header = parse(&Fields::read(&mut content)?)?;
    Ok((content, header))
}

fn described(header: &Header, name: &str, notes: &Notes) -> Result<FileGrid> {
    if header.axes.is_space_unnamed {
        let sentence = "the header does not say in which space its directions are, and left, posterior, superior was taken, as ITK does";
        notes.add(sentence, name);
    }
    header.axes.spatial.grid(name)
}

/// The numbers of a file whose header was read.
fn values<T>(
    path: &Path,
    content: Content,
    header: &Header,
    value: impl Fn(f64) -> T,
) -> Result<Vec<T>> {
    let mut content = match &header.data {
        None => content,
        Some(data) => Content::open_plain(&beside(path, &content.name, data)?)?,
    };
    let count = header.axes.arrangement.counts.iter().product();
    let (stored, big_endian) = (header.stored, header.big_endian);
    let block = Block { count, stored, big_endian, scaling: None };
    for _line in 0..header.line_skip {
        let mut left = crate::limits::TEXT_HEADER_BYTES;
        if content.line(&mut left)?.is_none() {
            break;
        }
    }
    let packing = match header.encoding {
        Encoding::Bytes(packing) => packing,
        Encoding::Text => Packing::None,
    };
    let bytes = (count * stored.bytes()) as u64;
    let last = || match (content.length_bytes(), &header.data) {
        (Some(length), Some(_)) => Ok(length.saturating_sub(bytes)),
        _ => Err(Failure::new(format!(
            "{} has `byte skip: -1`, expected it of voxels in a file of their own alone",
            content.name
        ))),
    };
    let skip = header.byte_skip.map_or_else(last, Ok)?;
    // Bytes are passed over behind the packing, lines before it.
    let mut content = content.unpacked(packing);
    content.skip(skip)?;
    match header.encoding {
        Encoding::Bytes(_) => block.read(&mut content, value),
        Encoding::Text => text(&mut content, &block, value),
    }
}

/// Numbers that are written as text.
fn text<T>(content: &mut Content, block: &Block, value: impl Fn(f64) -> T) -> Result<Vec<T>> {
    let most = block.count.saturating_mul(LETTERS).saturating_add(UNASKED_LETTERS);
    let letters = content.up_to(most)?;
    let wrong = |what: String| {
        Failure::new(format!("{} {what}", content.name)).hint("it is damaged; copy it again")
    };
    let mut values = Vec::new();
    for word in letters.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        let number = std::str::from_utf8(word).ok().and_then(|word| word.parse::<f64>().ok());
        let Some(number) = number else {
            let word = String::from_utf8_lossy(&word[..word.len().min(20)]).into_owned();
            return Err(wrong(format!("holds `{word}` among its voxels, expected numbers")));
        };
        values.push(value(number));
    }
    if values.len() == block.count && letters.len() < most {
        return Ok(values);
    }
    Err(wrong(format!("holds {} voxels, expected {}", values.len(), block.count)))
}
