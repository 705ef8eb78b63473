//! BraTS (brain tumours) in four modalities with simulated scribbles, as published for DMSPS: whole volumes, two
//! structures.
//!
//! Data: Menze et al., TMI 2015; Bakas et al., Scientific Data 2017. Crop, intensities and classes follow the
//! preparation of BraTS 2020 of `HiLab-git/DMSPS` at 89fe065, whose split by a shuffle without seed is not known.

use super::brats_files::{self, FLAIR, Files, Modality, T1, T1CE, T2, Wanted, wrong_shares};
use super::{Source, prepared};
use crate::data::simulated::Simulation;
use crate::data::{Case, DENSE};
use crate::error::{Failure, Result};
use crate::preparation::{Channel, Crop, Intensities, Preparation};
use crate::random::Key;
use crate::scan::{self, Coding, Notes};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What to pack.
#[derive(Debug, Clone)]
pub struct Volumes {
    /// The folder that holds the four volumes of every case with its `*_seg.nii.gz`, however deep.
    pub folder: PathBuf,
    /// The shares of the patients to validate and to test with; the others are trained on.
    pub held_out_shares: [f64; 2],
    /// How cases to train on are annotated; its seed is that of the split, too.
    pub simulation: Simulation,
}

/// The channels, in their order.
const MODALITIES: [Modality; 4] = [T1, T1CE, T2, FLAIR];

/// What is read of the folder.
const WANTED: Wanted = Wanted {
    modalities: &MODALITIES,
    layout: "`--from` takes the folder of the challenge's training set, in which, at any depth, \
             `CASE_t1.nii.gz`, `CASE_t1ce.nii.gz`, `CASE_t2.nii.gz`, `CASE_flair.nii.gz` and \
             `CASE_seg.nii.gz` lie side by side",
};

/// The names of the classes by label value.
const CLASSES: [&str; 3] = ["background", "tumour core", "oedema"];

/// Finds the cases and splits their patients by the seed: those to validate with are fold 1, those to test with
/// fold 2.
///
/// Every case has dense labels, of 0 background, 1 tumour core, necrotic or enhancing, and 2 oedema, and those to
/// train on scribbles drawn from them. Scans keep their grid within [`Crop::NonzeroButLast`].
pub fn open(volumes: &Volumes) -> Result<Source> {
    if let Some(wrong) = wrong_shares(volumes.held_out_shares) {
        return Err(Failure::usage(wrong)
            .hint("`scrimp prepare brats-scribbles --help` says what is assumed otherwise"));
    }
    let notes = Notes::default();
    let found = WANTED.find(&volumes.folder, &notes)?;
    let key = Key::new(volumes.simulation.seed).purpose("brats scribbles");
    let split = brats_files::split(&found, volumes.held_out_shares, key)?;
    let preparation = preparation();
    let provenance = provenance(&split, volumes.simulation);
    let (case_count, noted, applied) = (found.len(), notes.clone(), preparation.clone());
    let simulation = volumes.simulation;
    let cases = found.into_iter().map(move |files| {
        let fold = split.get(&files.patient).copied().unwrap_or(0);
        let case = Case { fold, ..case(&files, &noted)? };
        let case = prepared(case, &applied, &files.images[0], &noted)?;
        Ok(if fold == 0 { simulation.annotated(case, CLASSES.len()) } else { case })
    });
    Ok(Source {
        name: "brats-scribbles".into(),
        classes: CLASSES.map(String::from).to_vec(),
        provenance,
        preparation: Some(preparation),
        levels: Vec::new(),
        test_fold: Some(2),
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

/// What is done to the scans.
fn preparation() -> Preparation {
    let channel = |modality: Modality| Channel {
        name: modality.name.to_lowercase(),
        intensities: Intensities::PublishedBrats,
    };
    Preparation {
        crop: Crop::NonzeroButLast,
        channels: MODALITIES.map(channel).to_vec(),
        ..Preparation::grey(Intensities::PublishedBrats)
    }
}

fn provenance(split: &BTreeMap<String, u32>, simulation: Simulation) -> String {
    let count = |fold: u32| split.values().filter(|&&other| other == fold).count();
    format!(
        "BraTS in four modalities (Menze et al., TMI 2015; Bakas et al., Scientific Data 2017), patients split by \
         seed {}: {} to train on, {} to validate (fold 1), {} to test (fold 2).\n\
         Labels 1 necrosis and 4 (or 3) enhancing tumour are tumour core, 2 is oedema.\n{}",
        simulation.seed,
        count(0),
        count(1),
        count(2),
        simulation.describe()
    )
}

/// A case as its files hold it.
fn case(files: &Files, notes: &Notes) -> Result<Case> {
    let image = scan::read_grid(&files.images[0], notes)?;
    image.note_oddities(notes);
    let dense = image.labels_at(&files.segmentation, &coding(), notes)?.values;
    Ok(Case {
        name: files.name.clone(),
        patient: files.patient.clone(),
        frame: 0,
        fold: 0,
        modality: String::new(),
        classes_annotated: Vec::new(),
        scan: scan::read_channels(&files.images, notes)?,
        annotations: BTreeMap::from([(DENSE.to_owned(), dense)]),
    })
}

/// What segmentations say: necrosis and enhancing tumour, 4 until 2021 and 3 since 2023, are one class.
fn coding() -> Coding {
    Coding::new([(0, 0), (1, 1), (2, 2), (3, 1), (4, 1)], "0 to 4".into())
}
