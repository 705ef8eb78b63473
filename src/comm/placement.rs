//! Where a rank stands on its node.

use crate::comm::Communicator;
use crate::error::{Context, Result};
use crate::launchers::Variables;

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
