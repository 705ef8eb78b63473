//! NIfTI files from disk: scans, the numbers of label maps, and headers alone.
//!
//! Reads every file to its end, so that checksums are compared and each byte is explained; takes no more
//! memory than the file has voxels, whatever its header says. `[x, y, z]` with x fastest on disk is
//! `[slices, rows, columns]` in row-major order as it is. Does not know what voxels mean.

use super::header::{HEADER_BYTES, Header, LONG_HEADER_BYTES, parse};
use super::matrix::{Doubt, grid};
use crate::error::{Failure, Result};
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::content::Content;
use crate::scan::notes::Notes;
use crate::scan::voxels::Block;
use std::path::{Path, PathBuf};

/// What the names of files of voxels end with, where that of their header ends with `hdr`.
const APART: [&str; 4] = ["img", "img.gz", "IMG", "IMG.GZ"];

/// Whether a file begins as NIfTI does.
pub(in crate::scan) fn is_nifti(start: &[u8]) -> bool {
    let size = start.first_chunk::<4>().copied().unwrap_or_default();
    let sizes = [i32::from_le_bytes(size), i32::from_be_bytes(size)];
    sizes.contains(&(HEADER_BYTES as i32)) || is_long(start)
}

/// Whether a file begins as NIfTI-2 does.
pub(super) fn is_long(start: &[u8]) -> bool {
    let size = start.first_chunk::<4>().copied().unwrap_or_default();
    let expected = LONG_HEADER_BYTES as i32;
    i32::from_le_bytes(size) == expected || i32::from_be_bytes(size) == expected
}

/// Reads an image of two or three dimensions, and notes what is odd in its header.
pub(in crate::scan) fn read(path: &Path, notes: &Notes) -> Result<Scan> {
    let mut content = Content::open(path)?;
    let header = header(&mut content)?;
    let grid = described(&header, &content.name, notes)?.grid;
    let voxels = values(path, content, &header, |value| value as f32)?;
    Ok(Scan { grid, channels: 1, voxels })
}

/// Reads the numbers of a label map, and notes what is odd in its header.
pub(in crate::scan) fn read_numbers(path: &Path, notes: &Notes) -> Result<Numbers> {
    let mut content = Content::open(path)?;
    let header = header(&mut content)?;
    let file = described(&header, &content.name, notes)?;
    let values = values(path, content, &header, |value| value)?;
    let step = header.scaling.filter(|_| !header.stored.is_float());
    let step = step.map_or(0.0, |[slope, _intercept]| slope.abs());
    Ok(Numbers { values, step, file, segments: None })
}

/// Reads the header alone, and notes what is odd in it.
pub(in crate::scan) fn read_grid(path: &Path, notes: &Notes) -> Result<FileGrid> {
    let mut content = Content::open(path)?;
    let header = header(&mut content)?;
    described(&header, &content.name, notes)
}

/// The file of the voxels, where they do not follow the header.
pub(in crate::scan) fn others(path: &Path) -> Result<Vec<PathBuf>> {
    let mut content = Content::open(path)?;
    let header = header(&mut content)?;
    if header.is_apart { apart(path).map(|voxels| vec![voxels]) } else { Ok(Vec::new()) }
}

/// The file of the voxels of the header at `path`: its name with `img` in place of `hdr`, packed or not.
fn apart(path: &Path) -> Result<PathBuf> {
    let is_packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let unpacked = if is_packed { path.with_extension("") } else { path.to_owned() };
    let candidates = APART.map(|ending| unpacked.with_extension(ending));
    candidates.iter().find(|candidate| candidate.is_file()).cloned().ok_or_else(|| {
        Failure::new(format!(
            "`{}` is a header whose voxels lie in a file beside it, and there is no `{}`",
            path.display(),
            candidates[0].display()
        ))
        .hint("put both files into one folder under one name")
    })
}

fn header(content: &mut Content) -> Result<Header> {
    let mut start = content.up_to(HEADER_BYTES)?;
    if is_long(&start) {
        start.extend(content.up_to(LONG_HEADER_BYTES - HEADER_BYTES)?);
    }
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
fn values<T>(
    path: &Path,
    content: Content,
    header: &Header,
    value: impl Fn(f64) -> T,
) -> Result<Vec<T>> {
    let (mut content, passed) = if header.is_apart {
        (Content::open(&apart(path)?)?, 0)
    } else {
        (content, header.bytes as u64)
    };
    let gap = header.offset - passed;
    let skipped = content.skip(gap)?;
    if skipped < gap {
        return Err(Failure::new(format!(
            "{} ends at byte {}, but its header says that its voxels begin at byte {}",
            content.name,
            passed + skipped,
            header.offset
        )));
    }
    let block = Block {
        count: header.extents.iter().product(),
        stored: header.stored,
        big_endian: header.big_endian,
        scaling: header.scaling,
    };
    block.read(&mut content, value)
}
