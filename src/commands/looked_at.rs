//! `scrimp prepare gaze` and `scrimp prepare gaze-phantom`: from fixations to a packed data set.
//!
//! Under a launcher ranks share the levels of gaze, and rank 0 writes.

use super::crew::Crew;
use super::packing::{bar, claim, pack};
use crate::cli;
use crate::data::import::GazeFiles;
use crate::data::import::gaze::{self, GazeSet};
use crate::data::import::gaze_phantom::{self, GazePhantom};
use crate::error::{Exit, Result};

/// Packs pictures that somebody looked at; every rank of a launcher calls this.
pub(super) fn gaze(arguments: &cli::Gaze) -> Result<Exit> {
    let crew = Crew::join()?;
    packed(arguments, &crew).map_err(|failure| crew.tell(failure))
}

fn packed(arguments: &cli::Gaze, crew: &Crew) -> Result<Exit> {
    // Rank 0 writes, and knows before anybody reads whether it can.
    let to = if crew.rank() == 0 { claim(&arguments.packed).map(Some) } else { Ok(None) };
    let to = crew.agree(to)?;
    let looked = crew.agree(gaze::open(&set(arguments)))?;
    let place = (crew.rank(), crew.ranks());
    let bar = crew.agree(bar("refining", looked.share_size(place.0, place.1), "pictures"))?;
    let threads = crew.threads()?;
    let share = looked.share(place, threads, &|| bar.inc(u64::from(crew.rank() == 0)));
    bar.finish_and_clear();
    let messages = crew.gather(&crew.agree(share)?)?;
    let written = match to {
        Some(to) => looked.into_source(&messages).and_then(|source| pack(source, to)),
        None => Ok(Exit::Done),
    };
    crew.agree(written)
}

fn set(arguments: &cli::Gaze) -> GazeSet {
    let lists = arguments.train.clone().zip(arguments.test.clone());
    GazeSet {
        files: GazeFiles {
            images: arguments.images.clone(),
            masks: arguments.masks.clone(),
            fixations: arguments.fixations.clone(),
            lists: lists.map(|(train, test)| [train, test]),
            patients: arguments.patients.clone(),
            seed: arguments.seed,
        },
        size: arguments.size,
        deviation: arguments.sigma,
        levels: arguments.levels.clone(),
        class: arguments.class.clone(),
    }
}

/// Packs synthetic pictures; every rank of a launcher calls this.
pub(super) fn phantom(arguments: &cli::GazePhantom) -> Result<Exit> {
    let crew = Crew::join()?;
    let threads = crew.threads()?;
    let drawn = if crew.rank() == 0 { drawn(arguments, threads) } else { Ok(Exit::Done) };
    crew.agree(drawn).map_err(|failure| crew.tell(failure))
}

fn drawn(arguments: &cli::GazePhantom, threads: usize) -> Result<Exit> {
    let cli::GazePhantom { cases, validation, test, size, seed, .. } = *arguments;
    let to = claim(&arguments.packed)?;
    let mut levels = arguments.levels.clone();
    levels.sort_by(f64::total_cmp);
    let phantom = GazePhantom { cases, validation, test, size, levels, seed };
    pack(gaze_phantom::open(&phantom, threads)?, to)
}
