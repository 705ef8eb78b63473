//! The elements of a DICOM file by their tags, with sequences within them.
//!
//! Keeps of a file those that somebody asks for, walks over all others, and reads nothing beyond its end. Knows how
//! elements are written; what they mean others say.

use super::syntax::Encoding;
use super::tags::{PIXEL_DATA, SEQUENCES, Tag};
use crate::error::{Failure, Result};
use crate::limits::EXTENT;
use std::collections::BTreeMap;

/// How deep sequences may lie within each other.
const DEPTH: usize = 32;

/// The length of what ends with a delimiter.
const UNDEFINED: u32 = u32::MAX;

/// What stands before an item, behind one, and behind a sequence.
const ITEM: Tag = (0xfffe, 0xe000);
const ITEM_END: Tag = (0xfffe, 0xe00d);
const SEQUENCE_END: Tag = (0xfffe, 0xe0dd);

/// Types whose length has 32 bits.
const LONG: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

/// What an element holds.
#[derive(Debug, Clone)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Items(Vec<DataSet<'a>>),
    /// Packed pixels: where frames begin, and pieces of them.
    Fragments(Vec<&'a [u8]>),
}

/// Elements by their tags.
#[derive(Debug, Clone, Default)]
pub(super) struct DataSet<'a> {
    elements: BTreeMap<Tag, Value<'a>>,
    big_endian: bool,
}

impl<'a> DataSet<'a> {
    /// A text without the spaces and zeros around it, with other than UTF-8 replaced.
    pub(super) fn text(&self, tag: Tag) -> Option<String> {
        let text = String::from_utf8_lossy(self.bytes(tag)?);
        Some(text.trim_matches(|letter: char| letter == '\0' || letter.is_whitespace()).to_owned())
    }

    /// Numbers that are written as text, where all of them are finite.
    pub(super) fn decimals(&self, tag: Tag) -> Option<Vec<f64>> {
        let text = self.text(tag)?;
        let numbers = text.split('\\').map(|word| word.trim().parse::<f64>().ok());
        numbers.map(|number| number.filter(|number| number.is_finite())).collect()
    }

    /// The first of some whole numbers of 16 bits.
    pub(super) fn short(&self, tag: Tag) -> Option<u16> {
        let &[first, second] = self.bytes(tag)?.first_chunk::<2>()?;
        let bytes = [first, second];
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    /// The items of a sequence, none where there is no such sequence.
    pub(super) fn items(&self, tag: Tag) -> &[DataSet<'a>] {
        match self.elements.get(&tag) {
            Some(Value::Items(items)) => items,
            _ => &[],
        }
    }

    /// The bytes of an element that is no sequence.
    pub(super) fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        match self.elements.get(&tag) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Pieces of packed pixels, of which the first says where frames begin; none where they are not packed.
    pub(super) fn fragments(&self) -> &[&'a [u8]] {
        match self.elements.get(&PIXEL_DATA) {
            Some(Value::Fragments(fragments)) => fragments,
            _ => &[],
        }
    }
}

/// Elements that are still to be read.
pub(super) struct Elements<'a, 'w> {
    /// Those that are kept; the others are walked over.
    pub(super) wanted: &'w [Tag],
    pub(super) bytes: &'a [u8],
    /// How many are read.
    pub(super) at: usize,
    pub(super) encoding: Encoding,
    /// What the file is called in messages.
    pub(super) name: &'w str,
}

/// What stands before the value of an element.
struct Head {
    tag: Tag,
    length: u32,
    /// Whether it is a sequence, or may be one.
    holds_items: bool,
    /// Whether it is of no known type, so that items are written in the oldest way.
    is_unknown: bool,
}

impl<'a> Elements<'a, '_> {
    /// The elements up to the first of `wanted`, or to the end.
    pub(super) fn read_to_wanted(&mut self) -> Result<DataSet<'a>> {
        let mut found = DataSet { elements: BTreeMap::new(), big_endian: self.encoding.big_endian };
        while self.at < self.bytes.len() && found.elements.is_empty() {
            self.element(&mut found, 0)?;
        }
        Ok(found)
    }

    /// All elements up to the pixels, or to the end.
    pub(super) fn read(&mut self) -> Result<DataSet<'a>> {
        self.data_set(Some(self.bytes.len()), 0)
    }

    /// The elements of one group, which come first.
    pub(super) fn read_group(&mut self, group: u16) -> Result<DataSet<'a>> {
        let mut found = DataSet { elements: BTreeMap::new(), big_endian: self.encoding.big_endian };
        while self.at < self.bytes.len() {
            let before = self.at;
            let is_of_group = self.short()? == group;
            self.at = before;
            // What follows may be written in another way.
            if !is_of_group {
                break;
            }
            self.element(&mut found, 0)?;
        }
        Ok(found)
    }

    /// The elements up to `end`, or where that is not known to a delimiter.
    fn data_set(&mut self, end: Option<usize>, depth: usize) -> Result<DataSet<'a>> {
        let mut found = DataSet { elements: BTreeMap::new(), big_endian: self.encoding.big_endian };
        if depth > DEPTH {
            return Err(self.damaged("its sequences lie too deep in each other"));
        }
        while self.at < end.unwrap_or(usize::MAX) {
            let tag = self.element(&mut found, depth)?;
            // Nothing behind the pixels tells of the image.
            if tag == ITEM_END || (depth == 0 && tag == PIXEL_DATA) {
                break;
            }
        }
        Ok(found)
    }

    /// Reads one element, and keeps it where it is wanted.
    fn element(&mut self, found: &mut DataSet<'a>, depth: usize) -> Result<Tag> {
        let head = self.head()?;
        if head.tag == ITEM_END || head.tag == SEQUENCE_END {
            return Ok(ITEM_END);
        }
        let is_wanted = self.wanted.contains(&head.tag);
        let value = if head.length == UNDEFINED && head.tag == PIXEL_DATA {
            Value::Fragments(self.fragments()?)
        } else if head.length == UNDEFINED || head.holds_items {
            let outside = self.encoding;
            if head.is_unknown {
                self.encoding = Encoding::IMPLICIT;
            }
            let items = self.items(head.length, is_wanted, depth)?;
            self.encoding = outside;
            Value::Items(items)
        } else {
            Value::Bytes(self.take(head.length as usize)?)
        };
        if is_wanted {
            found.elements.insert(head.tag, value);
        }
        Ok(head.tag)
    }

    fn head(&mut self) -> Result<Head> {
        let tag = (self.short()?, self.short()?);
        let head = |length, holds_items, is_unknown| Head { tag, length, holds_items, is_unknown };
        if tag.0 == ITEM.0 {
            return Ok(head(self.long()?, false, false));
        }
        if !self.encoding.is_explicit {
            let length = self.long()?;
            // What is a sequence the tag alone tells.
            return Ok(head(length, SEQUENCES.contains(&tag), false));
        }
        let kind = self.take(2)?;
        if !kind.iter().all(u8::is_ascii_uppercase) {
            let what = format!("element ({:04x},{:04x}) has no type", tag.0, tag.1);
            return Err(self.damaged(&what));
        }
        let length = if LONG.iter().any(|long| kind == *long) {
            self.short()?;
            self.long()?
        } else {
            u32::from(self.short()?)
        };
        Ok(head(length, kind == b"SQ", kind == b"UN"))
    }

    /// The items of a sequence of so many bytes, kept where they `are_wanted`.
    fn items(&mut self, length: u32, are_wanted: bool, depth: usize) -> Result<Vec<DataSet<'a>>> {
        let end = (length != UNDEFINED).then(|| self.at.saturating_add(length as usize));
        let mut items = Vec::new();
        while self.at < end.unwrap_or(usize::MAX) {
            let tag = (self.short()?, self.short()?);
            let length = self.long()?;
            if tag == SEQUENCE_END && end.is_none() {
                break;
            }
            if tag != ITEM || items.len() >= EXTENT {
                return Err(self.damaged("a sequence holds something else than items"));
            }
            let end = (length != UNDEFINED).then(|| self.at.saturating_add(length as usize));
            let item = self.data_set(end, depth + 1)?;
            if are_wanted {
                items.push(item);
            }
        }
        Ok(items)
    }

    /// Packed pixels.
    fn fragments(&mut self) -> Result<Vec<&'a [u8]>> {
        let mut fragments = Vec::new();
        loop {
            let tag = (self.short()?, self.short()?);
            let length = self.long()?;
            match tag {
                ITEM => fragments.push(self.take(length as usize)?),
                SEQUENCE_END => return Ok(fragments),
                _ => return Err(self.damaged("its packed pixels are no list of pieces")),
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| {
            let missing = count.saturating_sub(self.bytes.len() - self.at);
            Failure::new(format!("{} is cut off: at least {missing} bytes are missing", self.name))
                .hint("copy it again")
        })?;
        self.at += count;
        Ok(bytes)
    }

    fn short(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        let bytes = [bytes[0], bytes[1]];
        let big_endian = self.encoding.big_endian;
        Ok(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let big_endian = self.encoding.big_endian;
        Ok(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn damaged(&self, what: &str) -> Failure {
        Failure::new(format!("{} is damaged: {what} at byte {}", self.name, self.at))
            .hint("copy it again")
    }
}
