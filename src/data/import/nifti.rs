//! Anybody's own data: folders of images, scribbles and dense labels with equal file names, in any format.
//!
//! Knows neither organ nor modality; names of cases are names of files, and whose they are is what
//! `patients` reads from them.

use super::classes::Classes;
use super::folder::{self, Listing, same_name};
use super::patients::{Patients, folds};
use super::{Source, Steps, prepared};
use crate::data::{Case, DENSE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::scan::{self, Coding, Notes, image_endings, label_endings, list, split_ending};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the files of a data set lie and what their labels mean.
#[derive(Debug, Clone)]
pub struct Folders {
    /// One file per case, in any format that is read, or one for each channel: `NAME_0000`, `NAME_0001` and so on.
    pub images: PathBuf,
    /// What the channels show, in their order; where nobody says it, as many channels as the first case has.
    pub modalities: Option<Vec<String>>,
    /// Scribbles with the names of the images.
    pub scribbles: PathBuf,
    /// Dense labels with the names of the images, where somebody made them.
    pub dense: Option<PathBuf>,
    /// Names of the classes by label value, the background first, or `VALUE=NAME` for each.
    pub classes: Vec<String>,
    /// The same classes by the values of dense labels, where those are others.
    pub dense_classes: Option<Vec<String>>,
    /// Label value of pixels that nobody annotated, in scribbles alone.
    pub unlabelled: i64,
    /// A regular expression whose first group in the name of a case is its patient.
    pub patients: Option<String>,
    /// How scans are prepared.
    pub steps: Steps,
}

/// The files of one case.
struct Files {
    patient: String,
    /// One for each channel.
    images: Vec<PathBuf>,
    scribble: PathBuf,
    dense: Option<PathBuf>,
}

/// What label values mean, in scribbles and in dense labels.
struct Codings {
    scribble: Coding,
    dense: Coding,
}

/// Finds the cases. Where intensities are to be scaled by the annotated foreground of all, each is read twice. Folds are five contiguous blocks of the patients
/// sorted by name, of those with dense labels for all their cases where there is a folder of them.
///
/// Refuses cases that lack a channel, images without scribbles, labels without image, other data in the folders, and labels that do
/// not lie on their image; notes whatever else is passed over.
pub fn open(folders: &Folders) -> Result<Source> {
    let classes = Classes::parse(&folders.classes, "--classes")?;
    let names = classes.names();
    let dense_classes = match &folders.dense_classes {
        Some(words) => {
            Classes::parse(words, "--dense-classes")?.in_order_of(&names, "--dense-classes")?
        }
        None => classes.clone(),
    };
    let codings =
        Codings { scribble: classes.coding_or(folders.unlabelled)?, dense: dense_classes.coding() };
    let notes = Notes::default();
    let found = find(folders, &notes)?;
    let channels = channel_names(folders.modalities.as_deref(), &found)?;
    let preparation = folders.steps.preparation(channels, || {
        found.iter().map(|(name, files)| case(name.clone(), files, &codings, &notes))
    })?;
    let held_out = held_out(&found, folders.dense.is_some(), &notes);
    let folds = folds(&held_out);
    let (case_count, noted, applied) = (found.len(), notes.clone(), preparation.clone());
    let cases = found.into_iter().map(move |(name, files)| {
        let fold = folds.get(&files.patient).copied().unwrap_or(0);
        let case = case(name, &files, &codings, &noted)?;
        prepared(Case { fold, ..case }, &applied, &files.images[0], &noted)
    });
    Ok(Source {
        name: "nifti".into(),
        classes: names,
        preparation: Some(preparation),
        provenance: "NIfTI images.".into(),
        levels: Vec::new(),
        test_fold: 0,
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

/// The names of the channels: `modalities`, or their numbers or colours. Refuses cases with other channels than these or
/// than the first case has.
fn channel_names(
    modalities: Option<&[String]>,
    found: &BTreeMap<String, Files>,
) -> Result<Vec<String>> {
    let Some((first, files)) = found.first_key_value() else { return Ok(Vec::new()) };
    let count = modalities.map_or(files.images.len(), <[String]>::len);
    if let Some((name, files)) = found.iter().find(|(_, files)| files.images.len() != count) {
        let expected = match modalities {
            Some(names) => format!("{count} as `--modalities {}` names", names.join(",")),
            None => format!("{count} as `{first}` has"),
        };
        return Err(Failure::new(format!(
            "case `{name}` has {} channels, expected {expected}",
            files.images.len()
        ))
        .hint("channels of a case are `NAME_0000.nii.gz`, `NAME_0001.nii.gz` and so on"));
    }
    if let Some(names) = modalities {
        return Ok(names.to_vec());
    }
    // Colours and the like lie in one file.
    let count = match &files.images[..] {
        [image] => scan::read(image, &Notes::default())?.channels,
        images => images.len(),
    };
    Ok(match count {
        1 => vec!["image".to_owned()],
        3 if files.images.len() == 1 => ["red", "green", "blue"].map(String::from).to_vec(),
        count => (0..count).map(|number| format!("{number:04}")).collect(),
    })
}

/// The patients who can be scored: all, or where there are dense labels those who have them for all
/// their cases.
fn held_out(found: &BTreeMap<String, Files>, is_scored: bool, notes: &Notes) -> BTreeSet<String> {
    let lacking = found.iter().filter(|(_, files)| is_scored && files.dense.is_none());
    let mut without = BTreeSet::new();
    for (name, files) in lacking {
        notes.add(
            "without dense labels, so that its patient is never held out",
            format!("`{name}`"),
        );
        without.insert(&files.patient);
    }
    let patients = found.values().map(|files| &files.patient);
    patients.filter(|patient| !without.contains(patient)).cloned().collect()
}

/// The files of every case by its name.
fn find(folders: &Folders, notes: &Notes) -> Result<BTreeMap<String, Files>> {
    let look = |folder: &Path, endings: Vec<&'static str>| -> Result<Listing> {
        let listing = folder::list_of(folder, endings)?;
        listing.note_others(notes).map(|()| listing)
    };
    let listing = look(&folders.images, image_endings().filter(|end| *end != WSL4MIS).collect())?;
    if listing.files.is_empty() {
        return Err(Failure::new(format!("no images in `{}`", folders.images.display()))
            .hint(format!("looked for files that end in {}", listing.endings())));
    }
    let images = listing.files;
    let look = |folder: &Path| look(folder, label_endings().collect());
    let mut scribbles = look(&folders.scribbles)?.files;
    let mut dense = folders.dense.as_deref().map(look).transpose()?.map(|listing| listing.files);
    let patients = Patients::parse(folders.patients.as_deref())?;
    let mut found: BTreeMap<String, Files> = BTreeMap::new();
    for (stem, images) in channels(images)? {
        let names = names(&stem);
        let Some((name, scribble)) = take(&mut scribbles, &names) else {
            return Err(no_scribbles(&stem, &images[0], &scribbles, &folders.scribbles));
        };
        let dense = dense.as_mut().and_then(|dense| take(dense, &names)).map(|(_, path)| path);
        let patient = patients.of(&name)?;
        if let Some(other) = found.get(&name) {
            return Err(same_name(&other.images[0], &images[0]));
        }
        found.insert(name, Files { patient, images, scribble, dense });
    }
    for (labels, what) in [(&scribbles, "scribbles"), (&dense.unwrap_or_default(), "dense labels")]
    {
        if let Some(path) = labels.values().next() {
            let more = labels.len() - 1;
            let others =
                if more > 0 { format!(", and so have {more} more") } else { String::new() };
            return Err(Failure::new(format!("{what} `{}` have no image{others}", path.display()))
                .hint(format!(
                    "put the image into `{}`, or move them away",
                    folders.images.display()
                )));
        }
    }
    if folders.dense.is_some() && found.values().all(|files| files.dense.is_none()) {
        return Err(Failure::new("no image has dense labels").hint(
            "dense labels need the names of the images; leave `--dense` out if there are none",
        ));
    }
    patients.note_scans(found.keys(), notes);
    Ok(found)
}

/// What labels of the image `stem` may be called: nnU-Net adds the number of the channel to images alone.
fn names(stem: &str) -> Vec<&str> {
    [Some(stem), stem.strip_suffix(FIRST_CHANNEL)].into_iter().flatten().collect()
}

fn take(labels: &mut BTreeMap<String, PathBuf>, names: &[&str]) -> Option<(String, PathBuf)> {
    names.iter().find_map(|name| labels.remove_entry(*name))
}

/// What the names of volumes of WSL4MIS end with, which hold annotations, too: another importer takes them.
const WSL4MIS: &str = ".h5";

/// What the name of the first channel of a case has behind the name of the case.
const FIRST_CHANNEL: &str = "_0000";

/// The images of every case in the order of their channels, by the name of the first without ending.
///
/// Refuses a case that lacks a channel between others.
fn channels(mut images: BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let cases: Vec<String> = images
        .keys()
        .filter_map(|stem| stem.strip_suffix(FIRST_CHANNEL))
        .map(String::from)
        .collect();
    let mut found = BTreeMap::new();
    for case in cases {
        // Ten thousand are more than four digits can number.
        let numbers = (0..10_000)
            .filter_map(|number| Some((number, images.remove(&format!("{case}_{number:04}"))?)));
        let (numbers, paths): (Vec<usize>, Vec<PathBuf>) = numbers.unzip();
        if let Some(missing) = (0..numbers.len()).find(|&index| numbers[index] != index) {
            return Err(Failure::new(format!(
                "case `{case}` has no channel `{case}_{missing:04}`, and a later one, `{}`",
                paths[missing].display()
            ))
            .hint("add the missing channel, or move the later ones away"));
        }
        found.insert(format!("{case}{FIRST_CHANNEL}"), paths);
    }
    found.extend(images.into_iter().map(|(stem, image)| (stem, vec![image])));
    Ok(found)
}

fn no_scribbles(
    stem: &str,
    image: &Path,
    left: &BTreeMap<String, PathBuf>,
    folder: &Path,
) -> Failure {
    // Labels in the format of their image are the likeliest.
    let ending = image.file_name().and_then(|name| name.to_str()).and_then(split_ending);
    let (likely, other) = match ending {
        Some((_, ending)) if label_endings().any(|end| end == ending) => (ending, ".nii.gz"),
        _ => (".nii.gz", ".nii"),
    };
    let other = if likely == other { ".nii" } else { other };
    let looked_for = names(stem).into_iter().flat_map(|name| {
        [likely, other]
            .map(|ending| format!("`{}`", folder.join(format!("{name}{ending}")).display()))
    });
    let failure = Failure::new(format!("image `{}` has no scribbles", image.display()))
        .hint(format!("looked for {}", looked_for.collect::<Vec<_>>().join(", ")));
    let there: Vec<String> = left.keys().take(3).map(|name| format!("`{name}`")).collect();
    if there.is_empty() {
        return failure.hint("move the image away if nobody drew on it");
    }
    failure
        .hint(format!("labels need the names of their images; without image are {}", list(&there)))
}

fn case(name: String, files: &Files, codings: &Codings, notes: &Notes) -> Result<Case> {
    let image = scan::read_grid(&files.images[0], notes)?;
    image.note_oddities(notes);
    let scribble = image.labels_at(&files.scribble, &codings.scribble, notes)?.values;
    let mut annotations = BTreeMap::from([(SCRIBBLE.to_owned(), scribble)]);
    if let Some(path) = &files.dense {
        let dense = image.labels_at(path, &codings.dense, notes).map_err(|failure| {
            failure.hint("`--dense-classes VALUE=NAME,…` says what values of dense labels mean where they differ from those of scribbles")
        })?;
        annotations.insert(DENSE.into(), dense.values);
    }
    Ok(Case {
        patient: files.patient.clone(),
        name,
        frame: 0,
        modality: String::new(),
        classes_annotated: Vec::new(),
        fold: 0,
        scan: scan::read_channels(&files.images, notes)?,
        annotations,
    })
}
