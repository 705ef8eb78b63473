//! Files of labels and of maps that lie on the image that they were made for.
//!
//! A file appears whole or not at all, and grows by voxels, so that nobody holds all of it. Knows from the
//! name of a file what it is to be.

use super::grid::Grid;
use super::metaimage::MetaImageWriter;
use super::nifti::NiftiWriter;
use super::nrrd::SegmentationWriter;
use super::picture::write_labels;
use super::tiff::TiffWriter;
use crate::error::{Failure, Result};
use std::path::{Path, PathBuf};

/// A file of labels that is being written.
///
/// ```no_run
/// # use scrimp::scan::{LabelWriter, Notes, read};
/// # use std::path::Path;
/// let image = Path::new("anna.nii.gz");
/// let scan = read(image, &Notes::default())?;
/// let mut labels = LabelWriter::create(Path::new("anna-labels.nii.gz"), &scan.grid, Some(image))?;
/// for _slice in 0..scan.grid.shape[0] {
///     labels.append(&vec![0; scan.grid.pixels()])?;
/// }
/// labels.finish()?;
/// # scrimp::error::Result::Ok(())
/// ```
pub struct LabelWriter(LabelFile);

enum LabelFile {
    Nifti(NiftiWriter<u8>),
    MetaImage(MetaImageWriter),
    Segmentation(Box<SegmentationWriter>),
    Tiff(Box<TiffWriter>),
    /// One slice, which is written at the end.
    Picture {
        path: PathBuf,
        shape: [usize; 2],
        labels: Vec<u8>,
    },
}

/// A file of one 32-bit float for each voxel that is being written, used like [`LabelWriter`].
pub struct MapWriter(NiftiWriter<f32>);

impl LabelWriter {
    /// Begins the file of the labels on `grid` of an image, whose file is `like` where it has one.
    ///
    /// NIfTI-1 (`.nii.gz`, `.nii`) has the header of `like` if that is NIfTI-1 too, so that it lies where the
    /// image lies in every program; otherwise it lies on `grid`, as do MetaImage (`.mha`) and segmentations for 3D
    /// Slicer (`.seg.nrrd`). TIFF (`.tif`) is a page for each slice, and says in `NAME.json` beside it how far voxels are apart. PNG is one slice of grey levels that are the classes, and lies as viewers show the
    /// picture. Refuses other endings, and a file `like` of another shape.
    pub fn create(path: &Path, grid: &Grid, like: Option<&Path>) -> Result<Self> {
        if is_nifti(path) {
            return NiftiWriter::create(path, grid, like).map(|file| Self(LabelFile::Nifti(file)));
        }
        if ends_with(path, ".mha") {
            return MetaImageWriter::create(path, grid)
                .map(|file| Self(LabelFile::MetaImage(file)));
        }
        if ends_with(path, ".seg.nrrd") {
            let file = SegmentationWriter::create(path, grid)?;
            return Ok(Self(LabelFile::Segmentation(Box::new(file))));
        }
        if ends_with(path, ".tif") {
            let file = TiffWriter::create(path, grid)?;
            return Ok(Self(LabelFile::Tiff(Box::new(file))));
        }
        let [slices, rows, columns] = grid.shape;
        if !ends_with(path, ".png") {
            return Err(unknown(path, "`.nii.gz`, `.nii`, `.mha`, `.seg.nrrd`, `.tif` or `.png`"));
        }
        if slices != 1 {
            return Err(Failure::new(format!(
                "`{}` is a picture, which cannot hold {slices} slices",
                path.display()
            ))
            .hint("let its name end in `.nii.gz`"));
        }
        let labels = Vec::with_capacity(rows * columns);
        Ok(Self(LabelFile::Picture { path: path.to_owned(), shape: [rows, columns], labels }))
    }

    /// Calls the labels by `names`, that of the background first, in files that know names.
    #[must_use]
    pub fn named(mut self, names: &[String]) -> Self {
        if let LabelFile::Segmentation(file) = &mut self.0 {
            file.name(names);
        }
        self
    }

    /// Writes the labels of the next voxels, in the order slices, rows, columns.
    pub fn append(&mut self, values: &[u8]) -> Result<()> {
        match &mut self.0 {
            LabelFile::Nifti(file) => file.append(values),
            LabelFile::MetaImage(file) => file.append(values),
            LabelFile::Segmentation(file) => file.append(values),
            LabelFile::Tiff(file) => file.append(values),
            LabelFile::Picture { labels, .. } => {
                labels.extend_from_slice(values);
                Ok(())
            }
        }
    }

    /// Gives the file its name, on the disk when this returns. Refuses to where voxels are missing; a writer
    /// that is dropped leaves nothing.
    pub fn finish(self) -> Result<()> {
        match self.0 {
            LabelFile::Nifti(file) => file.finish(),
            LabelFile::MetaImage(file) => file.finish(),
            LabelFile::Segmentation(file) => file.finish(),
            LabelFile::Tiff(file) => file.finish(),
            LabelFile::Picture { path, shape, labels } => {
                let expected = shape[0] * shape[1];
                if labels.len() == expected {
                    return write_labels(&path, shape, &labels);
                }
                Err(Failure::new(format!(
                    "there are {} labels for `{}`, expected {expected}",
                    labels.len(),
                    path.display()
                )))
            }
        }
    }
}

impl MapWriter {
    /// Begins the file of a map on `grid`, as [`LabelWriter::create`] does. Refuses what is not NIfTI.
    pub fn create(path: &Path, grid: &Grid, like: Option<&Path>) -> Result<Self> {
        if is_nifti(path) {
            return NiftiWriter::create(path, grid, like).map(Self);
        }
        Err(unknown(path, "`.nii.gz` or `.nii`"))
    }

    /// Writes the next voxels, in the order slices, rows, columns.
    pub fn append(&mut self, values: &[f32]) -> Result<()> {
        self.0.append(values)
    }

    /// Gives the file its name, as [`LabelWriter::finish`] does.
    pub fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

fn is_nifti(path: &Path) -> bool {
    ends_with(path, ".nii.gz") || ends_with(path, ".nii")
}

fn ends_with(path: &Path, ending: &str) -> bool {
    path.to_string_lossy().to_lowercase().ends_with(ending)
}

fn unknown(path: &Path, endings: &str) -> Failure {
    Failure::new(format!(
        "cannot write `{}`, expected a name that ends in {endings}",
        path.display()
    ))
}
