//! The 512 bytes in front of a packed file: its layout, the length and the digest of all that follows.
//!
//! They are checked before HDF5 sees the file, since its library crashes on some damaged ones. Knows
//! bytes, and of HDF5 only how a file begins.

use super::{LAYOUT, UNPLACED_LAYOUT};
use crate::error::{Context, Failure, Result};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// How many bytes lie in front, a power of two that HDF5 allows as "user block".
pub(super) const BLOCK_BYTES: u64 = 512;

/// How every layout begins that has such bytes.
const TITLE: &[u8] = b"scrimp data set ";

/// How an HDF5 file begins.
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Has a digest in front.
    Sealed,
    /// Has one, too, and says neither where cases lie nor how scans were prepared.
    Unplaced,
    /// HDF5 from its first byte.
    Bare,
    /// Something else.
    Foreign,
}

/// Says what `file` is; nothing but its first bytes are looked at.
pub(super) fn form(file: &File) -> io::Result<Form> {
    let block = first_bytes(file)?;
    Ok(if block.starts_with(format!("{UNPLACED_LAYOUT}\n").as_bytes()) {
        Form::Unplaced
    } else if block.starts_with(TITLE) {
        Form::Sealed
    } else if block.starts_with(HDF5) {
        Form::Bare
    } else {
        Form::Foreign
    })
}

/// The bytes that belong in front of `file`, whose first [`BLOCK_BYTES`] are not looked at.
pub(super) fn block(file: &File) -> io::Result<Vec<u8>> {
    let (bytes, digest) = rest(file)?;
    Ok(text(LAYOUT, bytes, digest).into_bytes())
}

/// Refuses a file whose length or digest is not what its first bytes say.
pub(super) fn verify(file: &File, path: &Path) -> Result<()> {
    let cannot = || format!("cannot read `{}`", path.display());
    let found = String::from_utf8_lossy(&first_bytes(file).context(cannot)?).into_owned();
    let mut lines = found.lines();
    let layout = lines.next().unwrap_or_default();
    if layout != LAYOUT && layout != UNPLACED_LAYOUT {
        return Err(Failure::new(format!(
            "`{}` has layout `{layout}`, expected `{LAYOUT}`",
            path.display()
        )));
    }
    let mut field =
        |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).unwrap_or("?");
    let (stated_bytes, stated_digest) = (field("bytes "), field("xxh3-128 "));
    let (bytes, digest) = rest(file).context(cannot)?;
    if stated_bytes.parse() != Ok(bytes) {
        return Err(Failure::new(format!(
            "`{}` has {bytes} bytes behind its first {BLOCK_BYTES}, expected {} as these say: it is not \
             whole",
            path.display(),
            stated_bytes.trim_start_matches('0')
        )));
    }
    if found == text(layout, bytes, digest) {
        return Ok(());
    }
    if stated_digest == format!("{digest:032x}") {
        return Err(Failure::new(format!(
            "`{}` is damaged: its first {BLOCK_BYTES} bytes are not as `scrimp prepare` writes them",
            path.display()
        )));
    }
    Err(Failure::new(format!(
        "`{}` is damaged: its digest is {digest:032x}, expected {stated_digest} as its first {BLOCK_BYTES} \
         bytes say",
        path.display()
    )))
}

/// What stands in front of so many bytes of this layout with this digest. All of it is compared, so that no bit of it
/// can change unnoticed.
fn text(layout: &str, bytes: u64, digest: u128) -> String {
    let lines = format!(
        "{layout}\nbytes {bytes:020}\nxxh3-128 {digest:032x}\nof the HDF5 file that follows these \
         {BLOCK_BYTES} bytes, which h5dump and h5py read as it is\n"
    );
    format!("{lines:<width$}\n", width = BLOCK_BYTES as usize - 1)
}

fn first_bytes(file: &File) -> io::Result<Vec<u8>> {
    let mut block = vec![0; BLOCK_BYTES as usize];
    let count = read_at(file, &mut block, 0)?;
    block.truncate(count);
    Ok(block)
}

/// Length and digest of all but the first bytes.
fn rest(file: &File) -> io::Result<(u64, u128)> {
    let (mut hash, mut part) = (Xxh3::new(), vec![0; 1 << 20]);
    let mut position = BLOCK_BYTES;
    // As long as it is at the start: a file that somebody extends meanwhile has an end, too.
    let end = file.metadata()?.len();
    while position < end {
        let wanted = part.len().min((end - position) as usize);
        let count = read_at(file, &mut part[..wanted], position)?;
        if count == 0 {
            break;
        }
        hash.update(&part[..count]);
        position += count as u64;
    }
    Ok((position - BLOCK_BYTES, hash.digest128()))
}

/// Fills `part` from `position` on; returns how much there was.
fn read_at(file: &File, part: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < part.len() {
        match file.read_at(&mut part[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
