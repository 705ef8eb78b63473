//! The command line: types only. What each command does stands in `commands`.

mod annotate;
mod check;
mod doctor;
mod evaluate;
mod farm;
mod packed;
mod predict;
mod prepare;
mod resume;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

pub use annotate::{Absent, Labeller, PseudoLabels, Refinement, ScribbleKind, Scribbles, Unsure};
pub use check::CheckPacked;
pub use doctor::{Doctor, DoctorData, DoctorPart};
pub use evaluate::{Convention, Evaluate, Statistics};
pub use farm::Farm;
pub use packed::PackedFile;
pub use predict::{LabelFormat, Predict, PredictDevice, Touching};
pub use prepare::{
    Amos, Brats, BratsScribbles, Crop, Difficulty, Gaze, GazePhantom, Interpolation, LabelTransfer,
    Labelled, LesionPhantom, Nnunet, OwnData, Prepare, Published, Resampling, TwoModalityPhantom,
    Word,
};
pub use resume::Resume;

/// Trains medical image segmentation from scrimped annotations, on as many processes as mpirun starts.
#[derive(Debug, Parser)]
#[command(name = "scrimp", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pack a data set into the one HDF5 file that training reads
    #[command(subcommand)]
    Prepare(Prepare),
    /// Train; start it with mpirun or srun for more than one process
    Train(Train),
    /// Train under mpirun, pass requests to stop on to it, and start again after failures
    Launch(Launch),
    /// Run many jobs from one file, folds, seeds and stages, as room for them becomes free
    Farm(Farm),
    /// Go on with a run, or check that its last steps can be repeated; start it with mpirun or srun for more than one process
    Resume(Resume),
    /// Score a trained run on its held-out fold, or label files of any program
    Evaluate(Evaluate),
    /// Segment images that nobody has annotated; start it with mpirun for several at a time
    Predict(Predict),
    /// Look at runs or a farm while they are under way, or afterwards
    Watch(Watch),
    /// Turn the log of a run, or a packed data set, into files of other programs
    Export(Export),
    /// Work with the checkpoints of a run
    #[command(subcommand)]
    Checkpoint(Checkpoint),
    /// Check a configuration, or print it with every default filled in
    #[command(subcommand)]
    Config(Config),
    /// Say what is wrong with this machine before a job finds out; start it with mpirun or srun to ask all hosts
    Doctor(Doctor),
    /// List the training methods
    Methods {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure what this machine reaches; start it with mpirun or srun for more than one process
    #[command(subcommand)]
    Bench(Bench),
    /// Print a script that completes these commands in a shell
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages of all commands
    Manual {
        /// The folder to write into, as `scrimp.1`, `scrimp-train.1` and so on
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

/// What `scrimp bench` measures.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Training steps of a configuration, without a run directory
    Step(BenchConfig),
    /// Reading and augmenting the batches of a configuration
    Data(BenchConfig),
    /// Sums over the ranks, from short to long
    Comm(BenchComm),
    /// Saving and restoring what a configuration trains
    Checkpoint(BenchCheckpoint),
    /// A model of the step on 8 to 1024 processes, made of what the processes at hand measure
    Scale(BenchConfig),
}

/// Arguments of `scrimp bench step`, `data` and `scale`.
#[derive(Debug, Args)]
pub struct BenchConfig {
    /// The configuration
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Change a key, as for `scrimp train`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// A short look, of a few seconds
    #[arg(long)]
    pub quick: bool,
    /// Print what was measured as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `scrimp bench comm`.
#[derive(Debug, Args)]
pub struct BenchComm {
    /// A short look, without the longest sums
    #[arg(long)]
    pub quick: bool,
    /// Print what was measured as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `scrimp bench checkpoint`.
#[derive(Debug, Args)]
pub struct BenchCheckpoint {
    /// What would be saved
    #[command(flatten)]
    pub of: BenchConfig,
    /// Where to write: the file system that run directories lie on
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub to: PathBuf,
}

/// Arguments of `scrimp train`.
#[derive(Debug, Args)]
pub struct Train {
    /// The configuration; without it, `--run` continues with its own
    #[arg(value_name = "CONFIG", required_unless_present = "run")]
    pub config: Option<PathBuf>,
    /// The run directory [default: `runs/` and the file stem of CONFIG]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// auto: newest checkpoint that verifies, else fresh; never: fresh; PATH: this checkpoint
    #[arg(long, value_name = "auto|never|PATH", default_value = "auto")]
    pub resume: String,
    /// Change a key of the configuration, for example `--set train.total_steps=100`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Save and stop before this time, in seconds since 1970 (UTC)
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<u64>,
}

/// Arguments of `scrimp launch`.
#[derive(Debug, Args)]
pub struct Launch {
    /// The configuration; without it, `--run` continues with its own
    #[arg(value_name = "CONFIG", required_unless_present = "run")]
    pub config: Option<PathBuf>,
    /// How many processes to start, also as `-n RANKS`
    #[arg(short = 'n', long, value_name = "RANKS")]
    pub ranks: usize,
    /// How often to start again after a failure, from the newest checkpoint
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub restarts: usize,
    /// Down to how many processes to go where the same number gets no further [default: RANKS]
    #[arg(long, value_name = "RANKS")]
    pub min_ranks: Option<usize>,
    /// Run this with `sh -c` when the run has stopped because its time was over or its place was needed, or on
    /// `SIGUSR1` or `SIGUSR2`: to submit the job again. A stop that a person asked for is not followed by it
    #[arg(long, value_name = "COMMAND")]
    pub requeue: Option<String>,
    /// Save, stop and start nothing more before this time, in seconds since 1970 (UTC)
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<u64>,
    /// The run directory [default: `runs/` and the file stem of CONFIG]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Change a key, as for `scrimp train`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Further arguments of mpirun, after `--`
    #[arg(value_name = "ARGUMENT", last = true)]
    pub mpirun: Vec<String>,
}

/// Arguments of `scrimp watch`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
pub struct Watch {
    /// Run directories, folders of them, or one farm
    #[arg(value_name = "RUN|FARM", required = true)]
    pub runs: Vec<PathBuf>,
    /// Print one frame as text and exit
    #[arg(long, conflicts_with = "plain")]
    pub once: bool,
    /// Print what is known by now as JSON and exit
    #[arg(long, conflicts_with = "plain")]
    pub json: bool,
    /// Write lines instead of taking over the terminal, as is done where there is none
    #[arg(long)]
    pub plain: bool,
    /// Seconds between two lines about steps [default: 3 in the first minute, then 30]
    #[arg(long, value_name = "SECONDS")]
    pub interval: Option<u64>,
    /// What `--once` prints
    #[arg(long, default_value = "overview", requires = "once")]
    pub view: View,
    /// Columns and rows of the frame that `--once` prints [default: 100x30]
    #[arg(long, value_name = "COLUMNSxROWS", requires = "once", value_parser = frame_size)]
    pub size: Option<(u16, u16)>,
    /// Use no character but those of ASCII
    #[arg(long)]
    pub ascii: bool,
    /// Leave the mouse to the terminal
    #[arg(long)]
    pub no_mouse: bool,
}

/// Views of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Everything in short
    Overview,
    /// All curves
    Charts,
    /// One row for each rank
    Ranks,
    /// Scores and pictures of held-out cases
    Cases,
    /// What was said
    Messages,
}

/// `120x40`, of at most 1000 columns and rows.
fn frame_size(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.parse().ok().filter(|number| (1..=1000).contains(number));
    let parts = text.split_once('x');
    parts
        .and_then(|(columns, rows)| Some((number(columns)?, number(rows)?)))
        .ok_or_else(|| "expected columns and rows, for example `120x40`".to_owned())
}

/// Arguments of `scrimp export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The run directory; for `nnunet` a packed data set
    #[arg(value_name = "RUN|PACK")]
    pub from: PathBuf,
    /// What to write
    #[arg(long)]
    pub to: ExportFormat,
    /// The folder to write into, for `nnunet` one that is not there, such as `nnUNet_raw/Dataset501_NAME`
    /// [default: `RUN/export/` and the format]
    #[arg(long, value_name = "DIR", required_if_eq("to", "nnunet"))]
    pub into: Option<PathBuf>,
    /// For `nnunet`: which kind of annotation is to be trained on [default: `scribble`, where there are none `dense`]
    #[arg(long, value_name = "KIND")]
    pub annotation: Option<String>,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a run log or a packed data set can be turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Tables: steps, scores and ranks
    Csv,
    /// Event files that TensorBoard reads, pictures included
    Tensorboard,
    /// A packed data set as a raw folder of nnU-Net
    Nnunet,
}

/// What `scrimp checkpoint` does.
#[derive(Debug, Subcommand)]
pub enum Checkpoint {
    /// List the checkpoints of a run
    List {
        /// The run directory
        #[arg(value_name = "RUN")]
        run: PathBuf,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a checkpoint holds
    Show {
        /// Which one
        #[command(flatten)]
        of: ChosenCheckpoint,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare every file with its recorded size and digest; damage exits with 1
    Verify {
        /// The run directory
        #[arg(value_name = "RUN")]
        run: PathBuf,
        /// last, best, or the directory of a checkpoint [default: all of the run]
        #[arg(long, value_name = "last|best|PATH")]
        checkpoint: Option<String>,
        /// Print the verdicts as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what is damaged, unfinished, set aside, or not kept by the configuration of the run
    Prune {
        /// The run directory
        #[arg(value_name = "RUN")]
        run: PathBuf,
        /// Print what was removed as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the weights as one safetensors file with the reference networks' names
    Export {
        /// What to export
        #[command(flatten)]
        from: ChosenCheckpoint,
        /// The safetensors file to write
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Print what was written as JSON
        #[arg(long)]
        json: bool,
    },
    /// Begin a run with the weights of a safetensors file, as step 0
    Import {
        /// The configuration that is to train on
        #[arg(value_name = "CONFIG")]
        config: PathBuf,
        /// The safetensors file with exactly the tensors that `export` writes
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// The run directory [default: `runs/` and the file stem of CONFIG]
        #[arg(long, value_name = "DIR")]
        run: Option<PathBuf>,
        /// Change a key of the configuration, as for `scrimp train`
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        /// Print what was written as JSON
        #[arg(long)]
        json: bool,
    },
}

/// One checkpoint of a run.
#[derive(Debug, Args)]
pub struct ChosenCheckpoint {
    /// The run directory
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// last, best, or the directory of a checkpoint
    #[arg(long, value_name = "last|best|PATH", default_value = "last")]
    pub checkpoint: String,
}

/// What `scrimp config` does.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say whether a configuration and the data that it names are sound
    Check(ConfigSource),
    /// Print a configuration with every default filled in
    Show(ConfigSource),
}

/// A configuration with changes.
#[derive(Debug, Args)]
pub struct ConfigSource {
    /// The configuration
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Change a key, as for `scrimp train`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print what is said as JSON
    #[arg(long)]
    pub json: bool,
}
