//! Learning rates and ramps as pure functions of the step.

use super::numbers;
use super::point::StepPoint;
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
    /// Grows evenly from 0 to `base` in the steps of a warm-up, then falls along half a cosine to 0, which it would
    /// reach after the last step: `{ warm-up-cosine = { warm_up = 0.1 } }`.
    WarmUpCosine(WarmUp),
    /// Half a cosine from `base` down to `least` over the run, a new rate with each epoch, for example
    /// `{ epoch-cosine = { least = 1e-4 } }`: with the epochs `E = total / steps of an epoch + 1`, rounded down,
    /// epoch `e` (from 1) has `least + (base - least) (1 + cos(pi max(e - 1, 1) / E)) / 2`. As med-air/GazeMedSeg
    /// sets it, the first two epochs have the rate of the first.
    EpochCosine(EpochCosine),
}

/// A learning rate that begins small.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmUp {
    /// The share of the run in which it grows, in [0, 1): the first step has none of it, the last of them all.
    #[serde(deserialize_with = "numbers::share")]
    pub warm_up: f64,
}

/// A learning rate that falls with every epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochCosine {
    /// The learning rate at the end of the run, at least 0.
    #[serde(default, deserialize_with = "numbers::weight")]
    pub least: f64,
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
    /// The learning rate with which the step at `point` updates, without its share.
    pub fn learning_rate(self, base: f64, point: &StepPoint) -> f64 {
        let StepPoint { step, total_steps, epoch_steps, .. } = *point;
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
            Self::WarmUpCosine(WarmUp { warm_up }) => {
                let (before, total) = (step.saturating_sub(1) as f64, total_steps as f64);
                let growing = (warm_up * total).round();
                if before < growing {
                    base * before / (growing - 1.0).max(1.0)
                } else {
                    base * fall((before - growing) / (total - growing).max(1.0))
                }
            }
            Self::EpochCosine(EpochCosine { least }) => {
                let epochs_before = step.saturating_sub(1) / epoch_steps.max(1);
                let epochs = total_steps / epoch_steps.max(1) + 1;
                let progress = epochs_before.max(1) as f64 / epochs as f64;
                (base - least).mul_add(fall(progress), least)
            }
        }
    }
}

/// `exp(-5 (1 - progress)^2)`: from 0.0067 at 0 smoothly up to 1 at a `progress` of 1 and above
/// (Laine and Aila, ICLR 2017).
pub fn ramp_up(progress: f64) -> f64 {
    (-5.0 * (1.0 - progress.clamp(0.0, 1.0)).powi(2)).exp()
}

/// `(1 + cos(pi progress)) / 2`: from 1 at 0 smoothly down to 0 at a `progress` of 1 and above.
pub fn fall(progress: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * progress.clamp(0.0, 1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn point(step: u64, total_steps: u64) -> StepPoint {
        StepPoint::new(step, total_steps, Key::new(1))
    }

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
            let rate = schedule.learning_rate(2.0, &point(step, 10));
            assert!((rate - expected).abs() < 1e-15, "step {step}: {rate}");
        }
        for bad in ["every = 0, factor = 0.1", "every = 3, factor = 1.0", "every = 3"] {
            assert!(read(&format!("schedule = {{ steps = {{ {bad} }} }}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_grows_before_it_falls_along_a_cosine() {
        let rate = |warm_up, step, total| {
            Schedule::WarmUpCosine(WarmUp { warm_up }).learning_rate(2.0, &point(step, total))
        };
        // Six steps of twenty: 0 to 5 fifths.
        for (step, expected) in [(1, 0.0), (2, 0.4), (6, 2.0), (7, 2.0), (14, 1.0)] {
            assert!((rate(0.3, step, 20) - expected).abs() < 1e-15, "step {step}");
        }
        let last = rate(0.3, 20, 20);
        assert!(last > 0.0 && last < 0.04, "{last}");
        assert!((rate(0.0, 1, 20) - 2.0).abs() < 1e-15);
        // A warm-up of one step, of none where a run is short, and a run of one step.
        assert!(rate(0.1, 1, 10).abs() < 1e-15 && (rate(0.1, 2, 10) - 2.0).abs() < 1e-15);
        assert!((rate(0.1, 1, 4) - 2.0).abs() < 1e-15 && rate(0.9, 1, 1).abs() < 1e-15);
    }

    #[test]
    fn a_cosine_by_epochs_stays_for_two_epochs_and_ends_at_the_least() {
        let schedule = Schedule::EpochCosine(EpochCosine { least: 0.1 });
        // Four whole epochs and one that is not: E = 5.
        let rate = |step| schedule.learning_rate(1.1, &point(step, 14).in_epochs_of(3));
        let of = |e: f64| 0.1 + 0.5 * (1.0 + (std::f64::consts::PI * e / 5.0).cos());
        for (step, e) in [(1, 1.0), (3, 1.0), (4, 1.0), (6, 1.0), (7, 2.0), (14, 4.0), (16, 5.0)] {
            assert!((rate(step) - of(e)).abs() < 1e-15, "step {step}: {}", rate(step));
        }
    }

    #[test]
    fn poly_lags_one_step_and_never_reaches_zero() {
        let rate = |step| Schedule::Poly.learning_rate(0.01, &point(step, 100));
        for (step, left) in [(1, 1.0), (2, 1.0), (3, 0.99f64), (100, 0.02)] {
            assert!((rate(step) - 0.01 * left.powf(0.9)).abs() < 1e-15, "step {step}");
        }
    }
}
