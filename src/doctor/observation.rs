//! What one rank sees of itself, of its host and of other ranks: facts, and no opinion of them.
//!
//! Every rank sends its own to all others, as JSON.

use super::answer::Answer;
use crate::watch::Abilities;
use serde::{Deserialize, Serialize};

/// All that one rank saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Who saw it.
    pub rank: usize,
    /// The name of its host.
    pub host: String,
    /// The program that runs.
    pub program: Program,
    /// What is to be trained.
    pub task: Task,
    /// The libtorch that is loaded; none where the program was built without.
    pub libtorch: Option<Libtorch>,
    /// NVIDIA's driver; none where it is not installed.
    pub driver: Option<Answer<Driver>>,
    /// The version of NCCL.
    pub nccl: Answer<String>,
    /// What came of opening the own GPU and summing over those of all ranks, milliseconds of a sum; none where nobody
    /// tried.
    pub gpu_sum: Option<Answer<f64>>,
    /// Cards for InfiniBand and the like that are connected, for example `mlx5_0`.
    pub fast_network: Vec<String>,
    /// How ranks find each other.
    pub mpi: Mpi,
    /// Where this rank may compute.
    pub processors: Processors,
    /// Memory of the host.
    pub memory: Memory,
    /// What the system allows this process.
    pub limits: Limits,
    /// Where the run is written.
    pub folder: Answer<Folder>,
    /// The packed data set; none where no file is named.
    pub data: Option<Answer<Data>>,
    /// The terminal, which only rank 0 can have.
    pub terminal: Option<Abilities>,
    /// Hosts as this rank looked them up.
    pub names: Vec<Name>,
    /// Hosts of a list that a launcher will be given.
    pub listed: Vec<Name>,
    /// The clock beside that of rank 0; none on a rank alone.
    pub clock: Option<Clock>,
    /// What is seen here of what rank 0 writes; none where nobody looked.
    pub sight: Option<Answer<Sight>>,
}

impl Observation {
    /// How many GPUs libtorch can use here.
    pub fn usable_gpus(&self) -> usize {
        self.libtorch.as_ref().map_or(0, |libtorch| libtorch.gpus)
    }

    /// Whether this rank is to compute on a GPU, and could.
    pub fn computes_on_gpu(&self) -> bool {
        self.task.device != Wanted::Cpu && self.usable_gpus() > 0
    }

    /// The GPUs that the driver shows.
    pub fn gpus(&self) -> &[Gpu] {
        let driver = self.driver.as_ref().and_then(Answer::got);
        driver.map_or(&[], |driver| &driver.gpus)
    }
}

/// The program that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// Bytes of its file; 0 where it cannot be seen. Builds differ in it.
    pub bytes: u64,
}

/// What is to be trained, as far as it matters to machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What is said of the configuration; none where none is named.
    pub configuration: Option<Answer<String>>,
    /// Where it is to compute.
    pub device: Wanted,
}

/// Where a run is to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// On GPUs where there are any.
    Any,
    /// On CPUs.
    Cpu,
    /// On GPUs and nowhere else; ranks may share one.
    Gpu,
}

/// The libtorch that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Libtorch {
    /// For example `2.11.0+cpu`; none where nothing beside it says so.
    pub version: Option<String>,
    /// The folder of its libraries.
    pub folder: String,
    /// Bytes of its largest library, by which builds differ.
    pub bytes: u64,
    /// Whether its CUDA half could be loaded.
    pub has_cuda_half: bool,
    /// How many GPUs it can use.
    pub gpus: usize,
}

/// NVIDIA's driver and its GPUs, as its management library sees them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    /// For example `580.65.06`.
    pub version: String,
    /// The newest CUDA that it knows, for example `13.0`.
    pub cuda: String,
    /// Those that this rank may see; where libtorch sees none, all of the host.
    pub gpus: Vec<Gpu>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its model.
    pub name: String,
    /// Memory that it has.
    pub memory_bytes: u64,
    /// Memory in use.
    pub used_bytes: u64,
    /// Errors of its memory since the driver was loaded that nothing could correct; none where it does not count.
    pub uncorrected_errors: Option<u64>,
    /// Whether it wants to be reset, to give up memory that failed.
    pub wants_reset: bool,
    /// Why it is slower than it could be.
    pub slowed_by: Vec<String>,
    /// Processes that compute on it.
    pub processes: usize,
    /// Who may compute on it.
    pub access: Access,
}

/// Who may compute on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everybody.
    Shared,
    /// One process at a time.
    OneProcess,
    /// Nobody.
    Nobody,
}

/// How ranks find each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mpi {
    /// The library, for example `Open MPI v4.1.4`; none where the program was built without.
    pub library: Option<String>,
    /// What the launcher uses to introduce ranks to each other, for example `PMIx`; none without a launcher.
    pub introduced_by: Option<String>,
    /// How many ranks are joined.
    pub ranks: usize,
    /// Why they are not joined, although a launcher started several.
    pub refusal: Option<Answer<()>>,
    /// How `mpirun` of this shell calls itself; none where a launcher has started this process.
    pub mpirun: Option<Answer<String>>,
}

/// Where a rank may compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processors {
    /// Processors that it may run on.
    pub allowed: Vec<usize>,
    /// How many processors of the host this job has: all of them, or what its control group or batch system says.
    pub granted: usize,
    /// How many threads it would compute with.
    pub threads: usize,
}

/// Memory of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What programs could still take.
    pub available_bytes: u64,
    /// What the control group of this process allows and uses, where it has a limit.
    pub limit: Option<MemoryLimit>,
    /// `/dev/shm`, where it is there.
    pub shared: Option<Space>,
}

/// The limit of a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// How much it may use.
    pub limit_bytes: u64,
    /// How much it uses and could not give back.
    pub used_bytes: u64,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What this user may still take.
    pub free_bytes: u64,
    /// Files that can still be made; none where the file system does not count them.
    pub free_files: Option<u64>,
}

/// What the system allows a process; none is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Files open at a time.
    pub open_files: Option<u64>,
    /// To how many open files it may raise that itself.
    pub open_files_at_most: Option<u64>,
    /// Bytes of a file.
    pub file_bytes: Option<u64>,
    /// Bytes of addresses.
    pub address_bytes: Option<u64>,
    /// Bytes that stay in memory whatever happens, as network cards want them.
    pub locked_bytes: Option<u64>,
}

/// Where a run is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Folder {
    /// The directory of the run.
    pub asked: String,
    /// The nearest folder that is there, which was tried.
    pub tried: String,
    /// The file system, for example `nfs4`.
    pub kind: String,
    /// Room there.
    pub space: Space,
    /// How long a mebibyte took until it was on the disk under its name.
    pub durable_ms: f64,
    /// What came of locking a file.
    pub lock: Lock,
    /// Who trains there, as `HOST, process NUMBER`.
    pub owner: Option<String>,
}

/// What came of locking a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// It is locked.
    Held,
    /// Somebody else has it locked.
    Busy,
    /// The file system gives none.
    Absent,
}

/// A packed data set as one rank sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Its file.
    pub path: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Digest of its first bytes, which hold the digest of the rest.
    pub beginning: u64,
    /// What reading all of it found; none on ranks whose host has another one that did.
    pub whole: Option<WholeData>,
}

/// A packed data set that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WholeData {
    /// How many cases.
    pub cases: usize,
    /// What a rank holds of it in memory.
    pub memory_bytes: u64,
    /// How long reading took.
    pub seconds: f64,
}

/// A host's name that was looked up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
    /// Its first address.
    pub address: Answer<String>,
    /// How long it took.
    pub seconds: f64,
}

/// How far a clock is ahead of that of rank 0, which lies between two bounds; less than 0 is behind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Not less than this.
    pub at_least_seconds: f64,
    /// Not more than this.
    pub at_most_seconds: f64,
}

/// What a rank sees of a file that rank 0 has just put into the folder of the run and locked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sight {
    /// How long it took to appear; none where it did not.
    pub seen_after_seconds: Option<f64>,
    /// What came of locking it; none where it did not appear.
    pub lock: Option<Lock>,
}
