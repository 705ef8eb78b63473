//! One NIfTI-1 file from disk, compressed or not: its header and its voxels in the order of the file.
//!
//! Reads every file to its end, so that checksums are compared and each byte is explained; takes no more
//! memory than the file has voxels, whatever its header says. Does not know what voxels mean or where
//! they lie.

use super::nifti_header::{HEADER_BYTES, Header, parse};
use crate::error::{Failure, Result};
use flate2::bufread::GzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use std::path::Path;

/// How many zeros may follow the voxels: some programs write whole blocks.
const PADDING_BYTES: u64 = 4096;

/// A file as it is stored.
pub(super) struct NiftiFile {
    pub(super) header: Header,
    /// Voxels after slope and intercept, x fastest.
    pub(super) values: Vec<f64>,
}

/// Reads a NIfTI-1 file to its end.
pub(super) fn read(path: &Path) -> Result<NiftiFile> {
    let name = format!("`{}`", path.display());
    read_from(content(path, &name)?, &name)
}

/// Reads the header of a NIfTI-1 file alone.
pub(super) fn read_header(path: &Path) -> Result<Header> {
    let name = format!("`{}`", path.display());
    header(&mut content(path, &name)?, &name)
}

/// The content of a file; whether it is compressed is seen from its first bytes, not from its name.
fn content(path: &Path, name: &str) -> Result<Box<dyn Read>> {
    let mut file = BufReader::new(open(path)?);
    let start = file.fill_buf().map_err(|error| cannot_read(name, &error))?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(Members { decoder: Some(GzDecoder::new(file)) })
    } else {
        Box::new(file)
    })
}

fn header(source: &mut impl Read, name: &str) -> Result<Header> {
    let mut start = Vec::with_capacity(HEADER_BYTES);
    let count = source.take(HEADER_BYTES as u64).read_to_end(&mut start);
    count.map_err(|error| cannot_read(name, &error))?;
    parse(&start, name)
}

/// Opens a file that somebody named, and says which trouble it is where that fails.
pub(super) fn open(path: &Path) -> Result<File> {
    crate::files::open(path).map_err(|error| {
        let path_text = path.display();
        match error.kind() {
            ErrorKind::NotFound if path.is_symlink() => {
                Failure::new(format!("`{path_text}` is a link to a file that is not there"))
                    .hint("mend the link, or copy the file itself")
            }
            ErrorKind::NotFound => Failure::new(format!("there is no `{path_text}`")),
            ErrorKind::PermissionDenied => {
                Failure::new(format!("`{path_text}` may not be read by you"))
                    .hint(format!("allow it, for example with `chmod u+r {path_text}`"))
            }
            _ => Failure::new(format!("cannot open `{path_text}`")).because(&error),
        }
    })
}

fn cannot_read(name: &str, error: &Error) -> Failure {
    let is_damage = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput
    );
    let what = if is_damage { "is damaged" } else { "cannot be read" };
    Failure::new(format!("{name} {what}")).because(error)
}

fn read_from(mut source: impl Read, name: &str) -> Result<NiftiFile> {
    let cannot = |error: Error| cannot_read(name, &error);
    let header = header(&mut source, name)?;
    let gap = header.offset - HEADER_BYTES as u64;
    let skipped =
        std::io::copy(&mut source.by_ref().take(gap), &mut std::io::sink()).map_err(cannot)?;
    if skipped < gap {
        return Err(Failure::new(format!(
            "{name} ends at byte {}, but its header says that its voxels begin at byte {}",
            HEADER_BYTES as u64 + skipped,
            header.offset
        )));
    }
    let expected = header.extents.iter().product::<usize>() * header.stored.bytes();
    let mut bytes = Vec::new();
    source.by_ref().take(expected as u64).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() < expected {
        return Err(Failure::new(format!(
            "{name} is cut off: it holds {} of the {expected} bytes of its voxels",
            bytes.len()
        ))
        .hint("copy it again"));
    }
    check_rest(source, name)?;
    let mut values = header.stored.decode(&bytes, header.big_endian);
    if let Some([slope, intercept]) = header.scaling {
        for value in &mut values {
            *value = *value * slope + intercept;
        }
    }
    Ok(NiftiFile { header, values })
}

/// Reads to the end, where compressed files have their checksum. Refuses anything but a little padding.
fn check_rest(source: impl Read, name: &str) -> Result<()> {
    let mut rest = Vec::new();
    let count = source
        .take(PADDING_BYTES)
        .read_to_end(&mut rest)
        .map_err(|error| cannot_read(name, &error))?;
    if count as u64 == PADDING_BYTES || rest.iter().any(|&byte| byte != 0) {
        return Err(Failure::new(format!(
            "{name} holds more bytes than the voxels that its header tells of"
        ))
        .hint("extents or type in its header are wrong; save it again with the program that it comes from"));
    }
    Ok(())
}

/// The content of a gzip file: all its members, one after the other.
struct Members<R> {
    /// None after the last one.
    decoder: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let count = decoder.read(out)?;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            if let Some(ended) = self.decoder.take() {
                self.decoder = next_member(ended.into_inner())?;
            }
        }
        Ok(0)
    }
}

/// The member that follows, if any; zeros may, as behind archives on tapes.
fn next_member<R: BufRead>(mut file: R) -> std::io::Result<Option<GzDecoder<R>>> {
    if file.fill_buf()?.first() == Some(&0x1f) {
        return Ok(Some(GzDecoder::new(file)));
    }
    loop {
        let rest = file.fill_buf()?;
        if rest.is_empty() {
            return Ok(None);
        }
        if rest.iter().any(|&byte| byte != 0) {
            let message = "other bytes follow its compressed data";
            return Err(Error::new(ErrorKind::InvalidData, message));
        }
        let count = rest.len();
        file.consume(count);
    }
}
