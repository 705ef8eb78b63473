//! Scribbles or points of a whole data set, drawn by a program from its dense labels.
//!
//! What is drawn in a slice is a function of seed, case, class and slice; never of the number of
//! threads. How strokes and points are drawn stands in `scribbles`.

use super::pseudo::{RANDOM_WALKER, RANDOM_WALKER_PRESENT, in_parallel};
use super::{Case, DENSE, Dataset, SCRIBBLE};
use crate::error::{Failure, Result};
use crate::random::Key;
use crate::scribbles::{UNLABELLED, points, scribble, shorten};

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
    /// Replaces the scribbles of every case by ones drawn from its dense labels, with `threads`
    /// threads. Annotations that were made from the old scribbles go. Refuses a case without dense
    /// labels.
    pub fn annotate(&self, dataset: &mut Dataset, threads: usize, note: &dyn Fn()) -> Result<()> {
        if let Some(case) = dataset.cases.iter().find(|case| !case.annotations.contains_key(DENSE))
        {
            return Err(Failure::usage(format!(
                "case `{}` of `{}` has no `{DENSE}` labels to draw scribbles from",
                case.name, dataset.name
            ))
            .hint("pack a data set in which every case has dense labels"));
        }
        let (cases, class_count) = (&dataset.cases, dataset.classes.len());
        let draw = |index: usize| self.draw(&cases[index], class_count);
        let drawn = in_parallel(cases.len(), threads, &draw, note)?;
        for (case, labels) in dataset.cases.iter_mut().zip(drawn) {
            for derived in [RANDOM_WALKER, RANDOM_WALKER_PRESENT] {
                case.annotations.remove(derived);
            }
            case.annotations.insert(SCRIBBLE.to_owned(), labels);
        }
        dataset.provenance = format!("{}\n{}", dataset.provenance.trim_end(), self.describe());
        Ok(())
    }

    /// A case with scribbles drawn from its dense labels, instead of those that it has.
    pub(super) fn annotated(self, mut case: Case, class_count: usize) -> Case {
        let drawn = self.draw(&case, class_count);
        case.annotations.insert(SCRIBBLE.to_owned(), drawn);
        case
    }

    /// The scribbles of one case, all slices.
    fn draw(&self, case: &Case, class_count: usize) -> Vec<u8> {
        let mut drawn = vec![UNLABELLED; case.scan.grid.shape.iter().product()];
        let (columns, pixels) =
            (case.scan.grid.shape[2], case.scan.grid.shape[1] * case.scan.grid.shape[2]);
        for slice in (0..case.scan.grid.shape[0]).step_by(self.every.max(1)) {
            let labels = case.annotation_slice(DENSE, slice).unwrap_or_default();
            let out = &mut drawn[slice * pixels..][..pixels];
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
                }
            }
            if let Drawing::Walk { halvings } = self.drawing {
                (0..halvings).for_each(|_| shorten(out, columns, class_count));
            }
        }
        drawn
    }

    /// One sentence for the provenance of the data set.
    pub(super) fn describe(self) -> String {
        let drawing = match self.drawing {
            Drawing::Walk { halvings: 0 } => "Scribbles drawn".to_owned(),
            Drawing::Walk { halvings } => format!("Scribbles, halved {halvings} times, drawn"),
            Drawing::Points { count } => format!("Up to {count} points of each class drawn"),
        };
        let slices = match self.every {
            0 | 1 => "on every slice".to_owned(),
            every => format!("on one slice of every {every}"),
        };
        format!("{drawing} by a program from the dense labels {slices}, seed {}.", self.seed)
    }
}
