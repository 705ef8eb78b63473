//! How numbers are stored in files, and the numbers themselves.
//!
//! Knows bytes and their order; where they stand and what they mean is for the formats to say.

/// How one number is stored.
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
    F16,
    F32,
    F64,
}

impl Stored {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether numbers are stored as floats.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
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
            Self::F16 => numbers(bytes, order, |raw| half(u16::from_le_bytes(raw))),
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

/// The number of a float of 16 bits: a sign, 5 bits of exponent, 10 of fraction.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { size } else { -size }
}
