//! Smooth noise that synthetic images get their texture from. What it draws is frozen: phantoms use it.

use crate::random::{Draws, Key};

/// Smooth noise: normal numbers on a lattice, blended in between.
pub(super) struct Texture {
    lattice: Vec<f64>,
    /// Lattice points of each row.
    stride: usize,
    /// By pixel: the lattice point before it, and the blend towards the next.
    steps: Vec<(usize, f64)>,
}

impl Texture {
    /// Draws lattice points `cell` pixels apart for an image of `size` x `size`.
    pub(super) fn draw(draws: &mut Draws, size: usize, cell: f64) -> Self {
        let stride = (size as f64 / cell) as usize + 2;
        let key = Key::new(draws.bits());
        let mut normals = key.draws();
        let steps = (0..size).map(|pixel| {
            let position = pixel as f64 / cell;
            let share = position.fract();
            (position as usize, share * share * (3.0 - 2.0 * share))
        });
        Self {
            lattice: (0..stride * stride).map(|_| normals.normal()).collect(),
            stride,
            steps: steps.collect(),
        }
    }

    /// The noise at a pixel; its standard deviation is below 1, and 1 at lattice points.
    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        let ((top, down), (left, right)) = (self.steps[row], self.steps[column]);
        let blend = |line: usize| {
            let (near, far) = (self.lattice[line * self.stride + left], left + 1);
            near + right * (self.lattice[line * self.stride + far] - near)
        };
        let above = blend(top);
        above + down * (blend(top + 1) - above)
    }
}
