//! The folder of checkpoints: what lies in it, and the few acts that change it.
//!
//! Only one process at a time changes it, which the guard knows. A directory `step-00012000` is a
//! checkpoint that was complete once, and one with `.tmp` behind it is being written or removed. What has
//! another name belongs to somebody else and is neither looked at nor touched.

use super::manifest::{Manifest, read_manifest, step_of};
use super::{Checkpoint, FileDigest, Retention, doomed, manifest::MANIFEST};
use crate::error::{Context, Failure, Result};
use crate::files;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of a directory that is being written or removed; what a process left behind is garbage.
const UNFINISHED: &str = "tmp";
/// Of what a run did not continue from, although it was newer.
const SET_ASIDE: &str = "set-aside";
const MAKE_ROOM: &str = "make room there; the same command goes on from the newest checkpoint";

/// Refuses to go on where the folder belongs to another process by now.
pub type Guard = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// Acts on files of a checkpoint that fail where there is no room, among other reasons.
pub(super) trait Stored<T> {
    /// Says what could not be done, and to make room where that would help.
    fn stored(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Stored<T> for io::Result<T> {
    fn stored(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let failure = Failure::new(doing()).because(&error);
            match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                    failure.hint(MAKE_ROOM)
                }
                _ => failure,
            }
        })
    }
}

/// Flushes a file or directory to the disk.
fn flush(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .stored(|| format!("cannot flush `{}` to disk", path.display()))
}

/// The checkpoints of one run.
#[derive(Clone)]
pub struct CheckpointStore {
    folder: PathBuf,
    guard: Guard,
}

impl fmt::Debug for CheckpointStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointStore").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// What a name in the folder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Saved,
    Unfinished,
    SetAside,
}

/// The role of a name of ours and its step; `None`: it belongs to somebody else.
fn role_of(path: &Path) -> Option<(u64, Role)> {
    let (step, name) = (step_of(path)?, path.file_name()?.to_str()?);
    let role = match name.strip_prefix(&name_of(step))? {
        "" => Role::Saved,
        extension => match extension.strip_prefix('.')? {
            UNFINISHED => Role::Unfinished,
            SET_ASIDE => Role::SetAside,
            other => {
                let number = other.strip_prefix(SET_ASIDE)?.strip_prefix('-')?;
                number.bytes().all(|digit| digit.is_ascii_digit()).then_some(Role::SetAside)?
            }
        },
    };
    Some((step, role))
}

fn name_of(step: u64) -> String {
    format!("step-{step:08}")
}

/// Whether there is a directory, and no link to one.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

impl CheckpointStore {
    /// Keeps checkpoints in `folder`, which is made by the first save.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), guard: Arc::new(|| Ok(())) }
    }

    /// The same, asking `guard` before each act that changes the folder.
    #[must_use]
    pub fn guarded(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// Where the checkpoint of a step lies.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(name_of(step))
    }

    /// Where the checkpoint of a step is being written.
    pub(super) fn unfinished_path(&self, step: u64) -> PathBuf {
        self.path(step).with_extension(UNFINISHED)
    }

    /// Everything in the folder that has a name of ours, in the order of steps. A folder that is not
    /// there holds nothing; one that cannot be read is a failure.
    fn entries(&self) -> Result<Vec<(u64, Role, PathBuf)>> {
        let refused = || format!("cannot list the checkpoints in `{}`", self.folder.display());
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(refused)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.context(refused)?.path();
            if let Some((step, role)) = role_of(&path) {
                found.push((step, role, path));
            }
        }
        found.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        Ok(found)
    }

    fn with_role(&self, wanted: Role) -> Result<Vec<PathBuf>> {
        let entries = self.entries()?.into_iter().filter(|(_, role, _)| *role == wanted);
        Ok(entries.map(|(_, _, path)| path).collect())
    }

    /// All that is named like a checkpoint, sound or not, oldest first.
    pub fn paths(&self) -> Result<Vec<PathBuf>> {
        self.with_role(Role::Saved)
    }

    /// Directories that a process was writing or removing when it ended.
    pub fn unfinished(&self) -> Result<Vec<PathBuf>> {
        let mut paths = self.with_role(Role::Unfinished)?;
        paths.retain(|path| is_directory(path));
        Ok(paths)
    }

    /// What a run did not continue from, although it was newer.
    pub fn set_aside(&self) -> Result<Vec<PathBuf>> {
        self.with_role(Role::SetAside)
    }

    /// Removes what is unfinished, and returns it. For a process that is about to write here.
    pub fn sweep(&self) -> Result<Vec<PathBuf>> {
        let unfinished = self.unfinished()?;
        for path in &unfinished {
            (self.guard)()?;
            fs::remove_dir_all(path).context(|| {
                format!("cannot remove the unfinished checkpoint `{}`", path.display())
            })?;
        }
        Ok(unfinished)
    }

    /// Renames checkpoints of later steps than `step`, all of them without one, so that no run takes
    /// them for its own, and whatever else is in the way of theirs; returns the old names.
    pub fn set_aside_after(&self, step: Option<u64>) -> Result<Vec<PathBuf>> {
        let mut later = self.entries()?;
        later.retain(|(found, role, path)| match role {
            Role::Saved => Some(*found) > step,
            Role::Unfinished => !is_directory(path),
            Role::SetAside => false,
        });
        let later: Vec<PathBuf> = later.into_iter().map(|(_, _, path)| path).collect();
        for path in &later {
            (self.guard)()?;
            fs::rename(path, free_name(path))
                .context(|| format!("cannot set `{}` aside", path.display()))?;
        }
        Ok(later)
    }

    /// Makes the shards that lie ready under the temporary name a checkpoint.
    pub(super) fn commit(&self, manifest: &Manifest) -> Result<()> {
        let step = manifest.run.step;
        let (unfinished, path) = (self.unfinished_path(step), self.path(step));
        manifest.files.iter().try_for_each(|file| is_here(&unfinished, file))?;
        (self.guard)()?;
        let (text, table) = (manifest.sealed()?, unfinished.join(MANIFEST));
        files::replace_durably(&table, text.as_bytes())
            .stored(|| format!("cannot write `{}`", table.display()))?;
        (self.guard)()?;
        fs::rename(&unfinished, &path)
            .stored(|| format!("cannot rename `{}`", unfinished.display()))?;
        flush(&self.folder)?;
        // The folder itself may be new.
        self.folder.parent().map_or(Ok(()), flush)
    }

    /// Removes what there is of a checkpoint that could not be saved, where that is possible.
    pub(super) fn discard(&self, step: u64) {
        if (self.guard)().is_ok() {
            let _ = fs::remove_dir_all(self.unfinished_path(step));
        }
    }

    /// Removes what the retention gives up and returns it; what cannot be read is left alone. Failing to
    /// remove is no failure: the next call tries again.
    pub fn prune(&self, retention: Retention, best: &[u64]) -> Vec<PathBuf> {
        let paths = self.paths().unwrap_or_default();
        let found = paths.iter().filter_map(|path| read_manifest(path).ok());
        let steps: Vec<u64> = found.map(|Checkpoint { manifest, .. }| manifest.run.step).collect();
        let paths = doomed(&steps, retention, best).into_iter().map(|step| self.path(step));
        paths.filter(|path| self.remove(path)).collect()
    }

    /// Removes the directory of a checkpoint, or a link to one; true if it is gone. A process that dies
    /// here leaves no half of one.
    pub fn remove(&self, path: &Path) -> bool {
        let unfinished = path.with_extension(UNFINISHED);
        let is_ours = path.is_dir() && (self.guard)().is_ok();
        is_ours
            && fs::rename(path, &unfinished).and_then(|()| fs::remove_dir_all(&unfinished)).is_ok()
    }
}

/// The first name for what is set aside that nothing has yet.
fn free_name(path: &Path) -> PathBuf {
    let is_free = |name: &PathBuf| fs::symlink_metadata(name).is_err();
    let first = path.with_extension(SET_ASIDE);
    let others = (2u64..).map(|number| path.with_extension(format!("{SET_ASIDE}-{number}")));
    std::iter::once(first.clone()).chain(others).find(is_free).unwrap_or(first)
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
