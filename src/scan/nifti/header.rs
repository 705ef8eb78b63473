//! The header that a NIfTI file begins with: 348 bytes of NIfTI-1, 540 of NIfTI-2.
//!
//! Knows the fields of the standards, and which of their values mean nothing; follows what nibabel and ITK
//! make of them, and refuses what these two read differently. Knows neither voxels nor what is done with
//! them.

use crate::error::{Failure, Result};
use crate::limits::VOLUME_VOXELS;
use crate::scan::content::voxels;
use crate::scan::stored::Stored;

/// Bytes of the header of NIfTI-1.
pub(super) const HEADER_BYTES: usize = 348;

/// Bytes of the header of NIfTI-2, which has the same fields, wider and in another order.
pub(super) const LONG_HEADER_BYTES: usize = 540;

/// What marks NIfTI-2 with header and voxels in one file; line ends show whether it went through a text mode.
const LONG_MAGIC: &[u8] = b"n+2\0\r\n\x1a\n";

/// The same of a header whose voxels lie in a file of their own.
const LONG_APART: &[u8] = b"ni2\0\r\n\x1a\n";

/// What a header says.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// How long it is.
    pub(super) bytes: usize,
    /// Whether the most significant byte of a number comes first.
    pub(super) big_endian: bool,
    /// Voxels along x, y, z, none of them 0; x is fastest in the file.
    pub(super) extents: [usize; 3],
    /// How voxels are stored.
    pub(super) stored: Stored,
    /// Whether they lie in a file of their own, an `.img` beside the `.hdr`.
    pub(super) is_apart: bool,
    /// Where voxels begin in their file, in bytes.
    pub(super) offset: u64,
    /// Slope and intercept to apply to what is stored, where they change anything.
    pub(super) scaling: Option<[f64; 2]>,
    /// The sign of z in the quaternion's frame, and distances along x, y, z in units of the file.
    pub(super) pixdim: [f64; 4],
    /// Millimetres in the unit of length, where the file names one.
    pub(super) unit_mm: Option<f64>,
    /// Rows of the matrix from voxels to the scanner, in units of the file, if its code says that it is one.
    pub(super) sform: Option<[[f64; 4]; 3]>,
    /// The quaternion's b, c, d and the position of the first voxel, if its code says so.
    pub(super) qform: Option<[f64; 6]>,
}

/// The numbers of a header.
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    fn raw<const COUNT: usize>(&self, at: usize) -> [u8; COUNT] {
        let mut raw: [u8; COUNT] = std::array::from_fn(|byte| self.bytes[at + byte]);
        if self.big_endian {
            raw.reverse();
        }
        raw
    }

    fn short(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.raw(at))
    }

    fn int(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.raw(at))
    }

    fn long(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.raw(at))
    }

    fn float(&self, at: usize) -> f32 {
        f32::from_le_bytes(self.raw(at))
    }

    fn double(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.raw(at))
    }

    fn doubles<const COUNT: usize>(&self, at: usize) -> [f64; COUNT] {
        std::array::from_fn(|index| self.double(at + 8 * index))
    }
}

/// Reads the beginning of a file that is called `name` in messages and begins as NIfTI does.
pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Header> {
    let size: [u8; 4] = std::array::from_fn(|byte| bytes.get(byte).copied().unwrap_or(0));
    let of_size =
        |size: i32| [HEADER_BYTES, LONG_HEADER_BYTES].into_iter().find(|&s| s as i32 == size);
    let big_endian = of_size(i32::from_be_bytes(size)).is_some();
    let size = if big_endian { i32::from_be_bytes(size) } else { i32::from_le_bytes(size) };
    let header_bytes = of_size(size).unwrap_or(HEADER_BYTES);
    if bytes.len() < header_bytes {
        return Err(Failure::new(format!(
            "{name} is cut off: it holds {} of the {header_bytes} bytes of its header",
            bytes.len()
        )));
    }
    let fields = Fields { bytes, big_endian };
    if header_bytes == HEADER_BYTES {
        short_header(&fields, name)
    } else {
        long_header(&fields, name)
    }
}

/// The shortest decimal of a stored number: 1.37 rather than 1.37000000477.
fn decimal(stored: f32) -> f64 {
    stored.to_string().parse().unwrap_or_else(|_never| f64::from(stored))
}

/// Reads the fields of NIfTI-1.
fn short_header(fields: &Fields<'_>, name: &str) -> Result<Header> {
    let is_apart = is_apart(&fields.bytes[344..HEADER_BYTES], name)?;
    let floats = |at: usize, index: usize| f64::from(fields.float(at + 4 * index));
    let sform: [[f64; 4]; 3] =
        std::array::from_fn(|row| std::array::from_fn(|column| floats(280, 4 * row + column)));
    let dimensions: [i64; 8] = std::array::from_fn(|axis| i64::from(fields.short(40 + 2 * axis)));
    Ok(Header {
        bytes: HEADER_BYTES,
        big_endian: fields.big_endian,
        extents: extents(dimensions, name)?,
        stored: stored(fields.short(70), name)?,
        is_apart,
        offset: offset(decimal(fields.float(108)), earliest(HEADER_BYTES, is_apart), name)?,
        scaling: scaling(floats(112, 0), floats(116, 0), name)?,
        pixdim: std::array::from_fn(|index| decimal(fields.float(76 + 4 * index))),
        unit_mm: unit_mm(fields.bytes[123]),
        sform: (fields.short(254) > 0).then_some(sform),
        qform: (fields.short(252) > 0).then(|| std::array::from_fn(|index| floats(256, index))),
    })
}

/// Reads the fields of NIfTI-2.
fn long_header(fields: &Fields<'_>, name: &str) -> Result<Header> {
    let is_apart = &fields.bytes[4..12] == LONG_APART;
    if !is_apart && &fields.bytes[4..12] != LONG_MAGIC {
        return Err(Failure::new(format!(
            "{name} has a damaged mark of NIfTI-2, expected `n+2` or `ni2` and line ends"
        ))
        .hint("it may have been copied as text; copy it again as it is"));
    }
    let sform: [[f64; 4]; 3] = std::array::from_fn(|row| fields.doubles(400 + 32 * row));
    Ok(Header {
        bytes: LONG_HEADER_BYTES,
        big_endian: fields.big_endian,
        extents: extents(std::array::from_fn(|axis| fields.long(16 + 8 * axis)), name)?,
        stored: stored(fields.short(12), name)?,
        is_apart,
        offset: offset(fields.long(168) as f64, earliest(LONG_HEADER_BYTES, is_apart), name)?,
        scaling: scaling(fields.double(176), fields.double(184), name)?,
        pixdim: fields.doubles(104),
        unit_mm: unit_mm(fields.int(500).to_le_bytes()[0]),
        sform: (fields.int(348) > 0).then_some(sform),
        qform: (fields.int(344) > 0).then(|| fields.doubles(352)),
    })
}

/// Millimetres in the unit of length that the lowest bits of `xyzt_units` name.
fn unit_mm(code: u8) -> Option<f64> {
    match code & 7 {
        1 => Some(1000.0),
        2 => Some(1.0),
        3 => Some(0.001),
        _ => None,
    }
}

/// Whether voxels lie in a file of their own. Refuses the format that was there before NIfTI.
fn is_apart(magic: &[u8], name: &str) -> Result<bool> {
    match magic {
        b"n+1\0" => Ok(false),
        b"ni1\0" => Ok(true),
        _ => Err(Failure::new(format!(
            "{name} is ANALYZE 7.5, which does not say what is left and what is right, expected NIfTI-1"
        ))
        .hint("save it as `.nii.gz` with the program that it comes from")),
    }
}

/// Voxels along x, y, z: further dimensions must have extent 1, missing ones have it.
fn extents(dimensions: [i64; 8], name: &str) -> Result<[usize; 3]> {
    let count = usize::try_from(dimensions[0]).unwrap_or(0);
    if !(1..=7).contains(&count) {
        return Err(Failure::new(format!(
            "{name} has {} dimensions, expected two or three",
            dimensions[0]
        )));
    }
    let found = &dimensions[1..=count];
    let wrong = |expected: &str| {
        Failure::new(format!("{name} has dimensions {found:?}, expected {expected}"))
    };
    if found.iter().any(|&extent| extent < 1) {
        return Err(wrong("at least one voxel along each"));
    }
    if count < 2 {
        return Err(wrong("two or three"));
    }
    if found.iter().skip(3).any(|&extent| extent != 1) {
        return Err(wrong("two or three").hint(
            "save each volume or channel in a file of its own, for example with `fslsplit`",
        ));
    }
    let extent =
        |axis: usize| found.get(axis).map_or(1, |&extent| usize::try_from(extent).unwrap_or(0));
    let extents: [usize; 3] = std::array::from_fn(extent);
    if voxels(&extents).is_none() {
        return Err(wrong(&format!("at most {VOLUME_VOXELS} voxels")));
    }
    Ok(extents)
}

fn stored(code: i16, name: &str) -> Result<Stored> {
    let what = match code {
        2 => return Ok(Stored::U8),
        4 => return Ok(Stored::I16),
        8 => return Ok(Stored::I32),
        16 => return Ok(Stored::F32),
        64 => return Ok(Stored::F64),
        256 => return Ok(Stored::I8),
        512 => return Ok(Stored::U16),
        768 => return Ok(Stored::U32),
        1024 => return Ok(Stored::I64),
        1280 => return Ok(Stored::U64),
        1 => "single bits".to_owned(),
        32 | 1792 | 2048 => "complex numbers".to_owned(),
        128 => "colours (RGB)".to_owned(),
        2304 => "colours (RGBA)".to_owned(),
        1536 => "floats of 128 bits".to_owned(),
        code => format!("voxels of unknown type {code}"),
    };
    Err(Failure::new(format!(
        "{name} holds {what}, expected integers of 8 to 64 bits, or floats of 32 or 64"
    ))
    .hint("save it with another type, for example as 32-bit floats"))
}

/// Where voxels begin at the earliest: behind the header and four bytes that announce extensions, or at the first byte
/// of a file of their own.
fn earliest(header_bytes: usize, is_apart: bool) -> u64 {
    if is_apart { 0 } else { header_bytes as u64 + 4 }
}

fn offset(offset: f64, earliest: u64, name: &str) -> Result<u64> {
    if offset >= earliest as f64 && offset.fract() == 0.0 && offset < 2f64.powi(40) {
        return Ok(offset as u64);
    }
    Err(Failure::new(format!(
        "{name} says that its voxels begin at byte {offset} (`vox_offset`), expected {earliest} or more"
    ))
    .hint("the header is wrong; save the file again with the program that it comes from"))
}

/// A slope of 0, infinity or NaN means that there is no scaling.
fn scaling(slope: f64, intercept: f64, name: &str) -> Result<Option<[f64; 2]>> {
    if slope == 0.0 || !slope.is_finite() {
        return Ok(None);
    }
    if !intercept.is_finite() {
        return Err(Failure::new(format!(
            "{name} has slope {slope} and intercept {intercept} (`scl_slope`, `scl_inter`), expected finite numbers"
        ))
        .hint("the header is wrong; save the file again with the program that it comes from"));
    }
    Ok(((slope, intercept) != (1.0, 0.0)).then_some([slope, intercept]))
}
