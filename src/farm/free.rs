//! What is free of the slots of a farm: on each node processes, and shares of GPUs.
//!
//! Whose they are is not known here.

use super::nodes::{FarmNode, Seats, gpu_count};
use super::outages::{Outages, Standing};
use crate::runlog::farm::{FarmJob, JobHost, JobKind};
use std::cmp::Ordering;

/// Shares that add up to this much more than one GPU still fit: three thirds do.
const ROUNDING: f64 = 1e-9;

/// Free processes and shares of GPUs.
#[derive(Debug, Clone)]
pub(super) struct FreeSlots {
    nodes: Vec<FreeNode>,
}

/// What is free of one node.
#[derive(Debug, Clone)]
struct FreeNode {
    node: FarmNode,
    /// Below 0 where jobs that were found alive have more than there is.
    processes: i64,
    /// The share of each GPU that is free, 0 to 1.
    gpus: Vec<f64>,
}

impl FreeSlots {
    /// Everything.
    pub(super) fn all(nodes: &[FarmNode]) -> Self {
        let free = |node: &FarmNode| FreeNode {
            node: node.clone(),
            processes: node.processes as i64,
            gpus: vec![1.0; node.gpus],
        };
        Self { nodes: nodes.iter().map(free).collect() }
    }

    /// Takes what a job uses, if there is as much: on the node where it leaves least, the first of several. A run that
    /// no node could hold gets whole ones. A command runs where the farm does, on the first node. A node that is lost is
    /// as good as none, and one in doubt gets nothing.
    pub(super) fn take(&mut self, job: &FarmJob, outages: &Outages) -> Option<Seats> {
        let seats = self.choose(job, outages)?;
        self.occupy(job, &seats);
        Some(seats)
    }

    /// What a job would get.
    pub(super) fn choose(&self, job: &FarmJob, outages: &Outages) -> Option<Seats> {
        let count = if job.kind == JobKind::Command { 1 } else { self.nodes.len() };
        let nodes = &self.nodes[..count.min(self.nodes.len())];
        let standing = |node: &FreeNode| outages.standing(node.node.host.as_deref());
        let answering: Vec<_> =
            nodes.iter().filter(|node| standing(node) == Standing::Answers).collect();
        let fitting = answering.iter().filter_map(|node| Some((node, node.fitting(job)?)));
        let tightest = fitting.min_by(|(a, gpus_a), (b, gpus_b)| {
            let (a, b) = (a.tightness(job, gpus_a), b.tightness(job, gpus_b));
            a.partial_cmp(&b).unwrap_or(Ordering::Equal)
        });
        if let Some((node, gpus)) = tightest {
            return Some(Seats { hosts: node.hosts(job.ranks), gpus });
        }
        let could_fit =
            nodes.iter().any(|node| standing(node) != Standing::Lost && node.node.holds(job));
        if could_fit || job.kind == JobKind::Command {
            return None;
        }
        over_whole_nodes(job, &answering)
    }

    /// Takes what a job has already, also more than there is.
    pub(super) fn occupy(&mut self, job: &FarmJob, seats: &Seats) {
        self.change(job, seats, -1.0);
    }

    /// Takes back what a job had.
    pub(super) fn give_back(&mut self, job: &FarmJob, seats: &Seats) {
        self.change(job, seats, 1.0);
    }

    /// What a job has on nodes that are not those of the farm any more counts nowhere.
    fn change(&mut self, job: &FarmJob, seats: &Seats, sign: f64) {
        let is_wide = seats.hosts.len() > 1;
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let is_there = |host: &JobHost| Some(&host.host) == node.node.host.as_ref();
            let is_own = seats.hosts.is_empty() && number == 0;
            if !is_own && !seats.hosts.iter().any(is_there) {
                continue;
            }
            if is_wide {
                node.processes += sign as i64 * node.node.processes as i64;
                for free in &mut node.gpus {
                    *free += sign;
                }
                continue;
            }
            node.processes += sign as i64 * job.ranks as i64;
            for &gpu in &seats.gpus {
                if let Some(free) = node.gpus.get_mut(gpu) {
                    *free += sign * share(job);
                }
            }
        }
    }
}

impl FreeNode {
    /// The GPUs that a job would get, if it fits. A share of a GPU is taken from the one of which least is left, so
    /// that whole ones stay whole.
    fn fitting(&self, job: &FarmJob) -> Option<Vec<usize>> {
        if job.ranks as i64 > self.processes {
            return None;
        }
        let needed = share(job);
        let fits = |&gpu: &usize| self.gpus[gpu] + ROUNDING >= needed;
        let mut fitting: Vec<usize> = (0..self.gpus.len()).filter(fits).collect();
        fitting.sort_by(|&a, &b| self.gpus[a].total_cmp(&self.gpus[b]));
        fitting.truncate(gpu_count(job));
        fitting.sort_unstable();
        (fitting.len() == gpu_count(job)).then_some(fitting)
    }

    /// What would be left, least where a job belongs: of the GPUs that it would get, of all GPUs, of processes.
    fn tightness(&self, job: &FarmJob, gpus: &[usize]) -> [f64; 3] {
        let of_its_own: f64 = gpus.iter().map(|&gpu| self.gpus[gpu] - share(job)).sum();
        [of_its_own, self.gpus.iter().sum(), self.processes as f64]
    }

    fn is_whole(&self) -> bool {
        let is_free = |free: &f64| free + ROUNDING >= 1.0;
        self.processes >= self.node.processes as i64 && self.gpus.iter().all(is_free)
    }

    /// This node with so many processes, where it has a name.
    fn hosts(&self, processes: usize) -> Vec<JobHost> {
        self.node.host.iter().map(|host| JobHost { host: host.clone(), processes }).collect()
    }
}

/// Whole nodes for a job, if those that are free of everything suffice.
fn over_whole_nodes(job: &FarmJob, nodes: &[&FreeNode]) -> Option<Seats> {
    let (mut hosts, mut left, mut gpus, mut most) = (Vec::new(), job.ranks, 0, 0);
    for node in nodes.iter().filter(|node| node.is_whole()) {
        let ranks = node.node.room_for_ranks(job).min(left);
        if ranks > 0 {
            hosts.extend(node.hosts(ranks));
            left -= ranks;
            gpus += node.node.gpus;
            most = most.max(node.node.gpus);
        }
    }
    let has_all = left == 0 && gpus >= gpu_count(job);
    let most = if job.gpus > 0.0 { most } else { 0 };
    has_all.then(|| Seats { hosts, gpus: (0..most).collect() })
}

/// What a job uses of each of its GPUs.
fn share(job: &FarmJob) -> f64 {
    job.gpus.min(1.0)
}
