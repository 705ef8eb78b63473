//! What is written of one image: labels, and where they are asked for, uncertainty and probabilities.
//!
//! Labels are held to the end, everything else goes to its file slice by slice. Knows no networks.

use super::images::ImageFiles;
use super::records::{Outputs, StructureVolume};
use super::segment::{Opened, Segmenter};
use crate::data::probabilities::ProbabilityWriter;
use crate::error::Result;
use crate::preparation::NativeSlice;
use crate::pseudo_labels::expansion::Form;
use crate::scan::{Grid, LabelWriter, MapWriter};
use std::path::Path;

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
        opened: &Opened,
        image: &ImageFiles,
        outputs: &Outputs,
        on_slice: &'a dyn Fn(),
    ) -> Result<Self> {
        let grid = opened.grid().clone();
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

    /// Takes the next slice, and writes what of it goes to files at once.
    pub(super) fn take(&mut self, slice: &NativeSlice<'_>) -> Result<()> {
        self.labels.extend_from_slice(slice.labels);
        if let Some(file) = &mut self.uncertainty {
            let classes = slice.probabilities.len() / slice.labels.len().max(1);
            let entropy = Form::Unlabelled.uncertainty(slice.probabilities, classes);
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
        labels: &Path,
        like: &Path,
    ) -> Result<Vec<StructureVolume>> {
        segmenter.keep_largest(&mut self.labels, &self.grid);
        match self.uncertainty {
            Some(UncertaintyFile::Map(file)) => file.finish()?,
            Some(UncertaintyFile::Levels(file)) => file.finish()?,
            None => {}
        }
        if let Some(file) = self.probabilities {
            file.finish()?;
        }
        let mut file =
            LabelWriter::create(labels, &self.grid, Some(like))?.named(segmenter.classes);
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

#[cfg(test)]
mod tests {
    use super::*;

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
