//! The command line of `scrimp prepare`: types only.

use super::annotate::{PseudoLabels, Scribbles};
use super::check::CheckPacked;
use super::packed::PackedFile;
use crate::limits::{EXTENT, FOLDS, NETWORK_SIZE, PHANTOM_CASES};
use clap::builder::RangedU64ValueParser;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Takes counts of `least` to `most` things.
fn from_to(least: usize, most: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least as u64..=most as u64)
}

/// Sources of data sets.
#[derive(Debug, Subcommand)]
pub enum Prepare {
    /// ACDC: WSL4MIS volumes, WSL4MIS slices, or the challenge's NIfTI tree
    Acdc(Published),
    /// MSCMR in the folders of CycleMix: `train` with scribbles, `val` and, where its images are there, `TestSet`
    /// with dense labels
    Mscmr(Published),
    /// WORD: abdominal CT, seven organs, in the challenge's own folder
    Word(Word),
    /// BraTS: whole volumes in four modalities with simulated scribbles
    BratsScribbles(BratsScribbles),
    /// Your own data: folders of images, scribbles and dense labels of the same file names, in any format
    OwnData(OwnData),
    /// `own-data` takes NIfTI, too: whoever asks for it hears so
    #[command(hide = true)]
    Nifti {
        /// Whatever stands there
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// nnU-Net: a raw folder `DatasetNNN_NAME` of the second version
    Nnunet(Nnunet),
    /// A synthetic cardiac data set, for trying things out
    Phantom {
        /// How many cases
        #[arg(long, default_value_t = 40, value_parser = from_to(1, PHANTOM_CASES))]
        cases: usize,
        /// Slices of each case
        #[arg(long, default_value_t = 8, value_parser = from_to(1, EXTENT))]
        slices: usize,
        /// Rows and columns of each slice
        #[arg(long, default_value_t = 128, value_parser = from_to(32, NETWORK_SIZE))]
        size: usize,
        /// How hard the images are to segment
        #[arg(long, default_value = "easy")]
        difficulty: Difficulty,
        /// Equal seeds give equal files
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The packed file that is made
        #[command(flatten)]
        packed: PackedFile,
    },
    /// Folders of diseased and healthy pictures (`trainA`, `trainB`), and masks to measure with
    LabelTransfer(LabelTransfer),
    /// BraTS: slices of FLAIR volumes that show a tumour, and slices that show none
    Brats(Brats),
    /// Synthetic diseased and healthy images in colour, for methods that learn from image labels
    LesionPhantom(LesionPhantom),
    /// Pictures that somebody looked at: levels of gaze made of an eye tracker's fixations; mpirun makes it faster
    Gaze(Gaze),
    /// Synthetic pictures with lesions and simulated fixations
    GazePhantom(GazePhantom),
    /// AMOS: organs of the abdomen in CT and MR, few of them labelled; the folders of the challenge or of CMC
    Amos(Amos),
    /// Synthetic abdomens in CT and MR of different patients, few of them labelled
    TwoModalityPhantom(TwoModalityPhantom),
    /// Add labels of every pixel that a program makes of scribbles; mpirun makes it faster
    PseudoLabels(PseudoLabels),
    /// Draw scribbles or points where there are dense labels, instead of those that are there, or shorten these; mpirun makes it faster
    Scribbles(Scribbles),
    /// Say what a packed file holds and what is odd about it, and whether it can be trained on
    Check(CheckPacked),
}

/// Arguments of `scrimp prepare acdc` and `scrimp prepare mscmr`.
#[derive(Debug, Args)]
pub struct Published {
    /// The folder that holds the data set
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// How images are resampled
    #[command(flatten)]
    pub resampling: Resampling,
    /// How intensities are scaled, by a word that `scrimp prepare own-data --help` names; as published where nothing
    /// is said
    #[arg(long, value_name = "HOW")]
    pub intensities: Option<String>,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// How images are resampled.
#[derive(Debug, Args)]
pub struct Resampling {
    /// Resample images so that voxels lie so far apart: rows and columns, one number for both, or slices, rows and
    /// columns
    #[arg(long, value_name = "MM", value_delimiter = ',', value_parser = distance_mm)]
    pub spacing: Vec<f64>,
    /// How numbers are taken between voxels
    #[arg(long, default_value = "cubic", requires = "spacing")]
    pub interpolation: Interpolation,
}

/// How numbers are taken between voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Interpolation {
    /// By cubic splines; annotated voxels are carried over one by one
    Cubic,
    /// By straight lines, smoothed where voxels become fewer; labels are those of the nearest voxel. As published
    /// for CycleMix, at 1.36719 mm
    Linear,
}

/// Arguments of `scrimp prepare own-data`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("labels").args(["scribbles", "dense"]).required(true).multiple(true))]
pub struct OwnData {
    /// Folder of images in any format that is read, one per case, or one for each channel of it: `NAME_0000.nii.gz`,
    /// `NAME_0001.nii.gz` and so on
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// What the channels show, in the order of their numbers, as in `t1,t2,flair`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub modalities: Option<Vec<String>>,
    /// Folder of scribbles with the names of the images; an image with dense labels may lack them
    #[arg(long, value_name = "DIR", requires = "unlabelled")]
    pub scribbles: Option<PathBuf>,
    /// Folder of dense labels with the names of the images; an image with scribbles may lack them
    #[arg(long, value_name = "DIR")]
    pub dense: Option<PathBuf>,
    /// Names of the classes, the background first: for label values 0, 1, 2 and so on, or each with
    /// its values, as in `1=background,2+3=liver`
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    pub classes: Vec<String>,
    /// The same classes by the values of dense labels, where those are others
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "dense")]
    pub dense_classes: Option<Vec<String>>,
    /// Label value of pixels of scribbles that nobody annotated
    #[arg(long, value_name = "LABEL", allow_negative_numbers = true, requires = "scribbles")]
    pub unlabelled: Option<i64>,
    /// Table with a line for each case: columns `case` and any of `patient`, `part` (`train` or `test`), `fold` and
    /// `classes` (those that somebody looked for, as in `liver;tumour`)
    #[arg(long, value_name = "CSV")]
    pub cases: Option<PathBuf>,
    /// Regular expression whose first group in the name of a case is its patient, as in `^(p[0-9]+)_`;
    /// each case is a patient of its own otherwise
    #[arg(long, value_name = "REGEX")]
    pub patients: Option<String>,
    /// How many folds hold patients out in turn, 5 where nothing is said; each gets its share of every class
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(2..=i64::from(FOLDS)))]
    pub folds: Option<u32>,
    /// Share of the patients to test with: in the fold after the others, and never trained on
    #[arg(long, value_name = "SHARE")]
    pub test_share: Option<f64>,
    /// Equal seeds give equal folds
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Carry labels that do not lie on the voxels of their image to the nearest ones, by the places that both files state
    #[arg(long)]
    pub regrid: bool,
    /// How images are resampled
    #[command(flatten)]
    pub resampling: Resampling,
    /// Which part of images is kept
    #[arg(long, default_value = "none")]
    pub crop: Crop,
    /// How intensities are scaled, once for all channels or once for each: `robust` or `published` to [0, 1],
    /// `z-score`, `z-score-nonzero` or `z-score-slices` by the image itself, `window:LOW,HIGH` to [0, 1], `fixed` by the annotated
    /// foreground of all images (for CT), `as-stored`
    #[arg(long, value_name = "HOW", default_value = "robust")]
    pub intensities: Vec<String>,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare nnunet`.
#[derive(Debug, Args)]
pub struct Nnunet {
    /// The raw folder of one data set, such as `nnUNet_raw/Dataset027_ACDC`, with `dataset.json`, `imagesTr` and
    /// `labelsTr`, and where they are there `labelsTr_dense`, `imagesTs` and `labelsTs`
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// The folds [default: `splits_final.json` in the folder, or in the one of its name in `nnUNet_preprocessed` beside
    /// `nnUNet_raw`; else five are drawn]
    #[arg(long, value_name = "FILE")]
    pub splits: Option<PathBuf>,
    /// Table with a line for each case: columns `case` and any of `patient`, `classes` (those that somebody looked for,
    /// as in `liver;tumour`) and, where there is no file of folds, `part` (`train` or `test`) and `fold`
    #[arg(long, value_name = "CSV")]
    pub cases: Option<PathBuf>,
    /// Regular expression whose first group in the name of a case is its patient, as in `^(p[0-9]+)_`;
    /// each case is a patient of its own otherwise
    #[arg(long, value_name = "REGEX")]
    pub patients: Option<String>,
    /// How images are resampled
    #[command(flatten)]
    pub resampling: Resampling,
    /// Which part of images is kept
    #[arg(long, default_value = "none")]
    pub crop: Crop,
    /// How intensities are scaled, once for all channels or once for each, by a word that `scrimp prepare own-data --help`
    /// names [default: by the names of the channels, as nnU-Net does]
    #[arg(long, value_name = "HOW")]
    pub intensities: Vec<String>,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare label-transfer`.
#[derive(Debug, Args)]
pub struct LabelTransfer {
    /// The folder that holds `trainA` and `trainB` (or `NNN_A_weak` and `NNN_B_weak`), `val` and `testA`
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Rows and columns that every picture is resized to
    #[arg(long, value_name = "PIXELS", default_value_t = 256, value_parser = from_to(16, NETWORK_SIZE))]
    pub size: usize,
    /// Pack `val` and `testA` alone, to evaluate on; training folders need not be there
    #[arg(long)]
    pub test_only: bool,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare brats`.
#[derive(Debug, Args)]
pub struct Brats {
    /// The folder in which, at any depth, `CASE_flair.nii.gz` and `CASE_seg.nii.gz` lie side by side
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Rows and columns that every slice is resized to
    #[arg(long, value_name = "PIXELS", default_value_t = 256, value_parser = from_to(16, NETWORK_SIZE))]
    pub size: usize,
    /// Lesion pixels of a diseased slice, at least; slices with fewer are left out. 500 of 240 x 240
    /// is just below the smallest lesion in the published slices
    #[arg(long, value_name = "PIXELS", default_value_t = 500)]
    pub min_lesion: usize,
    /// Take one slice of every so many
    #[arg(long, value_name = "SLICES", default_value_t = 5)]
    pub every: usize,
    /// Where the first slice may lie, in per cent of the depth
    #[arg(long, value_name = "PERCENT", default_value_t = 30)]
    pub depth_from: u32,
    /// Where the last slice may lie, in per cent of the depth
    #[arg(long, value_name = "PERCENT", default_value_t = 80)]
    pub depth_to: u32,
    /// Share of the patients to validate with
    #[arg(long, value_name = "SHARE", default_value_t = 0.15)]
    pub val_share: f64,
    /// Share of the patients to test with
    #[arg(long, value_name = "SHARE", default_value_t = 0.15)]
    pub test_share: f64,
    /// Equal seeds give equal splits
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare word`.
#[derive(Debug, Args)]
pub struct Word {
    /// The folder of the data set, with `imagesTr`, `labelsTr`, `scribblesTr`, `imagesVal`, `labelsVal` and, where they
    /// are there, `imagesTs` and `labelsTs`
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Draw scribbles from the dense labels of images to train on, instead of those in the folder
    #[arg(long)]
    pub simulate: bool,
    /// Draw on the first of every so many slices and leave the others unlabelled
    #[arg(long, value_name = "SLICES", default_value_t = 1, requires = "simulate", value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,
    /// Equal seeds give equal scribbles
    #[arg(long, default_value_t = 2022, requires = "simulate")]
    pub seed: u64,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare brats-scribbles`.
#[derive(Debug, Args)]
pub struct BratsScribbles {
    /// The folder in which, at any depth, `CASE_t1.nii.gz`, `CASE_t1ce.nii.gz`, `CASE_t2.nii.gz`,
    /// `CASE_flair.nii.gz` and `CASE_seg.nii.gz` lie side by side
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Draw on the first of every so many slices and leave the others unlabelled
    #[arg(long, value_name = "SLICES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub every: u32,
    /// Share of the patients to validate with; 56 of 369 is what is published
    #[arg(long, value_name = "SHARE", default_value_t = 0.1518)]
    pub val_share: f64,
    /// Share of the patients to test with; 54 of 369 is what is published
    #[arg(long, value_name = "SHARE", default_value_t = 0.1463)]
    pub test_share: f64,
    /// Equal seeds give equal splits and scribbles
    #[arg(long, default_value_t = 2022)]
    pub seed: u64,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare lesion-phantom`.
#[derive(Debug, Args)]
pub struct LesionPhantom {
    /// How many diseased images to train on
    #[arg(long, default_value_t = 200, value_parser = from_to(1, PHANTOM_CASES))]
    pub cases: usize,
    /// How many healthy images to train on
    #[arg(long, default_value_t = 200, value_parser = from_to(1, PHANTOM_CASES))]
    pub healthy: usize,
    /// How many images with known lesions to validate with
    #[arg(long, default_value_t = 32, value_parser = from_to(1, PHANTOM_CASES))]
    pub validation: usize,
    /// How many images with known lesions to test with
    #[arg(long, default_value_t = 32, value_parser = from_to(0, PHANTOM_CASES))]
    pub test: usize,
    /// Rows and columns of each image
    #[arg(long, default_value_t = 64, value_parser = from_to(32, NETWORK_SIZE))]
    pub size: usize,
    /// Equal seeds give equal files
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare gaze`.
#[derive(Debug, Args)]
pub struct Gaze {
    /// Folder of pictures, PNG or JPEG
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// Folder of masks with the names of the pictures, 255 where the structure is; pictures to train on need none
    #[arg(long, value_name = "DIR")]
    pub masks: Option<PathBuf>,
    /// Table of fixations with the columns `IMAGE`, `CURRENT_FIX_X`, `CURRENT_FIX_Y` (both 0 to 1),
    /// `CURRENT_FIX_DURATION` and, where it is known, `CURRENT_FIX_START` (both in ms)
    #[arg(long, value_name = "CSV")]
    pub fixations: PathBuf,
    /// List of pictures to train on, the first word of each line a name; without lists folds are drawn
    #[arg(long, value_name = "FILE", requires = "test")]
    pub train: Option<PathBuf>,
    /// List of pictures to test with, which become fold 1
    #[arg(long, value_name = "FILE", requires = "train")]
    pub test: Option<PathBuf>,
    /// Rows and columns that every picture is resized to
    #[arg(long, value_name = "PIXELS", default_value_t = 224, value_parser = from_to(16, NETWORK_SIZE))]
    pub size: usize,
    /// By which deviation maps of gaze are smoothed, in 768ths of a picture; as published where nothing is said: 70
    /// of pictures in colour (Kvasir-SEG), 50 of grey ones (NCI-ISBI 2013)
    #[arg(long, value_name = "CELLS")]
    pub sigma: Option<f64>,
    /// At which shares maps of gaze are cut; as published where nothing is said: 0.5,0.3 of pictures in colour,
    /// 0.2,0.4 of grey ones
    #[arg(long, value_name = "SHARES", value_delimiter = ',')]
    pub levels: Vec<f64>,
    /// What masks and gaze show
    #[arg(long, value_name = "NAME", default_value = "lesion")]
    pub class: String,
    /// Regular expression whose first group in the name of a picture is its patient, as in `^(.+)_[0-9]+$`;
    /// each picture is a patient of its own otherwise
    #[arg(long, value_name = "REGEX")]
    pub patients: Option<String>,
    /// Equal seeds draw equal folds
    #[arg(long, default_value_t = 1, conflicts_with = "train")]
    pub seed: u64,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare amos`.
#[derive(Debug, Args)]
pub struct Amos {
    /// The folder with `imagesTr`, `labelsTr`, `imagesVal` and `labelsVal`, numbers up to 500 for CT and larger ones for
    /// MR; or with `train_data` and `val_data`, in each `images` (`amos_0001_CT`, `amos_0507_MRI`) and `masks`
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Which of the cases to train on are labelled
    #[command(flatten)]
    pub labelled: Labelled,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Arguments of `scrimp prepare gaze-phantom`.
#[derive(Debug, Args)]
pub struct GazePhantom {
    /// How many pictures to train on
    #[arg(long, default_value_t = 200, value_parser = from_to(1, PHANTOM_CASES))]
    pub cases: usize,
    /// How many pictures to validate with
    #[arg(long, default_value_t = 32, value_parser = from_to(1, PHANTOM_CASES))]
    pub validation: usize,
    /// How many pictures to test with
    #[arg(long, default_value_t = 32, value_parser = from_to(0, PHANTOM_CASES))]
    pub test: usize,
    /// Rows and columns of each picture
    #[arg(long, default_value_t = 64, value_parser = from_to(32, NETWORK_SIZE / 2))]
    pub size: usize,
    /// At which shares maps of gaze are cut
    #[arg(long, value_name = "SHARES", value_delimiter = ',', default_value = "0.5,0.3")]
    pub levels: Vec<f64>,
    /// Equal seeds give equal files
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// Which of the cases to train on are labelled.
#[derive(Debug, Args)]
pub struct Labelled {
    /// The share of the cases of each modality to train on that keep their labels; what the others show is not packed
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = labelled_share)]
    pub labelled_share: f64,
    /// Equal seeds label equal cases, and draw equal ones where they are drawn
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Arguments of `scrimp prepare two-modality-phantom`.
#[derive(Debug, Args)]
pub struct TwoModalityPhantom {
    /// How many patients of each modality to train on
    #[arg(long, default_value_t = 20, value_parser = from_to(1, PHANTOM_CASES))]
    pub cases: usize,
    /// How many patients of each modality to validate with
    #[arg(long, default_value_t = 5, value_parser = from_to(1, PHANTOM_CASES))]
    pub validation: usize,
    /// About how many slices a case has
    #[arg(long, default_value_t = 24, value_parser = from_to(8, EXTENT))]
    pub slices: usize,
    /// About how many rows and columns a slice has before it is cropped
    #[arg(long, default_value_t = 64, value_parser = from_to(32, NETWORK_SIZE))]
    pub size: usize,
    /// Which of the cases to train on are labelled
    #[command(flatten)]
    pub labelled: Labelled,
    /// The packed file that is made
    #[command(flatten)]
    pub packed: PackedFile,
}

/// How hard synthetic images are to segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Difficulty {
    /// Clear contrast, mild bias field and noise
    Easy,
    /// Weak contrast, strong bias field and noise, many distractors
    Hard,
}

/// Which part of images is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Crop {
    /// All of them
    None,
    /// The box outside of which every channel is 0
    Nonzero,
}

/// Takes shares of cases, of which one at least is left.
fn labelled_share(word: &str) -> Result<f64, String> {
    let share = word.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a share above 0 and up to 1".to_owned())
}

/// Takes distances in millimetres.
fn distance_mm(word: &str) -> Result<f64, String> {
    let distance = word.parse().ok().filter(|mm: &f64| mm.is_finite() && *mm > 0.0);
    distance.ok_or_else(|| "expected millimetres above 0".to_owned())
}
