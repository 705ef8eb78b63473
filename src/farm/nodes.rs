//! The machines that a farm has, and where on them a job sits.
//!
//! Who says which machines there are, and which of them have room, is not known here.

use crate::runlog::farm::{FarmJob, JobHost, Slots};
use serde::Serialize;

/// A machine on which jobs run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FarmNode {
    /// What `mpirun` calls it; none where nothing but the machine of the farm is used.
    pub host: Option<String>,
    /// Processes of all its jobs together.
    pub processes: usize,
    /// GPUs of all its jobs together.
    pub gpus: usize,
}

impl FarmNode {
    /// The machine of the farm alone.
    pub fn alone(slots: Slots) -> Self {
        Self { host: None, processes: slots.processes, gpus: slots.gpus }
    }

    /// Whether there is room for a job where nothing else runs.
    pub(super) fn holds(&self, job: &FarmJob) -> bool {
        job.ranks <= self.processes && gpu_count(job) <= self.gpus
    }

    /// How many processes of a job over several nodes it can have: a GPU for each, where the job has GPUs.
    pub(super) fn room_for_ranks(&self, job: &FarmJob) -> usize {
        if job.gpus > 0.0 { self.processes.min(self.gpus) } else { self.processes }
    }
}

/// What several nodes have together.
pub fn slots_of(nodes: &[FarmNode]) -> Slots {
    Slots {
        processes: nodes.iter().map(|node| node.processes).sum(),
        gpus: nodes.iter().map(|node| node.gpus).sum(),
    }
}

/// On how many GPUs a job works.
pub(super) fn gpu_count(job: &FarmJob) -> usize {
    job.gpus.ceil() as usize
}

/// Where a job sits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seats {
    /// Its nodes; none on the machine of the farm where that is the only one.
    pub hosts: Vec<JobHost>,
    /// The GPUs that it has on each of them, by their numbers there.
    pub gpus: Vec<usize>,
}

impl Seats {
    /// The last words of the `scrimp launch` that puts a run there: those behind `--`, which are for `mpirun`. None
    /// where there is one machine.
    ///
    /// Variables are named because `mpirun` carries none to other hosts by itself.
    pub fn launch_words(&self, has_gpus: bool) -> Vec<String> {
        if self.hosts.is_empty() {
            return Vec::new();
        }
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|JobHost { host, processes }| format!("{host}:{processes}"))
            .collect();
        let hosts = hosts.join(",");
        let gpus: &[&str] = if has_gpus { &["-x", "CUDA_VISIBLE_DEVICES"] } else { &[] };
        let words = ["--", "--host", &hosts, "-x", "OMP_NUM_THREADS"];
        words.iter().chain(gpus).map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mpirun_is_told_hosts_where_there_are_several() {
        let host = |host: &str, processes| JobHost { host: host.to_owned(), processes };
        let words = |hosts: Vec<JobHost>, has_gpus| {
            Seats { hosts, gpus: vec![0] }.launch_words(has_gpus).join(" ")
        };
        assert_eq!(words(Vec::new(), true), "");
        assert_eq!(words(vec![host("b", 1)], false), "-- --host b:1 -x OMP_NUM_THREADS");
        assert_eq!(
            words(vec![host("a", 4), host("b", 2)], true),
            "-- --host a:4,b:2 -x OMP_NUM_THREADS -x CUDA_VISIBLE_DEVICES"
        );
    }
}
