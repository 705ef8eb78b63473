//! From numbers that somebody stored to labels of ours: whole numbers, and what each of them means.
//!
//! Labels that went through floats or through a scaling come back a little off; they are rounded within
//! what their storage explains, and refused otherwise. Knows no files.

use super::alignment::FileGrid;
use super::grid::{Grid, place};
use super::notes::Notes;
use super::segments::Segment;
use super::{IGNORE, Labels};
use crate::error::{Failure, Result};
use std::collections::BTreeMap;

/// How far a label may be off for no reason that its file states.
const TOLERANCE: f64 = 1e-3;

/// The largest step of a scaling within which labels are still rounded.
const LARGEST_STEP: f64 = 0.1;

/// Which number means which label: `Coding::classes(4).or_unlabelled(9)` takes 0, 1, 2, 3 and 9.
#[derive(Debug, Clone)]
pub struct Coding {
    labels: BTreeMap<i64, u8>,
    /// Labels of named structures; where there are any, segments go by their names.
    names: Vec<(String, u8)>,
    /// What numbers mean, in words, as the end of "expected …".
    words: String,
}

/// Numbers that should be labels, as a file holds them.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Slices, rows, columns in row-major order.
    pub values: Vec<f64>,
    /// Distance of neighbouring numbers that the storage knows because it is scaled; 0 where it is not.
    pub(super) step: f64,
    /// The structures that somebody drew and named, where the file knows names.
    pub(super) segments: Option<Vec<Segment>>,
    /// Where they lie, and what they are called in messages.
    pub(super) file: FileGrid,
}

impl Numbers {
    /// Where they lie.
    pub fn grid(&self) -> &Grid {
        &self.file.grid
    }

    /// The structures that the file names, in its order; none where it knows numbers alone.
    pub fn segments(&self) -> &[Segment] {
        self.segments.as_deref().unwrap_or_default()
    }

    /// The numbers as labels; those of segments by their names, if the coding has names. Refuses one that is no whole number or that has no meaning, with its place.
    pub fn labels(&self, coding: &Coding, notes: &Notes) -> Result<Labels> {
        let values = match &self.segments {
            Some(segments) if !coding.names.is_empty() => {
                coding.of_segments(segments).labels(self, notes)?
            }
            _ => coding.labels(self, notes)?,
        };
        Ok(Labels { grid: self.file.grid.clone(), values })
    }
}

impl Coding {
    /// The label of each number; `words` says the same as the end of "expected …".
    pub fn new(labels: impl IntoIterator<Item = (i64, u8)>, words: String) -> Self {
        Self { labels: labels.into_iter().collect(), names: Vec::new(), words }
    }

    /// Classes 0 to `count` - 1, by their own numbers.
    pub fn classes(count: usize) -> Self {
        let last = count.saturating_sub(1);
        Self::new((0..=last).map(|class| (class as i64, class as u8)), format!("0 to {last}"))
    }

    /// The same, where `value` means that nobody said what a voxel is.
    #[must_use]
    pub fn or_unlabelled(mut self, value: i64) -> Self {
        self.labels.insert(value, IGNORE);
        self.words = format!("{} or {value} for unlabelled", self.words);
        self
    }

    /// The same, where structures that a file names are labels by their names and not by their numbers. What
    /// nobody painted there is unlabelled if any number means that, else label 0.
    #[must_use]
    pub fn or_named(mut self, names: impl IntoIterator<Item = (String, u8)>) -> Self {
        self.names = names.into_iter().collect();
        self
    }

    /// The label of what nobody painted, where only structures are painted.
    pub(super) fn unpainted(&self) -> u8 {
        if self.labels.values().any(|&label| label == IGNORE) { IGNORE } else { 0 }
    }

    /// What the numbers of segments mean, by their names; equal but for capitals is equal.
    fn of_segments(&self, segments: &[Segment]) -> Self {
        let find = |is_same: &dyn Fn(&str) -> bool| {
            self.names.iter().find(|(name, _)| is_same(name)).map(|&(_, label)| label)
        };
        let label = |segment: &Segment| {
            let same = find(&|name| name == segment.name);
            same.or_else(|| find(&|name| name.to_lowercase() == segment.name.to_lowercase()))
        };
        let labels = segments.iter().filter_map(|segment| Some((segment.value, label(segment)?)));
        let names: Vec<String> = self.names.iter().map(|(name, _)| format!("`{name}`")).collect();
        Self::new([(0, self.unpainted())].into_iter().chain(labels), names.join(", "))
    }

    /// The label that a whole number means.
    pub fn label(&self, number: i64) -> Option<u8> {
        self.labels.get(&number).copied()
    }

    fn labels(&self, numbers: &Numbers, notes: &Notes) -> Result<Vec<u8>> {
        // A little more than a step, which is itself rounded.
        let tolerance = (1.01 * numbers.step).clamp(TOLERANCE, LARGEST_STEP);
        let mut furthest = 0.0f64;
        let mut known = (f64::NAN, 0);
        let mut labels = Vec::with_capacity(numbers.values.len());
        for (index, &value) in numbers.values.iter().enumerate() {
            // Neighbours are mostly alike.
            if value.to_bits() != known.0.to_bits() {
                let whole = value.round();
                let off = (value - whole).abs();
                let label = (off <= tolerance).then(|| self.label(whole as i64)).flatten();
                let Some(label) = label.filter(|_| whole.abs() < 2f64.powi(53)) else {
                    return Err(self.refusal(numbers, index));
                };
                furthest = furthest.max(off);
                known = (value, label);
            }
            labels.push(known.1);
        }
        if furthest > 0.0 {
            let by = format!("{} (by {furthest:.2e} at most)", numbers.file.name);
            notes.add("labels that are no whole numbers were rounded", by);
        }
        Ok(labels)
    }

    /// What to say of a number that means nothing.
    fn refusal(&self, numbers: &Numbers, index: usize) -> Failure {
        let value = numbers.values[index];
        let segment = numbers.segments().iter().find(|segment| segment.value == value as i64);
        let what =
            segment.map_or(format!("label {value}"), |one| format!("segment `{}`", one.name));
        let failure = Failure::new(format!(
            "{} holds {what} {}, expected {}",
            numbers.file.name,
            place(index, numbers.file.grid.shape),
            self.words
        ));
        if segment.is_none() {
            return failure;
        }
        failure.hint("give the segment the name of its class, in Slicer by a double click on its name, and save it again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[f64], step: f64) -> Numbers {
        let grid = Grid::unplaced([1, 1, values.len()], None);
        let file = FileGrid { name: "`a`".into(), ..FileGrid::from(&grid) };
        Numbers { values: values.to_vec(), step, file, segments: None }
    }

    fn labels(values: &[f64], step: f64) -> Result<Vec<u8>> {
        let coding = Coding::classes(4).or_unlabelled(-1);
        numbers(values, step).labels(&coding, &Notes::default()).map(|labels| labels.values)
    }

    #[test]
    fn numbers_are_rounded_within_what_their_storage_explains() {
        assert_eq!(
            labels(&[0.0, 0.9999, 2.000_000_1, 3.0, -1.0], 0.0).unwrap(),
            [0, 1, 2, 3, IGNORE]
        );
        // 84 steps of 3 / 255, where 85 would be 1.
        assert_eq!(labels(&[0.9882, 3.0], 3.0 / 255.0).unwrap(), [1, 3]);
        for (wrong, step) in [(1.6, 0.0), (-0.4, 0.0), (0.9882, 0.0), (1.2, 0.4), (f64::NAN, 0.0)] {
            assert!(labels(&[0.0, wrong], step).is_err(), "{wrong}");
        }
        for wrong in [4.0, 256.0, 257.0, -2.0, f64::INFINITY, 2f64.powi(32) + 1.0, 2f64.powi(64)] {
            assert!(labels(&[0.0, wrong], 0.0).is_err(), "{wrong}");
        }
        assert_eq!(
            labels(&[0.0, 2.7], 0.0).unwrap_err().message(),
            "`a` holds label 2.7 in slice 0 at row 0, column 1, expected 0 to 3 or -1 for unlabelled"
        );
    }

    #[test]
    fn rounding_is_said_once_with_how_far_it_went() {
        let notes = Notes::default();
        numbers(&[0.9995, 1.0, 1.0002], 0.0).labels(&Coding::classes(2), &notes).unwrap();
        assert_eq!(
            notes.take(),
            ["labels that are no whole numbers were rounded: `a` (by 5.00e-4 at most)"]
        );
    }
}
