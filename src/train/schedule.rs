//! Learning rates and ramps as pure functions of the step.

use super::numbers;
use serde::{Deserialize, Serialize};

/// How the learning rate of a learner changes over the run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// `base * (1 - t / total)^0.9`, one step behind as the released codes set it: steps 1 and 2
    /// both use `base`, and the last uses `base * (2 / total)^0.9`, never 0.
    #[default]
    Poly,
    /// `base` throughout.
    Constant,
    /// `base * factor^n` after `n * every` steps, for example `{ steps = { every = 1000, factor = 0.1 } }`:
    /// `torch.optim.lr_scheduler.StepLR` with steps for epochs.
    Steps(StepDecay),
}

/// A learning rate that falls from time to time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDecay {
    /// Steps with one learning rate, at least 1.
    #[serde(deserialize_with = "numbers::some_steps")]
    pub every: u64,
    /// What is left of a learning rate in the next one, in (0, 1).
    #[serde(deserialize_with = "numbers::part")]
    pub factor: f64,
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
            Self::Steps(StepDecay { every, factor }) => {
                let fallen = step.saturating_sub(1) / every.max(1);
                base * factor.powf(fallen as f64)
            }
        }
    }
}

/// `exp(-5 (1 - progress)^2)`: from 0.0067 at 0 smoothly up to 1 at a `progress` of 1 and above
/// (Laine and Aila, ICLR 2017).
pub fn ramp_up(progress: f64) -> f64 {
    (-5.0 * (1.0 - progress.clamp(0.0, 1.0)).powi(2)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_begins_low_and_ends_at_one() {
        assert!((ramp_up(0.0) - (-5.0f64).exp()).abs() < 1e-15);
        assert!((ramp_up(0.5) - (-1.25f64).exp()).abs() < 1e-15);
        assert!([1.0, 3.0].map(|end| 1.0 - ramp_up(end)).iter().all(|rest| rest.abs() < 1e-15));
    }

    #[test]
    fn a_rate_falls_after_every_so_many_steps() {
        #[derive(Deserialize)]
        struct Config {
            schedule: Schedule,
        }
        let read = |text: &str| toml::from_str::<Config>(text).map(|config| config.schedule);
        let schedule = read("schedule = { steps = { every = 3, factor = 0.1 } }").unwrap();
        for (step, expected) in [(1, 2.0), (3, 2.0), (4, 0.2), (6, 0.2), (7, 0.02), (3001, 0.0)] {
            let rate = schedule.learning_rate(2.0, step, 10);
            assert!((rate - expected).abs() < 1e-15, "step {step}: {rate}");
        }
        for bad in ["every = 0, factor = 0.1", "every = 3, factor = 1.0", "every = 3"] {
            assert!(read(&format!("schedule = {{ steps = {{ {bad} }} }}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn poly_lags_one_step_and_never_reaches_zero() {
        let rate = |step| Schedule::Poly.learning_rate(0.01, step, 100);
        for (step, left) in [(1, 1.0), (2, 1.0), (3, 0.99f64), (100, 0.02)] {
            assert!((rate(step) - 0.01 * left.powf(0.9)).abs() < 1e-15, "step {step}");
        }
    }
}
