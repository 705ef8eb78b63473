//! `scrimp doctor data`: where an image lies, whether labels lie on it, and what labels hold, before anything is packed.
//!
//! What is packed already is reported on as `scrimp prepare check` does.

use crate::cli;
use crate::data::store;
use crate::doctor::report::{Finding, Row, State, few, table};
use crate::error::{Context, Failure, Result};
use crate::scan::{self, FileGrid, Notes, Numbers, Placement, Relation, split_ending};
use crate::words::counted;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The form of what is said as JSON; another form gets another number.
const SCHEMA: &str = "scrimp doctor data 1";
/// How many values of labels are told.
const VALUES: usize = 12;

/// What is said of files.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    schema: &'static str,
    /// Whether all of them can be packed as they are.
    pub(super) is_usable: bool,
    images: Vec<ImageTold>,
    /// Images of a folder without labels.
    without_labels: Vec<String>,
    /// Labels of a folder without image.
    without_image: Vec<String>,
    /// What predicting takes in memory, in words.
    prediction: Option<String>,
}

/// What is said of an image.
#[derive(Debug, Serialize)]
struct ImageTold {
    image: String,
    /// Why it cannot be read.
    failure: Option<Problem>,
    grid: Option<GridTold>,
    /// What is odd about it.
    notes: Vec<String>,
    labels: Option<LabelsTold>,
}

#[derive(Debug, Serialize)]
struct Problem {
    sentence: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct GridTold {
    /// Slices, rows, columns.
    shape: [usize; 3],
    spacing_mm: Option<[f64; 3]>,
    /// Where slices, rows and columns run.
    course: Option<[&'static str; 3]>,
}

#[derive(Debug, Serialize)]
struct LabelsTold {
    file: String,
    is_usable: bool,
    sentence: String,
    hint: Option<String>,
    /// Voxels by value, of many values the most frequent.
    values: Vec<ValueTold>,
    voxels: usize,
}

#[derive(Debug, Serialize)]
struct ValueTold {
    value: f64,
    name: Option<String>,
    voxels: usize,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self { sentence: failure.sentence(), hint: failure.hints().first().cloned() }
    }
}

/// How a file is checked that is a packed data set; nothing where it is none.
pub(super) fn pack(arguments: &cli::DoctorData) -> Result<Option<cli::CheckPacked>> {
    let cli::DoctorData { images, labels, run, json } = arguments;
    if !images.is_file() || !store::is_packed(images).unwrap_or(false) {
        return Ok(None);
    }
    if labels.is_some() || run.is_some() {
        let message =
            format!("`{}` is a packed data set, which holds its labels", images.display());
        return Err(Failure::usage(message).hint("name it alone, or name an image"));
    }
    let (file, json) = (images.clone(), *json);
    Ok(Some(cli::CheckPacked { file, fold: None, annotation: None, json }))
}

/// What is to be said of images and labels.
pub(super) fn look(arguments: &cli::DoctorData) -> Result<Told> {
    let cli::DoctorData { images, labels, run, .. } = arguments;
    let prediction = run.as_ref().map(|run| prediction(run, images)).transpose()?;
    let Paired { pairs, without_labels, without_image } = paired(images, labels.as_deref())?;
    let images: Vec<ImageTold> =
        pairs.iter().map(|(image, labels)| ImageTold::of(image, labels.as_deref())).collect();
    let is_usable = images.iter().all(ImageTold::is_usable);
    Ok(Told { schema: SCHEMA, is_usable, images, without_labels, without_image, prediction })
}

#[cfg(feature = "torch")]
fn prediction(run: &Path, images: &Path) -> Result<String> {
    crate::commands::predict::memory_bound(run, images)
}

#[cfg(not(feature = "torch"))]
fn prediction(_run: &Path, _images: &Path) -> Result<String> {
    Err(Failure::usage(
        "this build has no networks to predict with: it was built without the feature `torch`",
    )
    .hint("build it with `cargo build --release`"))
}

/// Images with their labels, where they have any.
#[derive(Default)]
struct Paired {
    pairs: Vec<(PathBuf, Option<PathBuf>)>,
    without_labels: Vec<String>,
    without_image: Vec<String>,
}

/// One image, with its labels if they are named, or those of a folder by their names.
fn paired(images: &Path, labels: Option<&Path>) -> Result<Paired> {
    let is_folder = images.is_dir() && !scan::is_one_image(images);
    match labels {
        Some(labels) if labels.is_dir() != is_folder => {
            let message = "an image goes with a file of labels, and a folder of images with a folder of labels";
            Err(Failure::usage(message)
                .hint("`scrimp doctor data IMAGE LABELS`, both files or both folders"))
        }
        _ if !is_folder => {
            let pairs = vec![(images.to_owned(), labels.map(Path::to_owned))];
            Ok(Paired { pairs, ..Paired::default() })
        }
        None => {
            let pairs = named(images)?.into_values().map(|image| (image, None)).collect();
            Ok(Paired { pairs, ..Paired::default() })
        }
        Some(labels) => {
            let mut labels = named(labels)?;
            let mut paired = Paired::default();
            for (name, image) in named(images)? {
                // The channels of an image are numbered behind its name.
                let of_channels = name.strip_suffix("_0000");
                let own = labels.remove(&name);
                match own.or_else(|| labels.remove(of_channels?)) {
                    Some(own) => paired.pairs.push((image, Some(own))),
                    None => paired.without_labels.push(image.display().to_string()),
                }
            }
            let alone = labels.into_values().map(|path| path.display().to_string());
            paired.without_image = alone.collect();
            if paired.pairs.is_empty() {
                let message = format!(
                    "no image has labels of its name: there are {} and {}",
                    few(paired.without_labels.iter().map(|name| format!("`{name}`"))),
                    few(paired.without_image.iter().map(|name| format!("`{name}`")))
                );
                return Err(Failure::usage(message)
                    .hint("labels need the names of their images, without what is behind them"));
            }
            Ok(paired)
        }
    }
}

/// The files of a folder that can be images or labels, by their names without ending. Refuses a folder without any.
fn named(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).context(cannot)? {
        let path = entry.context(cannot)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some((stem, _)) = split_ending(&name).filter(|_| !name.starts_with('.')) {
            found.insert(stem.to_owned(), path);
        }
    }
    if found.is_empty() {
        let message =
            format!("`{}` holds no image or labels of a format that is read", folder.display());
        return Err(
            Failure::usage(message).hint("name the folder that the files themselves lie in")
        );
    }
    Ok(found)
}

impl ImageTold {
    fn of(image: &Path, labels: Option<&Path>) -> Self {
        let notes = Notes::default();
        let name = image.display().to_string();
        let mut told =
            Self { image: name, failure: None, grid: None, notes: Vec::new(), labels: None };
        let outcome = scan::read_grid(image, &notes).and_then(|grid| {
            told.grid = Some(GridTold::of(&grid));
            grid.note_oddities(&notes);
            told.labels = labels.map(|labels| LabelsTold::of(&grid, labels, &notes)).transpose()?;
            Ok(())
        });
        told.failure = outcome.err().map(Problem::from);
        told.notes = notes.take();
        told
    }

    fn is_usable(&self) -> bool {
        self.failure.is_none() && self.labels.as_ref().is_none_or(|labels| labels.is_usable)
    }

    /// One line for the image, which is left out of many that have labels, one for its labels, and one for each note.
    fn rows(&self, is_one_of_many: bool) -> Vec<Row> {
        let name = file_name(&self.image);
        let row = |finding| Row { name: name.clone(), finding };
        let mut rows = Vec::new();
        if let Some(grid) = self.grid.as_ref().filter(|_| !is_one_of_many || self.labels.is_none())
        {
            rows.push(row(Finding::ok(grid.words())));
        }
        if let Some(labels) = &self.labels {
            rows.push(row(labels.finding()));
        }
        if let Some(Problem { sentence, hint }) = &self.failure {
            let finding = Finding { state: State::Fails, ..Finding::ok(sentence) };
            rows.push(row(Finding { hint: hint.clone(), ..finding }));
        }
        let note = |note: &String| Finding { state: State::Warning, ..Finding::ok(note) };
        rows.extend(self.notes.iter().map(|one| row(note(one))));
        rows
    }
}

/// The name of a file without its folders.
fn file_name(path: &str) -> String {
    Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl GridTold {
    fn of(file: &FileGrid) -> Self {
        let grid = &file.grid;
        let course = grid.placement.as_ref().map(Placement::course);
        Self { shape: grid.shape, spacing_mm: grid.spacing_mm, course }
    }

    fn words(&self) -> String {
        let [slices, rows, columns] = self.shape;
        let spacing = self.spacing_mm.map_or_else(
            || "distances unknown".to_owned(),
            |[slices, rows, columns]| format!("{slices:.3} x {rows:.3} x {columns:.3} mm"),
        );
        let course = self.course.map_or_else(
            || "does not say where it lies".to_owned(),
            |[slices, rows, columns]| {
                format!("slices run to the {slices}, rows to the {rows}, columns to the {columns}")
                    .replace("the right", "the patient's right")
                    .replace("the left", "the patient's left")
            },
        );
        let slices = counted(slices, "slice");
        format!("{slices} of {rows} x {columns} pixels, {spacing}; {course}")
    }
}

impl LabelsTold {
    fn of(image: &FileGrid, path: &Path, notes: &Notes) -> Result<Self> {
        let numbers = scan::read_numbers(path, notes)?;
        let Relation { is_usable, sentence, hint } = scan::relation(image, &numbers, path);
        let file = path.display().to_string();
        let (values, voxels) = (values(&numbers), numbers.values.len());
        Ok(Self { file, is_usable, sentence, hint, values, voxels })
    }

    /// How they lie on the image, and which values they hold.
    fn finding(&self) -> Finding {
        let state = if self.is_usable { State::Ok } else { State::Fails };
        let (name, values) = (file_name(&self.file), self.values_in_words());
        let evidence = format!("`{name}` {}; {values}", self.sentence);
        Finding { state, evidence, hint: self.hint.clone() }
    }

    fn values_in_words(&self) -> String {
        let word = |told: &ValueTold| {
            let name = told.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
            let percent = 100.0 * told.voxels as f64 / self.voxels.max(1) as f64;
            format!("{}{name} ({percent:.2} %)", told.value)
        };
        match self.values.len() {
            0 => "it has no voxels".to_owned(),
            1 => format!("every voxel is {}", self.values[0].value),
            _ => format!("values {}", self.values.iter().map(word).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// How often each value is there, in ascending order, of many values the most frequent.
fn values(numbers: &Numbers) -> Vec<ValueTold> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for value in &numbers.values {
        // Both zeros are one value.
        *counts.entry((value + 0.0).to_bits()).or_default() += 1;
    }
    let name = |value: f64| {
        let is_it = |number: i64| value.to_bits() == (number as f64).to_bits();
        let of = numbers.segments().iter().find(|segment| is_it(segment.value));
        of.map(|segment| segment.name.clone())
    };
    let told = |(bits, voxels): (u64, usize)| {
        let value = f64::from_bits(bits);
        ValueTold { value, name: name(value), voxels }
    };
    let mut all: Vec<ValueTold> = counts.into_iter().map(told).collect();
    all.sort_by_key(|told| Reverse(told.voxels));
    all.truncate(VALUES);
    all.sort_by(|a, b| a.value.total_cmp(&b.value));
    all
}

impl Told {
    /// As a table of so many columns.
    pub(super) fn text(&self, columns: usize) -> String {
        let is_one_of_many = self.images.len() > 1;
        let rows = self.images.iter().flat_map(|image| image.rows(is_one_of_many));
        let rows: Vec<Row> = rows.collect();
        let mut text = table(&rows, columns);
        let mut list = |names: &[String], lack: &str| {
            if !names.is_empty() {
                let named = few(names.iter().cloned());
                let _ = writeln!(text, "\n{} without {lack}: {named}", names.len());
            }
        };
        list(&self.without_labels, "labels");
        list(&self.without_image, "image");
        if let Some(prediction) = &self.prediction {
            let _ = writeln!(text, "\npredicting: {prediction}");
        }
        let bad = self.images.iter().filter(|image| !image.is_usable()).count();
        match (self.images.len(), bad) {
            (_, 0) => text,
            (all, bad) => format!("{text}\n{bad} of {all} cannot be packed as they are\n"),
        }
    }
}
