//! Network interfaces of this host that have lost their link, as when a cable is pulled.
//!
//! Asks the kernel, and sends nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// Where Linux lists network interfaces, with a file `operstate` for each.
const INTERFACES: &str = "/sys/class/net";

/// The interfaces that had a link when this was made.
#[derive(Debug, Clone)]
pub(super) struct Links {
    folder: PathBuf,
    at_first: BTreeSet<String>,
}

impl Links {
    /// Those of this host, now.
    pub(super) fn of_this_host() -> Self {
        Self::listed_in(PathBuf::from(INTERFACES))
    }

    fn listed_in(folder: PathBuf) -> Self {
        let empty = Self { folder, at_first: BTreeSet::new() };
        let at_first = empty.in_states(&["up"]);
        Self { at_first, ..empty }
    }

    /// The names of those that have none any more. One that is gone, as when a container ends, is not among them.
    pub(super) fn lost(&self) -> Vec<String> {
        let now = self.in_states(&["down", "lowerlayerdown", "dormant"]);
        self.at_first.intersection(&now).cloned().collect()
    }

    fn in_states(&self, states: &[&str]) -> BTreeSet<String> {
        let Ok(entries) = self.folder.read_dir() else { return BTreeSet::new() };
        let is_in = |folder: &PathBuf| {
            let state = std::fs::read_to_string(folder.join("operstate")).unwrap_or_default();
            states.contains(&state.trim())
        };
        let folders = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_in);
        let name = |folder: PathBuf| folder.file_name().map(|name| name.to_string_lossy().into());
        folders.filter_map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_a_link_and_has_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let is_in = |name: &str, state: &str| {
            let _ = std::fs::create_dir(folder.path().join(name));
            std::fs::write(folder.path().join(name).join("operstate"), format!("{state}\n"))
                .unwrap();
        };
        for (name, state) in [("eth0", "up"), ("eth1", "down"), ("ib0", "up"), ("lo", "unknown")] {
            is_in(name, state);
        }
        is_in("veth7", "up");
        let links = Links::listed_in(folder.path().to_owned());
        assert!(links.lost().is_empty());
        is_in("eth0", "lowerlayerdown");
        std::fs::remove_dir_all(folder.path().join("veth7")).unwrap();
        assert_eq!(links.lost(), ["eth0"]);
        is_in("eth0", "up");
        assert!(links.lost().is_empty());
        assert!(Links::listed_in(folder.path().join("none")).lost().is_empty());
    }
}
