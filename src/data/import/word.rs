//! WORD (abdominal CT): seven organs of sixteen, scribbles to train on, whole volumes around the organs.
//!
//! Data: Luo et al., Medical Image Analysis 2022. Organs, window and crop follow the preparation of
//! `HiLab-git/DMSPS` at 89fe065.

use super::{Source, folder};
use crate::data::simulated::Simulation;
use crate::data::{Case, DENSE, IGNORE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::preparation::{Channel, Intensities, Preparation, Prepared};
use crate::scan::{self, Coding, Notes};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The names of the classes by label value.
const CLASSES: [&str; 8] = [
    "background",
    "liver",
    "spleen",
    "left kidney",
    "right kidney",
    "stomach",
    "gallbladder",
    "pancreas",
];

/// The class of each label of the data set: of sixteen organs the first six and the eighth, the pancreas.
const ORGANS: [u8; 17] = [0, 1, 2, 3, 4, 5, 6, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0];

/// Label of voxels that nobody annotated, in scribbles alone.
const UNLABELLED: i64 = 255;

/// Voxels that are kept beside the organs, before the first one and from the last one on.
const MARGIN: usize = 20;

/// The window of Hounsfield units that becomes 0 to 1.
const WINDOW: Intensities = Intensities::Window { low: -150.0, high: 250.0 };

/// Folders for one purpose: `imagesTr` with `labelsTr`, and likewise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    ending: &'static str,
    /// The fold that holds its cases out.
    fold: u32,
}

const TRAIN: Part = Part { ending: "Tr", fold: 0 };
const VALIDATION: Part = Part { ending: "Val", fold: 1 };
const TEST: Part = Part { ending: "Ts", fold: 2 };

/// What `--from` must hold.
const LAYOUT: &str = "`--from` takes the folder of the data set (WORD-V0.1.0) with `imagesTr`, `labelsTr` and \
                      `scribblesTr`, `imagesVal` and `labelsVal`, and where they are there `imagesTs` and \
                      `labelsTs`, each with files such as `word_0002.nii.gz`";

/// Why images to test with are left out.
const UNSCORED: &str = "there are no labels to score with";

/// What the names of scribbles may have more than those of their images.
const SCRIBBLE_SUFFIXES: [&str; 3] = ["", "_scribble", "_scribbles"];

/// The files of one case.
#[derive(Debug)]
struct Files {
    fold: u32,
    image: PathBuf,
    dense: Option<PathBuf>,
    scribble: Option<PathBuf>,
}

type Found = BTreeMap<String, Files>;

/// Finds the cases: those of `imagesTr`, which have scribbles and, where they are there, dense labels; those of
/// `imagesVal`, which have dense labels and are held out in fold 1; and those of `imagesTs` with dense labels, in
/// fold 2.
///
/// With a `simulation` scribbles are drawn from the dense labels of cases to train on, instead of those of the data set.
/// Scans are cropped to the box of the organs that their labels show, 20 voxels before and 19 behind, and keep their
/// grid; a scan without organs is kept whole. The recorded preparation has no crop, since it cannot be repeated
/// where there are no labels.
///
/// Refuses a folder without images or scribbles, images without labels but for those of `imagesTs`, labels without
/// image, and one name in two parts.
pub fn open(folder: &Path, simulation: Option<Simulation>) -> Result<Source> {
    let inside = folder.join("WORD-V0.1.0");
    let folder = if inside.join("imagesTr").is_dir() { inside } else { folder.to_owned() };
    let notes = Notes::default();
    let mut found = train(&folder, simulation.is_none(), &notes)?;
    for part in [VALIDATION, TEST] {
        for (name, files) in part.held_out(&folder, &notes)? {
            if let Some(other) = found.insert(name, files) {
                let message =
                    format!("`{}` is in `images{}` too", other.image.display(), part.ending);
                return Err(
                    Failure::new(message).hint("remove one: it cannot be held out and trained on")
                );
            }
        }
    }
    let preparation = preparation();
    let provenance = provenance(&found, simulation);
    let (case_count, noted, applied) = (found.len(), notes.clone(), preparation.clone());
    let cases = found.into_iter().map(move |(name, files)| {
        let case = case(name, &files, &noted)?;
        let case = cropped(case, &applied, &files.image, &noted)?;
        let simulation = simulation.filter(|_| files.fold == TRAIN.fold);
        Ok(match simulation {
            Some(simulation) => simulation.annotated(case, CLASSES.len()),
            None => case,
        })
    });
    Ok(Source {
        name: "word".into(),
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

/// What is done to the scans after they were cropped, and to others.
fn preparation() -> Preparation {
    let channels = vec![Channel { name: "ct".into(), intensities: WINDOW }];
    Preparation { channels, ..Preparation::grey(WINDOW) }
}

fn provenance(found: &Found, simulation: Option<Simulation>) -> String {
    let count = |part: Part| found.values().filter(|files| files.fold == part.fold).count();
    let scribbles = simulation.map_or_else(
        || "Scribbles are those of the data set.".to_owned(),
        |simulation| simulation.describe(),
    );
    format!(
        "WORD, abdominal CT (Luo et al., Medical Image Analysis 2022): {} cases to train on, {} to validate (fold 1), \
         {} to test (fold 2).\nSeven of sixteen organs; the others are background. Cropped to the box of these organs, \
         {MARGIN} voxels before and {} behind.\n{scribbles}",
        count(TRAIN),
        count(VALIDATION),
        count(TEST),
        MARGIN - 1
    )
}

/// The NIfTI files of a folder by their names without ending.
fn files(folder: &Path, notes: &Notes) -> Result<BTreeMap<String, PathBuf>> {
    let listing = folder::list(folder).map_err(|failure| failure.hint(LAYOUT))?;
    listing.note_others(notes).map(|()| listing.files)
}

/// The cases to train on; dense labels where they are there, and scribbles where these are to be read. Where they
/// are to be drawn, every case needs dense labels.
fn train(folder: &Path, reads_scribbles: bool, notes: &Notes) -> Result<Found> {
    let images = TRAIN.images(folder, notes)?;
    let labels = folder.join("labelsTr");
    let mut dense = if labels.is_dir() { files(&labels, notes)? } else { BTreeMap::new() };
    let scribbles = if reads_scribbles { Some(scribble_folder(folder)?) } else { None };
    let mut drawn = scribbles.as_deref().map(|from| files(from, notes)).transpose()?;
    let mut found = BTreeMap::new();
    for (name, image) in images {
        let dense = dense.remove(&name);
        let mut take = |suffix| drawn.as_mut()?.remove(&format!("{name}{suffix}"));
        let scribble = SCRIBBLE_SUFFIXES.into_iter().find_map(&mut take);
        match &scribbles {
            None if dense.is_none() => {
                return Err(Failure::new(format!(
                    "image `{}` has no labels to draw scribbles from",
                    image.display()
                ))
                .hint(format!("looked for `{name}.nii.gz` in `labelsTr`")));
            }
            Some(from) if scribble.is_none() => {
                return Err(Failure::new(format!("image `{}` has no scribbles", image.display()))
                    .hint(format!("looked for `{name}.nii.gz` in `{}`", from.display()))
                    .hint("`--simulate` draws scribbles for all images from their dense labels"));
            }
            _ => {}
        }
        found.insert(name, Files { fold: TRAIN.fold, image, dense, scribble });
    }
    refuse_alone(dense.values().chain(drawn.iter().flat_map(BTreeMap::values)), TRAIN)?;
    Ok(found)
}

/// The folder of scribbles to train on.
fn scribble_folder(folder: &Path) -> Result<PathBuf> {
    let is_of_scribbles = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_of_others = ["val", "ts"].iter().any(|ending| name.ends_with(ending));
        path.is_dir() && name.contains("scribble") && !is_of_others
    };
    let mut found: Vec<PathBuf> =
        folder::entries(folder)?.into_iter().filter(is_of_scribbles).collect();
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only),
        (Some(one), Some(other)) => Err(Failure::new(format!(
            "`{}` and `{}` both seem to hold scribbles to train on, expected one folder",
            other.display(),
            one.display()
        ))
        .hint("move one of them away")),
        _ => Err(Failure::new(format!("no folder of scribbles in `{}`", folder.display()))
            .hint("looked for `scribblesTr`, or another folder with `scribble` in its name")
            .hint("`--simulate` draws scribbles from the dense labels of `labelsTr`")),
    }
}

/// Refuses labels whose image is not there.
fn refuse_alone<'a>(mut labels: impl Iterator<Item = &'a PathBuf>, part: Part) -> Result<()> {
    match labels.next() {
        None => Ok(()),
        Some(path) => Err(Failure::new(format!("labels `{}` have no image", path.display()))
            .hint(format!("put the image into `images{}`, or remove them", part.ending))),
    }
}

impl Part {
    fn images(self, folder: &Path, notes: &Notes) -> Result<BTreeMap<String, PathBuf>> {
        let folder = folder.join(format!("images{}", self.ending));
        let images = files(&folder, notes)?;
        if images.is_empty() {
            let message = format!("no images in `{}`", folder.display());
            return Err(Failure::new(message).hint(LAYOUT));
        }
        Ok(images)
    }

    /// The cases of a part that is only scored. Of [`TEST`] images may lack labels, or all of it may be missing.
    fn held_out(self, folder: &Path, notes: &Notes) -> Result<Found> {
        let [images, labels] =
            ["images", "labels"].map(|of| folder.join(format!("{of}{}", self.ending)));
        if self == TEST && !(images.is_dir() && labels.is_dir()) {
            let images = if images.is_dir() { folder::untaken(&images) } else { Vec::new() };
            for image in images {
                notes.leave_out(UNSCORED, format!("`{}`", image.display()));
            }
            return Ok(BTreeMap::new());
        }
        let mut dense = files(&labels, notes)?;
        let mut found = BTreeMap::new();
        for (name, image) in self.images(folder, notes)? {
            let Some(dense) = dense.remove(&name) else {
                if self == TEST {
                    notes.leave_out(UNSCORED, format!("`{}`", image.display()));
                    continue;
                }
                return Err(Failure::new(format!("image `{}` has no labels", image.display()))
                    .hint(format!("looked for `{name}.nii.gz` in `labels{}`", self.ending)));
            };
            let files = Files { fold: self.fold, image, dense: Some(dense), scribble: None };
            found.insert(name, files);
        }
        refuse_alone(dense.values(), self)?;
        Ok(found)
    }
}

/// A case as its files hold it.
fn case(name: String, files: &Files, notes: &Notes) -> Result<Case> {
    let image = scan::read_grid(&files.image, notes)?;
    image.note_oddities(notes);
    let labels = (0i64..).zip(ORGANS);
    let organs = Coding::new(labels, format!("0 to {}", ORGANS.len() - 1));
    let mut annotations = BTreeMap::new();
    if let Some(path) = &files.dense {
        annotations.insert(DENSE.to_owned(), image.labels_at(path, &organs, notes)?.values);
    }
    if let Some(path) = &files.scribble {
        let scribbles = organs.or_unlabelled(UNLABELLED);
        annotations.insert(SCRIBBLE.to_owned(), image.labels_at(path, &scribbles, notes)?.values);
    }
    Ok(Case {
        patient: name.clone(),
        name,
        frame: 0,
        fold: files.fold,
        modality: String::new(),
        classes_annotated: Vec::new(),
        scan: scan::read(&files.image, notes)?,
        annotations,
    })
}

/// The case within the box of its organs, by its dense labels where it has them.
fn cropped(case: Case, preparation: &Preparation, image: &Path, notes: &Notes) -> Result<Case> {
    let shape = case.scan.grid.shape;
    let labels = case.annotations.get(DENSE).or_else(|| case.annotations.get(SCRIBBLE));
    let kept = labels.and_then(|labels| organ_box(labels, shape)).unwrap_or_else(|| {
        notes.add("without any of the organs, and kept whole", format!("`{}`", case.name));
        shape.map(|extent| 0..extent)
    });
    let Prepared { scan, regrid, .. } = preparation
        .apply_within(case.scan, kept)
        .map_err(|failure| failure.during(format!("cannot prepare `{}`", image.display())))?;
    // Voxels are left out and none is moved, so that scribbles go the way of dense labels.
    let carried = |(kind, labels): (String, Vec<u8>)| Ok((kind, regrid.carry_dense(&labels)?));
    let annotations = case.annotations.into_iter().map(carried).collect::<Result<_>>()?;
    Ok(Case { scan, annotations, ..case })
}

/// The box of what is labelled as an organ, with [`MARGIN`] before it, and from its last voxel on, within a volume
/// of `shape`.
fn organ_box(labels: &[u8], shape: [usize; 3]) -> Option<[Range<usize>; 3]> {
    let [_, rows, columns] = shape;
    let mut bounds: Option<[[usize; 2]; 3]> = None;
    for (line, labels) in labels.chunks_exact(columns.max(1)).enumerate() {
        let is_organ = |&label: &u8| label > 0 && label != IGNORE;
        let Some(first) = labels.iter().position(is_organ) else { continue };
        let last = labels.iter().rposition(is_organ).unwrap_or(first);
        let found = [[line / rows; 2], [line % rows; 2], [first, last]];
        let known = bounds.unwrap_or(found);
        bounds = Some([0, 1, 2].map(|axis| {
            let ([first, last], [from, to]) = (known[axis], found[axis]);
            [first.min(from), last.max(to)]
        }));
    }
    let bounds = bounds?;
    Some([0, 1, 2].map(|axis| {
        let [first, last] = bounds[axis];
        first.saturating_sub(MARGIN)..(last + MARGIN).min(shape[axis])
    }))
}
