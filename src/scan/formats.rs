//! The formats of files that are read, in one table, and how a file finds its own.
//!
//! What a file is, its first bytes say and not its name. Knows of each format only what stands in its line.

use super::alignment::{AxisOrder, FileGrid};
use super::coding::{Coding, Numbers};
use super::content::Content;
use super::notes::Notes;
use super::{Labels, Scan, dicom, metaimage, nifti, nrrd, numpy, picture, tiff};
use crate::error::{Failure, Result};
use std::path::{Path, PathBuf};

/// One format of files.
pub struct Format {
    /// What people call it.
    pub name: &'static str,
    /// What names of its files end with, in lower case and with the dot.
    pub endings: &'static [&'static str],
    /// What names of label files end with that belong to images of this format.
    pub labels_ending: &'static str,
    /// Whether it keeps labels as they are, so that people save them in it.
    pub holds_labels: bool,
    /// Whether a file, unpacked, begins like this.
    begins: fn(&[u8]) -> bool,
    read: fn(&Path, &Notes) -> Result<Scan>,
    read_numbers: fn(&Path, &Notes) -> Result<Numbers>,
    read_grid: fn(&Path, &Notes) -> Result<FileGrid>,
    /// The files that a file is read with, beside it, or in it if it is a folder.
    others: fn(&Path) -> Result<Vec<PathBuf>>,
}

/// What names of segmentations end with that 3D Slicer saves; they are labels and never images.
const SEGMENTATION: &str = ".seg.nrrd";

/// The only format in which a folder is an image.
const DICOM: Format = Format {
    name: "DICOM",
    endings: &[".dcm", ".dicom", ".ima"],
    labels_ending: ".nii.gz",
    holds_labels: false,
    begins: dicom::is_dicom,
    read: dicom::read,
    read_numbers: dicom::read_numbers,
    read_grid: dicom::read_grid,
    others: dicom::others,
};

/// All formats that are read.
pub const FORMATS: &[Format] = &[
    Format {
        name: "NIfTI",
        endings: &[".nii.gz", ".nii", ".hdr", ".hdr.gz"],
        labels_ending: ".nii.gz",
        holds_labels: true,
        begins: nifti::is_nifti,
        read: nifti::read,
        read_numbers: nifti::read_numbers,
        read_grid: nifti::read_grid,
        others: nifti::others,
    },
    Format {
        name: "NRRD",
        endings: &[SEGMENTATION, ".nrrd", ".nhdr"],
        labels_ending: SEGMENTATION,
        holds_labels: true,
        begins: nrrd::is_nrrd,
        read: nrrd::read,
        read_numbers: nrrd::read_numbers,
        read_grid: nrrd::read_grid,
        others: nrrd::others,
    },
    Format {
        name: "MetaImage",
        endings: &[".mha", ".mhd"],
        labels_ending: ".mha",
        holds_labels: true,
        begins: metaimage::is_metaimage,
        read: metaimage::read,
        read_numbers: metaimage::read_numbers,
        read_grid: metaimage::read_grid,
        others: metaimage::others,
    },
    Format {
        name: "PNG",
        endings: &[".png"],
        labels_ending: ".png",
        holds_labels: true,
        begins: picture::is_png,
        read: picture::read,
        read_numbers: picture::read_numbers,
        read_grid: picture::read_grid,
        others: alone,
    },
    Format {
        name: "JPEG",
        endings: &[".jpg", ".jpeg"],
        labels_ending: ".png",
        holds_labels: false,
        begins: picture::is_jpeg,
        read: picture::read,
        read_numbers: picture::read_numbers,
        read_grid: picture::read_grid,
        others: alone,
    },
    Format {
        name: "BMP",
        endings: &[".bmp"],
        labels_ending: ".png",
        holds_labels: true,
        begins: picture::is_bmp,
        read: picture::read,
        read_numbers: picture::read_numbers,
        read_grid: picture::read_grid,
        others: alone,
    },
    Format {
        name: "TIFF",
        endings: &[".tif", ".tiff"],
        labels_ending: ".tif",
        holds_labels: true,
        begins: tiff::is_tiff,
        read: tiff::read,
        read_numbers: tiff::read_numbers,
        read_grid: tiff::read_grid,
        others: tiff::others,
    },
    Format {
        name: "NumPy",
        endings: &[".npy", ".npz"],
        labels_ending: ".nii.gz",
        holds_labels: true,
        begins: numpy::is_numpy,
        read: numpy::read,
        read_numbers: numpy::read_numbers,
        read_grid: numpy::read_grid,
        others: alone,
    },
    DICOM,
    #[cfg(feature = "hdf5")]
    Format {
        name: "HDF5 of WSL4MIS",
        endings: &[".h5"],
        labels_ending: ".nii.gz",
        holds_labels: false,
        begins: super::wsl4mis::is_hdf5,
        read: super::wsl4mis::read,
        read_numbers: super::wsl4mis::read_numbers,
        read_grid: super::wsl4mis::read_grid,
        others: alone,
    },
];

/// How many of the first bytes tell formats apart.
const START_BYTES: usize = 348;

/// What names of images end with.
pub fn image_endings() -> impl Iterator<Item = &'static str> {
    let endings = FORMATS.iter().flat_map(|format| format.endings).copied();
    endings.filter(|&ending| ending != SEGMENTATION)
}

/// What names of label files end with.
pub fn label_endings() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().filter(|format| format.holds_labels).flat_map(|format| format.endings).copied()
}

/// The name of a file without the ending of its format, which may be in capitals, and that ending; nothing for
/// a name of no format, or one that is an ending alone.
///
/// ```
/// use scrimp::scan::split_ending;
/// assert_eq!(split_ending("anna.x.NII.GZ"), Some(("anna.x", ".nii.gz")));
/// assert_eq!(split_ending("anna.seg.nrrd"), Some(("anna", ".seg.nrrd")));
/// assert_eq!(split_ending("anna.txt"), None);
/// ```
pub fn split_ending(name: &str) -> Option<(&str, &'static str)> {
    let endings = FORMATS.iter().flat_map(|format| format.endings).copied();
    let found = endings.filter_map(|ending| {
        let at = name.len().checked_sub(ending.len()).filter(|&at| at > 0)?;
        name.get(at..)?.eq_ignore_ascii_case(ending).then_some((&name[..at], ending))
    });
    found.max_by_key(|(_, ending)| ending.len())
}

/// Whether a folder is an image by itself: the slices of a series of DICOM, or one file of it with all of them.
pub fn is_image_folder(folder: &Path) -> bool {
    dicom::holds_dicom(folder)
}

/// Whether a folder holds slices that are one image together, and not an image in each file.
pub fn is_one_image(folder: &Path) -> bool {
    dicom::is_one_image(folder)
}

/// All files that an image or label map is read from: itself, and what lies beside it or, if it is a folder, in it.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let others = (format_of(path)?.others)(path)?;
    let own = (!path.is_dir()).then(|| path.to_owned());
    Ok(own.into_iter().chain(others).collect())
}

/// What a file is read with that holds everything itself.
#[expect(clippy::unnecessary_wraps, reason = "those of other formats may fail")]
fn alone(_path: &Path) -> Result<Vec<PathBuf>> {
    Ok(Vec::new())
}

/// Reads an image, and notes what is odd in its file.
pub fn read(path: &Path, notes: &Notes) -> Result<Scan> {
    (format_of(path)?.read)(path, notes)
}

/// Reads where the voxels of an image or label map lie, without reading these.
pub fn read_grid(path: &Path, notes: &Notes) -> Result<FileGrid> {
    (format_of(path)?.read_grid)(path, notes)
}

/// Reads the numbers of a label map, whatever they mean.
pub fn read_numbers(path: &Path, notes: &Notes) -> Result<Numbers> {
    (format_of(path)?.read_numbers)(path, notes)
}

/// Reads a label map on its own grid.
pub fn read_labels(path: &Path, coding: &Coding, notes: &Notes) -> Result<Labels> {
    read_numbers(path, notes)?.labels(coding, notes)
}

impl FileGrid {
    /// The labels of the file at `path`, voxel by voxel of this image.
    ///
    /// Labels with axes stored in another order or direction are turned. Refuses labels that lie
    /// elsewhere in the scanner, or, where a file does not say where it lies, have another shape or
    /// spacing. Segmentations may cover a part of the image, and reach beyond it where nothing is painted.
    pub fn labels_at(&self, path: &Path, coding: &Coding, notes: &Notes) -> Result<Labels> {
        let labels = read_numbers(path, notes)?;
        if labels.segments.is_some() && self.order_of(&labels.file).is_none() {
            return self.part_at(&labels, coding, notes);
        }
        let order = self.order_or_refusal(&labels.file, notes)?;
        let values = labels.labels(coding, notes)?.values;
        let values = if order == AxisOrder::SAME {
            values
        } else {
            order.carry(&values, labels.file.grid.shape)
        };
        Ok(Labels { grid: self.grid.clone(), values })
    }

    /// The labels of a segmentation that does not cover this image voxel by voxel.
    fn part_at(&self, numbers: &Numbers, coding: &Coding, notes: &Notes) -> Result<Labels> {
        let (file, painted) = (&numbers.file, numbers.labels(coding, notes)?.values);
        let (unpainted, shape) = (coding.unpainted(), self.grid.shape);
        let (values, outside) = match self.part_of(file) {
            Some(part) => part.carry(&painted, file.grid.shape, shape, unpainted),
            // An empty segmentation lies nowhere in particular.
            None if painted.iter().all(|&label| label == unpainted) => {
                (vec![unpainted; self.grid.voxels()], 0)
            }
            None => return Err(self.elsewhere(file)),
        };
        if outside > 0 {
            return Err(Failure::new(format!(
                "{} has {outside} painted voxels outside of its image {}",
                file.name, self.name
            ))
            .hint(
                "see whether it was drawn on this image, and draw or resample the labels on it",
            ));
        }
        Ok(Labels { grid: self.grid.clone(), values })
    }

    fn order_or_refusal(&self, labels: &Self, notes: &Notes) -> Result<AxisOrder> {
        let Some(order) = self.order_of(labels) else { return Err(self.elsewhere(labels)) };
        // Pictures have no place that could be checked.
        let says_where = |file: &Self| file.grid.placement.is_some();
        let is_known = says_where(self) && says_where(labels);
        if !is_known && (self.grid.spacing_mm.is_some() || labels.grid.spacing_mm.is_some()) {
            let sentence = "labels or their image do not say where they lie in the scanner; that they lie on each other could not be checked";
            notes.add(sentence, &labels.name);
        }
        if order != AxisOrder::SAME {
            let sentence =
                "labels that are stored with other axes than their image were turned to lie on it";
            notes.add(sentence, &labels.name);
        }
        Ok(order)
    }

    pub(super) fn elsewhere(&self, labels: &Self) -> Failure {
        let failure = Failure::new(format!("{} {}", labels.name, self.difference(labels)));
        let mut two_ways = [self, labels].into_iter().filter(|file| file.otherwise.is_some());
        match two_ways.next() {
            Some(file) if self.agrees_otherwise(labels) => failure.hint(format!(
                "{} has an sform and a qform that differ, and the sform is what counts; one of them is wrong",
                file.name
            )),
            _ => failure.hint("draw or resample the labels on the image itself"),
        }
    }
}

/// The format of a file by its first bytes. Refuses what is no file of [`FORMATS`], with its name.
fn format_of(path: &Path) -> Result<&'static Format> {
    if is_image_folder(path) {
        return Ok(&DICOM);
    }
    let mut content = Content::open(path)?;
    let start = content.up_to(START_BYTES)?;
    let found = FORMATS.iter().find(|format| (format.begins)(&start));
    found.ok_or_else(|| unknown(&start, &content.name))
}

/// What to say of a file that is something else.
fn unknown(start: &[u8], name: &str) -> Failure {
    let convert = "save it as `.nii.gz` (NIfTI)";
    let begins = |with: &[u8]| start.starts_with(with);
    let (what, hint) = if begins(b"\x89HDF") {
        ("is HDF5, which this build does not read", convert)
    } else if begins(b"version https://git-lfs") {
        ("is only a pointer of Git LFS to the file", "fetch it with `git lfs pull`")
    } else if begins(b"scrimp data set") {
        ("is a packed data set", "give the files that it was packed from")
    } else if start.is_empty() {
        ("is empty", "copy it again")
    } else {
        ("begins as no format that is read", "save it in one of these formats")
    };
    let names: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
    let (last, others) = names.split_last().unwrap_or((&"", &[]));
    let expected = format!("{} or {last}", others.join(", "));
    Failure::new(format!("{name} {what}, expected {expected}")).hint(hint)
}
