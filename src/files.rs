//! Files that other processes and other users may touch: written whole or not at all, read up to a limit.
//!
//! Every small file of a run goes through here, so that there is one place that decides about links, pipes
//! and half-written files. What the bytes mean is not known here.

use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The largest small file that scrimp reads whole: requests, signs of life, reports, configurations, 4 MiB.
pub const SMALL_BYTES: u64 = 4 << 20;

/// Ending of a file that is being written beside the one whose place it will take.
const PARTIAL: &str = "partial";

/// A file under a random name beside `path`, which takes the place of `path` when it is complete and
/// vanishes when it is dropped before.
///
/// It is created anew (`O_EXCL`), so that no link that lies there is followed, and a link at `path` is
/// replaced and not written through.
#[derive(Debug)]
pub struct FreshFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

impl FreshFile {
    /// An empty file beside `path`, whose folder must exist.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let partial = partial_path(path)?;
        let file = File::options().write(true).read(true).create_new(true).open(&partial)?;
        Ok(Self { path: path.to_owned(), partial, file })
    }

    /// Where it lies until it takes its place.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Takes the place of `path`. Readers see the former file or this one, never half of one; a crash of
    /// the machine may lose both.
    pub fn take_place(self) -> io::Result<()> {
        fs::rename(&self.partial, &self.path)
    }

    /// Takes the place of `path` and is on the disk when this returns, name included.
    pub fn take_place_durably(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        sync_folder_of(&self.path)
    }
}

impl Write for FreshFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for FreshFile {
    fn drop(&mut self) {
        // After a rename nothing has this name any more, and otherwise there is nobody to tell.
        drop(fs::remove_file(&self.partial));
    }
}

/// A folder under a random name beside `path`, which gets the name `path` when everything is in it and vanishes with
/// all that is in it when it is dropped before.
#[derive(Debug)]
pub struct FreshFolder {
    path: PathBuf,
    partial: PathBuf,
    /// Locked for as long as somebody still writes.
    _lock: File,
}

impl FreshFolder {
    /// An empty folder beside `path`, in a folder that exists. Removes what ended processes left of writing `path`.
    pub fn beside(path: &Path) -> io::Result<Self> {
        remove_abandoned_folders(path);
        let partial = partial_path(path)?;
        fs::create_dir(&partial)?;
        let lock = File::open(&partial)?;
        // On file systems without locks nobody finds out that somebody writes, and nobody removes anything.
        drop(lock.try_lock());
        Ok(Self { path: path.to_owned(), partial, _lock: lock })
    }

    /// Where it lies until it gets its name.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Gets its name, which is on the disk when this returns. Refuses to replace anything.
    pub fn take_place_durably(self) -> io::Result<()> {
        if fs::symlink_metadata(&self.path).is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, "it exists already"));
        }
        File::open(&self.partial)?.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        sync_folder_of(&self.path)
    }
}

impl Drop for FreshFolder {
    fn drop(&mut self) {
        // After a rename nothing has this name any more, and otherwise there is nobody to tell.
        drop(fs::remove_dir_all(&self.partial));
    }
}

/// What lies beside `path` under the names of what is being written for it.
pub fn partials_of(path: &Path) -> Vec<fs::DirEntry> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let begins = [b".", name.as_encoded_bytes(), b"."].concat();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let is_ours = |entry: &fs::DirEntry| {
        entry.file_name().as_encoded_bytes().starts_with(&begins) && is_partial(&entry.path())
    };
    entries.filter(is_ours).collect()
}

/// Removes folders that were being written for `path` and that nobody holds locked.
fn remove_abandoned_folders(path: &Path) {
    for entry in partials_of(path) {
        let is_ours = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let lock = File::open(entry.path()).ok().filter(|_| is_ours);
        if lock.is_some_and(|lock| lock.try_lock().is_ok()) {
            // Whoever may not remove it is not hindered by it.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// A name beside `path` that nobody can foresee: `.NAME.0123456789abcdef.partial`.
pub fn partial_path(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "it is not the name of a file"))?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(format!(".{:016x}.{PARTIAL}", random_number()?));
    Ok(path.with_file_name(partial))
}

/// A number that nobody can foresee, from the system.
pub fn random_number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Whether `path` is named like a file that was being written when its process ended.
pub fn is_partial(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number =
        name.strip_prefix('.').and_then(|name| name.strip_suffix(PARTIAL)?.strip_suffix('.'));
    let number = number.and_then(|name| name.rsplit('.').next());
    number.is_some_and(|number| number.len() == 16 && number.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Fails where a file lies at `path` that `is_ours` does not recognise by its first bytes, 4 KiB at most: to
/// replace it would destroy something of somebody else. Nothing, and a file without any bytes, may be
/// replaced.
pub fn refuse_foreign(path: &Path, is_ours: impl FnOnce(&[u8]) -> bool) -> io::Result<()> {
    let file = match open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut start = Vec::new();
    file.take(4096).read_to_end(&mut start)?;
    if start.is_empty() || is_ours(&start) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        "it exists and is something else, which would be lost",
    ))
}

/// Removes what ended processes left half-written in `folder`.
pub fn remove_partial(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_partial(&entry.path())) {
        // Whoever may not remove it is not hindered by it.
        drop(fs::remove_file(entry.path()));
    }
}

/// Replaces the file at `path` by one with these bytes: readers see all of it or nothing.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = FreshFile::beside(path)?;
    fresh.write_all(bytes)?;
    fresh.take_place()
}

/// Replaces the file at `path` as [`replace`] does; it is on the disk when this returns.
pub fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = FreshFile::beside(path)?;
    fresh.write_all(bytes)?;
    fresh.take_place_durably()
}

/// Brings the names in the folder of `path` to the disk.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Opens a regular file for reading, through links; never waits, as opening a pipe does, and refuses
/// whatever is no file.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    only_regular(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Opens a regular file for appending and reading, creating it where it is missing; follows no link.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC
        | OFlags::NOCTTY;
    only_regular(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?))
}

/// Reads a regular file that has at most `limit_bytes`.
pub fn read_at_most(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    read_to_limit(open(path)?, limit_bytes)
}

fn read_to_limit(file: File, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::new(
            ErrorKind::FileTooLarge,
            format!("it has more than {limit_bytes} bytes"),
        ));
    }
    Ok(bytes)
}

/// Reads a regular file of this process's user that has at most `limit_bytes`; follows no link.
pub fn read_own(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = only_regular(File::from(rustix::fs::open(path, flags, Mode::empty())?))?;
    if file.metadata()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(Error::new(ErrorKind::PermissionDenied, "it belongs to another user"));
    }
    read_to_limit(file, limit_bytes)
}

/// Reads a regular file of UTF-8 text that has at most `limit_bytes`.
pub fn read_text(path: &Path, limit_bytes: u64) -> io::Result<String> {
    String::from_utf8(read_at_most(path, limit_bytes)?)
        .map_err(|_not_utf8| Error::new(ErrorKind::InvalidData, "it is no UTF-8 text"))
}

fn only_regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("it is {what}, expected a file")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sign.json");
        for bytes in [b"one".as_slice(), b"another"] {
            replace(&path, bytes).unwrap();
            assert_eq!(read_at_most(&path, 7).unwrap(), bytes);
        }
        replace_durably(&path, b"third").unwrap();
        assert_eq!(read_text(&path, 7).unwrap(), "third");
        assert_eq!(names(folder.path()), ["sign.json"]);
    }

    #[test]
    fn a_fresh_file_that_is_dropped_leaves_the_former_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        replace(&path, b"former").unwrap();
        let mut fresh = FreshFile::beside(&path).unwrap();
        fresh.write_all(b"half").unwrap();
        assert!(is_partial(fresh.partial()));
        drop(fresh);
        assert_eq!(fs::read(&path).unwrap(), b"former");
        assert_eq!(names(folder.path()), ["table.csv"]);
    }

    #[test]
    fn a_folder_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Dataset001_A");
        let fresh = FreshFolder::beside(&path).unwrap();
        fs::write(fresh.partial().join("a"), "x").unwrap();
        // Another writer leaves it alone, and a later one removes what nobody writes any more.
        drop(FreshFolder::beside(&path).unwrap());
        assert!(fresh.partial().join("a").exists());
        fs::create_dir(partial_path(&path).unwrap()).unwrap();
        let other = FreshFolder::beside(&path).unwrap();
        assert_eq!(names(folder.path()).len(), 2);
        fresh.take_place_durably().unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"x");
        assert_eq!(other.take_place_durably().unwrap_err().to_string(), "it exists already");
        assert_eq!(names(folder.path()), ["Dataset001_A"]);
    }

    #[test]
    fn no_link_is_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::write(&precious, "mine").unwrap();
        let link = folder.path().join("alive.json");
        symlink(&precious, &link).unwrap();
        replace(&link, b"sign").unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"mine");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        let log = folder.path().join("rank-0000.jsonl");
        symlink(&precious, &log).unwrap();
        assert!(open_to_append(&log).is_err());
        assert_eq!(fs::read(&precious).unwrap(), b"mine");
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
        for (path, expected) in [
            (pipe.as_path(), "it is a named pipe, expected a file"),
            (Path::new("/dev/zero"), "it is a device, expected a file"),
            (folder.path(), "it is a folder, expected a file"),
        ] {
            assert_eq!(read_at_most(path, 9).unwrap_err().to_string(), expected);
        }
        assert_eq!(
            open_to_append(&pipe).unwrap_err().to_string(),
            "it is a named pipe, expected a file"
        );
    }

    #[test]
    fn only_a_file_of_this_user_at_the_very_place_is_read_as_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels");
        fs::write(&path, "code").unwrap();
        assert_eq!(read_own(&path, 4).unwrap(), b"code");
        assert_eq!(read_own(&path, 3).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read_own(&link, 4).is_err());
        // Of root, or with root's rights given to somebody else.
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            path.as_path()
        } else {
            Path::new("/etc/passwd")
        };
        let refused = read_own(foreign, 1 << 20).unwrap_err();
        assert_eq!(refused.to_string(), "it belongs to another user");
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stop");
        fs::write(&path, [b' '; 8]).unwrap();
        assert_eq!(read_at_most(&path, 8).unwrap().len(), 8);
        assert_eq!(read_at_most(&path, 7).unwrap_err().kind(), ErrorKind::FileTooLarge);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 8).unwrap_err().to_string(), "it is no UTF-8 text");
    }

    #[test]
    fn only_what_is_known_may_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        let is_table = |start: &[u8]| start.starts_with(b"case,");
        refuse_foreign(&path, is_table).unwrap();
        for (bytes, is_refused) in [(&b""[..], false), (b"case,dice\n", false), (b"thesis", true)] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(refuse_foreign(&path, is_table).is_err(), is_refused);
        }
        assert!(refuse_foreign(folder.path(), is_table).is_err());
    }

    #[test]
    fn only_what_we_left_half_written_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let ours = partial_path(&folder.path().join("alive.json")).unwrap();
        for path in [&ours, &folder.path().join("notes.partial"), &folder.path().join(".b.partial")]
        {
            fs::write(path, "x").unwrap();
        }
        remove_partial(folder.path());
        assert_eq!(names(folder.path()), [".b.partial", "notes.partial"]);
    }
}
