//! ACDC with scribbles, in the three forms in which people have it.
//!
//! The forms: WSL4MIS volumes (`patientPPP_frameFF.h5`), WSL4MIS slices
//! (`patientPPP_frameFF_slice_S.h5`), and the challenge's NIfTI tree with scribbles beside it.
//! Data: Bernard et al., TMI 2018; scribbles: Valvano et al., TMI 2021; HDF5 forms:
//! `HiLab-git/WSL4MIS` at a594da8d. Knows nothing of how the packed file looks.

use super::{Source, cardiac_classes, scale_intensities, volume};
use crate::data::{Case, DENSE, IGNORE, SCRIBBLE, place};
use crate::error::{Context, Failure, Result};
use hdf5::H5Type;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Label of pixels that nobody annotated, in scribbles alone.
const UNLABELLED: u8 = 4;

/// Patient and frame, in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    patient: u32,
    frame: u32,
}

/// The files of one case.
enum Files {
    Volume(PathBuf),
    /// By slice number.
    Slices(BTreeMap<usize, PathBuf>),
    /// Image, dense labels, scribbles.
    Nifti([PathBuf; 3]),
}

/// Finds ACDC in `folder`, preferring whole volumes to slices, and those to NIfTI.
///
/// Labels become 0 background, 1 right ventricle, 2 myocardium, 3 left ventricle, [`IGNORE`];
/// patients 1-20 are held out in fold 1, ..., 81-100 in fold 5, later ones in none.
pub fn open(folder: &Path) -> Result<Source> {
    let (form, found) = find(folder)?;
    let case_count = found.len();
    let cases = found.into_iter().map(|(id, files)| case(id, &files));
    Ok(Source {
        name: "acdc".into(),
        classes: cardiac_classes(),
        provenance: format!(
            "ACDC challenge (Bernard et al., TMI 2018), scribbles by Valvano et al., TMI 2021.\n\
             {form}"
        ),
        case_count,
        cases: Box::new(cases),
    })
}

type Found = BTreeMap<Id, Files>;

fn find(folder: &Path) -> Result<(&'static str, Found)> {
    for place in [folder.to_owned(), folder.join("ACDC_training_volumes")] {
        let found = volumes(&place)?;
        if !found.is_empty() {
            return Ok(("Volumes of WSL4MIS, intensities as scaled there.", found));
        }
    }
    for place in [folder.to_owned(), folder.join("ACDC_training_slices")] {
        let found = slices(&place)?;
        if !found.is_empty() {
            return Ok(("Slices of WSL4MIS, intensities as scaled there.", found));
        }
    }
    let found = nifti_tree(folder)?;
    if !found.is_empty() {
        let form = "NIfTI of the challenge, intensities cut at the cumulative share 0.99 and \
                    scaled to [0, 1] per volume.";
        return Ok((form, found));
    }
    Err(Failure::new(format!("no ACDC cases in `{}`", folder.display())).hint(
        "looked for `patient001_frame01.h5` there or in `ACDC_training_volumes`, for \
         `patient001_frame01_slice_0.h5` there or in `ACDC_training_slices`, and for \
         `patient001/patient001_frame01.nii.gz`",
    ))
}

fn volumes(folder: &Path) -> Result<Found> {
    let paths = entries(folder)?.into_iter();
    Ok(paths
        .filter_map(|path| {
            let (id, rest) = parse(&path)?;
            (rest == ".h5").then(|| (id, Files::Volume(path.clone())))
        })
        .collect())
}

fn slices(folder: &Path) -> Result<Found> {
    let mut found: BTreeMap<Id, BTreeMap<usize, PathBuf>> = BTreeMap::new();
    for path in entries(folder)? {
        let slice = parse(&path).and_then(|(id, rest)| {
            let number = rest.strip_prefix("_slice_")?.strip_suffix(".h5")?.parse().ok()?;
            Some((id, number))
        });
        if let Some((id, number)) = slice {
            found.entry(id).or_default().insert(number, path);
        }
    }
    Ok(found.into_iter().map(|(id, slices)| (id, Files::Slices(slices))).collect())
}

fn nifti_tree(folder: &Path) -> Result<Found> {
    let mut found = Found::new();
    for patient in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        for path in entries(&patient)? {
            let image = parse(&path).filter(|(_, rest)| [".nii.gz", ".nii"].contains(rest));
            let Some((id, ending)) = image else { continue };
            let beside = |kind: &str| patient.join(format!("{}_{kind}{ending}", case_name(id)));
            let files = [path.clone(), beside("gt"), beside("scribble")];
            found.insert(id, Files::Nifti(files));
        }
    }
    Ok(found)
}

/// The entries of a folder in ascending order; none where there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let cannot = || format!("cannot list `{}`", folder.display());
    let entries = std::fs::read_dir(folder).context(cannot)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<std::io::Result<_>>().context(cannot)?;
    paths.sort_unstable();
    Ok(paths)
}

/// Splits `patient001_frame01REST`.
fn parse(path: &Path) -> Option<(Id, &str)> {
    let name = path.file_name()?.to_str()?.strip_prefix("patient")?;
    let (patient, name) = name.split_once("_frame")?;
    let digits = name.find(|letter: char| !letter.is_ascii_digit())?;
    let (frame, rest) = name.split_at(digits);
    Some((Id { patient: patient.parse().ok()?, frame: frame.parse().ok()? }, rest))
}

fn case_name(id: Id) -> String {
    format!("patient{:03}_frame{:02}", id.patient, id.frame)
}

fn case(id: Id, files: &Files) -> Result<Case> {
    let arrays = match files {
        Files::Volume(path) => volume_arrays(path)?,
        Files::Slices(slices) => stacked_slices(id, slices)?,
        Files::Nifti([image, dense, scribble]) => nifti_arrays(image, dense, scribble)?,
    };
    Ok(Case {
        name: case_name(id),
        patient: format!("patient{:03}", id.patient),
        frame: id.frame,
        fold: if (1..=100).contains(&id.patient) { (id.patient - 1) / 20 + 1 } else { 0 },
        shape: arrays.shape,
        channels: 1,
        spacing_mm: arrays.spacing_mm,
        image: arrays.image,
        annotations: BTreeMap::from([
            (SCRIBBLE.into(), arrays.scribble),
            (DENSE.into(), arrays.dense),
        ]),
    })
}

/// The three arrays of one case or slice, labels in our coding.
struct Arrays {
    shape: [usize; 3],
    spacing_mm: Option<[f64; 3]>,
    image: Vec<f32>,
    dense: Vec<u8>,
    scribble: Vec<u8>,
}

fn dense_label(value: i32) -> Option<u8> {
    (0..4).contains(&value).then_some(value as u8)
}

fn scribble_label(value: i32) -> Option<u8> {
    if value == i32::from(UNLABELLED) { Some(IGNORE) } else { dense_label(value) }
}

fn volume_arrays(path: &Path) -> Result<Arrays> {
    let file = Hdf5 { path, file: open_hdf5(path)? };
    let shape = file.shape("image")?;
    let shape: [usize; 3] = shape.as_slice().try_into().map_err(|_error| {
        Failure::new(format!(
            "`image` of `{}` has shape {shape:?}, expected [slices, rows, columns]",
            path.display()
        ))
    })?;
    file.arrays(shape, &shape)
}

fn stacked_slices(id: Id, slices: &BTreeMap<usize, PathBuf>) -> Result<Arrays> {
    let mut stack: Option<Arrays> = None;
    for (expected, (&number, path)) in slices.iter().enumerate() {
        if number != expected {
            return Err(Failure::new(format!(
                "slice {expected} of `{}` is missing, the next one is `{}`",
                case_name(id),
                path.display()
            ))
            .hint("copy the missing slice files, or remove the others of this case"));
        }
        let file = Hdf5 { path, file: open_hdf5(path)? };
        let found = file.shape("image")?;
        let in_plane = stack.as_ref().map(|stack| stack.shape[1..].to_vec());
        let in_plane = in_plane.unwrap_or_else(|| found.clone());
        let [rows, columns] = in_plane[..] else {
            return Err(file.wrong_shape("image", &found, "[rows, columns]"));
        };
        let slice = file.arrays([1, rows, columns], &[rows, columns])?;
        match &mut stack {
            None => stack = Some(slice),
            Some(stack) => {
                stack.shape[0] += 1;
                stack.image.extend(slice.image);
                stack.dense.extend(slice.dense);
                stack.scribble.extend(slice.scribble);
            }
        }
    }
    stack.ok_or_else(|| Failure::new(format!("`{}` has no slices", case_name(id))))
}

fn nifti_arrays(image: &Path, dense: &Path, scribble: &Path) -> Result<Arrays> {
    if let Some(missing) = [dense, scribble].into_iter().find(|path| !path.exists()) {
        return Err(Failure::new(format!(
            "no `{}` for image `{}`",
            missing.display(),
            image.display()
        ))
        .hint("put the dense labels `_gt` and the scribbles `_scribble` beside the images"));
    }
    let volume = volume::read(image)?;
    let labels = |path: &Path, coding: &str, translate: fn(i32) -> Option<u8>| {
        let labels = volume::read(path)?;
        volume.check_labels(&labels, path)?;
        let whole = |value: f64| (value.fract() == 0.0).then_some(value as i32);
        labels.labels(path, coding, |value| whole(value).and_then(translate))
    };
    let dense = labels(dense, "0 to 3", dense_label)?;
    let scribble = labels(scribble, "0 to 3 or 4 for unlabelled", scribble_label)?;
    let scaled = scale_intensities(&volume.raw)
        .map_err(|failure| failure.during(format!("cannot scale `{}`", image.display())))?;
    Ok(Arrays {
        shape: volume.shape,
        spacing_mm: Some(volume.spacing_mm),
        image: scaled,
        dense,
        scribble,
    })
}

fn open_hdf5(path: &Path) -> Result<hdf5::File> {
    hdf5::File::open(path)
        .context(|| format!("cannot open `{}` as HDF5, expected a whole file", path.display()))
}

/// One HDF5 file of WSL4MIS.
struct Hdf5<'a> {
    path: &'a Path,
    file: hdf5::File,
}

impl Hdf5<'_> {
    /// `image`, `label` and `scribble`, which must have the shape `stored`, as `[slices, rows, columns]`.
    fn arrays(&self, shape: [usize; 3], stored: &[usize]) -> Result<Arrays> {
        let image: Vec<f32> = self.read("image", stored)?;
        if let Some(index) = image.iter().position(|value| !(0.0..=1.0).contains(value)) {
            return Err(Failure::new(format!(
                "`image` of `{}` holds {} {}, expected finite intensities in [0, 1]",
                self.path.display(),
                image[index],
                place(index, shape)
            )));
        }
        Ok(Arrays {
            shape,
            spacing_mm: None,
            image,
            dense: self.labels("label", (shape, stored), dense_label)?,
            scribble: self.labels("scribble", (shape, stored), scribble_label)?,
        })
    }

    fn labels(
        &self,
        name: &str,
        (shape, stored): ([usize; 3], &[usize]),
        translate: fn(i32) -> Option<u8>,
    ) -> Result<Vec<u8>> {
        let values: Vec<i32> = self.read(name, stored)?;
        let labels = values.iter().enumerate().map(|(index, &value)| {
            translate(value).ok_or_else(|| {
                Failure::new(format!(
                    "`{name}` of `{}` holds {value} {}, expected 0 to 3{}",
                    self.path.display(),
                    place(index, shape),
                    if name == "scribble" { " or 4 for unlabelled" } else { "" }
                ))
            })
        });
        labels.collect()
    }

    fn read<T: H5Type>(&self, name: &str, expected: &[usize]) -> Result<Vec<T>> {
        let found = self.shape(name)?;
        if found != expected {
            return Err(self.wrong_shape(name, &found, &format!("{expected:?} as `image` has")));
        }
        let array = self.file.dataset(name).and_then(|array| array.read_raw());
        array.context(|| format!("cannot read `{name}` of `{}`", self.path.display()))
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let array = self.file.dataset(name);
        Ok(array.context(|| format!("cannot read `{name}` of `{}`", self.path.display()))?.shape())
    }

    fn wrong_shape(&self, name: &str, found: &[usize], expected: &str) -> Failure {
        Failure::new(format!(
            "`{name}` of `{}` has shape {found:?}, expected {expected}",
            self.path.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_taken_apart() {
        let parsed = |name: &'static str| parse(Path::new(name));
        let id = Id { patient: 7, frame: 12 };
        assert_eq!(parsed("a/patient007_frame12.h5"), Some((id, ".h5")));
        assert_eq!(parsed("patient007_frame12_slice_3.h5"), Some((id, "_slice_3.h5")));
        assert_eq!(parsed("patient007_4d.nii.gz"), None);
        assert_eq!(parsed("patientX_frame01.h5"), None);
        assert_eq!(case_name(id), "patient007_frame12");
    }
}
