//! What lies in a folder that should hold images or labels, so that none of it is left out without a word.
//!
//! Knows endings of names, and what the first bytes of data look like; what the names mean is for the
//! sources to say. Hidden files are nobody's data: macOS leaves `._NAME` beside each file that it copies.

use crate::error::{Context, Failure, Result};
use crate::scan::{Notes, is_image_folder, split_ending};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Endings of files that hold images or labels in forms that not everybody reads.
const UNREAD: [&str; 28] = [
    "hdr", "img", "mha", "mhd", "raw", "zraw", "nrrd", "nhdr", "seg", "dcm", "dicom", "ima", "mgz",
    "mgh", "mnc", "gipl", "vtk", "vti", "h5", "hdf5", "npy", "npz", "mat", "tif", "tiff", "zip",
    "tar", "bmp",
];

/// Endings of NIfTI files.
const NIFTI: [&str; 2] = [".nii.gz", ".nii"];

/// What the names of voxels end with whose header lies beside them, by what that ends with.
const DETACHED: [(&str, &[&str]); 4] = [
    (".mhd", &[".raw", ".zraw", ".img"]),
    (".nhdr", &[".raw", ".raw.gz", ".img", ".img.gz"]),
    (".hdr", &[".img", ".img.gz", ".IMG"]),
    (".hdr.gz", &[".img.gz", ".img"]),
];

/// What the names of images of DICOM end with; where these are looked for, a folder of slices is one, too.
const DICOM: &str = ".dcm";

/// The entries of one folder.
pub(super) struct Listing {
    /// Files that are looked for by their names without ending.
    pub(super) files: BTreeMap<String, PathBuf>,
    /// All others that are not hidden, in ascending order.
    pub(super) others: Vec<PathBuf>,
    /// What the names of those that are looked for end with.
    endings: Vec<&'static str>,
}

/// Looks for NIfTI files in a folder. Refuses two of one name with different endings.
pub(super) fn list(folder: &Path) -> Result<Listing> {
    list_of(folder, NIFTI.to_vec())
}

/// Looks for files with one of `endings` in a folder, and where images are looked for, for folders of the slices of one of
/// them. Refuses two of one name.
pub(super) fn list_of(folder: &Path, endings: Vec<&'static str>) -> Result<Listing> {
    let (mut files, mut others) = (BTreeMap::<String, PathBuf>::new(), Vec::new());
    for path in entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(split_ending);
        let name = name.filter(|(_, ending)| endings.contains(ending)).map(|(name, _)| name);
        let name = if path.is_dir() {
            let is_image = endings.contains(&DICOM) && is_image_folder(&path);
            path.file_name().and_then(|name| name.to_str()).filter(|_| is_image)
        } else {
            name
        };
        match name {
            Some(name) => {
                if let Some(other) = files.insert(name.to_owned(), path.clone()) {
                    return Err(same_name(&other, &path));
                }
            }
            _ => others.push(path),
        }
    }
    Ok(Listing { files, others, endings })
}

/// The NIfTI files of a folder that no cases are made of, to be named; the folder itself where there are none or they
/// cannot be listed.
pub(super) fn untaken(folder: &Path) -> Vec<PathBuf> {
    match list(folder) {
        Ok(listing) if !listing.files.is_empty() => listing.files.into_values().collect(),
        _ => vec![folder.to_owned()],
    }
}

/// The refusal of two files that would be one case.
pub(super) fn same_name(one: &Path, other: &Path) -> Failure {
    Failure::new(format!(
        "`{}` and `{}` have the same name, expected one file of each",
        one.display(),
        other.display()
    ))
    .hint("remove or rename one of them")
}

/// The entries of a folder that are not hidden, in ascending order.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list `{}`", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).context(cannot)? {
        let entry = entry.context(cannot)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// `folder` and all folders in it that are not hidden, each once however many links lead there.
pub(super) fn tree(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    let mut ahead = vec![folder.to_owned()];
    while let Some(folder) = ahead.pop() {
        let real =
            folder.canonicalize().context(|| format!("cannot list `{}`", folder.display()))?;
        if seen.insert(real) {
            // A folder itself comes before what links in others lead to.
            let inside = entries(&folder)?.into_iter().filter(|path| path.is_dir());
            let (links, folders): (Vec<_>, Vec<_>) = inside.partition(|path| path.is_symlink());
            ahead.splice(0..0, links);
            ahead.extend(folders.into_iter().rev());
            found.push(folder);
        }
    }
    Ok(found)
}

/// The name of a NIfTI file without its ending, which may be in capitals.
pub(super) fn stem(name: &str) -> Option<&str> {
    split_ending(name).filter(|(_, ending)| NIFTI.contains(ending)).map(|(name, _)| name)
}

impl Listing {
    /// Refuses a folder that holds data which would be left out, and notes what else is passed over.
    pub(super) fn note_others(&self, notes: &Notes) -> Result<()> {
        let voxels = self.voxels();
        for path in self.others.iter().filter(|path| !voxels.contains(*path)) {
            let name = path.display();
            if path.is_dir() {
                refuse_folder(path)?;
            } else if path.file_name().is_some_and(|name| name.to_str().is_none()) && is_data(path)
            {
                return Err(Failure::new(format!(
                    "the name of `{name}` is not UTF-8, expected one that can be the name of a case"
                ))
                .hint("rename the file, and those that belong to it"));
            } else if is_data(path) {
                return Err(Failure::new(format!(
                    "`{name}` looks like data and would be left out, expected names that end in {}",
                    self.endings()
                ))
                .hint("save or rename it as NIfTI, or move it away"));
            }
            notes.add(
                "passed over, for its name is not that of an image or of labels",
                format!("`{name}`"),
            );
        }
        Ok(())
    }

    /// What names end with, in words.
    pub(super) fn endings(&self) -> String {
        let endings: Vec<String> =
            self.endings.iter().map(|ending| format!("`{ending}`")).collect();
        let (last, others) = endings.split_last().map_or(("", &[][..]), |(l, o)| (l.as_str(), o));
        if others.is_empty() { last.to_owned() } else { format!("{} or {last}", others.join(", ")) }
    }

    /// The voxels of headers that lie beside them.
    fn voxels(&self) -> BTreeSet<PathBuf> {
        let beside = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            let (stem, ending) = split_ending(name)?;
            let (_, voxels) = DETACHED.iter().find(|(header, _)| *header == ending)?;
            Some(
                voxels
                    .iter()
                    .map(|end| path.with_file_name(format!("{stem}{end}")))
                    .collect::<Vec<_>>(),
            )
        };
        self.files.values().filter_map(beside).flatten().collect()
    }
}

/// Refuses a folder inside of one that should hold files side by side, if any data lie in it.
fn refuse_folder(folder: &Path) -> Result<()> {
    for inside in tree(folder)? {
        let mut data = entries(&inside)?.into_iter().filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !path.is_dir() && (stem(&name).is_some() || is_data(path))
        });
        if let Some(path) = data.next() {
            return Err(Failure::new(format!(
                "`{}` lies in a folder of its own and would be left out, expected all files side by side",
                path.display()
            ))
            .hint(format!("move the files of `{}` up, or the folder away", folder.display())));
        }
    }
    Ok(())
}

/// Whether a file seems to hold an image or labels, by its name or by its first bytes.
pub(super) fn is_data(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    if UNREAD.contains(&ending) || name.contains(".nii") || name.contains(".nrrd") {
        return true;
    }
    let mut start = Vec::new();
    let read = crate::files::open(path).and_then(|file| file.take(132).read_to_end(&mut start));
    let begins = |with: &[u8]| start.starts_with(with);
    read.is_ok()
        && (begins(&[0x1f, 0x8b])
            || [348i32, 540]
                .iter()
                .any(|size| begins(&size.to_le_bytes()) || begins(&size.to_be_bytes()))
            || begins(b"NRRD")
            || begins(b"ObjectType")
            || begins(b"NDims")
            || begins(b"\x89HDF")
            || start.get(128..) == Some(b"DICM"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn endings_may_be_in_capitals() {
        assert_eq!(stem("a.b.nii.gz"), Some("a.b"));
        assert_eq!(stem("a.NII.GZ"), Some("a"));
        assert_eq!(stem("ä.Nii"), Some("ä"));
        assert_eq!(stem(".nii.gz"), None);
        assert_eq!(stem("a.nii.gz.part"), None);
        assert_eq!(stem("ä"), None);
    }

    #[test]
    fn folders_are_walked_once_however_links_go_round() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        fs::create_dir(folder.path().join(".hidden")).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("b/c/loop")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("b"), folder.path().join("a")).unwrap();
        let found = tree(folder.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["", "b", "b/c"]);
    }

    #[test]
    fn voxels_beside_their_header_are_no_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.mhd", "a.raw", "b.nhdr", "b.raw.gz", "c.seg.nrrd", "d.nrrd"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let listing = list_of(folder.path(), vec![".mhd", ".nhdr", ".nrrd", ".seg.nrrd"]).unwrap();
        assert_eq!(listing.files.keys().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert!(listing.note_others(&Notes::default()).is_ok());
        assert_eq!(listing.endings(), "`.mhd`, `.nhdr`, `.nrrd` or `.seg.nrrd`");
        fs::write(folder.path().join("e.raw"), "").unwrap();
        let listing = list_of(folder.path(), vec![".mhd", ".nhdr", ".nrrd", ".seg.nrrd"]).unwrap();
        assert!(listing.note_others(&Notes::default()).is_err());
        // Segmentations are no images.
        let images = list_of(folder.path(), vec![".mhd", ".nhdr", ".nrrd"]).unwrap();
        assert!(!images.files.contains_key("c") && images.note_others(&Notes::default()).is_err());
    }

    #[test]
    fn a_folder_of_slices_is_an_image_and_no_labels() {
        let slice = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats/single.dcm");
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("anna")).unwrap();
        fs::copy(slice, folder.path().join("anna/IM1")).unwrap();
        fs::create_dir(folder.path().join("papers")).unwrap();
        let images = list_of(folder.path(), vec![".nii", ".dcm"]).unwrap();
        assert_eq!(images.files.keys().collect::<Vec<_>>(), ["anna"]);
        assert!(images.note_others(&Notes::default()).is_ok());
        let labels = list_of(folder.path(), vec![".nii"]).unwrap();
        assert!(labels.files.is_empty() && labels.note_others(&Notes::default()).is_err());
    }

    #[test]
    fn what_would_be_left_out_is_named_or_refused() {
        let said = |name: &str, bytes: &[u8]| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
            fs::write(folder.path().join("._a.nii.gz"), b"").unwrap();
            let notes = Notes::default();
            let listing = list(folder.path()).unwrap();
            let said = listing.note_others(&notes).map(|()| notes.take().join("\n"));
            let clean = |text: &str| text.replace(folder.path().to_str().unwrap(), "FOLDER");
            (listing.files.len(), said.map(|s| clean(&s)).map_err(|f| clean(f.message())))
        };
        assert_eq!(said("a.NII.gz", b""), (1, Ok(String::new())));
        let passed =
            "passed over, for its name is not that of an image or of labels: `FOLDER/readme.txt`";
        assert_eq!(said("readme.txt", b"hello"), (0, Ok(passed.into())));
        for (name, bytes) in [("a.mha", &b""[..]), ("a.nii.gz.1", b""), ("a", &[0x1f, 0x8b, 8])] {
            let (count, said) = said(name, bytes);
            assert!(count == 0 && said.unwrap_err().contains("looks like data"), "{name}");
        }
        let (_, deep) = said("site2/deep/a.nii.gz", b"");
        assert!(
            deep.unwrap_err()
                .starts_with("`FOLDER/site2/deep/a.nii.gz` lies in a folder of its own")
        );
        assert!(said("notes/a.txt", b"").1.is_ok());
    }
}
