//! What was made of an image, and of what: a record beside it, by which a call that was interrupted is
//! continued, and nothing of somebody else is replaced.
//!
//! A record is written last. It holds digests of what went in and what came out: files that a person has
//! changed since are not written over. Knows files; not what is in them.

use super::images::ImageFiles;
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::scan::files_of;
use crate::train::checkpoint::FileDigest;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// What every record says of who wrote it.
const PROGRAM: &str = "scrimp predict";
/// Another way to predict, whose results differ, gets another number.
const SCHEMA: u32 = 1;

/// A checkpoint that predicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberIdentity {
    /// Its method.
    pub(super) method: String,
    /// The step after which it was saved.
    pub(super) step: u64,
    /// XXH3-64 of its table of contents, which holds the digests of its files, hexadecimal.
    pub(super) xxh3: String,
}

/// What a result depends on beside the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MadeWith {
    pub(super) members: Vec<MemberIdentity>,
    /// What the images were taken with, where somebody said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) modality: Option<String>,
    pub(super) mirrors: bool,
    pub(super) overlap: f64,
    pub(super) probabilities: bool,
    pub(super) uncertainty: bool,
    /// Neighbours around each voxel, where only the largest component of each structure is kept.
    pub(super) keep_largest: Option<u32>,
}

impl MadeWith {
    /// Labels alone, as networks give them and as they are scored.
    pub(super) fn labels_alone(members: Vec<MemberIdentity>) -> Self {
        Self {
            members,
            modality: None,
            mirrors: false,
            overlap: 0.5,
            probabilities: false,
            uncertainty: false,
            keep_largest: None,
        }
    }
}

/// One structure of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StructureVolume {
    pub(super) structure: String,
    pub(super) voxels: u64,
    /// Where the spacing is known.
    pub(super) volume_ml: Option<f64>,
}

/// What was found in an image, and what that took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) structures: Vec<StructureVolume>,
    /// All of it, reading included.
    pub(super) seconds: f64,
    /// Windows, networks, and the sums of what they say.
    pub(super) inference_seconds: f64,
    /// Labels, what is asked for beside them, and writing.
    pub(super) export_seconds: f64,
    /// Of the process on the host, where the system says so.
    pub(super) peak_memory_bytes: Option<u64>,
}

/// A finished image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    program: String,
    schema: u32,
    code_version: String,
    /// All that the image was read from, in the order of its channels.
    input: Vec<FileDigest>,
    made_with: MadeWith,
    /// The files that were written.
    output: Vec<FileDigest>,
    pub(super) outcome: Outcome,
}

/// The files that an image gets in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outputs {
    pub(super) labels: PathBuf,
    /// What says of labels that cannot say it themselves how far voxels are apart, where that is known.
    spacing: Option<PathBuf>,
    pub(super) uncertainty: Option<PathBuf>,
    pub(super) probabilities: Option<PathBuf>,
    record: PathBuf,
}

impl Outputs {
    pub(super) fn of(folder: &Path, image: &ImageFiles, made_with: &MadeWith) -> Self {
        let ImageFiles { name, ending, .. } = image;
        let beside = |end: &str| folder.join(format!("{name}{end}"));
        // Numbers between 0 and 1 are no segmentation.
        let map_ending =
            if [".nii", ".png"].contains(&ending.as_str()) { ending } else { ".nii.gz" };
        Self {
            labels: beside(ending),
            spacing: (ending == ".tif").then(|| beside(".json")),
            uncertainty: made_with
                .uncertainty
                .then(|| beside(&format!(".uncertainty{map_ending}"))),
            probabilities: made_with.probabilities.then(|| beside(".probabilities.h5")),
            record: beside(".record.json"),
        }
    }

    /// What is written in any case, without the record.
    pub(super) fn results(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.labels), self.uncertainty.as_ref(), self.probabilities.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// Whether labels are a picture and no volume.
    pub(super) fn is_picture(&self) -> bool {
        self.labels.extension().is_some_and(|ending| ending == "png")
    }

    /// Everything that is written.
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        self.results().chain(self.spacing.as_deref()).chain([self.record.as_path()])
    }

    /// The record, where there is one that can be understood.
    fn record(&self) -> Option<Record> {
        let text = files::read_text(&self.record, files::SMALL_BYTES).ok()?;
        let record: Record = serde_json::from_str(&text).ok()?;
        (record.program == PROGRAM && record.schema == SCHEMA).then_some(record)
    }

    /// What an earlier call has made of the same files with the same members and options, if it is all there.
    ///
    /// Otherwise the image is to be segmented. Refuses files of a record that have changed since.
    pub(super) fn finished(
        &self,
        input: &[FileDigest],
        made_with: &MadeWith,
    ) -> Result<Option<Outcome>> {
        let Some(record) = self.record() else { return Ok(None) };
        let mut is_whole = true;
        for output in &record.output {
            let path = self.record.with_file_name(&output.name);
            match digest(&path) {
                Ok(found) if found == *output => {}
                Ok(_) => return Err(changed(&path)),
                Err(_) if !path.exists() => is_whole = false,
                Err(failure) => return Err(failure),
            }
        }
        // Labels may be wanted in another format.
        let is_there = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            record.output.iter().any(|output| name == output.name.as_str())
        };
        is_whole &= self.results().all(is_there);
        let is_same = record.input == input && record.made_with == *made_with;
        if is_same && is_whole {
            return Ok(Some(record.outcome));
        }
        Ok(None)
    }

    /// Removes what an earlier call has written with other options and what ended calls left half-written.
    /// To be called after [`Outputs::finished`].
    pub(super) fn clear(&self) -> Result<()> {
        let former = self.record().map(|record| record.output).unwrap_or_default();
        let former = former.iter().map(|output| self.record.with_file_name(&output.name));
        let stale = former.filter(|path| self.results().all(|result| result != path));
        // The record goes first: without it nothing counts as finished.
        for path in [self.record.clone()].into_iter().chain(stale) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(|| format!("cannot remove `{}`", path.display()));
                }
                _ => {}
            }
        }
        self.all().for_each(remove_unfinished);
        Ok(())
    }

    /// Writes the record of results that are there.
    pub(super) fn finish(
        &self,
        input: Vec<FileDigest>,
        made_with: &MadeWith,
        outcome: &Outcome,
    ) -> Result<()> {
        let spacing = self.spacing.as_deref().filter(|spacing| spacing.exists());
        let record = Record {
            program: PROGRAM.to_owned(),
            schema: SCHEMA,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            input,
            made_with: made_with.clone(),
            output: self.results().chain(spacing).map(digest).collect::<Result<_>>()?,
            outcome: outcome.clone(),
        };
        let cannot = || format!("cannot write `{}`", self.record.display());
        let text = serde_json::to_string_pretty(&record).context(cannot)?;
        files::replace_durably(&self.record, text.as_bytes()).context(cannot)
    }
}

fn changed(path: &Path) -> Failure {
    Failure::new(format!("`{}` was changed since it was predicted", path.display())).hint(
        "move it elsewhere to have it predicted anew, or write into another folder with `--to DIR`",
    )
}

/// Removes what ended processes left of writing `path`.
fn remove_unfinished(path: &Path) {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let begins = [b".", name, b"."].concat();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten();
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(&begins);
        if is_ours && files::is_partial(&entry.path()) {
            // Whoever may not remove it is not hindered by it.
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 1 << 20;

/// What an image is read from, file by file, in the order of its channels.
pub(super) fn inputs(image: &ImageFiles) -> Result<Vec<FileDigest>> {
    let mut found = Vec::new();
    for file in &image.files {
        found.extend(files_of(file)?.iter().map(|file| digest(file)).collect::<Result<Vec<_>>>()?);
    }
    Ok(found)
}

/// Name, size and digest of a file.
fn digest(path: &Path) -> Result<FileDigest> {
    let cannot = || format!("cannot read `{}`", path.display());
    let mut file = files::open(path).context(cannot)?;
    let (mut hash, mut bytes, mut block) = (Xxh3::new(), 0, vec![0; BLOCK_BYTES]);
    loop {
        let count = file.read(&mut block).context(cannot)?;
        if count == 0 {
            break;
        }
        hash.update(&block[..count]);
        bytes += count as u64;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(FileDigest { name, bytes, xxh3: format!("{:016x}", hash.digest()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn made_with() -> MadeWith {
        let member = MemberIdentity { method: "partial-ce".into(), step: 6, xxh3: "0f".repeat(8) };
        MadeWith {
            members: vec![member],
            modality: None,
            mirrors: false,
            overlap: 0.5,
            probabilities: false,
            uncertainty: true,
            keep_largest: None,
        }
    }

    fn outcome() -> Outcome {
        let ventricle = StructureVolume { structure: "LV".into(), voxels: 3, volume_ml: Some(0.1) };
        Outcome {
            structures: vec![ventricle],
            seconds: 1.5,
            inference_seconds: 1.0,
            export_seconds: 0.25,
            peak_memory_bytes: None,
        }
    }

    /// A folder with an image and what was made of it.
    fn finished() -> (tempfile::TempDir, Outputs, Vec<FileDigest>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in.nii");
        fs::write(&file, "image").unwrap();
        let image =
            ImageFiles { name: "a".into(), files: vec![file.clone()], ending: ".nii".into() };
        let outputs = Outputs::of(folder.path(), &image, &made_with());
        fs::write(&outputs.labels, "labels").unwrap();
        fs::write(outputs.uncertainty.as_ref().unwrap(), "entropy").unwrap();
        let input = vec![digest(&file).unwrap()];
        outputs.finish(input.clone(), &made_with(), &outcome()).unwrap();
        (folder, outputs, input)
    }

    #[test]
    fn what_is_finished_is_known_by_files_members_and_options() {
        let (_folder, outputs, input) = finished();
        assert_eq!(outputs.finished(&input, &made_with()).unwrap(), Some(outcome()));
        let mirrored = MadeWith { mirrors: true, ..made_with() };
        assert_eq!(outputs.finished(&input, &mirrored).unwrap(), None);
        let other = vec![FileDigest { bytes: 1, ..input[0].clone() }];
        assert_eq!(outputs.finished(&other, &made_with()).unwrap(), None);
        let wanted = Outputs { labels: outputs.labels.with_extension("mha"), ..outputs.clone() };
        assert_eq!(wanted.finished(&input, &made_with()).unwrap(), None);
        fs::remove_file(&outputs.labels).unwrap();
        assert_eq!(outputs.finished(&input, &made_with()).unwrap(), None);
    }

    #[test]
    fn voxels_that_lie_beside_their_header_are_part_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mhd");
        let header = "NDims = 2\nDimSize = 2 1\nElementType = MET_UCHAR\nElementDataFile = a.raw\n";
        fs::write(&path, header).unwrap();
        fs::write(folder.path().join("a.raw"), [1, 2]).unwrap();
        let image = ImageFiles { name: "a".into(), files: vec![path], ending: ".mha".into() };
        let before = inputs(&image).unwrap();
        fs::write(folder.path().join("a.raw"), [1, 3]).unwrap();
        assert_ne!(inputs(&image).unwrap(), before);
        assert_eq!(before.iter().map(|file| &*file.name).collect::<Vec<_>>(), ["a.mhd", "a.raw"]);
    }

    #[test]
    fn a_damaged_record_counts_as_none_and_a_changed_result_is_not_lost() {
        let (folder, outputs, input) = finished();
        fs::write(&outputs.labels, "corrected by hand").unwrap();
        let failure = outputs.finished(&input, &made_with()).unwrap_err();
        let expected = format!("`{}` was changed since it was predicted", outputs.labels.display());
        assert_eq!(failure.message(), expected);
        fs::write(&outputs.record, "{\"program\": \"scrimp pre").unwrap();
        assert_eq!(outputs.finished(&input, &made_with()).unwrap(), None);
        let half = files::partial_path(&outputs.labels).unwrap();
        fs::write(&half, "half").unwrap();
        fs::write(folder.path().join("other"), "stays").unwrap();
        outputs.clear().unwrap();
        assert!(!half.exists() && !outputs.record.exists());
        assert!(folder.path().join("other").exists() && outputs.labels.exists());
    }

    #[test]
    fn results_of_other_options_do_not_stay_beside_new_ones() {
        let (_folder, outputs, _input) = finished();
        let uncertainty = outputs.uncertainty.clone().unwrap();
        let fewer = Outputs { uncertainty: None, ..outputs };
        fewer.clear().unwrap();
        assert!(!uncertainty.exists() && fewer.labels.exists());
    }
}
