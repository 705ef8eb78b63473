//! One HDF5 file in the form of WSL4MIS: `image`, `label` and `scribble`, each read as it is stored.
//!
//! Knows arrays and their types; names of files and what cases they make are for `acdc` to say.

use super::labels::{Coding, Numbers};
use super::nifti_file;
use super::notes::Notes;
use crate::data::place;
use crate::error::{Context, Failure, Result};
use crate::limits::{VOLUME_VOXELS, elements};
use hdf5::H5Type;
use hdf5::types::TypeDescriptor;
use std::path::Path;

/// One HDF5 file of WSL4MIS.
pub(super) struct Hdf5File<'a> {
    path: &'a Path,
    file: hdf5::File,
}

/// Opens a file, and says which trouble it is where that fails.
pub(super) fn open(path: &Path) -> Result<Hdf5File<'_>> {
    // First as any file, whose errors are told apart.
    drop(nifti_file::open(path)?);
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
    pub(super) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let shape = self.dataset(name)?.shape();
        if elements(&shape, VOLUME_VOXELS).is_none() {
            return Err(self.wrong_shape(name, &shape, &format!("at most {VOLUME_VOXELS} voxels")));
        }
        Ok(shape)
    }

    /// What to say of an array with these extents.
    pub(super) fn wrong_shape(&self, name: &str, found: &[usize], expected: &str) -> Failure {
        Failure::new(format!(
            "`{name}` of `{}` has shape {found:?}, expected {expected}",
            self.path.display()
        ))
    }

    /// The intensities of `image`; `shape` is slices, rows, columns, of which the file may lack the first.
    pub(super) fn image(&self, shape: [usize; 3]) -> Result<Vec<f32>> {
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
    pub(super) fn labels(
        &self,
        name: &str,
        shape: [usize; 3],
        coding: &Coding,
        notes: &Notes,
    ) -> Result<Vec<u8>> {
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
        coding.labels(&Numbers { values: &values, shape, step: 0.0, name }, notes)
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
