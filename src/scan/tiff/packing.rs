//! How strips and tiles of TIFF are packed: not at all, deflate, LZW or PackBits, and as differences of neighbours.
//!
//! Unpacks no more bytes than a strip has; knows no tags.

use crate::scan::pack_bits;
use flate2::bufread::ZlibDecoder;
use std::io::Read;

/// Codes of LZW: a new table, and the end.
const CLEAR: u16 = 256;
const END: u16 = 257;

/// Codes of LZW have at most 12 bits.
const CODES: usize = 1 << 12;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Lzw,
    Deflate,
    PackBits,
}

impl Packing {
    /// By the number that the tag for it has.
    pub(super) fn of(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::None),
            5 => Some(Self::Lzw),
            8 | 32946 => Some(Self::Deflate),
            32773 => Some(Self::PackBits),
            _ => None,
        }
    }

    /// The first `count` bytes that `packed` holds; fewer where it is damaged or holds no more.
    pub(super) fn unpack(self, packed: &[u8], count: usize) -> Vec<u8> {
        match self {
            Self::None => packed[..packed.len().min(count)].to_vec(),
            Self::Deflate => {
                let mut bytes = Vec::new();
                // What is missing after an error is told by its length.
                let _ = ZlibDecoder::new(packed).take(count as u64).read_to_end(&mut bytes);
                bytes
            }
            Self::Lzw => lzw(packed, count),
            Self::PackBits => pack_bits::unpack(packed, count),
        }
    }
}

/// Codes of 9 to 12 bits, the most significant first, each of which stands for bytes that were there before.
fn lzw(packed: &[u8], count: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    // Where in `bytes` what each code above the two special ones stands for begins, and its length.
    let mut table: Vec<(usize, usize)> = Vec::new();
    let (mut bits, mut held, mut source) = (0u32, 0u32, packed.iter());
    let mut last: Option<(usize, usize)> = None;
    while bytes.len() < count {
        // Wider by one code early, as TIFF has it.
        let next = usize::from(END) + 1 + table.len() + usize::from(last.is_some());
        let width = (usize::BITS - next.leading_zeros()).clamp(9, 12);
        while held < width {
            let Some(byte) = source.next() else { return bytes };
            (bits, held) = (bits << 8 | u32::from(*byte), held + 8);
        }
        held -= width;
        let code = (bits >> held & ((1 << width) - 1)) as u16;
        if code == END {
            break;
        }
        if code == CLEAR {
            last = None;
            table.clear();
            continue;
        }
        let start = bytes.len();
        if code < CLEAR {
            bytes.push(code as u8);
        } else {
            let known = table.get(usize::from(code - END - 1)).copied();
            // A code that is just being made is the last one with its own first byte behind.
            let fresh = last.map(|(at, length)| (at, length + 1));
            let is_fresh = usize::from(code - END - 1) == table.len();
            let Some((at, length)) = known.or(fresh.filter(|_| is_fresh)) else { return bytes };
            for index in at..at + length {
                bytes.push(bytes[index]);
            }
        }
        if let Some((at, length)) = last
            && table.len() + usize::from(END) + 1 < CODES
        {
            table.push((at, length + 1));
        }
        last = Some((start, bytes.len() - start));
    }
    bytes.truncate(count);
    bytes
}

/// Turns differences of neighbours in each row into numbers, which have `width` bytes; neighbours are `samples`
/// numbers apart.
pub(super) fn add_up(bytes: &mut [u8], row_bytes: usize, [width, samples]: [usize; 2], big: bool) {
    let step = width * samples;
    for row in bytes.chunks_mut(row_bytes.max(1)) {
        for at in (step..row.len().saturating_sub(width - 1)).step_by(width) {
            let mut carry = 0;
            for index in 0..width {
                let byte = if big { width - 1 - index } else { index };
                let sum = u16::from(row[at + byte]) + u16::from(row[at - step + byte]) + carry;
                (row[at + byte], carry) = (sum as u8, sum >> 8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_undone() {
        // The example of the TIFF specification, cut off at any byte.
        let lzw = [0x80, 0x01, 0xe0, 0x40, 0x80, 0x44, 0x08, 0x0c, 0x06, 0x80, 0x80];
        let plain = [7, 7, 7, 8, 8, 7, 7, 6, 6];
        assert_eq!(Packing::Lzw.unpack(&lzw, 9), plain);
        for length in 0..lzw.len() {
            assert!(plain.starts_with(&Packing::Lzw.unpack(&lzw[..length], 9)));
        }
    }

    #[test]
    fn differences_add_up_in_both_orders_of_bytes() {
        let mut little = [0xff, 0, 1, 0, 5, 0, 0xfe, 0xff];
        add_up(&mut little, 8, [2, 1], false);
        assert_eq!(little, [0xff, 0, 0, 1, 5, 1, 3, 1]);
        let mut big = [1, 0xff, 0, 1, 0, 0, 0, 1];
        add_up(&mut big, 4, [2, 1], true);
        assert_eq!(big, [1, 0xff, 2, 0, 0, 0, 0, 1]);
        let mut colours = [1, 2, 3, 1, 1, 1];
        add_up(&mut colours, 6, [1, 3], false);
        assert_eq!(colours, [1, 2, 3, 2, 3, 4]);
    }
}
