//! What reads each kind of file, and how a mutant of it gets there.
//!
//! A reader returns what it would have said to people: the mutants of the next line of defence are signed
//! anew, so that a checksum does not keep all of them out.

use crate::seeds;
use scrimp::config;
use scrimp::config::plan::RunPlan;
use scrimp::error::Failure;
use scrimp::export;
use scrimp::runlog::directory::RunDirectory;
use scrimp::runlog::preview::Preview;
use scrimp::scan::{Coding, Notes, files_of, is_one_image, read, read_grid, read_numbers};
use scrimp::watch::ui::Tab;
use scrimp::watch::{follow, once};
use std::fs;
use std::path::Path;

/// A kind of file.
pub(crate) struct Target {
    /// Whole files.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Reads a file as the program does; the folder is there for it and keeps what is in it. Returns what
    /// was said.
    pub(crate) read: fn(&[u8], &Path) -> Vec<String>,
    /// Makes the checksums of a mutant right, where it has some.
    pub(crate) sign: fn(&mut [u8]),
}

impl Target {
    fn new(seeds: fn() -> Vec<Vec<u8>>, read: fn(&[u8], &Path) -> Vec<String>) -> Self {
        Self { seeds, read, sign: |_| {} }
    }

    fn signed(self, sign: fn(&mut [u8])) -> Self {
        Self { sign, ..self }
    }
}

/// The kind of this name.
pub(crate) fn target(kind: &str) -> Target {
    match kind {
        "configuration" => Target::new(seeds::configurations, configuration),
        "override_" => Target::new(seeds::overrides, override_),
        "run_log" => Target::new(seeds::run_logs, run_log),
        "preview" => Target::new(seeds::previews, preview).signed(seeds::sign_png),
        "volume_file" => Target::new(seeds::volume_files, scan),
        "array_file" => Target::new(seeds::array_files, scan),
        "dicom_file" => Target::new(seeds::dicom_files, dicom),
        "picture_file" => Target::new(seeds::picture_files, scan).signed(seeds::sign_png),
        #[cfg(feature = "mpi")]
        other => data::target(other),
        #[cfg(not(feature = "mpi"))]
        other => panic!("no kind `{other}`"),
    }
}

fn said<T>(outcome: Result<T, Failure>) -> Vec<String> {
    outcome.err().map(|failure| failure.to_string()).into_iter().collect()
}

fn configuration(bytes: &[u8], scratch: &Path) -> Vec<String> {
    let path = scratch.join("a.toml");
    fs::write(&path, bytes).unwrap();
    let plan = config::read(&path, &[]).and_then(|config| RunPlan::resolve(config, 2));
    said(plan.and_then(|plan| plan.to_toml()))
}

/// Reads a file as an image, as labels of an image, and for its place alone.
fn scan(bytes: &[u8], scratch: &Path) -> Vec<String> {
    let path = scratch.join("a");
    fs::write(&path, bytes).unwrap();
    // The voxels of headers that stand alone.
    for name in
        ["int32.zraw", "float32.raw", "uint16.raw", "detached.raw", "detached.raw.gz", "a.img"]
    {
        fs::write(scratch.join(name), [7; 96]).unwrap();
    }
    let names = ["background", "liver", "tumour"].map(String::from);
    let coding = Coding::classes(3).or_unlabelled(9).or_named(names.into_iter().zip(0..));
    let notes = Notes::default();
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats/drawn-on.nrrd");
    let image = read_grid(&image, &notes).unwrap();
    let mut all = said(read(&path, &notes));
    all.extend(said(read_numbers(&path, &notes)));
    all.extend(said(image.labels_at(&path, &coding, &notes)));
    all.extend(said(read_grid(&path, &notes).map(|grid| grid.note_oddities(&notes))));
    all.extend(notes.take());
    all
}

/// Reads a file as an image, and as one slice of a series whose others are whole.
fn dicom(bytes: &[u8], scratch: &Path) -> Vec<String> {
    let mut all = scan(bytes, scratch);
    let series = scratch.join("series");
    if !series.exists() {
        fs::create_dir(&series).unwrap();
        for (index, slice) in seeds::dicom_files().into_iter().rev().take(2).enumerate() {
            fs::write(series.join(format!("whole-{index}")), slice).unwrap();
        }
    }
    fs::write(series.join("mutant"), bytes).unwrap();
    let notes = Notes::default();
    all.extend(said(read(&series, &notes)));
    all.extend(said(files_of(&series)));
    is_one_image(&series);
    all.extend(notes.take());
    all
}

fn override_(bytes: &[u8], _: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let base = String::from_utf8(seeds::configurations().remove(0)).unwrap();
    let plan = config::parse(&base, "base.toml", &[text]);
    said(plan.and_then(|config| RunPlan::resolve(config, 2)))
}

fn run_log(bytes: &[u8], scratch: &Path) -> Vec<String> {
    let run = RunDirectory::new(scratch.join("run"));
    fs::create_dir_all(run.events()).unwrap();
    fs::write(run.rank_events(0), bytes).unwrap();
    fs::write(run.rank_events(1), bytes).unwrap();
    let mut all = Vec::new();
    for (index, tab) in Tab::ALL.into_iter().enumerate() {
        let size = [(80, 24), (1, 1), (7, 3), (200, 60), (33, 12)][index % 5];
        match once(&run, size, tab, index % 2 == 0) {
            Ok(screen) => all.push(screen),
            Err(failure) => all.push(failure.to_string()),
        }
    }
    let mut lines = Vec::new();
    all.extend(said(follow(&run, &mut lines, None, || true)));
    all.push(String::from_utf8_lossy(&lines).into_owned());
    all.extend(said(export::csv(&run, &scratch.join("csv"))));
    all.extend(said(export::tensorboard(&run, &scratch.join("tensorboard"))));
    all
}

fn preview(bytes: &[u8], scratch: &Path) -> Vec<String> {
    let path = scratch.join("worst-a.png");
    fs::write(&path, bytes).unwrap();
    said(Preview::read(&path))
}

/// What needs libtorch and HDF5.
#[cfg(feature = "mpi")]
mod data {
    use super::{Target, said};
    use crate::seeds;
    use scrimp::data::import::label_transfer;
    use scrimp::data::import::own_data::{self, Folders, ScribbleFolder};
    use scrimp::data::store;
    use scrimp::train::checkpoint::{Checkpoint, read_manifest};
    use std::fs;
    use std::path::{Path, PathBuf};

    pub(super) fn target(kind: &str) -> Target {
        match kind {
            "manifest" => {
                Target::new(seeds::data::manifests, manifest).signed(seeds::sign_manifest)
            }
            "shard" => Target::new(seeds::data::shards, shard),
            "packed" => Target::new(seeds::data::packed, packed),
            "nifti" => Target::new(seeds::data::images, image),
            "nifti_labels" => Target::new(seeds::data::labels, labels),
            "picture" => Target::new(seeds::data::pictures, picture).signed(seeds::sign_png),
            "mask" => Target::new(seeds::data::masks, mask).signed(seeds::sign_png),
            other => panic!("no kind `{other}`"),
        }
    }

    /// A checkpoint in the folder, made once.
    fn checkpoint(scratch: &Path) -> PathBuf {
        let path = scratch.join("run/checkpoints/step-00000001");
        if !path.exists() {
            seeds::data::checkpoint(&scratch.join("run"));
        }
        path
    }

    fn examine(path: &Path, scratch: &Path) -> Vec<String> {
        let checkpoint = read_manifest(path);
        let sound = checkpoint.and_then(|checkpoint: Checkpoint| {
            checkpoint.verify()?;
            checkpoint.export(&scratch.join("weights.safetensors"))
        });
        said(sound)
    }

    fn manifest(bytes: &[u8], scratch: &Path) -> Vec<String> {
        let path = checkpoint(scratch);
        fs::write(path.join("manifest.json"), bytes).unwrap();
        examine(&path, scratch)
    }

    /// A shard whose digest the manifest knows.
    fn shard(bytes: &[u8], scratch: &Path) -> Vec<String> {
        let path = checkpoint(scratch);
        fs::write(path.join("shard-0000-of-0001.safetensors"), bytes).unwrap();
        let table = path.join("manifest.json");
        let mut text = fs::read_to_string(&table).unwrap();
        let digest = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes));
        // The entry of the only shard: its size, then its digest.
        let at = text.find("\"bytes\": ").unwrap() + 9;
        let end = at + text[at..].find(',').unwrap();
        text.replace_range(at..end, &bytes.len().to_string());
        let at = at + text[at..].find("\"xxh3\": \"").unwrap() + 9;
        text.replace_range(at..at + 16, &digest);
        let mut text = text.into_bytes();
        seeds::sign_manifest(&mut text);
        fs::write(&table, text).unwrap();
        examine(&path, scratch)
    }

    fn packed(bytes: &[u8], scratch: &Path) -> Vec<String> {
        let path = scratch.join("a.h5");
        fs::write(&path, bytes).unwrap();
        said(store::read(&path))
    }

    fn image(bytes: &[u8], scratch: &Path) -> Vec<String> {
        cases(bytes, &seeds::data::labels()[1], scratch)
    }

    fn labels(bytes: &[u8], scratch: &Path) -> Vec<String> {
        cases(&seeds::data::images()[1], bytes, scratch)
    }

    fn cases(image: &[u8], labels: &[u8], scratch: &Path) -> Vec<String> {
        let folder = |name: &str, bytes: &[u8]| {
            let folder = scratch.join(name);
            let ending = if bytes.starts_with(&[0x1f, 0x8b]) { "nii.gz" } else { "nii" };
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(format!("a.{ending}")), bytes).unwrap();
            folder
        };
        let classes = vec!["background".to_owned(), "liver".to_owned()];
        let scribbles = ScribbleFolder { path: folder("scribbles", labels), unlabelled: 9 };
        let folders = Folders {
            scribbles: Some(scribbles),
            ..Folders::new(folder("images", image), classes)
        };
        said(own_data::open(&folders).and_then(scrimp::data::import::Source::collect))
    }

    #[test]
    fn whole_files_are_taken() {
        for kind in ["manifest", "shard", "packed", "nifti", "nifti_labels", "picture", "mask"] {
            let target = target(kind);
            // Pictures of 16 bits and with transparency are refused.
            for seed in (target.seeds)().into_iter().take(2) {
                let scratch = tempfile::tempdir().unwrap();
                assert_eq!((target.read)(&seed, scratch.path()), [""; 0], "{kind}");
            }
        }
    }

    fn picture(bytes: &[u8], scratch: &Path) -> Vec<String> {
        package(bytes, &seeds::data::masks()[0], scratch)
    }

    fn mask(bytes: &[u8], scratch: &Path) -> Vec<String> {
        package(&seeds::data::pictures()[0], bytes, scratch)
    }

    fn package(picture: &[u8], mask: &[u8], scratch: &Path) -> Vec<String> {
        let ending = if picture.starts_with(&[0xff, 0xd8]) { "jpg" } else { "png" };
        for (folder, name, bytes) in [
            ("trainA", format!("a.{ending}"), picture),
            ("trainB", format!("a.{ending}"), picture),
            ("val/images", "a.png".to_owned(), &*seeds::data::pictures()[0]),
            ("val/labels", "a_segmentation.png".to_owned(), mask),
        ] {
            let folder = scratch.join(folder);
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), bytes).unwrap();
        }
        let package =
            label_transfer::Package { folder: scratch.to_owned(), size: 32, test_only: false };
        let opened = label_transfer::open(&package);
        said(opened.and_then(|(source, _warnings)| source.collect()))
    }
}
