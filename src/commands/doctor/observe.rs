//! What all ranks see: each by itself at first, then what only several can see.
//!
//! Every rank does the same in the same order, and no part of it waits longer than the guard allows.

use super::ranks::Ranks;
use crate::cli;
use crate::commands::config;
use crate::config::DeviceChoice;
use crate::config::plan::{DataSource, RunPlan};
use crate::doctor::answer::{Answer, ask};
use crate::doctor::look::{folder, gpus, host, memory, names};
use crate::doctor::observation::{Data, Name, Observation, Processors, Task, Wanted};
use crate::doctor::together::{self, Company, LONGEST_SIGHT};
use crate::error::Result;
use crate::runlog::directory::{self, RunDirectory};
use crate::watch::Abilities;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a file system may take for small things.
const SMALL: Duration = Duration::from_secs(20);
/// How long ranks may take for what each sees by itself, but for reading data.
const LOOKS: Duration = Duration::from_mins(4);
/// How long clocks and names may take.
const COMPARES: Duration = Duration::from_mins(2);
/// How long opening GPUs and joining them may take: kernels are compiled, and NCCL waits for ranks itself.
const GPUS: Duration = Duration::from_mins(8);

/// How much longer rank 1 waits than rank 0, and all others than rank 1, so that one of them complains.
const LATER: Duration = Duration::from_secs(5);

/// What each rank saw, in rank order, on every rank; `run` is where the run would be written.
pub(super) fn all(
    arguments: &cli::Doctor,
    run: RunDirectory,
    ranks: &Ranks,
) -> Result<Vec<Observation>> {
    let gather = |message: &[u8]| ranks.gather(message);
    let company = Company { rank: ranks.rank(), ranks: ranks.ranks(), gather: &gather };
    // Rank 0 knows who has not come, and rank 1 that rank 0 has not.
    let later = LATER * company.rank.min(2) as u32;
    let limited = arguments.limit.map(Duration::from_secs);
    let within = |limit: Duration, what: &'static str| {
        ranks.guard().next(what, limited.unwrap_or(limit) + later);
    };
    within(COMPARES, "ranks say where they are");
    let hosts = company.share(&directory::host())?;
    ranks.guard().introduce(company.rank, &hosts);
    let wishes = Wishes::read(arguments, run, company.ranks);
    within(LOOKS + wishes.longest_read(), "each looks at itself and its host");
    let mut own = alone(ranks, &hosts, &wishes);
    let seen = company.share(&own)?;
    within(COMPARES, "clocks and names are compared");
    if company.rank == 0 {
        own.listed = arguments.hostfile.as_deref().map(listed).unwrap_or_default();
    }
    own.names = look_up(&hosts, company.rank);
    own.clock = together::clock(company)?;
    if let Answer::Got(first) = &seen[0].folder {
        within(LONGEST_SIGHT, "all look into the folder of the run");
        own.sight = together::sight(company, first.tried.as_ref())?;
    }
    if seen.iter().any(Observation::computes_on_gpu) {
        within(GPUS, "GPUs are opened and summed over");
        own.gpu_sum = Some(ranks.gpu_sum(wishes.device()));
    }
    within(COMPARES, "ranks say what they see of each other");
    company.share(&own)
}

/// What is to be trained, and where.
struct Wishes {
    plan: Option<Answer<RunPlan>>,
    name: String,
    run: RunDirectory,
    /// The packed file, and how large it is.
    data: Option<(PathBuf, Answer<u64>)>,
}

impl Wishes {
    fn read(arguments: &cli::Doctor, run: RunDirectory, ranks: usize) -> Self {
        let plan = arguments.config.clone().map(|path| {
            let overrides = arguments.overrides.clone();
            ask(move || config::resolve(&path, &overrides, ranks)).within(SMALL)
        });
        let packed = plan.as_ref().and_then(Answer::got).and_then(|plan| match &plan.data.source {
            DataSource::Packed(path) => Some(path.clone()),
            _ => None,
        });
        let data = arguments.data.clone().or(packed).map(|path| {
            let file = path.clone();
            (path, ask(move || size_of(&file)).within(SMALL))
        });
        let name = arguments.config.as_ref().map(|path| path.display().to_string());
        Self { plan, name: name.unwrap_or_default(), run, data }
    }

    fn device(&self) -> DeviceChoice {
        let plan = self.plan.as_ref().and_then(Answer::got);
        plan.map_or(DeviceChoice::Auto, |plan| plan.train.device)
    }

    /// How long reading the data may take.
    fn longest_read(&self) -> Duration {
        let Some((_, size)) = &self.data else { return Duration::ZERO };
        // 20 MB in a second is what a very slow file system gives.
        size.got().map_or(SMALL, |bytes| SMALL + Duration::from_secs(bytes / 20_000_000))
    }

    fn task(&self) -> Task {
        let words = |plan: RunPlan| {
            let summary = plan.summary().into_iter().next().unwrap_or_default();
            format!("`{}` is sound: {summary}", self.name)
        };
        Task {
            configuration: self.plan.clone().map(|plan| plan.map(words)),
            device: match self.device() {
                DeviceChoice::Auto => Wanted::Any,
                DeviceChoice::Cpu => Wanted::Cpu,
                DeviceChoice::Cuda => Wanted::Gpu,
            },
        }
    }

    /// Threads of a rank that shares its host with `on_host`, itself among them.
    fn threads(&self, on_host: usize) -> usize {
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        let wished = std::env::var("OMP_NUM_THREADS").ok();
        match self.plan.as_ref().and_then(Answer::got) {
            Some(plan) => plan.train.threads_on(usable, on_host, wished.as_deref()),
            None => (usable / on_host.max(1)).max(1),
        }
    }
}

/// What this rank sees by itself; `hosts` are those of all ranks.
fn alone(ranks: &Ranks, hosts: &[String], wishes: &Wishes) -> Observation {
    let (rank, own) = (ranks.rank(), &hosts[ranks.rank()]);
    let is_first = hosts.iter().position(|host| host == own) == Some(rank);
    let on_host = hosts.iter().filter(|host| *host == own).count();
    let run = wishes.run.clone();
    let folder = ask(move || folder::look(&run));
    let data = wishes.data.clone().map(|(path, size)| {
        let limit = wishes.longest_read();
        (ask(move || read(&path, size, is_first)), limit)
    });
    let libtorch = Ranks::libtorch();
    let gpus = libtorch.as_ref().map_or(0, |libtorch| libtorch.gpus);
    Observation {
        rank,
        host: own.clone(),
        program: host::program(),
        task: wishes.task(),
        driver: gpus::look(gpus),
        nccl: Ranks::nccl(),
        libtorch,
        gpu_sum: None,
        fast_network: host::fast_network(),
        mpi: ranks.mpi(),
        processors: Processors {
            allowed: host::allowed_processors(),
            granted: host::granted_processors(),
            threads: wishes.threads(on_host),
        },
        memory: memory::look(),
        limits: memory::limits(),
        folder: folder.within(SMALL),
        data: data.map(|(question, limit)| question.within(limit)),
        terminal: (rank == 0).then(Abilities::find),
        names: Vec::new(),
        listed: Vec::new(),
        clock: None,
        sight: None,
    }
}

#[cfg(feature = "hdf5")]
fn size_of(path: &Path) -> Result<u64> {
    super::pack::size_of(path)
}

#[cfg(not(feature = "hdf5"))]
fn size_of(_path: &Path) -> Result<u64> {
    Err(super::reads_no_data())
}

/// Reads a packed data set of this size, all of it or its beginning.
fn read(path: &Path, size: Answer<u64>, reads_all: bool) -> Result<Data> {
    #[cfg(feature = "hdf5")]
    return super::pack::read(path, size, reads_all);
    #[cfg(not(feature = "hdf5"))]
    {
        let _ = (path, size, reads_all);
        Err(super::reads_no_data())
    }
}

/// The names that this rank looks up: the first rank of each host those of all hosts.
fn look_up(hosts: &[String], rank: usize) -> Vec<Name> {
    let mut different: Vec<String> = Vec::new();
    for host in hosts {
        if !different.contains(host) {
            different.push(host.clone());
        }
    }
    let is_first = hosts.iter().position(|host| *host == hosts[rank]) == Some(rank);
    let own = different.iter().position(|host| *host == hosts[rank]);
    match own.filter(|_| is_first) {
        Some(own) => names::look_up(names::others(&different, own)),
        None => Vec::new(),
    }
}

/// The hosts of a list, looked up; a list that cannot be read is a name that cannot be.
fn listed(path: &Path) -> Vec<Name> {
    match names::listed(path) {
        Ok(hosts) => names::look_up(hosts),
        Err(failure) => vec![Name {
            name: path.display().to_string(),
            address: Answer::refused(&failure),
            seconds: 0.0,
        }],
    }
}
