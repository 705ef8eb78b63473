//! Locks on a run directory, as far as its file system gives them: the system frees them when the process
//! that has them ends, however it ends.
//!
//! What having none of them means is not known here.

use super::directory::RunDirectory;
use crate::files;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Locks on a directory and on the file in it, as far as the file system gives them.
#[derive(Debug)]
pub(super) struct Locks {
    /// Open for as long as the claim lives, so that its number is nobody else's.
    root: File,
    /// Device and number of the directory.
    pub(super) identity: (u64, u64),
    /// Whether the directory itself is locked.
    pub(super) has_directory: bool,
    /// The file, while it is locked.
    file: Option<File>,
}

impl Locks {
    /// None of them yet.
    pub(super) fn open(directory: &RunDirectory) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = File::from(open(directory.root(), flags, Mode::empty())?);
        let identity = identity(&root.metadata()?);
        Ok(Self { root, identity, has_directory: false, file: None })
    }

    /// Takes what the file system gives; false where another process has one of them.
    pub(super) fn try_take(&mut self, directory: &RunDirectory) -> bool {
        match try_lock(&self.root) {
            Lock::Busy => return false,
            lock => self.has_directory = lock == Lock::Held,
        }
        let file = open_lock(&directory.lock());
        match file.as_ref().map_or(Lock::Absent, try_lock) {
            Lock::Busy => return false,
            Lock::Held => self.file = file,
            Lock::Absent => {}
        }
        true
    }

    /// Whether there is any.
    pub(super) fn are_held(&self) -> bool {
        self.has_directory || self.file.is_some()
    }

    /// Locks the file again where another one has taken its place, with the folder around it.
    pub(super) fn renew(&mut self, directory: &RunDirectory) {
        let ours = self.file.as_ref().and_then(|file| Some(identity(&file.metadata().ok()?)));
        let there = fs::metadata(directory.lock()).ok().map(|there| identity(&there));
        if ours.is_some() && ours != there {
            let file = open_lock(&directory.lock());
            self.file = file.filter(|file| try_lock(file) == Lock::Held);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    Held,
    Busy,
    /// The file system gives none.
    Absent,
}

fn try_lock(file: &File) -> Lock {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Lock::Held,
        Err(Errno::WOULDBLOCK) => Lock::Busy,
        Err(_) => Lock::Absent,
    }
}

/// The file to be locked; for reading where it belongs to somebody else.
fn open_lock(path: &Path) -> Option<File> {
    files::open_to_append(path).or_else(|_| files::open(path)).ok()
}

/// Device and number of a file or folder.
pub(super) fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
