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
    pub(crate) sign: fn(&mut Vec<u8>),
}

/// The kind of this name.
pub(crate) fn target(kind: &str) -> Target {
    let unsigned: fn(&mut Vec<u8>) = |_| {};
    let (seeds, read, sign): (fn() -> _, fn(&[u8], &Path) -> _, _) = match kind {
        "configuration" => (seeds::configurations, configuration, unsigned),
        "override_" => (seeds::overrides, override_, unsigned),
        "run_log" => (seeds::run_logs, run_log, unsigned),
        "preview" => (seeds::previews, preview, seeds::sign_png as fn(&mut Vec<u8>)),
        #[cfg(feature = "mpi")]
        other => return data::target(other),
        #[cfg(not(feature = "mpi"))]
        other => panic!("no kind `{other}`"),
    };
    Target { seeds, read, sign }
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
    use scrimp::data::import::{acdc, label_transfer, nifti};
    use scrimp::data::store;
    use scrimp::train::checkpoint::{Checkpoint, read_manifest};
    use std::fs;
    use std::path::{Path, PathBuf};

    pub(super) fn target(kind: &str) -> Target {
        let unsigned: fn(&mut Vec<u8>) = |_| {};
        let (seeds, read, sign): (fn() -> _, fn(&[u8], &Path) -> _, _) = match kind {
            "manifest" => (seeds::data::manifests, manifest, unsigned),
            "shard" => (seeds::data::shards, shard, unsigned),
            "packed" => (seeds::data::packed, packed, unsigned),
            "acdc" => (seeds::data::acdc, acdc_volume, unsigned),
            "nifti" => (seeds::data::images, image, unsigned),
            "nifti_labels" => (seeds::data::labels, labels, unsigned),
            "picture" => (seeds::data::pictures, picture, seeds::sign_png as fn(&mut Vec<u8>)),
            other => panic!("no kind `{other}`"),
        };
        Target { seeds, read, sign }
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
        examine(&path, scratch)
    }

    fn packed(bytes: &[u8], scratch: &Path) -> Vec<String> {
        let path = scratch.join("a.h5");
        fs::write(&path, bytes).unwrap();
        said(store::read(&path))
    }

    fn acdc_volume(bytes: &[u8], scratch: &Path) -> Vec<String> {
        fs::write(scratch.join("patient001_frame01.h5"), bytes).unwrap();
        said(acdc::open(scratch).and_then(scrimp::data::import::Source::collect))
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
        let folders = nifti::Folders {
            images: folder("images", image),
            scribbles: folder("scribbles", labels),
            dense: None,
            classes: vec!["background".to_owned(), "liver".to_owned()],
            dense_classes: None,
            unlabelled: 9,
            patients: None,
        };
        said(nifti::open(&folders).and_then(scrimp::data::import::Source::collect))
    }

    fn picture(bytes: &[u8], scratch: &Path) -> Vec<String> {
        for folder in ["trainA", "trainB"] {
            let folder = scratch.join(folder);
            fs::create_dir_all(&folder).unwrap();
            let _ = (fs::remove_file(folder.join("a.png")), fs::remove_file(folder.join("a.jpg")));
            let ending = if bytes.starts_with(&[0xff, 0xd8]) { "jpg" } else { "png" };
            fs::write(folder.join(format!("a.{ending}")), bytes).unwrap();
        }
        let package =
            label_transfer::Package { folder: scratch.to_owned(), size: 32, test_only: false };
        let opened = label_transfer::open(&package);
        said(opened.and_then(|(source, _warnings)| source.collect()))
    }
}
