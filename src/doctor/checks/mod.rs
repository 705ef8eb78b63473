//! Verdicts: each check is a function of what all ranks saw, and the list of all of them stands here.

mod data;
mod folder;
mod gpus;
mod hosts;
mod memory;
mod program;
mod ranks;
mod said;
#[cfg(test)]
mod samples;
mod terminal;

use super::observation::Observation;
use super::report::{Line, Report};
use said::Said;

/// What one check says of what all ranks saw, who are at least one.
type Check = fn(&[Observation]) -> Vec<Said>;

/// All checks with the names that they have in every report, in the order in which a run needs things.
const CHECKS: &[(&str, Check)] = &[
    ("program", program::program),
    ("configuration", program::configuration),
    ("libtorch", program::libtorch),
    ("GPU driver", gpus::driver),
    ("GPUs", gpus::gpus),
    ("NCCL", gpus::nccl),
    ("MPI", ranks::mpi),
    ("processors", ranks::processors),
    ("host names", hosts::names),
    ("clocks", hosts::clocks),
    ("/dev/shm", memory::shared),
    ("memory", memory::memory),
    ("limits", memory::limits),
    ("run folder", folder::folder),
    ("disk", folder::disk),
    ("locks", folder::locks),
    ("shared files", folder::sight),
    ("data", data::data),
    ("terminal", terminal::terminal),
];

/// What is to be said of what all ranks saw, in rank order.
pub fn examine(seen: &[Observation]) -> Report {
    let hosts = seen.iter().map(|one| one.host.clone()).collect();
    let lines = CHECKS.iter().flat_map(|(check, examine)| {
        examine(seen).into_iter().map(|Said { finding, ranks }| {
            let mut hosts: Vec<String> = Vec::new();
            for host in ranks.iter().map(|&rank| &seen[rank].host) {
                if !hosts.contains(host) {
                    hosts.push(host.clone());
                }
            }
            let (state, evidence, hint) = (finding.state, finding.evidence, finding.hint);
            Line { check, state, evidence, hint, ranks, hosts }
        })
    });
    Report::new(hosts, lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::State;

    #[test]
    fn what_is_sound_is_said_in_a_line_for_each_check() {
        let report = examine(&samples::on_hosts(&["a", "a", "b"]));
        let mut said: Vec<&str> = report.lines.iter().map(|line| line.check).collect();
        // Hosts differ in how many ranks they have.
        said.dedup();
        let all: Vec<&str> = CHECKS.iter().map(|(check, _)| *check).collect();
        assert_eq!(said, all);
        assert!(report.can_train, "{}", report.text(100));
        let odd: Vec<_> = report.lines.iter().filter(|one| one.state == State::Warning).collect();
        assert!(odd.is_empty(), "{odd:?}");
    }

    #[test]
    fn one_rank_alone_has_nothing_to_compare() {
        let report = examine(&samples::on_hosts(&["a"]));
        assert!(report.can_train, "{}", report.text(100));
        insta::assert_snapshot!(report.text(100), @r"
        1 rank on `a`

        ok        program        scrimp 0.1.0
        not here  configuration  none was named
                                 > `scrimp doctor CONFIG` looks at what it trains, too
        ok        libtorch       2.11.0+cpu without a CUDA half, in `/opt/libtorch/lib`
        not here  GPU driver     there is none of NVIDIA: it trains on CPUs
        not here  GPUs           there are none
        not here  NCCL           no rank computes on a GPU
        ok        MPI            Open MPI v4.1.4, one process without a launcher
                                 > `mpirun -n RANKS scrimp doctor` asks all ranks and their hosts
        ok        processors     1 rank with 8 threads, on 8 of 8 processors
        ok        host names     1 name has an address
        not here  clocks         there is one rank
        ok        /dev/shm       32.00 GiB of 32.00 GiB are free
        ok        memory         48.00 GiB are free
        ok        limits         1048576 files may be open
        ok        run folder     `runs/a`, to be made in `runs`, can be written (ext4)
        ok        disk           300.00 GiB are free; a MiB is on the disk after 4 ms
        ok        locks          files can be locked
        not here  shared files   there is one rank
        not here  data           no packed file was named
                                 > `scrimp doctor CONFIG` or `--data FILE` reads it to its end
        not here  terminal       output goes elsewhere; the dashboard may run on another host
                                 > `scrimp watch RUN` from any terminal that sees the folder of the run

        training can begin here
        ");
    }
}
