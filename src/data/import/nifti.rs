//! Anybody's own data: folders of NIfTI images, scribbles and dense labels with equal file names.
//!
//! Knows neither organ nor modality; names of cases are names of files, patients are not known,
//! so each case is its own patient.

use super::{Source, contiguous_fold, scale_intensities, volume};
use crate::data::{Case, DENSE, IGNORE, SCRIBBLE};
use crate::error::{Context, Failure, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the files of a data set lie and what their labels mean.
#[derive(Debug, Clone)]
pub struct Folders {
    /// One `.nii` or `.nii.gz` per case.
    pub images: PathBuf,
    /// Scribbles with the names of the images.
    pub scribbles: PathBuf,
    /// Dense labels with the names of the images, where somebody made them.
    pub dense: Option<PathBuf>,
    /// Names of the classes by label value, the background first.
    pub classes: Vec<String>,
    /// Label value of pixels that nobody annotated, in scribbles alone.
    pub unlabelled: u8,
}

/// Finds the cases. Intensities are scaled per volume as for ACDC; folds are five contiguous
/// blocks of the cases sorted by name. Refuses labels that do not lie on their image.
pub fn open(folders: Folders) -> Result<Source> {
    if folders.classes.len() < 2 {
        return Err(Failure::usage("a data set needs the background and at least one class more")
            .hint("name them by label value, for example `--classes background,lesion`"));
    }
    if usize::from(folders.unlabelled) < folders.classes.len() {
        return Err(Failure::usage(format!(
            "label {} cannot mean both class `{}` and unlabelled",
            folders.unlabelled,
            folders.classes[usize::from(folders.unlabelled)]
        ))
        .hint("give the value of unlabelled pixels, for example `--ignore 4`"));
    }
    let images = images(&folders.images)?;
    let case_count = images.len();
    let (name, classes) = ("nifti".into(), folders.classes.clone());
    let cases = images.into_iter().enumerate().map(move |(index, (name, image))| {
        let fold = contiguous_fold(index, case_count);
        case(&folders, name, &image).map(|case| Case { fold, ..case })
    });
    Ok(Source {
        name,
        classes,
        provenance: "NIfTI images, intensities cut at the cumulative share 0.99 and scaled to \
                     [0, 1] per volume."
            .into(),
        case_count,
        cases: Box::new(cases),
    })
}

/// The image files by case name.
fn images(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let images = files(folder)?;
    if images.is_empty() {
        return Err(Failure::new(format!("no images in `{}`", folder.display()))
            .hint("looked for files that end in `.nii` or `.nii.gz`"));
    }
    Ok(images)
}

/// The NIfTI files of a folder by their names without ending.
pub(super) fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).context(cannot)? {
        let path = entry.context(cannot)?.path();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let name = file.strip_suffix(".nii.gz").or_else(|| file.strip_suffix(".nii"));
        if let Some(name) = name.map(String::from)
            && let Some(other) = files.insert(name, path.clone())
        {
            return Err(Failure::new(format!(
                "`{}` and `{}` have the same name, expected one file of each",
                other.display(),
                path.display()
            )));
        }
    }
    Ok(files)
}

fn case(folders: &Folders, name: String, image: &Path) -> Result<Case> {
    let volume = volume::read(image)?;
    let scaled = scale_intensities(&volume.raw)
        .map_err(|failure| failure.during(format!("cannot scale `{}`", image.display())))?;
    let class_count = folders.classes.len();
    let class = |value: f64| {
        (value.fract() == 0.0 && (0.0..class_count as f64).contains(&value)).then_some(value as u8)
    };
    let unlabelled = f64::from(folders.unlabelled);
    let scribble = |value: f64| {
        if (value - unlabelled).abs() < f64::EPSILON { Some(IGNORE) } else { class(value) }
    };
    let dense_coding = format!("0 to {}", class_count - 1);
    let scribble_coding = format!("{dense_coding} or {} for unlabelled", folders.unlabelled);
    let read = |folder: &Path, coding: &str, translate: &dyn Fn(f64) -> Option<u8>| {
        let path = folder.join(image.file_name().unwrap_or_default());
        let labels = volume::read(&path)?;
        volume.check_labels(&labels, &path)?;
        labels.labels(&path, coding, translate)
    };
    let mut annotations =
        BTreeMap::from([(SCRIBBLE.into(), read(&folders.scribbles, &scribble_coding, &scribble)?)]);
    if let Some(folder) = &folders.dense {
        annotations.insert(DENSE.into(), read(folder, &dense_coding, &class)?);
    }
    Ok(Case {
        patient: name.clone(),
        name,
        frame: 0,
        fold: 0,
        shape: volume.shape,
        channels: 1,
        spacing_mm: Some(volume.spacing_mm),
        image: scaled,
        annotations,
    })
}
