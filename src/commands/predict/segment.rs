//! One image from its files to labels on its own grid, and what is written beside them.
//!
//! Probabilities of all classes exist for a few slices at a time. Knows no ranks and no records.

use super::images::ImageFiles;
use super::members::is_in_colour;
use super::records::{MadeWith, Outputs, StructureVolume};
use crate::config::Colour;
use crate::config::sampling::Sampling;
use crate::data::augment::zoom_image;
use crate::data::colour::even_out_light;
use crate::data::probabilities::ProbabilityWriter;
use crate::error::{Context, Failure, Result};
use crate::preparation::{NativeLabels, NativeSlice, Preparation, Prepared};
use crate::scan::components::{Neighbourhood, keep_largest};
use crate::scan::{Grid, LabelWriter, MapWriter, Notes, Scan, read_channels};
use crate::train::inference::{Inference, Slab};
use std::path::Path;
use tch::Tensor;

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
    native: NativeLabels,
    file: Grid,
}

impl Segmenter<'_> {
    /// Reads and prepares an image, and notes what is odd in it.
    pub(super) fn open(&self, image: &ImageFiles, notes: &Notes) -> Result<Opened> {
        let scan = read_channels(&image.files, notes)?;
        let scan = if is_in_colour(self.preparation) { scan.into_colours() } else { scan };
        let file = scan.grid.clone();
        let Prepared { scan: mut prepared, regrid } = self.preparation.apply(scan)?;
        if self.colour == Colour::GreyWorld {
            even_out_light(&mut prepared);
        }
        Ok(Opened { prepared, native: NativeLabels::new(regrid, self.classes.len()), file })
    }

    /// Predicts an image and hands its slices to `results`; without, only helps others to predict.
    pub(super) fn predict(
        &self,
        opened: &mut Opened,
        mut results: Option<&mut Results>,
    ) -> Result<()> {
        let Opened { prepared, native, .. } = opened;
        let shape = prepared.grid.shape;
        self.inference.each_slab(prepared, &mut |slab| match &mut results {
            Some(results) => self.hand_on(&slab, shape, &mut |slice| {
                native.each_slice(slice, self.wants_probabilities(), &mut |slice| {
                    results.take(&slice)
                })
            }),
            None => Ok(()),
        })
    }

    fn wants_probabilities(&self) -> bool {
        self.made_with.probabilities || self.made_with.uncertainty
    }

    /// Hands on the slices of a slab on the prepared grid, each `[classes, rows, columns]`.
    fn hand_on(
        &self,
        slab: &Slab,
        [_, rows, columns]: [usize; 3],
        take: &mut dyn FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let probabilities = &slab.probabilities;
        if !bool::try_from(probabilities.isfinite().all()).unwrap_or(false) {
            let message = "the networks give probabilities that are not finite";
            return Err(Failure::new(message)
                .hint("the run has diverged; choose an earlier checkpoint with `--checkpoint`"));
        }
        for slice in 0..probabilities.size()[1] {
            let planes = of_slice(probabilities, slice)?;
            match self.inference.sampling {
                Sampling::Slices { size } => take(&enlarged(&planes, size, [rows, columns]))?,
                Sampling::Patches { .. } => take(&planes)?,
            }
        }
        Ok(())
    }
}

/// One slice of `[classes, slices, rows, columns]`, row-major.
fn of_slice(probabilities: &Tensor, slice: i64) -> Result<Vec<f32>> {
    let planes = probabilities.select(1, slice).contiguous().view([-1]);
    Vec::try_from(planes).context(|| "cannot fetch a prediction")
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
        let grid = opened.file.clone();
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
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
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
    entropy.iter_mut().for_each(|value| *value = value.clamp(0.0, 1.0));
    entropy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::zoom_labels;

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
