//! GPUs as NVIDIA's management library sees them: memory, errors, what slows them down, who else computes.
//!
//! The library is that of `telemetry`, loaded when it is asked. Nothing is opened or changed on a GPU.

use crate::doctor::answer::{Answer, ask};
use crate::doctor::observation::{Access, Driver, Gpu};
use crate::error::{Context, Result};
use crate::telemetry::visible_gpu;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{ComputeMode, EccCounter, MemoryError};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};
use std::time::Duration;

/// How long the driver may take: waking up a GPU takes seconds where nobody keeps it awake.
const LIMIT: Duration = Duration::from_secs(30);

/// What makes a GPU slower than its load does, and how it is called.
const SLOW: [(ThrottleReasons, &str); 4] = [
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "heat"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "heat, as the driver sees it"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "its power supply"),
    (ThrottleReasons::HW_SLOWDOWN, "heat or its power supply"),
];

/// The driver, with the GPUs that this process may see: `visible` of them, or all where that is 0. None where it is not
/// installed.
pub fn look(visible: usize) -> Option<Answer<Driver>> {
    ask(move || driver(visible)).within(LIMIT).transpose()
}

fn driver(visible: usize) -> Result<Option<Driver>> {
    let silent = || "the driver of NVIDIA does not answer";
    let nvml = match Nvml::init() {
        Err(NvmlError::LibloadingError(_) | NvmlError::DriverNotLoaded) => return Ok(None),
        opened => opened.context(silent)?,
    };
    let version = nvml.sys_driver_version().context(silent)?;
    let cuda = nvml.sys_cuda_driver_version().unwrap_or_default();
    let all = nvml.device_count().unwrap_or_default();
    let devices: Vec<Device<'_>> = match visible {
        0 => (0..all).filter_map(|index| nvml.device_by_index(index).ok()).collect(),
        count => (0..count).filter_map(|index| visible_gpu(&nvml, index)).collect(),
    };
    Ok(Some(Driver {
        version,
        cuda: format!("{}.{}", cuda_driver_version_major(cuda), cuda_driver_version_minor(cuda)),
        gpus: devices.iter().map(gpu).collect(),
    }))
}

fn gpu(device: &Device<'_>) -> Gpu {
    let memory = device.memory_info().ok();
    let errors = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    Gpu {
        name: device.name().unwrap_or_else(|_| "a GPU without a name".to_owned()),
        memory_bytes: memory.as_ref().map_or(0, |memory| memory.total),
        used_bytes: memory.as_ref().map_or(0, |memory| memory.used),
        uncorrected_errors: errors.ok(),
        wants_reset: device.are_pages_pending_retired().unwrap_or(false),
        slowed_by: device.current_throttle_reasons().map(slowed_by).unwrap_or_default(),
        processes: device.running_compute_processes().map_or(0, |processes| processes.len()),
        access: match device.compute_mode() {
            Ok(ComputeMode::Prohibited) => Access::Nobody,
            Ok(ComputeMode::ExclusiveProcess | ComputeMode::ExclusiveThread) => Access::OneProcess,
            _ => Access::Shared,
        },
    }
}

/// What is unusual among the reasons; that nothing is to be done, or that power is capped, is not.
fn slowed_by(reasons: ThrottleReasons) -> Vec<String> {
    // The first of them stands for each of the others, too.
    let is_one = |reason: ThrottleReasons| {
        let others =
            ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN;
        reason != ThrottleReasons::HW_SLOWDOWN || !reasons.intersects(others)
    };
    let found = SLOW.iter().filter(|(reason, _)| reasons.contains(*reason) && is_one(*reason));
    found.map(|(_, name)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unusual_slows_down() {
        let usual = ThrottleReasons::GPU_IDLE | ThrottleReasons::SW_POWER_CAP;
        assert!(slowed_by(usual).is_empty());
        let hot = ThrottleReasons::HW_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN;
        assert_eq!(slowed_by(hot | usual), ["heat"]);
        assert_eq!(slowed_by(ThrottleReasons::HW_SLOWDOWN), ["heat or its power supply"]);
    }

    #[test]
    fn a_driver_that_is_there_says_its_version() {
        match look(0) {
            None => {}
            Some(Answer::Got(driver)) => assert!(!driver.version.is_empty()),
            Some(other) => panic!("{other:?}"),
        }
    }
}
