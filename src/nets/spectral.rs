//! Spectral normalisation: a weight divided by its largest singular value, so that a layer stretches
//! nothing.
//!
//! Miyato et al., ICLR 2018, as `torch.nn.utils.spectral_norm` computes it: one step of the power
//! iteration for each pass. Knows no layer and no opponent.

use crate::parameters::Scope;
use tch::Tensor;

/// Against division by the norm of nothing.
const EPSILON: f64 = 1e-12;

/// Whether a pass improves the estimate of the singular vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// One step of the power iteration, as in training.
    Iterate,
    /// The vectors stay as they are.
    Hold,
}

/// The singular vectors of one weight so far. They depend on nothing but the weights and the number
/// of passes, so that ranks which hold equal weights hold equal vectors.
#[derive(Debug)]
pub struct SpectralNorm {
    /// `[channels_out]`, of length 1.
    left: Tensor,
    /// `[elements of one output]`, of length 1.
    right: Tensor,
}

impl SpectralNorm {
    /// Registers `weight_u` and `weight_v` for a weight with outputs of so many elements each.
    pub fn new(scope: &mut Scope<'_>, outputs: i64, elements: i64) -> Self {
        Self {
            left: scope.direction("weight_u", outputs),
            right: scope.direction("weight_v", elements),
        }
    }

    /// The same vectors, which move with these.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { left: self.left.shallow_clone(), right: self.right.shallow_clone() }
    }

    /// `weight`, outputs first, over its largest singular value. The gradient flows through both.
    pub fn divide(&self, weight: &Tensor, power: Power) -> Tensor {
        let matrix = weight.flatten(1, -1);
        let unit = |x: Tensor| &x / x.norm().clamp_min(EPSILON);
        let (left, right) = tch::no_grad(|| {
            if power == Power::Iterate {
                let right = unit(matrix.tr().mv(&self.left));
                self.left.shallow_clone().copy_(&unit(matrix.mv(&right)));
                self.right.shallow_clone().copy_(&right);
            }
            // The next pass overwrites the buffers while this one's backward still needs the values.
            (self.left.copy(), self.right.copy())
        });
        weight / left.dot(&matrix.mv(&right))
    }
}
