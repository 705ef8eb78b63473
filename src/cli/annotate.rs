//! The command line of `scrimp prepare pseudo-labels` and `scrimp prepare scribbles`, which annotate what is packed:
//! types only.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `scrimp prepare pseudo-labels`.
#[derive(Debug, Args)]
pub struct PseudoLabels {
    /// What makes the labels
    #[arg(long, value_name = "METHOD")]
    pub with: Labeller,
    /// What becomes of a slice whose scribble lacks a structure
    #[arg(long, default_value = "background")]
    pub absent: Absent,
    /// The packed file with scribbles, for the random walker
    #[arg(long, value_name = "FILE", required_if_eq("with", "random-walker"))]
    pub from: Option<PathBuf>,
    /// The run whose network labels the images that it was trained on; given several times, the networks of the
    /// others label them with it, by the mean of their probabilities
    #[arg(
        long = "run",
        value_name = "RUN",
        required_if_eq("with", "network"),
        conflicts_with_all = ["from", "absent"]
    )]
    pub runs: Vec<PathBuf>,
    /// Which checkpoint of the run: `best`, `last`, or a directory
    #[arg(long, default_value = "best", requires = "runs")]
    pub checkpoint: String,
    /// What becomes of the network's predictions
    #[arg(long, default_value = "none", requires = "runs")]
    pub refine: Refinement,
    /// By how much the random field favours the lesion where the network is unsure
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8), requires = "runs")]
    pub alpha: u32,
    /// Ask about mirror images too, along every combination of axes, and take the mean
    #[arg(long, requires = "runs")]
    pub mirrors: bool,
    /// Label what networks are sure of and no more, as annotation `expanded`: where the entropy of the mean
    /// probabilities of their decoders is below a share of the largest possible one, as in `0.1`; of each class the
    /// largest part
    #[arg(
        long,
        value_name = "SHARE",
        value_parser = entropy_share,
        requires = "runs",
        conflicts_with = "refine"
    )]
    pub uncertainty: Option<f32>,
    /// What becomes of voxels that networks are not sure of
    #[arg(long, default_value = "unlabelled", requires = "uncertainty")]
    pub unsure: Unsure,
    /// The packed file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Print the file and the report on it as JSON
    #[arg(long)]
    pub json: bool,
}

/// What becomes of what networks are not sure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Unsure {
    /// Nobody says anything of it
    Unlabelled,
    /// It is background, as in the original scripts of DMSPS
    Background,
}

/// What makes labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Labeller {
    /// The class whose scribble a random walk over similar pixels reaches first
    RandomWalker,
    /// The network of a run: annotation `network`, or `expanded`
    Network,
}

/// What becomes of predictions before they are labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Refinement {
    /// Nothing
    None,
    /// A dense conditional random field over colours and places; for lesions in colour images
    DenseCrf,
}

/// What becomes of a slice whose scribble lacks a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Absent {
    /// All of it is background, as in the published runs: annotation `random_walker`
    Background,
    /// The walk goes between the classes that are there: annotation `random_walker_present`
    LeftOut,
}

/// Arguments of `scrimp prepare scribbles`.
#[derive(Debug, Args)]
pub struct Scribbles {
    /// What to draw
    #[arg(long, default_value = "walk")]
    pub kind: ScribbleKind,
    /// Points of each class and slice, 1 to 3, the background included
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub count: u8,
    /// Draw on the first of every so many slices and leave the others unlabelled
    #[arg(long, value_name = "SLICES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,
    /// How often strokes are halved: 1 to 4 times for 1/2 to 1/16
    #[arg(long, value_name = "TIMES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
    pub shorten: u32,
    /// Equal seeds give equal scribbles
    #[arg(long, default_value_t = 2022)]
    pub seed: u64,
    /// The packed file with dense labels, or with scribbles to shorten
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// The packed file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Print the file and the report on it as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is drawn on slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScribbleKind {
    /// A random walk along the middle of each structure, and the skeleton of the background
    Walk,
    /// A few single pixels of each class
    Points,
    /// In one component of each class, the background included, a curve and a piece of its edge, by the recipe of ScribbleBench
    Scribblebench,
    /// Nothing new: the scribbles that are there, for `--shorten` and `--every`
    Existing,
}

/// Takes shares of the largest entropy.
fn entropy_share(word: &str) -> Result<f32, String> {
    let share = word.parse().ok().filter(|share: &f32| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a share above 0 and up to 1".to_owned())
}
