//! What launchers say of the processes that they start, read from environment variables.
//!
//! Decides only: it starts no MPI, and finds nobody.

use crate::error::{Failure, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Environment variables by name.
pub type Variables = BTreeMap<String, String>;

/// How this process came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// By hand: it is the only process.
    Alone,
    /// By a launcher that MPI can ask for the other ranks.
    Launched(Announced),
}

/// What a launcher says of the processes that it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The environment variable that says so.
    pub variable: &'static str,
    /// How many there are at least, where it says that.
    pub processes: Option<usize>,
}

/// Variables in which launchers with a process management interface count the processes that they
/// started, altogether or on this node.
const SIZES: [&str; 8] = [
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "PMI_SIZE",
    "PMI_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "PALS_LOCAL_SIZE",
    "JSM_NAMESPACE_SIZE",
];

/// Variables in which they number the processes from 0.
const NUMBERS: [&str; 10] = [
    "OMPI_COMM_WORLD_RANK",
    "PMIX_RANK",
    "PMI_RANK",
    "PMI_ID",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_RANK",
    "PALS_RANKID",
    "ALPS_APP_PE",
    "JSM_NAMESPACE_RANK",
    "FLUX_TASK_RANK",
];

/// Variables that they set beside these.
const MARKS: [&str; 4] = ["PMIX_NAMESPACE", "PMI_FD", "PMI_PORT", "PMI_CONTROL_PORT"];

/// Counts of launchers that need not have such an interface, and what each sets for its processes alone.
const TASKS: [(&str, &str); 4] = [
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
    ("HOROVOD_SIZE", "HOROVOD_RANK"),
    ("WORLD_SIZE", "LOCAL_RANK"),
];

/// Decides from the environment whether MPI has anybody to talk to.
///
/// `SLURM_NTASKS` and `SLURM_PROCID` say nothing by themselves: they are also set in a batch script
/// and in a shell of `salloc`, where one process is one process. Only a step has
/// `SLURM_STEP_NUM_TASKS`. Several tasks without a process management interface are a usage failure:
/// each would train alone and write to the same files.
pub fn start(variables: &Variables) -> Result<Start> {
    let tasks = TASKS.iter().filter(|(_, mark)| variables.contains_key(*mark));
    let tasks = largest(variables, tasks.map(|&(size, _)| size), 0);
    let marks = SIZES.iter().chain(&NUMBERS).chain(&MARKS);
    let Some(&mark) = marks.into_iter().find(|&&mark| variables.contains_key(mark)) else {
        return match tasks {
            Some(announced) if announced.processes > Some(1) => {
                Err(strangers(announced, "nothing tells them how to find each other"))
            }
            _ => Ok(Start::Alone),
        };
    };
    // The daemons of `mpirun` are a Slurm step of their own, with one task per node.
    let counted = largest(variables, SIZES.into_iter(), 0).or(tasks);
    // Rank 3 is one of at least four, whatever else is said.
    let numbered = largest(variables, NUMBERS.into_iter(), 1).filter(|n| n.processes > Some(1));
    let most = counted
        .into_iter()
        .chain(numbered)
        .reduce(|most, next| if next.processes > most.processes { next } else { most });
    Ok(Start::Launched(most.unwrap_or(Announced { variable: mark, processes: None })))
}

/// The largest of the numbers that variables of these names hold, and `more`; the first of equal ones.
fn largest(
    variables: &Variables,
    names: impl Iterator<Item = &'static str>,
    more: usize,
) -> Option<Announced> {
    let announced = |variable| {
        let number: usize = variables.get(variable)?.trim().parse().ok()?;
        Some(Announced { variable, processes: number.checked_add(more) })
    };
    names.filter_map(announced).reduce(
        |most, next| {
            if next.processes > most.processes { next } else { most }
        },
    )
}

/// The number of this process among those of its launcher, where the launcher says it.
pub fn number_of(variables: &Variables) -> Option<usize> {
    let number = |name: &&str| variables.get(*name)?.trim().parse().ok();
    NUMBERS.iter().chain(&["SLURM_PROCID"]).find_map(number)
}

/// Whether `mpirun` of Open MPI, or its daemon, is the parent of this process.
pub fn is_by_mpirun(variables: &Variables) -> bool {
    variables.contains_key("OMPI_COMM_WORLD_SIZE")
}

/// The environment of this process, without what is no UTF-8.
pub fn variables() -> Variables {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Refuses processes that were started together and do not know of each other.
pub fn strangers(announced: Announced, reason: &str) -> Failure {
    let Announced { variable, processes } = announced;
    let own = "with the `mpirun` of the MPI library that scrimp was built with";
    match processes {
        Some(count) => Failure::usage(format!(
            "{count} processes were started, as `{variable}` says, but each sees a world of 1 rank: {reason}"
        ))
        .hint(format!("run `mpirun -n {count} scrimp train ...` {own}"))
        .hint(format!("or `srun --mpi=pmix -n {count} scrimp train ...`; `srun --mpi=list` says what Slurm knows")),
        None => Failure::usage(format!(
            "a launcher started this process, as `{variable}` says, but it sees a world of 1 rank: {reason}"
        ))
        .hint(format!("run `mpirun -n RANKS scrimp train ...` {own}"))
        .hint(format!("or, for one process, `env -u {variable} scrimp train ...`")),
    }
}

impl Announced {
    /// Whether a world of one rank contradicts it.
    pub fn contradicts_one_rank(&self) -> bool {
        self.processes != Some(1)
    }
}

/// Refuses processes that were started together with a program that joins none.
pub fn unjoined() -> Failure {
    Failure::usage("started by an MPI launcher, but built without the feature `mpi`")
        .hint("run `cargo build --release --features mpi`, or start it without the launcher")
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

    /// Number, environment and what the launcher is taken to say.
    type Case = (&'static str, &'static [(&'static str, &'static str)], Option<usize>);

    #[test]
    fn every_launcher_is_asked_how_many_processes_it_started() {
        let cases: &[Case] = &[
            (
                "OMPI_COMM_WORLD_SIZE",
                &[("OMPI_COMM_WORLD_SIZE", "1"), ("OMPI_COMM_WORLD_RANK", "0")],
                Some(1),
            ),
            ("PMI_SIZE", &[("PMI_SIZE", "2"), ("PMI_RANK", "0"), ("PMI_FD", "9")], Some(2)),
            ("MPI_LOCALNRANKS", &[("MPI_LOCALNRANKS", "2"), ("MPI_LOCALRANKID", "1")], Some(2)),
            // Two nodes with one process each.
            (
                "PMI_SIZE",
                &[("MPI_LOCALNRANKS", "1"), ("PMI_SIZE", "2"), ("PMI_RANK", "0")],
                Some(2),
            ),
            (
                "MV2_COMM_WORLD_SIZE",
                &[("MV2_COMM_WORLD_SIZE", "8"), ("MV2_COMM_WORLD_RANK", "0")],
                Some(8),
            ),
            ("PALS_RANKID", &[("PALS_RANKID", "3"), ("PALS_LOCAL_SIZE", "2")], Some(4)),
            ("PALS_RANKID", &[("PALS_RANKID", "0")], None),
            ("FLUX_JOB_SIZE", &[("FLUX_JOB_SIZE", "4"), ("FLUX_TASK_RANK", "0")], Some(4)),
            (
                "JSM_NAMESPACE_SIZE",
                &[("JSM_NAMESPACE_SIZE", "6"), ("JSM_NAMESPACE_RANK", "0")],
                Some(6),
            ),
            // What one of two nested launchers says is enough.
            ("PMI_SIZE", &[("OMPI_COMM_WORLD_SIZE", "1"), ("PMI_SIZE", "2")], Some(2)),
            ("PMIX_RANK", &[("PMIX_NAMESPACE", "job.1"), ("PMIX_RANK", "2")], Some(3)),
            ("PMIX_RANK", &[("PMIX_NAMESPACE", "job.1"), ("PMIX_RANK", "0")], None),
            ("PMI_FD", &[("PMI_FD", "9")], None),
            ("PMI_SIZE", &[("PMI_SIZE", "many")], None),
        ];
        for &(variable, environment, processes) in cases {
            let expected = Start::Launched(Announced { variable, processes });
            assert_eq!(start(&variables(environment)).unwrap(), expected, "{environment:?}");
        }
    }

    #[test]
    fn open_mpi_counts_its_ranks_itself_where_its_daemons_are_a_slurm_step() {
        for size in ["1", "8"] {
            let remote = variables(&[
                ("OMPI_COMM_WORLD_SIZE", size),
                ("OMPI_COMM_WORLD_RANK", "0"),
                ("SLURM_STEP_NUM_TASKS", "3"),
                ("SLURM_PROCID", "1"),
            ]);
            let processes = size.parse().ok();
            let announced = Announced { variable: "OMPI_COMM_WORLD_SIZE", processes };
            assert_eq!(start(&remote).unwrap(), Start::Launched(announced));
        }
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
        let announced = Announced { variable: "SLURM_STEP_NUM_TASKS", processes: Some(4) };
        assert_eq!(start(&step).unwrap(), Start::Launched(announced));
    }

    #[test]
    fn tasks_without_process_management_are_refused() {
        for (size, mark) in TASKS {
            // Flux offers one; what it comes to is seen when MPI has started.
            if mark == "FLUX_TASK_RANK" {
                continue;
            }
            let failure = start(&variables(&[(size, "4"), (mark, "2")])).unwrap_err();
            assert_eq!(
                failure.to_string(),
                format!(
                    "error: 4 processes were started, as `{size}` says, but each sees a world of 1 rank: \
                     nothing tells them how to find each other\n\n\
                     hint: run `mpirun -n 4 scrimp train ...` with the `mpirun` of the MPI library that \
                     scrimp was built with\n\
                     hint: or `srun --mpi=pmix -n 4 scrimp train ...`; `srun --mpi=list` says what Slurm knows"
                )
            );
            assert_eq!(failure.exit() as i32, 2);
            assert_eq!(start(&variables(&[(size, "4")])).unwrap(), Start::Alone);
            assert_eq!(start(&variables(&[(size, "1"), (mark, "0")])).unwrap(), Start::Alone);
        }
    }

    #[test]
    fn a_world_of_one_rank_is_believed_where_the_launcher_says_one() {
        let contradicts =
            |processes| Announced { variable: "PMI_SIZE", processes }.contradicts_one_rank();
        assert_eq!([None, Some(1), Some(2)].map(contradicts), [true, false, true]);
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
}
