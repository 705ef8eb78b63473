//! MSCMR (late gadolinium enhancement) in the folders of CycleMix: scribbles to train on, dense
//! masks to score with.
//!
//! Data: MS-CMRSeg challenge, Zhuang, TPAMI 2019; scribbles and folders: `BWGZK/CycleMix` at
//! 76748303. Masks without images are no cases; `masks` reads them.

use super::{Source, cardiac_classes, folder, published_scan};
use crate::data::{Case, DENSE, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::preparation::{Intensities, Preparation};
use crate::scan::{self, Coding, Notes};
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

const FOLDERS: [Folder; 2] = [
    Folder { name: "train", kind: SCRIBBLE, suffix: "_scribble", fold: 0 },
    Folder { name: "val", kind: DENSE, suffix: "_manual", fold: 1 },
];

/// The files of one case.
struct Files {
    folder: Folder,
    image: PathBuf,
    labels: PathBuf,
}

/// Finds the cases of `train`, which have scribbles alone and are never held out, and those of
/// `val`, which have dense labels alone and are held out in fold 1.
///
/// Labels become 0 background, 1 right ventricle, 2 myocardium, 3 left ventricle,
/// [`IGNORE`](crate::data::IGNORE); intensities are scaled per volume as for ACDC. Refuses images without
/// labels and the other way round, and labels that do not lie on their image.
pub fn open(folder: &Path) -> Result<Source> {
    let (mut found, notes) = (BTreeMap::new(), Notes::default());
    for one in FOLDERS {
        for (name, files) in one.find(folder, &notes)? {
            if let Some(other) = found.insert(name, files) {
                let message = format!("`{}` is in `val` too", other.image.display());
                return Err(
                    Failure::new(message).hint("remove one: it cannot be held out and trained on")
                );
            }
        }
    }
    let (case_count, noted) = (found.len(), notes.clone());
    let cases = found.into_iter().map(move |(name, files)| case(name, &files, &noted));
    Ok(Source {
        name: "mscmr".into(),
        classes: cardiac_classes(),
        preparation: Some(Preparation::grey(Intensities::Published)),
        provenance: "MS-CMRSeg challenge, late gadolinium enhancement (Zhuang, TPAMI 2019), \
                     scribbles by Zhang and Zhuang, CVPR 2022.\n\
                     Folders train (scribbles) and val (dense labels, fold 1) of CycleMix, \
                     intensities cut at the cumulative share 0.99 and scaled to [0, 1] per volume."
            .into(),
        case_count,
        cases: Box::new(cases),
        notes,
    })
}

/// How many label volumes `TestSet` holds, which are no cases of [`open`].
pub fn left_out(folder: &Path) -> usize {
    folder::list(&folder.join("TestSet").join("labels")).map_or(0, |listing| listing.files.len())
}

impl Folder {
    fn find(self, folder: &Path, notes: &Notes) -> Result<BTreeMap<String, Files>> {
        let files = |name: &str| {
            let folder = folder.join(self.name).join(name);
            let listing = folder::list(&folder).map_err(|failure| failure.hint(LAYOUT))?;
            listing.note_others(notes).map(|()| listing.files)
        };
        let (images, mut labels) = (files("images")?, files("labels")?);
        labels.retain(|name, path| {
            let is_ours = name.ends_with(self.suffix);
            if !is_ours {
                let sentence =
                    format!("left out, for labels of `{}` end in `{}`", self.name, self.suffix);
                notes.add(&sentence, format!("`{}`", path.display()));
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
        if let Some(labels) = labels.values().next() {
            return Err(Failure::new(format!("labels `{}` have no image", labels.display()))
                .hint(format!("put the image into `{}/images`, or remove them", self.name)));
        }
        if found.is_empty() {
            let message =
                format!("no images in `{}`", folder.join(self.name).join("images").display());
            return Err(Failure::new(message).hint(LAYOUT));
        }
        Ok(found)
    }
}

/// What `--from` must hold.
const LAYOUT: &str = "`--from` takes the folder with `train` and `val` in it, each with `images` such \
                      as `subject2_DE.nii.gz` and `labels` such as `subject2_DE_scribble.nii.gz`, \
                      in `val` `_manual.nii.gz`";

fn case(name: String, files: &Files, notes: &Notes) -> Result<Case> {
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
        fold: files.folder.fold,
        scan: published_scan(&files.image, notes)?,
        annotations: BTreeMap::from([(files.folder.kind.into(), labels)]),
    })
}
