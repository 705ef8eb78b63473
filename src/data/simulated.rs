//! Scribbles or points of a whole data set, drawn by a program from its dense labels, or made of those that are there.
//!
//! What is drawn in a slice is a function of seed, case, class and slice; never of the number of
//! threads or ranks. Ranks come as two numbers; what a rank has drawn is a message that others can take over. How
//! strokes and points are drawn stands in `scribbles`.

use super::pseudo::{
    EXPANDED, NETWORK, RANDOM_WALKER, RANDOM_WALKER_PRESENT, decode, encode, in_parallel,
};
use super::{Case, DENSE, Dataset, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::random::Key;
use crate::scribbles::{UNLABELLED, points, scribble, scribblebench, shorten};
use crate::shares::local_share;

/// What to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    /// A stroke in each structure and the skeleton of the background, halved so many times.
    Walk {
        /// How often scribbles are halved.
        halvings: u32,
    },
    /// Single pixels.
    Points {
        /// How many of each class and slice, the background included, at most.
        count: usize,
    },
    /// A stroke inside of one component of each class, the background included, and one along its edge.
    Scribblebench,
    /// Nothing new: the scribbles that are there, halved so many times.
    Existing {
        /// How often scribbles are halved.
        halvings: u32,
    },
}

impl Drawing {
    /// The kind of annotation that is drawn from.
    fn source(self) -> &'static str {
        match self {
            Self::Walk { .. } | Self::Points { .. } | Self::Scribblebench => DENSE,
            Self::Existing { .. } => SCRIBBLE,
        }
    }

    /// How often scribbles are halved.
    fn halvings(self) -> u32 {
        match self {
            Self::Walk { halvings } | Self::Existing { halvings } => halvings,
            Self::Points { .. } | Self::Scribblebench => 0,
        }
    }
}

/// How a data set is annotated anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simulation {
    /// What to draw.
    pub drawing: Drawing,
    /// Of every so many slices the first is drawn on, at least 1; the others stay unlabelled.
    pub every: usize,
    /// Equal seeds give equal scribbles.
    pub seed: u64,
}

impl Simulation {
    /// Replaces the scribbles of every case by ones drawn from its dense labels, or shortens those that are there,
    /// with `threads` threads, as [`Simulation::share`] and [`Simulation::put`] do.
    pub fn annotate(&self, dataset: &mut Dataset, threads: usize, note: &dyn Fn()) -> Result<()> {
        let drawn = self.share(dataset, (0, 1), threads, note)?;
        self.put(dataset, &[drawn])
    }

    /// How many cases `rank` of `ranks` draws on. Refuses what [`Simulation::share`] does.
    pub fn share_size(&self, dataset: &Dataset, (rank, ranks): (usize, usize)) -> Result<usize> {
        Ok(local_share(self.cases(dataset)?.len(), ranks, rank).len())
    }

    /// Draws on the part of the cases that belongs to `rank` of `ranks` with `threads` threads, and returns what it has
    /// drawn for [`Simulation::put`]. Calls `note` after each case, on the thread that asks. Where some cases have
    /// scribbles, those without any are there to be scored, and not drawn on. Refuses a case without dense labels to
    /// draw from, and a data set without scribbles to shorten.
    pub fn share(
        &self,
        dataset: &Dataset,
        (rank, ranks): (usize, usize),
        threads: usize,
        note: &dyn Fn(),
    ) -> Result<Vec<u8>> {
        let cases = self.cases(dataset)?;
        let own = &cases[local_share(cases.len(), ranks, rank)];
        let class_count = dataset.classes.len();
        let draw = |index: usize| {
            let mut message = Vec::new();
            encode(&self.draw(&dataset.cases[own[index]], class_count), &mut message);
            message
        };
        Ok(in_parallel(own.len(), threads, &draw, note)?.concat())
    }

    /// Puts what all ranks have drawn, in rank order, into `dataset`, in place of the scribbles that were there.
    /// Annotations that were made from these go.
    pub fn put(&self, dataset: &mut Dataset, messages: &[Vec<u8>]) -> Result<()> {
        let mut runs = messages.iter().flatten().copied();
        for index in self.cases(dataset)? {
            let case = &mut dataset.cases[index];
            let mut labels = vec![UNLABELLED; case.scan.grid.shape.iter().product()];
            decode(&mut runs, &mut labels).ok_or_else(|| {
                Failure::new(format!("the scribbles of case `{}` came incomplete", case.name))
                    .hint("run the same command again; on one process nothing has to be sent")
            })?;
            for derived in [RANDOM_WALKER, RANDOM_WALKER_PRESENT, NETWORK, EXPANDED] {
                case.annotations.remove(derived);
            }
            case.annotations.insert(SCRIBBLE.to_owned(), labels);
        }
        dataset.provenance = format!("{}\n{}", dataset.provenance.trim_end(), self.describe());
        Ok(())
    }

    /// Which cases are drawn on, by index: all, or where some have scribbles these alone, because the others are there to
    /// be scored. Refuses a case without dense labels to draw from, and a data set without scribbles to shorten.
    fn cases(&self, dataset: &Dataset) -> Result<Vec<usize>> {
        self.refuse_sourceless(dataset)?;
        let (cases, source) = (&dataset.cases, self.drawing.source());
        let has = |case: &Case, kind: &str| case.annotations.contains_key(kind);
        let is_scribbled = cases.iter().any(|case| has(case, SCRIBBLE));
        let is_scored = |case: &Case| is_scribbled && !has(case, SCRIBBLE);
        let is_drawn = |index: &usize| has(&cases[*index], source) && !is_scored(&cases[*index]);
        Ok((0..cases.len()).filter(is_drawn).collect())
    }

    /// A case with scribbles drawn from its dense labels, instead of those that it has.
    pub(super) fn annotated(self, mut case: Case, class_count: usize) -> Case {
        let drawn = self.draw(&case, class_count);
        case.annotations.insert(SCRIBBLE.to_owned(), drawn);
        case
    }

    fn refuse_sourceless(&self, dataset: &Dataset) -> Result<()> {
        let (source, name) = (self.drawing.source(), &dataset.name);
        let lacks = |case: &&Case| !case.annotations.contains_key(source);
        if source == SCRIBBLE {
            if dataset.cases.iter().all(|case| lacks(&case)) {
                let message = format!("no case of `{name}` has annotation `{source}` to shorten");
                return Err(Failure::usage(message)
                    .hint("leave `--kind existing` out to draw scribbles from dense labels"));
            }
            return Ok(());
        }
        let Some(case) = dataset.cases.iter().find(lacks) else { return Ok(()) };
        let case = &case.name;
        Err(Failure::usage(format!(
            "case `{case}` of `{name}` has no `{source}` labels to draw scribbles from"
        ))
        .hint("pack a data set in which every case has dense labels"))
    }

    /// The scribbles of one case, all slices.
    fn draw(&self, case: &Case, class_count: usize) -> Vec<u8> {
        let [slices, rows, columns] = case.scan.grid.shape;
        let mut drawn = vec![UNLABELLED; slices * rows * columns];
        let marks = drawn.chunks_exact_mut((rows * columns).max(1)).enumerate();
        for (slice, out) in marks.step_by(self.every.max(1)) {
            let labels = case.annotation_slice(self.drawing.source(), slice).unwrap_or_default();
            if let Drawing::Existing { .. } = self.drawing {
                out.copy_from_slice(labels);
            }
            for class in 0..class_count.min(usize::from(UNLABELLED)) as u8 {
                let key = Key::new(self.seed).purpose("scribbles").purpose(&case.name);
                let mut draws = key.number(u64::from(class)).number(slice as u64).draws();
                match self.drawing {
                    Drawing::Walk { .. } => {
                        scribble(labels, columns, (class, class_count), &mut draws, out);
                    }
                    Drawing::Points { count } => {
                        points(labels, columns, (class, count), &mut draws, out);
                    }
                    Drawing::Scribblebench => {
                        scribblebench(labels, columns, class, &mut draws, out);
                    }
                    Drawing::Existing { .. } => {}
                }
            }
            (0..self.drawing.halvings()).for_each(|_| shorten(out, columns, class_count));
        }
        drawn
    }

    /// One sentence for the provenance of the data set.
    pub(super) fn describe(&self) -> String {
        let slices = match self.every {
            0 | 1 => "on every slice".to_owned(),
            every => format!("on one slice of every {every}"),
        };
        let drawing = match self.drawing {
            Drawing::Walk { halvings: 0 } => "Scribbles drawn".to_owned(),
            Drawing::Walk { halvings } => format!("Scribbles, halved {halvings} times, drawn"),
            Drawing::Points { count } => format!("Up to {count} points of each class drawn"),
            Drawing::Scribblebench => "Scribbles by the recipe of ScribbleBench drawn".to_owned(),
            Drawing::Existing { halvings } => {
                return format!("Scribbles halved {halvings} times by a program, kept {slices}.");
            }
        };
        format!("{drawing} by a program from the dense labels {slices}, seed {}.", self.seed)
    }
}
