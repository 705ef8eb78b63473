//! The directories of a TIFF file, one for each page: tags and their numbers.
//!
//! Knows TIFF and BigTIFF in both orders of bytes; what tags mean is for `read` to say. Nothing is read beyond the
//! end of the file, and no directory twice.

use crate::error::{Failure, Result};
use crate::limits::EXTENT;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of one tag, at most.
const NUMBERS: u64 = 1 << 24;

/// The bytes of a file, and how its numbers are stored.
pub(super) struct TiffFile {
    /// What the file is called in messages.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// Whether the most significant byte of a number comes first.
    pub(super) big_endian: bool,
    /// Whether offsets have 64 bits.
    is_long: bool,
}

/// The tags of one page.
pub(super) struct Directory {
    tags: BTreeMap<u16, Vec<u64>>,
}

impl Directory {
    /// The numbers of a tag, none where it is missing.
    pub(super) fn numbers(&self, tag: u16) -> &[u64] {
        self.tags.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// The first number of a tag.
    pub(super) fn number(&self, tag: u16) -> Option<u64> {
        self.numbers(tag).first().copied()
    }
}

impl TiffFile {
    /// Reads the first bytes. `bytes` begin as TIFF does.
    pub(super) fn new(name: String, bytes: Vec<u8>) -> Self {
        let big_endian = bytes.starts_with(b"MM");
        let version = if big_endian { bytes.get(3) } else { bytes.get(2) };
        Self { is_long: version == Some(&43), name, bytes, big_endian }
    }

    /// The directories in the order of their pages.
    pub(super) fn directories(&self) -> Result<Vec<Directory>> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        let mut next = self.offset(if self.is_long { 8 } else { 4 })?;
        while next != 0 {
            if !seen.insert(next) || found.len() >= EXTENT {
                return Err(self.damaged("its pages go round in a circle"));
            }
            let (directory, after) = self.directory(next)?;
            found.push(directory);
            next = after;
        }
        Ok(found)
    }

    /// What to say of a damaged file.
    pub(super) fn damaged(&self, what: &str) -> Failure {
        Failure::new(format!("{} is damaged: {what}", self.name)).hint("copy it again")
    }

    /// `count` bytes from `at` on.
    pub(super) fn bytes_at(&self, at: u64, count: u64) -> Result<&[u8]> {
        let range = usize::try_from(at).ok().zip(usize::try_from(count).ok());
        let bytes = range.and_then(|(at, count)| self.bytes.get(at..at.checked_add(count)?));
        bytes.ok_or_else(|| self.damaged("it ends before what its directory tells of"))
    }

    fn number(&self, at: u64, bytes: u64) -> Result<u64> {
        let (mut number, found) = ([0; 8], self.bytes_at(at, bytes)?);
        for (to, from) in number.iter_mut().zip(found) {
            *to = *from;
        }
        if self.big_endian {
            number[..found.len()].reverse();
        }
        Ok(u64::from_le_bytes(number))
    }

    fn offset(&self, at: u64) -> Result<u64> {
        self.number(at, if self.is_long { 8 } else { 4 })
    }

    /// The directory at an offset, and where the next one is.
    fn directory(&self, at: u64) -> Result<(Directory, u64)> {
        // Tag, type, count, value or offset.
        let (count_bytes, entry_bytes) = if self.is_long { (8, 20) } else { (2, 12) };
        let count = self.number(at, count_bytes)?;
        let entries = at.saturating_add(count_bytes);
        let length = count.saturating_mul(entry_bytes);
        self.bytes_at(entries, length)?;
        let mut tags = BTreeMap::new();
        for entry in (0..count).map(|index| entries + index * entry_bytes) {
            if let Some(numbers) = self.entry(entry)? {
                tags.insert(self.number(entry, 2)? as u16, numbers);
            }
        }
        Ok((Directory { tags }, self.offset(entries + length)?))
    }

    /// The whole numbers of an entry; nothing where it has other values.
    fn entry(&self, at: u64) -> Result<Option<Vec<u64>>> {
        let width = match self.number(at + 2, 2)? {
            1 => 1,
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            _ => return Ok(None),
        };
        let (value, room) = if self.is_long { (at + 12, 8) } else { (at + 8, 4) };
        let count = self.number(at + 4, if self.is_long { 8 } else { 4 })?;
        if count > NUMBERS {
            return Err(self.damaged("a tag has more numbers than anybody needs"));
        }
        let first = if count * width <= room { value } else { self.offset(value)? };
        self.bytes_at(first, count * width)?;
        (0..count)
            .map(|index| self.number(first + index * width, width))
            .collect::<Result<_>>()
            .map(Some)
    }
}
