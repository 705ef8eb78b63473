//! What PNG and JPEG files say beside their pixels: how they are to be turned, and whether they move.
//!
//! Knows where it stands in the files; damaged files say nothing here and are refused by their decoders.

use image::metadata::Orientation;
use std::io::Cursor;

/// What a file says beside its pixels.
pub(super) struct Metadata {
    /// How the pixels are to be turned before they are shown.
    pub(super) orientation: Orientation,
    /// Whether some viewers would turn it and others would not.
    pub(super) viewers_differ: bool,
    /// Whether it has several frames.
    pub(super) is_animated: bool,
}

/// The first bytes of a PNG file.
pub(super) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Reads what `bytes`, a PNG or JPEG file, say; other files say nothing.
pub(super) fn read(bytes: &[u8]) -> Metadata {
    let said = bytes.strip_prefix(PNG).map_or_else(|| jpeg_chunks(bytes), png_chunks);
    let exif = said.exif.and_then(Orientation::from_exif_chunk);
    let mut texts: Vec<(String, String)> = Vec::new();
    if exif.is_none() {
        texts = if bytes.starts_with(PNG) { png_texts(bytes) } else { said.texts };
    }
    let elsewhere = texts.iter().find_map(|(keyword, text)| in_text(keyword, text));
    // Browsers and Pillow agree about Exif data alone; what stands elsewhere counts where there is none.
    let viewers_differ =
        exif.is_none() && elsewhere.is_some_and(|turned| turned != Orientation::NoTransforms);
    let orientation = exif.unwrap_or(Orientation::NoTransforms);
    Metadata { orientation, viewers_differ, is_animated: said.is_animated }
}

/// The chunks of a file that say something.
#[derive(Default)]
struct Chunks<'a> {
    /// Exif data from the byte order on.
    exif: Option<&'a [u8]>,
    /// Keywords and texts; those of PNG files are packed and not among them.
    texts: Vec<(String, String)>,
    is_animated: bool,
}

fn png_chunks(mut bytes: &[u8]) -> Chunks<'_> {
    let mut chunks = Chunks::default();
    // Length, kind, content, checksum.
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some((content, rest)) = rest.split_at_checked(length) else { break };
        match &head[4..] {
            b"eXIf" => chunks.exif = chunks.exif.or(Some(content)),
            b"acTL" => chunks.is_animated = true,
            _ => (),
        }
        bytes = rest.get(4..).unwrap_or_default();
    }
    chunks
}

/// The chunks of a JPEG file; none of any other.
fn jpeg_chunks(bytes: &[u8]) -> Chunks<'_> {
    let after_start = bytes.strip_prefix(&[0xff, 0xd8]).unwrap_or_default();
    let (mut chunks, mut bytes) = (Chunks::default(), after_start);
    // Marker, length with the length itself, content; pixels follow after 0xda.
    while let [0xff, marker, rest @ ..] = bytes {
        if *marker == 0xff {
            bytes = &bytes[1..];
            continue;
        }
        let [high, low, ..] = rest else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((content, rest)) = rest.split_at_checked(length) else { break };
        let content = content.get(2..).unwrap_or_default();
        match *marker {
            0xda => break,
            0xe1 => {
                if let Some(exif) = content.strip_prefix(b"Exif\0\0") {
                    chunks.exif = chunks.exif.or(Some(exif));
                } else {
                    let text = String::from_utf8_lossy(content).into_owned();
                    chunks.texts.push((String::new(), text));
                }
            }
            _ => (),
        }
        bytes = rest;
    }
    chunks
}

/// How a picture is to be turned by the text of a program: Adobe's XMP, or Exif data in the hexadecimal
/// digits of `ImageMagick`.
fn in_text(keyword: &str, text: &str) -> Option<Orientation> {
    if let Some((_, after)) = text.split_once("tiff:Orientation") {
        let digit = after.trim_start_matches(['=', '"', '\'', '>', ' ']).bytes().next()?;
        return Orientation::from_exif(digit.checked_sub(b'0')?);
    }
    if !["Raw profile type exif", "Raw profile type APP1"].contains(&keyword) {
        return None;
    }
    // Two words come first: what it is, and how many bytes.
    let digits: String = text.split_whitespace().skip(2).collect();
    let pairs = digits.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = pairs.map(byte).collect::<Option<Vec<u8>>>()?;
    Orientation::from_exif_chunk(bytes.strip_prefix(b"Exif\0\0").unwrap_or(&bytes))
}

/// Keywords and texts of a PNG file, as far as they stand before its pixels.
fn png_texts(bytes: &[u8]) -> Vec<(String, String)> {
    const LONGEST: usize = 1 << 20;
    let Ok(reader) = png::Decoder::new(Cursor::new(bytes)).read_info() else { return Vec::new() };
    let info = reader.info();
    let mut texts = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        texts.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        if chunk.decompress_text_with_limit(LONGEST).is_ok() {
            let text = chunk.get_text().unwrap_or_default();
            texts.push((chunk.keyword, text));
        }
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        if chunk.decompress_text_with_limit(LONGEST).is_ok() {
            let text = chunk.get_text().unwrap_or_default();
            texts.push((chunk.keyword, text));
        }
    }
    texts
}
