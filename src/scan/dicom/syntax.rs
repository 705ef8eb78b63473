//! The transfer syntaxes of DICOM: how the elements of a file and its pixels are written.
//!
//! Knows their names and numbers, and which of them are read.

use crate::error::{Failure, Result};

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Whether each element says of what type it is.
    pub(super) is_explicit: bool,
    /// Whether the most significant byte of a number comes first.
    pub(super) big_endian: bool,
}

impl Encoding {
    /// That of the first elements of each file, and of most files.
    pub(super) const EXPLICIT: Self = Self { is_explicit: true, big_endian: false };
    /// The oldest.
    pub(super) const IMPLICIT: Self = Self { is_explicit: false, big_endian: false };
}

/// How pixels are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all.
    None,
    /// In runs of equal bytes.
    Runs,
    /// As JPEG of 8 bits, or as one without loss.
    Jpeg,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) encoding: Encoding,
    /// Whether all but the first elements are packed with deflate.
    pub(super) is_deflated: bool,
    pub(super) pixels: Packing,
}

/// What is not read, by the beginnings of its numbers behind [`ROOT`].
const UNREAD: [(&str, &str); 6] = [
    ("4.80", "JPEG-LS"),
    ("4.81", "JPEG-LS"),
    ("4.9", "JPEG 2000"),
    ("4.20", "High-Throughput JPEG 2000"),
    ("4.1", "video"),
    ("4.11", "JPEG XL"),
];

/// What the numbers of all transfer syntaxes of the standard begin with.
const ROOT: &str = "1.2.840.10008.1.2";

impl Syntax {
    /// By its number, in a file that is called `name` in messages. Refuses what is not read.
    pub(super) fn of(uid: &str, name: &str) -> Result<Self> {
        let plain = |encoding| Self { encoding, is_deflated: false, pixels: Packing::None };
        let packed = |pixels| Self { pixels, ..plain(Encoding::EXPLICIT) };
        let number = uid.strip_prefix(ROOT).map(|rest| rest.trim_start_matches('.'));
        Ok(match number {
            Some("") => plain(Encoding::IMPLICIT),
            Some("1") => plain(Encoding::EXPLICIT),
            Some("1.99") => Self { is_deflated: true, ..plain(Encoding::EXPLICIT) },
            Some("2") => plain(Encoding { is_explicit: true, big_endian: true }),
            Some("5") => packed(Packing::Runs),
            Some("4.50" | "4.51" | "4.57" | "4.70") => packed(Packing::Jpeg),
            _ => return Err(unread(uid, number.unwrap_or_default(), name)),
        })
    }
}

/// The refusal of a transfer syntax that is not read.
fn unread(uid: &str, number: &str, name: &str) -> Failure {
    let known = UNREAD.iter().filter(|(begin, _)| number.starts_with(begin));
    let called = known.max_by_key(|(begin, _)| begin.len());
    let called = called.map_or(String::new(), |(_, called)| format!(" {called}"));
    Failure::new(format!(
        "{name} has transfer syntax{called} `{uid}`, expected pixels without packing, in runs (RLE), or JPEG"
    ))
    .hint("unpack it, for example by `gdcmconv --raw IN OUT`, or turn the series into one volume by `dcm2niix -z y -o OUT FOLDER`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_syntaxes_are_known_by_their_numbers() {
        let of = |uid: &str| Syntax::of(uid, "`a`");
        assert_eq!(of("1.2.840.10008.1.2").unwrap().encoding, Encoding::IMPLICIT);
        assert_eq!(of("1.2.840.10008.1.2.4.70").unwrap().pixels, Packing::Jpeg);
        for (uid, called) in [
            ("1.2.840.10008.1.2.4.80", "JPEG-LS"),
            ("1.2.840.10008.1.2.4.90", "JPEG 2000"),
            ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"),
            ("1.2.840.10008.1.2.4.102", "video"),
            ("1.2.840.10008.1.2.4.110", "JPEG XL"),
            ("1.2.3", "syntax `1.2.3`"),
            ("", "syntax ``"),
        ] {
            let said = of(uid).unwrap_err().to_string();
            assert!(said.contains(called), "{said}");
        }
    }
}
