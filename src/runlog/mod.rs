//! The run log: what happened in a run, one JSON object per line, in `RUN/events/rank-NNNN.jsonl`.
//!
//! Every rank appends to its own file. Rank 0 writes the facts of the whole run, every rank its own
//! health and warnings. Each line is a [`Record`]: `time_ms`, `rank`, `event`, and the fields of
//! that event. The first record of rank 0 is `run_started` and says which `schema` follows. Readers
//! ignore events and fields they do not know and tolerate a torn last line. Numbers read back bit
//! for bit; a number that is not finite is written as `null` and read as NaN.
//!
//! The schema outlives the trainer: this module knows neither tensors nor configurations.

pub mod claim;
pub mod directory;
pub mod farm;
pub mod flight;
pub mod io;
mod locks;
pub mod logged;
pub mod preview;
mod requests;
pub mod scores;
mod sign;

use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The version of the run log that this program writes.
pub const SCHEMA: u32 = 1;

/// One line of the run log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Wall clock of the writer, milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Who wrote it, counted from 0.
    pub rank: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: RunEvent,
}

/// The fields that every line has.
#[derive(Deserialize)]
struct Head<'a> {
    time_ms: u64,
    rank: u32,
    #[serde(borrow)]
    event: Cow<'a, str>,
}

impl Record {
    /// Reads a line of a run log.
    ///
    /// The events that make up nearly all of a log are read straight into their types: through the
    /// flattened, tagged enum every field would be copied twice.
    pub fn from_line(line: &[u8]) -> serde_json::Result<Self> {
        let Head { time_ms, rank, event } = serde_json::from_slice(line)?;
        let event = match &*event {
            "step" => RunEvent::Step(serde_json::from_slice(line)?),
            "health" => RunEvent::Health(serde_json::from_slice(line)?),
            "telemetry" => RunEvent::Telemetry(serde_json::from_slice(line)?),
            _ => return serde_json::from_slice(line),
        };
        Ok(Self { time_ms, rank, event })
    }
}

/// What can happen in a run; `event` names the variant in snake case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// `run_started`: the run begins or is continued by new processes. Rank 0.
    RunStarted(RunStarted),
    /// `resumed`: training goes on from a checkpoint; later steps were lost. Rank 0.
    Resumed {
        /// The step that the checkpoint was saved after.
        step: u64,
        /// The directory of the checkpoint, relative to the run directory.
        checkpoint: String,
    },
    /// `step`: a step that `train.log_every` asks for, or that is evaluated, saved or the last. Rank
    /// 0, numbers of all ranks together.
    Step(Step),
    /// `health`: how this rank fared since its previous `health`. Every rank.
    Health(Health),
    /// `evaluated`: scores on the held-out fold. Rank 0.
    Evaluated(Evaluated),
    /// `checkpoint_saved`: a checkpoint is complete on disk. Rank 0.
    CheckpointSaved {
        /// The step after which it was saved.
        step: u64,
        /// Its directory, relative to the run directory.
        path: String,
        /// Size of all its files together.
        bytes: u64,
        /// How long saving took.
        #[serde(deserialize_with = "number")]
        seconds: f64,
    },
    /// `warning`: something that a person should know and that did not end the run. Any rank.
    Warning {
        /// One sentence, lower case, without a full stop.
        message: String,
    },
    /// `log`: a line of the program's own log that is no warning. Any rank.
    Log {
        /// How much it matters.
        level: Level,
        /// One sentence.
        message: String,
    },
    /// `phase`: what the run turns to; the next `step`, `evaluated` or `checkpoint_saved` says that
    /// it is over. Rank 0.
    Phase {
        /// The last complete step.
        step: u64,
        /// What is being done.
        phase: Phase,
    },
    /// `requested`: a person asked for something through `control/`, and the run obeys. Rank 0.
    Requested(Requested),
    /// `telemetry`: how the machine under this rank fares, at most twice a second. Every rank.
    Telemetry(Telemetry),
    /// `run_ended`: nothing follows until somebody continues the run. Rank 0; where it failed, the rank
    /// that has the failure, and where ranks hang, the one that ends the run.
    RunEnded {
        /// Why it ended.
        status: RunStatus,
        /// The last complete step.
        step: u64,
        /// One sentence about the end; the error where it failed.
        message: String,
    },
    /// An event of a newer version; readers pass over it.
    #[serde(other)]
    Unknown,
}

/// The fields of `run_started`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// [`SCHEMA`] of the writer.
    pub schema: u32,
    /// The name of the run directory.
    pub run: String,
    /// The name of the method.
    pub method: String,
    /// The name of the data set.
    pub dataset: String,
    /// Digest of all that the data set holds, hexadecimal; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data_digest: String,
    /// Names of the classes by label value, the background first.
    pub classes: Vec<String>,
    /// The fold that is held out, counted from 1; 0 where none is.
    pub fold: u32,
    /// The annotation that is learnt from.
    pub annotation: String,
    /// How many processes train together.
    pub ranks: u32,
    /// The host of each rank, in rank order; empty where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Slices of one step over all ranks together.
    pub batch_size: u64,
    /// How many steps the run is to have in the end.
    pub total_steps: u64,
    /// Slices in one epoch.
    pub train_slices: u64,
    /// Where all random numbers come from.
    pub seed: u64,
    /// `fp32`, `tf32`, `bf16` or `fp64`.
    pub precision: String,
    /// `cpu` or the name of the accelerator.
    pub device: String,
    /// The version of the program.
    pub code_version: String,
    /// Digest of the resolved configuration, hexadecimal.
    pub config_digest: String,
}

/// The fields of `step`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The step, counted from 1.
    pub step: u64,
    /// The pass over the training slices that it belongs to, counted from 1.
    pub epoch: u64,
    /// Unweighted terms by `learner/term`, for example `segmenter/partial_ce`.
    #[serde(deserialize_with = "numbers")]
    pub loss: BTreeMap<String, f64>,
    /// Numbers that say how training goes and that nobody minimises, by `learner/name`, for example
    /// the share of patches that a discriminator judges rightly.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "numbers")]
    pub observed: BTreeMap<String, f64>,
    /// Learning rate of each learner.
    #[serde(deserialize_with = "numbers")]
    pub lr: BTreeMap<String, f64>,
    /// Euclidean norm of each learner's gradient, before clipping.
    #[serde(deserialize_with = "numbers")]
    pub grad_norm: BTreeMap<String, f64>,
    /// Mean time of one step since the previous `step`.
    #[serde(deserialize_with = "number")]
    pub step_ms: f64,
    /// Slices of all ranks together in one second of training.
    #[serde(deserialize_with = "number")]
    pub images_per_second: f64,
}

/// The fields of `health`; times are means of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The step, counted from 1.
    pub step: u64,
    /// The whole step.
    #[serde(deserialize_with = "number")]
    pub step_ms: f64,
    /// Waiting for the next batch.
    #[serde(deserialize_with = "number")]
    pub data_wait_ms: f64,
    /// Sums over the ranks, waiting for the others included; on GPUs what it takes to enqueue them.
    #[serde(deserialize_with = "number")]
    pub communication_ms: f64,
    /// Memory of this process that lies in RAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// The fields of `evaluated`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The step after which it was evaluated.
    pub step: u64,
    /// Mean Dice of this evaluation over cases and structures, in `[0, 1]`.
    #[serde(deserialize_with = "number")]
    pub mean_dice: f64,
    /// The largest `mean_dice` so far.
    #[serde(deserialize_with = "number")]
    pub best_mean_dice: f64,
    /// The step of the largest `mean_dice`.
    pub best_step: u64,
    /// How many cases were scored.
    pub cases: u64,
    /// How long it took.
    #[serde(deserialize_with = "number")]
    pub seconds: f64,
    /// Every class but the background, in the order of their labels.
    pub structures: Vec<StructureScore>,
}

/// Mean scores of one structure over the cases of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StructureScore {
    /// The name of the class.
    pub name: String,
    /// Dice, in `[0, 1]`.
    #[serde(deserialize_with = "number")]
    pub dice: f64,
    /// 95th percentile of the surface distances over the cases where it is defined, in `unit`.
    #[serde(deserialize_with = "number")]
    pub hd95: f64,
    /// Mean distance from predicted to true surface over the cases where it is defined, in `unit`.
    #[serde(deserialize_with = "number")]
    pub asd: f64,
    /// In what distances are measured: `mm` where spacing is known, else `voxel`. None where cases
    /// differ, which leaves their distances without a mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Cases whose distances are undefined: the structure is missing in the prediction or in the truth.
    /// None where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undefined: Option<u64>,
    /// Cases in which somebody looked for the structure, over which the means are. None where these are all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cases: Option<u64>,
}

/// In what a distance is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Millimetres.
    Mm,
    /// Voxels, however far apart they are.
    Voxel,
}

impl Unit {
    /// `mm` or `voxel`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mm => "mm",
            Self::Voxel => "voxel",
        }
    }
}

/// What a run does between steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The held-out cases are scored.
    Evaluating,
    /// A checkpoint is written, and nothing else is done.
    Saving,
    /// A phase of a newer version.
    #[serde(other)]
    Unknown,
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For developers.
    Debug,
    /// Worth knowing.
    Info,
    /// Worth acting on.
    Warning,
    /// The end of something.
    Error,
}

/// The fields of `requested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// `stop` or `checkpoint`: the name of the file in `control/`.
    pub request: String,
    /// The login name of who asked; empty where the file does not say.
    #[serde(default)]
    pub by: String,
    /// The host from which it was asked; empty where the file does not say.
    #[serde(default)]
    pub host: String,
}

/// The fields of `telemetry`. What the machine does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The host of the rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Processor time of this process since the previous sample, 100 for one core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Memory of this process that lies in RAM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Memory that the host could still give away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_memory_available_bytes: Option<u64>,
    /// What the host received over its networks, loopback left out, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_received_bytes_per_second: Option<f64>,
    /// What the host sent over its networks, loopback left out, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_sent_bytes_per_second: Option<f64>,
    /// The name of the rank's GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Share of time in which any kernel ran on the GPU, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_percent: Option<f64>,
    /// Share of the GPU's multiprocessors that were busy, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sm_percent: Option<f64>,
    /// Share of time in which tensor cores were busy, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor_percent: Option<f64>,
    /// Memory of the GPU that is in use, by any process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_bytes: Option<u64>,
    /// All memory of the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_total_bytes: Option<u64>,
    /// What the GPU draws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_power_watts: Option<f64>,
    /// How hot the GPU is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_temperature_celsius: Option<f64>,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// All steps are done.
    Finished,
    /// Somebody asked for it; the run can be continued.
    Stopped,
    /// An error ended it.
    Failed,
}

/// Milliseconds since 1970 (UTC); 0 on a machine whose clock stands before that.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

/// Reads a number back; JSON has no NaN, so it was written as `null`.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Reads numbers by name back, as [`number`] does.
fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let written: BTreeMap<String, Option<f64>> = BTreeMap::deserialize(from)?;
    Ok(written.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(loss: f64) -> Record {
        let one = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        let event = RunEvent::Step(Step {
            step: 1200,
            epoch: 10,
            loss: one("segmenter/partial_ce", loss),
            observed: BTreeMap::new(),
            lr: one("segmenter", 0.03),
            grad_norm: one("segmenter", 1.8),
            step_ms: 31.5,
            images_per_second: 381.0,
        });
        Record { time_ms: 1_760_000_000_000, rank: 0, event }
    }

    #[test]
    fn a_record_is_one_flat_object() {
        insta::assert_snapshot!(serde_json::to_string(&step(0.412)).unwrap(), @r#"{"time_ms":1760000000000,"rank":0,"event":"step","step":1200,"epoch":10,"loss":{"segmenter/partial_ce":0.412},"lr":{"segmenter":0.03},"grad_norm":{"segmenter":1.8},"step_ms":31.5,"images_per_second":381.0}"#);
    }

    #[test]
    fn what_is_not_finite_comes_back_as_nan() {
        let line = serde_json::to_string(&step(f64::INFINITY)).unwrap();
        let RunEvent::Step(back) = serde_json::from_str::<Record>(&line).unwrap().event else {
            panic!("{line}");
        };
        assert!(back.loss["segmenter/partial_ce"].is_nan());
    }

    #[test]
    fn unknown_events_and_fields_are_passed_over() {
        let line = r#"{"time_ms":1,"rank":2,"event":"teleported","where":{"to":[1,2]}}"#;
        let record: Record = serde_json::from_str(line).unwrap();
        assert_eq!(record, Record { time_ms: 1, rank: 2, event: RunEvent::Unknown });
        let line = r#"{"time_ms":1,"rank":2,"mood":3,"event":"warning","message":"a","tone":1}"#;
        let record: Record = serde_json::from_str(line).unwrap();
        assert_eq!(record.event, RunEvent::Warning { message: "a".to_owned() });
    }

    #[test]
    fn both_ways_of_reading_a_line_agree() {
        let telemetry = Telemetry { cpu_percent: Some(97.5), ..Telemetry::default() };
        let events = [
            step(f64::NAN).event,
            RunEvent::Telemetry(telemetry),
            RunEvent::Phase { step: 3, phase: Phase::Saving },
            RunEvent::Log { level: Level::Info, message: "a\"b".to_owned() },
        ];
        for event in events {
            let line = serde_json::to_string(&Record { time_ms: 1, rank: 2, event }).unwrap();
            let slow: Record = serde_json::from_str(&line).unwrap();
            let fast = Record::from_line(line.as_bytes()).unwrap();
            assert_eq!(format!("{fast:?}"), format!("{slow:?}"));
        }
        assert!(Record::from_line(br#"{"time_ms":1,"rank":0,"event":"step"}"#).is_err());
        let later = br#"{"time_ms":1,"rank":0,"event":"phase","step":3,"phase":"dreaming"}"#;
        let expected = RunEvent::Phase { step: 3, phase: Phase::Unknown };
        assert_eq!(Record::from_line(later).unwrap().event, expected);
    }

    proptest! {
        #[test]
        fn numbers_come_back_bit_for_bit(loss in any::<f64>().prop_filter("finite", |x| x.is_finite())) {
            let line = serde_json::to_string(&step(loss)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), step(loss));
        }
    }
}
