//! Labels as MetaImage in one file, packed.
//!
//! The header says how many bytes the packed labels have, so they are held until all are there.

use crate::error::{Context, Result};
use crate::files::FreshFile;
use crate::scan::axes::Course;
use crate::scan::grid::Grid;
use crate::scan::remaining::Remaining;
use flate2::{Compression, write::ZlibEncoder};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file of labels that grows in the order slices, rows, columns, and has its name when it is whole.
pub(in crate::scan) struct MetaImageWriter {
    path: PathBuf,
    fresh: FreshFile,
    grid: Grid,
    packed: ZlibEncoder<Vec<u8>>,
    left: Remaining,
}

impl MetaImageWriter {
    /// Begins a file that lies on `grid`.
    pub(in crate::scan) fn create(path: &Path, grid: &Grid) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            fresh: FreshFile::beside(path).context(|| cannot_write(path))?,
            grid: grid.clone(),
            packed: ZlibEncoder::new(Vec::new(), Compression::new(6)),
            left: Remaining::new(path, grid.voxels()),
        })
    }

    /// Writes the next labels.
    pub(in crate::scan) fn append(&mut self, labels: &[u8]) -> Result<()> {
        self.left.take(labels.len())?;
        self.packed.write_all(labels).context(|| cannot_write(&self.path))
    }

    /// Gives the file its name, on the disk when this returns. Refuses to where voxels are missing.
    pub(in crate::scan) fn finish(self) -> Result<()> {
        self.left.end()?;
        let cannot = || cannot_write(&self.path);
        let packed = self.packed.finish().context(cannot)?;
        let mut fresh = self.fresh;
        fresh.write_all(header(&self.grid, packed.len()).as_bytes()).context(cannot)?;
        fresh.write_all(&packed).context(cannot)?;
        fresh.take_place_durably().context(cannot)
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}

/// All lines of the header.
fn header(grid: &Grid, packed_bytes: usize) -> String {
    let [slices, rows, columns] = grid.shape;
    let mut lines = String::from("ObjectType = Image\nNDims = 3\nBinaryData = True\n");
    lines += "BinaryDataByteOrderMSB = False\nCompressedData = True\n";
    let mut say = |key: &str, value: String| {
        // Writing to a text cannot fail.
        let _ = writeln!(lines, "{key} = {value}");
    };
    say("CompressedDataSize", packed_bytes.to_string());
    if let Some(placement) = &grid.placement {
        let course = Course::of(placement).mirrored();
        say("TransformMatrix", numbers(course.directions.iter().flatten()));
        say("Offset", numbers(&course.origin_mm));
    }
    if let Some(spacing_mm) = &grid.spacing_mm {
        say("ElementSpacing", numbers(spacing_mm.iter().rev()));
    }
    say("DimSize", format!("{columns} {rows} {slices}"));
    say("ElementType", "MET_UCHAR".to_owned());
    say("ElementDataFile", "LOCAL".to_owned());
    lines
}

/// Numbers as they are read again, without a sign of 0.
fn numbers<'a>(numbers: impl IntoIterator<Item = &'a f64>) -> String {
    let words: Vec<String> = numbers.into_iter().map(|number| (number + 0.0).to_string()).collect();
    words.join(" ")
}
