//! Learning rates and ramps as pure functions of the step.

use serde::{Deserialize, Serialize};

/// How the learning rate of a learner changes over the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// `base * (1 - t / total)^0.9`, one step behind as the released codes set it: steps 1 and 2
    /// both use `base`, and the last uses `base * (2 / total)^0.9`, never 0.
    #[default]
    Poly,
    /// `base` throughout.
    Constant,
}

impl Schedule {
    /// The learning rate with which step `step` (from 1) of `total_steps` updates.
    pub fn learning_rate(self, base: f64, step: u64, total_steps: u64) -> f64 {
        match self {
            Self::Constant => base,
            Self::Poly => {
                let behind = step.saturating_sub(2) as f64;
                base * (1.0 - behind / total_steps as f64).powf(0.9)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poly_lags_one_step_and_never_reaches_zero() {
        let rate = |step| Schedule::Poly.learning_rate(0.01, step, 100);
        for (step, left) in [(1, 1.0), (2, 1.0), (3, 0.99f64), (100, 0.02)] {
            assert!((rate(step) - 0.01 * left.powf(0.9)).abs() < 1e-15, "step {step}");
        }
    }
}
