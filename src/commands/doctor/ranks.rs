//! The ranks that a launcher started, or one process where they cannot be joined: a doctor tells why, and does not fail.
//!
//! Asks MPI, libtorch and NCCL what they are. What that means is judged elsewhere.

#[cfg(not(feature = "torch"))]
pub(super) use alone::Ranks;
#[cfg(feature = "torch")]
pub(super) use joined::Ranks;

#[cfg(feature = "torch")]
mod joined {
    use crate::comm::{self, Communicator, Host, agree, with_device};
    use crate::commands::narrate::together;
    use crate::commands::run;
    use crate::config::DeviceChoice;
    use crate::doctor::answer::{Answer, ask};
    use crate::doctor::guard::Guard;
    use crate::doctor::look::{host, loaded};
    use crate::doctor::observation::{Libtorch, Mpi};
    use crate::error::{Exit, Failure, Result};
    use crate::launchers::{self, Variables};
    use crate::native::{cuda, nccl};
    use crate::panics;
    use std::time::{Duration, Instant};
    use tch::{Device, Kind, Tensor};

    /// How long libraries may take to load.
    const LOADS: Duration = Duration::from_mins(1);
    /// Elements of the tensor that is summed over the GPUs, 1 MiB.
    const SUMMED: i64 = 1 << 18;

    pub(in crate::commands::doctor) struct Ranks {
        attended: Attended,
        variables: Variables,
        /// Why this process is alone, although it was started with others.
        refusal: Option<Failure>,
    }

    /// Ranks that say that they have come before they exchange anything, so that a guard knows who has not.
    struct Attended {
        host: Host,
        guard: Guard,
    }

    impl Attended {
        fn assembled<T>(&self, exchange: impl FnOnce(&dyn Communicator) -> Result<T>) -> Result<T> {
            let others = if self.host.rank() == 0 { 1..self.host.ranks() } else { 0..1 };
            self.guard.wait_for(others);
            self.host.assemble(&mut |rank| self.guard.note_arrival(rank))?;
            self.guard.note_arrival(0);
            let outcome = exchange(&*self.host);
            self.guard.go_on();
            outcome
        }
    }

    impl Communicator for Attended {
        fn rank(&self) -> usize {
            self.host.rank()
        }

        fn ranks(&self) -> usize {
            self.host.ranks()
        }

        fn barrier(&self) -> Result<()> {
            self.assembled(|_| Ok(()))
        }

        fn max(&self, value: i64) -> Result<i64> {
            self.assembled(|ranks| ranks.max(value))
        }

        fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.assembled(|ranks| ranks.gather(message))
        }

        fn abort(&self, exit: Exit) -> ! {
            self.host.abort(exit)
        }
    }

    impl Ranks {
        /// Finds the other ranks; the guard watches over that already.
        pub(in crate::commands::doctor) fn join(guard: Guard) -> Self {
            let (host, variables, refusal) = match run::connect() {
                Ok((host, variables)) => (host, variables, None),
                Err(failure) => {
                    (Host::of(comm::Ranks::alone()), launchers::variables(), Some(failure))
                }
            };
            guard.introduce(host.rank(), &[]);
            guard.go_on();
            Self { attended: Attended { host, guard }, variables, refusal }
        }

        pub(in crate::commands::doctor) fn guard(&self) -> &Guard {
            &self.attended.guard
        }

        pub(in crate::commands::doctor) fn rank(&self) -> usize {
            self.attended.rank()
        }

        pub(in crate::commands::doctor) fn ranks(&self) -> usize {
            self.attended.ranks()
        }

        pub(in crate::commands::doctor) fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.attended.gather(message)
        }

        /// Whether this process is alone, although it was started with others, and is not the first of them.
        pub(in crate::commands::doctor) fn is_left_out(&self) -> bool {
            let number = launchers::number_of(&self.variables).filter(|_| self.refusal.is_some());
            number.is_some_and(|number| number > 0)
        }

        /// Does what all ranks do together; where one alone cannot go on, the others end with it.
        pub(in crate::commands::doctor) fn together<T>(
            &self,
            work: impl FnOnce() -> Result<T>,
        ) -> Result<T> {
            together(&self.attended, work)
        }

        pub(in crate::commands::doctor) fn mpi(&self) -> Mpi {
            let library = library();
            let by = host::introduced_by(|variable| self.variables.contains_key(variable));
            let is_alone = by.is_none() && self.refusal.is_none();
            Mpi {
                mpirun: (is_alone && library.is_some()).then(host::mpirun),
                library,
                introduced_by: by,
                ranks: self.ranks(),
                refusal: self.refusal.as_ref().map(Answer::refused),
            }
        }

        /// The libtorch that is loaded, with its CUDA half where there is one.
        pub(in crate::commands::doctor) fn libtorch() -> Option<Libtorch> {
            let gpus = ask(|| Ok(cuda::devices())).within(LOADS).got().copied();
            loaded::libtorch(gpus.unwrap_or(0))
        }

        /// The version of NCCL.
        pub(in crate::commands::doctor) fn nccl() -> Answer<String> {
            ask(|| nccl::Nccl::load()?.version()).within(LOADS)
        }

        /// Opens this rank's GPU and sums over those of all ranks; milliseconds of a sum. Every rank calls this.
        pub(in crate::commands::doctor) fn gpu_sum(&self, choice: DeviceChoice) -> Answer<f64> {
            panics::caught(|| {
                let (device, _) = run::own_device(choice, &self.attended, &self.variables)?;
                self.attended.assembled(|_| timed_sum(&self.attended.host, device))
            })
            .into()
        }
    }

    /// Milliseconds of a sum over all ranks, each on a device of its own.
    fn timed_sum(host: &Host, device: Device) -> Result<f64> {
        let ranks = with_device(host, device)?;
        let tensor = panics::caught(|| Ok(Tensor::ones([SUMMED], (Kind::Float, device))));
        let tensor = agree(&*ranks, tensor)?;
        let sum = || {
            ranks.tensors().sum(&tensor);
            if let Device::Cuda(index) = device {
                tch::Cuda::synchronize(index as i64);
            }
        };
        // The first one sets up what those after it use.
        sum();
        let start = Instant::now();
        sum();
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }

    #[cfg(feature = "mpi")]
    #[expect(clippy::unnecessary_wraps, reason = "without MPI there is none")]
    fn library() -> Option<String> {
        Some(comm::mpi::library())
    }

    #[cfg(not(feature = "mpi"))]
    fn library() -> Option<String> {
        None
    }
}

/// One process: without libtorch there is nothing to join others with.
#[cfg(not(feature = "torch"))]
mod alone {
    use crate::config::DeviceChoice;
    use crate::doctor::answer::Answer;
    use crate::doctor::guard::Guard;
    use crate::doctor::look::host;
    use crate::doctor::observation::{Libtorch, Mpi};
    use crate::error::{Failure, Result};
    use crate::launchers::{self, Variables};

    pub(in crate::commands::doctor) struct Ranks {
        guard: Guard,
        variables: Variables,
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as where there are ranks")]
    impl Ranks {
        pub(in crate::commands::doctor) fn join(guard: Guard) -> Self {
            guard.go_on();
            Self { guard, variables: launchers::variables() }
        }

        pub(in crate::commands::doctor) fn guard(&self) -> &Guard {
            &self.guard
        }

        pub(in crate::commands::doctor) fn rank(&self) -> usize {
            0
        }

        pub(in crate::commands::doctor) fn ranks(&self) -> usize {
            1
        }

        pub(in crate::commands::doctor) fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            Ok(vec![message.to_vec()])
        }

        pub(in crate::commands::doctor) fn is_left_out(&self) -> bool {
            launchers::number_of(&self.variables).is_some_and(|number| number > 0)
        }

        pub(in crate::commands::doctor) fn together<T>(
            &self,
            work: impl FnOnce() -> Result<T>,
        ) -> Result<T> {
            work()
        }

        pub(in crate::commands::doctor) fn mpi(&self) -> Mpi {
            let introduced_by = host::introduced_by(|name| self.variables.contains_key(name));
            Mpi { library: None, introduced_by, ranks: 1, refusal: None, mpirun: None }
        }

        pub(in crate::commands::doctor) fn libtorch() -> Option<Libtorch> {
            None
        }

        pub(in crate::commands::doctor) fn nccl() -> Answer<String> {
            Answer::refused(&Failure::new("this build has no libtorch"))
        }

        pub(in crate::commands::doctor) fn gpu_sum(&self, _choice: DeviceChoice) -> Answer<f64> {
            Answer::refused(&Failure::new("this build has no libtorch"))
        }
    }
}
