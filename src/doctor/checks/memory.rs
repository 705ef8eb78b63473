//! Verdicts on memory of hosts and on what the system allows.

use super::said::{Said, of_each, of_hosts};
use crate::doctor::observation::{Limits, Memory, Observation};
use crate::doctor::report::Finding;
use crate::words::counted;
use indicatif::HumanBytes;

/// What a rank takes in `/dev/shm` at the most: a segment of Open MPI, and with GPUs buffers of NCCL.
const SHARED_BYTES: u64 = 8 << 20;
const SHARED_BYTES_WITH_GPU: u64 = 64 << 20;
/// What a rank takes beside its data: libtorch, a small network and its batches.
const RANK_BYTES: u64 = 512 << 20;
/// Files that a rank has open beside one or two for each other rank: libraries while they load, logs, checkpoints.
const OPEN_FILES: u64 = 64;
const OPEN_FILES_FOR_EACH: u64 = 2;
/// A file that is larger than this is no surprise in a run.
const LARGE_FILE_BYTES: u64 = 64 << 30;
/// Addresses that libtorch reserves without using them, with CUDA many times as much.
const ADDRESS_BYTES: u64 = 16 << 30;

/// Whether `/dev/shm` has room for what ranks of one host pass to each other.
pub(super) fn shared(seen: &[Observation]) -> Vec<Said> {
    of_hosts(seen, |ranks| {
        let Some(space) = ranks[0].memory.shared else {
            return Finding::warning(
                "it is not there, or did not answer",
                "in a container, mount it: `--shm-size=1g`, `--ipc=host`",
            );
        };
        let has_gpus = ranks[0].computes_on_gpu();
        let each = if has_gpus { SHARED_BYTES_WITH_GPU } else { SHARED_BYTES };
        let wanted = each * ranks.len() as u64;
        let (free, total) = (HumanBytes(space.free_bytes), HumanBytes(space.total_bytes));
        let words = format!("{free} of {total} are free");
        if seen.len() > 1 && space.free_bytes < wanted {
            let take = format!("{} may take {}", counted(ranks.len(), "rank"), HumanBytes(wanted));
            let hint = "remove what lies there, or start the container with `--shm-size=1g`";
            // NCCL gives up; Open MPI takes a slower way.
            return if has_gpus && ranks.len() > 1 && space.free_bytes < wanted / 4 {
                Finding::fails(format!("{words}, and {take}"), hint)
            } else {
                Finding::warning(format!("{words}, and {take}: without them sums are slow"), hint)
            };
        }
        Finding::ok(words)
    })
}

/// Whether all ranks of a host fit into its memory, with the data that each of them holds.
pub(super) fn memory(seen: &[Observation]) -> Vec<Said> {
    // One rank of each host has read the data, and all hold the same.
    let whole = seen.iter().find_map(|one| one.data.as_ref()?.got()?.whole);
    let data = whole.map_or(0, |whole| whole.memory_bytes);
    of_hosts(seen, |ranks| {
        let Memory { available_bytes, limit, .. } = &ranks[0].memory;
        let left = limit.map(|limit| limit.limit_bytes.saturating_sub(limit.used_bytes));
        let room = left.map_or(*available_bytes, |left| left.min(*available_bytes));
        let by = match (limit, left) {
            (Some(limit), Some(left)) if left < *available_bytes => {
                format!(", by the limit of its control group of {}", HumanBytes(limit.limit_bytes))
            }
            _ => String::new(),
        };
        let words = format!("{} are free{by}", HumanBytes(room));
        let count = ranks.len() as u64;
        let fewer =
            "start fewer ranks on this host, or ask for more memory, for example `#SBATCH --mem`";
        if data * count > room {
            let evidence = format!(
                "{words}, and the data take {} on {}",
                HumanBytes(data * count),
                counted(ranks.len(), "rank")
            );
            return Finding::fails(evidence, fewer);
        }
        if (data + RANK_BYTES) * count > room {
            let evidence = format!(
                "{words}, and {} take some {}",
                counted(ranks.len(), "rank"),
                HumanBytes((data + RANK_BYTES) * count)
            );
            return Finding::warning(evidence, fewer);
        }
        if data > 0 {
            return Finding::ok(format!("{words}; each rank holds {} of data", HumanBytes(data)));
        }
        Finding::ok(words)
    })
}

/// Whether the system allows what a run does.
pub(super) fn limits(seen: &[Observation]) -> Vec<Said> {
    let wanted = OPEN_FILES + OPEN_FILES_FOR_EACH * seen.len() as u64;
    of_each(seen, |one| Some(of_rank(one, wanted)))
}

fn of_rank(one: &Observation, wanted: u64) -> Finding {
    let Limits { open_files, open_files_at_most, file_bytes, address_bytes, locked_bytes } =
        &one.limits;
    if let Some(files) = open_files.filter(|&files| files < 4 * wanted) {
        let evidence = format!("{files} files may be open, and a run may open {wanted}");
        let hint = match open_files_at_most {
            Some(most) if *most < wanted => {
                format!(
                    "ask an administrator for more than {most}, which `ulimit -n` cannot exceed"
                )
            }
            Some(most) => format!("`ulimit -n {}` before it starts", (*most).min(4 * wanted)),
            None => format!("`ulimit -n {}` before it starts", 4 * wanted),
        };
        let is_enough = files >= wanted;
        return if is_enough {
            let evidence = format!("{evidence}: that is close");
            Finding::warning(evidence, hint)
        } else {
            Finding::fails(evidence, hint)
        };
    }
    let has_gpus = one.computes_on_gpu();
    if let Some(bytes) = address_bytes.filter(|&bytes| bytes < ADDRESS_BYTES || has_gpus) {
        let evidence = format!(
            "{} of addresses are allowed, and libtorch reserves more than it uses",
            HumanBytes(bytes)
        );
        let hint = "`ulimit -v unlimited` before it starts; memory is limited by control groups";
        return if has_gpus {
            Finding::fails(evidence, hint)
        } else {
            Finding::warning(evidence, hint)
        };
    }
    if let Some(bytes) = file_bytes.filter(|&bytes| bytes < LARGE_FILE_BYTES) {
        let evidence =
            format!("files may have {}, and checkpoints may have more", HumanBytes(bytes));
        return Finding::warning(evidence, "`ulimit -f unlimited` before it starts");
    }
    if let Some(bytes) = locked_bytes.filter(|_| !one.fast_network.is_empty()) {
        let evidence = format!(
            "{} may stay in memory, and InfiniBand wants all it sends to",
            HumanBytes(bytes)
        );
        return Finding::warning(
            evidence,
            "`ulimit -l unlimited`, which an administrator sets in `/etc/security/limits.conf`",
        );
    }
    let files = open_files.map_or_else(|| "any number of".to_owned(), |files| files.to_string());
    Finding::ok(format!("{files} files may be open"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::answer::Answer;
    use crate::doctor::checks::samples::on_hosts;
    use crate::doctor::observation::{Data, MemoryLimit, Space, WholeData};
    use crate::doctor::report::State;

    #[test]
    fn little_shared_memory_is_told_where_there_are_several_ranks() {
        let small = Space { total_bytes: 1 << 20, free_bytes: 1 << 19, free_files: None };
        let mut seen = on_hosts(&["a", "a", "b"]);
        for one in &mut seen {
            one.memory.shared = Some(small);
        }
        let said = shared(&seen);
        assert_eq!((said[0].finding.state, &said[0].ranks[..]), (State::Warning, &[0, 1][..]));
        assert_eq!(
            said[0].finding.evidence,
            "512.00 KiB of 1.00 MiB are free, and 2 ranks may take 16.00 MiB: without them sums are slow"
        );
        for one in &mut seen {
            one.libtorch.as_mut().unwrap().gpus = 2;
        }
        let said = shared(&seen);
        assert_eq!((said[0].finding.state, &said[0].ranks[..]), (State::Fails, &[0, 1][..]));
        assert_eq!(shared(&seen[..1])[0].finding.state, State::Ok);
        seen[0].memory.shared = None;
        assert_eq!(shared(&seen)[0].finding.evidence, "it is not there, or did not answer");
    }

    #[test]
    fn ranks_of_a_host_have_to_fit_within_its_limit_with_their_data() {
        let mut seen = on_hosts(&["a", "a", "b"]);
        let said = memory(&seen);
        assert_eq!((said.len(), &*said[0].finding.evidence), (1, "48.00 GiB are free"));
        let limit = MemoryLimit { limit_bytes: 2 << 30, used_bytes: 1 << 30 };
        seen[0].memory.limit = Some(limit);
        let said = memory(&seen);
        assert_eq!(
            said[0].finding.evidence,
            "1.00 GiB are free, by the limit of its control group of 2.00 GiB"
        );
        seen[0].memory.limit = Some(MemoryLimit { limit_bytes: (2 << 30) - 1, ..limit });
        assert_eq!(memory(&seen)[0].finding.state, State::Warning);
        let whole = Some(WholeData { cases: 3, memory_bytes: 1 << 30, seconds: 1.0 });
        let (path, bytes, beginning) = ("a.h5".to_owned(), 9, 1);
        seen[2].data = Some(Answer::Got(Data { path, bytes, beginning, whole }));
        let said = memory(&seen);
        assert_eq!((said[0].finding.state, &said[0].ranks[..]), (State::Fails, &[0, 1][..]));
        assert!(said[0].finding.evidence.ends_with("the data take 2.00 GiB on 2 ranks"));
        assert_eq!(
            said[1].finding.evidence,
            "48.00 GiB are free; each rank holds 1.00 GiB of data"
        );
    }

    #[test]
    fn every_limit_that_a_run_may_meet_is_told() {
        let told = |change: fn(&mut Limits)| {
            let mut seen = on_hosts(&["a", "a"]);
            seen[0].fast_network = vec!["mlx5_0".into()];
            change(&mut seen[0].limits);
            let said = limits(&seen).swap_remove(0);
            (said.finding.state, said.finding.evidence)
        };
        let (state, words) = told(|limits| limits.open_files = Some(32));
        assert_eq!((state, &*words), (State::Fails, "32 files may be open, and a run may open 68"));
        assert_eq!(told(|limits| limits.open_files = Some(100)).0, State::Warning);
        let mut seen = on_hosts(&["a"]);
        seen[0].limits.open_files = Some(32);
        let hint = |seen: &[Observation]| limits(seen)[0].finding.hint.clone().unwrap();
        assert_eq!(hint(&seen), "`ulimit -n 264` before it starts");
        seen[0].limits.open_files_at_most = Some(32);
        assert!(hint(&seen).starts_with("ask an administrator"));
        assert_eq!(told(|limits| limits.file_bytes = Some(1 << 20)).0, State::Warning);
        assert_eq!(told(|limits| limits.address_bytes = Some(1 << 30)).0, State::Warning);
        assert_eq!(told(|limits| limits.locked_bytes = Some(1 << 16)).0, State::Warning);
        assert_eq!(told(|_| ()).0, State::Ok);
    }
}
