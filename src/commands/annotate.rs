//! `scrimp prepare pseudo-labels` and `scrimp prepare scribbles`: a packed data set, annotated anew.
//!
//! Under a launcher ranks share the work, and rank 0 writes.

use super::prepare::{bar, pack};
use crate::cli;
use crate::data::pseudo::{Labelling, RANDOM_WALKER, RANDOM_WALKER_PRESENT};
use crate::data::simulated::{Drawing, Simulation};
use crate::data::store::{self, Destination, Existing};
use crate::data::{Dataset, SCRIBBLE};
use crate::error::{Exit, Failure, Result};
use crew::Crew;
use std::path::Path;

/// Adds pseudo labels as the arguments say; every rank of a launcher calls this.
pub(super) fn pseudo_labels(arguments: &cli::PseudoLabels) -> Result<Exit> {
    let crew = Crew::join()?;
    let labelled = match (&arguments.run, &arguments.from) {
        (Some(run), _) => crew.label_by_network(arguments, run),
        (None, Some(from)) => label(arguments, from, &crew),
        (None, None) => {
            Err(Failure::usage("there is nothing to label").hint("name it with `--from FILE`"))
        }
    };
    labelled.map_err(|failure| crew.tell(failure))
}

/// Draws scribbles as the arguments say; every rank of a launcher calls this.
pub(super) fn scribbles(arguments: &cli::Scribbles) -> Result<Exit> {
    let crew = Crew::join()?;
    let threads = crew.threads()?;
    let drawn = if crew.rank() == 0 { draw(arguments, threads) } else { Ok(Exit::Done) };
    crew.agree(drawn).map_err(|failure| crew.tell(failure))
}

fn label(arguments: &cli::PseudoLabels, from: &Path, crew: &Crew) -> Result<Exit> {
    let kind = match arguments.absent {
        cli::Absent::Background => RANDOM_WALKER,
        cli::Absent::LeftOut => RANDOM_WALKER_PRESENT,
    };
    // Rank 0 writes, and knows before anybody reads whether it can.
    let to = if crew.rank() == 0 { claim(&arguments.to).map(Some) } else { Ok(None) };
    let to = crew.agree(to)?;
    let (mut dataset, labelling) = crew.agree(plan(from, kind))?;
    let place = (crew.rank(), crew.ranks());
    let bar = crew.agree(bar("labelling", labelling.share_size(place.0, place.1), "slices"))?;
    let note = || bar.inc(u64::from(crew.rank() == 0));
    let threads = crew.threads()?;
    let share = labelling.share(&dataset, place, threads, &note);
    bar.finish_and_clear();
    let messages = crew.gather(&crew.agree(share)?)?;
    let Some(to) = to else {
        return crew.agree(Ok(Exit::Done));
    };
    let slices = match arguments.absent {
        cli::Absent::Background => "slices that lack a structure are background",
        cli::Absent::LeftOut => "classes without scribble are left out",
    };
    let line = format!("`{kind}` made of `{SCRIBBLE}` by a random walker; {slices}.");
    let written = labelling.put(&mut dataset, &messages).and_then(|()| {
        dataset.provenance = format!("{}\n{line}", dataset.provenance.trim_end());
        pack(dataset.into(), to)
    });
    crew.agree(written)
}

/// The data set, and what is to be done with it.
fn plan(from: &Path, kind: &str) -> Result<(Dataset, Labelling)> {
    let mut dataset = store::read(from)?;
    let drawn = |dataset: &Dataset| {
        dataset.cases.iter().any(|case| case.annotations.contains_key(SCRIBBLE))
    };
    if !drawn(&dataset) {
        return Err(Failure::usage(format!(
            "no case of `{}` has annotation `{SCRIBBLE}` to make labels of",
            from.display()
        ))
        .hint("draw some with `scrimp prepare scribbles`, or pack a data set that has them"));
    }
    for case in &mut dataset.cases {
        // Made anew: nobody knows which scribbles the old ones were made of.
        case.annotations.remove(kind);
    }
    let labelling = Labelling::of(&dataset, kind, None);
    let labelling = labelling.ok_or_else(|| Failure::new("there are no slices to label"))?;
    Ok((dataset, labelling))
}

fn draw(arguments: &cli::Scribbles, threads: usize) -> Result<Exit> {
    let drawing = match arguments.kind {
        cli::ScribbleKind::Walk => Drawing::Walk { halvings: arguments.shorten },
        cli::ScribbleKind::Points if arguments.shorten > 0 => {
            return Err(Failure::usage("`--shorten` halves strokes, and points are none")
                .hint("leave it out, or use `--kind walk`"));
        }
        cli::ScribbleKind::Points => Drawing::Points { count: usize::from(arguments.count) },
    };
    let to = claim(&arguments.to)?;
    let mut dataset = store::read(&arguments.from)?;
    let simulation = Simulation { drawing, every: arguments.every as usize, seed: arguments.seed };
    let bar = bar("drawing", dataset.cases.len(), "cases")?;
    simulation.annotate(&mut dataset, threads, &|| bar.inc(1))?;
    bar.finish_and_clear();
    pack(dataset.into(), to)
}

/// Takes a name that is free. What goes in is a packed file too, which the wrong way round would destroy.
pub(super) fn claim(to: &Path) -> Result<Destination> {
    Destination::claim(to, Existing::Refused)
}

/// The ranks that work together.
#[cfg(feature = "torch")]
mod crew {
    use crate::cli;
    use crate::comm::environment::{Placement, Variables};
    use crate::comm::{self, Host};
    use crate::commands::{narrate, network_labels, run};
    use crate::error::{Exit, Failure, Result};
    use std::path::Path;

    pub(super) struct Crew {
        comm: Host,
        variables: Variables,
    }

    impl Crew {
        pub(super) fn join() -> Result<Self> {
            let (comm, variables) = run::connect()?;
            Ok(Self { comm, variables })
        }

        pub(super) fn rank(&self) -> usize {
            self.comm.rank()
        }

        pub(super) fn ranks(&self) -> usize {
            self.comm.ranks()
        }

        /// An equal share of the cores of this node; every rank calls this.
        pub(super) fn threads(&self) -> Result<usize> {
            let placement = Placement::find(&*self.comm, &self.variables)?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok((cores / placement.ranks_on_node).max(1))
        }

        pub(super) fn agree<T>(&self, result: Result<T>) -> Result<T> {
            comm::agree(&*self.comm, result)
        }

        pub(super) fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.comm.gather(message)
        }

        pub(super) fn tell(&self, failure: Failure) -> Failure {
            narrate::tell(failure, &*self.comm)
        }

        pub(super) fn label_by_network(
            &self,
            arguments: &cli::PseudoLabels,
            run: &Path,
        ) -> Result<Exit> {
            network_labels::label(arguments, run, (&self.comm, &self.variables))
        }
    }
}

/// One process: without libtorch there is nothing to join others with.
#[cfg(not(feature = "torch"))]
mod crew {
    use crate::cli;
    use crate::error::{Exit, Failure, Result};
    use std::path::Path;

    pub(super) struct Crew;

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as where there are ranks")]
    impl Crew {
        pub(super) fn join() -> Result<Self> {
            Ok(Self)
        }

        pub(super) fn rank(&self) -> usize {
            0
        }

        pub(super) fn ranks(&self) -> usize {
            1
        }

        pub(super) fn threads(&self) -> Result<usize> {
            Ok(std::thread::available_parallelism().map_or(1, usize::from))
        }

        pub(super) fn agree<T>(&self, result: Result<T>) -> Result<T> {
            result
        }

        pub(super) fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
            Ok(vec![message.to_vec()])
        }

        pub(super) fn tell(&self, failure: Failure) -> Failure {
            failure
        }

        pub(super) fn label_by_network(&self, _: &cli::PseudoLabels, _: &Path) -> Result<Exit> {
            Err(Failure::usage(
                "built without the feature `torch`, so there is no network to label with",
            )
            .hint("run `cargo build --release`"))
        }
    }
}
