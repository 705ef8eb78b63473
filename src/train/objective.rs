//! What one learner minimises: the sum that is differentiated and the numbers that are logged.
//!
//! Knows no loss: terms come with their values.

use crate::error::{Failure, Result};
use tch::Tensor;

/// What one learner minimises in one update: named, weighted terms.
///
/// The sum that is differentiated and the numbers that are logged are the same object.
#[derive(Debug, Default)]
pub struct Objective {
    terms: Vec<(&'static str, Weight, Tensor)>,
}

/// By what a term is multiplied.
#[derive(Debug)]
pub enum Weight {
    /// The same in every step. A term of weight 0 is neither computed nor logged.
    Fixed(f64),
    /// One of the numbers of `StepContext::numbers`.
    Varying(Tensor),
}

impl From<f64> for Weight {
    fn from(weight: f64) -> Self {
        Self::Fixed(weight)
    }
}

impl From<&Weight> for Weight {
    fn from(weight: &Weight) -> Self {
        match weight {
            Weight::Fixed(weight) => Self::Fixed(*weight),
            Weight::Varying(weight) => Self::Varying(weight.shallow_clone()),
        }
    }
}

impl Objective {
    /// Without terms.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `weight * value`; `value` gives a 0-dimensional tensor, equal on all ranks.
    #[must_use]
    pub fn term(
        mut self,
        name: &'static str,
        weight: impl Into<Weight>,
        value: impl FnOnce() -> Tensor,
    ) -> Self {
        let weight = weight.into();
        if !matches!(weight, Weight::Fixed(0.0)) {
            self.terms.push((name, weight, value()));
        }
        self
    }

    /// [`Objective::term`] with a value that may fail.
    pub fn try_term(
        mut self,
        name: &'static str,
        weight: impl Into<Weight>,
        value: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Self> {
        let weight = weight.into();
        if !matches!(weight, Weight::Fixed(0.0)) {
            self.terms.push((name, weight, value()?));
        }
        Ok(self)
    }

    /// `share` of the weighted sum.
    pub(super) fn total(&self, share: f64) -> Result<Tensor> {
        self.terms
            .iter()
            .map(|(_, weight, value)| match weight {
                Weight::Fixed(weight) => value * (weight * share),
                Weight::Varying(weight) => value * (weight * share).to_kind(value.kind()),
            })
            .reduce(|sum, term| sum + term)
            .ok_or_else(|| Failure::new("an objective without terms cannot be minimised"))
    }

    /// Names and unweighted values.
    pub(super) fn into_terms(self) -> impl Iterator<Item = (&'static str, Tensor)> {
        self.terms.into_iter().map(|(name, _, value)| (name, value))
    }
}
