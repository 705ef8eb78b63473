//! The folder that a run is written into: its file system, room, speed and locks.
//!
//! Whether that is enough is not judged here. What is written is removed again.

use crate::doctor::observation::{Folder, Lock, Space};
use crate::error::{Context, Failure, Result};
use crate::files;
use crate::runlog::directory::RunDirectory;
use rustix::fs::statvfs;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Bytes that are written to see how long it takes.
const WRITTEN: usize = 1 << 20;
/// Where the system lists what is mounted.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Looks at the directory of a run, or at the nearest folder above it that is there.
pub fn look(run: &RunDirectory) -> Result<Folder> {
    let asked = run.root();
    let tried = nearest(asked)?;
    let cannot = || format!("cannot write into `{}`", tried.display());
    let space = space(&tried)?;
    let path = tried.join(TrialFile::name(files::random_number().context(cannot)?));
    let start = Instant::now();
    let written = files::replace_durably(&path, &vec![7; WRITTEN]).context(cannot);
    let durable_ms = start.elapsed().as_secs_f64() * 1e3;
    let file = written.map_err(elsewhere).and_then(|()| TrialFile::locked(path))?;
    let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
    let owner = run.writer().map(|sign| format!("`{}`, process {}", sign.host, sign.pid));
    Ok(Folder {
        asked: asked.display().to_string(),
        kind: kind_of(&mounts, &tried.canonicalize().unwrap_or_else(|_| tried.clone())),
        tried: tried.display().to_string(),
        space,
        durable_ms,
        lock: file.lock,
        owner,
    })
}

fn elsewhere(failure: Failure) -> Failure {
    failure.hint("choose another directory with `--run DIR`")
}

/// The folder itself, or the nearest one above it that is there.
fn nearest(folder: &Path) -> Result<PathBuf> {
    let here = Path::new(".");
    let above = |folder: &Path| {
        let parent = folder.parent().unwrap_or(here);
        if parent.as_os_str().is_empty() { here.to_owned() } else { parent.to_owned() }
    };
    let mut next = folder.to_owned();
    loop {
        match fs::metadata(&next) {
            Ok(found) if found.is_dir() => return Ok(next),
            Ok(_) => {
                let message = format!("`{}` is a file, expected a folder", next.display());
                return Err(elsewhere(Failure::new(message)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && next != here => {
                next = above(&next);
            }
            Err(error) => {
                let message = format!("cannot look at `{}`", next.display());
                return Err(elsewhere(Failure::new(message).because(&error)));
            }
        }
    }
}

/// Room on the file system of a folder.
pub fn space(folder: &Path) -> Result<Space> {
    let found = statvfs(folder)
        .context(|| format!("cannot see how much room there is in `{}`", folder.display()))?;
    Ok(Space {
        total_bytes: found.f_blocks * found.f_frsize,
        free_bytes: found.f_bavail * found.f_frsize,
        free_files: (found.f_files > 0).then_some(found.f_favail),
    })
}

/// The file system of a path without links, by a list as the system gives it; `unknown` where that does not tell.
fn kind_of(mounts: &str, path: &Path) -> String {
    let of_line = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        // Spaces in names are written as numbers.
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        let kind = system.split(' ').next()?;
        path.starts_with(&point).then(|| (point.len(), kind.to_owned()))
    };
    // Of two on one point the later one hides the earlier.
    let found = mounts.lines().filter_map(of_line).max_by_key(|(length, _)| *length);
    found.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

/// What comes of locking a file.
pub fn try_lock(file: &File) -> Lock {
    match file.try_lock() {
        Ok(()) => Lock::Held,
        Err(TryLockError::WouldBlock) => Lock::Busy,
        Err(TryLockError::Error(_)) => Lock::Absent,
    }
}

/// A file that is locked as far as its file system can, and removed when it is dropped.
#[derive(Debug)]
pub struct TrialFile {
    path: PathBuf,
    /// What came of locking it.
    pub lock: Lock,
    _file: File,
}

impl TrialFile {
    /// What it is called.
    pub fn name(number: u64) -> String {
        format!(".scrimp-doctor-{number:016x}")
    }

    /// Puts it to `path`, whole, by a rename.
    pub fn locked(path: PathBuf) -> Result<Self> {
        let cannot = || format!("cannot write `{}`", path.display());
        files::replace(&path, b"made by scrimp doctor\n").context(cannot).map_err(elsewhere)?;
        let file = files::open(&path).context(cannot)?;
        Ok(Self { lock: try_lock(&file), path, _file: file })
    }
}

impl Drop for TrialFile {
    fn drop(&mut self) {
        // Who cannot remove it has nobody to tell.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_that_above_it_and_nothing_stays() {
        let root = tempfile::tempdir().unwrap();
        let seen = look(&RunDirectory::new(root.path().join("runs/a"))).unwrap();
        assert_eq!(seen.tried, root.path().display().to_string());
        assert!(seen.space.free_bytes <= seen.space.total_bytes && seen.durable_ms > 0.0);
        assert!(seen.owner.is_none() && seen.lock != Lock::Busy);
        assert_eq!(root.path().read_dir().unwrap().count(), 0);
        assert_eq!(nearest(Path::new("no such/folder")).unwrap(), Path::new("."));
    }

    #[test]
    fn where_nothing_can_be_written_says_so() {
        let failure = look(&RunDirectory::new("/proc/runs")).unwrap_err();
        assert_eq!(failure.message(), "cannot write into `/proc`");
        assert_eq!(failure.hints(), ["choose another directory with `--run DIR`"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = look(&RunDirectory::new(file.path().join("a"))).unwrap_err();
        let text = failure.sentence();
        assert!(text.contains("expected a folder") || text.contains("Not a directory"), "{text}");
    }

    #[test]
    fn the_nearest_mount_names_the_file_system() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      40 22 0:35 / /data rw,nosuid shared:1 - nfs4 server:/data rw\n\
                      41 40 0:36 / /data/fast\\040disk rw - lustre a@tcp:/b rw\n";
        let kind = |path: &str| kind_of(mounts, Path::new(path));
        assert_eq!(kind("/data/runs"), "nfs4");
        assert_eq!(kind("/data/fast disk/x"), "lustre");
        assert_eq!(kind("/database"), "ext4");
        assert_eq!(kind_of("", Path::new("/")), "unknown");
    }

    #[test]
    fn a_file_is_locked_for_others_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TrialFile::name(7));
        let trial = TrialFile::locked(path.clone()).unwrap();
        assert_eq!(trial.lock, Lock::Held);
        assert_eq!(try_lock(&File::open(&path).unwrap()), Lock::Busy);
        drop(trial);
        assert!(!path.exists());
    }
}
