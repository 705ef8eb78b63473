//! What the user wrote: the keys of a configuration, typed, with the place of every mistake.
//!
//! Which keys exist is said here, what is assumed where one is absent in [`plan`]. The parameters
//! of a method stay a table: the list of methods checks them from outside with
//! [`RunConfig::method_params`], so this module knows neither methods nor tensors.

mod changes;
mod graph;
mod phantom_tables;
mod phantoms;
pub mod plan;
pub mod sampling;
mod sampling_keys;
mod shown;
mod source;
mod time_span;
mod training;
mod voice;

use crate::error::{Context, Exit, Failure, Result};
use crate::files;
use crate::preparation::Preparation;
use sampling::{Fit, Sampling};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

pub use changes::{Change, changes, values};
pub use graph::GraphChoice;
pub use phantom_tables::{GazePhantomConfig, LesionPhantomConfig, TwoModalityPhantomConfig};
pub use source::Source;
pub use time_span::TimeSpan;
pub use voice::nearest;

/// A configuration as it was written: absent keys are `None`, nothing has been compared yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// What to train on.
    #[serde(default)]
    pub data: DataConfig,
    /// How networks are built, whatever the method.
    #[serde(default)]
    pub net: NetConfig,
    /// Which method trains.
    pub method: MethodConfig,
    /// How long and how to train.
    pub train: TrainConfig,
    /// The text behind all this. Configurations are equal if they say the same, however written.
    #[serde(skip)]
    source: Source,
}

/// `[data]`: exactly one of `path`, `[data.phantom]`, `[data.lesion_phantom]`, `[data.gaze_phantom]` and
/// `[data.two_modality_phantom]`, and how it is looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The packed data set that `scrimp prepare` wrote, relative to the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The cross-validation fold that is held out, counted from 1; 0 holds nothing out (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<u32>,
    /// A published split, whose folds take the place of those that were packed; none where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Which annotation to learn from, by its name in the data set; `random_walker` and
    /// `random_walker_present` are made of the scribbles where they are not in there (default `scribble`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotation: Option<String>,
    /// Rows and columns of slices as the network sees them, up to 8192; which it can take the method says, most
    /// take multiples of 16 (default 256).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// How slices come to that size (default `resize`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// Patches at the scans' own scale, instead of `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patches: Option<PatchesConfig>,
    /// What becomes of the brightness and the cast of images (default `as_stored`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colour: Option<Colour>,
    /// How slices are turned, flipped and brought to size (default `reference`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<Resample>,
    /// What annotations say of pixels that a rotation brings in from outside, and of those around slices that are
    /// smaller than `size` where they are not resized (default `unknown`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
    /// Whether the last, smaller batch of an epoch is left out (default false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_last: Option<bool>,
    /// A synthetic data set, made when the run starts, instead of `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phantom: Option<PhantomConfig>,
    /// Synthetic images with image labels alone, made when the run starts, instead of `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lesion_phantom: Option<LesionPhantomConfig>,
    /// Synthetic pictures that somebody looked at, made when the run starts, instead of `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gaze_phantom: Option<GazePhantomConfig>,
    /// Synthetic abdomens in CT and in MR, made when the run starts, instead of `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_modality_phantom: Option<TwoModalityPhantomConfig>,
    /// Dense masks of other patients, for methods that learn what shapes look like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shapes: Option<ShapesConfig>,
    /// How scans were prepared, as the data set itself says and a run writes down; another one than that
    /// is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preparation: Option<Preparation>,
}

/// `[data.patches]`: boxes of voxels around annotated ones, at the scans' own scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchesConfig {
    /// Slices, rows and columns that the network sees; with 1 slice it sees images.
    pub extent: [usize; 3],
    /// Patches of each case in one epoch (default 4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_case: Option<usize>,
    /// The share of patches, 0 to 1, around a voxel of a structure that is drawn among those annotated; the others
    /// lie around any annotated voxel (default 0.33).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreground_share: Option<f64>,
}

/// `[data.phantom]`: a synthetic cardiac data set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhantomConfig {
    /// How many cases (default 40).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cases: Option<usize>,
    /// Slices of each case; volumes have 24 where nothing else is said (default 8).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slices: Option<usize>,
    /// Whether the slices of a case are sections of one body, in noise in which one slice says less than its
    /// neighbours together (default false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<bool>,
    /// Of volumes every so many slices are scribbled on, at least 1; every third where nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scribbled_every: Option<usize>,
    /// Rows and columns of each slice (default 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// How hard the images are to segment (default `easy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<Difficulty>,
    /// Equal seeds give equal data (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// `[data.shapes]`: dense masks of other patients; exactly one of `path` and `[data.shapes.phantom]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapesConfig {
    /// A folder of NIfTI label volumes or a packed file with dense labels, relative to the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Which way round masks lie (default `corrected`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orientation: Option<Orientation>,
    /// Whether masks of the training data's own patients, refused otherwise, are taken too (default false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_own: Option<bool>,
    /// Synthetic masks, made when the run starts, instead of `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phantom: Option<PhantomConfig>,
}

/// `[net]`: how networks are built.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// Whether dropout layers drop anything in training (default true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<bool>,
    /// Over which samples batch normalisation takes its statistics (default `global`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_norm: Option<Normalisation>,
    /// Before each evaluation, running statistics of batch normalisation are made anew from so many
    /// batches of whole images, which helps methods that train on half-hidden ones; 0 keeps those
    /// that training passes left (default 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute_statistics: Option<u64>,
}

/// `[method]`: which method trains, and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodConfig {
    /// The method by the name that `scrimp methods` lists.
    pub name: String,
    /// Parameters that the method itself defines and checks.
    #[serde(default)]
    pub params: toml::Table,
}

/// `[train]`: how long and how to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// How many steps to train, at least 1.
    pub total_steps: u64,
    /// Slices of one step over all ranks together (default 12).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Into how many parts a step's slices are cut, which are computed one after the other: less
    /// memory for as large a batch; `cltn` and `cyclemix` take it whole (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batches: Option<usize>,
    /// Where all random numbers come from (default 2022).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// In which floating-point numbers to compute (default `fp32`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Steps between two lines of the run log (default 10).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_every: Option<u64>,
    /// Steps between two evaluations of the held-out fold (default 200).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u64>,
    /// Steps between two checkpoints (default 1000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_every: Option<u64>,
    /// How many of the newest checkpoints to keep (default 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<usize>,
    /// How many of the checkpoints with the best validation scores to keep besides (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_best: Option<usize>,
    /// Keeps the checkpoints of every so many steps for good; 0: none (default 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_every: Option<u64>,
    /// Threads of each rank, at most 1024; 0: as many as `OMP_NUM_THREADS` says, else the cores of its node shared among the node's ranks (default 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Where to compute (default `auto`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceChoice>,
    /// After which time a process saves and stops, counted from its start (default `none`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<TimeSpan>,
    /// How long a step may stand still before all processes are ended, at least 20 median steps (default `30s`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang_limit: Option<TimeSpan>,
    /// What to do after a gradient that is not finite; it changes no weights in any case (default `stop`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_non_finite: Option<NonFinite>,
    /// Whether each process keeps the optimiser's moments of its share of the weights alone; the training is the same (default false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_optimizer: Option<bool>,
    /// Whether steps are recorded once and replayed by one call to the GPU, which `auto` does where it works; the training is the same (default `auto`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphChoice>,
}

/// A published split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// ACDC as for DMSPS: 140 of its 200 volumes to train on, 30 to validate with, which are fold 1, and 30 to test with, which are fold 2. Most patients of these have another volume among the 140.
    Dmsps,
    /// ACDC as in ScribbleBench: both volumes of 15 patients to test with, which are fold 1 and never trained on. The folds of the others follow, each by one higher than it was packed, to choose settings by.
    Scribblebench,
}

impl Split {
    /// As a configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dmsps => "dmsps",
            Self::Scribblebench => "scribblebench",
        }
    }
}

/// What becomes of the brightness and the cast of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// They stay.
    AsStored,
    /// Each channel of each slice is scaled to a mean of one half over the pixels that are not black.
    GreyWorld,
}

/// How slices are turned, flipped and brought to size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// Order-0 resampling of image and annotation, exactly as the published codes do it.
    Reference,
    /// The same transforms; the image is interpolated bilinearly, the annotation by nearest neighbour.
    Bilinear,
    /// Half of the slices flipped and turned by quarters, then all rotated by any angle; order 0, and halves to
    /// even, as the published code of CycleMix does it.
    FullRotation,
    /// Half of the slices flipped along rows, half along columns, each by its own chance; order 0.
    Flips,
    /// One sample in five flipped along each axis, one in five turned by quarters within its slices, one in ten made
    /// brighter or darker by up to a tenth and one in ten shifted by up to 0.1, as the published code of CMC does it;
    /// order 0.
    Mild,
    /// Resizing or cropping alone, order 0.
    None,
}

/// What annotations say of pixels outside the slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// Nothing; where slices are resized, background in annotations that leave no pixel of the slice open.
    Unknown,
    /// Background, as the released codes of Scribble2Label and CycleMix have it.
    Background,
}

/// Which way round masks lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// Rows and columns as the slices to train on have them.
    Corrected,
    /// Rows and columns swapped, as the released code of MaskMixAdv reads NIfTI masks.
    Released,
}

/// How hard synthetic images are to segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difficulty {
    /// Clear contrast, mild bias field and noise.
    Easy,
    /// Weak contrast, strong bias field and noise, many distractors.
    Hard,
}

/// Over which samples batch normalisation takes its statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// The samples of all ranks: the same training on any number of ranks.
    Global,
    /// The samples of each rank alone: faster, but the result depends on the number of ranks.
    Local,
}

/// In which floating-point numbers to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    Fp32,
    /// Single precision; on GPUs the products of convolutions and matrices with 10 bits of mantissa.
    /// The same as `fp32` on CPUs.
    Tf32,
    /// Convolutions and the features between them with 7 bits of mantissa. Weights, moments,
    /// normalisations and losses in single precision.
    Bf16,
    /// Double precision, to verify that ranks agree.
    Fp64,
}

impl Precision {
    /// `fp32`, `tf32`, `bf16` or `fp64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Fp64 => "fp64",
        }
    }
}

/// What to do after a gradient that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// The run fails and says which step, losses and slices it was.
    Stop,
    /// Training goes on without that step; ten such steps in a row fail the run.
    Skip,
    /// Training goes on from the newest checkpoint, with half the learning rate up to the next one;
    /// what fails a third time before that one fails the run.
    Rollback,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// A CUDA device where there is one, else the CPU.
    Auto,
    /// The CPU, whatever else there is.
    Cpu,
    /// A CUDA device; its absence is an error.
    Cuda,
}

/// Reads a configuration file and applies `KEY=VALUE` overrides to it.
pub fn read(path: &Path, overrides: &[String]) -> Result<RunConfig> {
    let name = path.display().to_string();
    let text = files::read_text(path, files::SMALL_BYTES)
        .context(|| format!("cannot read the configuration `{}`", shown::quoted(&name)))
        .map_err(|failure| {
            failure.exit_with(Exit::Usage).hint("list the configurations at hand with `ls configs`")
        })?;
    parse(&text, &name, overrides)
}

/// Parses the text of a configuration called `name` and applies `KEY=VALUE` overrides to it.
pub fn parse(text: &str, name: &str, overrides: &[String]) -> Result<RunConfig> {
    let source = Source::new(text, name, overrides)?;
    let config: RunConfig = source.typed()?;
    Ok(RunConfig { source, ..config })
}

impl RunConfig {
    /// The parameters of the method, from `[method.params]`; without that table, from an empty one.
    pub fn method_params<P: DeserializeOwned>(&self) -> Result<P> {
        #[derive(Deserialize)]
        struct Document<P> {
            method: Method<P>,
        }
        #[derive(Deserialize)]
        struct Method<P> {
            params: P,
        }
        if self.source.holds("method.params") {
            return self.source.typed::<Document<P>>().map(|document| document.method.params);
        }
        self.source.empty_at("method.params")
    }

    /// A refusal of what `key` (for example `train.batch_size`) says, with its place.
    pub fn refuse(&self, key: &str, message: impl AsRef<str>) -> Failure {
        self.source.refuse(key, message.as_ref())
    }

    /// Where `key` says what it says, as [`Failure::at`] takes it.
    pub fn place(&self, key: &str) -> String {
        self.source.place(key)
    }

    /// `count` where it lies in `allowed`, and a refusal of what `key` says elsewhere.
    fn within(&self, key: &str, count: u64, allowed: RangeInclusive<u64>) -> Result<u64> {
        if allowed.contains(&count) {
            return Ok(count);
        }
        let (least, most) = (allowed.start(), allowed.end());
        Err(self.refuse(key, format!("`{key}` is {count}, expected {least} to {most}")))
    }
}

impl DataConfig {
    /// The annotation to learn from.
    pub fn annotation(&self) -> &str {
        self.annotation.as_deref().unwrap_or("scribble")
    }

    /// How samples are cut from scans, as it is written.
    pub fn sampling(&self) -> Sampling {
        let size = self.size.unwrap_or(256);
        match self.patches {
            None if self.fit == Some(Fit::Crop) => Sampling::Cropped { size },
            None => Sampling::Slices { size },
            Some(PatchesConfig { extent, per_case, foreground_share }) => Sampling::Patches {
                extent,
                per_case: per_case.unwrap_or(4),
                foreground_share: foreground_share.unwrap_or(0.33),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "\
[data]
path = \"acdc.h5\"   # packed

[method]
name = \"partial-ce\"
[method.params]
lr = \"fast\"

[train]
total_steps = 100
";

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        #[serde(default)]
        lr: f64,
    }

    fn refused(text: &str, overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let failure = parse(text, "a.toml", &overrides).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        failure.to_string()
    }

    #[test]
    fn overrides_replace_add_and_create_tables() {
        let overrides = ["train.total_steps=7", "train.seed = 3", "data.phantom.cases=9"];
        let overrides = overrides.map(String::from).to_vec();
        let config = parse(SMALL, "a.toml", &overrides).unwrap();
        assert_eq!((config.train.total_steps, config.train.seed), (7, Some(3)));
        assert_eq!(config.data.phantom.unwrap().cases, Some(9));
        assert_eq!(config.data.path, Some(PathBuf::from("acdc.h5")));
    }

    #[test]
    fn overrides_reach_into_inline_tables() {
        let text = SMALL.replace("lr = \"fast\"", "sgd = { momentum = 0.9 }");
        let overrides = ["method.params.sgd.momentum=0.5", "method.params.sgd.decay.rate=1"];
        let config = parse(&text, "a.toml", &overrides.map(String::from)).unwrap();
        let expected = "sgd = { momentum = 0.5, decay = { rate = 1 } }".parse::<toml::Table>();
        assert_eq!(config.method.params, expected.unwrap());
    }

    #[test]
    fn a_value_that_is_not_toml_is_a_string() {
        let config = parse(SMALL, "a.toml", &["method.name=mean-teacher".to_owned()]).unwrap();
        assert_eq!(config.method.name, "mean-teacher");
    }

    #[test]
    fn a_mistake_in_an_override_names_the_override() {
        insta::assert_snapshot!(refused(SMALL, &["train.total_steps=many"]), @r"
        error: `train.total_steps` is the string `many`, expected a whole number
          --> --set train.total_steps=many
        ");
        insta::assert_snapshot!(refused(SMALL, &["train.totl_steps=4"]), @r"
        error: unknown key `train.totl_steps`
          --> --set train.totl_steps=4

        hint: did you mean `total_steps`?
        ");
        insta::assert_snapshot!(refused(SMALL, &["train.total_steps"]), @r"
        error: `--set train.total_steps` has no `=`

        hint: write it as `--set train.total_steps=100`
        ");
        insta::assert_snapshot!(refused(SMALL, &["train..seed=1"]), @r"
        error: `--set train..seed=1` does not begin with a key

        hint: write it as `--set train.total_steps=100`
        ");
        insta::assert_snapshot!(refused(SMALL, &["train.total_steps.x=1"]), @r"
        error: `--set train.total_steps.x=1` goes into `total_steps`, which is not a table
        ");
    }

    #[test]
    fn lines_are_those_of_the_file_although_overrides_moved_them() {
        let text = SMALL.replace("total_steps = 100", "total_steps = 100\nseed = true");
        insta::assert_snapshot!(refused(&text, &["data.fold=2", "data.size=32"]), @r"
        error: `train.seed` is a boolean, `true`, expected a whole number
          --> a.toml:11:8
           |
        11 | seed = true
           |        ^^^^
        ");
    }

    #[test]
    fn mistakes_in_the_method_parameters_have_their_place() {
        let config = parse(SMALL, "a.toml", &[]).unwrap();
        insta::assert_snapshot!(config.method_params::<Params>().unwrap_err(), @r#"
        error: `method.params.lr` is the string `fast`, expected a number
          --> a.toml:7:6
          |
        7 | lr = "fast"
          |      ^^^^^^
        "#);
        let config = parse(SMALL, "a.toml", &["method.params.lr=0.5".to_owned()]).unwrap();
        assert!((config.method_params::<Params>().unwrap().lr - 0.5).abs() < 1e-12);
    }

    #[test]
    fn absent_method_parameters_are_an_empty_table() {
        #[derive(Debug, Deserialize)]
        struct Needy {
            #[serde(rename = "lr")]
            _lr: f64,
        }
        let text = "[method]\nname = \"x\"\n[train]\ntotal_steps = 1\n";
        let config = parse(text, "a.toml", &[]).unwrap();
        assert_eq!(config.method_params::<Params>().unwrap().lr.to_bits(), 0);
        insta::assert_snapshot!(config.method_params::<Needy>().unwrap_err(), @r"
        error: the key `method.params.lr` is missing
          --> a.toml
        ");
    }
}
