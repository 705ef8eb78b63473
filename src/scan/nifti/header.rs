//! The 348 bytes that a NIfTI-1 file begins with.
//!
//! Knows the fields of the standard, and which of their values mean nothing; follows what nibabel and ITK
//! make of them, and refuses what these two read differently. Knows neither voxels nor what is done with
//! them.

use crate::error::{Failure, Result};
use crate::limits::VOLUME_VOXELS;
use crate::scan::content::voxels;

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 348;

/// Where voxels begin at the earliest: four bytes that announce extensions stand behind the header.
const EARLIEST_OFFSET: f32 = 352.0;

/// How a voxel is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

/// What a header says.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// Whether the most significant byte of a number comes first.
    pub(super) big_endian: bool,
    /// Voxels along x, y, z, none of them 0; x is fastest in the file.
    pub(super) extents: [usize; 3],
    /// How voxels are stored.
    pub(super) stored: Stored,
    /// Where voxels begin in the file, in bytes.
    pub(super) offset: u64,
    /// Slope and intercept to apply to what is stored, where they change anything.
    pub(super) scaling: Option<[f64; 2]>,
    /// The sign of z in the quaternion's frame, and distances along x, y, z in units of the file.
    pub(super) pixdim: [f32; 4],
    /// Millimetres in the unit of length, where the file names one.
    pub(super) unit_mm: Option<f64>,
    /// Rows of the matrix from voxels to the scanner, in units of the file, if its code says that it is one.
    pub(super) sform: Option<[[f32; 4]; 3]>,
    /// The quaternion's b, c, d and the position of the first voxel, if its code says so.
    pub(super) qform: Option<[f32; 6]>,
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

    fn float(&self, at: usize) -> f32 {
        f32::from_le_bytes(self.raw(at))
    }
}

/// Reads the beginning of a file that is called `name` in messages and begins as NIfTI does.
pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Header> {
    let size: [u8; 4] = std::array::from_fn(|byte| bytes.get(byte).copied().unwrap_or(0));
    let big_endian = i32::from_be_bytes(size) == HEADER_BYTES as i32;
    if bytes.len() < HEADER_BYTES {
        return Err(Failure::new(format!(
            "{name} is cut off: it holds {} of the {HEADER_BYTES} bytes of its header",
            bytes.len()
        )));
    }
    let fields = Fields { bytes, big_endian };
    check_magic(&bytes[344..HEADER_BYTES], name)?;
    let floats = |at: usize, index: usize| fields.float(at + 4 * index);
    let sform: [[f32; 4]; 3] =
        std::array::from_fn(|row| std::array::from_fn(|column| floats(280, 4 * row + column)));
    Ok(Header {
        big_endian,
        extents: extents(&fields, name)?,
        stored: stored(fields.short(70), name)?,
        offset: offset(fields.float(108), name)?,
        scaling: scaling(fields.float(112), fields.float(116), name)?,
        pixdim: std::array::from_fn(|index| floats(76, index)),
        unit_mm: match bytes[123] & 7 {
            1 => Some(1000.0),
            2 => Some(1.0),
            3 => Some(0.001),
            _ => None,
        },
        sform: (fields.short(254) > 0).then_some(sform),
        qform: (fields.short(252) > 0).then(|| std::array::from_fn(|index| floats(256, index))),
    })
}

fn check_magic(magic: &[u8], name: &str) -> Result<()> {
    match magic {
        b"n+1\0" => Ok(()),
        b"ni1\0" => Err(Failure::new(format!(
            "{name} is a header whose voxels lie in an `.img` file, expected both in one file"
        ))
        .hint("save it as `.nii.gz`")),
        _ => Err(Failure::new(format!(
            "{name} is ANALYZE 7.5, which does not say what is left and what is right, expected NIfTI-1"
        ))
        .hint("save it as `.nii.gz` with the program that it comes from")),
    }
}

/// Voxels along x, y, z: further dimensions must have extent 1, missing ones have it.
fn extents(fields: &Fields<'_>, name: &str) -> Result<[usize; 3]> {
    let count = usize::try_from(fields.short(40)).unwrap_or(0);
    if !(1..=7).contains(&count) {
        return Err(Failure::new(format!(
            "{name} has {} dimensions, expected two or three",
            fields.short(40)
        )));
    }
    let found: Vec<i16> = (1..=count).map(|axis| fields.short(40 + 2 * axis)).collect();
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
        |axis: usize| found.get(axis).map_or(1, |&extent| usize::from(extent.unsigned_abs()));
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

fn offset(offset: f32, name: &str) -> Result<u64> {
    if offset >= EARLIEST_OFFSET && offset.fract() == 0.0 && f64::from(offset) < 2f64.powi(40) {
        return Ok(offset as u64);
    }
    Err(Failure::new(format!(
        "{name} says that its voxels begin at byte {offset} (`vox_offset`), expected {EARLIEST_OFFSET} or more"
    ))
    .hint("the header is wrong; save the file again with the program that it comes from"))
}

/// A slope of 0, infinity or NaN means that there is no scaling.
fn scaling(slope: f32, intercept: f32, name: &str) -> Result<Option<[f64; 2]>> {
    if slope == 0.0 || !slope.is_finite() {
        return Ok(None);
    }
    if !intercept.is_finite() {
        return Err(Failure::new(format!(
            "{name} has slope {slope} and intercept {intercept} (`scl_slope`, `scl_inter`), expected finite numbers"
        ))
        .hint("the header is wrong; save the file again with the program that it comes from"));
    }
    let scaling = [f64::from(slope), f64::from(intercept)];
    Ok(((slope, intercept) != (1.0, 0.0)).then_some(scaling))
}

impl Stored {
    /// Bytes of a voxel.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether voxels are stored as floats.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// The numbers in `bytes`; integers of 64 bits beyond 2^53 are rounded.
    pub(super) fn decode(self, bytes: &[u8], big_endian: bool) -> Vec<f64> {
        let order = big_endian;
        match self {
            Self::U8 => bytes.iter().map(|&byte| f64::from(byte)).collect(),
            Self::I8 => bytes.iter().map(|&byte| f64::from(byte as i8)).collect(),
            Self::U16 => numbers(bytes, order, |raw| f64::from(u16::from_le_bytes(raw))),
            Self::I16 => numbers(bytes, order, |raw| f64::from(i16::from_le_bytes(raw))),
            Self::U32 => numbers(bytes, order, |raw| f64::from(u32::from_le_bytes(raw))),
            Self::I32 => numbers(bytes, order, |raw| f64::from(i32::from_le_bytes(raw))),
            Self::U64 => numbers(bytes, order, |raw| u64::from_le_bytes(raw) as f64),
            Self::I64 => numbers(bytes, order, |raw| i64::from_le_bytes(raw) as f64),
            Self::F32 => numbers(bytes, order, |raw| f64::from(f32::from_le_bytes(raw))),
            Self::F64 => numbers(bytes, order, f64::from_le_bytes),
        }
    }
}

fn numbers<const COUNT: usize>(
    bytes: &[u8],
    big_endian: bool,
    number: impl Fn([u8; COUNT]) -> f64,
) -> Vec<f64> {
    let (chunks, _rest) = bytes.as_chunks::<COUNT>();
    let decode = |&chunk: &[u8; COUNT]| {
        let mut raw = chunk;
        if big_endian {
            raw.reverse();
        }
        number(raw)
    };
    chunks.iter().map(decode).collect()
}
