//! What lies in a folder of predictions, as JSON and as a table: the cases, their volumes, what they took,
//! and what went wrong.
//!
//! `summary.json` is there before anything is predicted: it says which files are written, and so whose they
//! are. Knows nothing of how predictions are made.

use super::images::ImageFiles;
use super::records::{Outcome, Outputs};
use crate::error::{Context, Failure, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// By whom a summary says that it was written.
const PROGRAM: &str = "scrimp predict";
/// Bytes of the largest summary that is read, far above that of a million cases.
const SUMMARY_BYTES: u64 = 1 << 32;

/// Everything that was predicted into one folder.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Summary {
    program: String,
    code_version: String,
    /// The structures, in the order of their labels from 1 on.
    structures: Vec<String>,
    cases: BTreeMap<String, SummaryCase>,
    #[serde(skip)]
    folder: PathBuf,
}

/// One image.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct SummaryCase {
    images: Vec<PathBuf>,
    /// Names of the files that were or will be written.
    files: BTreeSet<String>,
    /// Nothing where it is not finished.
    outcome: Option<Outcome>,
    /// Why it could not be segmented.
    problem: Option<String>,
}

impl Summary {
    /// Takes the names of everything that will be written into `folder`, which is made where it is missing.
    ///
    /// Refuses files that lie there and are not known to be written by an earlier call, and two images that
    /// would write one file.
    pub(super) fn claim(
        folder: &Path,
        structures: &[String],
        images: &[(&ImageFiles, Outputs)],
    ) -> Result<Self> {
        let cannot = || format!("cannot write into `{}`", folder.display());
        std::fs::create_dir_all(folder).context(cannot).map_err(|failure| {
            failure.hint("name a folder that can be written to with `--to DIR`")
        })?;
        let mut summary = Self::read(folder)?;
        structures.clone_into(&mut summary.structures);
        env!("CARGO_PKG_VERSION").clone_into(&mut summary.code_version);
        let known: BTreeSet<&String> =
            summary.cases.values().flat_map(|case| &case.files).collect();
        let mut taken = BTreeSet::new();
        for path in images.iter().flat_map(|(_, outputs)| outputs.all()) {
            if !taken.insert(path) {
                return Err(Failure::usage(format!("two images would write `{}`", path.display()))
                    .hint("rename one of them"));
            }
            if path.symlink_metadata().is_ok() && !known.contains(&name(path)) {
                return Err(foreign(path));
            }
        }
        for (image, outputs) in images {
            let case = summary.cases.entry(image.name.clone()).or_default();
            case.images.clone_from(&image.files);
            case.files.extend(outputs.all().map(name));
        }
        summary.write()?;
        Ok(summary)
    }

    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("summary.json");
        let text = match files::read_text(&path, SUMMARY_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let table = folder.join("summary.csv");
                if table.symlink_metadata().is_ok() {
                    return Err(foreign(&table));
                }
                return Ok(Self {
                    program: PROGRAM.to_owned(),
                    code_version: String::new(),
                    structures: Vec::new(),
                    cases: BTreeMap::new(),
                    folder: folder.to_owned(),
                });
            }
            Err(error) => {
                return Err(error).context(|| format!("cannot read `{}`", path.display()));
            }
        };
        let summary = serde_json::from_str(&text).ok();
        let summary = summary.filter(|summary: &Self| summary.program == PROGRAM);
        let summary = summary.ok_or_else(|| foreign(&path))?;
        Ok(Self { folder: folder.to_owned(), ..summary })
    }

    /// Puts down how an image ended.
    pub(super) fn put(&mut self, image: &str, ended: std::result::Result<Outcome, String>) {
        let case = self.cases.entry(image.to_owned()).or_default();
        (case.outcome, case.problem) = match ended {
            Ok(outcome) => (Some(outcome), None),
            Err(problem) => (None, Some(problem)),
        };
    }

    /// Where the table of cases lies.
    pub(super) fn table(&self) -> PathBuf {
        self.folder.join("summary.csv")
    }

    /// Writes both files.
    pub(super) fn write(&self) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context(|| "cannot make the summary")?;
        for (name, text) in [("summary.json", json), ("summary.csv", self.to_csv()?)] {
            let path = self.folder.join(name);
            files::replace(&path, text.as_bytes())
                .context(|| format!("cannot write `{}`", path.display()))?;
        }
        Ok(())
    }

    /// The finished cases, one to a line.
    fn to_csv(&self) -> Result<String> {
        let doing = || "cannot make the table of cases";
        let mut csv = csv::Writer::from_writer(Vec::new());
        let columns = self
            .structures
            .iter()
            .flat_map(|name| [format!("{name}_voxels"), format!("{name}_ml")]);
        let seconds = ["seconds", "inference_seconds", "export_seconds"];
        let fixed = [&["case", "image"][..], &seconds, &["peak_memory_bytes"]].concat();
        csv.write_record(fixed.into_iter().map(str::to_owned).chain(columns)).context(doing)?;
        for (name, case) in &self.cases {
            let Some(outcome) = &case.outcome else { continue };
            let image = case.images.first().map(|path| path.display().to_string());
            let memory = outcome.peak_memory_bytes.map(|bytes| bytes.to_string());
            let mut row = vec![name.clone(), image.unwrap_or_default()];
            let Outcome { seconds, inference_seconds, export_seconds, .. } = outcome;
            let seconds = [seconds, inference_seconds, export_seconds];
            row.extend(seconds.map(|seconds| format!("{seconds:.2}")));
            row.push(memory.unwrap_or_default());
            for structure in &self.structures {
                let found = outcome.structures.iter().find(|found| found.structure == *structure);
                row.push(found.map_or_else(String::new, |found| found.voxels.to_string()));
                let volume = found.and_then(|found| found.volume_ml);
                row.push(volume.map_or_else(String::new, |volume| format!("{volume:.4}")));
            }
            csv.write_record(row).context(doing)?;
        }
        let bytes =
            csv.into_inner().map_err(|error| Failure::new(doing()).because(error.error()))?;
        String::from_utf8(bytes).context(doing)
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn foreign(path: &Path) -> Failure {
    Failure::usage(format!(
        "`{}` exists and was not written by `scrimp predict`, so it is not replaced",
        path.display()
    ))
    .hint("write into another folder with `--to DIR`, or move that file elsewhere")
}

#[cfg(test)]
mod tests {
    use super::super::records::{MadeWith, StructureVolume};
    use super::*;

    fn image(name: &str) -> ImageFiles {
        let files = vec![PathBuf::from(format!("in/{name}.nii"))];
        ImageFiles { name: name.into(), files, ending: ".nii".into() }
    }

    fn claim(folder: &Path, images: &[ImageFiles], uncertainty: bool) -> Result<Summary> {
        let made_with = MadeWith {
            members: Vec::new(),
            modality: None,
            mirrors: false,
            overlap: 0.5,
            probabilities: false,
            uncertainty,
            keep_largest: None,
        };
        let images: Vec<_> =
            images.iter().map(|image| (image, Outputs::of(folder, image, &made_with))).collect();
        Summary::claim(folder, &["left, ventricle".into()], &images)
    }

    #[test]
    fn what_earlier_calls_wrote_may_be_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("new");
        claim(&to, &[image("a")], false).unwrap();
        std::fs::write(to.join("a.nii"), "ours, without a record").unwrap();
        std::fs::write(to.join("b.nii"), "a thesis").unwrap();
        claim(&to, &[image("a")], false).unwrap();
        let text = |result: Result<Summary>| {
            let text = result.map(|_| ()).unwrap_err().to_string();
            text.replace(to.to_str().unwrap(), "TO")
        };
        insta::assert_snapshot!(text(claim(&to, &[image("a"), image("b")], false)), @"
        error: `TO/b.nii` exists and was not written by `scrimp predict`, so it is not replaced

        hint: write into another folder with `--to DIR`, or move that file elsewhere
        ");
        let alike = [image("c"), image("c.uncertainty")];
        insta::assert_snapshot!(text(claim(&to, &alike, true)), @"
        error: two images would write `TO/c.uncertainty.nii`

        hint: rename one of them
        ");
        std::fs::write(to.join("summary.json"), "{}").unwrap();
        assert!(text(claim(&to, &[image("a")], false)).contains("summary.json` exists"));
    }

    #[test]
    fn the_table_has_volumes_with_units_and_keeps_cases_of_earlier_calls() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = |volume_ml| Outcome {
            structures: vec![StructureVolume {
                structure: "left, ventricle".into(),
                voxels: 20,
                volume_ml,
            }],
            seconds: 1.25,
            inference_seconds: 0.75,
            export_seconds: 0.125,
            peak_memory_bytes: Some(4096),
        };
        let mut summary = claim(folder.path(), &[image("a")], false).unwrap();
        summary.put("a", Ok(outcome(Some(0.25))));
        summary.write().unwrap();
        let mut summary = claim(folder.path(), &[image("b"), image("c")], false).unwrap();
        summary.put("b", Ok(outcome(None)));
        summary.put("c", Err("`c.nii` is damaged".into()));
        summary.write().unwrap();
        let table = std::fs::read_to_string(folder.path().join("summary.csv")).unwrap();
        insta::assert_snapshot!(table, @r#"
        case,image,seconds,inference_seconds,export_seconds,peak_memory_bytes,"left, ventricle_voxels","left, ventricle_ml"
        a,in/a.nii,1.25,0.75,0.12,4096,20,0.2500
        b,in/b.nii,1.25,0.75,0.12,4096,20,
        "#);
        let json = std::fs::read_to_string(folder.path().join("summary.json")).unwrap();
        assert!(json.contains("is damaged"));
    }
}
