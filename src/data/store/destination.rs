//! Where a packed file is written: what may be replaced, and the file beside it that grows meanwhile.
//!
//! Knows names and files, and of their contents only whether they are a packed data set.

use super::read::is_packed;
use crate::error::{Context, Failure, Result};
use crate::files::{self, FreshFile};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What becomes of a packed data set that lies where another one is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced when the new one is complete.
    Replaced,
    /// It stays, and writing is refused.
    Refused,
}

/// A name that a packed file will get. Nothing but a packed data set is ever replaced.
#[derive(Debug)]
pub struct Destination {
    path: PathBuf,
    existing: Existing,
    replaces: bool,
    pub(super) partial: FreshFile,
    /// Locked for as long as somebody still writes.
    lock: File,
}

impl Destination {
    /// Takes `to`, before anything is read: refuses what is there unless it is a packed data set that
    /// may be replaced, and a folder that cannot be written to. Folders that are missing are made.
    ///
    /// A link to a packed data set stays, and what it leads to is replaced.
    pub fn claim(to: &Path, existing: Existing) -> Result<Self> {
        let cannot = || format!("cannot write `{}`", to.display());
        if to.file_name().is_none() || to.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(Failure::usage(format!("`{}` is not the name of a file", to.display()))
                .hint("name the file to write, for example `--to acdc.h5`"));
        }
        let replaces = admit(to, existing)?;
        let path =
            if to.is_symlink() { fs::canonicalize(to).context(cannot)? } else { to.to_owned() };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).context(cannot).map_err(elsewhere)?;
        }
        remove_abandoned(&path);
        let partial = FreshFile::beside(&path).context(cannot).map_err(elsewhere)?;
        let lock = File::open(partial.partial()).context(cannot)?;
        let claimed = Self { path, existing, replaces, partial, lock };
        claimed.lock();
        Ok(claimed)
    }

    /// Whether a packed data set lies there that will be replaced.
    pub fn replaces(&self) -> bool {
        self.replaces
    }

    /// The name that the file will get.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `create` without the lock, since HDF5 may have been told by the environment to take one itself.
    pub(super) fn unlocked<T>(&self, create: impl FnOnce(&Path) -> T) -> T {
        drop(self.lock.unlock());
        let created = create(self.partial.partial());
        self.lock();
        created
    }

    /// On file systems without locks nobody finds out that somebody writes, and nobody removes anything.
    fn lock(&self) {
        drop(self.lock.try_lock());
    }

    /// Gives the complete file its name, after another look at what lies there.
    pub(super) fn take_place(self) -> Result<()> {
        admit(&self.path, self.existing)?;
        let cannot = || format!("cannot write `{}`", self.path.display());
        self.partial.take_place_durably().context(cannot)
    }
}

fn elsewhere(failure: Failure) -> Failure {
    failure.hint("name a file in a folder that can be written to with `--to FILE`")
}

/// Whether a packed data set lies at `to`, `false` where nothing does; refuses all else.
fn admit(to: &Path, existing: Existing) -> Result<bool> {
    let another = "name another file with `--to FILE`, or remove this one first";
    let refuse =
        |what: &str| Err(Failure::usage(format!("`{}` {what}", to.display())).hint(another));
    let kind = match fs::symlink_metadata(to) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => {
            return Err(Failure::new(format!("cannot look at `{}`", to.display())).because(&error));
        }
    };
    if existing == Existing::Refused {
        return refuse("exists already");
    }
    if kind.is_dir() {
        return refuse("is a folder, expected the name of a file");
    }
    if kind.is_symlink() && !to.exists() {
        return refuse("is a link that leads nowhere, expected a name that is free");
    }
    match is_packed(to) {
        Ok(true) => Ok(true),
        Ok(false) => refuse("exists and is no packed data set, so it is not replaced"),
        Err(error) => {
            refuse(&format!("exists and cannot be read ({error}), so it is not replaced"))
        }
    }
}

/// Removes what killed processes left of writing `path`; what somebody still writes is locked.
fn remove_abandoned(path: &Path) {
    for entry in files::partials_of(path) {
        if files::open(&entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // Whoever may not remove it is not hindered by it.
            drop(fs::remove_file(entry.path()));
        }
    }
}
