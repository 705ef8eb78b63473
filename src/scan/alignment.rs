//! Whether two files lie on each other, and how labels must be turned to lie on their image.
//!
//! Grids are compared by where they put their outermost voxels, and not by fields of headers. Knows neither
//! values nor formats.

use super::grid::{Grid, Placement};
use super::vectors::{coordinates, distance, dot, unit};

/// How far the outermost voxels of labels may lie from those of their image, in voxels: more than
/// headers are off by rounding, too little to move a label by one.
const TOLERANCE: f64 = 0.1;

/// Below this many voxels headers say the same.
const EQUAL: f64 = 1e-4;

/// By how much distances may differ that should be the same, relative to them.
const SPACING_TOLERANCE: f64 = 2e-3;

/// What the axes of an array are called.
const AXES: [&str; 3] = ["slices", "rows", "columns"];

/// How far labels may lie from their image, in voxels.
const FURTHEST_VOXELS: f64 = 1e9;

/// A grid as a file describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct FileGrid {
    /// Where its voxels lie.
    pub grid: Grid,
    /// What the file is called in messages.
    pub(super) name: String,
    /// Where a second description in the file puts it, if that is somewhere else.
    pub(super) otherwise: Option<Placement>,
    /// Millimetres in the unit of length that the file names; where it names none, millimetres are assumed.
    pub(super) unit_mm: Option<f64>,
}

/// For each axis of an image, which are slices, rows and columns: the axis of the labels that runs along it,
/// and whether it runs back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AxisOrder {
    axes: [usize; 3],
    flipped: [bool; 3],
}

/// Whether two distances are the same but for rounding.
pub(super) fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= SPACING_TOLERANCE * b.abs()
}

impl AxisOrder {
    /// Labels that are stored as their image is.
    pub(super) const SAME: Self = Self { axes: [0, 1, 2], flipped: [false; 3] };

    /// All 48 of them, [`AxisOrder::SAME`] first.
    fn all() -> impl Iterator<Item = Self> {
        let axes = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]];
        axes.into_iter().flat_map(|axes| {
            (0..8).map(move |bits| Self { axes, flipped: [1, 2, 4].map(|bit| bits & bit > 0) })
        })
    }

    /// How it differs from [`AxisOrder::SAME`], as the end of a sentence.
    fn words(self) -> String {
        let back = (0..3).rev().filter(|&axis| self.flipped[axis]);
        let back: Vec<&str> = back.map(|axis| AXES[axis]).collect();
        match (self.axes == Self::SAME.axes, back.is_empty()) {
            (true, true) => String::new(),
            (true, false) => format!(", with {} stored the other way round", back.join(" and ")),
            (false, _) => ", with its axes in another order".to_owned(),
        }
    }

    /// What labels of this shape hold, in the order of their image.
    pub(super) fn carry<T: Copy>(self, values: &[T], shape: [usize; 3]) -> Vec<T> {
        let strides = [shape[1] * shape[2], shape[2], 1];
        let [slices, rows, columns] = [0, 1, 2].map(|axis| {
            let (count, stride) = (shape[self.axes[axis]], strides[self.axes[axis]]);
            let place = move |index: usize| {
                if self.flipped[axis] { (count - 1 - index) * stride } else { index * stride }
            };
            (0..count).map(place).collect::<Vec<usize>>()
        });
        let lines = slices.iter().flat_map(|slice| rows.iter().map(move |row| slice + row));
        lines.flat_map(|line| columns.iter().map(move |column| values[line + column])).collect()
    }
}

/// A box of labels on the voxels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImagePart {
    order: AxisOrder,
    /// Slices, rows, columns of the box, in the order of the image.
    extents: [usize; 3],
    /// The voxel of the image on which the first of the box lies, which may be outside.
    first: [i64; 3],
}

impl ImagePart {
    /// Labels on a whole image of `shape`, `around` where the box does not reach; how many others lie outside.
    ///
    /// `values` has the order and `stored` the shape of the file of the labels.
    pub(super) fn carry(
        &self,
        values: &[u8],
        stored: [usize; 3],
        shape: [usize; 3],
        around: u8,
    ) -> (Vec<u8>, usize) {
        let values = self.order.carry(values, stored);
        let [_, box_rows, box_columns] = self.extents;
        let mut whole = vec![around; shape.iter().product()];
        let mut outside = 0;
        let on_image = |axis: usize, index: usize| {
            let index = usize::try_from(self.first[axis] + index as i64).ok()?;
            (index < shape[axis]).then_some(index)
        };
        for (line, values) in values.chunks(box_columns.max(1)).enumerate() {
            let [slice, row] = [line / box_rows, line % box_rows];
            let line = on_image(0, slice).zip(on_image(1, row));
            for (column, &value) in values.iter().enumerate() {
                match line.zip(on_image(2, column)) {
                    Some(((slice, row), column)) => {
                        whole[(slice * shape[1] + row) * shape[2] + column] = value;
                    }
                    None => outside += usize::from(value != around),
                }
            }
        }
        (whole, outside)
    }
}

impl From<&Grid> for FileGrid {
    fn from(grid: &Grid) -> Self {
        Self { grid: grid.clone(), name: "the image".into(), otherwise: None, unit_mm: Some(1.0) }
    }
}

impl FileGrid {
    /// Lengths in the unit of `other`, where this file names none.
    pub(super) fn in_unit_of(&self, other: &Self) -> Self {
        let Some(factor) = other.unit_mm.filter(|_| self.unit_mm.is_none()) else {
            return self.clone();
        };
        let scale = |lengths: [f64; 3]| lengths.map(|length| length * factor);
        let moved = |placement: Placement| Placement {
            origin_mm: scale(placement.origin_mm),
            direction: placement.direction,
        };
        let grid = Grid {
            shape: self.grid.shape,
            spacing_mm: self.grid.spacing_mm.map(scale),
            placement: self.grid.placement.map(moved),
        };
        let otherwise = self.otherwise.map(moved);
        Self { grid, name: self.name.clone(), otherwise, unit_mm: Some(factor) }
    }

    pub(super) fn spacing_mm(&self) -> [f64; 3] {
        self.grid.spacing_mm.unwrap_or([1.0; 3])
    }

    /// Whether labels on the grid `labels`, placed by `placement`, lie on this one when taken in this order.
    pub(super) fn is_at(&self, order: AxisOrder, labels: &Grid, placement: &Placement) -> bool {
        let apart_mm = self.apart_mm(order, labels, placement);
        apart_mm.is_some_and(|apart_mm| apart_mm <= TOLERANCE * self.smallest_mm())
    }

    /// The smallest distance of voxels along an axis that has several.
    fn smallest_mm(&self) -> f64 {
        let (shape, spacing_mm) = (self.grid.shape, self.spacing_mm());
        let wide = (0..3).filter(|&axis| shape[axis] > 1);
        wide.map(|axis| spacing_mm[axis]).reduce(f64::min).unwrap_or(spacing_mm[2])
    }

    /// How far the outermost voxels of labels on the grid `labels`, placed by `placement` and taken in this order, lie
    /// from those of this one at the most; None where shapes or distances differ.
    fn apart_mm(&self, order: AxisOrder, labels: &Grid, placement: &Placement) -> Option<f64> {
        let own = self.grid.placement?;
        let (shape, spacing_mm) = (self.grid.shape, self.spacing_mm());
        let labels_mm = labels.spacing_mm.unwrap_or([1.0; 3]);
        let differs = |axis: usize| {
            let other = order.axes[axis];
            shape[axis] != labels.shape[other]
                || (shape[axis] > 1 && !close(labels_mm[other], spacing_mm[axis]))
        };
        if (0..3).any(differs) {
            return None;
        }
        let apart_mm = (0..8).map(|corner: usize| {
            let (mut here, mut there) = ([0.0; 3], [0.0; 3]);
            for axis in 0..3 {
                let last = (shape[axis] - 1) as f64;
                here[axis] = if corner >> axis & 1 > 0 { last } else { 0.0 };
                there[order.axes[axis]] =
                    if order.flipped[axis] { last - here[axis] } else { here[axis] };
            }
            let (here, there) =
                (self.grid.position_by(&own, here), labels.position_by(placement, there));
            distance(&here, &there)
        });
        // A place that is no number is nowhere near.
        Some(apart_mm.fold(
            0.0,
            |most: f64, apart| {
                if most.is_nan() || apart <= most { most } else { apart }
            },
        ))
    }

    /// How labels that lie on this image, as `order` has them, do so, as the end of "labels …".
    pub(super) fn agreement(&self, order: AxisOrder, labels: &Self) -> String {
        let (image, labels) = (self.in_unit_of(labels), labels.in_unit_of(self));
        let Some(placement) = labels.grid.placement.filter(|_| image.grid.placement.is_some())
        else {
            return "has the shape and the spacing of its image; that it lies on it cannot be checked, as one of the \
                    two does not say where it lies"
                .to_owned();
        };
        let apart_mm = image.apart_mm(order, &labels.grid, &placement).unwrap_or(0.0);
        let apart = apart_mm / image.smallest_mm();
        let turned = match order.words() {
            words if words.is_empty() => words,
            words => format!("{words}: it is turned when it is read"),
        };
        if apart < EQUAL {
            return format!("lies on its image voxel by voxel{turned}");
        }
        format!(
            "lies on its image voxel by voxel{turned}; what the headers say differs by {apart:.1e} voxels, and \
             {TOLERANCE} may be rounding"
        )
    }

    /// How `labels` must be turned to lie on this grid; None where no turn puts them there.
    ///
    /// Where one of the two does not say where it lies, equal shapes and distances must do.
    pub(super) fn order_of(&self, labels: &Self) -> Option<AxisOrder> {
        let (image, labels) = (self.in_unit_of(labels), labels.in_unit_of(self));
        let both = image.grid.placement.and(labels.grid.placement);
        let Some(placement) = both else {
            let alike = image.grid.shape == labels.grid.shape && image.has_spacing_of(&labels);
            return alike.then_some(AxisOrder::SAME);
        };
        AxisOrder::all().find(|&order| image.is_at(order, &labels.grid, &placement))
    }

    /// Where labels that may cover a part of this image, or reach beyond it, lie on its voxels; None where they
    /// are turned or lie between voxels.
    pub(super) fn part_of(&self, labels: &Self) -> Option<ImagePart> {
        let (image, labels) = (self.in_unit_of(labels), labels.in_unit_of(self));
        let (own, other) = (image.grid.placement?, labels.grid.placement?);
        let (image_mm, labels_mm) = (image.spacing_mm(), labels.spacing_mm());
        let most = TOLERANCE * image_mm.into_iter().fold(f64::INFINITY, f64::min);
        let steps = [0, 1, 2].map(|axis| own.direction[axis].map(|part| part * image_mm[axis]));
        let found = |order: AxisOrder| {
            if (0..3).any(|axis| !close(labels_mm[order.axes[axis]], image_mm[axis])) {
                return None;
            }
            let extents = order.axes.map(|axis| labels.grid.shape[axis]);
            let from_origin = |corner: [f64; 3]| {
                let mut there = [0.0; 3];
                for (axis, &index) in corner.iter().enumerate() {
                    let last = (extents[axis] - 1) as f64;
                    there[order.axes[axis]] =
                        if order.flipped[axis] { last - index } else { index };
                }
                let place = labels.grid.position_by(&other, there);
                [0, 1, 2].map(|part| place[part] - own.origin_mm[part])
            };
            let first = coordinates(&steps, &from_origin([0.0; 3])).map(f64::round);
            let is_at = (0..8).all(|corner: usize| {
                let index = [0, 1, 2].map(|axis| {
                    if corner >> axis & 1 > 0 { (extents[axis] - 1) as f64 } else { 0.0 }
                });
                let here = [0, 1, 2].map(|part| {
                    (0..3).map(|axis| (first[axis] + index[axis]) * steps[axis][part]).sum()
                });
                distance(&here, &from_origin(index)) <= most
            });
            let is_near = first.iter().all(|index| index.abs() < FURTHEST_VOXELS);
            (is_at && is_near).then(|| ImagePart { order, extents, first: first.map(|i| i as i64) })
        };
        AxisOrder::all().find_map(found)
    }

    /// Whether `labels` lie on this grid, on all of it or on a part, turned or not.
    pub fn lies_under(&self, labels: &Self) -> bool {
        self.order_of(labels).is_some() || self.part_of(labels).is_some()
    }

    /// What a mistake in one of the headers has done, where `labels` would lie on this grid without it, as the end of
    /// "labels …".
    pub(super) fn mistake(&self, labels: &Self) -> Option<String> {
        let (image, labels) = (self.in_unit_of(labels), labels.in_unit_of(self));
        let (own, other) = (image.grid.placement?, labels.grid.placement?);
        let fits = |placement: Placement| {
            AxisOrder::all().any(|order| image.is_at(order, &labels.grid, &placement))
        };
        let turned = |[x, y, z]: [f64; 3]| [-x, -y, z];
        let exchanged = Placement {
            origin_mm: turned(other.origin_mm),
            direction: other.direction.map(turned),
        };
        if fits(exchanged) {
            return Some(
                "lies on its image with left and right, front and back exchanged, as where LPS was taken for RAS, \
                 expected it on its image"
                    .to_owned(),
            );
        }
        for bits in 1..8 {
            let back = [0, 1, 2].map(|axis| bits >> axis & 1 > 0);
            let mut mirrored = other;
            for axis in (0..3).filter(|&axis| back[axis]) {
                mirrored.direction[axis] = mirrored.direction[axis].map(|part| -part);
            }
            let is_flat = (0..3).any(|axis| back[axis] && labels.grid.shape[axis] == 1);
            if !is_flat && fits(mirrored) {
                let along = (0..3)
                    .map(|axis| dot(&unit(own.direction[axis]), &unit(other.direction[axis])));
                let named = along.zip(AXES).filter(|(cosine, _)| *cosine < -0.5);
                let named: Vec<&str> = named.map(|(_, name)| name).collect();
                let what = if named.is_empty() { "axes".to_owned() } else { named.join(" and ") };
                return Some(format!(
                    "has {what} that run the other way than those of its image, from the same first voxel, \
                     expected it on its image"
                ));
            }
        }
        None
    }

    /// Whether a file says neither where voxels lie nor how far they are apart.
    fn says_nothing(&self) -> bool {
        let unit_mm = self.unit_mm.unwrap_or(1.0);
        let is_unit = |spacing: [f64; 3]| spacing.iter().all(|&mm| close(mm, unit_mm));
        self.grid.placement.is_none() && self.grid.spacing_mm.is_none_or(is_unit)
    }

    fn has_spacing_of(&self, labels: &Self) -> bool {
        let alike = |axis: usize| {
            self.grid.shape[axis] == 1 || close(labels.spacing_mm()[axis], self.spacing_mm()[axis])
        };
        self.says_nothing() || labels.says_nothing() || (0..3).all(alike)
    }

    /// Why `labels` do not lie on this grid, as the end of "labels …".
    pub(super) fn difference(&self, labels: &Self) -> String {
        if let Some(mistake) = self.mistake(labels) {
            return mistake;
        }
        let (image, mut labels) = (self.in_unit_of(labels), labels.in_unit_of(self));
        let (mut found, mut expected) = (labels.grid.shape, image.grid.shape);
        let as_stored = found == expected;
        found.sort_unstable();
        expected.sort_unstable();
        let (Some(own), Some(placement), true) =
            (image.grid.placement, labels.grid.placement, found == expected)
        else {
            return if as_stored {
                spacing_difference(&image, &labels)
            } else {
                let (found, expected) = (labels.grid.shape, image.grid.shape);
                format!("has shape {found:?}, expected {expected:?} as its image has")
            };
        };
        // Which axis of the labels runs along each of the image's, and in which direction.
        let cosine = |axis: usize, other: usize| {
            dot(&unit(own.direction[axis]), &unit(placement.direction[other]))
        };
        let best = |order: &AxisOrder| (0..3).map(|a| cosine(a, order.axes[a]).abs()).sum::<f64>();
        let aligned = AxisOrder::all().filter(|order| order.flipped == [false; 3]);
        let aligned =
            aligned.fold(AxisOrder::SAME, |a, b| if best(&b) > best(&a) + 1e-6 { b } else { a });
        let axes = aligned.axes;
        let turned = (0..3).map(|axis| cosine(axis, axes[axis]).abs()).fold(1.0, f64::min);
        let degrees = turned.min(1.0).acos().to_degrees();
        if degrees > 0.1 {
            return format!(
                "is turned against its image by {degrees:.1} degrees, expected the same axes"
            );
        }
        let middle_mm = labels.middle(&placement);
        let along = axes.map(|axis| labels.grid.shape[axis]);
        if along != image.grid.shape {
            return format!(
                "has shape {along:?} along the axes of its image, expected {:?}",
                image.grid.shape
            );
        }
        labels.grid.spacing_mm = Some(axes.map(|axis| labels.spacing_mm()[axis]));
        if !image.has_spacing_of(&labels) {
            return spacing_difference(&image, &labels);
        }
        let flipped = [0, 1, 2].map(|axis| cosine(axis, axes[axis]) < 0.0);
        let (shift, stored) = (image.shift(&own, &middle_mm), AxisOrder { axes, flipped }.words());
        format!("{shift}{stored}, expected at most {TOLERANCE} voxels")
    }

    /// How far labels whose middle lies there lie from this image, in words.
    fn shift(&self, own: &Placement, middle_mm: &[f64; 3]) -> String {
        let middle = self.middle(own);
        let spacing_mm = self.spacing_mm();
        let steps = [0, 1, 2].map(|axis| own.direction[axis].map(|part| part * spacing_mm[axis]));
        let apart = [0, 1, 2].map(|part| middle_mm[part] - middle[part]);
        let along = coordinates(&steps, &apart).into_iter().zip(AXES);
        let along = along.filter(|(voxels, _)| voxels.abs() >= 0.01);
        let along: Vec<String> =
            along.map(|(voxels, axis)| format!("{voxels:.2} {axis}")).collect();
        let along =
            if along.is_empty() { String::new() } else { format!(" ({})", along.join(", ")) };
        format!("is shifted by {:.2} mm against its image{along}", distance(&middle, middle_mm))
    }

    fn middle(&self, placement: &Placement) -> [f64; 3] {
        let middle = self.grid.shape.map(|extent| (extent - 1) as f64 / 2.0);
        self.grid.position_by(placement, middle)
    }

    /// Whether labels would lie on this image if the other description of either file held.
    pub(super) fn agrees_otherwise(&self, labels: &Self) -> bool {
        let ways = |file: &Self| [file.grid.placement, file.otherwise].into_iter().flatten();
        let placed = |file: &Self, placement: Placement| {
            let grid = Grid { placement: Some(placement), ..file.grid.clone() };
            Self { grid, ..file.clone() }
        };
        ways(self).any(|own| {
            let image = placed(self, own);
            ways(labels).any(|other| image.order_of(&placed(labels, other)).is_some())
        })
    }
}

fn spacing_difference(image: &FileGrid, labels: &FileGrid) -> String {
    let [found, expected] = [labels, image].map(FileGrid::spacing_mm);
    format!("has spacing {found:?}, expected {expected:?} as its image has")
}
