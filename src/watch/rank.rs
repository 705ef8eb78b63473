//! What is known about one rank: its latest health and telemetry, and their curves.
//!
//! Part of the fold in `state`; records of a rank come in the order in which it wrote them.

use super::series::Series;
use crate::runlog::{Health, Telemetry};

/// One rank.
#[derive(Debug, Clone, PartialEq)]
pub struct RankState {
    /// Its latest health, and when.
    pub health: Option<(u64, Health)>,
    /// Its latest telemetry, and when.
    pub telemetry: Option<(u64, Telemetry)>,
    /// Time of a step, milliseconds.
    pub step_ms: Series,
    /// Time of a step without waiting for other ranks, milliseconds.
    pub work_ms: Series,
    /// Memory of the process, or of the device where there is one, in bytes.
    pub memory_bytes: Series,
    /// How busy the GPU was, or the processor where there is none, in percent.
    pub busy_percent: Series,
}

impl Default for RankState {
    fn default() -> Self {
        Self {
            health: None,
            telemetry: None,
            step_ms: Series::small(),
            work_ms: Series::small(),
            memory_bytes: Series::small(),
            busy_percent: Series::small(),
        }
    }
}

impl RankState {
    pub(super) fn health(&mut self, time_ms: u64, health: Health) {
        self.step_ms.add(health.step, health.step_ms);
        self.work_ms.add(health.step, work_ms(&health));
        if let Some(bytes) = health.memory_bytes {
            self.memory_bytes.add(health.step, bytes as f64);
        }
        self.health = Some((time_ms, health));
    }

    pub(super) fn telemetry(&mut self, time_ms: u64, telemetry: Telemetry) {
        // One that is not newer is read again.
        if self.telemetry.as_ref().is_some_and(|(newest_ms, _)| *newest_ms >= time_ms) {
            return;
        }
        // Samples carry no step: they belong to the one that the rank logged before.
        let step = self.step().unwrap_or(0);
        if let Some(percent) = busy_percent(&telemetry) {
            self.busy_percent.add(step, percent);
        }
        self.telemetry = Some((time_ms, telemetry));
    }

    /// The last step that the rank logged.
    pub fn step(&self) -> Option<u64> {
        self.health.as_ref().map(|(_, health)| health.step)
    }

    /// Time of a step without waiting for other ranks, milliseconds.
    pub fn work_ms(&self) -> Option<f64> {
        self.health.as_ref().map(|(_, health)| work_ms(health)).filter(|time| time.is_finite())
    }

    /// Shares of a step: waiting for data, waiting for other ranks.
    pub fn shares(&self) -> Option<[f64; 2]> {
        let (_, health) = self.health.as_ref()?;
        let share = |ms: f64| ms / health.step_ms;
        let shares = [share(health.data_wait_ms), share(health.communication_ms)];
        shares.iter().all(|share| share.is_finite()).then_some(shares)
    }

    /// The latest sample's value of `pick`.
    pub fn sampled<T>(&self, pick: impl Fn(&Telemetry) -> Option<T>) -> Option<T> {
        self.telemetry.as_ref().and_then(|(_, telemetry)| pick(telemetry))
    }
}

fn work_ms(health: &Health) -> f64 {
    health.step_ms - health.communication_ms
}

/// How busy the GPU was, or the processor where there is none, in percent.
pub(super) fn busy_percent(telemetry: &Telemetry) -> Option<f64> {
    telemetry.gpu_percent.or(telemetry.cpu_percent)
}
