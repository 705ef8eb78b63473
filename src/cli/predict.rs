//! The command line of `scrimp predict`: types only.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `scrimp predict`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
pub struct Predict {
    /// Run directories or checkpoints; several predict together, as the mean of their probabilities
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// The image to segment, or a folder of them or of the slices of one series of DICOM; `NAME_0000`, `NAME_0001` ... are the channels of one
    #[arg(long, value_name = "DIR|FILE")]
    pub images: PathBuf,
    /// What the images were taken with, as `ct`, of a run that has learnt from several modalities
    #[arg(long, value_name = "NAME")]
    pub modality: Option<String>,
    /// The folder to write into; what an interrupted call has finished there stays
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// The format of the labels; that of the image where nothing is said
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<LabelFormat>,
    /// Which checkpoint of each run: last, best, or the directory of one where there is one RUN
    #[arg(long, value_name = "last|best|PATH", default_value = "last")]
    pub checkpoint: String,
    /// Predict mirror images too, along every combination of axes, and take the mean
    #[arg(long)]
    pub mirrors: bool,
    /// The share by which neighbouring windows overlap, of a run that was trained on patches
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = overlap)]
    pub overlap: f64,
    /// Write the probability of every class too, as `NAME.probabilities.h5`, in steps of 1/255
    #[arg(long)]
    pub probabilities: bool,
    /// Write the entropy of the probabilities too, as `NAME.uncertainty` beside the labels: 0 where one
    /// class is certain, 1 where all are equally probable
    #[arg(long)]
    pub uncertainty: bool,
    /// Keep the largest connected part of each structure: voxels touch at faces, edges and corners (26
    /// around each), or with `=6` at faces alone
    #[arg(long, value_name = "26|6", num_args = 0..=1, require_equals = true, default_missing_value = "26")]
    pub keep_largest: Option<Touching>,
    /// The most memory that each process may take, for example `8GB`: fewer windows are computed
    /// together, and an image that needs more is refused before any work is done
    #[arg(long, value_name = "SIZE", value_parser = memory_bytes)]
    pub memory: Option<u64>,
    /// Where to compute: a GPU where there is one, or as said
    #[arg(long, default_value = "auto")]
    pub device: PredictDevice,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// A format that labels are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LabelFormat {
    /// `NAME.nii.gz`
    Nifti,
    /// `NAME.seg.nrrd`, a segmentation of 3D Slicer with the names of the classes
    #[value(name = "seg.nrrd")]
    Segmentation,
    /// `NAME.mha`
    Mha,
    /// `NAME.tif`, a page for each slice, and `NAME.json` with the distances of voxels
    #[value(name = "tif")]
    Tiff,
}

impl LabelFormat {
    /// What names of its files end with.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Nifti => ".nii.gz",
            Self::Segmentation => ".seg.nrrd",
            Self::Mha => ".mha",
            Self::Tiff => ".tif",
        }
    }
}

/// Around how many neighbours a component grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Touching {
    /// Faces, edges and corners
    #[value(name = "26")]
    Corners,
    /// Faces alone
    #[value(name = "6")]
    Faces,
}

/// Where predictions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PredictDevice {
    /// A GPU for each process where there are any, else the CPU
    Auto,
    /// The CPU
    Cpu,
    /// A GPU for each process, or a refusal
    Cuda,
}

/// A share in `[0, 0.9]`.
fn overlap(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=0.9).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 0.9, for example `0.5`".to_owned())
}

/// Bytes in a unit of thousands (`8GB`) or of 1024 (`8GiB`).
fn memory_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1_000),
    ];
    let found = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    found
        .and_then(|(number, unit_bytes)| {
            let number: f64 = number.trim().parse().ok()?;
            let bytes = number * unit_bytes as f64;
            (1.0..=1e18).contains(&bytes).then_some(bytes as u64)
        })
        .ok_or_else(|| "expected a number with its unit, for example `8GB` or `500MiB`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_unit_and_overlap_is_a_share() {
        assert_eq!(memory_bytes("8GB"), Ok(8_000_000_000));
        assert_eq!(memory_bytes("1.5 GiB"), Ok(3 << 29));
        for text in ["8", "GB", "-1GB", "8 bytes", "1e30TB", "nanGB"] {
            assert!(memory_bytes(text).is_err(), "{text}");
        }
        assert_eq!(overlap("0.5"), Ok(0.5));
        for text in ["1", "-0.1", "half", "nan"] {
            assert!(overlap(text).is_err(), "{text}");
        }
    }
}
