//! Labels as a segmentation of 3D Slicer, with names and colours.
//!
//! The header says where each segment begins and ends, so the packed labels are held until all are there.

use crate::error::{Context, Result};
use crate::files::FreshFile;
use crate::scan::axes::Course;
use crate::scan::grid::{Grid, Placement};
use crate::scan::remaining::Remaining;
use flate2::{Compression, write::GzEncoder};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How far the hues of neighbouring segments lie apart: by the golden angle no two are alike.
const HUE_STEP: f32 = 0.618_034;

/// A segmentation that grows in the order slices, rows, columns, and has its name when it is whole.
pub(in crate::scan) struct SegmentationWriter {
    path: PathBuf,
    fresh: FreshFile,
    grid: Grid,
    packed: GzEncoder<Vec<u8>>,
    left: Remaining,
    /// Names of the classes, that of the background first.
    names: Vec<String>,
    /// First and last column, row and slice of each label.
    boxes: Vec<Option<[[usize; 2]; 3]>>,
}

impl SegmentationWriter {
    /// Begins a file that lies on `grid`.
    pub(in crate::scan) fn create(path: &Path, grid: &Grid) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            fresh: FreshFile::beside(path).context(|| cannot_write(path))?,
            grid: grid.clone(),
            packed: GzEncoder::new(Vec::new(), Compression::new(6)),
            left: Remaining::new(path, grid.voxels()),
            names: Vec::new(),
            boxes: vec![None; 256],
        })
    }

    /// Calls the labels by `names`, of which the first is the background, which is no segment.
    pub(in crate::scan) fn name(&mut self, names: &[String]) {
        names.clone_into(&mut self.names);
    }

    /// Writes the next labels.
    pub(in crate::scan) fn append(&mut self, labels: &[u8]) -> Result<()> {
        let first = self.left.written();
        self.left.take(labels.len())?;
        let columns = self.grid.shape[2].max(1);
        let rows = self.grid.shape[1].max(1);
        for (index, &label) in labels.iter().enumerate().filter(|&(_, &label)| label > 0) {
            let voxel = first + index;
            let place = [voxel % columns, voxel / columns % rows, voxel / (columns * rows)];
            let known = self.boxes[usize::from(label)].get_or_insert(place.map(|index| [index; 2]));
            for ([from, to], index) in known.iter_mut().zip(place) {
                (*from, *to) = ((*from).min(index), (*to).max(index));
            }
        }
        self.packed.write_all(labels).context(|| cannot_write(&self.path))
    }

    /// Gives the file its name, on the disk when this returns. Refuses to where voxels are missing.
    pub(in crate::scan) fn finish(self) -> Result<()> {
        self.left.end()?;
        let header = header(&self.grid, &self.names, &self.boxes);
        let cannot = || cannot_write(&self.path);
        let packed = self.packed.finish().context(cannot)?;
        let mut fresh = self.fresh;
        fresh.write_all(header.as_bytes()).context(cannot)?;
        fresh.write_all(&packed).context(cannot)?;
        fresh.take_place_durably().context(cannot)
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}

/// All lines of the header, with the empty one behind them.
fn header(grid: &Grid, names: &[String], boxes: &[Option<[[usize; 2]; 3]>]) -> String {
    let [slices, rows, columns] = grid.shape;
    let [slice_mm, row_mm, column_mm] = grid.spacing_mm.unwrap_or([1.0; 3]);
    // What lies nowhere lies for Slicer where ITK puts it.
    let nowhere = Placement {
        direction: [[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]],
        origin_mm: [0.0; 3],
    };
    let course = Course::of(grid.placement.as_ref().unwrap_or(&nowhere)).mirrored();
    let steps = course.directions.iter().zip([column_mm, row_mm, slice_mm]);
    let steps = steps.map(|(direction, mm)| vector(direction.map(|part| part * mm)));
    let mut header = format!(
        "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\nsizes: {columns} {rows} {slices}\nspace directions: {}\nkinds: domain domain domain\nencoding: gzip\nspace origin: {}\n",
        steps.collect::<Vec<_>>().join(" "),
        vector(course.origin_mm)
    );
    let segments: Vec<usize> =
        (1..256).filter(|&label| label < names.len() || boxes[label].is_some()).collect();
    for (number, &label) in segments.iter().enumerate() {
        let name = names.get(label).cloned().unwrap_or_else(|| format!("label {label}"));
        let extent = match boxes[label] {
            Some(ends) => ends.iter().flatten().map(usize::to_string).collect::<Vec<_>>().join(" "),
            None => "0 -1 0 -1 0 -1".to_owned(),
        };
        let [red, green, blue] = colour(label);
        // Writing to a text cannot fail.
        let _ = write!(
            header,
            "Segment{number}_ID:=Segment_{label}\nSegment{number}_Name:={}\nSegment{number}_NameAutoGenerated:=0\nSegment{number}_Color:={red} {green} {blue}\nSegment{number}_ColorAutoGenerated:=1\nSegment{number}_LabelValue:={label}\nSegment{number}_Layer:=0\nSegment{number}_Extent:={extent}\nSegment{number}_Tags:=|\n",
            escaped(&name)
        );
    }
    header += "Segmentation_ContainedRepresentationNames:=Binary labelmap|\nSegmentation_MasterRepresentation:=Binary labelmap\nSegmentation_ReferenceImageExtentOffset:=0 0 0\n\n";
    header
}

fn vector(numbers: [f64; 3]) -> String {
    let [x, y, z] = numbers.map(|number| number + 0.0);
    format!("({x},{y},{z})")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

/// A colour that tells a label from its neighbours: of one brightness, with hues far from each other.
fn colour(label: usize) -> [f32; 3] {
    let hue = (label as f32 * HUE_STEP).fract() * 6.0;
    [0.0f32, 4.0, 2.0].map(|shift| {
        let part = ((hue + shift) % 6.0 - 3.0).abs() - 1.0;
        let part = 0.2 + 0.7 * part.clamp(0.0, 1.0);
        (part * 1000.0).round() / 1000.0
    })
}
