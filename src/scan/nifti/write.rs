//! NIfTI-1 files that lie where another file lies, written slab by slab.
//!
//! A header that is there is carried over byte by byte: place, units, dimensions, description, order of
//! bytes. What speaks of the other file's voxels, their type, scaling and meaning, is set anew, and extensions
//! are left out. Does not know what voxels mean.

use super::header::{HEADER_BYTES, parse};
use super::read::{is_long, is_nifti};
use crate::error::{Context, Failure, Result};
use crate::files::FreshFile;
use crate::scan::content::Content;
use crate::scan::grid::Grid;
use crate::scan::remaining::Remaining;
use flate2::{Compression, write::GzEncoder};
use std::io::{BufWriter, IntoInnerError, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// Where voxels begin: behind the header and four zeros, which say that there are no extensions.
const OFFSET_BYTES: usize = HEADER_BYTES + 4;

/// Bytes that are given to the system at once.
const BUFFER_BYTES: usize = 1 << 16;

/// What the name of a packed file ends with.
const PACKED: &str = ".gz";

/// A number that is written for each voxel.
pub(in crate::scan) trait Element: Copy {
    /// `datatype` and `bitpix` of the standard.
    const TYPE: [i16; 2];
    /// How much time packing is worth.
    const PACKING: Compression;

    /// Puts the number behind `bytes`.
    fn put(self, bytes: &mut Vec<u8>, big_endian: bool);
}

impl Element for u8 {
    const TYPE: [i16; 2] = [2, 8];
    const PACKING: Compression = Compression::new(6);

    fn put(self, bytes: &mut Vec<u8>, _big_endian: bool) {
        bytes.push(self);
    }
}

impl Element for f32 {
    const TYPE: [i16; 2] = [16, 32];
    const PACKING: Compression = Compression::fast();

    fn put(self, bytes: &mut Vec<u8>, big_endian: bool) {
        bytes.extend(if big_endian { self.to_be_bytes() } else { self.to_le_bytes() });
    }
}

/// A file that grows by voxels in the order slices, rows, columns, and has its name when it is whole.
pub(in crate::scan) struct NiftiWriter<T> {
    path: PathBuf,
    to: Stream,
    big_endian: bool,
    left: Remaining,
    element: PhantomData<T>,
}

/// Where bytes go.
enum Stream {
    Plain(BufWriter<FreshFile>),
    Packed(GzEncoder<BufWriter<FreshFile>>),
}

impl<T: Element> NiftiWriter<T> {
    /// Begins a file, packed if its name ends so. It lies where `like` lies if that is NIfTI-1, else on `grid`.
    ///
    /// Refuses a file `like` with another shape than `grid`.
    pub(in crate::scan) fn create(path: &Path, grid: &Grid, like: Option<&Path>) -> Result<Self> {
        let carried = like.map(|like| carried(like, grid)).transpose()?.flatten();
        let header = match carried {
            Some(header) => header,
            None => on_grid(grid, path)?,
        };
        let header = header.of_type(T::TYPE);
        let fresh = FreshFile::beside(path).context(|| cannot_write(path))?;
        let fresh = BufWriter::with_capacity(BUFFER_BYTES, fresh);
        let is_packed = path.to_string_lossy().to_lowercase().ends_with(PACKED);
        let to = if is_packed {
            Stream::Packed(GzEncoder::new(fresh, T::PACKING))
        } else {
            Stream::Plain(fresh)
        };
        let (big_endian, left) = (header.big_endian, Remaining::new(path, grid.voxels()));
        let mut writer = Self { path: path.to_owned(), to, big_endian, left, element: PhantomData };
        writer.put(&header.bytes)?;
        Ok(writer)
    }

    /// Writes the next voxels.
    pub(in crate::scan) fn append(&mut self, voxels: &[T]) -> Result<()> {
        self.left.take(voxels.len())?;
        let mut bytes = Vec::with_capacity(BUFFER_BYTES);
        for chunk in voxels.chunks(BUFFER_BYTES / size_of::<T>()) {
            bytes.clear();
            for voxel in chunk {
                voxel.put(&mut bytes, self.big_endian);
            }
            self.put(&bytes)?;
        }
        Ok(())
    }

    /// Gives the file its name, on the disk when this returns. Refuses to where voxels are missing.
    pub(in crate::scan) fn finish(self) -> Result<()> {
        self.left.end()?;
        let whole = match self.to {
            Stream::Plain(file) => file.into_inner().map_err(IntoInnerError::into_error),
            Stream::Packed(packed) => packed
                .finish()
                .and_then(|file| file.into_inner().map_err(IntoInnerError::into_error)),
        };
        whole.and_then(FreshFile::take_place_durably).context(|| cannot_write(&self.path))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.to {
            Stream::Plain(file) => file.write_all(bytes),
            Stream::Packed(file) => file.write_all(bytes),
        };
        written.context(|| cannot_write(&self.path))
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}

/// All that stands before the voxels.
struct Head {
    bytes: Vec<u8>,
    big_endian: bool,
}

impl Head {
    /// Writes numbers from byte `at` on.
    fn put<const BYTES: usize>(
        &mut self,
        at: usize,
        numbers: impl IntoIterator<Item = [u8; BYTES]>,
    ) {
        let fields = self.bytes[at..].chunks_exact_mut(BYTES);
        for (field, mut number) in fields.zip(numbers) {
            if self.big_endian {
                number.reverse();
            }
            field.copy_from_slice(&number);
        }
    }

    fn floats(&mut self, at: usize, numbers: impl IntoIterator<Item = f64>) {
        self.put(at, numbers.into_iter().map(|number| (number as f32).to_le_bytes()));
    }

    fn shorts(&mut self, at: usize, numbers: impl IntoIterator<Item = i16>) {
        self.put(at, numbers.into_iter().map(i16::to_le_bytes));
    }

    /// The same with voxels of another type, which are as they are stored and mean nothing in particular.
    fn of_type(mut self, element: [i16; 2]) -> Self {
        self.shorts(70, element);
        self.floats(108, [OFFSET_BYTES as f64, 1.0, 0.0]);
        // Parameters and code of an intent, its name, and the darkest and brightest intensity shown or there.
        self.bytes[56..70].fill(0);
        self.bytes[328..344].fill(0);
        self.bytes[124..132].fill(0);
        self.bytes[140..148].fill(0);
        self.bytes[344..348].copy_from_slice(b"n+1\0");
        self.bytes.resize(OFFSET_BYTES, 0);
        self
    }
}

/// What stands before the voxels of `like`; nothing if that is no NIfTI-1 file.
fn carried(like: &Path, grid: &Grid) -> Result<Option<Head>> {
    // A series of slices.
    if like.is_dir() {
        return Ok(None);
    }
    let mut content = Content::open(like)?;
    let bytes = content.up_to(HEADER_BYTES)?;
    if !is_nifti(&bytes) || is_long(&bytes) {
        return Ok(None);
    }
    let header = parse(&bytes, &content.name)?;
    let [columns, rows, slices] = header.extents;
    if [slices, rows, columns] != grid.shape {
        return Err(Failure::new(format!(
            "{} has shape {:?}, expected {:?} of what is to lie on it",
            content.name,
            [slices, rows, columns],
            grid.shape
        )));
    }
    Ok(Some(Head { bytes, big_endian: header.big_endian }))
}

/// What stands before voxels that lie on a grid. Refuses more of them along an axis than a header can say.
fn on_grid(grid: &Grid, path: &Path) -> Result<Head> {
    let mut head = Head { bytes: vec![0; HEADER_BYTES], big_endian: false };
    if grid.shape.iter().any(|&extent| extent > i16::MAX as usize) {
        return Err(Failure::new(format!(
            "`{}` cannot have shape {:?}, expected at most {} along each axis of a NIfTI-1 file",
            path.display(),
            grid.shape,
            i16::MAX
        )));
    }
    let [slices, rows, columns] = grid.shape.map(|extent| extent as i16);
    let [between_slices, between_rows, between_columns] = grid.spacing_mm.unwrap_or([1.0; 3]);
    head.put(0, [(HEADER_BYTES as i32).to_le_bytes()]);
    head.bytes[38] = b'r';
    head.shorts(40, [3, columns, rows, slices, 1, 1, 1, 1]);
    head.floats(76, [1.0, between_columns, between_rows, between_slices]);
    if grid.spacing_mm.is_some() {
        // Millimetres.
        head.bytes[123] = 2;
    }
    if let Some(placement) = &grid.placement {
        // In the coordinates of the scanner.
        head.shorts(254, [1]);
        let [slices, rows, columns] = placement.direction;
        let matrix = (0..3).flat_map(|row| {
            [
                columns[row] * between_columns,
                rows[row] * between_rows,
                slices[row] * between_slices,
                placement.origin_mm[row],
            ]
        });
        head.floats(280, matrix);
    }
    Ok(head)
}
