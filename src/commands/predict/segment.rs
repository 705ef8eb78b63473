//! One image from its files to labels on its own grid, and the probabilities that they come from.
//!
//! Probabilities of all classes exist for a few slices at a time. Knows no ranks, no records and nothing of where
//! labels go.

use super::images::ImageFiles;
use super::members::Member;
use super::records::MadeWith;
use super::turned_back::TurnedBack;
use crate::commands::run;
use crate::config::Colour;
use crate::config::sampling::Sampling;
use crate::data::augment::{zoom_image, zoom_labels};
use crate::data::colour::even_out_light;
use crate::error::{Context, Failure, Result};
use crate::preparation::{NativeLabels, NativeSlice, Preparation, Prepared, Regrid, Turn};
use crate::scan::components::{Neighbourhood, keep_largest};
use crate::scan::{Grid, Notes, Scan, read_channels};
use crate::train::Method;
use crate::train::inference::{Inference, most_likely};
use std::borrow::Cow;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Everything that is the same for all images.
pub(super) struct Segmenter<'a> {
    pub(super) inference: Inference<'a>,
    pub(super) preparation: &'a Preparation,
    pub(super) colour: Colour,
    /// By label, class 0 the background.
    pub(super) classes: &'a [String],
    pub(super) made_with: &'a MadeWith,
}

/// An image as networks see it, and the way back.
pub(super) struct Opened {
    prepared: Scan,
    /// From the scan as it was turned.
    regrid: Regrid,
    turn: Turn,
}

impl Opened {
    /// The grid of the file, on which labels come.
    pub(super) fn grid(&self) -> &Grid {
        &self.turn.file
    }
}

/// Takes the slices of an image one after the other.
pub(super) type TakeSlice<'a> = &'a mut dyn FnMut(&NativeSlice<'_>) -> Result<()>;

/// How long an image has taken, once it is open.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    /// Windows, networks, and the sums of what they say.
    pub(super) inference: Duration,
    /// What is made and written of that.
    pub(super) export: Duration,
}

impl<'a> Segmenter<'a> {
    /// Of restored members, which predict on `device`; `member` is one of them, and they are alike.
    pub(super) fn new(
        member: &'a Member,
        methods: &'a [Box<dyn Method>],
        device: Device,
        made_with: &'a MadeWith,
    ) -> Self {
        let target = run::target(&member.plan, device);
        let methods = methods.iter().map(|method| &**method).collect();
        let inference = Inference::new(methods, member.plan.data.sampling, target);
        Self {
            inference: Inference {
                overlap: made_with.overlap,
                mirrors: made_with.mirrors,
                is_in_colour: member.preparation.is_in_colour(),
                ..inference
            },
            preparation: &member.preparation,
            colour: member.plan.data.colour,
            classes: &member.classes,
            made_with,
        }
    }

    /// Reads and prepares an image, and notes what is odd in it.
    pub(super) fn open(&self, image: &ImageFiles, notes: &Notes) -> Result<Opened> {
        let scan = read_channels(&image.files, notes)?;
        let scan = if self.preparation.takes_a_picture() { scan.into_colours() } else { scan };
        let Prepared { scan: mut prepared, regrid, turn } = self.preparation.apply(scan)?;
        if self.colour == Colour::GreyWorld {
            even_out_light(&mut prepared);
        }
        Ok(Opened { prepared, regrid, turn })
    }

    /// Predicts an image and hands its slices to `take`; without, only helps others to predict.
    pub(super) fn predict(&self, opened: &Opened, take: Option<TakeSlice<'_>>) -> Result<Spent> {
        let take = match take {
            Some(take) if !opened.turn.is_none() => take,
            take => return self.predict_turned(opened, take),
        };
        let mut turned = TurnedBack::new(&opened.turn, self.classes.len());
        let spent = self.predict_turned(opened, Some(&mut |slice| turned.take(slice)))?;
        let begun = Instant::now();
        turned.give(take)?;
        Ok(Spent { export: spent.export + begun.elapsed(), ..spent })
    }

    /// The same with the slices of the image as it was turned.
    fn predict_turned(&self, opened: &Opened, mut take: Option<TakeSlice<'_>>) -> Result<Spent> {
        let Opened { prepared, regrid, .. } = opened;
        let [_, rows, columns] = prepared.grid.shape;
        let (is_same, is_heard) = (regrid.is_same(), take.is_some());
        let mut native = NativeLabels::new(regrid.clone(), self.classes.len());
        let (begun, mut export) = (Instant::now(), Duration::ZERO);
        self.inference.each_finished(prepared, &mut |_, probabilities| {
            let Some(take) = &mut take else { return Ok(()) };
            wait_for(probabilities)?;
            let begun = Instant::now();
            refuse_not_finite(probabilities)?;
            if self.leaves_probabilities(is_same) {
                self.hand_on_labels(probabilities, [rows, columns], take)?;
            } else {
                self.hand_on(probabilities, [rows, columns], &mut |slice| {
                    native.each_slice(slice, self.wants_probabilities(), &mut |slice| take(&slice))
                })?;
            }
            export += begun.elapsed();
            Ok(())
        })?;
        if is_heard && !self.leaves_probabilities(is_same) {
            native.finish()?;
        }
        Ok(Spent { inference: begun.elapsed().saturating_sub(export), export })
    }

    /// The labels of an image on the grid of its file.
    pub(super) fn labels(&self, opened: &Opened) -> Result<Vec<u8>> {
        let mut labels = Vec::with_capacity(opened.grid().voxels());
        self.predict(
            opened,
            Some(&mut |slice| {
                labels.extend_from_slice(slice.labels);
                Ok(())
            }),
        )?;
        self.keep_largest(&mut labels, opened.grid());
        Ok(labels)
    }

    /// Leaves of each structure its largest component, where that is asked for.
    pub(super) fn keep_largest(&self, labels: &mut [u8], grid: &Grid) {
        if let Some(neighbours) = self.made_with.keep_largest {
            let corners = neighbours == 26;
            let neighbourhood = if corners { Neighbourhood::Corners } else { Neighbourhood::Faces };
            keep_largest(labels, grid.shape, neighbourhood);
        }
    }

    /// Whether somebody asks for the probabilities of each voxel of the file.
    pub(super) fn wants_probabilities(&self) -> bool {
        self.made_with.probabilities || self.made_with.uncertainty
    }

    /// Whether labels are made where probabilities are, which stay there: where the prepared grid is that of the
    /// file and nobody asks for more.
    pub(super) fn leaves_probabilities(&self, is_same: bool) -> bool {
        is_same && !self.wants_probabilities()
    }

    /// Hands on the labels of slices whose probabilities are `[classes, slices, rows, columns]` on the grid of
    /// predictions.
    fn hand_on_labels(
        &self,
        probabilities: &Tensor,
        shape: [usize; 2],
        take: TakeSlice<'_>,
    ) -> Result<()> {
        let pixels = probabilities.size()[2..].iter().product::<i64>() as usize;
        let labels = most_likely(probabilities)?;
        for labels in labels.chunks_exact(pixels) {
            let enlarged = match self.inference.sampling {
                Sampling::Slices { size } => Cow::from(zoom_labels(labels, [size; 2], shape)),
                Sampling::Cropped { .. } | Sampling::Patches { .. } => Cow::from(labels),
            };
            take(&NativeSlice { labels: &enlarged, probabilities: &[] })?;
        }
        Ok(())
    }

    /// Hands on slices on the prepared grid, each `[classes, rows, columns]`, of `[classes, slices, rows,
    /// columns]` on the grid of predictions.
    fn hand_on(
        &self,
        probabilities: &Tensor,
        shape: [usize; 2],
        take: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        for slice in 0..probabilities.size()[1] {
            let planes = probabilities.select(1, slice).to_kind(Kind::Float).to_device(Device::Cpu);
            let planes = planes.contiguous().view([-1]);
            let planes = Vec::<f32>::try_from(planes).context(cannot_fetch)?;
            match self.inference.sampling {
                Sampling::Slices { size } => take(&enlarged(&planes, size, shape))?,
                Sampling::Cropped { .. } | Sampling::Patches { .. } => take(&planes)?,
            }
        }
        Ok(())
    }
}

fn cannot_fetch() -> &'static str {
    "cannot fetch a prediction"
}

/// Waits until a GPU has computed what the host has asked it for.
fn wait_for(probabilities: &Tensor) -> Result<()> {
    probabilities.f_double_value(&[0, 0, 0, 0]).map(drop).context(cannot_fetch)
}

fn refuse_not_finite(probabilities: &Tensor) -> Result<()> {
    // One number that is not finite makes the sum so, which takes no array of this size as a mask would.
    let sum = f64::try_from(probabilities.sum(probabilities.kind())).context(cannot_fetch)?;
    if sum.is_finite() {
        return Ok(());
    }
    Err(Failure::new("the networks give probabilities that are not finite")
        .hint("the run has diverged: choose an earlier checkpoint with `--checkpoint`"))
}

/// Probabilities of all classes on a square, on the grid that it was resized from, as scores are computed
/// after.
fn enlarged(planes: &[f32], size: usize, shape: [usize; 2]) -> Vec<f32> {
    let zoomed = |plane: &[f32]| zoom_image(plane, [size; 2], shape);
    let mut enlarged: Vec<f32> = planes.chunks_exact(size * size).flat_map(zoomed).collect();
    // At some sizes the zoom leaves out the last row or column, which is background.
    let known = zoomed(&vec![1.0; size * size]);
    enlarged.iter_mut().zip(known).for_each(|(background, known)| *background += 1.0 - known);
    enlarged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enlarged_probabilities_have_the_labels_that_scores_are_computed_of() {
        for size in [16, 31] {
            for extent in [7, 16, 40, 93, 217] {
                let pixels = size * size;
                let planes: Vec<f32> = (0..3 * pixels).map(|i| (i * 37 % 101) as f32).collect();
                let best = |planes: &[f32], count: usize, pixel: usize| {
                    let of = |class: &usize| planes[class * count + pixel];
                    (0..3usize).rev().max_by(|a, b| of(a).total_cmp(&of(b))).unwrap() as u8
                };
                let labels: Vec<u8> =
                    (0..pixels).map(|pixel| best(&planes, pixels, pixel)).collect();
                let shape = [extent, extent + 1];
                let count = shape[0] * shape[1];
                let found = enlarged(&planes, size, shape);
                let found: Vec<u8> = (0..count).map(|pixel| best(&found, count, pixel)).collect();
                assert!(found == zoom_labels(&labels, [size; 2], shape), "{size} to {extent}");
            }
        }
    }
}
