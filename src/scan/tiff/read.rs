//! TIFF files from disk: scans whose slices are the pages, the numbers of label maps, and shapes alone.
//!
//! A file says nothing of where it lies; the distances of its voxels stand in `NAME.json` beside it, as nnU-Net has
//! them: `{"spacing": [5.0, 0.8, 0.8]}` for slices, rows and columns.

use super::directory::{Directory, TiffFile};
use super::packing::{Packing, add_up};
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::{CHANNELS, TIFF_BYTES, VOLUME_VOXELS, elements};
use crate::scan::Scan;
use crate::scan::alignment::FileGrid;
use crate::scan::coding::Numbers;
use crate::scan::content::{open_file, voxels};
use crate::scan::grid::Grid;
use crate::scan::notes::Notes;
use crate::scan::stored::Stored;
use crate::scan::voxels::Arrangement;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Whether a file begins as TIFF does, or as BigTIFF.
pub(in crate::scan) fn is_tiff(start: &[u8]) -> bool {
    let marks: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
    marks.iter().any(|mark| start.starts_with(mark))
}

/// Reads a picture or a stack of pages.
pub(in crate::scan) fn read(path: &Path, _notes: &Notes) -> Result<Scan> {
    let stack = Stack::open(path)?;
    let voxels = stack.values(|value| value as f32)?;
    Ok(Scan { grid: stack.grid(path)?, channels: stack.page.channels, voxels })
}

/// Reads the numbers of a label map. Refuses colours.
pub(in crate::scan) fn read_numbers(path: &Path, _notes: &Notes) -> Result<Numbers> {
    let stack = Stack::open(path)?;
    let channels = stack.page.channels;
    if channels > 1 {
        return Err(Failure::new(format!(
            "{} has {channels} numbers for each voxel, expected one, its label",
            stack.file.name
        )));
    }
    let values = stack.values(|value| value)?;
    Ok(Numbers { values, step: 0.0, file: stack.described(path)?, segments: None })
}

/// Reads the extents of a file, and the distances beside it.
pub(in crate::scan) fn read_grid(path: &Path, _notes: &Notes) -> Result<FileGrid> {
    Stack::open(path)?.described(path)
}

/// The file beside that has the distances, where there is one.
#[expect(clippy::unnecessary_wraps, reason = "those of other formats may fail")]
pub(in crate::scan) fn others(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(distances_beside(path).into_iter().collect())
}

/// What all pages have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Page {
    rows: usize,
    columns: usize,
    channels: usize,
    stored: Stored,
}

/// The pages of a file.
struct Stack {
    file: TiffFile,
    pages: Vec<Directory>,
    page: Page,
}

impl Stack {
    fn open(path: &Path) -> Result<Self> {
        // First as any file, whose errors are told apart.
        drop(open_file(path)?);
        let name = format!("`{}`", path.display());
        let bytes =
            files::read_at_most(path, TIFF_BYTES).context(|| format!("cannot read {name}"))?;
        let file = TiffFile::new(name, bytes);
        let mut pages = file.directories()?;
        // Smaller copies of the others.
        pages.retain(|page| page.number(254).unwrap_or(0) & 1 == 0);
        let Some(first) = pages.first() else { return Err(file.damaged("it has no page")) };
        let page = described(first, &file)?;
        for (index, other) in pages.iter().enumerate() {
            let other = described(other, &file)?;
            if other != page {
                return Err(Failure::new(format!(
                    "page {index} of {} has {} x {} pixels of {} channels, expected {} x {} of {} and of one type as page 0 has",
                    file.name, other.rows, other.columns, other.channels, page.rows, page.columns, page.channels
                ))
                .hint("save each picture in a file of its own"));
            }
        }
        let shape = [pages.len(), page.rows, page.columns];
        let count = voxels(&shape).and_then(|n| elements(&[n, page.channels], VOLUME_VOXELS));
        match count {
            Some(_) => Ok(Self { file, pages, page }),
            None => Err(Failure::new(format!(
                "{} has shape {shape:?}, expected at most {VOLUME_VOXELS} voxels",
                file.name
            ))),
        }
    }

    fn grid(&self, path: &Path) -> Result<Grid> {
        let shape = [self.pages.len(), self.page.rows, self.page.columns];
        Ok(Grid::unplaced(shape, spacing_mm(path)?))
    }

    fn described(&self, path: &Path) -> Result<FileGrid> {
        let grid = self.grid(path)?;
        let unit_mm = grid.spacing_mm.map(|_| 1.0);
        Ok(FileGrid { grid, name: self.file.name.clone(), otherwise: None, unit_mm })
    }

    /// Slices, channels, rows, columns.
    fn values<T: Copy>(&self, value: impl Fn(f64) -> T) -> Result<Vec<T>> {
        let Page { rows, columns, channels, stored } = self.page;
        let arrangement = Arrangement::interleaved([1, rows, columns], channels);
        let mut values = Vec::new();
        for page in &self.pages {
            let bytes = pixels(page, &self.page, &self.file)?;
            let numbers = stored.decode(&bytes, self.file.big_endian);
            values.extend(arrangement.in_order(numbers.into_iter().map(&value).collect()));
        }
        Ok(values)
    }
}

/// The extents and the type of a page. Refuses what programs would show in different ways.
fn described(page: &Directory, file: &TiffFile) -> Result<Page> {
    let wrong = |what: String| {
        Failure::new(format!("{} has {what}", file.name))
            .hint("save it again as TIFF with one number for each voxel, for example with tifffile or ImageJ")
    };
    let extent =
        |tag| page.number(tag).and_then(|extent| usize::try_from(extent).ok()).unwrap_or(0);
    let (columns, rows, channels) = (extent(256), extent(257), extent(277).max(1));
    if voxels(&[rows, columns]).is_none_or(|count| count == 0) {
        return Err(wrong(format!(
            "a page of {rows} x {columns} pixels, expected at least one and at most {VOLUME_VOXELS}"
        )));
    }
    let has_extra = !page.numbers(338).is_empty();
    if channels > CHANNELS || has_extra {
        return Err(wrong(format!(
            "{channels} channels, expected up to {CHANNELS} and none for transparency"
        )));
    }
    if channels > 1 && page.number(284) == Some(2) {
        return Err(wrong(
            "channels that lie behind each other, expected those of a pixel beside each other"
                .into(),
        ));
    }
    if page.number(274).is_some_and(|orientation| orientation != 1) {
        return Err(wrong("pages that are to be turned, expected them as they are shown".into()));
    }
    let bits = page.number(258).unwrap_or(1);
    let is_even = page.numbers(258).iter().all(|&other| other == bits);
    let stored = match (page.number(339).unwrap_or(1), bits) {
        (1, 8) => Stored::U8,
        (2, 8) => Stored::I8,
        (1, 16) => Stored::U16,
        (2, 16) => Stored::I16,
        (1, 32) => Stored::U32,
        (2, 32) => Stored::I32,
        (1, 64) => Stored::U64,
        (2, 64) => Stored::I64,
        (3, 32) => Stored::F32,
        (3, 64) => Stored::F64,
        (kind, bits) => {
            return Err(wrong(format!(
                "numbers of {bits} bits and kind {kind}, expected integers of 8 to 64 bits, or floats of 32 or 64"
            )));
        }
    };
    if !is_even {
        return Err(wrong("channels of different types, expected one".into()));
    }
    Ok(Page { rows, columns, channels, stored })
}

/// The bytes of a page: rows of pixels.
fn pixels(page: &Directory, shape: &Page, file: &TiffFile) -> Result<Vec<u8>> {
    let wrong = |what: &str| {
        Failure::new(format!("{} is packed in a way that is not read: {what}", file.name))
            .hint("save it again with deflate, LZW or nothing, for example with tifffile or ImageJ")
    };
    let packing = Packing::of(page.number(259).unwrap_or(1))
        .ok_or_else(|| wrong(&format!("compression {}", page.number(259).unwrap_or(1))))?;
    let is_different = match page.number(317).unwrap_or(1) {
        1 => false,
        2 if !shape.stored.is_float() => true,
        other => return Err(wrong(&format!("predictor {other}"))),
    };
    let is_tiled = page.number(322).is_some();
    let extent = |tag: u16, most: usize| {
        page.number(tag)
            .and_then(|extent| usize::try_from(extent).ok())
            .filter(|&n| n > 0)
            .unwrap_or(most)
    };
    let (wide, high) = if is_tiled {
        (extent(322, shape.columns), extent(323, shape.rows))
    } else {
        (shape.columns, extent(278, shape.rows).min(shape.rows))
    };
    let pixel = shape.channels * shape.stored.bytes();
    // Tiles reach over the edge, at most by as much as a page has.
    if wide > shape.columns + 4096 || high > shape.rows + 4096 {
        return Err(file.damaged("its tiles are far larger than its pages"));
    }
    let (offsets, counts) = if is_tiled { (324, 325) } else { (273, 279) };
    let (across, down) = (shape.columns.div_ceil(wide), shape.rows.div_ceil(high));
    let (offsets, counts) = (page.numbers(offsets), page.numbers(counts));
    if offsets.len() != across * down || counts.len() != offsets.len() {
        return Err(file.damaged("it has another number of strips or tiles than its extents need"));
    }
    let mut rows = vec![0; shape.rows * shape.columns * pixel];
    for (index, (&at, &count)) in offsets.iter().zip(counts).enumerate() {
        let (left, top) = (index % across * wide, index / across * high);
        let high = if is_tiled { high } else { high.min(shape.rows - top) };
        let mut piece = packing.unpack(file.bytes_at(at, count)?, wide * high * pixel);
        if piece.len() < wide * high * pixel {
            return Err(file.damaged("a strip or tile has fewer bytes than it should"));
        }
        if is_different {
            let form = [shape.stored.bytes(), shape.channels];
            add_up(&mut piece, wide * pixel, form, file.big_endian);
        }
        let bytes = wide.min(shape.columns - left) * pixel;
        for (row, line) in piece.chunks(wide * pixel).enumerate().take(shape.rows - top) {
            let to = ((top + row) * shape.columns + left) * pixel;
            rows[to..to + bytes].copy_from_slice(&line[..bytes]);
        }
    }
    Ok(rows)
}

/// `NAME.json`, also for `NAME_0000.tif`, where there is one.
fn distances_beside(path: &Path) -> Option<PathBuf> {
    let stem = path.file_stem().and_then(|stem| stem.to_str())?;
    let is_number =
        |digits: &str| digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let channel = stem.rsplit_once('_').filter(|(_, digits)| is_number(digits));
    let names = [Some(stem), channel.map(|(name, _)| name)];
    let names = names.into_iter().flatten().map(|name| path.with_file_name(format!("{name}.json")));
    names.into_iter().find(|beside| beside.is_file())
}

/// The distances in the file beside, where there is one. One that says nothing of distances is somebody else's.
fn spacing_mm(path: &Path) -> Result<Option<[f64; 3]>> {
    let Some(beside) = distances_beside(path) else { return Ok(None) };
    let shown = beside.display();
    let text = files::read_text(&beside, files::SMALL_BYTES)
        .context(|| format!("cannot read `{shown}`"))?;
    let wrong = || {
        Failure::new(format!(
            "`{shown}` does not say how far voxels are apart, expected for example `{{\"spacing\": [5.0, 0.8, 0.8]}}`"
        ))
        .hint("say it for slices, rows and columns in millimetres, or move the file away")
    };
    let said: Value = serde_json::from_str(&text).map_err(|error| wrong().because(&error))?;
    let Some(spacing) = said.get("spacing") else { return Ok(None) };
    let numbers = spacing.as_array().map(Vec::as_slice).unwrap_or_default();
    let numbers: Option<Vec<f64>> = numbers.iter().map(Value::as_f64).collect();
    let is_distance = |mm: &f64| mm.is_finite() && *mm > 0.0;
    let numbers = numbers.filter(|numbers| numbers.iter().all(is_distance)).unwrap_or_default();
    match numbers[..] {
        [slices, rows, columns] => Ok(Some([slices, rows, columns])),
        [rows, columns] => Ok(Some([1.0, rows, columns])),
        _ => Err(wrong()),
    }
}
