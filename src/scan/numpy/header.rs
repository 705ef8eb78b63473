//! The header of an array of NumPy: its type, its shape and the order of its numbers.
//!
//! Understands the three keys that the format has, which is not all of Python. Knows neither voxels nor archives.

use crate::error::{Failure, Result};
use crate::limits::{TEXT_HEADER_BYTES, VOLUME_VOXELS};
use crate::scan::content::{Content, voxels};
use crate::scan::stored::Stored;

/// What an array begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Header {
    /// Slices, rows, columns.
    pub(super) shape: [usize; 3],
    /// Whether slices lie closest to each other, as in Fortran, and not columns.
    pub(super) is_fortran: bool,
    /// How numbers are stored.
    pub(super) stored: Stored,
    /// Whether the most significant byte of a number comes first.
    pub(super) big_endian: bool,
}

/// Reads the header; numbers follow.
pub(super) fn read(content: &mut Content) -> Result<Header> {
    let start = content.up_to(MAGIC.len() + 2)?;
    let version = start.strip_prefix(MAGIC).and_then(|rest| rest.first().copied());
    let wide = match version {
        Some(1) => 2,
        Some(2 | 3) => 4,
        _ => return Err(damaged(&content.name, "it does not begin as an array of NumPy")),
    };
    let mut length = content.up_to(wide)?;
    length.resize(4, 0);
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if length > TEXT_HEADER_BYTES {
        return Err(damaged(&content.name, &format!("its header has {length} bytes")));
    }
    let text = content.up_to(length)?;
    if text.len() < length {
        return Err(damaged(&content.name, "it ends within its header"));
    }
    parse(&String::from_utf8_lossy(&text), &content.name)
}

fn damaged(name: &str, what: &str) -> Failure {
    Failure::new(format!("{name} is damaged: {what}")).hint("copy it again")
}

fn parse(text: &str, name: &str) -> Result<Header> {
    let wrong =
        |key: &str| damaged(name, &format!("its header does not say `{key}` as NumPy does"));
    let order = value(text, "fortran_order").ok_or_else(|| wrong("fortran_order"))?;
    let is_fortran = order.starts_with("True");
    if !is_fortran && !order.starts_with("False") {
        return Err(wrong("fortran_order"));
    }
    let (stored, big_endian) = kind(value(text, "descr").ok_or_else(|| wrong("descr"))?, name)?;
    let shape = value(text, "shape").and_then(extents).ok_or_else(|| wrong("shape"))?;
    Ok(Header { shape: volume(&shape, name)?, is_fortran, stored, big_endian })
}

/// What stands behind a key, up to the end of the header.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = ['\'', '"'].map(|quote| format!("{quote}{key}{quote}"));
    let behind = quoted.iter().find_map(|quoted| text.split_once(quoted.as_str()))?.1;
    behind.trim_start().strip_prefix(':').map(str::trim_start)
}

/// The numbers between brackets.
fn extents(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let words = inside.split(',').map(str::trim).filter(|word| !word.is_empty());
    // Python 2 ends long numbers with a letter.
    words.map(|word| word.trim_end_matches('L').parse().ok()).collect()
}

/// The type in `'<f4'`, and whether the most significant byte comes first.
fn kind(text: &str, name: &str) -> Result<(Stored, bool)> {
    let quote = text.chars().next().filter(|letter| "'\"".contains(*letter));
    let word = quote.and_then(|quote| text[1..].split_once(quote)).map_or("", |(word, _)| word);
    let big_endian = word.starts_with('>');
    let stored = match word.trim_start_matches(['<', '>', '|', '=']) {
        "u1" | "b1" | "B" | "?" => Stored::U8,
        "i1" | "b" => Stored::I8,
        "u2" => Stored::U16,
        "i2" => Stored::I16,
        "u4" => Stored::U32,
        "i4" => Stored::I32,
        "u8" => Stored::U64,
        "i8" => Stored::I64,
        "f2" => Stored::F16,
        "f4" => Stored::F32,
        "f8" => Stored::F64,
        other => {
            let what = match other.chars().next() {
                Some('O') => "holds pickled objects of Python, which could run anything".to_owned(),
                Some(_) => format!("holds numbers of type `{word}`"),
                None => "holds records with several fields".to_owned(),
            };
            return Err(Failure::new(format!(
                "{name} {what}, expected integers of 8 to 64 bits, or floats of 16 to 64"
            ))
            .hint("save it with another type, for example `ARRAY.astype(\"float32\")`"));
        }
    };
    Ok((stored, big_endian))
}

/// Slices, rows and columns; of a picture there is one slice.
fn volume(found: &[usize], name: &str) -> Result<[usize; 3]> {
    let wrong =
        |expected: &str| Failure::new(format!("{name} has shape {found:?}, expected {expected}"));
    let shape = match *found {
        [rows, columns] => [1, rows, columns],
        [slices, rows, columns] => [slices, rows, columns],
        _ => {
            return Err(wrong("rows and columns, or slices, rows and columns")
                .hint("save each volume or channel in a file of its own"));
        }
    };
    if shape.contains(&0) {
        return Err(wrong("at least one voxel along each"));
    }
    match voxels(&shape) {
        Some(_) => Ok(shape),
        None => Err(wrong(&format!("at most {VOLUME_VOXELS} voxels"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_program_are_understood() {
        let parsed = |text: &str| parse(text, "`a`").map_err(|failure| failure.to_string());
        let header = parsed("{'descr': '>i2', 'fortran_order': True, 'shape': (3, 4, 5), }   \n");
        let expected =
            Header { shape: [3, 4, 5], is_fortran: true, stored: Stored::I16, big_endian: true };
        assert_eq!(header.unwrap(), expected);
        let flat = "{\"shape\":(4L,5L),\"fortran_order\":False,\"descr\":\"|b1\"}";
        assert_eq!(parsed(flat).unwrap().shape, [1, 4, 5]);
        for (wrong, said) in [
            ("{'descr': '|O', 'fortran_order': False, 'shape': (4, 5)}", "pickled"),
            ("{'descr': '<c8', 'fortran_order': False, 'shape': (4, 5)}", "`<c8`"),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4, 5)}", "records"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", "[4]"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 4, 5)}", "[1, 2, 4, 5]"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5)}", "at least one"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999, 99999, 99999)}", "at most"),
            ("{'descr': '<f4', 'fortran_order': 0, 'shape': (4, 5)}", "`fortran_order`"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 5)}", "`shape`"),
            ("{'fortran_order': False, 'shape': (4, 5)}", "`descr`"),
        ] {
            let found = parsed(wrong).unwrap_err();
            assert!(found.contains(said), "{found}");
        }
    }
}
