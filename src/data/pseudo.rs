//! Random-walker labels of the slices of a data set, made by ranks and threads together.
//!
//! Labels of a slice depend on the slice alone, so that they are the same on any number of ranks and
//! threads. Ranks come as two numbers; what a rank has made is a message that others can take over.

use super::{Case, Dataset, SCRIBBLE};
use crate::error::{Context, Failure, Result};
use crate::pseudo_labels::{Absent, Scribbled};
use crate::shares::local_share;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

/// The kind of annotation that a random walker makes of [`SCRIBBLE`]; a slice whose scribble lacks a
/// structure is background, as in the published runs.
pub const RANDOM_WALKER: &str = "random_walker";

/// The same, but where a structure has no scribble the walk goes between the others.
pub const RANDOM_WALKER_PRESENT: &str = "random_walker_present";

/// The kind of annotation that the network of a run predicts.
pub const NETWORK: &str = "network";

/// The kind of annotation that is what networks of runs are sure of.
pub const EXPANDED: &str = "expanded";

/// How a kind of annotation comes about, if a random walker makes it.
pub fn rule(kind: &str) -> Option<Absent> {
    match kind {
        RANDOM_WALKER => Some(Absent::AllBackground),
        RANDOM_WALKER_PRESENT => Some(Absent::LeftOut),
        _ => None,
    }
}

/// The slices that are to be labelled, and how.
#[derive(Debug)]
pub struct Labelling {
    kind: String,
    absent: Absent,
    /// Index of the case and slice.
    slices: Vec<(usize, usize)>,
}

impl Labelling {
    /// What is to be done so that the cases of `dataset` which have scribbles and are not of `fold`
    /// have annotation `kind`; none where no random walker makes it, or where all have it already.
    pub fn of(dataset: &Dataset, kind: &str, fold: Option<u32>) -> Option<Self> {
        let absent = rule(kind)?;
        let lacks = |case: &Case| {
            let annotations = &case.annotations;
            annotations.contains_key(SCRIBBLE) && !annotations.contains_key(kind)
        };
        let cases = dataset.cases.iter().enumerate();
        let cases = cases.filter(|(_, case)| lacks(case) && Some(case.fold) != fold);
        let slices: Vec<_> = cases
            .flat_map(|(index, case)| (0..case.scan.grid.shape[0]).map(move |slice| (index, slice)))
            .collect();
        (!slices.is_empty()).then(|| Self { kind: kind.to_owned(), absent, slices })
    }

    /// How many slices `rank` of `ranks` labels.
    pub fn share_size(&self, rank: usize, ranks: usize) -> usize {
        local_share(self.slices.len(), ranks, rank).len()
    }

    /// Labels this rank's slices with `threads` threads, and returns the labels for
    /// [`Labelling::put`]. Calls `note` after each slice, on the thread that asks.
    pub fn share(
        &self,
        dataset: &Dataset,
        (rank, ranks): (usize, usize),
        threads: usize,
        note: &dyn Fn(),
    ) -> Result<Vec<u8>> {
        let mine = &self.slices[local_share(self.slices.len(), ranks, rank)];
        let label = |index: usize| self.label(dataset, mine[index]);
        let labels = in_parallel(mine.len(), threads, &label, note)?;
        let mut message = Vec::new();
        for labels in labels {
            encode(&labels?, &mut message);
        }
        Ok(message)
    }

    /// What a slice is background without: a scribble of each structure that was looked for.
    fn absent(&self, case: &Case, scribble: &[u8]) -> Absent {
        let mut structures = case.classes_annotated.iter().skip(1);
        let shows_all = structures.all(|structure| scribble.contains(structure));
        if case.classes_annotated.is_empty() || !shows_all { self.absent } else { Absent::LeftOut }
    }

    fn label(&self, dataset: &Dataset, (case, slice): (usize, usize)) -> Result<Vec<u8>> {
        let case = &dataset.cases[case];
        if case.scan.channels != 1 {
            return Err(Failure::new(format!(
                "case `{}` is in colour, but a random walker compares grey values",
                case.name
            ))
            .hint("pack the images in grey, or learn from the scribbles themselves"));
        }
        let scribble = case.annotation_slice(SCRIBBLE, slice).unwrap_or_default();
        let scribbled = Scribbled {
            columns: case.scan.grid.shape[2],
            image: case.scan.slice(slice),
            scribble,
            classes: dataset.classes.len(),
        };
        scribbled.random_walker(self.absent(case, scribble)).map_err(|failure| {
            failure.during(format!("cannot label slice {slice} of case `{}`", case.name))
        })
    }

    /// Puts the labels that all ranks have made, in rank order, into `dataset`.
    pub fn put(&self, dataset: &mut Dataset, messages: &[Vec<u8>]) -> Result<()> {
        let mut runs = messages.iter().flatten().copied();
        for &(index, slice) in &self.slices {
            let case = &mut dataset.cases[index];
            let pixels = case.scan.grid.shape[1] * case.scan.grid.shape[2];
            let volume = case.annotations.entry(self.kind.clone()).or_default();
            volume.resize((slice + 1) * pixels, 0);
            decode(&mut runs, &mut volume[slice * pixels..]).ok_or_else(|| {
                Failure::new(format!("the labels of case `{}` came incomplete", case.name))
                    .hint("run the same command again; on one process nothing has to be sent")
            })?;
        }
        Ok(())
    }
}

/// Longest run of equal labels that is written as one.
const LONGEST_RUN: usize = u16::MAX as usize;

/// Appends `labels` as runs: a label, and how often it comes as two bytes, the lower one first.
pub(super) fn encode(labels: &[u8], message: &mut Vec<u8>) {
    for equal in labels.chunk_by(|one, other| one == other) {
        for run in equal.chunks(LONGEST_RUN) {
            message.push(run[0]);
            message.extend((run.len() as u16).to_le_bytes());
        }
    }
}

/// Fills `labels` from runs; `None` where these end too early or do not end with it.
pub(super) fn decode(bytes: &mut impl Iterator<Item = u8>, labels: &mut [u8]) -> Option<()> {
    let mut left = labels;
    while !left.is_empty() {
        let label = bytes.next()?;
        let length = u16::from_le_bytes([bytes.next()?, bytes.next()?]);
        let (run, rest) = left.split_at_mut_checked(usize::from(length))?;
        run.fill(label);
        left = rest;
    }
    Some(())
}

/// The results of `work` for 0 to `count - 1`, in this order, from `threads` threads; `note` is called
/// on the calling thread after each.
pub(in crate::data) fn in_parallel<T: Send>(
    count: usize,
    threads: usize,
    work: &(dyn Fn(usize) -> T + Sync),
    note: &dyn Fn(),
) -> Result<Vec<T>> {
    let (sender, receiver) = channel();
    let next = &AtomicUsize::new(0);
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count.max(1)) {
            let sender = sender.clone();
            let run = move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || sender.send((index, work(index))).is_err() {
                        break;
                    }
                }
            };
            std::thread::Builder::new()
                .name("labels".into())
                .spawn_scoped(scope, run)
                .context(|| "cannot start a thread that labels slices")?;
        }
        drop(sender);
        for (index, result) in receiver {
            results[index] = Some(result);
            note();
        }
        Ok(())
    })?;
    let results = results.into_iter().collect::<Option<Vec<T>>>();
    results.ok_or_else(|| Failure::new("a thread that labels slices ended early"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            runs in proptest::collection::vec((0u8..4, 1usize..70_000), 1..6),
        ) {
            let labels: Vec<u8> =
                runs.iter().flat_map(|&(label, length)| vec![label; length]).collect();
            let mut message = Vec::new();
            encode(&labels, &mut message);
            let mut decoded = vec![9; labels.len()];
            prop_assert!(decode(&mut message.iter().copied(), &mut decoded).is_some());
            prop_assert!(decoded == labels);
            message.pop();
            prop_assert!(decode(&mut message.into_iter(), &mut decoded).is_none());
        }
    }

    #[test]
    fn results_come_in_order_whatever_the_number_of_threads() {
        for threads in [0, 1, 3, 50] {
            let squares = in_parallel(20, threads, &|index| index * index, &|| ()).unwrap();
            assert!(squares.into_iter().eq((0..20).map(|index| index * index)));
        }
        assert!(in_parallel(0, 2, &|index| index, &|| ()).unwrap().is_empty());
    }
}
