//! Labels of another grid on the voxels of their image, by the places that both files state.
//!
//! Annotated voxels are carried one by one, so that thin strokes survive; dense labels are looked up voxel by voxel of
//! the image, so that nothing has holes. Nothing is interpolated. Knows neither classes nor what labels are for.

use super::alignment::FileGrid;
use super::coding::Coding;
use super::formats::{read_grid, read_numbers};
use super::notes::Notes;
use super::vectors::{coordinates, distance};
use super::{IGNORE, Labels};
use crate::error::{Failure, Result};
use std::path::Path;

/// The way from voxels of one grid to those of another: `shift + matrix[0] z + matrix[1] y + matrix[2] x`.
struct Way {
    /// For each axis of the one grid a step along it, in voxels of the other.
    matrix: [[f64; 3]; 3],
    shift: [f64; 3],
    from: [usize; 3],
    to: [usize; 3],
}

/// Labels on another grid, and how many voxels have gone where.
struct CarriedLabels {
    values: Vec<u8>,
    /// Voxels that both grids share.
    shared: usize,
    /// Labelled voxels of the file.
    labelled: usize,
    /// Those of them that lie outside of the image.
    outside: usize,
    /// Those of them that met others in one voxel of the image.
    met: usize,
}

impl FileGrid {
    /// The labels of the file at `path`, voxel by voxel of this image, also where they lie on other voxels: as
    /// [`FileGrid::labels_at`] where these are the same.
    ///
    /// Where `coding` has a value for unlabelled, each annotated voxel goes to the voxel of the image that its centre
    /// lies in, and where several meet [`elect`] decides. Else each voxel of the image takes the label of the voxel that
    /// its centre lies in, and the background where there is none. Notes how many voxels were lost.
    ///
    /// Refuses labels that share no voxel with the image, those that a mistake in a header has mirrored, and files that
    /// do not say where they lie.
    pub fn labels_carried(&self, path: &Path, coding: &Coding, notes: &Notes) -> Result<Labels> {
        let file = read_grid(path, notes)?;
        if self.order_of(&file).is_some() || self.mistake(&file).is_some() {
            return self.labels_at(path, coding, notes);
        }
        let ways = Way::between(&file, self).zip(Way::between(self, &file));
        let Some((way, back)) = ways else { return self.labels_at(path, coding, notes) };
        let numbers = read_numbers(path, notes)?;
        let labels = numbers.labels(coding, notes)?.values;
        let around = coding.unpainted();
        let is_empty = labels.iter().all(|&label| label == around);
        let carried = if around == IGNORE {
            way.strokes(&labels)
        } else {
            back.looked_up(&labels, &way, around)
        };
        // An empty segmentation lies nowhere in particular.
        if carried.shared == 0 && !(is_empty && numbers.segments.is_some()) {
            return Err(self.no_overlap(&file));
        }
        let CarriedLabels { values, labelled, outside, met, .. } = carried;
        // A segmentation covers what is painted and no more.
        let is_cut = numbers.segments.is_some() && self.part_of(&file).is_some();
        if outside > 0 || met > 0 || !is_cut {
            let sentence = "labels that do not lie on the voxels of their image were carried to the nearest ones";
            let lost = match (outside, met) {
                (0, 0) => "none is lost".to_owned(),
                (_, 0) => format!("{outside} lie outside"),
                (0, _) => format!("{met} met others"),
                (_, _) => format!("{outside} lie outside, {met} met others"),
            };
            notes.add(sentence, format!("{} ({labelled} labelled voxels, {lost})", file.name));
        }
        Ok(Labels { grid: self.grid.clone(), values })
    }

    /// Whether the labels of the file at `path` lie on other voxels than this image and can be carried to these.
    pub fn can_be_carried(&self, path: &Path) -> bool {
        read_grid(path, &Notes::default()).is_ok_and(|file| {
            !self.lies_under(&file)
                && self.mistake(&file).is_none()
                && Way::between(&file, self).is_some_and(|way| way.shared() > 0)
        })
    }

    fn no_overlap(&self, labels: &Self) -> Failure {
        let middle = |file: &Self| {
            let middle = file.grid.shape.map(|extent| (extent - 1) as f64 / 2.0);
            file.grid.position_mm(middle).unwrap_or_default()
        };
        let apart_mm = distance(&middle(self), &middle(labels));
        Failure::new(format!(
            "{} shares no voxel with its image {}: their middles lie {apart_mm:.1} mm apart",
            labels.name, self.name
        ))
        .hint("see whether it was drawn on this image, and draw or resample the labels on it")
    }
}

impl Way {
    /// Nothing where one of the two does not say where it lies, or has no extent.
    fn between(from: &FileGrid, to: &FileGrid) -> Option<Self> {
        let (from, to) = (from.in_unit_of(to), to.in_unit_of(from));
        let (own, other) = (from.grid.placement?, to.grid.placement?);
        let steps = |file: &FileGrid| {
            let (placement, spacing_mm) = (file.grid.placement, file.spacing_mm());
            let direction = placement.map(|placement| placement.direction).unwrap_or_default();
            [0, 1, 2].map(|axis| direction[axis].map(|part| part * spacing_mm[axis]))
        };
        let target = steps(&to);
        let matrix = steps(&from).map(|step| coordinates(&target, &step));
        let apart = [0, 1, 2].map(|part| own.origin_mm[part] - other.origin_mm[part]);
        let shift = coordinates(&target, &apart);
        let is_finite = matrix.iter().flatten().chain(&shift).all(|part| part.is_finite());
        let (from, to) = (from.grid.shape, to.grid.shape);
        is_finite.then_some(Self { matrix, shift, from, to })
    }

    /// The voxel of the other grid that the centre of each voxel lies in, in row-major order; nothing for those outside.
    fn targets(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        let [slices, rows, columns] = self.from;
        let lines = (0..slices).flat_map(move |slice| (0..rows).map(move |row| [slice, row]));
        lines.flat_map(move |[slice, row]| {
            let [along_slices, along_rows, along_columns] = self.matrix;
            let start = [0, 1, 2].map(|axis| {
                self.shift[axis] + slice as f64 * along_slices[axis] + row as f64 * along_rows[axis]
            });
            (0..columns).map(move |column| {
                let mut target = 0;
                for axis in 0..3 {
                    let place = (start[axis] + column as f64 * along_columns[axis] + 0.5).floor();
                    if !(place >= 0.0 && place < self.to[axis] as f64) {
                        return None;
                    }
                    target = target * self.to[axis] + place as usize;
                }
                Some(target)
            })
        })
    }

    /// How many voxels have their centre in the other grid.
    fn shared(&self) -> usize {
        self.targets().flatten().count()
    }

    /// Every annotated voxel in the voxel of the other grid that it lies in.
    fn strokes(&self, labels: &[u8]) -> CarriedLabels {
        let (mut shared, mut labelled, mut outside) = (0, 0, 0);
        let mut votes = Vec::new();
        for (target, &label) in self.targets().zip(labels) {
            shared += usize::from(target.is_some());
            if label != IGNORE {
                labelled += 1;
                match target {
                    Some(target) => votes.push((target, label)),
                    None => outside += 1,
                }
            }
        }
        let mut values = vec![IGNORE; self.to.iter().product()];
        let kept = elect(votes, &mut values);
        CarriedLabels { values, shared, labelled, outside, met: labelled - outside - kept }
    }

    /// The label of the other grid at each voxel, `around` where there is none; `way` leads from there.
    fn looked_up(&self, labels: &[u8], way: &Self, around: u8) -> CarriedLabels {
        let mut shared = 0;
        let values = self.targets().map(|target| {
            shared += usize::from(target.is_some());
            target.map_or(around, |target| labels[target])
        });
        let values = values.collect();
        let is_labelled = |label: u8| label != around;
        let labelled = labels.iter().filter(|&&label| is_labelled(label)).count();
        let outside = way.targets().zip(labels);
        let outside = outside.filter(|(target, label)| target.is_none() && is_labelled(**label));
        CarriedLabels { values, shared, labelled, outside: outside.count(), met: 0 }
    }
}

/// Gives each voxel that has `votes`, pairs of a voxel and a label, the label of most of them, of equally many the
/// smallest that is not the background. Returns how many voxels have any.
pub fn elect(votes: Vec<(usize, u8)>, values: &mut [u8]) -> usize {
    // The background comes last among equals.
    let mut votes: Vec<(usize, u8)> =
        votes.into_iter().map(|(voxel, label)| (voxel, label.wrapping_sub(1))).collect();
    votes.sort_unstable();
    let mut elected = 0;
    for voters in votes.chunk_by(|a, b| a.0 == b.0) {
        let mut most = 0;
        for class in voters.chunk_by(|a, b| a.1 == b.1).filter(|class| !class.is_empty()) {
            if class.len() > most {
                most = class.len();
                values[class[0].0] = class[0].1.wrapping_add(1);
            }
        }
        elected += 1;
    }
    elected
}
