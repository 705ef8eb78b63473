//! Class probabilities of one image as a file, written slice by slice.
//!
//! ```text
//! /                attributes classes; where they are known spacing_mm, direction and origin_mm
//! /probabilities   u8 [classes, slices, rows, columns] in steps of 1/255, chunks of one slice of one class
//! ```
//! Axes run as those of the image: slices, rows, columns. Knows no networks.

use super::store::without_locks;
use crate::error::{Context, Failure, Result};
use crate::files::FreshFile;
use crate::scan::Grid;
use hdf5::types::VarLenUnicode;
use ndarray::ArrayView2;
use std::path::{Path, PathBuf};

/// What becomes of a probability of 1.
const LEVELS: f32 = 255.0;
/// Rows and columns of the largest chunk.
const CHUNK_EXTENT: usize = 512;
/// Most probabilities are 0 or 1: more work hardly makes files smaller.
const DEFLATE_LEVEL: u8 = 1;

/// A file that is being written, which takes its name when it is complete.
pub struct ProbabilityWriter {
    path: PathBuf,
    fresh: FreshFile,
    file: hdf5::File,
    array: hdf5::Dataset,
    shape: [usize; 4],
    /// Slices so far.
    came: usize,
}

impl ProbabilityWriter {
    /// Begins the file at `path` for an image on `grid`, with the names of the classes.
    pub fn create(path: &Path, grid: &Grid, classes: &[String]) -> Result<Self> {
        let cannot = || format!("cannot write `{}`", path.display());
        let [slices, rows, columns] = grid.shape;
        let shape = [classes.len(), slices, rows, columns];
        let fresh = FreshFile::beside(path).context(cannot)?;
        // The name was taken with `O_EXCL`: what is cut to nothing here is ours and empty.
        let file = without_locks().create(fresh.partial()).context(cannot)?;
        describe(&file, grid, classes).map_err(|failure| failure.during(cannot()))?;
        let array = file
            .new_dataset::<u8>()
            .shape(shape)
            .chunk([1, 1, rows.min(CHUNK_EXTENT), columns.min(CHUNK_EXTENT)])
            .deflate(DEFLATE_LEVEL)
            .create("probabilities")
            .context(cannot)?;
        Ok(Self { path: path.to_owned(), fresh, file, array, shape, came: 0 })
    }

    /// Takes the next slice: `[classes, rows, columns]`, probabilities in `[0, 1]`.
    pub fn push(&mut self, probabilities: &[f32]) -> Result<()> {
        let cannot = || format!("cannot write `{}`", self.path.display());
        let [classes, slices, rows, columns] = self.shape;
        let pixels = rows * columns;
        if self.came == slices || probabilities.len() != classes * pixels {
            let message = format!(
                "{} probabilities came for slice {} of {slices}, expected {}",
                probabilities.len(),
                self.came,
                classes * pixels
            );
            return Err(Failure::new(message).during(cannot()));
        }
        for (class, plane) in probabilities.chunks_exact(pixels).enumerate() {
            let level = |share: &f32| (share.clamp(0.0, 1.0) * LEVELS).round() as u8;
            let levels: Vec<u8> = plane.iter().map(level).collect();
            let plane = ArrayView2::from_shape((rows, columns), &levels).context(cannot)?;
            self.array
                .write_slice(plane, (class, self.came, 0..rows, 0..columns))
                .context(cannot)?;
        }
        self.came += 1;
        Ok(())
    }

    /// Gives the complete file its name.
    pub fn finish(self) -> Result<()> {
        let Self { path, fresh, file, array, .. } = self;
        let cannot = || format!("cannot write `{}`", path.display());
        drop(array);
        file.close().context(cannot)?;
        fresh.take_place_durably().context(cannot)
    }
}

fn describe(file: &hdf5::File, grid: &Grid, classes: &[String]) -> Result<()> {
    let wrong = || "HDF5 refuses its attributes";
    let names = classes.iter().map(|name| name.parse().context(wrong));
    let names: Vec<VarLenUnicode> = names.collect::<Result<_>>()?;
    file.new_attr_builder().with_data(&names).create("classes").context(wrong)?;
    if let Some(spacing_mm) = grid.spacing_mm {
        file.new_attr_builder().with_data(&spacing_mm).create("spacing_mm").context(wrong)?;
    }
    if let Some(placement) = grid.placement {
        let direction = ArrayView2::from(&placement.direction);
        file.new_attr_builder().with_data(direction).create("direction").context(wrong)?;
        let origin_mm = &placement.origin_mm;
        file.new_attr_builder().with_data(origin_mm).create("origin_mm").context(wrong)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_where_they_belong_and_half_a_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.probabilities.h5");
        let grid = Grid::unplaced([2, 1, 3], Some([8.0, 1.5, 1.0]));
        let classes = ["background", "ventricle"].map(String::from);
        let mut writer = ProbabilityWriter::create(&path, &grid, &classes).unwrap();
        writer.push(&[1.0, 0.5, 0.0, 0.0, 0.5, 1.0]).unwrap();
        assert!(writer.push(&[0.0]).unwrap_err().to_string().contains("1 probabilities came"));
        drop(writer);
        assert!(!path.exists());
        let mut writer = ProbabilityWriter::create(&path, &grid, &classes).unwrap();
        writer.push(&[1.0, 0.5, 0.0, 0.0, 0.5, 1.0]).unwrap();
        writer.push(&[0.2, 0.0, 0.0, 0.8, 1.0, 1.0]).unwrap();
        writer.finish().unwrap();
        let file = hdf5::File::open(&path).unwrap();
        let array = file.dataset("probabilities").unwrap();
        assert_eq!(array.shape(), [2, 2, 1, 3]);
        let expected = [255, 128, 0, 51, 0, 0, 0, 128, 255, 204, 255, 255];
        assert_eq!(array.read_raw::<u8>().unwrap(), expected);
        let spacing = file.attr("spacing_mm").unwrap().read_raw::<f64>().unwrap();
        assert_eq!(spacing, [8.0, 1.5, 1.0]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
