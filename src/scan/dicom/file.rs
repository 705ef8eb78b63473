//! One file of DICOM: its bytes, and how they are written.
//!
//! Knows the elements that say so, and of the others which series it belongs to; what they mean others know.

use super::dataset::{DataSet, Elements};
use super::syntax::{Encoding, Syntax};
use super::tags::{SERIES, TRANSFER_SYNTAX, WANTED};
use crate::error::{Context, Result};
use crate::files;
use crate::limits::DICOM_BYTES;
use crate::scan::content::{cannot_read, open_file};
use flate2::read::DeflateDecoder;
use std::io::Read;
use std::path::Path;

/// Bytes in front of the mark, which mean nothing.
const PREAMBLE_BYTES: usize = 128;

/// What stands behind them.
const MARK: &[u8] = b"DICM";

/// The group of elements that say how all others are written.
const META_GROUP: u16 = 2;

/// Bytes in which the series of a file is looked for.
const START_BYTES: u64 = 1 << 20;

/// Whether a file begins as DICOM does.
pub(in crate::scan) fn is_dicom(start: &[u8]) -> bool {
    start.get(PREAMBLE_BYTES..).is_some_and(|rest| rest.starts_with(MARK))
}

/// The bytes of a file, with how they are written.
pub(super) struct Loaded {
    /// What the file is called in messages.
    pub(super) name: String,
    pub(super) syntax: Syntax,
    /// All elements but those that say how they are written.
    elements: Vec<u8>,
}

impl Loaded {
    /// Reads a file that begins as DICOM does. Refuses transfer syntaxes that are not read.
    pub(super) fn open(path: &Path) -> Result<Self> {
        // First as any file, whose errors are told apart.
        drop(open_file(path)?);
        let name = format!("`{}`", path.display());
        let bytes =
            files::read_at_most(path, DICOM_BYTES).context(|| format!("cannot read {name}"))?;
        Self::of(bytes, name)
    }

    fn of(mut bytes: Vec<u8>, name: String) -> Result<Self> {
        let first = PREAMBLE_BYTES + MARK.len();
        let mut meta = Elements {
            wanted: &[TRANSFER_SYNTAX],
            bytes: bytes.get(first..).unwrap_or_default(),
            at: 0,
            encoding: Encoding::EXPLICIT,
            name: &name,
        };
        let syntax = meta.read_group(META_GROUP)?.text(TRANSFER_SYNTAX).unwrap_or_default();
        let after = first + meta.at;
        let syntax = Syntax::of(&syntax, &name)?;
        bytes.drain(..after.min(bytes.len()));
        if syntax.is_deflated {
            let mut unpacked = Vec::new();
            let packed = DeflateDecoder::new(&bytes[..]);
            let read = packed.take(DICOM_BYTES).read_to_end(&mut unpacked);
            read.map_err(|error| cannot_read(&name, &error))?;
            bytes = unpacked;
        }
        Ok(Self { name, syntax, elements: bytes })
    }

    /// The elements that tell of an image.
    pub(super) fn data(&self) -> Result<DataSet<'_>> {
        Elements {
            wanted: &WANTED,
            bytes: &self.elements,
            at: 0,
            encoding: self.syntax.encoding,
            name: &self.name,
        }
        .read()
    }
}

/// The series that a file belongs to, of which its first bytes say it; nothing for other files.
pub(super) fn series_of(path: &Path) -> Option<String> {
    let (mut file, mut bytes) = (files::open(path).ok()?, Vec::new());
    let marked_bytes = (PREAMBLE_BYTES + MARK.len()) as u64;
    file.by_ref().take(marked_bytes).read_to_end(&mut bytes).ok()?;
    if !is_dicom(&bytes) {
        return None;
    }
    file.take(START_BYTES).read_to_end(&mut bytes).ok()?;
    let loaded = Loaded::of(bytes, String::new()).ok()?;
    let mut elements = Elements {
        wanted: &[SERIES],
        bytes: &loaded.elements,
        at: 0,
        encoding: loaded.syntax.encoding,
        name: "",
    };
    elements.read_to_wanted().ok()?.text(SERIES)
}
