//! What is free of the slots of a farm: processes, and shares of GPUs.
//!
//! Whose they are is not known here.

use crate::runlog::farm::{FarmJob, Slots};

/// Shares that add up to this much more than one GPU still fit: three thirds do.
const ROUNDING: f64 = 1e-9;

/// Free processes and shares of GPUs.
#[derive(Debug, Clone)]
pub(super) struct FreeSlots {
    /// Below 0 where jobs that were found alive have more than there is.
    processes: i64,
    /// The share of each GPU that is free, 0 to 1.
    gpus: Vec<f64>,
}

impl FreeSlots {
    pub(super) fn all(slots: Slots) -> Self {
        Self { processes: slots.processes as i64, gpus: vec![1.0; slots.gpus] }
    }

    /// Takes what a job uses, if there is as much: the GPUs that it gets, by their numbers. A share of a GPU is taken
    /// from the one of which least is left, so that whole ones stay whole.
    pub(super) fn take(&mut self, job: &FarmJob) -> Option<Vec<usize>> {
        let gpus = self.choose(job)?;
        self.occupy(job, &gpus);
        Some(gpus)
    }

    fn choose(&self, job: &FarmJob) -> Option<Vec<usize>> {
        if job.ranks as i64 > self.processes {
            return None;
        }
        let needed = share(job);
        let fits = |&gpu: &usize| self.gpus[gpu] + ROUNDING >= needed;
        let mut fitting: Vec<usize> = (0..self.gpus.len()).filter(fits).collect();
        fitting.sort_by(|&a, &b| self.gpus[a].total_cmp(&self.gpus[b]));
        fitting.truncate(count(job));
        fitting.sort_unstable();
        (fitting.len() == count(job)).then_some(fitting)
    }

    /// Takes what a job has already, also more than there is.
    pub(super) fn occupy(&mut self, job: &FarmJob, gpus: &[usize]) {
        self.processes -= job.ranks as i64;
        for &gpu in gpus {
            if let Some(free) = self.gpus.get_mut(gpu) {
                *free -= share(job);
            }
        }
    }

    /// Takes back what a job had.
    pub(super) fn give_back(&mut self, job: &FarmJob, gpus: &[usize]) {
        self.processes += job.ranks as i64;
        for &gpu in gpus {
            if let Some(free) = self.gpus.get_mut(gpu) {
                *free += share(job);
            }
        }
    }
}

/// How many GPUs a job works on.
fn count(job: &FarmJob) -> usize {
    job.gpus.ceil() as usize
}

/// What it uses of each.
fn share(job: &FarmJob) -> f64 {
    job.gpus.min(1.0)
}
