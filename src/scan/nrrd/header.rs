//! What an NRRD header says of its voxels: axes, type, packing, and where they are.
//!
//! Knows the fields and their other names. Knows neither voxels nor files.

use super::axes::{self, NrrdAxes};
use super::fields::Fields;
use super::segmentation;
use crate::error::Result;
use crate::scan::content::Packing;
use crate::scan::segments::StoredSegment;
use crate::scan::stored::Stored;

/// What a header says.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) axes: NrrdAxes,
    /// How numbers are stored.
    pub(super) stored: Stored,
    /// Whether the most significant byte of a number comes first.
    pub(super) big_endian: bool,
    pub(super) encoding: Encoding,
    /// Lines to pass over before the numbers.
    pub(super) line_skip: u64,
    /// Bytes to pass over behind these; none where the numbers are the last bytes.
    pub(super) byte_skip: Option<u64>,
    /// The file of the numbers, where they do not follow the header.
    pub(super) data: Option<String>,
    /// The segments, where it is a segmentation of Slicer.
    pub(super) segments: Option<Vec<StoredSegment>>,
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Bytes(Packing),
    Text,
}

/// Understands the lines of a header.
pub(super) fn parse(fields: &Fields) -> Result<Header> {
    let segments = segmentation::parse(fields)?;
    let stored = stored(fields)?;
    let encoding = encoding(fields)?;
    let byte_skip = fields.whole(&["byte skip", "byteskip"])?;
    let byte_skip = match byte_skip {
        -1 if encoding == Encoding::Bytes(Packing::None) => None,
        bytes => {
            let bytes = u64::try_from(bytes);
            Some(bytes.map_err(|_error| fields.wrong("byte skip", "0 or more"))?)
        }
    };
    let line_skip = u64::try_from(fields.whole(&["line skip", "lineskip"])?);
    let is_of_bytes = encoding != Encoding::Text && stored.bytes() > 1;
    let big_endian = match fields.get(&["endian"]).map(str::to_lowercase).as_deref() {
        Some("little") => false,
        Some("big") => true,
        None if !is_of_bytes => false,
        _ => return Err(fields.wrong("endian", "`little` or `big`")),
    };
    Ok(Header {
        axes: axes::parse(fields, segments.is_some())?,
        stored,
        big_endian,
        encoding,
        line_skip: line_skip.map_err(|_error| fields.wrong("line skip", "0 or more"))?,
        byte_skip,
        data: data_file(fields)?,
        segments,
    })
}

fn stored(fields: &Fields) -> Result<Stored> {
    let kind = fields.get(&["type"]).unwrap_or_default().to_lowercase();
    let kind = kind.strip_suffix("_t").unwrap_or(&kind);
    let kind = kind.strip_prefix("signed ").unwrap_or(kind);
    Ok(match kind {
        "uchar" | "unsigned char" | "uint8" => Stored::U8,
        "char" | "int8" => Stored::I8,
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" => Stored::U16,
        "short" | "short int" | "int16" => Stored::I16,
        "uint" | "unsigned int" | "uint32" => Stored::U32,
        "int" | "int32" => Stored::I32,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" => Stored::U64,
        "longlong" | "long long" | "long long int" | "int64" => Stored::I64,
        "float" => Stored::F32,
        "double" => Stored::F64,
        _ => {
            return Err(fields
                .wrong("type", "integers of 8 to 64 bits, or floats of 32 or 64")
                .hint("save it with another type, for example as 32-bit floats"));
        }
    })
}

fn encoding(fields: &Fields) -> Result<Encoding> {
    Ok(match fields.get(&["encoding"]).unwrap_or_default().to_lowercase().as_str() {
        "raw" => Encoding::Bytes(Packing::None),
        "gzip" | "gz" => Encoding::Bytes(Packing::Gzip),
        "ascii" | "text" | "txt" => Encoding::Text,
        _ => {
            return Err(fields
                .wrong("encoding", "`raw`, `gzip` or `ascii`")
                .hint("save it again packed with gzip, which Slicer and ITK do by themselves"));
        }
    })
}

fn data_file(fields: &Fields) -> Result<Option<String>> {
    let Some(data) = fields.get(&["data file", "datafile"]) else { return Ok(None) };
    if data.starts_with("LIST") || data.contains('%') {
        return Err(fields
            .wrong("data file", "all voxels in one file")
            .hint("save it as `.nrrd`, for example with Slicer"));
    }
    Ok(Some(data.to_owned()))
}
