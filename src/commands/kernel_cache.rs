//! Compiled kernels kept between runs: a folder of files that may vanish, be damaged or be somebody else's.
//!
//! Knows neither compilers nor GPUs. Nothing here is fatal: what cannot be read is made again, and what cannot
//! be written is made again by the next run. Ranks that start together write the same file one after the other.

use crate::error::Result;
use crate::files;
use crate::launchers::Variables;
use crate::native::cuda::{self, KernelStore};
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Names another folder; empty: none.
const FOLDER: &str = "SCRIMP_CACHE_DIR";
/// More than kernels ever need.
const LIMIT_BYTES: u64 = 64 << 20;
/// Bytes of the digest in front of the code.
const DIGEST: usize = 16;

/// Opens a GPU, counted from 0, with kernels from the cache that these variables name.
pub(super) fn open_gpu(device: usize, variables: &Variables) -> Result<()> {
    let cache = folder(variables).map(|folder| KernelCache { folder });
    cuda::open(device, cache.as_ref().map(|cache| cache as &dyn KernelStore))
}

/// Where the cache is, if there is one.
fn folder(variables: &Variables) -> Option<PathBuf> {
    let variable = |name: &str| variables.get(name).map(PathBuf::from);
    if let Some(chosen) = variable(FOLDER) {
        return Some(chosen).filter(|folder| !folder.as_os_str().is_empty());
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let caches = variable("XDG_CACHE_HOME").filter(absolute);
    let caches = caches.or_else(|| Some(variable("HOME").filter(absolute)?.join(".cache")))?;
    Some(caches.join("scrimp"))
}

/// Files named as the code, each a digest and the code.
struct KernelCache {
    folder: PathBuf,
}

impl KernelCache {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.kernels"))
    }
}

impl KernelStore for KernelCache {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        match read_sealed(&path, name) {
            Ok(code) => {
                tracing::debug!("kernels are those of `{}`", path.display());
                Some(code)
            }
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::debug!("`{}` is not used: {error}", path.display());
                }
                None
            }
        }
    }

    fn keep(&self, name: &str, code: &[u8]) {
        let path = self.path(name);
        let mut sealed = digest(name, code).to_vec();
        sealed.extend_from_slice(code);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        match made.and_then(|()| files::replace(&path, &sealed)) {
            Ok(()) => tracing::debug!("kernels are kept as `{}`", path.display()),
            Err(error) => tracing::debug!("cannot keep kernels as `{}`: {error}", path.display()),
        }
    }
}

fn read_sealed(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut sealed = files::read_own(path, LIMIT_BYTES)?;
    let code = sealed.split_off(sealed.len().min(DIGEST));
    if sealed == digest(name, &code) {
        return Ok(code);
    }
    Err(io::Error::new(ErrorKind::InvalidData, "its digest is not that of what it holds"))
}

/// Of the name too, so that a file under another name is none.
fn digest(name: &str, code: &[u8]) -> [u8; DIGEST] {
    let mut hash = Xxh3::new();
    hash.update(name.as_bytes());
    hash.update(code);
    hash.digest128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const NAME: &str = "sm_90-nvrtc-13.0-00";

    fn cache() -> (tempfile::TempDir, KernelCache) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("caches/scrimp");
        (root, KernelCache { folder })
    }

    #[test]
    fn what_is_kept_is_read_back_under_its_name_alone() {
        let (_root, cache) = cache();
        assert_eq!(cache.read(NAME), None);
        for code in [b"\x7fELF one".as_slice(), b"\x7fELF two", b""] {
            cache.keep(NAME, code);
            assert_eq!(cache.read(NAME).unwrap(), code);
        }
        fs::copy(cache.path(NAME), cache.path("sm_80-nvrtc-13.0-00")).unwrap();
        assert_eq!(cache.read("sm_80-nvrtc-13.0-00"), None);
        assert_eq!(fs::metadata(&cache.folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 2);
    }

    #[test]
    fn whatever_is_damaged_is_not_read_and_is_replaced() {
        let (_root, cache) = cache();
        let code = b"\x7fELF kernels";
        cache.keep(NAME, code);
        let sound = fs::read(cache.path(NAME)).unwrap();
        let mut damaged: Vec<Vec<u8>> = (0..sound.len()).map(|end| sound[..end].to_vec()).collect();
        damaged.extend((0..8 * sound.len()).map(|bit| {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        damaged.push([sound.as_slice(), b"x"].concat());
        for bytes in damaged {
            fs::write(cache.path(NAME), &bytes).unwrap();
            assert_eq!(cache.read(NAME), None, "{bytes:?}");
            cache.keep(NAME, code);
            assert_eq!(cache.read(NAME).unwrap(), code);
        }
    }

    #[test]
    fn links_pipes_and_folders_are_neither_read_nor_written_through() {
        let (root, cache) = cache();
        cache.keep(NAME, b"code");
        let elsewhere = root.path().join("elsewhere");
        fs::rename(cache.path(NAME), &elsewhere).unwrap();
        let sealed = fs::read(&elsewhere).unwrap();
        symlink(&elsewhere, cache.path(NAME)).unwrap();
        assert_eq!(cache.read(NAME), None);
        cache.keep(NAME, b"other code");
        assert_eq!(cache.read(NAME).unwrap(), b"other code");
        assert_eq!(fs::read(&elsewhere).unwrap(), sealed);
        fs::remove_file(cache.path(NAME)).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, cache.path(NAME), mode).unwrap();
        assert_eq!(cache.read(NAME), None);
        cache.keep(NAME, b"code");
        assert_eq!(cache.read(NAME).unwrap(), b"code");
        fs::remove_file(cache.path(NAME)).unwrap();
        fs::create_dir(cache.path(NAME)).unwrap();
        cache.keep(NAME, b"code");
        assert_eq!(cache.read(NAME), None);
    }

    #[test]
    fn a_cache_that_cannot_be_made_keeps_nothing() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "mine").unwrap();
        for folder in [root.path().join("file/scrimp"), PathBuf::from("/proc/scrimp")] {
            let cache = KernelCache { folder };
            cache.keep(NAME, b"code");
            assert_eq!(cache.read(NAME), None);
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn variables_name_the_folder() {
        let folder_of = |pairs: &[(&str, &str)]| {
            folder(&pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect())
        };
        let some = |path: &str| Some(PathBuf::from(path));
        let both = [("HOME", "/home/a"), ("XDG_CACHE_HOME", "/cache")];
        assert_eq!(folder_of(&[]), None);
        assert_eq!(folder_of(&both[..1]), some("/home/a/.cache/scrimp"));
        assert_eq!(folder_of(&both), some("/cache/scrimp"));
        assert_eq!(
            folder_of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "cache")]),
            some("/home/a/.cache/scrimp")
        );
        assert_eq!(folder_of(&[both[0], (FOLDER, "/scratch")]), some("/scratch"));
        assert_eq!(folder_of(&[both[0], (FOLDER, "")]), None);
        assert_eq!(folder_of(&[("HOME", "")]), None);
    }
}
