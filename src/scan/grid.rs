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
    /// Vectors along slices, rows, columns. Their length is 1 but for what headers round: with the spacing of
    /// the grid they give the place of each voxel that the file gives.
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

    /// Where a voxel lies, which may be between voxels or outside of the grid: `[z, y, x]` in voxels. Nothing
    /// where the grid lies nowhere in particular.
    pub fn position_mm(&self, voxel: [f64; 3]) -> Option<[f64; 3]> {
        self.placement.map(|placement| self.position_by(&placement, voxel))
    }

    /// The same if this placement held.
    pub(super) fn position_by(&self, placement: &Placement, voxel: [f64; 3]) -> [f64; 3] {
        let spacing_mm = self.spacing_mm.unwrap_or([1.0; 3]);
        let mut position_mm = placement.origin_mm;
        for axis in 0..3 {
            for (position, direction) in position_mm.iter_mut().zip(placement.direction[axis]) {
                *position += voxel[axis] * spacing_mm[axis] * direction;
            }
        }
        position_mm
    }
}

impl Placement {
    /// Where slices, rows and columns run, each as the nearest direction of the patient: `right`, `left`, `front`,
    /// `back`, `head` or `feet`.
    pub fn course(&self) -> [&'static str; 3] {
        self.direction.map(towards)
    }
}

/// Where an axis runs, as the nearest direction of the patient.
fn towards([x, y, z]: [f64; 3]) -> &'static str {
    if x.abs() >= y.abs() && x.abs() >= z.abs() {
        if x > 0.0 { "right" } else { "left" }
    } else if y.abs() >= z.abs() {
        if y > 0.0 { "front" } else { "back" }
    } else if z > 0.0 {
        "head"
    } else {
        "feet"
    }
}

/// Where element `index` of a `[slices, rows, columns]` array lies, in words.
pub fn place(index: usize, shape: [usize; 3]) -> String {
    let pixels = (shape[1] * shape[2]).max(1);
    let columns = shape[2].max(1);
    let (slice, pixel) = (index / pixels, index % pixels);
    format!("in slice {slice} at row {}, column {}", pixel / columns, pixel % columns)
}
