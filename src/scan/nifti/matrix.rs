//! From the header of a NIfTI file to a grid in the patient.
//!
//! One matrix per file, from voxel to millimetres, says where voxels lie: the sform where it is coded, else
//! the qform, as nibabel reads them. Matrices have axes x, y, z as in the file; grids have slices, rows and
//! columns, which are z, y, x. Knows neither values nor files.

use super::header::Header;
use crate::scan::alignment::{AxisOrder, FileGrid, close};
use crate::scan::grid::{Grid, Placement};
use crate::scan::vectors::{completed, determinant, dot, unit};

/// Rows of an affine map from voxel to millimetres.
type Matrix = [[f64; 4]; 3];

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

/// The grid of a file that is called `name`. An `Err` holds a spacing that is none.
pub(super) fn grid(header: &Header, name: &str) -> Result<(FileGrid, Vec<Doubt>), f64> {
    let unit_mm = header.unit_mm.unwrap_or(1.0);
    let mut doubts = Vec::new();
    let extents = header.extents;
    let stored: [Option<f64>; 3] = std::array::from_fn(|axis| {
        let spacing = header.pixdim[axis + 1];
        (spacing.is_finite() && spacing > 0.0).then_some(spacing * unit_mm)
    });
    let mut usable = |matrix: Option<Matrix>, doubt| {
        let sound = matrix.filter(|matrix| is_placement(matrix, extents));
        if matrix.is_some() && sound.is_none() {
            doubts.push(doubt);
        }
        sound
    };
    let sform = header.sform.map(|rows| rows.map(|row| row.map(|cell| cell * unit_mm)));
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
    let placed = |matrix: Matrix| placement(&matrix, spacing_mm);
    let [x, y, z] = extents;
    let grid = Grid {
        shape: [z, y, x],
        spacing_mm: Some(reversed(spacing_mm)),
        placement: matrix.map(placed),
    };
    let (name, unit_mm) = (name.to_owned(), header.unit_mm);
    let mut file = FileGrid { grid, name, otherwise: None, unit_mm };
    let other = sform.and(qform).map(placed);
    file.otherwise = other.filter(|other| !file.is_at(AxisOrder::SAME, &file.grid, other));
    doubts.dedup();
    Ok((file, doubts))
}

fn reversed<T>([x, y, z]: [T; 3]) -> [T; 3] {
    [z, y, x]
}

/// What a matrix says beside the spacing along x, y, z. An axis of one voxel for which it has no direction
/// stands upright on the others.
fn placement(matrix: &Matrix, spacing_mm: [f64; 3]) -> Placement {
    let along = |axis: usize| matrix.map(|row| row[axis] / spacing_mm[axis]);
    let direction = completed([along(2), along(1), along(0)]);
    Placement { direction, origin_mm: matrix.map(|row| row[3]) }
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
    unit(matrix.map(|row| row[axis]))
}

/// The matrix of a quaternion b, c, d with the position of the first voxel, by the standard's formula.
///
/// A quaternion that is a little too long by rounding is shortened, as nibabel and ITK do it; a longer
/// one is no rotation, and gives NaN.
fn quaternion_matrix(fields: [f64; 6], spacing: [f64; 3], qfac: f64, unit_mm: f64) -> Matrix {
    let [b, c, d, x, y, z] = fields;
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
