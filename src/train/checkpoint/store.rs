//! The folder of checkpoints: what lies in it, and the few acts that change it.
//!
//! Only one process at a time changes it. A name of the form `step-00012000` is a checkpoint that
//! was complete once; anything else is not looked at when a run continues.

use super::{Checkpoint, FileDigest, MANIFEST, Manifest, Retention, doomed, read_manifest};
use crate::error::{Context, Failure, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Of a directory that is being written or removed; what a process left behind is garbage.
const UNFINISHED: &str = "tmp";
/// Of a directory that a run did not continue from, although it was newer.
const SET_ASIDE: &str = "set-aside";

/// Flushes a file or directory to the disk.
fn flush(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .context(|| format!("cannot flush `{}` to disk", path.display()))
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    folder: PathBuf,
}

impl CheckpointStore {
    /// Keeps checkpoints in `folder`, which is made by the first save.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the checkpoint of a step lies.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:08}"))
    }

    /// Where the checkpoint of a step is being written.
    pub(super) fn unfinished_path(&self, step: u64) -> PathBuf {
        self.path(step).with_extension(UNFINISHED)
    }

    /// Everything in the folder with its extension, in the order of names.
    fn entries(&self) -> Vec<(PathBuf, Option<String>)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let extension = |path: &PathBuf| Some(path.extension()?.to_string_lossy().into_owned());
        paths.into_iter().map(|path| (path.clone(), extension(&path))).collect()
    }

    /// The directories of all checkpoints, sound or not, oldest first.
    pub fn paths(&self) -> Vec<PathBuf> {
        let is_saved = |path: &Path| step_of(path).is_some_and(|step| self.path(step) == path);
        self.entries().into_iter().map(|(path, _)| path).filter(|path| is_saved(path)).collect()
    }

    /// Directories that a process was writing or removing when it ended.
    pub fn unfinished(&self) -> Vec<PathBuf> {
        self.with_extension(UNFINISHED)
    }

    /// Checkpoints that a run did not continue from, although they were newer.
    pub fn set_aside(&self) -> Vec<PathBuf> {
        self.with_extension(SET_ASIDE)
    }

    fn with_extension(&self, wanted: &str) -> Vec<PathBuf> {
        let entries = self.entries().into_iter();
        entries
            .filter(|(_, found)| found.as_deref() == Some(wanted))
            .map(|(path, _)| path)
            .collect()
    }

    /// All checkpoints with a readable manifest, oldest first.
    pub fn list(&self) -> Vec<Checkpoint> {
        self.paths().iter().filter_map(|path| read_manifest(path).ok()).collect()
    }

    /// Removes what is unfinished, and returns it. For a process that is about to write here.
    pub fn sweep(&self) -> Result<Vec<PathBuf>> {
        let unfinished = self.unfinished();
        for path in &unfinished {
            fs::remove_dir_all(path).context(|| {
                format!("cannot remove the unfinished checkpoint `{}`", path.display())
            })?;
        }
        Ok(unfinished)
    }

    /// Renames checkpoints of later steps than `step`, all of them without one, so that no run takes
    /// them for its own; returns the old names.
    pub fn set_aside_after(&self, step: Option<u64>) -> Result<Vec<PathBuf>> {
        let mut later = self.paths();
        later.retain(|path| step_of(path) > step);
        for path in &later {
            let aside = path.with_extension(SET_ASIDE);
            let _ = fs::remove_dir_all(&aside);
            fs::rename(path, &aside)
                .context(|| format!("cannot set `{}` aside", path.display()))?;
        }
        Ok(later)
    }

    /// Makes the shards that lie ready under the temporary name a checkpoint.
    pub(super) fn commit(&self, manifest: &Manifest) -> Result<()> {
        let step = manifest.run.step;
        let (unfinished, path) = (self.unfinished_path(step), self.path(step));
        manifest.files.iter().try_for_each(|file| is_here(&unfinished, file))?;
        let text =
            serde_json::to_string_pretty(manifest).context(|| "cannot write the manifest")?;
        let table = unfinished.join(MANIFEST);
        File::create(&table)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .context(|| format!("cannot write `{}`", table.display()))?;
        flush(&unfinished)?;
        fs::rename(&unfinished, &path)
            .context(|| format!("cannot rename `{}`", unfinished.display()))?;
        flush(&self.folder)?;
        // The folder itself may be new.
        self.folder.parent().map_or(Ok(()), flush)
    }

    /// Removes what there is of a checkpoint that could not be saved, where that is possible.
    pub(super) fn discard(&self, step: u64) {
        let _ = fs::remove_dir_all(self.unfinished_path(step));
    }

    /// Removes what the retention gives up and returns it. Failing to remove is no failure: the
    /// next call tries again.
    pub fn prune(&self, retention: Retention, best: &[u64]) -> Vec<PathBuf> {
        let steps: Vec<u64> = self.list().iter().map(|found| found.manifest.run.step).collect();
        let paths = doomed(&steps, retention, best).into_iter().map(|step| self.path(step));
        paths.filter(|path| self.remove(path)).collect()
    }

    /// Removes a checkpoint; true if it is gone. A process that dies here leaves no half of one.
    pub fn remove(&self, path: &Path) -> bool {
        let unfinished = path.with_extension(UNFINISHED);
        fs::rename(path, &unfinished).and_then(|()| fs::remove_dir_all(&unfinished)).is_ok()
    }
}

/// The step in the name of a checkpoint's directory.
fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// Refuses a shard that its rank wrote, but not to this folder.
fn is_here(folder: &Path, file: &FileDigest) -> Result<()> {
    let path = folder.join(&file.name);
    let found = fs::metadata(&path).map(|data| data.len());
    if found.as_ref().is_ok_and(|bytes| *bytes == file.bytes) {
        return Ok(());
    }
    let found = found.map_or_else(|error| error.to_string(), |bytes| format!("{bytes} bytes"));
    Err(Failure::new(format!(
        "`{}` was written with {} bytes, but rank 0 finds: {found}",
        path.display(),
        file.bytes
    ))
    .hint("put the run directory, `--run DIR`, where all nodes see the same files"))
}
