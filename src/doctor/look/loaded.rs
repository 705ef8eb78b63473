//! The libtorch that this process has loaded: where it lies, and which version it is by what lies beside it.
//!
//! Loads nothing, and knows libtorch by the names of its files.

use crate::doctor::observation::Libtorch;
use crate::files;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel lists what is loaded.
const MAPS: &str = "/proc/self/maps";
/// libtorch's largest library.
const LIBRARY: &str = "libtorch_cpu.so";
/// Its CUDA half.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";
/// Where headers name their version.
const HEADER: &str = "include/torch/headeronly/version.h";
/// More than any file that names a version holds.
const VERSION_BYTES: u64 = 1 << 16;

/// The libtorch that is loaded, which can use so many GPUs; none where there is none.
pub fn libtorch(gpus: usize) -> Option<Libtorch> {
    let maps = fs::read_to_string(MAPS).unwrap_or_default();
    let library = loaded(&maps, LIBRARY)?;
    let folder = library.parent().unwrap_or(Path::new("/"));
    Some(Libtorch {
        version: version_beside(folder),
        folder: folder.display().to_string(),
        bytes: fs::metadata(&library).map_or(0, |file| file.len()),
        has_cuda_half: loaded(&maps, CUDA_LIBRARY).is_some(),
        gpus,
    })
}

/// The file of this name in a list of what is loaded.
fn loaded(maps: &str, name: &str) -> Option<PathBuf> {
    let path = |line: &str| line.find('/').map(|start| PathBuf::from(line[start..].trim_end()));
    maps.lines().filter_map(path).find(|path| path.file_name().is_some_and(|of| of == name))
}

/// The version that the package around a folder of libraries names: that of Python, the one for C++, or its headers.
fn version_beside(folder: &Path) -> Option<String> {
    let root = folder.parent()?;
    let read = |name: &str| files::read_text(&root.join(name), VERSION_BYTES).ok();
    let quoted = |text: String| {
        let line = text.lines().find(|line| line.starts_with("__version__"))?.to_owned();
        line.split(['\'', '"']).nth(1).map(str::to_owned)
    };
    let plain = |text: String| text.lines().next().map(|line| line.trim().to_owned());
    let python = || read("version.py").and_then(quoted);
    let archive = || read("build-version").and_then(plain);
    python().or_else(archive).or_else(|| read(HEADER).and_then(|text| in_header(&text)))
}

/// The version in libtorch's header: three numbers, each in a line of its own.
fn in_header(text: &str) -> Option<String> {
    let number = |part: &str| {
        let prefix = format!("#define TORCH_VERSION_{part} ");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim)
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_its_name_among_what_is_loaded() {
        let maps = "7f00-7f01 r-xp 0 fe:00 5  /opt/torch lib/libtorch_cpu.so\n\
                    7f02-7f03 rw-p 0 00:00 0\n7f04-7f05 r--p 0 fe:00 6  /opt/libtorch_cpu.so.old\n";
        let expected = Some(PathBuf::from("/opt/torch lib/libtorch_cpu.so"));
        assert_eq!(loaded(maps, LIBRARY), expected);
        assert_eq!(loaded(maps, CUDA_LIBRARY), None);
    }

    #[test]
    fn packages_name_their_version_in_three_ways() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("lib");
        assert_eq!(version_beside(&folder), None);
        fs::create_dir_all(root.path().join(HEADER).parent().unwrap()).unwrap();
        let header = "#define TORCH_VERSION_MAJOR 2\n\n#define TORCH_VERSION_MINOR 11\n\
                      #define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION \\\n  \"2.11.0\"\n";
        fs::write(root.path().join(HEADER), header).unwrap();
        assert_eq!(version_beside(&folder).as_deref(), Some("2.11.0"));
        fs::write(root.path().join("build-version"), "2.10.0+cu130\n").unwrap();
        assert_eq!(version_beside(&folder).as_deref(), Some("2.10.0+cu130"));
        fs::write(root.path().join("version.py"), "debug = False\n__version__ = '2.11.0+cpu'\n")
            .unwrap();
        assert_eq!(version_beside(&folder).as_deref(), Some("2.11.0+cpu"));
    }
}
