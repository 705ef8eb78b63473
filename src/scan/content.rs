//! The bytes of a file: opened with a word about what is wrong, unpacked, and never more in memory than the
//! file can hold.
//!
//! Knows gzip, zlib, lines of text and sizes; what the bytes mean is for the formats to say.

use crate::error::{Failure, Result};
use crate::limits::{EXTENT, PICTURE_PIXELS, TEXT_HEADER_BYTES, VOLUME_VOXELS, elements};
use flate2::bufread::{GzDecoder, ZlibDecoder};
use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

/// How much longer bytes may be than what deflate makes of them.
#[cfg(feature = "hdf5")]
const LARGEST_PACKING: u64 = 1032;

/// Bytes that anybody has.
#[cfg(feature = "hdf5")]
const UNASKED_BYTES: u64 = 1 << 26;

/// Opens a file that somebody named, and says which trouble it is where that fails.
pub(super) fn open_file(path: &Path) -> Result<File> {
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

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Not at all.
    None,
    /// In one or more members of gzip.
    Gzip,
    /// In one stream of zlib.
    Zlib,
}

/// What is in a file, unpacked.
pub(super) struct Content {
    /// What the file is called in messages.
    pub(super) name: String,
    /// The bytes, from the first on.
    pub(super) bytes: Box<dyn Read>,
    /// How many bytes there are, where they are not packed.
    length_bytes: Option<u64>,
}

impl Content {
    /// Opens a file; whether it is packed is seen from its first bytes, not from its name.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = format!("`{}`", path.display());
        let file = open_file(path)?;
        let stored_bytes = file.metadata().map_err(|error| cannot_read(&name, &error))?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let start = file.fill_buf().map_err(|error| cannot_read(&name, &error))?;
        Ok(if start.starts_with(&[0x1f, 0x8b]) {
            let bytes = Box::new(Members { decoder: Some(GzDecoder::new(file)) });
            Self { name, bytes, length_bytes: None }
        } else {
            Self { name, bytes: Box::new(file), length_bytes: Some(stored_bytes) }
        })
    }

    /// Opens a file as it is, whatever its first bytes are.
    pub(super) fn open_plain(path: &Path) -> Result<Self> {
        let name = format!("`{}`", path.display());
        let file = open_file(path)?;
        let stored_bytes = file.metadata().map_err(|error| cannot_read(&name, &error))?.len();
        let bytes = Box::new(BufReader::with_capacity(1 << 16, file));
        Ok(Self { name, bytes, length_bytes: Some(stored_bytes) })
    }

    /// Bytes of something that is called `name` in messages, from the first on; `length_bytes` of them, where that is known.
    pub(super) fn of(name: String, bytes: Box<dyn Read>, length_bytes: Option<u64>) -> Self {
        Self { name, bytes, length_bytes }
    }

    /// The bytes that are left, unpacked.
    pub(super) fn unpacked(self, packing: Packing) -> Self {
        let Self { name, bytes, .. } = self;
        let packed = |bytes| BufReader::with_capacity(1 << 16, bytes);
        let bytes: Box<dyn Read> = match packing {
            Packing::None => return Self { bytes, name, length_bytes: self.length_bytes },
            Packing::Gzip => Box::new(Members { decoder: Some(GzDecoder::new(packed(bytes))) }),
            Packing::Zlib => Box::new(ZlibDecoder::new(packed(bytes))),
        };
        Self { name, bytes, length_bytes: None }
    }

    /// How many bytes there are in all, where they are not packed.
    pub(super) fn length_bytes(&self) -> Option<u64> {
        self.length_bytes
    }

    /// The next bytes, fewer than `most` where the file ends.
    pub(super) fn up_to(&mut self, most: usize) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        let read = (&mut self.bytes).take(most as u64).read_to_end(&mut found);
        read.map_err(|error| cannot_read(&self.name, &error)).map(|_count| found)
    }

    /// Passes over so many bytes; how many there were, which is fewer where the file ends.
    pub(super) fn skip(&mut self, count: u64) -> Result<u64> {
        let mut between = (&mut self.bytes).take(count);
        std::io::copy(&mut between, &mut std::io::sink())
            .map_err(|error| cannot_read(&self.name, &error))
    }

    /// The next line of a header in text, without its end and with other than UTF-8 replaced; nothing behind
    /// the last one. `left` is how many bytes the lines of this header may still have.
    pub(super) fn line(&mut self, left: &mut usize) -> Result<Option<String>> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            let count = match self.bytes.read(&mut byte) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(|error| cannot_read(&self.name, &error))?,
            };
            if count == 0 && line.is_empty() {
                return Ok(None);
            }
            if count == 0 || byte == *b"\n" {
                break;
            }
            *left = left.checked_sub(1).ok_or_else(|| self.endless())?;
            line.push(byte[0]);
        }
        *left = left.saturating_sub(1);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    fn endless(&self) -> Failure {
        Failure::new(format!(
            "the header of {} does not end within {TEXT_HEADER_BYTES} bytes",
            self.name
        ))
        .hint("it is damaged; copy it again")
    }

    /// For how many of `count` numbers of `bytes` bytes memory may be taken before they were read: for all if
    /// the file is that long, for none where it is shorter or its length is not known.
    pub(super) fn to_reserve(&self, count: usize, bytes: usize) -> usize {
        let is_there =
            self.length_bytes.is_some_and(|length_bytes| fits(count, bytes, length_bytes));
        if is_there { count } else { 0 }
    }
}

/// The file of the voxels that the header at `path`, called `name` in messages, says to lie in `data`.
///
/// Refuses what does not lie beside the header or in a folder there, since files of others would be opened.
pub(super) fn beside(path: &Path, name: &str, data: &str) -> Result<PathBuf> {
    let is_below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let data = Path::new(data);
    if data.as_os_str().is_empty() || !data.components().all(is_below) {
        return Err(Failure::new(format!(
            "{name} says that its voxels lie in `{}`, expected a file beside it",
            data.display()
        ))
        .hint("put both files into one folder, and the name alone into the header"));
    }
    Ok(path.with_file_name(data))
}

/// Whether `count` numbers of `bytes` bytes fit into `most_bytes`.
fn fits(count: usize, bytes: usize, most_bytes: u64) -> bool {
    (count as u64).checked_mul(bytes as u64).is_some_and(|bytes| bytes <= most_bytes)
}

/// Whether `stored_bytes` of a file may unpack to `count` numbers of `bytes` bytes; of a few nobody asks.
#[cfg(feature = "hdf5")]
pub(super) fn may_unpack_to(stored_bytes: u64, count: usize, bytes: usize) -> bool {
    let unpacked_bytes = stored_bytes.saturating_mul(LARGEST_PACKING);
    fits(count, bytes, unpacked_bytes.max(UNASKED_BYTES))
}

/// How many voxels an array of these extents has, which a header states; nothing where these are more than
/// anybody has.
pub(super) fn voxels(extents: &[usize]) -> Option<usize> {
    let voxels = elements(extents, VOLUME_VOXELS)?;
    extents.iter().all(|&extent| extent <= EXTENT).then_some(voxels)
}

/// How many pixels a picture of these rows and columns has; nothing where these are more than anybody has.
pub(super) fn pixels(extents: [usize; 2]) -> Option<usize> {
    elements(&extents, PICTURE_PIXELS)
}

/// What to say of a file that opens and cannot be read to its end.
pub(super) fn cannot_read(name: &str, error: &Error) -> Failure {
    let is_damage = matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput
    );
    let what = if is_damage { "is damaged" } else { "cannot be read" };
    Failure::new(format!("{name} {what}")).because(error)
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
