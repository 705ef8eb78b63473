//! Verdicts on where a run is written: whether it can be, how fast, and whether all ranks see the same.

use super::ranks::no_others;
use super::said::{Said, of_all, of_each};
use crate::doctor::answer::Answer;
use crate::doctor::observation::{Folder, Lock, Observation, Sight};
use crate::doctor::report::Finding;
use indicatif::HumanBytes;

/// Room without which not even small checkpoints fit.
const LEAST_BYTES: u64 = 64 << 20;
/// Room that a run may well fill.
const LITTLE_BYTES: u64 = 2 << 30;
/// Files without which no checkpoint can be made, and those that a run may well make.
const LEAST_FILES: u64 = 32;
const LITTLE_FILES: u64 = 4096;
/// A disk that is slower than this holds up every checkpoint.
const SLOW_MS: f64 = 2000.0;
/// A file that appears later than this holds up whoever waits for it.
const SLOW_SECONDS: f64 = 5.0;
/// File systems that are gone when their host restarts.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

fn names(folder: &Folder) -> String {
    let Folder { asked, tried, .. } = folder;
    if asked == tried {
        format!("`{asked}`")
    } else {
        format!("`{asked}`, to be made in `{tried}`,")
    }
}

/// Whether every rank can write there, and nobody else does.
pub(super) fn folder(seen: &[Observation]) -> Vec<Said> {
    let elsewhere = "choose another directory with `--run DIR`";
    of_each(seen, |one| {
        Some(match &one.folder {
            Answer::Refused { why, hint } => {
                Finding::fails(why, hint.as_deref().unwrap_or(elsewhere))
            }
            Answer::Late { seconds } => Finding::fails(
                format!("its file system did not answer within {seconds} s"),
                "`stat` on that folder should answer at once; ask an administrator, or choose another with `--run DIR`",
            ),
            Answer::Got(folder) => match &folder.owner {
                Some(owner) => Finding::fails(
                    format!("`{}` belongs to a run that is alive on {owner}", folder.asked),
                    format!(
                        "`scrimp watch {}` shows it; choose another directory with `--run DIR`",
                        folder.asked
                    ),
                ),
                None if IN_MEMORY.contains(&&*folder.kind) => Finding::warning(
                    format!("{} lies in memory ({})", names(folder), folder.kind),
                    "it is gone when the host restarts: choose a folder on a disk with `--run DIR`",
                ),
                None => Finding::ok(format!("{} can be written ({})", names(folder), folder.kind)),
            },
        })
    })
}

/// Whether there is room, and how long it takes until something is on the disk, of all ranks the worst.
pub(super) fn disk(seen: &[Observation]) -> Vec<Said> {
    let folders = || seen.iter().filter_map(|one| Some((one, one.folder.got()?)));
    let Some((least, folder)) = folders().min_by_key(|(_, folder)| folder.space.free_bytes) else {
        return of_all(seen, Finding::not_here("no rank can write there"));
    };
    let free = folder.space.free_bytes;
    let make_room = "make room there: `du -sh runs/*` shows who takes it, `scrimp checkpoint prune RUN` removes old checkpoints";
    let words = format!("{} are free", HumanBytes(free));
    let of_rank = |finding, rank| vec![Said { finding, ranks: vec![rank] }];
    if free < LEAST_BYTES {
        return of_rank(Finding::fails(words, make_room), least.rank);
    }
    let files = folders().filter_map(|(one, folder)| Some((one.rank, folder.space.free_files?)));
    let fewest = files.min_by_key(|&(_, files)| files);
    if let Some((rank, files)) = fewest.filter(|&(_, files)| files < LITTLE_FILES) {
        let words = format!("{files} more files can be made");
        let is_enough = files >= LEAST_FILES;
        let finding = if is_enough {
            Finding::warning(words, make_room)
        } else {
            Finding::fails(words, make_room)
        };
        return of_rank(finding, rank);
    }
    if free < LITTLE_BYTES {
        return of_rank(Finding::warning(words, make_room), least.rank);
    }
    let slowest = folders().max_by(|(_, a), (_, b)| a.durable_ms.total_cmp(&b.durable_ms));
    let (slow, ms) = slowest.map_or((least, 0.0), |(one, folder)| (one, folder.durable_ms));
    let words = format!("{words}; a MiB is on the disk after {ms:.0} ms");
    if ms > SLOW_MS {
        let hint = "checkpoints wait for it: choose a faster file system with `--run DIR`, or save less often with `train.save_every`";
        return of_rank(Finding::warning(words, hint), slow.rank);
    }
    of_all(seen, Finding::ok(words))
}

/// Whether files can be locked, and a lock is seen by other ranks.
pub(super) fn locks(seen: &[Observation]) -> Vec<Said> {
    let sign = "two runs may take one directory at the same moment; its sign of life keeps all others away, and a start takes longer";
    let said = of_each(seen, |one| {
        let folder = one.folder.got()?;
        let across = one.sight.as_ref().and_then(Answer::got).and_then(|sight| sight.lock);
        Some(match (folder.lock, across) {
            (Lock::Absent, _) => Finding::warning(format!("{} gives no locks", folder.kind), sign),
            (_, Some(Lock::Held)) if one.rank > 0 => Finding::warning(
                format!("what rank 0 on `{}` has locked is not locked here", seen[0].host),
                sign,
            ),
            (_, Some(_)) => Finding::ok("files can be locked, and all ranks see it"),
            (_, None) => Finding::ok("files can be locked"),
        })
    });
    if said.is_empty() {
        return of_all(seen, Finding::not_here("no rank can write there"));
    }
    said
}

/// Whether all ranks see what rank 0 writes there.
pub(super) fn sight(seen: &[Observation]) -> Vec<Said> {
    if let Some(said) = no_others(seen) {
        return said;
    }
    let shared = "choose a folder that all hosts share with `--run DIR`, for example on a network file system";
    let others = seen.iter().filter(|one| one.rank > 0);
    let times = others.filter_map(|one| one.sight.as_ref()?.got()?.seen_after_seconds);
    let slowest = times.fold(0.0, f64::max);
    of_each(seen, |one| {
        Some(match one.sight.as_ref() {
            None => Finding::not_here("nobody looked"),
            Some(Answer::Refused { why, .. }) => Finding::fails(why, shared),
            Some(Answer::Late { seconds }) => {
                Finding::fails(format!("the file system did not answer within {seconds} s"), shared)
            }
            Some(Answer::Got(Sight { seen_after_seconds: None, .. })) => Finding::fails(
                format!("what rank 0 on `{}` writes does not appear here", seen[0].host),
                shared,
            ),
            Some(Answer::Got(Sight { seen_after_seconds: Some(seconds), .. })) => {
                if *seconds > SLOW_SECONDS {
                    Finding::warning(
                        format!("a file of rank 0 appeared after {seconds:.1} s"),
                        "requests to stop and the dashboard wait as long; `acdirmax` of the mount says how long it may be",
                    )
                } else {
                    let ms = (slowest * 1e3).ceil();
                    Finding::ok(format!(
                        "a renamed file of rank 0 appears on all ranks, after {ms:.0} ms at most"
                    ))
                }
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::samples::{on_hosts, refused};
    use crate::doctor::report::State;

    fn seen_with(change: impl Fn(&mut Folder)) -> Vec<Observation> {
        let mut seen = on_hosts(&["a", "b"]);
        let Answer::Got(folder) = &mut seen[1].folder else { unreachable!() };
        change(folder);
        seen
    }

    fn first(said: &[Said]) -> (State, &str, &[usize]) {
        (said[0].finding.state, &said[0].finding.evidence, &said[0].ranks)
    }

    #[test]
    fn a_folder_that_one_rank_cannot_write_or_that_hangs_fails() {
        let mut seen = on_hosts(&["a", "b"]);
        seen[1].folder = refused("cannot write into `runs`: Read-only file system");
        let words = "cannot write into `runs`: Read-only file system";
        assert_eq!(first(&folder(&seen)), (State::Fails, words, &[1][..]));
        seen[1].folder = Answer::Late { seconds: 10.0 };
        let words = "its file system did not answer within 10 s";
        assert_eq!(first(&folder(&seen)), (State::Fails, words, &[1][..]));
        assert_eq!(first(&disk(&seen)).0, State::Ok);
        seen[0].folder = refused("cannot write into `runs`: Read-only file system");
        assert_eq!([first(&disk(&seen)).0, first(&locks(&seen)).0], [State::NotHere; 2]);
    }

    #[test]
    fn a_folder_that_is_in_use_fails_and_one_in_memory_is_told() {
        let seen = seen_with(|folder| folder.owner = Some("`a`, process 7".into()));
        let words = "`runs/a` belongs to a run that is alive on `a`, process 7";
        assert_eq!(first(&folder(&seen)), (State::Fails, words, &[1][..]));
        let seen = seen_with(|folder| folder.kind = "tmpfs".into());
        let words = "`runs/a`, to be made in `runs`, lies in memory (tmpfs)";
        assert_eq!(first(&folder(&seen)), (State::Warning, words, &[1][..]));
    }

    #[test]
    fn little_room_and_a_slow_disk_are_told() {
        let seen = seen_with(|folder| folder.space.free_bytes = 1 << 20);
        assert_eq!(first(&disk(&seen)), (State::Fails, "1.00 MiB are free", &[1][..]));
        let seen = seen_with(|folder| folder.space.free_bytes = 1 << 30);
        assert_eq!(first(&disk(&seen)), (State::Warning, "1.00 GiB are free", &[1][..]));
        let seen = seen_with(|folder| folder.space.free_files = Some(3));
        assert_eq!(first(&disk(&seen)), (State::Fails, "3 more files can be made", &[1][..]));
        let seen = seen_with(|folder| folder.durable_ms = 5000.0);
        assert_eq!(first(&disk(&seen)).0, State::Warning);
        let sound = "300.00 GiB are free; a MiB is on the disk after 4 ms";
        assert_eq!(first(&disk(&seen_with(|_| ()))), (State::Ok, sound, &[0, 1][..]));
    }

    #[test]
    fn locks_that_others_do_not_see_are_told() {
        let seen = seen_with(|folder| folder.lock = Lock::Absent);
        assert_eq!(first(&locks(&seen)), (State::Warning, "ext4 gives no locks", &[1][..]));
        let mut seen = on_hosts(&["a", "b"]);
        let held = Sight { seen_after_seconds: Some(0.1), lock: Some(Lock::Held) };
        seen[1].sight = Some(Answer::Got(held));
        let words = "what rank 0 on `a` has locked is not locked here";
        assert_eq!(first(&locks(&seen)), (State::Warning, words, &[1][..]));
    }

    #[test]
    fn a_folder_that_is_not_shared_fails_and_a_slow_one_is_told() {
        let mut seen = on_hosts(&["a", "b"]);
        let words = "a renamed file of rank 0 appears on all ranks, after 1 ms at most";
        assert_eq!(first(&sight(&seen)), (State::Ok, words, &[0, 1][..]));
        let of = |seconds| Some(Answer::Got(Sight { seen_after_seconds: seconds, lock: None }));
        seen[1].sight = of(None);
        let words = "what rank 0 on `a` writes does not appear here";
        assert_eq!(first(&sight(&seen)), (State::Fails, words, &[1][..]));
        seen[1].sight = of(Some(30.0));
        assert_eq!(first(&sight(&seen)).0, State::Warning);
        seen[1].sight = Some(Answer::Late { seconds: 80.0 });
        assert_eq!(first(&sight(&seen)).0, State::Fails);
    }
}
