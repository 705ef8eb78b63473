//! The slots of a farm: what the farm file says, else what the allocation or the machine has.
//!
//! Takes the environment as a function, so that nothing of this machine is read here.

use super::allocation::{hosts_of_pbs, hosts_of_slurm, per_node};
use super::file::SlotsSection;
use super::nodes::{FarmNode, Seats};
use crate::error::{Failure, Result};
use crate::runlog::farm::{JobHost, Slots};

/// What the system says of this machine.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// The value of an environment variable, where it is set.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Processors that this process may use.
    pub processors: usize,
    /// GPUs of the machine, whoever may use them.
    pub gpus: usize,
    /// The file that `PBS_NODEFILE` names, which has a line for each process.
    pub pbs_nodes: Option<&'a str>,
}

/// The nodes of a farm, and what `CUDA_VISIBLE_DEVICES` calls the GPUs of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What jobs share; the first node is that of the farm itself.
    pub nodes: Vec<FarmNode>,
    /// The names of the GPUs that this process may use, which may be fewer than the farm file says. Those of the
    /// other nodes have the same.
    pub gpu_names: Vec<String>,
}

impl Room {
    /// Slots of the fullest node on which a job sits: with so many processes it shares the processors.
    pub fn processes_beside(&self, seats: &Seats) -> usize {
        let has = |node: &&FarmNode| {
            let is_there = |host: &JobHost| Some(&host.host) == node.host.as_ref();
            seats.hosts.is_empty() || seats.hosts.iter().any(is_there)
        };
        self.nodes.iter().filter(has).map(|node| node.processes).max().unwrap_or(1).max(1)
    }
}

impl Machine<'_> {
    /// The nodes where the farm file says `written`, which is sound.
    pub fn room(&self, written: &SlotsSection) -> Result<Room> {
        let gpu_names = self.visible();
        let gpus = gpu_names.len();
        let hosts = match written.hosts() {
            hosts if hosts.is_empty() => self.hosts()?,
            hosts => hosts,
        };
        let named = |JobHost { host, processes }| FarmNode { host: Some(host), processes, gpus };
        let mut nodes: Vec<FarmNode> = hosts.into_iter().map(named).collect();
        if nodes.is_empty() {
            nodes.push(FarmNode::alone(Slots { processes: self.processes(), gpus }));
        }
        let count = nodes.len();
        for (number, node) in nodes.iter_mut().enumerate() {
            let its_part = |total: usize| total / count + usize::from(number < total % count);
            node.processes = written.processes.map_or(node.processes, its_part);
            node.gpus = written.gpus.map_or(node.gpus, its_part);
        }
        Ok(Room { nodes, gpu_names })
    }

    /// The value of a variable of the Slurm job that this is in.
    fn slurm(&self, name: &str) -> Option<String> {
        (self.variable)("SLURM_JOB_ID").and_then(|_| (self.variable)(name))
    }

    /// The nodes of the allocation, where it has several.
    fn hosts(&self) -> Result<Vec<JobHost>> {
        let hosts = match (self.slurm("SLURM_JOB_NODELIST"), self.pbs_nodes) {
            (Some(list), _) => self.slurm_hosts(&list)?,
            (None, Some(text)) => hosts_of_pbs(text),
            (None, None) => Vec::new(),
        };
        Ok(if hosts.len() > 1 { hosts } else { Vec::new() })
    }

    /// The nodes of a Slurm job with the tasks that were asked for on each, else with its processors.
    fn slurm_hosts(&self, list: &str) -> Result<Vec<JobHost>> {
        let refuse = |name: &str, text: &str| {
            Failure::new(format!("`{name}` is `{text}`, which is nothing that Slurm writes there"))
                .hint(
                    "name the nodes in the farm file: `hosts = [\"HOST:PROCESSES\"]` in `[slots]`",
                )
        };
        let hosts = hosts_of_slurm(list).ok_or_else(|| refuse("SLURM_JOB_NODELIST", list))?;
        let asked = ["SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"].map(|name| self.slurm(name));
        let has_asked = asked.iter().any(Option::is_some);
        let name = if has_asked { "SLURM_TASKS_PER_NODE" } else { "SLURM_JOB_CPUS_PER_NODE" };
        let counts = match self.slurm(name) {
            Some(text) => per_node(&text).ok_or_else(|| refuse(name, &text))?,
            None => vec![self.processors; hosts.len()],
        };
        // A step sees its own tasks beside all nodes of its job, and has this machine.
        if counts.len() != hosts.len() {
            return Ok(Vec::new());
        }
        let pairs = hosts.into_iter().zip(counts);
        Ok(pairs.map(|(host, processes)| JobHost { host, processes }).collect())
    }

    /// Tasks of the Slurm job or the slots of the PBS job that this is in, else processors.
    fn processes(&self) -> usize {
        let slurm = self.slurm("SLURM_NTASKS").and_then(|text| text.trim().parse().ok());
        let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
        slurm.or(self.pbs_nodes.map(lines)).unwrap_or(self.processors).max(1)
    }

    /// The GPUs that this process may use, as CUDA names them.
    fn visible(&self) -> Vec<String> {
        if let Some(list) = (self.variable)("CUDA_VISIBLE_DEVICES") {
            let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
            return names.map(str::to_owned).collect();
        }
        let of_slurm = self.slurm("SLURM_GPUS_ON_NODE").and_then(|text| text.trim().parse().ok());
        let count = of_slurm.map_or(self.gpus, |count: usize| count.min(self.gpus));
        (0..count).map(|number| number.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `HOST processes gpus` of each node, and the names of the GPUs.
    fn room(
        variables: &[(&str, &str)],
        pbs_nodes: Option<&str>,
        written: &SlotsSection,
    ) -> Result<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let machine = Machine { variable: &variable, processors: 8, gpus: 2, pbs_nodes };
        let Room { nodes, gpu_names } = machine.room(written)?;
        let node = |FarmNode { host, processes, gpus }: &FarmNode| {
            format!("{} {processes} {gpus}", host.as_deref().unwrap_or("here"))
        };
        let nodes: Vec<String> = nodes.iter().map(node).collect();
        Ok(format!("{}: {}", nodes.join(", "), gpu_names.join(" ")))
    }

    fn written(processes: Option<usize>, gpus: Option<usize>, hosts: &[&str]) -> SlotsSection {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        SlotsSection { processes, gpus, hosts }
    }

    #[test]
    fn slots_are_those_of_the_file_the_allocation_or_the_machine() {
        let nothing = SlotsSection::default();
        let room = |variables: &[(&str, &str)], pbs, written: &SlotsSection| {
            room(variables, pbs, written).unwrap()
        };
        assert_eq!(room(&[], None, &nothing), "here 8 2: 0 1");
        let slurm =
            [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "3"), ("CUDA_VISIBLE_DEVICES", "2, GPU-5f")];
        assert_eq!(room(&slurm, None, &nothing), "here 3 2: 2 GPU-5f");
        // Of a job that this is not in.
        let other = [("SLURM_NTASKS", "3"), ("CUDA_VISIBLE_DEVICES", "")];
        assert_eq!(room(&other, None, &nothing), "here 8 0: ");
        assert_eq!(room(&slurm, None, &written(Some(5), Some(3), &[])), "here 5 3: 2 GPU-5f");
        assert_eq!(room(&[], Some("n1\nn1\nn1\n"), &nothing), "here 3 2: 0 1");
        assert_eq!(room(&[], Some("n1\nn2\nn1\n"), &nothing), "n1 2 2, n2 1 2: 0 1");
        let hosts = written(None, None, &["a:4", "10.0.0.2:2"]);
        assert_eq!(room(&slurm, None, &hosts), "a 4 2, 10.0.0.2 2 2: 2 GPU-5f");
        assert_eq!(room(&[], None, &written(None, Some(3), &["a:4", "b:2"])), "a 4 2, b 2 1: 0 1");
        assert_eq!(room(&[], None, &written(None, None, &["a:4"])), "a 4 2: 0 1");
    }

    #[test]
    fn an_allocation_of_several_nodes_has_slots_on_each() {
        let nothing = SlotsSection::default();
        let job = [("SLURM_JOB_ID", "7"), ("SLURM_JOB_NODELIST", "n[1-3]")];
        let with = |more: &[(&str, &str)]| room(&[&job[..], more].concat(), None, &nothing);
        for (more, expected) in [
            (
                &[("SLURM_NTASKS", "11"), ("SLURM_TASKS_PER_NODE", "4(x2),3")][..],
                "n1 4 2, n2 4 2, n3 3 2: 0 1",
            ),
            (
                &[("SLURM_TASKS_PER_NODE", "1(x3)"), ("SLURM_JOB_CPUS_PER_NODE", "16(x3)")],
                "n1 16 2, n2 16 2, n3 16 2: 0 1",
            ),
            (&[("SLURM_GPUS_ON_NODE", "1")], "n1 8 1, n2 8 1, n3 8 1: 0"),
            // A step of one task.
            (&[("SLURM_NTASKS", "1"), ("SLURM_TASKS_PER_NODE", "1")], "here 1 2: 0 1"),
        ] {
            assert_eq!(with(more).unwrap(), expected);
        }
        let all = [&job[..], &[("SLURM_NTASKS", "3"), ("SLURM_TASKS_PER_NODE", "1(x3)")]].concat();
        let shared = room(&all, None, &written(Some(7), Some(4), &[])).unwrap();
        assert_eq!(shared, "n1 3 2, n2 2 1, n3 2 1: 0 1");
        insta::assert_snapshot!(with(&[("SLURM_JOB_CPUS_PER_NODE", "many")]).unwrap_err(), @r#"
        error: `SLURM_JOB_CPUS_PER_NODE` is `many`, which is nothing that Slurm writes there

        hint: name the nodes in the farm file: `hosts = ["HOST:PROCESSES"]` in `[slots]`
        "#);
    }

    #[test]
    fn processors_are_shared_with_the_slots_of_the_node() {
        let variable = |_: &str| None;
        let machine = Machine { variable: &variable, processors: 8, gpus: 0, pbs_nodes: None };
        let room = machine.room(&written(None, None, &["a:4", "b:2", "c:1"])).unwrap();
        let beside = |hosts: &[&str]| {
            let host = |host: &&str| JobHost { host: (*host).to_owned(), processes: 1 };
            let hosts = hosts.iter().map(host).collect();
            room.processes_beside(&Seats { hosts, gpus: Vec::new() })
        };
        assert_eq!([beside(&["b"]), beside(&["c", "b"]), beside(&["a"])], [2, 2, 4]);
    }
}
