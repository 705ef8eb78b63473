//! Where the voxels of a volume lie: how many there are, how far apart, and in which direction.
//!
//! Knows neither values nor files. One convention holds in the whole program: arrays run over slices,
//! rows, columns, and millimetres are those of NIfTI, from the patient's left to the right, from back to
//! front, from the feet to the head.

/// A regular grid of voxels.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Slices, rows, columns.
    pub shape: [usize; 3],
    /// Distance of voxel centres along slices, rows, columns, where the source says so.
    pub spacing_mm: Option<[f64; 3]>,
    /// Where it lies in the patient, where the source says so.
    pub placement: Option<Placement>,
}

/// Where a grid lies in the patient.
///
/// Voxel `[z, y, x]` lies at `origin_mm + z s[0] direction[0] + y s[1] direction[1] + x s[2] direction[2]`
/// with the spacing `s` of the grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Unit vectors along slices, rows, columns.
    pub direction: [[f64; 3]; 3],
    /// Centre of the first voxel.
    pub origin_mm: [f64; 3],
}

impl Grid {
    /// A grid of `shape` that lies nowhere in particular.
    pub fn unplaced(shape: [usize; 3], spacing_mm: Option<[f64; 3]>) -> Self {
        Self { shape, spacing_mm, placement: None }
    }

    /// Pixels of one slice.
    pub fn pixels(&self) -> usize {
        self.shape[1] * self.shape[2]
    }

    /// Voxels of all slices.
    pub fn voxels(&self) -> usize {
        self.shape[0] * self.pixels()
    }

    /// Volume of one voxel in millilitres, where the spacing is known.
    pub fn voxel_ml(&self) -> Option<f64> {
        self.spacing_mm.map(|spacing| spacing.iter().product::<f64>() / 1000.0)
    }
}
