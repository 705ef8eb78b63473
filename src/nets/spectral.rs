//! Spectral normalisation: weights divided by their largest singular values, so that layers stretch
//! nothing.
//!
//! Miyato et al., ICLR 2018, as `torch.nn.utils.spectral_norm` computes it: one step of the power
//! iteration for each pass. Knows no layer and no opponent.

use crate::error::Result;
use crate::native::{Form, SpectralWeight, divide_by_singular_values};
use crate::parameters::Scope;
use tch::Tensor;

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

    /// `weight`, outputs first, with these vectors.
    pub fn of<'a>(&'a self, weight: &'a Tensor) -> SpectralWeight<'a> {
        SpectralWeight { weight, left: &self.left, right: &self.right }
    }
}

/// The weights of a network, each over its largest singular value: together a few calls to a GPU, however many
/// weights there are.
pub fn divided(weights: &[SpectralWeight<'_>], power: Power) -> Result<Vec<Tensor>> {
    divide_by_singular_values(weights, power == Power::Iterate, Form::Own)
}
