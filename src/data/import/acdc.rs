//! ACDC with scribbles, in the three forms in which people have it.
//!
//! The forms: WSL4MIS volumes (`patientPPP_frameFF.h5`), WSL4MIS slices
//! (`patientPPP_frameFF_slice_S.h5`), and the challenge's NIfTI tree with scribbles beside it.
//! Data: Bernard et al., TMI 2018; scribbles: Valvano et al., TMI 2021; HDF5 forms:
//! `HiLab-git/WSL4MIS` at a594da8d. Knows nothing of how the packed file looks.

use super::folder::{self, entries};
use super::{Source, Steps, cardiac_classes, prepared, published_scan};
use crate::data::{Case, DENSE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::preparation::{Intensities, Preparation};
use crate::scan::wsl4mis::{self, Hdf5File};
use crate::scan::{self, Coding, Grid, Notes, Scan};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Label of pixels that nobody annotated, in scribbles alone.
const UNLABELLED: i64 = 4;

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

impl Files {
    /// The file of the image, or of its first slice.
    fn image(&self) -> &Path {
        match self {
            Self::Volume(path) | Self::Nifti([path, ..]) => path,
            Self::Slices(slices) => slices.values().next().map_or(Path::new(""), PathBuf::as_path),
        }
    }
}

/// Finds ACDC in `folder`, preferring whole volumes to slices, and those to NIfTI.
///
/// Labels become 0 background, 1 right ventricle, 2 myocardium, 3 left ventricle,
/// [`IGNORE`](crate::data::IGNORE); patients 1-20 are held out in fold 1, ..., 81-100 in fold 5, later
/// ones in none. Where `steps` say nothing else, intensities are as published. Refuses two files of one case, and
/// notes files whose names it does not understand.
pub fn open(folder: &Path, steps: &Steps) -> Result<Source> {
    let notes = Notes::default();
    let (form, found) = find(folder, &notes)?;
    let is_raw = matches!(found.values().next(), Some(Files::Nifti(_)));
    let scaling = if is_raw { Intensities::Published } else { Intensities::Scaled };
    let steps = steps.or_scaled_by(scaling);
    let preparation = steps.preparation(vec!["image".to_owned()], || {
        found.iter().map(|(id, files)| case(*id, files, &notes, stored_scan))
    })?;
    let is_published = preparation == Preparation::grey(scaling);
    let form = if is_published { form.to_owned() } else { form_alone(form) };
    let (case_count, noted, applied) = (found.len(), notes.clone(), preparation.clone());
    let cases = found.into_iter().map(move |(id, files)| {
        if is_published {
            return case(id, &files, &noted, published_scan);
        }
        prepared(case(id, &files, &noted, stored_scan)?, &applied, files.image(), &noted)
    });
    Ok(Source {
        name: "acdc".into(),
        classes: cardiac_classes(),
        preparation: Some(preparation),
        provenance: format!(
            "ACDC challenge (Bernard et al., TMI 2018), scribbles by Valvano et al., TMI 2021.\n\
             {form}"
        ),
        levels: Vec::new(),
        test_fold: None,
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

/// What is said of the form of the files, without how intensities are scaled by those who change nothing.
fn form_alone(form: &str) -> String {
    format!("{}.", form.split(", ").next().unwrap_or(form))
}

/// The scan as its file holds it.
fn stored_scan(image: &Path, notes: &Notes) -> Result<Scan> {
    scan::read(image, notes)
}

type Found = BTreeMap<Id, Files>;

fn find(folder: &Path, notes: &Notes) -> Result<(&'static str, Found)> {
    for place in [folder.to_owned(), folder.join("ACDC_training_volumes")] {
        let found = volumes(&place, notes)?;
        if !found.is_empty() {
            return Ok(("Volumes of WSL4MIS, intensities as scaled there.", found));
        }
    }
    for place in [folder.to_owned(), folder.join("ACDC_training_slices")] {
        let found = slices(&place, notes)?;
        if !found.is_empty() {
            return Ok(("Slices of WSL4MIS, intensities as scaled there.", found));
        }
    }
    let found = nifti_tree(folder, notes)?;
    if !found.is_empty() {
        let form = "NIfTI of the challenge, intensities cut at the cumulative share 0.99 and \
                    scaled to [0, 1] per volume.";
        return Ok((form, found));
    }
    let mut names = if folder.is_dir() { entries(folder)? } else { Vec::new() }.into_iter();
    let found = match names.next() {
        Some(path) => format!("`{}` is there, which is none of these", path.display()),
        None => "there is nothing there".to_owned(),
    };
    Err(Failure::new(format!("no ACDC cases in `{}`", folder.display()))
        .hint(
            "looked for `patient001_frame01.h5` there or in `ACDC_training_volumes`, for \
             `patient001_frame01_slice_0.h5` there or in `ACDC_training_slices`, and for \
             `patient001/patient001_frame01.nii.gz`",
        )
        .hint(found))
}

/// Why files are left out that would have been cases under another name.
const UNKNOWN: &str = "the name is none that ACDC has (`patient001_frame01…`)";

fn volumes(folder: &Path, notes: &Notes) -> Result<Found> {
    let (mut found, mut unknown, mut loose) = (BTreeMap::new(), Vec::new(), Vec::new());
    for path in present(folder)? {
        match parse(&path) {
            Some((id, ".h5")) => {
                if let Some(Files::Volume(other)) = found.insert(id, Files::Volume(path.clone())) {
                    return Err(same_case(&other, &path));
                }
            }
            Some((id, rest)) if slice_number(rest).is_some() => loose.push((id, path)),
            _ => unknown.push(path),
        }
    }
    if !found.is_empty() {
        loose.retain(|(id, _)| !found.contains_key(id));
        for (_, path) in &loose {
            notes.leave_out("whole volumes lie beside it", format!("`{}`", path.display()));
        }
        note_data(&unknown, UNKNOWN, notes);
    }
    Ok(found)
}

/// The entries of a folder; none where there is no such folder.
fn present(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.is_dir() { entries(folder) } else { Ok(Vec::new()) }
}

fn note_data(paths: &[PathBuf], why: &str, notes: &Notes) {
    for path in paths.iter().filter(|path| !path.is_dir() && folder::is_data(path)) {
        notes.leave_out(why, format!("`{}`", path.display()));
    }
}

fn same_case(one: &Path, other: &Path) -> Failure {
    Failure::new(format!(
        "`{}` and `{}` are the same patient and frame, expected one file of each",
        one.display(),
        other.display()
    ))
    .hint("remove or rename one of them")
}

fn slice_number(rest: &str) -> Option<usize> {
    rest.strip_prefix("_slice_")?.strip_suffix(".h5")?.parse().ok()
}

fn slices(folder: &Path, notes: &Notes) -> Result<Found> {
    let mut found: BTreeMap<Id, BTreeMap<usize, PathBuf>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for path in present(folder)? {
        let Some((id, number)) =
            parse(&path).and_then(|(id, rest)| Some((id, slice_number(rest)?)))
        else {
            unknown.push(path);
            continue;
        };
        if let Some(other) = found.entry(id).or_default().insert(number, path.clone()) {
            return Err(same_case(&other, &path));
        }
    }
    if !found.is_empty() {
        note_data(&unknown, UNKNOWN, notes);
    }
    Ok(found.into_iter().map(|(id, slices)| (id, Files::Slices(slices))).collect())
}

/// What stands behind patient and frame in the names of NIfTI files that are no images.
const LABELS: [&str; 2] = ["_gt", "_scribble"];

fn nifti_tree(folder: &Path, notes: &Notes) -> Result<Found> {
    let (mut found, mut unknown, mut alone) = (Found::new(), Vec::new(), Vec::new());
    let mut folders = present(folder)?;
    folders.push(folder.to_owned());
    for patient in folders.into_iter().filter(|path| path.is_dir()) {
        let listing = folder::list(&patient)?;
        unknown.extend(listing.others);
        for (name, path) in &listing.files {
            let parsed = parse(path);
            let rest = parsed.map(|(id, rest)| (id, folder::stem(rest).unwrap_or(rest), rest));
            match rest {
                // What `stem` leaves of `.nii.gz` alone is nothing, hence the ending itself.
                Some((id, short, rest)) if short == rest => {
                    let files = nifti_files(name, path, &listing.files)?;
                    if let Some(Files::Nifti([other, ..])) = found.insert(id, Files::Nifti(files)) {
                        return Err(same_case(&other, path));
                    }
                }
                Some((id, short, _)) if LABELS.contains(&short) => alone.push((id, path.clone())),
                _ if name.ends_with("_4d") => {}
                _ => unknown.push(path.clone()),
            }
        }
    }
    alone.retain(|(id, _)| !found.contains_key(id));
    let alone: Vec<PathBuf> = alone.into_iter().map(|(_, path)| path).collect();
    if !found.is_empty() {
        note_data(&unknown, UNKNOWN, notes);
        note_data(&alone, "these labels have no image", notes);
    }
    Ok(found)
}

/// Image, dense labels and scribbles of the image called `name`.
fn nifti_files(
    name: &str,
    image: &Path,
    files: &BTreeMap<String, PathBuf>,
) -> Result<[PathBuf; 3]> {
    let beside = |kind: &str| {
        files.get(&format!("{name}{kind}")).cloned().ok_or_else(|| {
            let what = if kind == LABELS[0] { "dense labels" } else { "scribbles" };
            Failure::new(format!("image `{}` has no {what}", image.display()))
                .hint(format!("looked for `{name}{kind}.nii.gz` and `{name}{kind}.nii` beside it"))
        })
    };
    Ok([image.to_owned(), beside(LABELS[0])?, beside(LABELS[1])?])
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

/// Reads the scan of a NIfTI file.
type ReadScan = fn(&Path, &Notes) -> Result<Scan>;

fn case(id: Id, files: &Files, notes: &Notes, read: ReadScan) -> Result<Case> {
    let arrays = match files {
        Files::Volume(path) => volume_arrays(path, notes)?,
        Files::Slices(slices) => stacked_slices(id, slices, notes)?,
        Files::Nifti([image, dense, scribble]) => {
            let [dense, scribble] = nifti_labels(image, [dense, scribble], notes)?;
            Arrays { dense, scribble, scan: read(image, notes)? }
        }
    };
    Ok(Case {
        name: case_name(id),
        patient: format!("patient{:03}", id.patient),
        frame: id.frame,
        modality: String::new(),
        classes_annotated: Vec::new(),
        fold: if (1..=100).contains(&id.patient) { (id.patient - 1) / 20 + 1 } else { 0 },
        scan: arrays.scan,
        annotations: BTreeMap::from([
            (SCRIBBLE.into(), arrays.scribble),
            (DENSE.into(), arrays.dense),
        ]),
    })
}

/// The three arrays of one case or slice, labels in our coding.
struct Arrays {
    scan: Scan,
    dense: Vec<u8>,
    scribble: Vec<u8>,
}

/// The codings of dense labels and of scribbles.
fn codings() -> [Coding; 2] {
    [Coding::classes(4), Coding::classes(4).or_unlabelled(UNLABELLED)]
}

fn volume_arrays(path: &Path, notes: &Notes) -> Result<Arrays> {
    let file = wsl4mis::open(path)?;
    let shape = file.shape("image")?;
    let shape: [usize; 3] = shape
        .as_slice()
        .try_into()
        .map_err(|_error| file.wrong_shape("image", &shape, "[slices, rows, columns]"))?;
    scan::read_grid(path, notes)?.note_oddities(notes);
    hdf5_arrays(&file, shape, notes)
}

fn hdf5_arrays(file: &Hdf5File<'_>, shape: [usize; 3], notes: &Notes) -> Result<Arrays> {
    let [dense, scribble] = codings();
    let (grid, voxels) = (Grid::unplaced(shape, None), file.image(shape)?);
    Ok(Arrays {
        scan: Scan { grid, channels: 1, voxels },
        dense: file.labels("label", shape, &dense, notes)?,
        scribble: file.labels("scribble", shape, &scribble, notes)?,
    })
}

fn stacked_slices(id: Id, slices: &BTreeMap<usize, PathBuf>, notes: &Notes) -> Result<Arrays> {
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
        let file = wsl4mis::open(path)?;
        let found = file.shape("image")?;
        let in_plane = stack.as_ref().map(|stack| stack.scan.grid.shape[1..].to_vec());
        let in_plane = in_plane.unwrap_or_else(|| found.clone());
        let [rows, columns] = in_plane[..] else {
            return Err(file.wrong_shape("image", &found, "[rows, columns]"));
        };
        let slice = hdf5_arrays(&file, [1, rows, columns], notes)?;
        match &mut stack {
            None => stack = Some(slice),
            Some(stack) => {
                stack.scan.grid.shape[0] += 1;
                stack.scan.voxels.extend(slice.scan.voxels);
                stack.dense.extend(slice.dense);
                stack.scribble.extend(slice.scribble);
            }
        }
    }
    stack.ok_or_else(|| Failure::new(format!("`{}` has no slices", case_name(id))))
}

/// The labels of a case without its scan.
fn nifti_labels(
    image: &Path,
    [dense, scribble]: [&Path; 2],
    notes: &Notes,
) -> Result<[Vec<u8>; 2]> {
    let grid = scan::read_grid(image, notes)?;
    grid.note_oddities(notes);
    let [dense_coding, scribble_coding] = codings();
    Ok([
        grid.labels_at(dense, &dense_coding, notes)?.values,
        grid.labels_at(scribble, &scribble_coding, notes)?.values,
    ])
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
