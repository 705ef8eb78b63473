//! The command line of `scrimp evaluate`: types only.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `scrimp evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// The run directory
    #[arg(value_name = "RUN", required_unless_present = "predictions")]
    pub run: Option<PathBuf>,
    /// last, best, or the directory of a checkpoint
    #[arg(long, value_name = "last|best|PATH", default_value = "last")]
    pub checkpoint: String,
    /// The yardstick of the scores; of files `native` or `scribblebench`
    #[arg(long, default_value = "native")]
    pub convention: Convention,
    /// The fold to score, of which nothing was trained on [default: the one that the run held out]
    #[arg(long)]
    pub fold: Option<u32>,
    /// The statistics with which batch normalisation works
    #[arg(long, default_value = "saved")]
    pub statistics: Statistics,
    /// Score what the run predicts of the images in this folder, in place of a fold; `NAME_0000`, `NAME_0001` ... are the channels of one
    #[arg(
        long,
        value_name = "DIR",
        group = "files",
        requires_all = ["run", "labels"],
        conflicts_with_all = ["fold", "statistics"]
    )]
    pub images: Option<PathBuf>,
    /// What these images were taken with, as `ct`, of a run that has learnt from several modalities
    #[arg(long, value_name = "NAME", requires = "images")]
    pub modality: Option<String>,
    /// Score the label files in this folder instead of a run, NIfTI or PNG of any program
    #[arg(
        long,
        value_name = "DIR",
        group = "files",
        requires = "labels",
        conflicts_with_all = ["run", "checkpoint", "fold", "statistics"]
    )]
    pub predictions: Option<PathBuf>,
    /// The true labels, files with the names of the images or predictions
    #[arg(long, value_name = "DIR", requires = "files")]
    pub labels: Option<PathBuf>,
    /// How far apart surfaces may lie that count as one for NSD: mm, or voxels where the spacing is unknown
    #[arg(long, value_name = "MM", default_value_t = 1.0, requires = "labels", value_parser = tolerance)]
    pub tolerance: f64,
    /// Classes by the values of labels, the background first: names, or `VALUE=NAME` of each [default: of a run its own; else every value that is found, 0 the background]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "labels")]
    pub classes: Option<Vec<String>>,
    /// Where to write the table of cases [default: `scores.csv` in the folder of predictions; of a run `RUN/scores/evaluate-CHECKPOINT-CONVENTION.csv`, with statistics and fold if they are given, with `--images` `RUN/scores/evaluate-files-CHECKPOINT.csv` or `evaluate-files-CHECKPOINT-scribblebench.csv`]
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Print the means as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is measured, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Convention {
    /// Native size; millimetres where the spacing is known, voxels elsewhere
    Native,
    /// Native size, voxels
    Voxels,
    /// The network's grid with spacing 10, 1, 1, as papers on ACDC scribbles print it
    Published,
    /// Native size and unit, and 0 in every score of a structure that prediction or truth lack, as published for DMSPS
    Dmsps,
    /// Native size, Dice alone: the mean over the structures of each case, then over cases, as in ScribbleBench
    Scribblebench,
    /// Jaccard, accuracy, Dice, sensitivity and specificity of the first class, as published for lesions
    Lesion,
}

/// Statistics with which batch normalisation works in an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Statistics {
    /// Those of the checkpoint
    Saved,
    /// Made anew from ten batches of whole training images
    Recomputed,
    /// Those of each volume, as in training; one process only
    Volume,
}

/// A length that is finite and not below 0.
fn tolerance(text: &str) -> Result<f64, String> {
    let length = text.parse().ok().filter(|length: &f64| length.is_finite() && *length >= 0.0);
    length.ok_or_else(|| "expected a length from 0 on, for example `2.5`".to_owned())
}
