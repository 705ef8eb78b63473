//! Which files belong to a picture that somebody looked at: its image, its mask, its fixations, and its fold.
//!
//! Folders and lists: `med-air/GazeMedSeg` at 12d02590. Knows names and tables; pictures themselves are not opened.

use super::patients::{self, Patients};
use super::{Notes, folder};
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::gaze::{self, Fixation, Recording, picture_name};
use crate::random::{Key, permutation};
use crate::scan::{FORMATS, list};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where everything lies.
#[derive(Debug, Clone)]
pub struct GazeFiles {
    /// The folder of pictures.
    pub images: PathBuf,
    /// The folder of masks with the names of the pictures; some pictures to train on may have none.
    pub masks: Option<PathBuf>,
    /// The table of fixations, see [`gaze::read`].
    pub fixations: PathBuf,
    /// The lists of pictures to train on and to test with; without, folds are drawn.
    pub lists: Option<[PathBuf; 2]>,
    /// Regular expression whose first group in the name of a picture is its patient.
    pub patients: Option<String>,
    /// Equal seeds draw equal folds.
    pub seed: u64,
}

/// A picture and what belongs to it.
#[derive(Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) patient: String,
    pub(super) fold: u32,
    pub(super) image: PathBuf,
    pub(super) mask: Option<PathBuf>,
    /// Empty where nobody looked at it.
    pub(super) fixations: Vec<Fixation>,
}

/// The fold of the pictures to test with where there are lists.
const TEST_FOLD: u32 = 1;

/// How slices of DICOM become pictures that are read.
const DICOM: &str = "turn DICOM slices into PNG as they are shown, for example with DCMTK: \
                     `for f in *.dcm; do dcmj2pnm --min-max-window --write-png \"$f\" \"${f%.dcm}.png\"; done`";

/// The longest list of names, in bytes.
const LIST_BYTES: u64 = files::SMALL_BYTES;

/// The pictures in ascending order of their names.
///
/// With lists those to train on are never held out and those to test with are fold 1; without, the pictures that
/// have masks are cut into five folds by their patients, in an order that the seed draws, and the others are never
/// held out. A picture without fixations is there to be scored, and left out where it cannot be. Notes what is left
/// out. Refuses pictures to test with without masks, names in lists without pictures, and a table with fixations of
/// none of the pictures.
pub(super) fn find(files: &GazeFiles, notes: &Notes) -> Result<Vec<Picture>> {
    let patients = Patients::parse(files.patients.as_deref())?;
    let images = readable(&files.images, notes)?;
    let mut masks = files.masks.as_deref().map(|masks| readable(masks, notes)).transpose()?;
    let recording = gaze::read(&files.fixations)?;
    let mut fixations = known(recording, &images, (files, notes))?;
    let listed = files.lists.as_ref().map(|lists| folds_of_lists(lists, &images, notes));
    let listed = listed.transpose()?;
    let mut found = Vec::new();
    for (name, image) in images {
        let fold = match &listed {
            Some(folds) => match folds.get(&name) {
                Some(&fold) => fold,
                None => continue,
            },
            None => 0,
        };
        found.push(Picture {
            patient: patients.of(&name)?,
            fold,
            image,
            mask: masks.as_mut().and_then(|masks| masks.remove(&name)),
            fixations: fixations.remove(&name).unwrap_or_default(),
            name,
        });
    }
    if listed.is_none() {
        for mask in masks.iter().flat_map(BTreeMap::values) {
            notes.leave_out("the mask has no picture", format!("`{}`", mask.display()));
        }
        patients.note_scans(found.iter().map(|picture| &picture.name), notes);
        draw_folds(&mut found, files.seed);
    }
    note_shared_patients(&found, notes);
    of_use(found, listed.is_some(), notes)
}

/// The files of a folder that are read, by their names without endings. Refuses two of one name, and DICOM.
fn readable(folder: &Path, notes: &Notes) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::<String, PathBuf>::new();
    for path in folder::entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if [".dcm", ".dicom", ".ima"].iter().any(|ending| name.ends_with(ending)) {
            let message = format!("`{}` is a DICOM file, expected a picture", path.display());
            return Err(Failure::usage(message).hint(DICOM));
        }
        let endings = FORMATS.iter().flat_map(|format| format.endings);
        let is_read = endings.into_iter().any(|&ending| ending != ".h5" && name.ends_with(ending));
        if path.is_dir() || !is_read {
            notes.add(
                "passed over, for it is no picture that is read",
                format!("`{}`", path.display()),
            );
            continue;
        }
        let Some(written) = path.file_name().and_then(|name| name.to_str()) else {
            let message = format!("the name of `{}` is not UTF-8", path.display());
            return Err(Failure::usage(message).hint("rename it"));
        };
        if let Some(other) = found.insert(picture_name(written).to_owned(), path.clone()) {
            return Err(folder::same_name(&other, &path));
        }
    }
    if found.is_empty() {
        return Err(Failure::usage(format!("there are no pictures in `{}`", folder.display()))
            .hint("name a folder of PNG or JPEG pictures"));
    }
    Ok(found)
}

/// The fixations of pictures that are there. Refuses a table of other pictures.
fn known(
    recording: Recording,
    images: &BTreeMap<String, PathBuf>,
    (files, notes): (&GazeFiles, &Notes),
) -> Result<BTreeMap<String, Vec<Fixation>>> {
    let count = |lines: &[u64]| lines.first().map(|first| (lines.len(), *first));
    for (lines, sentence) in [
        (&recording.outside, "fixations that lie outside of their picture are left out"),
        (&recording.short, "fixations of less than 50 ms are left out, as in the published tables"),
    ] {
        if let Some((count, first)) = count(lines) {
            notes.add(sentence, format!("{count}, the first in line {first}"));
        }
    }
    let recorded = recording.pictures.len();
    let (of_images, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        recording.pictures.into_iter().partition(|(name, _)| images.contains_key(name));
    if let (true, Some(example)) = (of_images.is_empty(), others.keys().next()) {
        return Err(Failure::usage(format!(
            "none of the {recorded} pictures with fixations in `{}` is in `{}`, for example `{example}`",
            files.fixations.display(),
            files.images.display()
        ))
        .hint("column `IMAGE` holds names of pictures, with or without endings"));
    }
    for name in others.keys() {
        notes.leave_out("the picture of these fixations is not there", format!("`{name}`"));
    }
    Ok(of_images)
}

/// The folds of the pictures in the lists of those to train on and those to test with.
fn folds_of_lists(
    lists: &[PathBuf; 2],
    images: &BTreeMap<String, PathBuf>,
    notes: &Notes,
) -> Result<BTreeMap<String, u32>> {
    let mut folds = BTreeMap::new();
    for (path, fold) in lists.iter().zip([0, TEST_FOLD]) {
        let text = files::read_text(path, LIST_BYTES)
            .context(|| format!("cannot read the list `{}`", path.display()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let names = text.lines().enumerate();
        let mut is_empty = true;
        for (line, written) in
            names.filter_map(|(at, l)| Some((at + 1, l.split_whitespace().next()?)))
        {
            let name = picture_name(written);
            let refuse = |what: &str| {
                Failure::usage(format!(
                    "line {line} of the list `{}` names `{written}`, {what}",
                    path.display()
                ))
            };
            if !images.contains_key(name) {
                return Err(refuse("of which there is no picture").hint(
                    "the first word of each line is the name of a picture without its ending",
                ));
            }
            if folds.insert(name.to_owned(), fold).is_some_and(|other| other != fold) {
                return Err(refuse("which is in the list of pictures to train on too")
                    .hint("remove it from one of the two lists"));
            }
            is_empty = false;
        }
        if is_empty {
            let message = format!("the list `{}` names no picture", path.display());
            return Err(Failure::usage(message));
        }
    }
    for name in images.keys().filter(|name| !folds.contains_key(*name)) {
        notes.leave_out("the picture is in neither list", format!("`{name}`"));
    }
    Ok(folds)
}

/// Cuts the patients whose pictures have masks into five folds, in an order that `seed` draws.
fn draw_folds(pictures: &mut [Picture], seed: u64) {
    let scored = pictures.iter().filter(|picture| picture.mask.is_some());
    let scored: BTreeSet<String> = scored.map(|picture| picture.patient.clone()).collect();
    let order = permutation(Key::new(seed).purpose("gaze folds"), scored.len());
    // As many places as patients, each the fold of one of them.
    let places: BTreeSet<String> = (0..scored.len()).map(|place| format!("{place:08}")).collect();
    let folds: Vec<u32> = patients::folds(&places).into_values().collect();
    let drawn: BTreeMap<&String, u32> =
        scored.iter().zip(&order).map(|(patient, &place)| (patient, folds[place])).collect();
    for picture in pictures.iter_mut().filter(|picture| picture.mask.is_some()) {
        picture.fold = drawn.get(&picture.patient).copied().unwrap_or_default();
    }
}

fn note_shared_patients(pictures: &[Picture], notes: &Notes) {
    let mut folds: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for picture in pictures {
        folds.entry(&picture.patient).or_default().insert(picture.fold);
    }
    let shared = folds.into_iter().filter(|(_, folds)| folds.len() > 1);
    let shared: Vec<String> = shared.map(|(patient, _)| format!("`{patient}`")).collect();
    if !shared.is_empty() {
        notes.add("of these patients some pictures are trained on and others scored: scores come out too good", list(&shared));
    }
}

/// Leaves out what can be neither trained on nor scored. Refuses what is to be tested with and has no mask.
fn of_use(pictures: Vec<Picture>, by_lists: bool, notes: &Notes) -> Result<Vec<Picture>> {
    let mut kept = Vec::new();
    for picture in pictures {
        let is_tested = by_lists && picture.fold == TEST_FOLD;
        if is_tested && picture.mask.is_none() {
            return Err(Failure::usage(format!(
                "picture `{}` is to be tested with, and has no mask",
                picture.image.display()
            ))
            .hint(
                "name the folder of masks with `--masks DIR`, or remove the name from the list",
            ));
        }
        let is_scored = picture.mask.is_some() && (is_tested || !by_lists);
        if picture.fixations.is_empty() && !is_scored {
            notes.leave_out(
                "the picture is to be trained on and has no fixations",
                format!("`{}`", picture.name),
            );
            continue;
        }
        kept.push(picture);
    }
    let is_trained = |picture: &Picture| {
        !(picture.fixations.is_empty() || by_lists && picture.fold == TEST_FOLD)
    };
    if kept.iter().any(is_trained) {
        return Ok(kept);
    }
    Err(Failure::usage("there are fixations of no picture to train on"))
}
