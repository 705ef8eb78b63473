//! The slots of a farm: what the farm file says, else what the allocation or the machine has.
//!
//! Takes the environment as a function, so that nothing of this machine is read here.

use super::file::SlotsSection;
use crate::runlog::farm::Slots;

/// What the system says of this machine.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// The value of an environment variable, where it is set.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Processors that this process may use.
    pub processors: usize,
    /// GPUs of the machine, whoever may use them.
    pub gpus: usize,
    /// Lines of the file that `PBS_NODEFILE` names: a process each.
    pub pbs_slots: Option<usize>,
}

/// The slots of a farm, and what `CUDA_VISIBLE_DEVICES` calls each of its GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What jobs share.
    pub slots: Slots,
    /// The names of the GPUs that this process may use, which may be fewer than the farm file says.
    pub gpu_names: Vec<String>,
}

impl Machine<'_> {
    /// The slots where the farm file says `written`.
    pub fn room(&self, written: SlotsSection) -> Room {
        let processes = written.processes.unwrap_or_else(|| self.processes());
        let gpu_names = self.visible();
        let gpus = written.gpus.unwrap_or(gpu_names.len());
        Room { slots: Slots { processes, gpus }, gpu_names }
    }

    /// Tasks of the Slurm job or the slots of the PBS job that this is in, else processors.
    fn processes(&self) -> usize {
        let number = |name: &str| (self.variable)(name)?.trim().parse::<usize>().ok();
        let slurm = number("SLURM_NTASKS").filter(|_| (self.variable)("SLURM_JOB_ID").is_some());
        slurm.or(self.pbs_slots).unwrap_or(self.processors).max(1)
    }

    /// The GPUs that this process may use, as CUDA names them.
    fn visible(&self) -> Vec<String> {
        match (self.variable)("CUDA_VISIBLE_DEVICES") {
            Some(list) => {
                let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
                names.map(str::to_owned).collect()
            }
            None => (0..self.gpus).map(|number| number.to_string()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(variables: &[(&str, &str)], written: SlotsSection) -> (usize, usize, Vec<String>) {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let machine = Machine { variable: &variable, processors: 8, gpus: 2, pbs_slots: None };
        let Room { slots, gpu_names } = machine.room(written);
        (slots.processes, slots.gpus, gpu_names)
    }

    #[test]
    fn slots_are_those_of_the_file_the_allocation_or_the_machine() {
        let nothing = SlotsSection::default();
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(room(&[], nothing), (8, 2, names(&["0", "1"])));
        let slurm =
            [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "3"), ("CUDA_VISIBLE_DEVICES", "2, GPU-5f")];
        assert_eq!(room(&slurm, nothing), (3, 2, names(&["2", "GPU-5f"])));
        // Of a job that this is not in.
        assert_eq!(
            room(&[("SLURM_NTASKS", "3"), ("CUDA_VISIBLE_DEVICES", "")], nothing),
            (8, 0, vec![])
        );
        let written = SlotsSection { processes: Some(5), gpus: Some(3) };
        assert_eq!(room(&slurm, written), (5, 3, names(&["2", "GPU-5f"])));
    }
}
