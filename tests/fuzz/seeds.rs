//! Whole files of each kind, made here: what the program itself writes, and what people bring.
//!
//! Knows how files are made and nothing of how they are read.

use scrimp::runlog::io::{EventSink, LogWriter};
use scrimp::runlog::preview::{Annotated, MadeSquares, Preview, Values};
use scrimp::runlog::{Health, RunEvent, RunStatus};
use std::fs;
use std::path::{Path, PathBuf};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        repository(folder).read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

pub(crate) fn configurations() -> Vec<Vec<u8>> {
    [files("configs/smoke", ".toml"), files("configs", ".toml"), files("tests/it/invalid", ".toml")]
        .concat()
}

pub(crate) fn overrides() -> Vec<Vec<u8>> {
    let texts = [
        "train.total_steps=7",
        "train.hang_limit=\"1h30m\"",
        "data.phantom={cases = 4, slices = 2}",
        "method.params.partial_ce=0.5",
        "data.path=\"a.h5\"",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Files that programs of other people made, with these endings.
fn made_elsewhere(endings: &[&str]) -> Vec<Vec<u8>> {
    endings.iter().flat_map(|ending| files("tests/data/formats", ending)).collect()
}

pub(crate) fn volume_files() -> Vec<Vec<u8>> {
    made_elsewhere(&[".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd"])
}

pub(crate) fn array_files() -> Vec<Vec<u8>> {
    made_elsewhere(&[".npy", ".npz"])
}

/// Files of one frame, of several, and the slices of series.
pub(crate) fn dicom_files() -> Vec<Vec<u8>> {
    let series = ["ct", "mr", "inverted"].map(|name| format!("tests/data/formats/series-{name}"));
    let slices = series.iter().flat_map(|folder| files(folder, ""));
    made_elsewhere(&[".dcm"]).into_iter().chain(slices).collect()
}

pub(crate) fn picture_files() -> Vec<Vec<u8>> {
    made_elsewhere(&[".tif", ".tiff", ".bmp", ".png", ".jpg"])
}

pub(crate) fn run_logs() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rank-0000.jsonl");
    let mut log = LogWriter::open(&path, 1).unwrap();
    for step in 1..4 {
        log.emit(&RunEvent::Health(Health {
            step,
            step_ms: 20.0,
            data_wait_ms: 0.5,
            communication_ms: 1.0,
            memory_bytes: Some(1 << 28),
        }));
        log.emit(&RunEvent::Warning { message: format!("step {step} \u{1b}[31mred") });
    }
    let status = RunStatus::Failed;
    log.emit(&RunEvent::RunEnded { status, step: 3, message: "no space".to_owned() });
    let written = fs::read(&path).unwrap();
    let mut logs = files("tests/it/runs/schema-1/events", ".jsonl");
    logs.extend(files("tests/it/runs/failed/events", ".jsonl"));
    logs.extend(files("tests/it/runs/telemetry/events", ".jsonl"));
    logs.push(written);
    logs
}

pub(crate) fn previews() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let plane: Vec<u8> = (0..2 * 16 * 16).map(|index| index as u8).collect();
    let with = |made: &[(&str, Values)]| Preview {
        size: 16,
        image: plane.clone(),
        annotation: plane.clone(),
        annotated: Annotated::Pixels,
        prediction: plane.clone(),
        truth: plane.clone(),
        made: made
            .iter()
            .map(|&(name, values)| {
                let (name, plane) = (name.to_owned(), plane.clone());
                MadeSquares { name, values, plane }
            })
            .collect(),
    };
    let made = [("mixed", Values::Greys), ("label", Values::Classes)];
    let written = [with(&[]), with(&made)].into_iter().map(|preview| {
        let path = folder.path().join("a.png");
        preview.write(&path).unwrap();
        fs::read(&path).unwrap()
    });
    written.collect()
}

/// Makes the checksums of the chunks of a PNG right, as far as there are whole chunks.
pub(crate) fn sign_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at + 8 + length;
        if end + 4 > bytes.len() {
            return;
        }
        let sum = crc32(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

/// Makes the digest at the end of a manifest right, where there is one.
#[cfg(feature = "mpi")]
pub(crate) fn sign_manifest(bytes: &mut [u8]) {
    const BEFORE: &[u8] = b"\"xxh3\": \"";
    let Some(at) = bytes.windows(BEFORE.len()).rposition(|window| window == BEFORE) else { return };
    let digits = at + BEFORE.len()..at + BEFORE.len() + 16;
    // The digest covers all that stands before the comma in front of its field.
    let Some(comma) = bytes[..at].iter().rposition(|&byte| byte == b',') else { return };
    let digest = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes[..comma]));
    if let Some(place) = bytes.get_mut(digits) {
        place.copy_from_slice(digest.as_bytes());
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(sum & 1))
        })
    };
    !bytes.iter().fold(!0, step)
}

/// What needs libtorch and HDF5.
#[cfg(feature = "mpi")]
pub(crate) mod data {
    use super::repository;
    use image::{DynamicImage, ImageFormat};
    use std::fs;
    use std::io::Cursor;
    use std::path::Path;
    use std::process::Command;

    fn scrimp(words: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_scrimp")).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The newest checkpoint of a short run, in this folder.
    pub(crate) fn checkpoint(run: &Path) -> std::path::PathBuf {
        let config = repository("configs/smoke/partial-ce.toml");
        let sets =
            ["train.total_steps=1", "train.threads=1", "train.device=cpu", "train.batch_size=1"];
        let mut words = vec!["train", config.to_str().unwrap(), "--run", run.to_str().unwrap()];
        words.extend(sets.iter().flat_map(|set| ["--set", set]));
        scrimp(&words);
        run.join("checkpoints/step-00000001")
    }

    pub(crate) fn manifests() -> Vec<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        vec![fs::read(checkpoint(&folder.path().join("run")).join("manifest.json")).unwrap()]
    }

    pub(crate) fn shards() -> Vec<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = checkpoint(&folder.path().join("run"));
        vec![fs::read(path.join("shard-0000-of-0001.safetensors")).unwrap()]
    }

    pub(crate) fn packed() -> Vec<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let to = path.to_str().unwrap();
        scrimp(&[
            "prepare", "phantom", "--cases", "2", "--slices", "1", "--size", "32", "--to", to,
        ]);
        vec![fs::read(&path).unwrap()]
    }

    /// A NIfTI-1 file of `[4, 3, 2]` voxels, little-endian, in one file.
    fn nifti(kind: u16, bits: u16, voxels: &[u8]) -> Vec<u8> {
        let mut file = vec![0u8; 352];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &348i32.to_le_bytes());
        for (index, extent) in [3i16, 4, 3, 2, 1, 1, 1, 1].into_iter().enumerate() {
            put(40 + 2 * index, &extent.to_le_bytes());
        }
        put(70, &kind.to_le_bytes());
        put(72, &bits.to_le_bytes());
        for (index, spacing) in [1f32, 1.5, 1.5, 8.0, 0.0, 0.0, 0.0, 0.0].into_iter().enumerate() {
            put(76 + 4 * index, &spacing.to_le_bytes());
        }
        put(108, &352f32.to_le_bytes());
        put(112, &1f32.to_le_bytes());
        put(123, &[2]);
        put(252, &1i16.to_le_bytes());
        put(254, &1i16.to_le_bytes());
        for (row, value) in [(0, 1.5f32), (1, 1.5), (2, 8.0)] {
            put(280 + 16 * row + 4 * row, &value.to_le_bytes());
        }
        put(344, b"n+1\0");
        file.extend_from_slice(voxels);
        file
    }

    /// One stored block between the head and the checksum of a gzip file.
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let length = bytes.len() as u16;
        let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend_from_slice(bytes);
        file.extend(super::crc32(bytes).to_le_bytes());
        file.extend(u32::from(length).to_le_bytes());
        file
    }

    pub(crate) fn images() -> Vec<Vec<u8>> {
        let shorts: Vec<u8> = (0..24i16).flat_map(|value| (value * 7).to_le_bytes()).collect();
        let floats: Vec<u8> = (0..24u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
        let plain = nifti(4, 16, &shorts);
        vec![gzip(&plain), plain, nifti(16, 32, &floats)]
    }

    pub(crate) fn labels() -> Vec<Vec<u8>> {
        let bytes: Vec<u8> = (0..24).map(|index| [0, 1, 9][index % 3]).collect();
        let floats: Vec<u8> =
            bytes.iter().flat_map(|&value| f64::from(value).to_le_bytes()).collect();
        let plain = nifti(2, 8, &bytes);
        vec![gzip(&plain), plain, nifti(64, 64, &floats)]
    }

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    pub(crate) fn masks() -> Vec<Vec<u8>> {
        let grey =
            image::GrayImage::from_fn(16, 12, |x, y| image::Luma([if x > y { 255 } else { 0 }]));
        vec![encoded(&DynamicImage::ImageLuma8(grey), ImageFormat::Png)]
    }

    pub(crate) fn pictures() -> Vec<Vec<u8>> {
        let colour = DynamicImage::ImageRgb8(image::RgbImage::from_fn(16, 12, |x, y| {
            image::Rgb([x as u8 * 9, y as u8 * 7, 90])
        }));
        let deep = DynamicImage::ImageLuma16(image::ImageBuffer::from_fn(16, 12, |x, y| {
            image::Luma([(x * 900 + y) as u16])
        }));
        let alpha = DynamicImage::ImageRgba8(colour.to_rgba8());
        vec![
            encoded(&colour, ImageFormat::Png),
            encoded(&colour, ImageFormat::Jpeg),
            encoded(&deep, ImageFormat::Png),
            encoded(&alpha, ImageFormat::Png),
        ]
    }
}
