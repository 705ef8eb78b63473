//! Folders of diseased and healthy pictures, as label transfer trains on them without masks.
//!
//! Folders and file names: `mlcb-jlu/MedImgSeg` at 73c6b9e4, where skin (ISIC) and brain (BraTS) lie in
//! them. Knows which file is what; reading pictures stands in `pictures`. Healthy test pictures
//! (`testB`) have nothing to measure against, and are passed over.

use super::parts::{self, PreparedPart};
use super::pictures::{self, ColourPicture};
use super::{Notes, Source};
use crate::data::Case;
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::NETWORK_SIZE;
use crate::preparation::Preparation;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What to pack.
#[derive(Debug, Clone)]
pub struct Package {
    /// The folder with `trainA`, `trainB`, `val` and `testA` in it.
    pub folder: PathBuf,
    /// Rows and columns that every picture is resized to, 16 to [`NETWORK_SIZE`].
    pub size: usize,
    /// Packs `val` and `testA` alone, of which one may be absent; training folders are not looked at.
    pub test_only: bool,
}

/// The files of one case.
struct Files {
    part: PreparedPart,
    patient: String,
    image: PathBuf,
    /// None for pictures to train on.
    label: Option<PathBuf>,
}

/// Smallest size that networks can be made for.
const SMALLEST_SIZE: usize = 16;

/// What the name of a label has more than that of its picture.
const LABEL_SUFFIX: &str = "_segmentation";

/// Finds the pictures: those of `trainA` (or `NNN_A_weak`) and `trainB` (`NNN_B_weak`) have the image
/// labels 1 and 0 and are never held out, those of `val` have dense masks and are held out in fold 1,
/// those of `testA` (or `test`), which may be absent, in fold 2.
///
/// Returns a sentence besides for every two parts that share patients.
/// Refuses folders that are
/// missing, empty or there twice, pictures without masks and the other way round.
pub fn open(package: &Package) -> Result<(Source, Vec<String>)> {
    if !(SMALLEST_SIZE..=NETWORK_SIZE).contains(&package.size) {
        return Err(Failure::usage(format!(
            "pictures cannot be resized to {} pixels, expected {SMALLEST_SIZE} to {NETWORK_SIZE}",
            package.size
        ))
        .hint("give another one, for example `--size 256`"));
    }
    let (found, passed_over) = find(package)?;
    let (warnings, notes) = (shared_patients(found.values()), Notes::default());
    for path in &passed_over {
        notes.leave_out("it belongs to no part", format!("`{}`", path.display()));
    }
    for path in Inside::list(&package.folder)?.unscored(package.test_only) {
        notes.leave_out("healthy pictures are not scored", format!("`{}`", path.display()));
    }
    let count = |part| found.values().filter(|files| files.part == part).count();
    let provenance = format!(
        "Pictures in the folders of MedImgSeg (Du et al., Computers in Biology and Medicine, 2024), \
         {} diseased and {} healthy ones to train on, {} to validate, {} to test.\n\
         8 bits for each colour, resized to {} x {} by a triangle filter; masks cut at half.",
        count(PreparedPart::TrainDiseased),
        count(PreparedPart::TrainHealthy),
        count(PreparedPart::Validation),
        count(PreparedPart::Test),
        package.size,
        package.size
    );
    let (case_count, size) = (found.len(), package.size);
    let cases = found.into_iter().map(move |(name, files)| case(name, files, size));
    let source = Source {
        name: "label-transfer".into(),
        classes: parts::classes(),
        provenance,
        preparation: Some(Preparation::colours()),
        levels: Vec::new(),
        test_fold: Some(2),
        case_count,
        cases: Box::new(cases),
        notes,
    };
    Ok((source, warnings))
}

/// The files by the names of their cases, and what is none of them.
fn find(package: &Package) -> Result<(BTreeMap<String, Files>, Vec<PathBuf>)> {
    let mut found = BTreeMap::new();
    let inside = Inside::list(&package.folder)?;
    let mut passed_over = inside.others(package.test_only);
    if !package.test_only {
        for (part, domain) in
            [(PreparedPart::TrainDiseased, 'A'), (PreparedPart::TrainHealthy, 'B')]
        {
            let folder = inside.training(domain)?;
            let images = not_empty(&folder, pictures::files(&folder)?, &mut passed_over)?;
            found.extend(images.into_iter().map(|(name, image)| files(part, &name, image, None)));
        }
    }
    let validation = inside.one_of(|name| name == "val")?;
    let test = inside.one_of(|name| name == "testA" || name == "test")?;
    if validation.is_none() && (test.is_none() || !package.test_only) {
        let what = if package.test_only { "neither `val` nor `testA`" } else { "no `val`" };
        return Err(inside.lacks(&format!("{what} with pictures and masks to measure with")));
    }
    for (part, folder) in [(PreparedPart::Validation, validation), (PreparedPart::Test, test)] {
        if let Some(folder) = folder {
            found.extend(held_out(part, &folder, &mut passed_over)?);
        }
    }
    Ok((found, passed_over))
}

/// What `--from` must hold.
const LAYOUT: &str = "`--from` takes the folder with `trainA` and `trainB` (or `563_A_weak` and \
                      `563_B_weak`) in it, and `val` and `testA`, each with `images` such as `a.png` \
                      and `labels` such as `a_segmentation.png`";

/// The folders that a package consists of.
struct Inside<'a> {
    folder: &'a Path,
    /// In ascending order.
    names: Vec<String>,
    /// Files beside the folders.
    files: Vec<PathBuf>,
}

impl<'a> Inside<'a> {
    fn list(folder: &'a Path) -> Result<Self> {
        let cannot = || format!("cannot list `{}`", folder.display());
        let (mut names, mut files) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(folder).context(cannot).map_err(|f| f.hint(LAYOUT))? {
            let path = entry.context(cannot)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            match name.filter(|_| path.is_dir()) {
                Some(name) => names.push(name.to_owned()),
                // What is being written beside them is not there yet.
                None if files::is_partial(&path) => (),
                None => files.push(path),
            }
        }
        names.sort_unstable();
        files.sort_unstable();
        Ok(Self { folder, names, files })
    }

    /// What no part is made of. `testB`, healthy pictures to test with, has nothing to measure against.
    fn others(&self, test_only: bool) -> Vec<PathBuf> {
        let is_known = |name: &String| {
            matches!(name.as_str(), "val" | "test" | "testA" | "testB")
                || ['A', 'B'].into_iter().any(|domain| is_training(name, domain))
        };
        let folders = self.names.iter().filter(|name| !is_known(name));
        let folders = folders.map(|name| self.folder.join(name));
        if test_only { Vec::new() } else { folders.chain(self.files.iter().cloned()).collect() }
    }

    /// The healthy pictures to test with, `testB`, or the folder where it holds others.
    fn unscored(&self, test_only: bool) -> Vec<PathBuf> {
        let folder = self.folder.join("testB");
        if test_only || !folder.is_dir() {
            return Vec::new();
        }
        match pictures::files(&folder) {
            Ok(found) => found.pictures.into_values().collect(),
            Err(_) => vec![folder],
        }
    }

    /// The folder of this name, refusing two of them.
    fn one_of(&self, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
        let mut wanted = self.names.iter().filter(|name| wanted(name));
        let first = wanted.next();
        if let (Some(first), Some(second)) = (first, wanted.next()) {
            let message = format!(
                "both `{first}` and `{second}` are in `{}`, expected one of them",
                self.folder.display()
            );
            return Err(Failure::new(message).hint("move one of them elsewhere"));
        }
        Ok(first.map(|name| self.folder.join(name)))
    }

    /// The folder of pictures to train on of domain `A`, diseased, or `B`, healthy.
    fn training(&self, domain: char) -> Result<PathBuf> {
        let found = self.one_of(|name| is_training(name, domain))?;
        let what = if domain == 'A' { "diseased" } else { "healthy" };
        found.ok_or_else(|| {
            self.lacks(&format!("no `train{domain}` with {what} pictures to train on"))
                .hint("to pack `val` and `testA` alone, for evaluation, add `--test-only`")
        })
    }

    fn lacks(&self, what: &str) -> Failure {
        Failure::new(format!("there is {what} in `{}`", self.folder.display())).hint(LAYOUT)
    }
}

/// Whether a folder of this name holds pictures to train on of domain `A` or `B`.
fn is_training(name: &str, domain: char) -> bool {
    let numbered =
        name.strip_suffix("_weak").and_then(|name| name.strip_suffix(domain)?.strip_suffix('_'));
    name.strip_prefix("train").is_some_and(|rest| rest.chars().eq([domain]))
        || numbered.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The pictures of a folder, of which there must be some; the other files join `passed_over`.
fn not_empty(
    folder: &Path,
    files: pictures::Files,
    passed_over: &mut Vec<PathBuf>,
) -> Result<BTreeMap<String, PathBuf>> {
    passed_over.extend(files.passed_over);
    if files.pictures.is_empty() {
        return Err(Failure::new(format!("no pictures in `{}`", folder.display()))
            .hint("looked for files that end in `.png`, `.jpg` or `.jpeg`"));
    }
    Ok(files.pictures)
}

/// The pictures of `images` with their masks in `labels`.
fn held_out(
    part: PreparedPart,
    folder: &Path,
    passed_over: &mut Vec<PathBuf>,
) -> Result<Vec<(String, Files)>> {
    let mut list = |name: &str| {
        let folder = folder.join(name);
        let files = pictures::files(&folder).map_err(|failure| failure.hint(LAYOUT))?;
        not_empty(&folder, files, passed_over)
    };
    let (images, mut labels) = (list("images")?, list("labels")?);
    let mut found = Vec::new();
    for (name, image) in images {
        let Some(label) = labels.remove(&format!("{name}{LABEL_SUFFIX}")) else {
            return Err(Failure::new(format!("picture `{}` has no mask", image.display())).hint(
                format!(
                    "looked for `{name}{LABEL_SUFFIX}.png` in `{}`",
                    folder.join("labels").display()
                ),
            ));
        };
        found.push(files(part, &name, image, Some(label)));
    }
    if let Some(label) = labels.values().next() {
        return Err(Failure::new(format!("mask `{}` has no picture", label.display())).hint(
            format!(
                "put the picture into `{}`, or remove the mask",
                folder.join("images").display()
            ),
        ));
    }
    Ok(found)
}

fn files(
    part: PreparedPart,
    name: &str,
    image: PathBuf,
    label: Option<PathBuf>,
) -> (String, Files) {
    let files = Files { part, patient: patient(name).to_owned(), image, label };
    (format!("{}-{name}", part.prefix()), files)
}

/// Whose picture this is, by its name: `PATIENT_flair.nii_90` is a slice, `PATIENT_health` a piece of skin
/// beside the lesion; any other name is a patient of its own.
fn patient(name: &str) -> &str {
    let slice = name.split_once(".nii_").and_then(|(volume, _)| volume.rsplit_once('_'));
    let healthy = name.strip_suffix("_health");
    slice.map(|(patient, _modality)| patient).or(healthy).unwrap_or(name)
}

/// A sentence for every two of training, validation and test that share patients.
fn shared_patients<'a>(found: impl Iterator<Item = &'a Files>) -> Vec<String> {
    let mut patients = BTreeMap::<PreparedPart, BTreeSet<&str>>::new();
    for files in found {
        let part = files.part.max(PreparedPart::TrainHealthy);
        patients.entry(part).or_default().insert(&files.patient);
    }
    let name = |part| {
        if part == PreparedPart::TrainHealthy { "training" } else { PreparedPart::prefix(part) }
    };
    let mut sentences = Vec::new();
    for (one, of_one) in &patients {
        for (other, of_other) in patients.range(one..).skip(1) {
            let shared: Vec<&str> = of_one.intersection(of_other).copied().collect();
            if let [first, ..] = shared[..] {
                let who = match shared.len() {
                    1 => format!("patient `{first}` is"),
                    count => format!("{count} patients, `{first}` among them, are"),
                };
                let (one, other) = (name(*one), name(*other));
                sentences
                    .push(format!("{who} in both {one} and {other}: scores come out too good"));
            }
        }
    }
    sentences
}

fn case(name: String, files: Files, size: usize) -> Result<Case> {
    let image = ColourPicture::read(&files.image)?;
    let lesion = match &files.label {
        Some(label) => pictures::read_mask(label, image.shape, size)?,
        None => Vec::new(),
    };
    let picture = parts::PreparedPicture {
        name,
        patient: files.patient,
        part: files.part,
        size,
        spacing_mm: None,
        planes: image.resized(size),
        lesion,
    };
    picture.into_case()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patients_are_known_by_their_names() {
        assert_eq!(patient("Brats18_CBICA_AAP_1_flair.nii_90"), "Brats18_CBICA_AAP_1");
        assert_eq!(patient("ISIC_0000013_health"), "ISIC_0000013");
        assert_eq!(patient("ISIC_0000013"), "ISIC_0000013");
    }
}
