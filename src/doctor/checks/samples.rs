//! Observations in which nothing is wrong, for the tests of this folder to change.

use crate::doctor::answer::Answer;
use crate::doctor::observation::{
    Clock, Folder, Libtorch, Limits, Lock, Memory, Mpi, Name, Observation, Processors, Program,
    Sight, Space, Task, Wanted,
};
use crate::watch::Abilities;

const GIB: u64 = 1 << 30;

/// A refusal without a hint.
pub(super) fn refused<T>(why: &str) -> Answer<T> {
    Answer::Refused { why: why.to_owned(), hint: None }
}

/// A name that was found at once.
pub(super) fn name(name: &str) -> Name {
    Name { name: name.to_owned(), address: Answer::Got("10.0.0.7".to_owned()), seconds: 0.002 }
}

/// One rank on each of these hosts, none with a GPU, all without fault.
pub(super) fn on_hosts(hosts: &[&str]) -> Vec<Observation> {
    (0..hosts.len()).map(|rank| of_rank(rank, hosts)).collect()
}

fn of_rank(rank: usize, hosts: &[&str]) -> Observation {
    let (host, is_alone) = (hosts[rank], hosts.len() == 1);
    let on_host = hosts.iter().filter(|other| **other == host).count();
    let lock = Some(if rank == 0 { Lock::Held } else { Lock::Busy });
    let sight = Sight { seen_after_seconds: Some(0.001), lock };
    Observation {
        rank,
        host: host.to_owned(),
        program: Program { version: "0.1.0".into(), bytes: 7 },
        task: Task { configuration: None, device: Wanted::Any },
        libtorch: Some(libtorch()),
        driver: None,
        nccl: refused("cannot load NCCL as `libnccl.so.2`"),
        gpu_sum: None,
        fast_network: Vec::new(),
        mpi: Mpi {
            library: Some("Open MPI v4.1.4".into()),
            introduced_by: (!is_alone).then(|| "PMIx".into()),
            ranks: hosts.len(),
            refusal: None,
            mpirun: is_alone.then(|| Answer::Got("mpirun (Open MPI) 4.1.4".into())),
        },
        processors: Processors {
            allowed: (0..8).collect(),
            granted: 8,
            threads: (8 / on_host).max(1),
        },
        memory: memory(),
        limits: limits(),
        folder: Answer::Got(folder()),
        data: None,
        terminal: (rank == 0).then(|| Abilities::of(|_| None)),
        names: hosts.iter().map(|host| name(host)).collect(),
        listed: Vec::new(),
        clock: (!is_alone).then_some(Clock { at_least_seconds: -1e-4, at_most_seconds: 2e-4 }),
        sight: (!is_alone).then_some(Answer::Got(sight)),
    }
}

fn libtorch() -> Libtorch {
    Libtorch {
        version: Some("2.11.0+cpu".into()),
        folder: "/opt/libtorch/lib".into(),
        bytes: 5,
        has_cuda_half: false,
        gpus: 0,
    }
}

fn memory() -> Memory {
    let shared = Space { total_bytes: 32 * GIB, free_bytes: 32 * GIB, free_files: None };
    Memory { total_bytes: 64 * GIB, available_bytes: 48 * GIB, limit: None, shared: Some(shared) }
}

fn limits() -> Limits {
    Limits {
        open_files: Some(1 << 20),
        open_files_at_most: Some(1 << 20),
        file_bytes: None,
        address_bytes: None,
        locked_bytes: None,
    }
}

fn folder() -> Folder {
    Folder {
        asked: "runs/a".into(),
        tried: "runs".into(),
        kind: "ext4".into(),
        space: Space { total_bytes: 900 * GIB, free_bytes: 300 * GIB, free_files: Some(1 << 20) },
        durable_ms: 4.0,
        lock: Lock::Held,
        owner: None,
    }
}
