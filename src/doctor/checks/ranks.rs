//! Verdicts on ranks: whether they know each other, and whether each has processors of its own.

use super::said::{Said, hosts, of_all, of_each, of_hosts};
use crate::doctor::answer::Answer;
use crate::doctor::observation::{Mpi, Observation};
use crate::doctor::report::Finding;
use crate::words::counted;
use std::collections::BTreeSet;

/// Names of launchers and libraries that belong together.
const FAMILIES: [(&str, &[&str]); 3] = [
    ("Open MPI", &["Open MPI", "OpenRTE", "Open RTE"]),
    ("Intel MPI", &["Intel(R) MPI"]),
    ("MPICH", &["MPICH", "MVAPICH", "HYDRA"]),
];

/// Whether ranks know each other.
pub(super) fn mpi(seen: &[Observation]) -> Vec<Said> {
    let hosts = hosts(seen).len();
    of_each(seen, |one| {
        let Mpi { library, introduced_by, ranks, refusal, mpirun } = &one.mpi;
        match refusal {
            Some(Answer::Refused { why, hint }) => {
                let with = "start it with the `mpirun` of the MPI that scrimp was built with";
                return Some(Finding::fails(why, hint.as_deref().unwrap_or(with)));
            }
            Some(Answer::Late { seconds }) => {
                let evidence = format!("it did not start within {seconds} s");
                return Some(Finding::fails(evidence, "look at what `mpirun` says above"));
            }
            Some(Answer::Got(())) | None => {}
        }
        let Some(library) = library else {
            return Some(joins_none(introduced_by.as_deref()));
        };
        Some(match (introduced_by, mpirun) {
            (Some(by), _) => Finding::ok(format!(
                "{library}, {} on {}, introduced by {by}",
                counted(*ranks, "rank"),
                counted(hosts, "host")
            )),
            (None, Some(mpirun)) => alone(library, mpirun),
            (None, None) => Finding::ok(format!("{library}, one process")),
        })
    })
}

/// What is said of a build without MPI.
fn joins_none(introduced_by: Option<&str>) -> Finding {
    let Some(launcher) = introduced_by else {
        return Finding::not_here("this build joins no processes, and one process trains");
    };
    Finding::warning(
        format!(
            "started by {launcher}, and this build joins no processes: the first one looks at its own host, and \
             nothing is compared between them"
        ),
        "`cargo build --release` builds all of it, with MPI",
    )
}

/// One process without a launcher, where this is the `mpirun` of the shell.
fn alone(library: &str, mpirun: &Answer<String>) -> Finding {
    let ask = "`mpirun -n RANKS scrimp doctor` asks all ranks and their hosts";
    match mpirun {
        Answer::Got(launcher) => match (family(library), family(launcher)) {
            (Some(own), Some(other)) if own != other => Finding::warning(
                format!(
                    "scrimp was built with {library}, and `mpirun` is that of {other} ({launcher})"
                ),
                format!(
                    "load {own}, for example `module load {}`",
                    own.to_lowercase().replace(' ', "")
                ),
            ),
            _ => Finding::ok(format!("{library}, one process without a launcher")).hint(ask),
        },
        Answer::Refused { why, hint } => Finding::warning(
            format!("{library}, and {why}: several processes need it or `srun`"),
            hint.as_deref().unwrap_or("load the MPI that scrimp was built with"),
        ),
        Answer::Late { seconds } => Finding::warning(
            format!("{library}, and `mpirun --version` took more than {seconds} s"),
            "look whether the file system of `mpirun` answers",
        ),
    }
}

/// To which of the families something belongs that names itself so.
fn family(name: &str) -> Option<&'static str> {
    let belongs = |words: &&[&str]| words.iter().any(|word| name.contains(word));
    FAMILIES.iter().find(|(_, words)| belongs(words)).map(|(family, _)| *family)
}

/// Whether ranks of a host have processors for their threads, and none for themselves that others have, too.
pub(super) fn processors(seen: &[Observation]) -> Vec<Said> {
    of_hosts(seen, |ranks| {
        let sets: Vec<BTreeSet<usize>> =
            ranks.iter().map(|one| one.processors.allowed.iter().copied().collect()).collect();
        let all: BTreeSet<usize> = sets.iter().flatten().copied().collect();
        let threads: usize = ranks.iter().map(|one| one.processors.threads).sum();
        let granted = ranks.iter().map(|one| one.processors.granted).max().unwrap_or(1);
        let is_bound = all.len() < granted;
        let words = format!(
            "{} with {}{}, {} {} of {}",
            counted(ranks.len(), "rank"),
            counted(threads, "thread"),
            if ranks.len() == 1 { "" } else { " in all" },
            if is_bound { "bound to" } else { "on" },
            all.len(),
            counted(granted, "processor")
        );
        let unbind =
            "`mpirun --bind-to none`, or `srun --cpu-bind=none`; `scrimp launch` does so by itself";
        if all.is_empty() {
            return Finding::ok(format!(
                "{}, the system does not say where",
                counted(ranks.len(), "rank")
            ));
        }
        if threads > all.len() {
            let fewer = format!(
                "start at most {} here, or fewer threads each with `--set train.threads=N`",
                counted(all.len(), "rank")
            );
            let hint = if is_bound { unbind.to_owned() } else { fewer };
            return Finding::warning(format!("{words}: they wait for each other"), hint);
        }
        let overlap = sets.iter().enumerate().any(|(index, set)| {
            sets[..index].iter().any(|other| set != other && !set.is_disjoint(other))
        });
        if overlap {
            return Finding::warning(
                format!("{words}, and what they are bound to overlaps"),
                unbind,
            );
        }
        if is_bound && ranks[0].mpi.introduced_by.is_some() {
            return Finding::warning(format!("{words}: the others stay idle"), unbind);
        }
        Finding::ok(words)
    })
}

/// A finding that one rank has nothing to compare.
pub(super) fn no_others(seen: &[Observation]) -> Option<Vec<Said>> {
    (seen.len() == 1).then(|| of_all(seen, Finding::not_here("there is one rank")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::samples::{on_hosts, refused};
    use crate::doctor::report::State;

    #[test]
    fn ranks_that_know_each_other_are_counted() {
        let said = mpi(&on_hosts(&["a", "a", "b"]));
        let words = "Open MPI v4.1.4, 3 ranks on 2 hosts, introduced by PMIx";
        assert_eq!((said.len(), &*said[0].finding.evidence), (1, words));
    }

    #[test]
    fn processes_that_each_believe_to_be_alone_fail() {
        let mut seen = on_hosts(&["a"]);
        seen[0].mpi.refusal = Some(Answer::Refused {
            why: "2 processes were started, but each sees a world of 1 rank".into(),
            hint: Some("run `mpirun -n 2 scrimp train ...`".into()),
        });
        let finding = mpi(&seen).swap_remove(0).finding;
        assert_eq!(finding.state, State::Fails);
        assert_eq!(finding.hint.unwrap(), "run `mpirun -n 2 scrimp train ...`");
    }

    #[test]
    fn a_launcher_of_another_family_is_told_and_so_is_none() {
        let mut seen = on_hosts(&["a"]);
        seen[0].mpi.mpirun = Some(Answer::Got("HYDRA 4.0.2".into()));
        let finding = mpi(&seen).swap_remove(0).finding;
        assert_eq!(
            finding.evidence,
            "scrimp was built with Open MPI v4.1.4, and `mpirun` is that of MPICH (HYDRA 4.0.2)"
        );
        assert_eq!(finding.hint.unwrap(), "load Open MPI, for example `module load openmpi`");
        seen[0].mpi.mpirun = Some(refused("cannot start `mpirun`"));
        assert_eq!(mpi(&seen)[0].finding.state, State::Warning);
        seen[0].mpi.library = None;
        let finding = mpi(&seen).swap_remove(0).finding;
        assert_eq!(finding.state, State::NotHere);
        seen[0].mpi.introduced_by = Some("`mpirun` of Open MPI".into());
        let finding = mpi(&seen).swap_remove(0).finding;
        assert_eq!(
            (finding.state, finding.evidence.as_str()),
            (
                State::Warning,
                "started by `mpirun` of Open MPI, and this build joins no processes: the first one looks at its own \
                 host, and nothing is compared between them"
            )
        );
        assert_eq!(family("mpirun (Open MPI) 4.1.4"), family("Open MPI v4.1.4"));
        assert_eq!(family("another"), None);
    }

    /// The verdict on ranks of one host with 8 processors, each bound to these and with so many threads.
    fn bound(ranks: &[(std::ops::Range<usize>, usize)]) -> (State, String) {
        let mut seen = on_hosts(&vec!["a"; ranks.len()]);
        for (one, (allowed, threads)) in seen.iter_mut().zip(ranks) {
            one.processors.allowed = allowed.clone().collect();
            one.processors.threads = *threads;
        }
        let said = processors(&seen);
        assert_eq!(said.len(), 1);
        (said[0].finding.state, said[0].finding.evidence.clone())
    }

    #[test]
    fn ranks_want_processors_of_their_own() {
        use State::{Ok, Warning};
        let told = |state, words: &str| (state, words.to_owned());
        assert_eq!(
            bound(&[(0..8, 4), (0..8, 4)]),
            told(Ok, "2 ranks with 8 threads in all, on 8 of 8 processors")
        );
        let crowded =
            "2 ranks with 16 threads in all, on 8 of 8 processors: they wait for each other";
        assert_eq!(bound(&[(0..8, 8), (0..8, 8)]), told(Warning, crowded));
        let narrow =
            "2 ranks with 8 threads in all, bound to 2 of 8 processors: they wait for each other";
        assert_eq!(bound(&[(0..1, 4), (1..2, 4)]), told(Warning, narrow));
        let idle =
            "2 ranks with 2 threads in all, bound to 2 of 8 processors: the others stay idle";
        assert_eq!(bound(&[(0..1, 1), (1..2, 1)]), told(Warning, idle));
        assert_eq!(bound(&[(0..4, 1), (3..8, 1)]).0, Warning);
        // One rank on each host, which a launcher has bound to a core.
        let mut seen = on_hosts(&["a", "b"]);
        for one in &mut seen {
            (one.processors.allowed, one.processors.threads) = (vec![0], 1);
        }
        assert_eq!(processors(&seen)[0].finding.state, Warning);
        assert_eq!(bound(&[(0..4, 4), (4..8, 4)]).0, Ok);
        assert_eq!(
            bound(&[(0..2, 2)]),
            told(Ok, "1 rank with 2 threads, bound to 2 of 8 processors")
        );
        assert_eq!(bound(&[(0..0, 2)]), told(Ok, "1 rank, the system does not say where"));
    }
}
