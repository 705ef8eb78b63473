//! `scrimp evaluate --predictions DIR --labels DIR`: scores label files of any program. What a network predicts of
//! files is paired with labels and written here, too.
//!
//! Pairs files by name. How they are read stands in `scan`, and what is measured in `scoring`.

use super::crew::Crew;
use super::dice_table::DiceTable;
use super::packing::{bar, warn};
use super::scoring::{LabelledCase, Scoring};
use super::table_file::TableFile;
use crate::cli::{self, Convention};
use crate::data::import::Classes;
use crate::error::{Context, Exit, Failure, Result};
use crate::limits::CLASSES;
use crate::scan::{self, Coding, Notes, label_endings, list, split_ending};
use crate::words::counted;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Scores the files in `predictions` against those in `labels`, on one process.
pub(super) fn run(arguments: &cli::Evaluate, predictions: &Path, labels: &Path) -> Result<Exit> {
    let crew = Crew::join()?;
    let scored = refuse_ranks(crew.ranks()).and_then(|()| score(arguments, predictions, labels));
    crew.agree(scored).map_err(|failure| crew.tell(failure))
}

/// Refuses more ranks than one.
pub(super) fn refuse_ranks(ranks: usize) -> Result<()> {
    if ranks == 1 {
        return Ok(());
    }
    Err(Failure::usage(format!("files are scored on one process, started on {ranks} ranks"))
        .hint("run it without mpirun"))
}

fn score(arguments: &cli::Evaluate, predictions: &Path, labels: &Path) -> Result<Exit> {
    let measure = Measure::of(arguments)?;
    let classes = arguments.classes.as_deref();
    let classes = classes.map(|words| Classes::parse(words, "--classes")).transpose()?;
    let names = classes.as_ref().map(Classes::names);
    let coding = classes.map_or_else(|| Coding::classes(CLASSES), |classes| classes.coding());
    let pairs = pairs("prediction", label_files(predictions)?, labels)?;
    let to = arguments.to.clone().unwrap_or_else(|| predictions.join("scores.csv"));
    let table = TableFile::claim(to)?;
    let notes = Notes::default();
    let cases = pairs.iter().map(|pair| {
        let case = read(pair, &coding, &notes);
        case.map_err(|failure| hinted(failure, names.is_none(), &pair.name))
    });
    measure.write(names.as_deref(), cases, &notes, table)
}

/// What is measured of files, and how it is told.
#[derive(Clone, Copy)]
pub(super) struct Measure {
    scores: FileScores,
    is_json: bool,
}

/// Which scores files get.
#[derive(Clone, Copy)]
enum FileScores {
    /// Everything, NSD with a tolerance: mm where the spacing is known, else voxels.
    All { tolerance: f64 },
    /// The Dice of ScribbleBench.
    Dice,
}

impl Measure {
    /// As the arguments say. Refuses what is not measured of files.
    pub(super) fn of(arguments: &cli::Evaluate) -> Result<Self> {
        let refused = |name: &str| {
            let message =
                format!("`--convention {name}` is a yardstick of folds, and these are files");
            Err(Failure::usage(message).hint("take `native`, the default, or `scribblebench`"))
        };
        let scores = match arguments.convention {
            Convention::Native => FileScores::All { tolerance: arguments.tolerance },
            Convention::Scribblebench => FileScores::Dice,
            Convention::Voxels => return refused("voxels"),
            Convention::Published => return refused("published"),
            Convention::Dmsps => return refused("dmsps"),
            Convention::Lesion => return refused("lesion"),
        };
        Ok(Self { scores, is_json: arguments.json })
    }

    /// Scores cases as they come, prints the means and writes the table. `classes` are names, the background first;
    /// without them every label from 1 on is a structure.
    pub(super) fn write(
        self,
        classes: Option<&[String]>,
        cases: impl ExactSizeIterator<Item = Result<LabelledCase>>,
        notes: &Notes,
        table: TableFile,
    ) -> Result<Exit> {
        let count = cases.len();
        let bar = bar("scoring", count, "cases")?;
        let cases = cases.inspect(|_| bar.inc(1));
        let scored = match self.scores {
            FileScores::All { tolerance } => Scoring { classes, tolerance }
                .score(cases)
                .and_then(|scores| Ok((scores.means(), scores.to_csv()?, scores.facts()))),
            FileScores::Dice => DiceTable::of_files(classes, cases)
                .and_then(|scores| Ok((scores.means(), scores.to_csv()?, scores.facts()))),
        };
        bar.finish_and_clear();
        warn(notes.take())?;
        let (means, csv, mut facts) = scored?;
        if self.is_json {
            let path = table.write(&csv)?;
            facts["table"] = serde_json::json!(path);
            super::print_json(&facts)?;
            return Ok(Exit::Done);
        }
        super::print(&means)?;
        let path = table.write(&csv)?;
        super::print(&format!("{} in `{}`\n", counted(count, "case"), path.display()))?;
        Ok(Exit::Done)
    }
}

/// Two files of one name.
pub(super) struct Pair {
    pub(super) name: String,
    /// What is scored.
    file: PathBuf,
    pub(super) truth: PathBuf,
}

/// Reads both files of a pair, the labels turned to lie on the prediction.
fn read(pair: &Pair, coding: &Coding, notes: &Notes) -> Result<LabelledCase> {
    let place = scan::read_grid(&pair.file, notes)?;
    let prediction = scan::read_labels(&pair.file, coding, notes)?;
    let truth = place.labels_at(&pair.truth, coding, notes)?;
    Ok(LabelledCase {
        name: pair.name.clone(),
        grid: prediction.grid,
        prediction: prediction.values,
        truth: truth.values,
    })
}

/// Says which case failed, and what to do where nobody said it: labels have values that mean nothing.
fn hinted(failure: Failure, without_classes: bool, name: &str) -> Failure {
    let has_hint = !failure.hints().is_empty();
    let failure = failure.during(format!("cannot score `{name}`"));
    match (has_hint, without_classes) {
        (true, _) => failure,
        (false, true) => {
            failure.hint("say what values mean, as in `--classes 0=background,255=lesion`")
        }
        (false, false) => {
            failure.hint("name every value in `--classes`, the background among them")
        }
    }
}

/// Each of `files`, which are called `what` in messages, with its labels, by name. Refuses a folder without label files,
/// and a file without its like.
pub(super) fn pairs(
    what: &str,
    files: BTreeMap<String, PathBuf>,
    labels: &Path,
) -> Result<Vec<Pair>> {
    let (mut pairs, mut alone) = (Vec::new(), BTreeMap::new());
    let mut truths = label_files(labels)?;
    for (name, file) in files {
        match truths.remove(&name) {
            Some(truth) => pairs.push(Pair { name, file, truth }),
            None => drop(alone.insert(name, file)),
        }
    }
    if let Some(path) = alone.values().next() {
        let failure = Failure::usage(match alone.len() - 1 {
            0 => format!("{what} `{}` has no labels", path.display()),
            more => format!("{what} `{}` and {more} more have no labels", path.display()),
        });
        let there: Vec<String> = truths.keys().map(|name| format!("`{name}`")).collect();
        let hint = if there.is_empty() {
            format!("put them into `{}`, or move it elsewhere", labels.display())
        } else {
            format!("labels need the names of the {what}s; without {what} are {}", list(&there))
        };
        return Err(failure.hint(hint));
    }
    if let Some(path) = truths.values().next() {
        let message = match truths.len() - 1 {
            0 => format!("labels `{}` have no {what}", path.display()),
            more => format!("labels `{}` and {more} more have no {what}", path.display()),
        };
        let hint = format!(
            "add each {what} that is missing, or move its labels elsewhere: means over fewer cases say less"
        );
        return Err(Failure::usage(message).hint(hint));
    }
    Ok(pairs)
}

/// The label files of a folder by their names without ending; other files and hidden ones are passed over.
fn label_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let mut found = BTreeMap::<String, PathBuf>::new();
    for entry in std::fs::read_dir(folder).context(cannot)? {
        let path = entry.context(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.filter(|name| !name.starts_with('.')).and_then(stem);
        let Some(name) = name.filter(|_| !path.is_dir()) else { continue };
        if let Some(other) = found.insert(name.to_owned(), path.clone()) {
            let (one, other) = (other.display(), path.display());
            return Err(Failure::usage(format!("`{one}` and `{other}` have the same name"))
                .hint("move one of them elsewhere"));
        }
    }
    // `scrimp predict --uncertainty` writes such maps beside its labels.
    let is_map = |name: &String| name.strip_suffix(".uncertainty").map(str::to_owned);
    let maps: Vec<String> = found
        .keys()
        .filter(|name| is_map(name).is_some_and(|labels| found.contains_key(&labels)))
        .cloned()
        .collect();
    found.retain(|name, _| !maps.contains(name));
    if found.is_empty() {
        let endings: Vec<String> = label_endings().map(|ending| format!("`{ending}`")).collect();
        let message = format!(
            "no label files in `{}`, expected some that end in {}",
            folder.display(),
            endings.join(", ")
        );
        return Err(
            Failure::usage(message).hint("name the folder that the files themselves lie in")
        );
    }
    Ok(found)
}

fn stem(name: &str) -> Option<&str> {
    let (stem, ending) = split_ending(name)?;
    label_endings().any(|known| known == ending).then_some(stem)
}
