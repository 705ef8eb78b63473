//! Who started this process, read from its environment variables.
//!
//! Decides only: it starts no MPI, and knows no tensors.

use crate::comm::Communicator;
use crate::error::{Context, Failure, Result};
use std::collections::BTreeMap;

/// Environment variables by name.
pub type Variables = BTreeMap<String, String>;

/// How this process came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// By hand: it is the only process.
    Alone,
    /// By a launcher that MPI can ask for the other ranks.
    Launched {
        /// How many processes the launcher says it started, where it says so.
        tasks: Option<usize>,
    },
}

/// Variables of which a launcher with a process management interface sets at least one.
const LAUNCHER_MARKS: [&str; 5] =
    ["OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE", "PMIX_RANK", "PMI_RANK", "PMI_FD"];

/// Decides from the environment whether MPI has anybody to talk to.
///
/// `SLURM_NTASKS` and `SLURM_PROCID` say nothing by themselves: they are also set in a batch script
/// and in a shell of `salloc`, where one process is one process. Only a step has
/// `SLURM_STEP_NUM_TASKS`. A step of several tasks without a process management interface is a
/// usage failure: every task would train alone and write to the same files.
pub fn start(variables: &Variables) -> Result<Start> {
    let number = |name: &str| variables.get(name).and_then(|text| text.parse::<usize>().ok());
    let step_tasks = number("SLURM_STEP_NUM_TASKS");
    if LAUNCHER_MARKS.iter().any(|&mark| variables.contains_key(mark)) {
        // The daemons of `mpirun` are a Slurm step of their own, with one task per node.
        return Ok(Start::Launched { tasks: number("OMPI_COMM_WORLD_SIZE").or(step_tasks) });
    }
    match step_tasks {
        Some(tasks) if tasks > 1 && variables.contains_key("SLURM_PROCID") => {
            Err(strangers(tasks, "srun gave them no process management interface"))
        }
        _ => Ok(Start::Alone),
    }
}

/// Refuses processes that were started together and do not know of each other.
pub fn strangers(tasks: usize, reason: &str) -> Failure {
    Failure::usage(format!(
        "{tasks} processes were started, but each sees a world of 1 rank: {reason}"
    ))
    .hint(format!("run `srun --mpi=pmix -n {tasks} scrimp train ...`, or, inside the allocation, `mpirun -n {tasks} scrimp train ...`"))
}

/// Where this rank stands on its node: for choosing its device and its number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// This rank among those of the node, `0..ranks_on_node`.
    pub local_rank: usize,
    /// How many ranks share the node, at least 1.
    pub ranks_on_node: usize,
}

impl Placement {
    /// Asks the launcher, else compares host names over `comm`, in which every rank must join.
    ///
    /// Open MPI's own numbers come first: containers on different nodes may share one host name,
    /// and a group of ranks sees only some of its node.
    pub fn find(comm: &dyn Communicator, variables: &Variables) -> Result<Self> {
        let told = Self::from_launcher(variables);
        if !comm.any(told.is_none())? {
            return Ok(told.unwrap_or(Self { local_rank: 0, ranks_on_node: 1 }));
        }
        let file = "/proc/sys/kernel/hostname";
        let name = super::agree(
            comm,
            std::fs::read(file).context(|| format!("cannot read the host's name from `{file}`")),
        )?;
        Ok(Self::among(comm.rank(), &comm.gather(&name)?))
    }

    fn from_launcher(variables: &Variables) -> Option<Self> {
        let number = |name: &str| variables.get(name).and_then(|text| text.parse::<usize>().ok());
        let local_rank = number("OMPI_COMM_WORLD_LOCAL_RANK")?;
        let ranks_on_node = number("OMPI_COMM_WORLD_LOCAL_SIZE")?;
        (local_rank < ranks_on_node).then_some(Self { local_rank, ranks_on_node })
    }

    /// The placement of `rank` among all ranks' host names, in rank order.
    fn among(rank: usize, hosts: &[Vec<u8>]) -> Self {
        let same = |&other: &usize| hosts[other] == hosts[rank];
        Self {
            local_rank: (0..rank).filter(same).count(),
            ranks_on_node: (0..hosts.len()).filter(same).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_plain_shell_is_alone() {
        assert_eq!(start(&variables(&[("HOME", "/root")])).unwrap(), Start::Alone);
    }

    #[test]
    fn open_mpi_is_a_launcher_also_with_one_rank() {
        let one = variables(&[("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0")]);
        assert_eq!(start(&one).unwrap(), Start::Launched { tasks: Some(1) });
    }

    #[test]
    fn open_mpi_counts_its_ranks_itself_where_its_daemons_are_a_slurm_step() {
        let remote = variables(&[
            ("OMPI_COMM_WORLD_SIZE", "8"),
            ("SLURM_STEP_NUM_TASKS", "3"),
            ("SLURM_PROCID", "1"),
        ]);
        assert_eq!(start(&remote).unwrap(), Start::Launched { tasks: Some(8) });
    }

    #[test]
    fn srun_with_pmix_is_a_launcher() {
        let step = variables(&[
            ("PMIX_NAMESPACE", "slurm.pmix.7.0"),
            ("PMIX_RANK", "2"),
            ("SLURM_NTASKS", "4"),
            ("SLURM_PROCID", "2"),
            ("SLURM_STEP_NUM_TASKS", "4"),
        ]);
        assert_eq!(start(&step).unwrap(), Start::Launched { tasks: Some(4) });
    }

    #[test]
    fn srun_without_process_management_is_refused() {
        let step = variables(&[
            ("SLURM_NTASKS", "4"),
            ("SLURM_PROCID", "2"),
            ("SLURM_STEP_NUM_TASKS", "4"),
        ]);
        let failure = start(&step).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "error: 4 processes were started, but each sees a world of 1 rank: srun gave them no \
             process management interface\n\nhint: run `srun --mpi=pmix -n 4 scrimp train ...`, \
             or, inside the allocation, `mpirun -n 4 scrimp train ...`"
        );
        assert_eq!(failure.exit() as i32, 2);
    }

    #[test]
    fn a_step_of_one_task_is_alone() {
        let step = variables(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")]);
        assert_eq!(start(&step).unwrap(), Start::Alone);
    }

    #[test]
    fn shells_of_salloc_and_sbatch_are_alone() {
        let salloc = variables(&[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "8")]);
        assert_eq!(start(&salloc).unwrap(), Start::Alone);
        let batch = variables(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")]);
        assert_eq!(start(&batch).unwrap(), Start::Alone);
    }

    #[test]
    fn the_launcher_places_ranks_and_else_the_host_names_do() {
        let told =
            variables(&[("OMPI_COMM_WORLD_LOCAL_RANK", "1"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "4")]);
        assert_eq!(
            Placement::from_launcher(&told),
            Some(Placement { local_rank: 1, ranks_on_node: 4 })
        );
        assert_eq!(Placement::from_launcher(&variables(&[("SLURM_LOCALID", "1")])), None);
        let hosts: Vec<Vec<u8>> = ["a", "b", "a", "b", "a"].map(Into::into).to_vec();
        let placed = |rank| Placement::among(rank, &hosts);
        assert_eq!(placed(3), Placement { local_rank: 1, ranks_on_node: 2 });
        assert_eq!(placed(4), Placement { local_rank: 2, ranks_on_node: 3 });
    }
}
