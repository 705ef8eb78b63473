//! The processors of this rank, the launcher that started it, and the network cards of its host.
//!
//! Reads what the kernel and the environment say.

use super::memory::folders_of;
use crate::doctor::answer::{Answer, ask};
use crate::doctor::observation::Program;
use crate::error::{Context, Failure, Result};
use std::collections::BTreeSet;
use std::fs::{self, read_to_string};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long `mpirun --version` may take.
const LIMIT: Duration = Duration::from_secs(10);
/// More than any program says of its version.
const VERSION_BYTES: u64 = 1 << 16;
/// Where cards for InfiniBand and the like are.
const CARDS: &str = "/sys/class/infiniband";

/// The program that runs.
pub fn program() -> Program {
    let file = std::env::current_exe().and_then(fs::metadata);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Program { version, bytes: file.map_or(0, |file| file.len()) }
}

/// Processors that this process may run on, counted from 0.
pub fn allowed_processors() -> Vec<usize> {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    numbers(list.unwrap_or_default())
}

/// How many processors of this host the job has: what its control group or Slurm says, else all that are on.
pub fn granted_processors() -> usize {
    let all = numbers(&read_to_string("/sys/devices/system/cpu/online").unwrap_or_default());
    let own = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let told = std::env::var("SLURM_CPUS_ON_NODE").ok().and_then(|text| text.trim().parse().ok());
    let granted = [Some(all.len()), in_group(Path::new("/sys/fs/cgroup"), &own), told];
    granted.into_iter().flatten().filter(|&count| count > 0).min().unwrap_or(1)
}

/// How many processors a control group has, where it says so.
fn in_group(root: &Path, own: &str) -> Option<usize> {
    let of = |name: &str, file: &str| {
        let folder = folders_of(root, own, name).into_iter().next()?;
        Some(numbers(&read_to_string(folder.join(file)).ok()?).len())
    };
    let second = of("", "cpuset.cpus.effective");
    second.or_else(|| of("cpuset", "cpuset.effective_cpus")).filter(|&count| count > 0)
}

/// The numbers of a list as `0-3,8`.
fn numbers(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // No host has more.
        (last < 1 << 16).then_some(first..=last)
    };
    let found: BTreeSet<usize> = list.split(',').filter_map(range).flatten().collect();
    found.into_iter().collect()
}

/// Cards for InfiniBand and the like with a connected port.
pub fn fast_network() -> Vec<String> {
    connected(Path::new(CARDS))
}

fn connected(cards: &Path) -> Vec<String> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let is_active = |card: &Path| {
        let mut ports = entries(&card.join("ports"));
        ports.any(|port| {
            read_to_string(port.path().join("state")).is_ok_and(|state| state.contains("ACTIVE"))
        })
    };
    let found = entries(cards).filter(|card| is_active(&card.path()));
    let mut names: Vec<String> =
        found.map(|card| card.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What a launcher uses to introduce ranks to each other, by the variables that it sets; `is_set` knows these.
pub fn introduced_by(is_set: impl Fn(&str) -> bool) -> Option<String> {
    let known = [
        ("OMPI_COMM_WORLD_SIZE", "`mpirun` of Open MPI"),
        ("PMIX_NAMESPACE", "PMIx"),
        ("PMIX_RANK", "PMIx"),
        ("PMI_FD", "PMI"),
        ("PMI_PORT", "PMI"),
        ("PMI_RANK", "PMI"),
        ("SLURM_STEP_NUM_TASKS", "nobody, in a step of Slurm"),
    ];
    let found = known.iter().find(|(variable, _)| is_set(variable));
    found.map(|(_, name)| (*name).to_owned())
}

/// How the `mpirun` of this shell calls itself.
pub fn mpirun() -> Answer<String> {
    ask(|| {
        let missing = || "cannot start `mpirun`";
        let mut child = Command::new("mpirun")
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(missing)
            .map_err(load)?;
        let mut text = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(VERSION_BYTES).read_to_end(&mut text).context(missing)?;
        }
        child.wait().context(missing)?;
        version(&String::from_utf8_lossy(&text))
    })
    .within(LIMIT)
}

fn load(failure: Failure) -> Failure {
    failure.hint("load the MPI that scrimp was built with, for example `module load openmpi`")
}

/// The line of what a launcher prints that names it; of Hydra, MPICH's, with its version.
fn version(text: &str) -> Result<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().ok_or_else(|| Failure::new("`mpirun --version` says nothing"))?;
    let number = lines.find_map(|line| line.strip_prefix("Version:"));
    Ok(match number {
        Some(number) if first.starts_with("HYDRA") => format!("HYDRA {}", number.trim()),
        _ => first.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(numbers("0-2,8\n"), [0, 1, 2, 8]);
        assert_eq!(numbers("5"), [5]);
        assert!(numbers("").is_empty() && numbers("a-b").is_empty());
        assert!(numbers("0-99999999999").is_empty());
        let allowed = allowed_processors();
        assert!(!allowed.is_empty() && granted_processors() > 0, "{allowed:?}");
    }

    #[test]
    fn a_control_group_says_how_many_processors_it_has() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("job")).unwrap();
        fs::write(root.path().join("job/cpuset.cpus.effective"), "4-7\n").unwrap();
        assert_eq!(in_group(root.path(), "0::/job\n"), Some(4));
        fs::create_dir_all(root.path().join("cpuset/job")).unwrap();
        fs::write(root.path().join("cpuset/job/cpuset.effective_cpus"), "1,3\n").unwrap();
        assert_eq!(in_group(root.path(), "3:cpuset:/job\n0::/\n"), Some(2));
        assert_eq!(in_group(root.path(), ""), None);
    }

    #[test]
    fn cards_count_where_a_port_is_connected() {
        let root = tempfile::tempdir().unwrap();
        for (card, state) in [("mlx5_1", "4: ACTIVE\n"), ("mlx5_0", "1: DOWN\n")] {
            let port = root.path().join(card).join("ports/1");
            fs::create_dir_all(&port).unwrap();
            fs::write(port.join("state"), state).unwrap();
        }
        assert_eq!(connected(root.path()), ["mlx5_1"]);
        assert!(connected(Path::new("/no such folder")).is_empty());
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        let by = |set: &str| introduced_by(|name| name == set);
        assert_eq!(by("OMPI_COMM_WORLD_SIZE").as_deref(), Some("`mpirun` of Open MPI"));
        assert_eq!(by("PMIX_RANK").as_deref(), Some("PMIx"));
        assert_eq!(by("HOME"), None);
    }

    #[test]
    fn a_launcher_names_itself() {
        let open_mpi = "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org\n";
        assert_eq!(version(open_mpi).unwrap(), "mpirun (Open MPI) 4.1.4");
        let hydra = "HYDRA build details:\n    Version:                                 4.0.2\n";
        assert_eq!(version(hydra).unwrap(), "HYDRA 4.0.2");
        assert!(version("\n").is_err());
    }
}
