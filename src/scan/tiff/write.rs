//! Labels as a stack of pages, packed with deflate, and the distances of voxels beside it as nnU-Net has them.
//!
//! Each page is written once it is whole. Holds one slice; says nothing of where it lies, for which TIFF has no words.

use crate::error::{Context, Result};
use crate::files::{self, FreshFile};
use crate::scan::grid::Grid;
use crate::scan::remaining::Remaining;
use flate2::{Compression, write::ZlibEncoder};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Entries of the directory of a page.
const ENTRIES: u32 = 10;

/// Bytes of the directory of a page: their number, 12 for each, and where the next page begins.
const DIRECTORY_BYTES: u32 = 2 + 12 * ENTRIES + 4;

/// A file of labels that grows in the order slices, rows, columns, and has its name when it is whole.
pub(in crate::scan) struct TiffWriter {
    path: PathBuf,
    fresh: FreshFile,
    grid: Grid,
    /// Labels of a slice that is not whole.
    slice: Vec<u8>,
    /// Bytes that are written, of less than 2^31: there are at most 2^30 voxels.
    at: u32,
    pages: usize,
    left: Remaining,
}

impl TiffWriter {
    /// Begins a file with the shape of `grid`.
    pub(in crate::scan) fn create(path: &Path, grid: &Grid) -> Result<Self> {
        let mut fresh = FreshFile::beside(path).context(|| cannot_write(path))?;
        // Least significant byte first; the first page begins behind these 8 bytes.
        let start = [b"II*\0".as_slice(), &8u32.to_le_bytes()].concat();
        fresh.write_all(&start).context(|| cannot_write(path))?;
        Ok(Self {
            path: path.to_owned(),
            fresh,
            grid: grid.clone(),
            slice: Vec::new(),
            at: 8,
            pages: 0,
            left: Remaining::new(path, grid.voxels()),
        })
    }

    /// Writes the next labels.
    pub(in crate::scan) fn append(&mut self, mut labels: &[u8]) -> Result<()> {
        self.left.take(labels.len())?;
        while !labels.is_empty() {
            let missing = self.grid.pixels() - self.slice.len();
            let (now, later) = labels.split_at(missing.min(labels.len()));
            self.slice.extend_from_slice(now);
            labels = later;
            if self.slice.len() == self.grid.pixels() {
                self.page().context(|| cannot_write(&self.path))?;
            }
        }
        Ok(())
    }

    /// Gives the file its name, on the disk when this returns, and writes the distances beside it where they are known.
    /// Refuses to where voxels are missing.
    pub(in crate::scan) fn finish(self) -> Result<()> {
        self.left.end()?;
        if let Some(spacing_mm) = self.grid.spacing_mm {
            let beside = self.path.with_extension("json");
            let text = json!({ "spacing": spacing_mm }).to_string();
            files::replace_durably(&beside, text.as_bytes()).context(|| cannot_write(&beside))?;
        }
        self.fresh.take_place_durably().context(|| cannot_write(&self.path))
    }

    /// Writes the slice: its directory, and behind it one strip.
    fn page(&mut self) -> std::io::Result<()> {
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::new(6));
        packer.write_all(&self.slice)?;
        let mut packed = packer.finish()?;
        let count = packed.len() as u32;
        // Directories begin at even places.
        packed.resize(packed.len().next_multiple_of(2), 0);
        self.slice.clear();
        self.pages += 1;
        let [slices, rows, columns] = self.grid.shape;
        let (strip, after) =
            (self.at + DIRECTORY_BYTES, self.at + DIRECTORY_BYTES + packed.len() as u32);
        let next = if self.pages == slices { 0 } else { after };
        let mut bytes = (ENTRIES as u16).to_le_bytes().to_vec();
        for (tag, value) in [
            // One page of several; its extents, in bits of 8, packed with deflate; 0 is black.
            (254, 2),
            (256, columns as u32),
            (257, rows as u32),
            (258, 8),
            (259, 8),
            (262, 1),
            // Its strip: where, how many numbers for each pixel, rows and bytes.
            (273, strip),
            (277, 1),
            (278, rows as u32),
            (279, count),
        ] {
            bytes.extend((tag as u16).to_le_bytes());
            // One number of 32 bits.
            bytes.extend([4, 0, 1, 0, 0, 0]);
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(next.to_le_bytes());
        self.fresh.write_all(&bytes)?;
        self.fresh.write_all(&packed)?;
        self.at = after;
        Ok(())
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}
