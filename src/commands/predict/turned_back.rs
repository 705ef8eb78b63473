//! Slices of an image that was turned before it was prepared, in the order and direction of its file.
//!
//! Its slices may run across those of the file, so that all of them are held before the first is handed on.

use crate::error::Result;
use crate::preparation::{NativeSlice, Turn};

/// What was predicted of a turned image, as far as it has come.
pub(super) struct TurnedBack<'a> {
    turn: &'a Turn,
    labels: Vec<u8>,
    /// For each class all slices, one after the other; empty where nobody asks for them.
    probabilities: Vec<Vec<f32>>,
}

impl<'a> TurnedBack<'a> {
    /// Nothing of an image yet that was turned so.
    pub(super) fn new(turn: &'a Turn, classes: usize) -> Self {
        let labels = Vec::with_capacity(turn.file.voxels());
        Self { turn, labels, probabilities: vec![Vec::new(); classes] }
    }

    /// Takes the next slice of the turned image.
    pub(super) fn take(&mut self, slice: &NativeSlice<'_>) -> Result<()> {
        self.labels.extend_from_slice(slice.labels);
        let planes = slice.probabilities.chunks_exact(slice.labels.len().max(1));
        for (class, plane) in self.probabilities.iter_mut().zip(planes) {
            class.extend_from_slice(plane);
        }
        Ok(())
    }

    /// Hands on the slices of the file.
    pub(super) fn give(
        mut self,
        take: &mut dyn FnMut(&NativeSlice<'_>) -> Result<()>,
    ) -> Result<()> {
        let pixels = self.turn.file.pixels().max(1);
        self.labels = self.turn.carry_back(&self.labels);
        for class in self.probabilities.iter_mut().filter(|class| !class.is_empty()) {
            *class = self.turn.carry_back(class);
        }
        for (number, labels) in self.labels.chunks_exact(pixels).enumerate() {
            let of_slice = number * pixels..(number + 1) * pixels;
            let planes = self.probabilities.iter().filter_map(|class| class.get(of_slice.clone()));
            let probabilities: Vec<f32> = planes.flatten().copied().collect();
            take(&NativeSlice { labels, probabilities: &probabilities })?;
        }
        Ok(())
    }
}
