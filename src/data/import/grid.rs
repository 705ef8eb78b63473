//! Where the voxels of a volume lie in the scanner, and how labels must be turned to lie on their image.
//!
//! One matrix per file, from voxel to millimetres, says it: the sform where it is coded, else the qform,
//! as nibabel reads them; two files are compared by where this puts their outermost voxels, and not by
//! fields of their headers. Axes are x, y, z as in the file. Knows neither values nor names of files.

use super::nifti_header::Header;

/// How far the outermost voxels of labels may lie from those of their image, in voxels: more than
/// headers are off by rounding, too little to move a label by one.
const TOLERANCE: f64 = 0.1;

/// By how much distances may differ that should be the same, relative to them.
const SPACING_TOLERANCE: f64 = 2e-3;

/// Rows of an affine map from voxel to millimetres.
type Matrix = [[f64; 4]; 3];

/// A regular grid of voxels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    /// Voxels along x, y, z.
    pub(super) extents: [usize; 3],
    /// Distance of voxel centres along x, y, z.
    pub(super) spacing_mm: [f64; 3],
    /// Where voxels lie, if the file says so.
    pub(super) matrix: Option<Matrix>,
    /// What a second description in the file says, if that is something else.
    pub(super) contradiction: Option<Matrix>,
    /// Whether the file names its unit of length; otherwise millimetres are assumed.
    pub(super) has_unit: bool,
    /// Millimetres in that unit.
    unit_mm: f64,
}

/// What is wrong with a description, or worth to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The matrix is coded, but puts all voxels into a plane, or nowhere.
    Sform,
    /// The same of the quaternion.
    Qform,
    /// Distances of voxels differ between the matrix and `pixdim`.
    Spacing,
}

/// For each axis of an image: the axis of the labels that runs along it, and whether it runs back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    axes: [usize; 3],
    flipped: [bool; 3],
}

/// The grid of a file. An `Err` holds a spacing that is none.
pub(super) fn grid(header: &Header) -> Result<(Grid, Vec<Doubt>), f32> {
    let unit_mm = header.unit_mm.unwrap_or(1.0);
    let mut doubts = Vec::new();
    let extents = header.extents;
    let stored: [Option<f64>; 3] = std::array::from_fn(|axis| {
        // Shortest decimal of the stored f32: 1.5625, 1.37 rather than 1.37000000477.
        let spacing = header.pixdim[axis + 1].to_string().parse::<f64>().ok();
        spacing.filter(|&spacing| spacing.is_finite() && spacing > 0.0).map(|s| s * unit_mm)
    });
    let mut usable = |matrix: Option<Matrix>, doubt| {
        let sound = matrix.filter(|matrix| is_placement(matrix, extents));
        if matrix.is_some() && sound.is_none() {
            doubts.push(doubt);
        }
        sound
    };
    let sform = header.sform.map(|rows| rows.map(|row| row.map(|cell| f64::from(cell) * unit_mm)));
    let sform = usable(sform, Doubt::Sform);
    let along = |axis: usize| stored[axis].or((extents[axis] == 1).then_some(1.0));
    let pixdim = match [along(0), along(1), along(2)] {
        [Some(x), Some(y), Some(z)] => Some([x, y, z]),
        _ => None,
    };
    let qform = header.qform.zip(pixdim).and_then(|(fields, spacing)| {
        let qfac = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
        usable(Some(quaternion_matrix(fields, spacing, qfac, unit_mm)), Doubt::Qform)
    });
    let matrix = sform.or(qform);
    let mut spacing_mm = [1.0; 3];
    for axis in 0..3 {
        let length = matrix.map(|matrix| column_length(&matrix, axis)).filter(|&mm| mm > 0.0);
        spacing_mm[axis] = match (stored[axis], length) {
            (Some(stored), Some(length)) if !close(stored, length) => {
                if extents[axis] > 1 {
                    doubts.push(Doubt::Spacing);
                }
                length
            }
            (Some(spacing), _) | (None, Some(spacing)) => spacing,
            (None, None) if extents[axis] == 1 => 1.0,
            (None, None) => return Err(header.pixdim[axis + 1]),
        };
    }
    let has_unit = header.unit_mm.is_some();
    let mut grid = Grid { extents, spacing_mm, matrix, contradiction: None, has_unit, unit_mm };
    grid.contradiction = sform.and(qform).filter(|other| !grid.is_at(Order::SAME, &grid, other));
    doubts.dedup();
    Ok((grid, doubts))
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= SPACING_TOLERANCE * b.abs()
}

/// Whether a matrix puts every voxel into a place of its own.
fn is_placement(matrix: &Matrix, extents: [usize; 3]) -> bool {
    let is_finite = matrix.iter().flatten().all(|cell| cell.is_finite());
    let columns: [[f64; 3]; 3] = std::array::from_fn(|axis| direction(matrix, axis));
    let apart = |a: usize, b: usize| {
        extents[a] == 1 || extents[b] == 1 || dot(&columns[a], &columns[b]).abs() < 0.999
    };
    let solid = extents.contains(&1) || determinant(&columns).abs() > 1e-3;
    is_finite
        && solid
        && (0..3).all(|axis| extents[axis] == 1 || column_length(matrix, axis) > 1e-6)
        && apart(0, 1)
        && apart(0, 2)
        && apart(1, 2)
}

fn column_length(matrix: &Matrix, axis: usize) -> f64 {
    matrix.iter().map(|row| row[axis] * row[axis]).sum::<f64>().sqrt()
}

/// Where an axis points, as a vector of length 1, or of 0 where it has none.
fn direction(matrix: &Matrix, axis: usize) -> [f64; 3] {
    let length = column_length(matrix, axis).max(f64::MIN_POSITIVE);
    matrix.map(|row| row[axis] / length)
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn determinant([a, b, c]: &[[f64; 3]; 3]) -> f64 {
    let cross = [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]];
    dot(a, &cross)
}

/// The matrix of a quaternion b, c, d with the position of the first voxel, by the standard's formula.
///
/// A quaternion that is a little too long by rounding is shortened, as nibabel and ITK do it; a longer
/// one is no rotation, and gives NaN.
fn quaternion_matrix(fields: [f32; 6], spacing: [f64; 3], qfac: f64, unit_mm: f64) -> Matrix {
    let [b, c, d, x, y, z] = fields.map(f64::from);
    let squares = b * b + c * c + d * d;
    let (a, [b, c, d]) = if squares > 1.01 {
        (f64::NAN, [b, c, d])
    } else if 1.0 - squares < 1e-7 {
        (0.0, [b, c, d].map(|part| part / squares.sqrt()))
    } else {
        ((1.0 - squares).sqrt(), [b, c, d])
    };
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let origin = [x, y, z];
    std::array::from_fn(|row| {
        let [along_x, along_y, along_z] = rotation[row];
        [
            along_x * spacing[0],
            along_y * spacing[1],
            along_z * spacing[2] * qfac,
            origin[row] * unit_mm,
        ]
    })
}

/// Where a voxel lies.
fn position(matrix: &Matrix, voxel: [f64; 3]) -> [f64; 3] {
    matrix.map(|[x, y, z, origin]| x * voxel[0] + y * voxel[1] + z * voxel[2] + origin)
}

impl Order {
    /// Labels that are stored as their image is.
    pub(super) const SAME: Self = Self { axes: [0, 1, 2], flipped: [false; 3] };

    /// All of them, [`Order::SAME`] first.
    fn all() -> impl Iterator<Item = Self> {
        let axes = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]];
        axes.into_iter().flat_map(|axes| {
            (0..8).map(move |bits| Self { axes, flipped: [1, 2, 4].map(|bit| bits & bit > 0) })
        })
    }

    /// `values` of labels with these extents along x, y, z, in the order of their image.
    pub(super) fn carry(self, values: &[f64], extents: [usize; 3]) -> Vec<f64> {
        let strides = [1, extents[0], extents[0] * extents[1]];
        let [along_x, along_y, along_z] = [0, 1, 2].map(|axis| {
            let (count, stride) = (extents[self.axes[axis]], strides[self.axes[axis]]);
            let place = move |index: usize| {
                if self.flipped[axis] { (count - 1 - index) * stride } else { index * stride }
            };
            (0..count).map(place).collect::<Vec<usize>>()
        });
        let rows = along_z.iter().flat_map(|z| along_y.iter().map(move |y| z + y));
        rows.flat_map(|row| along_x.iter().map(move |x| values[row + x])).collect()
    }
}

impl Grid {
    /// Lengths in the unit of `other`, where this file names none.
    fn in_unit_of(&self, other: &Self) -> Self {
        let factor = if !self.has_unit && other.has_unit { other.unit_mm } else { 1.0 };
        let scale = |matrix: Matrix| matrix.map(|row| row.map(|cell| cell * factor));
        Self {
            spacing_mm: self.spacing_mm.map(|mm| mm * factor),
            matrix: self.matrix.map(scale),
            contradiction: self.contradiction.map(scale),
            unit_mm: self.unit_mm * factor,
            ..self.clone()
        }
    }

    /// Whether labels on the grid `labels`, placed by `matrix`, lie on this one when taken in this order.
    fn is_at(&self, order: Order, labels: &Self, matrix: &Matrix) -> bool {
        let Some(own) = &self.matrix else { return false };
        let differs = |axis: usize| {
            let other = order.axes[axis];
            self.extents[axis] != labels.extents[other]
                || (self.extents[axis] > 1
                    && !close(labels.spacing_mm[other], self.spacing_mm[axis]))
        };
        if (0..3).any(differs) {
            return false;
        }
        let wide = (0..3).filter(|&axis| self.extents[axis] > 1);
        let voxel_mm = wide.map(|axis| self.spacing_mm[axis]).reduce(f64::min);
        let most = TOLERANCE * voxel_mm.unwrap_or(self.spacing_mm[0]);
        (0..8).all(|corner: usize| {
            let (mut here, mut there) = ([0.0; 3], [0.0; 3]);
            for axis in 0..3 {
                let last = (self.extents[axis] - 1) as f64;
                here[axis] = if corner >> axis & 1 > 0 { last } else { 0.0 };
                there[order.axes[axis]] =
                    if order.flipped[axis] { last - here[axis] } else { here[axis] };
            }
            distance(&position(own, here), &position(matrix, there)) <= most
        })
    }

    /// How `labels` must be turned to lie on this grid; None where no turn puts them there.
    ///
    /// Where one of the two does not say where it lies, equal extents and distances must do.
    pub(super) fn order_of(&self, labels: &Self) -> Option<Order> {
        let (image, labels) = (self.in_unit_of(labels), labels.in_unit_of(self));
        let Some(matrix) = labels.matrix.filter(|_| image.matrix.is_some()) else {
            let alike = image.extents == labels.extents && image.has_spacing_of(&labels);
            return alike.then_some(Order::SAME);
        };
        Order::all().find(|&order| image.is_at(order, &labels, &matrix))
    }

    /// Whether a file says neither where voxels lie nor how far they are apart.
    fn says_nothing(&self) -> bool {
        self.matrix.is_none() && self.spacing_mm.iter().all(|&mm| close(mm, self.unit_mm))
    }

    fn has_spacing_of(&self, labels: &Self) -> bool {
        let alike = |axis: usize| {
            self.extents[axis] == 1 || close(labels.spacing_mm[axis], self.spacing_mm[axis])
        };
        self.says_nothing() || labels.says_nothing() || (0..3).all(alike)
    }

    /// Why [`Grid::order_of`] finds none, as the end of "labels …".
    pub(super) fn difference(&self, labels: &Self) -> String {
        let (image, labels) = (self.in_unit_of(labels), labels.in_unit_of(self));
        let reversed = |[x, y, z]: [usize; 3]| [z, y, x];
        let (mut extents, mut expected) = (labels.extents, image.extents);
        let as_stored = extents == expected;
        extents.sort_unstable();
        expected.sort_unstable();
        let (Some(own), Some(matrix), true) = (&image.matrix, &labels.matrix, extents == expected)
        else {
            return if as_stored {
                spacing_difference(&image, &labels)
            } else {
                let (found, expected) = (reversed(labels.extents), reversed(image.extents));
                format!("has shape {found:?}, expected {expected:?} as its image has")
            };
        };
        // Which axis of the labels runs along each of the image's, and in which direction.
        let cosine =
            |axis: usize, other: usize| dot(&direction(own, axis), &direction(matrix, other));
        let best = |order: &Order| (0..3).map(|a| cosine(a, order.axes[a]).abs()).sum::<f64>();
        let aligned = Order::all().filter(|order| order.flipped == [false; 3]);
        let aligned =
            aligned.fold(Order::SAME, |a, b| if best(&b) > best(&a) + 1e-6 { b } else { a });
        let turned = (0..3).map(|axis| cosine(axis, aligned.axes[axis]).abs()).fold(1.0, f64::min);
        let degrees = turned.min(1.0).acos().to_degrees();
        if degrees > 0.1 {
            return format!(
                "is turned against its image by {degrees:.1} degrees, expected the same axes"
            );
        }
        let axes = aligned.axes;
        if (0..3).any(|axis| labels.extents[axes[axis]] != image.extents[axis]) {
            let found = reversed(axes.map(|axis| labels.extents[axis]));
            return format!(
                "has shape {found:?} along the axes of its image, expected {:?}",
                reversed(image.extents)
            );
        }
        let spacing_mm = axes.map(|axis| labels.spacing_mm[axis]);
        if !image.has_spacing_of(&Self { spacing_mm, ..labels.clone() }) {
            return spacing_difference(&image, &Self { spacing_mm, ..labels });
        }
        let shift = distance(&image.middle(own), &labels.middle(matrix));
        let back: Vec<&str> = (0..3)
            .filter(|&axis| cosine(axis, axes[axis]) < 0.0)
            .map(|axis| ["columns", "rows", "slices"][axis])
            .collect();
        let stored = match (axes == Order::SAME.axes, back.is_empty()) {
            (true, true) => String::new(),
            (true, false) => format!(", with {} stored the other way round", back.join(" and ")),
            (false, _) => ", with its axes in another order".to_owned(),
        };
        format!("lies {shift:.2} mm away from its image{stored}, expected it on its image")
    }

    fn middle(&self, matrix: &Matrix) -> [f64; 3] {
        position(matrix, self.extents.map(|extent| (extent - 1) as f64 / 2.0))
    }

    /// Whether labels would lie on this image if the other description of either file held.
    pub(super) fn agrees_otherwise(&self, labels: &Self) -> bool {
        let ways = |grid: &Self| [grid.matrix, grid.contradiction];
        ways(self).into_iter().flatten().any(|own| {
            let image = Self { matrix: Some(own), ..self.clone() };
            let mut placed = ways(labels).into_iter().flatten();
            placed.any(|matrix| {
                image.order_of(&Self { matrix: Some(matrix), ..labels.clone() }).is_some()
            })
        })
    }
}

fn spacing_difference(image: &Grid, labels: &Grid) -> String {
    let [found, expected] = [labels, image].map(|grid| {
        let [x, y, z] = grid.spacing_mm;
        [z, y, x]
    });
    format!("has spacing {found:?}, expected {expected:?} as its image has")
}

fn distance(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}
