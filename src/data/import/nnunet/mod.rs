//! Raw folders of nnU-Net, `DatasetNNN_NAME`: cases of `imagesTr` with scribbles or dense labels, and those of `imagesTs`
//! to test with.
//!
//! Follows what `MIC-DKFZ/nnUNet` at 2.8 accepts. Knows neither organ nor modality.

mod channels;
mod description;
mod files;
mod json;
mod splits;

use super::case_table::{CaseTable, origins};
use super::own_data_folds::{Belonging, Belongings, Folding, divide};
use super::{Source, Steps, prepared};
use crate::data::{Case, DENSE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::scan::{self, Coding, IGNORE, Notes};
use crate::words::counted;
use description::Description;
use files::Files;
use splits::Splits;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Where a raw folder lies, and what is known beside it.
#[derive(Debug, Clone)]
pub struct RawFolder {
    /// The folder with `dataset.json`.
    pub folder: PathBuf,
    /// The file of folds; where nothing is said, the one that nnU-Net would use.
    pub splits: Option<PathBuf>,
    /// A table of cases: their patients, parts, folds and the classes that somebody looked for.
    pub cases: Option<PathBuf>,
    /// A regular expression whose first group in the name of a case is its patient.
    pub patients: Option<String>,
    /// How scans are prepared; intensities by the names of channels, as nnU-Net does, where nothing is said of them.
    pub steps: Steps,
}

/// One case with all that is known of it before it is read.
struct Entry {
    files: Files,
    patient: String,
    /// As [`Case::classes_annotated`].
    classes_annotated: Vec<u8>,
    /// The fold that holds it out; 0 for none.
    fold: u32,
    /// Whether no run is to learn from it: it is there to validate or to test with.
    is_scored_only: bool,
}

/// The cases by their names.
type Entries = BTreeMap<String, Entry>;

/// What is in the folder, and which fold no run learns from.
struct Divided {
    entries: Entries,
    test_fold: Option<u32>,
    /// Where the folds come from, in a sentence.
    words: String,
}

/// What label values mean.
#[derive(Clone)]
struct Codings {
    /// Nothing where no label is ignored.
    scribble: Option<Coding>,
    dense: Coding,
}

/// Finds the cases. Where some label is ignored, those of `labelsTr` are scribbles, and dense labels are those of
/// `labelsTr_dense`; otherwise they are dense themselves. Cases of `imagesTs` with labels in `labelsTs` are in a fold of
/// their own, after the others, which no run learns from. Folds are those of the file of folds; without one they are drawn
/// as for own data.
///
/// Images are read once more where intensities of all decide how they are scaled. Refuses what the parts of this module
/// refuse, labels that the description does not name, and patients in several folds.
pub fn open(raw: &RawFolder) -> Result<Source> {
    let notes = Notes::default();
    let description = Description::read(&raw.folder)?;
    let found = files::find(&raw.folder, &description, &notes)?;
    let codings = Codings::of(&description);
    let divided = divided(raw, &description, found, &codings, &notes)?;
    let Divided { entries, test_fold, words } = divided;
    let is_trained = |entry: &&Entry| !entry.files.is_test;
    let trained = || entries.iter().filter(|(_, entry)| is_trained(entry));
    let (mut steps, mut sentences) = (raw.steps.clone(), vec![words]);
    if steps.scaling.is_empty() {
        let shares = shares(&description, entries.values().filter(is_trained))?;
        let (scaling, said) = channels::scaling(&description, &shares);
        steps.scaling = scaling;
        sentences.extend(said);
    }
    let is_picture = entries.values().all(|entry| entry.files.images.len() == 1);
    let names = channels::names(&description, is_picture);
    let preparation = steps.preparation(names, || {
        trained().map(|(name, entry)| measured(name, entry, &codings, &notes))
    })?;
    let (case_count, noted, applied) = (entries.len(), notes.clone(), preparation.clone());
    let cases = entries.into_iter().map(move |(name, entry)| {
        prepared(case(&name, &entry, &codings, &noted)?, &applied, &entry.files.images[0], &noted)
    });
    Ok(Source {
        name: name_of(raw, &description),
        classes: description.classes,
        provenance: format!("A raw folder of nnU-Net.\n{}", sentences.join("\n")),
        preparation: Some(preparation),
        levels: Vec::new(),
        test_fold,
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

/// What the data set is called, or the folder without its number.
fn name_of(raw: &RawFolder, description: &Description) -> String {
    let folder = raw.folder.canonicalize().unwrap_or_else(|_| raw.folder.clone());
    let folder = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let short = folder.strip_prefix("Dataset").and_then(|rest| rest.split_once('_'));
    let short = short.map(|(_, name)| name.to_owned()).filter(|name| !name.is_empty());
    description.name.clone().or(short).unwrap_or(folder)
}

impl Codings {
    fn of(description: &Description) -> Self {
        let classes = &description.classes;
        let named = classes.iter().cloned().zip(0..);
        let dense = Coding::classes(classes.len()).or_named(named);
        let scribble = description.ignore.map(|ignore| dense.clone().or_unlabelled(ignore));
        Self { scribble, dense }
    }
}

/// The cases with patients, classes and folds. Refuses patients in several folds.
fn divided(
    raw: &RawFolder,
    description: &Description,
    found: BTreeMap<String, Files>,
    codings: &Codings,
    notes: &Notes,
) -> Result<Divided> {
    let table = raw.cases.as_deref();
    let table = table.map(|path| CaseTable::read(path, &description.classes)).transpose()?;
    let mut entries = entries(raw, found, table.as_ref(), notes)?;
    let file = raw.splits.clone().or_else(|| splits::beside(&raw.folder));
    let has_splits = file.is_some();
    let (mut test_fold, mut words) = match file {
        Some(path) => {
            let splits = Splits::read(&path)?;
            (None, take_splits(&mut entries, &splits, table.as_ref(), notes)?)
        }
        None => draw(&mut entries, codings, table.as_ref(), notes)?,
    };
    let count = entries.values().filter(|entry| entry.files.is_test).count();
    if count > 0 {
        let last = entries.values().map(|entry| entry.fold).max().unwrap_or_default();
        let fold = test_fold.unwrap_or(last + 1);
        for entry in entries.values_mut().filter(|entry| entry.files.is_test) {
            (entry.fold, entry.is_scored_only) = (fold, true);
        }
        test_fold = Some(fold);
        words = format!(
            "{words}\nFold {fold} is {} of `imagesTs`, which no run learns from.",
            counted(count, "case")
        );
    }
    refuse_torn(&entries, has_splits)?;
    Ok(Divided { entries, test_fold, words })
}

/// The cases with what their names and the table say of them.
fn entries(
    raw: &RawFolder,
    found: BTreeMap<String, Files>,
    table: Option<&CaseTable>,
    notes: &Notes,
) -> Result<Entries> {
    let mut origins = origins(found.keys(), raw.patients.as_deref(), table, notes)?;
    let entry = |(name, files): (String, Files)| {
        let (patient, classes_annotated) = origins.remove(&name).unwrap_or_default();
        let (fold, is_scored_only) = (0, false);
        (name, Entry { files, patient, classes_annotated, fold, is_scored_only })
    };
    Ok(found.into_iter().map(entry).collect())
}

/// Gives the cases to train on the folds of a file. Refuses a table that has folds, too.
fn take_splits(
    entries: &mut Entries,
    splits: &Splits,
    table: Option<&CaseTable>,
    notes: &Notes,
) -> Result<String> {
    if table.is_some_and(|table| table.has_folds() || table.has_parts()) {
        return Err(Failure::usage(format!(
            "the table of cases has a column `fold` or `part`, and {} has folds",
            splits.named()
        ))
        .hint("remove the column, or move the file away"));
    }
    let trained = entries.iter().filter(|(_, entry)| !entry.files.is_test);
    let allotted = splits.allot(&trained.map(|(name, _)| name).collect(), notes)?;
    for (name, said) in allotted {
        if let Some(entry) = entries.get_mut(&name) {
            (entry.fold, entry.is_scored_only) = (said.fold, said.is_scored_only);
        }
    }
    Ok(format!("Folds are those of {}, counted from 1.", splits.named()))
}

/// Draws the folds of the cases to train on, or takes those of the table; the fold of those that the table has to test
/// with, and how it came about.
fn draw(
    entries: &mut Entries,
    codings: &Codings,
    table: Option<&CaseTable>,
    notes: &Notes,
) -> Result<(Option<u32>, String)> {
    let trained = entries.iter().filter(|(_, entry)| !entry.files.is_test);
    let belonging = |(name, entry): (&String, &Entry)| {
        let has_dense = codings.scribble.is_none() || entry.files.dense.is_some();
        (name.clone(), Belonging { patient: entry.patient.clone(), has_dense })
    };
    let cases: Belongings = trained.map(belonging).collect();
    let seen = |name: &str| {
        let Some(entry) = entries.get(name) else { return Ok(BTreeSet::new()) };
        let (path, coding) = match (&entry.files.dense, &codings.scribble) {
            (Some(path), _) => (path, &codings.dense),
            (None, Some(coding)) => (&entry.files.labels, coding),
            (None, None) => (&entry.files.labels, &codings.dense),
        };
        let labels = scan::read_labels(path, coding, notes).map_err(where_labels_are_named)?;
        let mut classes = [false; 256];
        labels.values.iter().for_each(|&label| classes[usize::from(label)] = true);
        Ok((1..IGNORE).filter(|&class| classes[usize::from(class)]).collect())
    };
    let folds = divide(&cases, &Folding::default(), table, seen, notes)?;
    for (name, entry) in entries.iter_mut().filter(|(_, entry)| !entry.files.is_test) {
        entry.fold = folds.of(name);
        entry.is_scored_only = folds.is_test(name);
    }
    Ok((folds.test_fold, folds.words.clone()))
}

/// Refuses cases of one patient of which a fold holds out some and not all.
fn refuse_torn(entries: &Entries, has_splits: bool) -> Result<()> {
    let mut first = BTreeMap::<&String, (&String, u32)>::new();
    for (name, entry) in entries {
        let (other, fold) = *first.entry(&entry.patient).or_insert((name, entry.fold));
        if fold != entry.fold {
            let place = |fold: u32, files: &Files| match fold {
                _ if files.is_test => "to test with".to_owned(),
                0 => "in no fold".to_owned(),
                fold => format!("in fold {fold}"),
            };
            let said = place(fold, &entries[other].files);
            let failure = Failure::new(format!(
                "case `{name}` is {}, and `{other}` of the same patient `{}` is {said}",
                place(entry.fold, &entry.files),
                entry.patient
            ));
            return Err(failure.hint(if has_splits {
                "scores of such folds come out too good: mend the folds, or leave the patients out to take them as they are"
            } else {
                "all cases of a patient are for the same"
            }));
        }
    }
    Ok(())
}

/// Of each scan the share that is not cropped away, where that decides how intensities are scaled.
fn shares<'a>(
    description: &Description,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<Vec<f64>> {
    if !channels::needs_shares(description) {
        return Ok(Vec::new());
    }
    let share = |entry: &Entry| {
        let scan = scan::read_channels(&entry.files.images, &Notes::default())?;
        Ok(channels::kept_share(&scan))
    };
    entries.map(share).collect()
}

fn where_labels_are_named(failure: Failure) -> Failure {
    failure.hint("`labels` in `dataset.json` says which values labels have")
}

/// A case as its files hold it.
fn case(name: &str, entry: &Entry, codings: &Codings, notes: &Notes) -> Result<Case> {
    let Files { images, labels, dense, is_test } = &entry.files;
    let image = scan::read_grid(&images[0], notes)?;
    image.note_oddities(notes);
    let coding = codings.scribble.as_ref().filter(|_| !is_test);
    let kind = if coding.is_some() { SCRIBBLE } else { DENSE };
    let coding = coding.unwrap_or(&codings.dense);
    let read = image.labels_at(labels, coding, notes).map_err(where_labels_are_named)?;
    let is_whole = !read.values.contains(&IGNORE);
    let mut annotations = BTreeMap::from([(kind.to_owned(), read.values)]);
    if let Some(path) = dense {
        let dense =
            image.labels_at(path, &codings.dense, notes).map_err(where_labels_are_named)?.values;
        annotations.insert(DENSE.to_owned(), dense);
    }
    if entry.is_scored_only {
        let scribble = annotations.remove(SCRIBBLE);
        if let Some(scribble) = scribble.filter(|_| is_whole) {
            annotations.entry(DENSE.to_owned()).or_insert(scribble);
        }
        if annotations.is_empty() {
            return Err(Failure::new(format!(
                "case `{name}` is only scored, and `{}` ignores voxels of it",
                labels.display()
            ))
            .hint("dense labels of it belong into `labelsTr_dense`"));
        }
    }
    Ok(Case {
        name: name.to_owned(),
        patient: entry.patient.clone(),
        frame: 0,
        fold: entry.fold,
        modality: String::new(),
        classes_annotated: entry.classes_annotated.clone(),
        scan: scan::read_channels(images, notes)?,
        annotations,
    })
}

/// The same to measure intensities by: where nothing is drawn, dense labels say what is foreground.
fn measured(name: &str, entry: &Entry, codings: &Codings, notes: &Notes) -> Result<Case> {
    let mut case = case(name, entry, codings, notes)?;
    if let Some(labels) = case.annotations.remove(DENSE) {
        case.annotations.entry(SCRIBBLE.to_owned()).or_insert(labels);
    }
    Ok(case)
}
