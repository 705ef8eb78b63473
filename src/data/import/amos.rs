//! AMOS (abdominal organs in CT and MR): the folders of the challenge, or those of `med-air/CMC`.
//!
//! Data: Ji et al., 2022. Preparation after Zhou et al., MICCAI 2024 (`med-air/CMC` at cb8dd116): axes to the
//! right, the front and the head, 1.5 x 1.5 x 2 mm by straight lines, a window of CT and z-scores of MR, cropped to
//! what is not air. Other than there intensities are scaled before voxels are resampled.

use super::folder::{self, Listing};
use super::labelled_share::{check_share, labelled};
use super::{Source, prepared};
use crate::data::{Case, DENSE};
use crate::error::{Failure, Result};
use crate::preparation::{
    Channel, Crop, Intensities, Interpolation, Orientation, Over, Preparation, Spacing,
};
use crate::random::Key;
use crate::scan::{self, Coding, Notes, list};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What to pack.
#[derive(Debug, Clone)]
pub struct Package {
    /// The folder that holds `imagesTr` or `train_data`.
    pub folder: PathBuf,
    /// The share of the training cases of each modality that keep their labels, above 0 and up to 1.
    pub labelled_share: f64,
    /// Equal seeds label equal cases.
    pub seed: u64,
}

/// The files of one case.
struct Files {
    patient: String,
    modality: &'static str,
    image: PathBuf,
    labels: Option<PathBuf>,
    fold: u32,
}

/// Images, their labels and the fold that they are held out in, relative to the folder of the data set.
type Part = (&'static str, &'static str, u32);

/// The folders of the challenge, and those of the code of CMC.
const PARTS: [[Part; 2]; 2] = [
    [("imagesTr", "labelsTr", 0), ("imagesVal", "labelsVal", 1)],
    [("train_data/images", "train_data/masks", 0), ("val_data/images", "val_data/masks", 1)],
];

/// Images to test with, of the challenge and of the code of CMC.
const TEST_IMAGES: [&str; 2] = ["imagesTs", "test_data/images"];

/// Where these folders lie when archives are unpacked.
const ROOTS: [&str; 3] = ["", "amos22", "mm_amos"];

/// What `--from` must hold.
const LAYOUT: &str = "`--from` takes the folder of the challenge, with `imagesTr`, `labelsTr`, `imagesVal` and \
                      `labelsVal`, or one with `train_data` and `val_data`, in each `images` and `masks`";

/// The largest number of a patient whose scan is a CT; those of MR begin behind it.
const LAST_CT: u32 = 500;

const CT: &str = "ct";
const MR: &str = "mr";

/// The classes by label value. Bladder and prostate, 14 and 15, are background.
const CLASSES: [&str; 14] = [
    "background",
    "spleen",
    "right kidney",
    "left kidney",
    "gall bladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "vena cava",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
    "duodenum",
];

/// Labels of files that are dropped.
const DROPPED: [i64; 2] = [14, 15];

/// Finds the cases. Those to train on are in no fold, those to validate with in fold 1. Of the first a share of each
/// modality keeps its labels; what the others show is not packed.
///
/// What a scan was taken with its name says, `amos_0001_CT` or `amos_0507_MRI`, else its number: up to 500 it is CT,
/// beyond MR. Refuses names of other kinds, cases to validate with without labels, and labels without an image.
pub fn open(package: &Package) -> Result<Source> {
    check_share(package.labelled_share)?;
    let notes = Notes::default();
    let mut found = find(&package.folder, &notes)?;
    for modality in [CT, MR] {
        let key = Key::new(package.seed).purpose("amos").purpose(modality);
        let mut own: Vec<&mut Files> = found
            .values_mut()
            .filter(|files| files.modality == modality && files.fold == 0 && files.labels.is_some())
            .collect();
        let keeps = labelled(key, own.len(), package.labelled_share);
        for (files, _) in own.iter_mut().zip(keeps).filter(|(_, keeps)| !keeps) {
            files.labels = None;
        }
    }
    let preparation = preparation();
    let (case_count, noted, done) = (found.len(), notes.clone(), preparation.clone());
    let provenance = provenance(&found, package);
    let cases = found.into_iter().map(move |(name, files)| {
        let case = case(name, &files, &noted)?;
        prepared(case, &done.of_modality(Some(files.modality))?, &files.image, &noted)
    });
    Ok(Source {
        name: "amos".into(),
        classes: CLASSES.map(String::from).to_vec(),
        provenance,
        preparation: Some(preparation),
        levels: Vec::new(),
        test_fold: None,
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

fn provenance(found: &BTreeMap<String, Files>, package: &Package) -> String {
    let count = |modality: &str, fold: u32| {
        let own = found.values().filter(|files| files.modality == modality && files.fold == fold);
        let labelled = own.clone().filter(|files| files.labels.is_some()).count();
        (own.count(), labelled)
    };
    let of = |modality: &str, name: &str| {
        let ((train, labelled), (validation, _)) = (count(modality, 0), count(modality, 1));
        format!("{train} {name} to train on, {labelled} of them labelled, {validation} to validate")
    };
    format!(
        "AMOS (Ji et al., NeurIPS 2022): {}; {}; seed {}.\nLabels 14 and 15 (bladder, prostate) are background.",
        of(CT, "CT"),
        of(MR, "MR"),
        package.seed
    )
}

/// What is done to the scans.
fn preparation() -> Preparation {
    let of = |name: &str, intensities| {
        (name.to_owned(), vec![Channel { name: name.to_owned(), intensities }])
    };
    Preparation {
        orientation: Orientation::Ras,
        crop: Crop::Foreground,
        interpolation: Interpolation::Linear,
        spacing: Spacing::Volume([2.0, 1.5, 1.5]),
        channels: Vec::new(),
        modalities: BTreeMap::from([
            of(CT, Intensities::Window { low: -175.0, high: 250.0 }),
            of(MR, Intensities::ZScore { over: Over::Nonzero }),
        ]),
    }
}

/// The files of every case by its name.
fn find(folder: &Path, notes: &Notes) -> Result<BTreeMap<String, Files>> {
    let places = ROOTS.iter().flat_map(|root| PARTS.map(|parts| (folder.join(root), parts)));
    let found = places.into_iter().find(|(root, parts)| root.join(parts[0].0).is_dir());
    let Some((root, parts)) = found else {
        let message = format!("`{}` holds no folders of AMOS", folder.display());
        return Err(Failure::new(message).hint(LAYOUT));
    };
    for images in TEST_IMAGES.map(|name| root.join(name)).iter().filter(|images| images.is_dir()) {
        for image in folder::untaken(images) {
            let why = "it is of a part that is neither trained on nor validated with";
            notes.leave_out(why, format!("`{}`", image.display()));
        }
    }
    let mut cases: BTreeMap<String, Files> = BTreeMap::new();
    for (images, labels, fold) in parts {
        if fold > 0 && !root.join(images).is_dir() {
            notes.add("not there, so that nothing is held out", format!("`{images}`"));
            continue;
        }
        for (name, files) in part(&root.join(images), &root.join(labels), fold, notes)? {
            if let Some(other) = cases.get(&name) {
                return Err(folder::same_name(&other.image, &files.image));
            }
            cases.insert(name, files);
        }
    }
    Ok(cases)
}

/// The cases of two folders.
fn part(images: &Path, labels: &Path, fold: u32, notes: &Notes) -> Result<BTreeMap<String, Files>> {
    let look = |folder: &Path| -> Result<Listing> {
        let listing = folder::list(folder).map_err(|failure| failure.hint(LAYOUT))?;
        listing.note_others(notes).map(|()| listing)
    };
    let mut labels = look(labels)?.files;
    let mut found = BTreeMap::new();
    for (name, image) in look(images)?.files {
        let (patient, modality) = taken_with(&name, &image)?;
        let names = [name.clone(), format!("{name}_gt"), format!("{patient}_gt")];
        let own = names.iter().find_map(|name| labels.remove(name));
        if own.is_none() && fold > 0 {
            let names: BTreeSet<&String> = names.iter().collect();
            let looked_for: Vec<String> =
                names.into_iter().map(|name| format!("`{name}.nii.gz`")).collect();
            let message = format!("`{}` has no labels to validate with", image.display());
            return Err(Failure::new(message)
                .hint(format!("looked for {}", list(&looked_for)))
                .hint("move the image away to validate with the others"));
        }
        if own.is_none() {
            notes.add("without labels, so that it is looked at alone", format!("`{name}`"));
        }
        found.insert(name, Files { patient, modality, image, labels: own, fold });
    }
    match labels.values().next() {
        None => Ok(found),
        Some(path) => Err(Failure::new(format!("labels `{}` have no image", path.display()))
            .hint(format!("put the image into `{}`, or move them away", images.display()))),
    }
}

/// The patient of a scan, and what it was taken with.
fn taken_with(name: &str, image: &Path) -> Result<(String, &'static str)> {
    let (patient, ending) = match name.strip_prefix("amos_").and_then(|rest| rest.split_once('_')) {
        Some((number, ending)) => (format!("amos_{number}"), Some(ending)),
        None => (name.to_owned(), None),
    };
    let number = patient.strip_prefix("amos_").and_then(|number| number.parse::<u32>().ok());
    let modality = number.and_then(|number| match ending {
        Some("CT") => Some(CT),
        Some("MRI" | "MR") => Some(MR),
        Some(_) => None,
        None if number <= LAST_CT => Some(CT),
        None => Some(MR),
    });
    let modality = modality.ok_or_else(|| {
        Failure::new(format!("`{}` has no name of AMOS", image.display())).hint(
            "expected `amos_0001` with a number up to 500 for CT and a larger one for MR, or `amos_0001_CT` and \
             `amos_0507_MRI`",
        )
    })?;
    Ok((patient, modality))
}

fn case(name: String, files: &Files, notes: &Notes) -> Result<Case> {
    let image = scan::read_grid(&files.image, notes)?;
    image.note_oddities(notes);
    let mut annotations = BTreeMap::new();
    if let Some(path) = &files.labels {
        annotations.insert(DENSE.to_owned(), image.labels_at(path, &coding(), notes)?.values);
    }
    Ok(Case {
        patient: files.patient.clone(),
        name,
        frame: 0,
        fold: files.fold,
        modality: files.modality.to_owned(),
        classes_annotated: Vec::new(),
        scan: scan::read_channels(std::slice::from_ref(&files.image), notes)?,
        annotations,
    })
}

/// What values of labels mean.
fn coding() -> Coding {
    let classes = (0..).zip(0..CLASSES.len() as u8);
    let dropped = DROPPED.map(|value| (value, 0));
    Coding::new(classes.chain(dropped), "0 to 13 of 14 classes, 14 and 15 (dropped)".to_owned())
}
