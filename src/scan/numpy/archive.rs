//! The archive in which NumPy keeps several arrays (ZIP): their names, and the bytes of one.
//!
//! Reads what NumPy writes, up to 2 GiB, and passes over what is no array. Knows nothing of what arrays hold.

use crate::error::{Context, Failure, Result};
use crate::limits::TEXT_HEADER_BYTES;
use crate::scan::content::{Content, cannot_read, open_file};
use flate2::{Crc, bufread::DeflateDecoder};
use std::fs::File;
use std::io::{BufReader, Error, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// What a file begins with: its first member.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// What its table of contents begins with, of each member.
const ENTRY: &[u8] = b"PK\x01\x02";

/// What its end begins with.
const END: &[u8] = b"PK\x05\x06";

/// Bytes of the end, without its comment, and the most that the comment has.
const END_BYTES: usize = 22;
const COMMENT_BYTES: u64 = 1 << 16;

/// Bytes of an entry in the table of contents, and in front of a member, each without names.
const ENTRY_BYTES: usize = 46;
const FRONT_BYTES: usize = 30;

/// What the names of arrays end with.
const ARRAY: &str = ".npy";

/// The arrays in an archive.
pub(super) struct Archive {
    file: File,
    /// What the file is called in messages.
    pub(super) name: String,
    pub(super) arrays: Vec<Member>,
}

/// An array in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Without its ending.
    pub(super) name: String,
    /// Of which ZIP has many; 0 is none, 8 is deflate.
    packing: u16,
    packed_bytes: u32,
    crc32: u32,
    /// Where what stands in front of it begins.
    at: u32,
}

impl Archive {
    /// Reads the table of contents of a file that begins with [`MAGIC`].
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = format!("`{}`", path.display());
        let mut file = open_file(path)?;
        let length = file.seek(SeekFrom::End(0)).map_err(|error| cannot_read(&name, &error))?;
        let tail = length.saturating_sub(END_BYTES as u64 + COMMENT_BYTES);
        let bytes = at_most(&mut file, tail, length - tail, &name)?;
        let end = bytes.windows(END_BYTES).rposition(|window| window.starts_with(END));
        let Some(end) = end.map(|at| &bytes[at..]) else {
            return Err(damaged(&name, "it has no table of contents, as if it were cut off"));
        };
        let (count, size, at) = (u16_at(end, 10), u32_at(end, 12), u32_at(end, 16));
        if count == u16::MAX || size == u32::MAX || at == u32::MAX {
            return Err(Failure::new(format!("{name} is an archive of more than 2 GiB"))
                .hint("save the array alone, with `numpy.save`"));
        }
        if size as usize > TEXT_HEADER_BYTES {
            return Err(damaged(&name, &format!("its table of contents has {size} bytes")));
        }
        let table = at_most(&mut file, u64::from(at), u64::from(size), &name)?;
        let mut arrays = Vec::new();
        let mut rest = &table[..];
        for _ in 0..count {
            let (member, after) = entry(rest)
                .ok_or_else(|| damaged(&name, "its table of contents is no such table"))?;
            if let Some(array) = member.name.strip_suffix(ARRAY) {
                arrays.push(Member { name: array.to_owned(), ..member });
            }
            rest = after;
        }
        Ok(Self { file, name, arrays })
    }

    /// The content of an array, which is called by both names in messages.
    pub(super) fn content(mut self, member: &Member) -> Result<Content> {
        let name = format!("array `{}` of {}", member.name, self.name);
        let front = at_most(&mut self.file, u64::from(member.at), FRONT_BYTES as u64, &self.name)?;
        if front.len() < FRONT_BYTES || !front.starts_with(MAGIC) {
            return Err(damaged(
                &self.name,
                "a member does not lie where its table of contents says",
            ));
        }
        let names = u64::from(u16_at(&front, 26)) + u64::from(u16_at(&front, 28));
        let at = u64::from(member.at) + FRONT_BYTES as u64 + names;
        self.file.seek(SeekFrom::Start(at)).context(|| format!("cannot read {}", self.name))?;
        let packed =
            BufReader::with_capacity(1 << 16, self.file).take(u64::from(member.packed_bytes));
        let checked = |bytes| Checked { bytes, sum: Crc::new(), expected: member.crc32 };
        match member.packing {
            0 => {
                let length = Some(u64::from(member.packed_bytes));
                Ok(Content::of(name, Box::new(checked(Box::new(packed))), length))
            }
            8 => {
                let bytes = Box::new(DeflateDecoder::new(packed));
                Ok(Content::of(name, Box::new(checked(bytes)), None))
            }
            other => Err(Failure::new(format!(
                "{name} is packed in way {other} of ZIP, expected deflate or nothing"
            ))
            .hint("save it again with `numpy.savez_compressed`")),
        }
    }
}

fn damaged(name: &str, what: &str) -> Failure {
    Failure::new(format!("{name} is damaged: {what}")).hint("copy it again")
}

/// The bytes from `at` on, `count` of them or as many as there are.
fn at_most(file: &mut File, at: u64, count: u64, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = file
        .seek(SeekFrom::Start(at))
        .and_then(|_| file.by_ref().take(count).read_to_end(&mut bytes));
    read.map_err(|error| cannot_read(name, &error)).map(|_count| bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The first member of a table of contents, and what follows it.
fn entry(bytes: &[u8]) -> Option<(Member, &[u8])> {
    let fixed = bytes.get(..ENTRY_BYTES).filter(|fixed| fixed.starts_with(ENTRY))?;
    let [name, more, comment] = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
    let rest = &bytes[ENTRY_BYTES..];
    let member = Member {
        name: String::from_utf8_lossy(rest.get(..name)?).into_owned(),
        packing: u16_at(fixed, 10),
        packed_bytes: u32_at(fixed, 20),
        crc32: u32_at(fixed, 16),
        at: u32_at(fixed, 42),
    };
    Some((member, rest.get(name + more + comment..)?))
}

/// Bytes whose checksum is compared at their end.
struct Checked {
    bytes: Box<dyn Read>,
    sum: Crc,
    expected: u32,
}

impl Read for Checked {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.bytes.read(out)?;
        self.sum.update(&out[..count]);
        if count == 0 && !out.is_empty() && self.sum.sum() != self.expected {
            return Err(Error::new(ErrorKind::InvalidData, "its checksum is that of other bytes"));
        }
        Ok(count)
    }
}
