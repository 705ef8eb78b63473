//! Random damage: flipped bits, lost and repeated pieces, numbers at the edges of their types.
//!
//! Knows bytes only; all of it follows from a seed.

/// Numbers that are mistaken for sizes, lengths and counts.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];
/// Pieces that mean something in texts.
const WORDS: [&str; 22] = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "1e-400",
    "18446744073709551616",
    "-9223372036854775808",
    "null",
    "true",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "\n",
    "\u{1b}[2J",
    "\0",
    "../",
    "/dev/zero",
    "=",
];
/// Longest run of one repeated piece, in bytes.
const LONGEST_RUN: u64 = 1 << 16;

/// A generator of numbers (splitmix64): equal seeds give equal mutants.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }

    /// A place in `bytes`: half of the time near the beginning, where headers are.
    fn place(&mut self, length: usize) -> usize {
        let near = if self.below(2) == 0 { 512 } else { usize::MAX };
        self.below(length.min(near))
    }

    /// A stretch of `bytes`, short as a rule.
    fn stretch(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.place(length);
        let longest = if self.below(4) == 0 { length } else { 64 };
        let end = start + self.below(longest.min(length - start) + 1);
        start..end
    }
}

/// `seed` with one to six kinds of damage; `other` is where foreign pieces come from.
pub(crate) fn mutant(seed: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(6) {
        damage(&mut bytes, other, chance);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    if bytes.is_empty() {
        bytes.extend_from_slice(other);
        return;
    }
    match chance.below(10) {
        0 | 1 => {
            let at = chance.place(bytes.len());
            bytes[at] ^= 1 << chance.below(8);
        }
        2 => {
            let at = chance.place(bytes.len());
            bytes[at] = chance.number() as u8;
        }
        3 | 4 => overwrite_with_edge(bytes, chance),
        5 => bytes.truncate(chance.below(bytes.len())),
        6 => drop(bytes.drain(chance.stretch(bytes.len()))),
        7 => {
            let piece = bytes[chance.stretch(bytes.len())].to_vec();
            let times =
                if chance.below(8) == 0 { LONGEST_RUN / (piece.len() as u64 + 1) } else { 1 };
            let at = chance.place(bytes.len());
            bytes.splice(at..at, piece.repeat(times as usize));
        }
        8 => {
            let word = chance.of(&WORDS).as_bytes();
            let times = if chance.below(8) == 0 { 1 + chance.below(4096) } else { 1 };
            let place = chance.stretch(bytes.len());
            bytes.splice(place, word.repeat(times));
        }
        _ if !other.is_empty() => {
            let piece = other[chance.stretch(other.len())].to_vec();
            let place = chance.stretch(bytes.len());
            bytes.splice(place, piece);
        }
        _ => {}
    }
}

/// Writes an edge of 1, 2, 4 or 8 bytes, in either order of bytes, or a float that is none.
fn overwrite_with_edge(bytes: &mut [u8], chance: &mut Chance) {
    let width = *chance.of(&[1usize, 2, 4, 8]);
    if bytes.len() < width {
        return;
    }
    let mut edge = chance.of(&EDGES).to_le_bytes();
    if width == 4 && chance.below(3) == 0 {
        let float = *chance.of(&[f32::NAN, f32::INFINITY, -1.0, 1e30, 0.0]);
        edge[..4].copy_from_slice(&float.to_le_bytes());
    }
    let edge = &mut edge[..width];
    if chance.below(2) == 0 {
        edge.reverse();
    }
    let at = chance.place(bytes.len() - width + 1);
    bytes[at..at + width].copy_from_slice(edge);
}
