//! Memory of the host, of the control group of this process and in `/dev/shm`, and what the system allows.
//!
//! Reads what the kernel writes down; both versions of control groups are understood.

use super::folder::space;
use crate::doctor::answer::ask;
use crate::doctor::observation::{Limits, Memory, MemoryLimit};
use crate::telemetry::kilobytes;
use rustix::process::{Resource, getrlimit};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where shared memory of processes lies.
const SHARED: &str = "/dev/shm";
/// Where control groups lie.
const GROUPS: &str = "/sys/fs/cgroup";
/// A limit of the first version that is none: it is a number near the largest one.
const NO_LIMIT: u64 = 1 << 60;
/// How long a file system in memory may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks at the memory of the host.
pub fn look() -> Memory {
    let own = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let shared = ask(|| space(Path::new(SHARED))).within(LIMIT);
    Memory {
        total_bytes: kilobytes("/proc/meminfo", "MemTotal:").unwrap_or_default(),
        available_bytes: kilobytes("/proc/meminfo", "MemAvailable:").unwrap_or_default(),
        limit: limit(Path::new(GROUPS), &own),
        shared: shared.got().copied(),
    }
}

/// What the system allows this process.
pub fn limits() -> Limits {
    let of = |resource| getrlimit(resource).current;
    Limits {
        open_files: of(Resource::Nofile),
        open_files_at_most: getrlimit(Resource::Nofile).maximum,
        file_bytes: of(Resource::Fsize),
        address_bytes: of(Resource::As),
        locked_bytes: of(Resource::Memlock),
    }
}

/// The folders of a control group, from its own to that of all, in `root`: `name` is its controller, empty for groups of
/// the second version. In containers a folder may be missing.
pub(super) fn folders_of(root: &Path, own: &str, name: &str) -> Vec<PathBuf> {
    let path = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|controller| controller == name).then_some(path)
    });
    let Some(path) = path else { return Vec::new() };
    let root = root.join(name);
    let own = root.join(path.trim_start_matches('/'));
    own.ancestors().take_while(|folder| folder.starts_with(&root)).map(Path::to_owned).collect()
}

/// The limit that leaves least, of the group of this process and all above it.
fn limit(root: &Path, own: &str) -> Option<MemoryLimit> {
    let second = folders_of(root, own, "");
    let second = second
        .iter()
        .filter_map(|folder| of_folder(folder, ["memory.max", "memory.current", "inactive_file "]));
    let first = folders_of(root, own, "memory");
    let first = first.iter().filter_map(|folder| {
        let files = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "];
        of_folder(folder, files)
    });
    second.chain(first).min_by_key(|limit| limit.limit_bytes.saturating_sub(limit.used_bytes))
}

fn of_folder(folder: &Path, [limit, used, cached]: [&str; 3]) -> Option<MemoryLimit> {
    let number = |file: &str| read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let limit_bytes = number(limit).filter(|&bytes| bytes < NO_LIMIT)?;
    let statistics = read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = statistics.lines().find_map(|line| line.strip_prefix(cached)?.parse().ok());
    let used_bytes = number(used).unwrap_or_default().saturating_sub(cached.unwrap_or_default());
    Some(MemoryLimit { limit_bytes, used_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_limit_above_counts_where_it_leaves_less() {
        let root = tempfile::tempdir().unwrap();
        let job = root.path().join("slurm/job_7");
        let stat = "anon 5\ninactive_file 100\n";
        group(
            &job,
            &[("memory.max", "1000\n"), ("memory.current", "600\n"), ("memory.stat", stat)],
        );
        group(&job.join("step_0"), &[("memory.max", "max\n"), ("memory.current", "9\n")]);
        let found = limit(root.path(), "0::/slurm/job_7/step_0\n");
        assert_eq!(found, Some(MemoryLimit { limit_bytes: 1000, used_bytes: 500 }));
        assert_eq!(limit(root.path(), "0::/\n"), None);
        assert_eq!(limit(root.path(), "nonsense"), None);
    }

    #[test]
    fn groups_of_the_first_version_are_understood() {
        let root = tempfile::tempdir().unwrap();
        let all =
            [("memory.limit_in_bytes", "9223372036854771712"), ("memory.usage_in_bytes", "5")];
        group(&root.path().join("memory"), &all);
        let own = "9:name=systemd:/\n4:cpu,memory:/box/a\n0::/\n";
        assert_eq!(limit(root.path(), own), None);
        let few = [
            ("memory.limit_in_bytes", "4096"),
            ("memory.usage_in_bytes", "4000"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n"),
        ];
        group(&root.path().join("memory/box/a"), &few);
        let found = limit(root.path(), own);
        assert_eq!(found, Some(MemoryLimit { limit_bytes: 4096, used_bytes: 3000 }));
    }

    #[test]
    fn this_host_has_memory() {
        let memory = look();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
        assert!(limits().open_files.is_none_or(|files| files > 0));
    }
}
