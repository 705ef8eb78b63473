//! One image from its files to labels on its own grid, and what is written beside them.
//!
//! Probabilities of all classes exist for a few slices at a time. Knows no ranks and no records.

use super::images::ImageFiles;
use super::records::{MadeWith, Outputs, StructureVolume};
use crate::config::Colour;
use crate::config::sampling::Sampling;
use crate::data::augment::{zoom_image, zoom_labels};
use crate::data::colour::even_out_light;
use crate::data::probabilities::ProbabilityWriter;
use crate::error::{Context, Failure, Result};
use crate::preparation::{NativeLabels, NativeSlice, Preparation, Prepared, Regrid};
use crate::scan::components::{Neighbourhood, keep_largest};
use crate::scan::{Grid, LabelWriter, MapWriter, Notes, Scan, read_channels};
use crate::train::inference::Inference;
use std::borrow::Cow;
use std::path::Path;
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
    regrid: Regrid,
}

impl Segmenter<'_> {
    /// Reads and prepares an image, and notes what is odd in it.
    pub(super) fn open(&self, image: &ImageFiles, notes: &Notes) -> Result<Opened> {
        let scan = read_channels(&image.files, notes)?;
        let scan = if self.preparation.is_in_colour() { scan.into_colours() } else { scan };
        let Prepared { scan: mut prepared, regrid } = self.preparation.apply(scan)?;
        if self.colour == Colour::GreyWorld {
            even_out_light(&mut prepared);
        }
        Ok(Opened { prepared, regrid })
    }

    /// Predicts an image and hands its slices to `results`; without, only helps others to predict.
    pub(super) fn predict(&self, opened: &Opened, mut results: Option<&mut Results>) -> Result<()> {
        let Opened { prepared, regrid } = opened;
        let [_, rows, columns] = prepared.grid.shape;
        if regrid.is_same() && !self.wants_probabilities() {
            // Labels are made where probabilities are, which need not come from there.
            return self.inference.each_finished(prepared, &mut |_, probabilities| {
                results.as_mut().map_or(Ok(()), |results| {
                    self.hand_on_labels(probabilities, [rows, columns], results)
                })
            });
        }
        let mut native = NativeLabels::new(regrid.clone(), self.classes.len());
        self.inference.each_slab(prepared, &mut |slab| {
            let Some(results) = &mut results else { return Ok(()) };
            self.hand_on(&slab.probabilities, [rows, columns], &mut |slice| {
                native.each_slice(slice, self.wants_probabilities(), &mut |slice| {
                    results.take(&slice)
                })
            })
        })
    }

    fn wants_probabilities(&self) -> bool {
        self.made_with.probabilities || self.made_with.uncertainty
    }

    /// Hands on the labels of slices whose probabilities are `[classes, slices, rows, columns]` on the grid of
    /// predictions.
    fn hand_on_labels(
        &self,
        probabilities: &Tensor,
        shape: [usize; 2],
        results: &mut Results,
    ) -> Result<()> {
        refuse_not_finite(probabilities)?;
        let pixels = probabilities.size()[2..].iter().product::<i64>() as usize;
        let labels = probabilities.argmax(0, false).to_kind(Kind::Uint8).to_device(Device::Cpu);
        let labels = Vec::<u8>::try_from(labels.contiguous().view([-1])).context(cannot_fetch)?;
        for labels in labels.chunks_exact(pixels) {
            let enlarged = match self.inference.sampling {
                Sampling::Slices { size } => Cow::from(zoom_labels(labels, [size; 2], shape)),
                Sampling::Patches { .. } => Cow::from(labels),
            };
            results.take(&NativeSlice { labels: &enlarged, probabilities: &[] })?;
        }
        Ok(())
    }

    /// Hands on slices on the prepared grid, each `[classes, rows, columns]`.
    fn hand_on(
        &self,
        probabilities: &Tensor,
        shape: [usize; 2],
        take: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        refuse_not_finite(probabilities)?;
        for slice in 0..probabilities.size()[1] {
            let planes = probabilities.select(1, slice).contiguous().view([-1]);
            let planes = Vec::<f32>::try_from(planes).context(cannot_fetch)?;
            match self.inference.sampling {
                Sampling::Slices { size } => take(&enlarged(&planes, size, shape))?,
                Sampling::Patches { .. } => take(&planes)?,
            }
        }
        Ok(())
    }
}

fn cannot_fetch() -> &'static str {
    "cannot fetch a prediction"
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

/// The files of one image, as far as they have come.
pub(super) struct Results<'a> {
    labels: Vec<u8>,
    grid: Grid,
    uncertainty: Option<UncertaintyFile>,
    probabilities: Option<ProbabilityWriter>,
    on_slice: &'a dyn Fn(),
}

/// The entropy of each voxel.
enum UncertaintyFile {
    /// In `[0, 1]`.
    Map(MapWriter),
    /// A picture of 0 to 255.
    Levels(LabelWriter),
}

impl<'a> Results<'a> {
    /// Begins the files of an image; `on_slice` is called after each of its slices.
    pub(super) fn begin(
        segmenter: &Segmenter<'_>,
        (opened, image): (&Opened, &ImageFiles),
        outputs: &Outputs,
        on_slice: &'a dyn Fn(),
    ) -> Result<Self> {
        let grid = opened.regrid.file.clone();
        let uncertainty = outputs.uncertainty.as_ref().map(|path| {
            let like = Some(image.files[0].as_path());
            if outputs.is_picture() {
                LabelWriter::create(path, &grid, like).map(UncertaintyFile::Levels)
            } else {
                MapWriter::create(path, &grid, like).map(UncertaintyFile::Map)
            }
        });
        let probabilities = outputs.probabilities.as_ref();
        let probabilities =
            probabilities.map(|path| ProbabilityWriter::create(path, &grid, segmenter.classes));
        Ok(Self {
            labels: Vec::with_capacity(grid.voxels()),
            uncertainty: uncertainty.transpose()?,
            probabilities: probabilities.transpose()?,
            grid,
            on_slice,
        })
    }

    fn take(&mut self, slice: &NativeSlice<'_>) -> Result<()> {
        self.labels.extend_from_slice(slice.labels);
        if let Some(file) = &mut self.uncertainty {
            let entropy = entropy(slice.probabilities, slice.labels.len());
            match file {
                UncertaintyFile::Map(file) => file.append(&entropy)?,
                UncertaintyFile::Levels(file) => {
                    let level = |share: &f32| (share * 255.0).round() as u8;
                    file.append(&entropy.iter().map(level).collect::<Vec<u8>>())?;
                }
            }
        }
        if let Some(file) = &mut self.probabilities {
            file.push(slice.probabilities)?;
        }
        (self.on_slice)();
        Ok(())
    }

    /// Gives all files their names; the volume of every structure.
    pub(super) fn finish(
        mut self,
        segmenter: &Segmenter<'_>,
        (labels, like): (&Path, &Path),
    ) -> Result<Vec<StructureVolume>> {
        if let Some(neighbours) = segmenter.made_with.keep_largest {
            let corners = neighbours == 26;
            let neighbourhood = if corners { Neighbourhood::Corners } else { Neighbourhood::Faces };
            keep_largest(&mut self.labels, self.grid.shape, neighbourhood);
        }
        match self.uncertainty {
            Some(UncertaintyFile::Map(file)) => file.finish()?,
            Some(UncertaintyFile::Levels(file)) => file.finish()?,
            None => {}
        }
        if let Some(file) = self.probabilities {
            file.finish()?;
        }
        let mut file = LabelWriter::create(labels, &self.grid, Some(like))?;
        file.append(&self.labels)?;
        file.finish()?;
        Ok(volumes(&self.labels, &self.grid, segmenter.classes))
    }
}

/// Voxels and millilitres of every class but the background.
fn volumes(labels: &[u8], grid: &Grid, classes: &[String]) -> Vec<StructureVolume> {
    let mut counts = [0u64; 256];
    for &label in labels {
        counts[usize::from(label)] += 1;
    }
    let structure = |(name, voxels): (&String, u64)| StructureVolume {
        structure: name.clone(),
        voxels,
        volume_ml: grid.voxel_ml().map(|voxel_ml| voxel_ml * voxels as f64),
    };
    classes.iter().zip(counts).skip(1).map(structure).collect()
}

/// Entropy of each pixel over its classes, `-sum(p ln p) / ln C`: 0 where one class is certain, 1 where all
/// are equally probable. `probabilities` is `[C, pixels]`.
fn entropy(probabilities: &[f32], pixels: usize) -> Vec<f32> {
    let classes = probabilities.len() / pixels.max(1);
    let scale = 1.0 / (classes.max(2) as f32).ln();
    let mut entropy = vec![0.0f32; pixels];
    for plane in probabilities.chunks_exact(pixels.max(1)) {
        for (sum, &share) in entropy.iter_mut().zip(plane) {
            if share > 0.0 {
                *sum -= share * share.ln() * scale;
            }
        }
    }
    for value in &mut entropy {
        *value = value.clamp(0.0, 1.0);
    }
    entropy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_a_share_of_the_largest() {
        let found = entropy(&[1.0, 0.5, 0.25, 0.0, 0.5, 0.25, 0.0, 0.0, 0.25, 0.0, 0.0, 0.25], 3);
        assert_eq!((found[0], found[2]), (0.0, 1.0));
        assert!((found[1] - 0.5).abs() < 1e-6);
    }

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

    #[test]
    fn volumes_are_in_millilitres_where_the_spacing_is_known() {
        let classes = ["background", "a", "b"].map(String::from);
        let grid = Grid::unplaced([1, 1, 4], Some([10.0, 2.0, 5.0]));
        let found = volumes(&[0, 1, 1, 2], &grid, &classes);
        assert_eq!((found[0].voxels, found[0].volume_ml), (2, Some(0.2)));
        let unknown = volumes(&[0, 1, 1, 2], &Grid::unplaced([1, 1, 4], None), &classes);
        assert_eq!((unknown[1].voxels, unknown[1].volume_ml), (1, None));
    }
}
