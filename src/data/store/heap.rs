//! The heaps in which files of the first layout keep their strings: whether they are sound.
//!
//! HDF5's library follows sizes in them without looking where that leads, and crashes on damaged ones.
//! Knows this one structure, "global heap collection" of the HDF5 File Format Specification 3.0, III.E.

use crate::error::{Context, Failure, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How a collection begins: signature, version, three zeros.
const BEGIN: &[u8; 8] = b"GCOL\x01\0\0\0";

/// Bytes before the first object, of those the size of the whole are the last eight, and bytes before the
/// content of each.
const HEAD_BYTES: usize = 16;

/// Bytes of the largest collection that is looked at; the library makes them of 4 KiB, or of one string.
const MOST_BYTES: u64 = 1 << 24;

/// Refuses a file in which a heap is not sound.
pub(super) fn verify(file: &File, path: &Path) -> Result<()> {
    let cannot = || format!("cannot read `{}`", path.display());
    let end = file.metadata().context(cannot)?.len();
    let mut part = vec![0; 1 << 20];
    let mut start = 0;
    while start < end {
        let length = part.len().min((end - start) as usize);
        file.read_exact_at(&mut part[..length], start).context(cannot)?;
        let begins = part[..length].windows(BEGIN.len()).enumerate();
        for (offset, _) in begins.filter(|(_, bytes)| bytes == BEGIN) {
            let position = start + offset as u64;
            if !is_sound(file, position, end).context(cannot)? {
                return Err(Failure::new(format!(
                    "`{}` is damaged: the strings at byte {position} are not as HDF5 writes them",
                    path.display()
                )));
            }
        }
        // The next part begins with what a collection may have begun in here.
        let kept = if start + (length as u64) < end { BEGIN.len() - 1 } else { 0 };
        start += (length - kept) as u64;
    }
    Ok(())
}

fn is_sound(file: &File, position: u64, end: u64) -> std::io::Result<bool> {
    let mut head = [0; HEAD_BYTES];
    if position + HEAD_BYTES as u64 > end {
        return Ok(false);
    }
    file.read_exact_at(&mut head, position)?;
    let bytes = number(&head[8..]);
    if bytes < HEAD_BYTES as u64 || bytes > MOST_BYTES.min(end - position) {
        return Ok(false);
    }
    let mut objects = vec![0; bytes as usize - HEAD_BYTES];
    file.read_exact_at(&mut objects, position + HEAD_BYTES as u64)?;
    Ok(are_sound(&objects))
}

/// Whether objects follow each other up to the free space at the end, each with a number of its own.
fn are_sound(mut objects: &[u8]) -> bool {
    let mut seen = std::collections::HashSet::new();
    while let Some((head, rest)) = objects.split_at_checked(HEAD_BYTES) {
        let (index, bytes) = (u16::from_le_bytes([head[0], head[1]]), number(&head[8..]));
        if index == 0 {
            return bytes == objects.len() as u64;
        }
        let Some(padded) = usize::try_from(bytes).ok().and_then(|b| b.checked_next_multiple_of(8))
        else {
            return false;
        };
        if head[4..8] != [0; 4] || !seen.insert(index) || padded > rest.len() {
            return false;
        }
        objects = &rest[padded..];
    }
    true
}

fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(number)
}
