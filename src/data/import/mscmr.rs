//! MSCMR (late gadolinium enhancement) in the folders of CycleMix: scribbles to train on, dense
//! masks to score with.
//!
//! Data: MS-CMRSeg challenge, Zhuang, TPAMI 2019; scribbles and folders: `BWGZK/CycleMix` at
//! 76748303. Masks without images are no cases; `masks` reads them.

use super::{Source, Steps, cardiac_classes, folder, prepared, published_scan};
use crate::data::{Case, DENSE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::preparation::{Intensities, Preparation};
use crate::scan::{self, Coding, Notes, Scan};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Label of pixels that nobody annotated, in scribbles alone.
const UNLABELLED: i64 = 4;

/// One of the folders that hold cases.
#[derive(Clone, Copy)]
struct Folder {
    name: &'static str,
    /// The kind of its labels.
    kind: &'static str,
    /// What the names of its label files have more than those of its images.
    suffix: &'static str,
    /// The fold that holds its cases out.
    fold: u32,
}

const FOLDERS: [Folder; 3] = [
    Folder { name: "train", kind: SCRIBBLE, suffix: "_scribble", fold: 0 },
    Folder { name: "val", kind: DENSE, suffix: "_manual", fold: 1 },
    TEST,
];

/// The images of this one are handed out by the challenge alone: many people have its labels without them.
const TEST: Folder = Folder { name: "TestSet", kind: DENSE, suffix: "_manual", fold: 2 };

/// The files of one case.
struct Files {
    folder: Folder,
    image: PathBuf,
    labels: PathBuf,
}

/// Finds the cases of `train`, which have scribbles alone and are never held out, those of `val`, which have dense
/// labels alone and are held out in fold 1, and likewise those of `TestSet` whose images are there, in fold 2.
///
/// Labels become 0 background, 1 right ventricle, 2 myocardium, 3 left ventricle,
/// [`IGNORE`](crate::data::IGNORE); where `steps` say nothing else, intensities are scaled per volume as for ACDC.
/// Refuses images without labels, and but for `TestSet` the other way round, and labels that do not lie on their
/// image.
pub fn open(folder: &Path, steps: &Steps) -> Result<Source> {
    let (mut found, notes) = (BTreeMap::new(), Notes::default());
    let mut has_tests = false;
    for one in FOLDERS {
        for (name, files) in one.find(folder, &notes)? {
            has_tests |= one.name == TEST.name;
            if let Some(other) = found.insert(name, files) {
                let message = format!("`{}` is in `{}` too", other.image.display(), one.name);
                return Err(
                    Failure::new(message).hint("remove one: it cannot be held out and trained on")
                );
            }
        }
    }
    let steps = steps.or_scaled_by(Intensities::Published);
    let preparation = steps.preparation(vec!["image".to_owned()], || {
        found.iter().map(|(name, files)| case(name.clone(), files, &notes, stored_scan))
    })?;
    let provenance = provenance(has_tests, &preparation);
    let (case_count, noted, applied) = (found.len(), notes.clone(), preparation.clone());
    let cases = found.into_iter().map(move |(name, files)| {
        if is_published(&applied) {
            return case(name, &files, &noted, published_scan);
        }
        prepared(case(name, &files, &noted, stored_scan)?, &applied, &files.image, &noted)
    });
    Ok(Source {
        name: "mscmr".into(),
        classes: cardiac_classes(),
        preparation: Some(preparation),
        provenance,
        levels: Vec::new(),
        test_fold: Some(2),
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

/// Whether scans are prepared as those of the published runs on ACDC.
fn is_published(preparation: &Preparation) -> bool {
    *preparation == Preparation::grey(Intensities::Published)
}

fn provenance(has_tests: bool, preparation: &Preparation) -> String {
    let tests = if has_tests { ", TestSet (dense labels, fold 2)" } else { "" };
    let and = if has_tests { "" } else { " and" };
    let comma = if has_tests { "," } else { "" };
    let scaled = if is_published(preparation) {
        ", intensities cut at the cumulative share 0.99 and scaled to [0, 1] per volume"
    } else {
        ""
    };
    format!(
        "MS-CMRSeg challenge, late gadolinium enhancement (Zhuang, TPAMI 2019), scribbles by Zhang and Zhuang, \
         CVPR 2022.\nFolders train (scribbles){comma}{and} val (dense labels, fold 1){tests} of CycleMix{scaled}."
    )
}

/// Leaves out labels of [`TEST`] whose images are not there.
fn leave_out(labels: &[PathBuf], notes: &Notes) {
    for path in labels {
        let why = "the image of these labels is not there; `data.shapes.path` can name them";
        notes.leave_out(why, format!("`{}`", path.display()));
    }
}

impl Folder {
    fn find(self, folder: &Path, notes: &Notes) -> Result<BTreeMap<String, Files>> {
        let is_optional = self.name == TEST.name;
        let [image_folder, label_folder] =
            ["images", "labels"].map(|name| folder.join(self.name).join(name));
        if is_optional && !image_folder.is_dir() {
            if label_folder.is_dir() {
                leave_out(&folder::untaken(&label_folder), notes);
            }
            return Ok(BTreeMap::new());
        }
        let files = |folder: &Path| {
            let listing = folder::list(folder).map_err(|failure| failure.hint(LAYOUT))?;
            listing.note_others(notes).map(|()| listing.files)
        };
        let (images, mut labels) = (files(&image_folder)?, files(&label_folder)?);
        labels.retain(|name, path| {
            let is_ours = name.ends_with(self.suffix);
            if !is_ours {
                let why = format!("labels of `{}` end in `{}`", self.name, self.suffix);
                notes.leave_out(&why, format!("`{}`", path.display()));
            }
            is_ours
        });
        let mut found = BTreeMap::new();
        for (name, image) in images {
            let Some(labels) = labels.remove(&format!("{name}{}", self.suffix)) else {
                return Err(Failure::new(format!("image `{}` has no labels", image.display()))
                    .hint(format!(
                        "looked for `{name}{}.nii.gz` in `{}/labels`",
                        self.suffix, self.name
                    )));
            };
            found.insert(name, Files { folder: self, image, labels });
        }
        if is_optional {
            leave_out(&labels.values().cloned().collect::<Vec<_>>(), notes);
        }
        if let Some(labels) = labels.values().next().filter(|_| !is_optional) {
            return Err(Failure::new(format!("labels `{}` have no image", labels.display()))
                .hint(format!("put the image into `{}/images`, or remove them", self.name)));
        }
        if found.is_empty() && !is_optional {
            let message = format!("no images in `{}`", image_folder.display());
            return Err(Failure::new(message).hint(LAYOUT));
        }
        Ok(found)
    }
}

/// What `--from` must hold.
const LAYOUT: &str = "`--from` takes the folder with `train` and `val` in it, each with `images` such \
                      as `subject2_DE.nii.gz` and `labels` such as `subject2_DE_scribble.nii.gz`, \
                      in `val` `_manual.nii.gz`";

/// A case whose scan `read` reads.
fn case(
    name: String,
    files: &Files,
    notes: &Notes,
    read: fn(&Path, &Notes) -> Result<Scan>,
) -> Result<Case> {
    let image = scan::read_grid(&files.image, notes)?;
    image.note_oddities(notes);
    let classes = Coding::classes(4);
    let coding =
        if files.folder.kind == SCRIBBLE { classes.or_unlabelled(UNLABELLED) } else { classes };
    let labels = image.labels_at(&files.labels, &coding, notes)?.values;
    Ok(Case {
        patient: name.split('_').next().unwrap_or_default().to_owned(),
        name,
        frame: 0,
        modality: String::new(),
        classes_annotated: Vec::new(),
        fold: files.folder.fold,
        scan: read(&files.image, notes)?,
        annotations: BTreeMap::from([(files.folder.kind.into(), labels)]),
    })
}

/// The scan as its file holds it.
fn stored_scan(image: &Path, notes: &Notes) -> Result<Scan> {
    scan::read(image, notes)
}
