//! Anybody's own data: folders of images, scribbles and dense labels with equal file names, in any format.
//!
//! Knows neither organ nor modality; which files belong together, whose they are and which fold holds them out is what
//! the files beside this one say.

use super::case_table::{CaseTable, origins};
use super::classes::Classes;
use super::own_data_files::{self as files, Files, Places};
use super::own_data_folds::{Belonging, Belongings, Folding, Folds, divide};
use super::{Source, Steps, prepared};
use crate::data::{Case, DENSE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::scan::{self, Coding, FileGrid, IGNORE, Notes};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where the files of a data set lie and what their labels mean.
#[derive(Debug, Clone)]
pub struct Folders {
    /// One file per case, in any format that is read, or one for each channel: `NAME_0000`, `NAME_0001` and so on.
    pub images: PathBuf,
    /// What the channels show, in their order; where nobody says it, as many channels as the first case has.
    pub modalities: Option<Vec<String>>,
    /// Scribbles with the names of the images, where somebody drew them.
    pub scribbles: Option<ScribbleFolder>,
    /// Dense labels with the names of the images, where somebody made them.
    pub dense: Option<PathBuf>,
    /// Names of the classes by label value, the background first, or `VALUE=NAME` or `VALUE+VALUE=NAME` for each.
    pub classes: Vec<String>,
    /// The same classes by the values of dense labels, where those are others.
    pub dense_classes: Option<Vec<String>>,
    /// A table of cases: their patients, parts, folds and the classes that somebody looked for.
    pub cases: Option<PathBuf>,
    /// A regular expression whose first group in the name of a case is its patient.
    pub patients: Option<String>,
    /// How cases are divided where the table does not say it.
    pub folding: Folding,
    /// Whether labels that do not lie on the voxels of their image are carried onto these.
    pub regrid: bool,
    /// How scans are prepared.
    pub steps: Steps,
}

/// A folder of scribbles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScribbleFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Label value of pixels that nobody annotated.
    pub unlabelled: i64,
}

impl Folders {
    /// Images of these classes, without any labels yet, in five folds.
    pub fn new(images: PathBuf, classes: Vec<String>) -> Self {
        Self {
            images,
            modalities: None,
            scribbles: None,
            dense: None,
            classes,
            dense_classes: None,
            cases: None,
            patients: None,
            folding: Folding::default(),
            regrid: false,
            steps: Steps::default(),
        }
    }
}

/// One case with all that is known of it before it is read.
struct Entry {
    files: Files,
    patient: String,
    /// Numbers of the classes that somebody looked for; none for all.
    classes_annotated: Vec<u8>,
}

/// How labels are read.
#[derive(Clone)]
struct Reading {
    names: Vec<String>,
    /// What label values mean; nothing where there are no scribbles.
    scribble: Option<Coding>,
    dense: Coding,
    regrid: bool,
    notes: Notes,
}

/// Finds the cases and divides them. Where intensities are to be scaled by the annotated foreground of all, each is read
/// twice, and so are labels where folds are drawn by the classes in them. Cases to test with are in a fold of their own,
/// after the others, and keep their dense labels alone.
///
/// Refuses cases that lack a channel, images without labels, labels without image, other data in the folders, labels that
/// do not lie on their image unless they are to be carried there, a class in the labels of a case for which nobody looked,
/// and a table of other cases; notes whatever else is passed over.
pub fn open(folders: &Folders) -> Result<Source> {
    let notes = Notes::default();
    let reading = Reading::of(folders, &notes)?;
    let table = folders.cases.as_deref();
    let table = table.map(|path| CaseTable::read(path, &reading.names)).transpose()?;
    let found = entries(folders, table.as_ref(), &notes)?;
    let channels = channel_names(folders.modalities.as_deref(), &found)?;
    let folds = folds(&found, folders, table.as_ref(), &reading)?;
    let trained = || found.iter().filter(|(name, _)| !folds.is_test(name));
    let preparation = folders
        .steps
        .preparation(channels, || trained().map(|(name, entry)| reading.measured(name, entry)))?;
    note_scribbles(&found, &folds, &notes);
    let (case_count, applied, noted) = (found.len(), preparation.clone(), notes.clone());
    let (classes, test_fold) = (reading.names.clone(), folds.test_fold);
    let provenance = format!("Own data.\n{}", folds.words);
    let cases = found.into_iter().map(move |(name, entry)| {
        let fold = folds.of(&name);
        let mut case = reading.case(&name, &entry)?;
        if folds.is_test(&name) {
            case.annotations.retain(|kind, _| kind == DENSE);
        }
        prepared(Case { fold, ..case }, &applied, &entry.files.images[0], &noted)
    });
    Ok(Source {
        name: "own-data".into(),
        classes,
        preparation: Some(preparation),
        provenance,
        levels: Vec::new(),
        test_fold,
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

/// The cases by their names, with what names and the table say of them. Refuses patients that are named in two ways.
fn entries(
    folders: &Folders,
    table: Option<&CaseTable>,
    notes: &Notes,
) -> Result<BTreeMap<String, Entry>> {
    let places = Places {
        images: &folders.images,
        scribbles: folders.scribbles.as_ref().map(|scribbles| &*scribbles.path),
        dense: folders.dense.as_deref(),
    };
    let found = files::find(&places, notes)?;
    let mut origins = origins(found.keys(), folders.patients.as_deref(), table, notes)?;
    let entry = |(name, files): (String, Files)| {
        let (patient, classes_annotated) = origins.remove(&name).unwrap_or_default();
        (name, Entry { files, patient, classes_annotated })
    };
    Ok(found.into_iter().map(entry).collect())
}

/// Which fold holds each case out.
fn folds(
    found: &BTreeMap<String, Entry>,
    folders: &Folders,
    table: Option<&CaseTable>,
    reading: &Reading,
) -> Result<Folds> {
    let belonging = |(name, entry): (&String, &Entry)| {
        let has_dense = entry.files.dense.is_some();
        (name.clone(), Belonging { patient: entry.patient.clone(), has_dense })
    };
    let cases: Belongings = found.iter().map(belonging).collect();
    let classes = |name: &str| found.get(name).map_or(Ok(BTreeSet::new()), |e| reading.seen(e));
    divide(&cases, &folders.folding, table, classes, &reading.notes)
}

/// Notes scribbles that nothing may learn from, and their absence where others have some.
fn note_scribbles(found: &BTreeMap<String, Entry>, folds: &Folds, notes: &Notes) {
    let is_drawn = found.values().any(|entry| entry.files.scribble.is_some());
    for (name, entry) in found {
        let sentence = match (folds.is_test(name), entry.files.scribble.is_some()) {
            (true, true) => {
                "scribbles of cases to test with are left out, so that nothing learns from them"
            }
            (false, false) if is_drawn => {
                "without scribbles, so that only runs on dense labels learn from it"
            }
            _ => continue,
        };
        notes.add(sentence, format!("`{name}`"));
    }
}

/// The names of the channels: `modalities`, or their numbers or colours. Refuses cases with other channels than these or
/// than the first case has.
fn channel_names(
    modalities: Option<&[String]>,
    found: &BTreeMap<String, Entry>,
) -> Result<Vec<String>> {
    let Some((first, entry)) = found.first_key_value() else { return Ok(Vec::new()) };
    let images = &entry.files.images;
    let count = modalities.map_or(images.len(), <[String]>::len);
    if let Some((name, entry)) = found.iter().find(|(_, entry)| entry.files.images.len() != count) {
        let expected = match modalities {
            Some(names) => format!("{count} as `--modalities {}` names", names.join(",")),
            None => format!("{count} as `{first}` has"),
        };
        return Err(Failure::new(format!(
            "case `{name}` has {} channels, expected {expected}",
            entry.files.images.len()
        ))
        .hint("channels of a case are `NAME_0000.nii.gz`, `NAME_0001.nii.gz` and so on"));
    }
    if let Some(names) = modalities {
        return Ok(names.to_vec());
    }
    // Colours and the like lie in one file.
    let count = match &images[..] {
        [image] => scan::read(image, &Notes::default())?.channels,
        images => images.len(),
    };
    Ok(match count {
        1 => vec!["image".to_owned()],
        3 if images.len() == 1 => ["red", "green", "blue"].map(String::from).to_vec(),
        count => (0..count).map(|number| format!("{number:04}")).collect(),
    })
}

impl Reading {
    fn of(folders: &Folders, notes: &Notes) -> Result<Self> {
        let classes = Classes::parse(&folders.classes, "--classes")?;
        let names = classes.names();
        let dense = match &folders.dense_classes {
            Some(words) => Classes::parse(words, "--dense-classes")?
                .in_order_of(&names, "--dense-classes")?
                .coding(),
            None => classes.coding(),
        };
        let scribbles = folders.scribbles.as_ref();
        let scribble = scribbles.map(|folder| classes.coding_or(folder.unlabelled)).transpose()?;
        Ok(Self { names, scribble, dense, regrid: folders.regrid, notes: notes.clone() })
    }

    /// The classes but the background that occur in a case, by its dense labels where it has them.
    fn seen(&self, entry: &Entry) -> Result<BTreeSet<u8>> {
        let labels = match (&entry.files.dense, &entry.files.scribble, &self.scribble) {
            (Some(path), ..) => {
                scan::read_labels(path, &self.dense, &self.notes).map_err(other_values)?
            }
            (None, Some(path), Some(coding)) => scan::read_labels(path, coding, &self.notes)?,
            (None, ..) => return Ok(BTreeSet::new()),
        };
        Ok(shown(&labels.values))
    }

    /// A case as its files hold it.
    fn case(&self, name: &str, entry: &Entry) -> Result<Case> {
        let files = &entry.files;
        let image = scan::read_grid(&files.images[0], &self.notes)?;
        image.note_oddities(&self.notes);
        let mut annotations = BTreeMap::new();
        if let (Some(path), Some(coding)) = (&files.scribble, &self.scribble) {
            annotations.insert(SCRIBBLE.to_owned(), self.labels(&image, path, coding)?);
        }
        if let Some(path) = &files.dense {
            let dense = self.labels(&image, path, &self.dense).map_err(|failure| {
                if lies_elsewhere(&image, path) { failure } else { other_values(failure) }
            })?;
            annotations.insert(DENSE.into(), dense);
        }
        for (kind, labels) in &annotations {
            self.refuse_unsought(name, entry, (kind, labels))?;
        }
        Ok(Case {
            patient: entry.patient.clone(),
            name: name.to_owned(),
            frame: 0,
            modality: String::new(),
            fold: 0,
            classes_annotated: entry.classes_annotated.clone(),
            scan: scan::read_channels(&files.images, &self.notes)?,
            annotations,
        })
    }

    /// The same to measure intensities by: where there are no scribbles, dense labels say what is foreground.
    fn measured(&self, name: &str, entry: &Entry) -> Result<Case> {
        let mut case = self.case(name, entry)?;
        if self.scribble.is_none()
            && let Some(labels) = case.annotations.remove(DENSE)
        {
            case.annotations.insert(SCRIBBLE.to_owned(), labels);
        }
        Ok(case)
    }

    /// The labels of a file, voxel by voxel of `image`.
    fn labels(&self, image: &FileGrid, path: &Path, coding: &Coding) -> Result<Vec<u8>> {
        if self.regrid {
            return Ok(image.labels_carried(path, coding, &self.notes)?.values);
        }
        let labels = image.labels_at(path, coding, &self.notes).map_err(|failure| {
            if !image.can_be_carried(path) {
                return failure;
            }
            failure.hint("if both headers are true, `--regrid` carries labels to the voxels of the image on which they lie")
        })?;
        Ok(labels.values)
    }

    /// Refuses labels of a class for which nobody has looked in a case.
    fn refuse_unsought(
        &self,
        name: &str,
        entry: &Entry,
        (kind, labels): (&str, &[u8]),
    ) -> Result<()> {
        let sought = &entry.classes_annotated;
        if sought.is_empty() {
            return Ok(());
        }
        let Some(class) = shown(labels).into_iter().find(|class| !sought.contains(class)) else {
            return Ok(());
        };
        let class = self.names.get(usize::from(class)).map_or("?", String::as_str);
        Err(Failure::usage(format!(
            "`{kind}` of case `{name}` shows `{class}`, which is not among its `classes` in the table of cases"
        ))
        .hint("add the class there, or remove it from the labels"))
    }
}

/// The classes but the background that occur in labels.
fn shown(labels: &[u8]) -> BTreeSet<u8> {
    let mut is_shown = [false; 256];
    for label in labels {
        is_shown[usize::from(*label)] = true;
    }
    (1..IGNORE).filter(|label| is_shown[usize::from(*label)]).collect()
}

/// Whether labels are not where their image is, whatever their values are.
fn lies_elsewhere(image: &FileGrid, path: &Path) -> bool {
    scan::read_grid(path, &Notes::default()).is_ok_and(|labels| !image.lies_under(&labels))
}

fn other_values(failure: Failure) -> Failure {
    failure.hint("`--dense-classes VALUE=NAME,…` says what values of dense labels mean where they differ from those of scribbles")
}
