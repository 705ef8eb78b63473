//! One HDF5 file in the form of WSL4MIS: `image`, `label` and `scribble`, each read as it is stored.
//!
//! Knows arrays and their types; names of files and what cases they make are for `acdc` to say.

use super::Scan;
use super::alignment::FileGrid;
use super::coding::{Coding, Numbers};
use super::content::{may_unpack_to, open_file, voxels};
use super::grid::{Grid, place};
use super::notes::Notes;
use crate::error::{Context, Failure, Result};
use crate::limits::VOLUME_VOXELS;
use hdf5::H5Type;
use hdf5::types::TypeDescriptor;
use std::path::Path;

/// Whether a file begins as HDF5 does.
pub(super) fn is_hdf5(start: &[u8]) -> bool {
    start.starts_with(b"\x89HDF\r\n\x1a\n")
}

/// Reads `image`, a volume or one slice of it.
pub(super) fn read(path: &Path, _notes: &Notes) -> Result<Scan> {
    let file = open(path)?;
    let grid = file.grid("image")?;
    Ok(Scan { voxels: file.image(grid.shape)?, channels: 1, grid })
}

/// Reads the numbers of `label`.
pub(super) fn read_numbers(path: &Path, _notes: &Notes) -> Result<Numbers> {
    let file = open(path)?;
    file.numbers("label", file.grid("label")?.shape)
}

/// Reads the extents of `image`.
pub(super) fn read_grid(path: &Path, _notes: &Notes) -> Result<FileGrid> {
    let grid = open(path)?.grid("image")?;
    Ok(FileGrid { name: format!("`{}`", path.display()), ..FileGrid::from(&grid) })
}

/// One HDF5 file of WSL4MIS.
pub struct Hdf5File<'a> {
    path: &'a Path,
    file: hdf5::File,
}

/// Opens a file, and says which trouble it is where that fails.
pub fn open(path: &Path) -> Result<Hdf5File<'_>> {
    // First as any file, whose errors are told apart.
    drop(open_file(path)?);
    let file = hdf5::File::open(path).map_err(|error| {
        let (name, text) = (path.display(), error.to_string());
        let failure = if text.contains("signature not found") {
            Failure::new(format!("`{name}` is no HDF5 file"))
        } else if text.contains("unable to lock") {
            Failure::new(format!("`{name}` is locked: another program writes it"))
                .hint("wait until it has ended, or set `HDF5_USE_FILE_LOCKING=FALSE` where locks do not work")
        } else {
            Failure::new(format!("cannot open `{name}` as HDF5, expected a whole file"))
        };
        failure.because(&error)
    })?;
    Ok(Hdf5File { path, file })
}

impl Hdf5File<'_> {
    /// The extents of an array.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let dataset = self.dataset(name)?;
        let shape = dataset.shape();
        let Some(count) = voxels(&shape) else {
            return Err(self.wrong_shape(name, &shape, &format!("at most {VOLUME_VOXELS} voxels")));
        };
        let stored_bytes = dataset.storage_size();
        if may_unpack_to(stored_bytes, count, 1) {
            return Ok(shape);
        }
        let expected = format!("no more voxels than the {stored_bytes} bytes that it has can hold");
        Err(self.wrong_shape(name, &shape, &expected))
    }

    /// Slices, rows and columns of an array, which may be one slice alone.
    fn grid(&self, name: &str) -> Result<Grid> {
        let shape = self.shape(name)?;
        let shape = match shape[..] {
            [slices, rows, columns] => [slices, rows, columns],
            [rows, columns] => [1, rows, columns],
            _ => return Err(self.wrong_shape(name, &shape, "[slices, rows, columns]")),
        };
        Ok(Grid::unplaced(shape, None))
    }

    /// What to say of an array with these extents.
    pub fn wrong_shape(&self, name: &str, found: &[usize], expected: &str) -> Failure {
        Failure::new(format!(
            "`{name}` of `{}` has shape {found:?}, expected {expected}",
            self.path.display()
        ))
    }

    /// The intensities of `image`; `shape` is slices, rows, columns, of which the file may lack the first.
    pub fn image(&self, shape: [usize; 3]) -> Result<Vec<f32>> {
        self.check_shape("image", shape)?;
        let image: Vec<f32> = self.read("image")?;
        let Some(index) = image.iter().position(|value| !(0.0..=1.0).contains(value)) else {
            return Ok(image);
        };
        Err(Failure::new(format!(
            "`image` of `{}` holds {} {}, expected finite intensities in [0, 1]",
            self.path.display(),
            image[index],
            place(index, shape)
        )))
    }

    /// The labels of an array, which must have the extents of `image`.
    pub fn labels(
        &self,
        name: &str,
        shape: [usize; 3],
        coding: &Coding,
        notes: &Notes,
    ) -> Result<Vec<u8>> {
        Ok(self.numbers(name, shape)?.labels(coding, notes)?.values)
    }

    /// The numbers of an array of these extents.
    fn numbers(&self, name: &str, shape: [usize; 3]) -> Result<Numbers> {
        self.check_shape(name, shape)?;
        let cannot = || format!("cannot read `{name}` of `{}`", self.path.display());
        let stored = self
            .dataset(name)?
            .dtype()
            .and_then(|stored| stored.to_descriptor())
            .context(cannot)?;
        // In the widest type of its kind, so that nothing is cut or wrapped.
        let values: Vec<f64> = match stored {
            TypeDescriptor::Integer(_) => {
                self.read::<i64>(name)?.into_iter().map(|v| v as f64).collect()
            }
            TypeDescriptor::Unsigned(_) => {
                self.read::<u64>(name)?.into_iter().map(|v| v as f64).collect()
            }
            TypeDescriptor::Float(_) => self.read::<f64>(name)?,
            TypeDescriptor::Boolean => {
                self.read::<bool>(name)?.into_iter().map(f64::from).collect()
            }
            other => {
                return Err(Failure::new(format!(
                    "`{name}` of `{}` holds {other}, expected integers or floats",
                    self.path.display()
                )));
            }
        };
        let name = format!("`{name}` of `{}`", self.path.display());
        let file = FileGrid { name, ..FileGrid::from(&Grid::unplaced(shape, None)) };
        Ok(Numbers { values, step: 0.0, file, segments: None })
    }

    fn check_shape(&self, name: &str, [slices, rows, columns]: [usize; 3]) -> Result<()> {
        let found = self.shape(name)?;
        if found == [slices, rows, columns] || (slices == 1 && found == [rows, columns]) {
            return Ok(());
        }
        let whole = [slices, rows, columns];
        let expected = if found.len() == 2 { &whole[1..] } else { &whole };
        let whose = if name == "image" { "the other slices have" } else { "`image` has" };
        Err(self.wrong_shape(name, &found, &format!("{expected:?} as {whose}")))
    }

    fn read<T: H5Type>(&self, name: &str) -> Result<Vec<T>> {
        let array = self.dataset(name)?.read_raw();
        array.context(|| format!("cannot read `{name}` of `{}`", self.path.display()))
    }

    fn dataset(&self, name: &str) -> Result<hdf5::Dataset> {
        self.file
            .dataset(name)
            .context(|| format!("cannot read `{name}` of `{}`", self.path.display()))
    }
}
