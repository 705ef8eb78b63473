//! The processes that share the work of one command: the ranks of a launcher, or one process alone.
//!
//! Knows nothing of the work.

#[cfg(not(feature = "torch"))]
pub(super) use alone::Crew;
#[cfg(feature = "torch")]
pub(super) use ranks::Crew;

#[cfg(feature = "torch")]
mod ranks {
    use crate::comm::{self, Host, Placement};
    use crate::commands::{narrate, run};
    use crate::error::{Failure, Result};
    use crate::launchers::Variables;

    pub(in crate::commands) struct Crew {
        comm: Host,
        variables: Variables,
    }

    impl Crew {
        pub(in crate::commands) fn join() -> Result<Self> {
            let (comm, variables) = run::connect()?;
            Ok(Self { comm, variables })
        }

        pub(in crate::commands) fn rank(&self) -> usize {
            self.comm.rank()
        }

        pub(in crate::commands) fn ranks(&self) -> usize {
            self.comm.ranks()
        }

        /// An equal share of the cores of this node; every rank calls this.
        pub(in crate::commands) fn threads(&self) -> Result<usize> {
            let placement = Placement::find(&*self.comm, &self.variables)?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok((cores / placement.ranks_on_node).max(1))
        }

        pub(in crate::commands) fn agree<T>(&self, result: Result<T>) -> Result<T> {
            comm::agree(&*self.comm, result)
        }

        pub(in crate::commands) fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.comm.gather(message)
        }

        pub(in crate::commands) fn tell(&self, failure: Failure) -> Failure {
            narrate::tell(failure, &*self.comm)
        }
    }
}

/// One process: without libtorch there is nothing to join others with.
#[cfg(not(feature = "torch"))]
mod alone {
    use crate::error::{Failure, Result};
    use crate::launchers::{self, Start};

    pub(in crate::commands) struct Crew;

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as where there are ranks")]
    impl Crew {
        /// Refuses several processes: each would do all of the work, and write the same file.
        pub(in crate::commands) fn join() -> Result<Self> {
            match launchers::start(&launchers::variables())? {
                Start::Launched(announced) if announced.contradicts_one_rank() => {
                    Err(launchers::unjoined())
                }
                Start::Launched(_) | Start::Alone => Ok(Self),
            }
        }

        pub(in crate::commands) fn rank(&self) -> usize {
            0
        }

        pub(in crate::commands) fn ranks(&self) -> usize {
            1
        }

        pub(in crate::commands) fn threads(&self) -> Result<usize> {
            Ok(std::thread::available_parallelism().map_or(1, usize::from))
        }

        pub(in crate::commands) fn agree<T>(&self, result: Result<T>) -> Result<T> {
            result
        }

        pub(in crate::commands) fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            Ok(vec![message.to_vec()])
        }

        pub(in crate::commands) fn tell(&self, failure: Failure) -> Failure {
            failure
        }
    }
}
