//! NIfTI-1 files from disk: scans, the numbers of label maps, and headers alone.
//!
//! Reads every file to its end, so that checksums are compared and each byte is explained; takes no more
//! memory than the file has voxels, whatever its header says. `[x, y, z]` with x fastest on disk is
//! `[slices, rows, columns]` in row-major order as it is. Does not know what voxels mean.

use super::header::{HEADER_BYTES, Header, parse};
use super::matrix::{Doubt, grid};
use crate::error::{Failure, Result};
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::content::{Content, cannot_read};
use crate::scan::notes::Notes;
use std::path::Path;

/// How many zeros may follow the voxels: some programs write whole blocks.
const PADDING_BYTES: usize = 4096;

/// How many voxels are decoded at once.
const VOXELS_AT_ONCE: usize = 1 << 16;

/// Whether a file begins as NIfTI does.
pub(in crate::scan) fn is_nifti(start: &[u8]) -> bool {
    let size = start.first_chunk::<4>().copied().unwrap_or_default();
    let expected = HEADER_BYTES as i32;
    i32::from_le_bytes(size) == expected || i32::from_be_bytes(size) == expected
}

/// Reads an image of two or three dimensions, and notes what is odd in its header.
pub(in crate::scan) fn read(path: &Path, notes: &Notes) -> Result<Scan> {
    let mut content = Content::open(path)?;
    let header = header(&mut content)?;
    let grid = described(&header, &content.name, notes)?.grid;
    let voxels = values(&mut content, &header, |value| value as f32)?;
    Ok(Scan { grid, channels: 1, voxels })
}

/// Reads the numbers of a label map, and notes what is odd in its header.
pub(in crate::scan) fn read_numbers(path: &Path, notes: &Notes) -> Result<Numbers> {
    let mut content = Content::open(path)?;
    let header = header(&mut content)?;
    let file = described(&header, &content.name, notes)?;
    let values = values(&mut content, &header, |value| value)?;
    let step = header.scaling.filter(|_| !header.stored.is_float());
    Ok(Numbers { values, step: step.map_or(0.0, |[slope, _intercept]| slope.abs()), file })
}

/// Reads the header alone, and notes what is odd in it.
pub(in crate::scan) fn read_grid(path: &Path, notes: &Notes) -> Result<FileGrid> {
    let mut content = Content::open(path)?;
    let header = header(&mut content)?;
    described(&header, &content.name, notes)
}

fn header(content: &mut Content) -> Result<Header> {
    let start = content.up_to(HEADER_BYTES)?;
    parse(&start, &content.name)
}

/// Where voxels lie, with a note of what was passed over in the header.
fn described(header: &Header, name: &str, notes: &Notes) -> Result<FileGrid> {
    let (grid, doubts) = grid(header, name).map_err(|spacing| {
        Failure::new(format!("{name} has voxel spacing {spacing}, expected more than 0"))
            .hint("the header is wrong; save the file again with the program that it comes from")
    })?;
    for doubt in doubts {
        let sentence = match doubt {
            Doubt::Sform => {
                "the sform of the header is no placement in the scanner and was passed over"
            }
            Doubt::Qform => {
                "the qform of the header is no placement in the scanner and was passed over"
            }
            Doubt::Spacing => {
                "`pixdim` and the sform of the header differ about the spacing, and the sform was followed"
            }
        };
        notes.add(sentence, name);
    }
    Ok(grid)
}

/// The voxels after slope and intercept, of a file that was read up to the end of its header.
fn values<T>(content: &mut Content, header: &Header, value: impl Fn(f64) -> T) -> Result<Vec<T>> {
    skip_to_voxels(content, header)?;
    let (count, bytes) = (header.extents.iter().product::<usize>(), header.stored.bytes());
    let mut values = Vec::with_capacity(content.to_reserve(count, bytes));
    while values.len() < count {
        let wanted = VOXELS_AT_ONCE.min(count - values.len());
        let chunk = content.up_to(wanted * bytes)?;
        if chunk.len() < wanted * bytes {
            return Err(Failure::new(format!(
                "{} is cut off: it holds {} of the {} bytes of its voxels",
                content.name,
                values.len() * bytes + chunk.len(),
                count * bytes
            ))
            .hint("copy it again"));
        }
        let stored = header.stored.decode(&chunk, header.big_endian);
        values.extend(stored.into_iter().map(|stored| match header.scaling {
            Some([slope, intercept]) => value(stored * slope + intercept),
            None => value(stored),
        }));
    }
    check_rest(content)?;
    Ok(values)
}

fn skip_to_voxels(content: &mut Content, header: &Header) -> Result<()> {
    let gap = header.offset - HEADER_BYTES as u64;
    let mut between = std::io::Read::take(&mut content.bytes, gap);
    let skipped = std::io::copy(&mut between, &mut std::io::sink())
        .map_err(|error| cannot_read(&content.name, &error))?;
    if skipped == gap {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} ends at byte {}, but its header says that its voxels begin at byte {}",
        content.name,
        HEADER_BYTES as u64 + skipped,
        header.offset
    )))
}

/// Reads to the end, where packed files have their checksum. Refuses anything but a little padding.
fn check_rest(content: &mut Content) -> Result<()> {
    let rest = content.up_to(PADDING_BYTES)?;
    if rest.len() == PADDING_BYTES || rest.iter().any(|&byte| byte != 0) {
        return Err(Failure::new(format!(
            "{} holds more bytes than the voxels that its header tells of",
            content.name
        ))
        .hint("extents or type in its header are wrong; save it again with the program that it comes from"));
    }
    Ok(())
}
