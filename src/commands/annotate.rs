//! `scrimp prepare pseudo-labels` and `scrimp prepare scribbles`: a packed data set, annotated anew.
//!
//! Under a launcher ranks share the work, and rank 0 writes.

use super::crew::Crew;
use super::packing::{bar, claim_free, pack};
use crate::cli;
use crate::data::pseudo::{Labelling, RANDOM_WALKER, RANDOM_WALKER_PRESENT};
use crate::data::simulated::{Drawing, Simulation};
use crate::data::store;
use crate::data::{Dataset, SCRIBBLE};
use crate::error::{Exit, Failure, Result};
use std::path::Path;

/// Adds pseudo labels made of scribbles as the arguments say; every rank of a launcher calls this.
pub(super) fn pseudo_labels(arguments: &cli::PseudoLabels) -> Result<Exit> {
    let crew = Crew::join()?;
    let labelled = match &arguments.from {
        Some(from) => label(arguments, from, &crew),
        None => Err(Failure::usage("there is nothing to label").hint("name it with `--from FILE`")),
    };
    labelled.map_err(|failure| crew.tell(failure))
}

/// Draws scribbles as the arguments say; every rank of a launcher calls this.
pub(super) fn scribbles(arguments: &cli::Scribbles) -> Result<Exit> {
    let crew = Crew::join()?;
    draw(arguments, &crew).map_err(|failure| crew.tell(failure))
}

fn label(arguments: &cli::PseudoLabels, from: &Path, crew: &Crew) -> Result<Exit> {
    let kind = match arguments.absent {
        cli::Absent::Background => RANDOM_WALKER,
        cli::Absent::LeftOut => RANDOM_WALKER_PRESENT,
    };
    // Rank 0 writes, and knows before anybody reads whether it can.
    let to = if crew.rank() == 0 {
        claim_free(&arguments.to, arguments.json).map(Some)
    } else {
        Ok(None)
    };
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

fn draw(arguments: &cli::Scribbles, crew: &Crew) -> Result<Exit> {
    let simulation = crew.agree(simulation(arguments))?;
    // Rank 0 writes, and knows before anybody reads whether it can.
    let to = if crew.rank() == 0 {
        claim_free(&arguments.to, arguments.json).map(Some)
    } else {
        Ok(None)
    };
    let to = crew.agree(to)?;
    let mut dataset = crew.agree(store::read(&arguments.from))?;
    let place = (crew.rank(), crew.ranks());
    let count = crew.agree(simulation.share_size(&dataset, place))?;
    let bar = crew.agree(bar("drawing", count, "cases"))?;
    let note = || bar.inc(u64::from(crew.rank() == 0));
    let share = simulation.share(&dataset, place, crew.threads()?, &note);
    bar.finish_and_clear();
    let messages = crew.gather(&crew.agree(share)?)?;
    let Some(to) = to else {
        return crew.agree(Ok(Exit::Done));
    };
    let written = simulation.put(&mut dataset, &messages).and_then(|()| pack(dataset.into(), to));
    crew.agree(written)
}

/// What is to be drawn. Refuses what does not go together.
fn simulation(arguments: &cli::Scribbles) -> Result<Simulation> {
    let halvings = arguments.shorten;
    let drawing = match arguments.kind {
        cli::ScribbleKind::Walk => Drawing::Walk { halvings },
        cli::ScribbleKind::Existing if halvings == 0 && arguments.every == 1 => {
            return Err(Failure::usage("`--kind existing` alone leaves all scribbles as they are")
                .hint(
                    "halve them with `--shorten TIMES`, or keep some slices with `--every SLICES`",
                ));
        }
        cli::ScribbleKind::Existing => Drawing::Existing { halvings },
        cli::ScribbleKind::Points if halvings > 0 => {
            return Err(Failure::usage("`--shorten` halves strokes, and points are none")
                .hint("leave it out, or use `--kind walk`"));
        }
        cli::ScribbleKind::Points => Drawing::Points { count: usize::from(arguments.count) },
        cli::ScribbleKind::Scribblebench if halvings > 0 => {
            return Err(Failure::usage("`--kind scribblebench` draws strokes as long as published")
                .hint("leave `--shorten` out, or shorten the file that it writes: `--kind existing --shorten TIMES`"));
        }
        cli::ScribbleKind::Scribblebench => Drawing::Scribblebench,
    };
    Ok(Simulation { drawing, every: arguments.every as usize, seed: arguments.seed })
}
