//! What the machine says about this rank: its processor, memory, network and GPU, sampled by a thread
//! of its own into the rank's log.
//!
//! Knows the run log and no training. What the machine does not tell is left out, never 0.

use crate::runlog::directory::host;
use crate::runlog::io::EventSink;
use crate::runlog::{RunEvent, Telemetry};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::{Device, GpmSample, Nvml, gpm};
use std::fs::read_to_string;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two samples: a log of a day stays at a few megabytes.
const PERIOD: Duration = Duration::from_secs(2);
/// Units of processor time in a second, as the kernel counts them for processes.
const TICKS_PER_SECOND: f64 = 100.0;

/// A thread that samples until this is dropped.
#[derive(Debug)]
pub struct Sampler {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Begins to sample for this process and, if it has one, for the GPU that it calls `gpu`.
    pub fn start(mut events: impl EventSink + Send + 'static, gpu: Option<usize>) -> Self {
        let (end, ended) = mpsc::channel();
        let work = move || {
            // Loaded when it runs: no driver, no numbers of GPUs.
            let nvml = gpu.and_then(|_| Nvml::init().ok());
            let mut gpu = nvml.as_ref().zip(gpu).and_then(|(nvml, gpu)| Gpu::find(nvml, gpu));
            let mut counters = Counters::read();
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let now = Counters::read();
                let mut telemetry = now.since(&counters);
                if let Some(gpu) = &mut gpu {
                    gpu.sample(&mut telemetry);
                }
                events.emit(&RunEvent::Telemetry(telemetry));
                counters = now;
            }
        };
        let thread = std::thread::Builder::new().name("telemetry".to_owned()).spawn(work);
        // A run without telemetry is still a run.
        Self { end: Some(end), thread: thread.ok() }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("the thread that samples the machine has failed");
        }
    }
}

/// What the kernel counts, at one moment.
#[derive(Debug)]
struct Counters {
    at: Instant,
    /// Processor time of this process, seconds.
    busy_seconds: Option<f64>,
    /// Bytes received and sent.
    network_bytes: Option<[u64; 2]>,
}

impl Counters {
    fn read() -> Self {
        Self {
            at: Instant::now(),
            busy_seconds: read_to_string("/proc/self/stat").ok().and_then(|text| busy(&text)),
            network_bytes: read_to_string("/proc/net/dev").ok().and_then(|text| network(&text)),
        }
    }

    /// What happened between an earlier moment and this one, and what is now.
    fn since(&self, before: &Self) -> Telemetry {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let busy = self.busy_seconds.zip(before.busy_seconds);
        let network = self.network_bytes.zip(before.network_bytes);
        // A card that was taken out takes its count with it.
        let rate = |index: usize| {
            let bytes = network.map(|(now, then)| now[index].saturating_sub(then[index]));
            bytes.map(|bytes| bytes as f64 / seconds)
        };
        Telemetry {
            host: Some(host()).filter(|host| !host.is_empty()),
            cpu_percent: busy.map(|(now, then)| (now - then).max(0.0) / seconds * 100.0),
            memory_bytes: kilobytes("/proc/self/status", "VmRSS:"),
            host_memory_available_bytes: kilobytes("/proc/meminfo", "MemAvailable:"),
            network_received_bytes_per_second: rate(0),
            network_sent_bytes_per_second: rate(1),
            ..Telemetry::default()
        }
    }
}

/// User and system time in a line of `/proc/PID/stat`, seconds.
fn busy(stat: &str) -> Option<f64> {
    // The name of the program stands in parentheses and may hold any character.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Bytes received and sent by all cards in `/proc/net/dev` but the one to oneself.
fn network(dev: &str) -> Option<[u64; 2]> {
    let mut bytes = [0, 0];
    for line in dev.lines().filter(|line| line.contains(':')) {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<&str> = counts.split_whitespace().collect();
        if name.trim() != "lo" {
            bytes[0] += counts.first()?.parse::<u64>().ok()?;
            bytes[1] += counts.get(8)?.parse::<u64>().ok()?;
        }
    }
    Some(bytes)
}

/// A value in kB of a file of `KEY: VALUE kB` lines, in bytes; `VmRSS:` of `/proc/self/status` is the memory of
/// this process.
pub fn kilobytes(path: &str, key: &str) -> Option<u64> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// A GPU as the driver's management library sees it.
struct Gpu<'a> {
    nvml: &'a Nvml,
    device: Device<'a>,
    name: Option<String>,
    /// The counters of multiprocessors at the last sample; `None` where the driver gives none.
    before: Option<GpmSample<'a>>,
}

impl<'a> Gpu<'a> {
    /// The GPU that this process calls `index`: CUDA counts those that it may see.
    fn find(nvml: &'a Nvml, index: usize) -> Option<Self> {
        let device = visible_gpu(nvml, index)?;
        let name = device.name().ok();
        let before =
            device.gpm_support().unwrap_or(false).then(|| device.gpm_sample().ok()).flatten();
        Some(Self { nvml, device, name, before })
    }

    fn sample(&mut self, telemetry: &mut Telemetry) {
        let device = &self.device;
        telemetry.gpu.clone_from(&self.name);
        telemetry.gpu_percent = device.utilization_rates().ok().map(|rates| f64::from(rates.gpu));
        let memory = device.memory_info().ok();
        telemetry.gpu_memory_bytes = memory.as_ref().map(|memory| memory.used);
        telemetry.gpu_memory_total_bytes = memory.as_ref().map(|memory| memory.total);
        telemetry.gpu_power_watts = device.power_usage().ok().map(|milli| f64::from(milli) / 1e3);
        telemetry.gpu_temperature_celsius =
            device.temperature(TemperatureSensor::Gpu).ok().map(f64::from);
        let Some(before) = self.before.take() else { return };
        let Ok(now) = device.gpm_sample() else { return };
        let metrics = [GpmMetricId::SmUtil, GpmMetricId::AnyTensorUtil];
        let values = gpm::gpm_metrics_get(self.nvml, &before, &now, &metrics);
        let mut values = values.into_iter().flatten().map(|value| Some(value.ok()?.value));
        telemetry.sm_percent = values.next().flatten().filter(|value| value.is_finite());
        telemetry.tensor_percent = values.next().flatten().filter(|value| value.is_finite());
        self.before = Some(now);
    }
}

/// The GPU that this process calls `index`, as the driver's management library sees it: CUDA counts those that it
/// may see (`CUDA_VISIBLE_DEVICES`). None where it has fewer.
pub fn visible_gpu(nvml: &Nvml, index: usize) -> Option<Device<'_>> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let device = match visible_device(&visible, index)? {
        Visible::Index(index) => nvml.device_by_index(index),
        Visible::Uuid(uuid) => nvml.device_by_uuid(uuid),
    };
    device.ok()
}

/// How the environment names a GPU.
#[derive(Debug, PartialEq, Eq)]
enum Visible<'a> {
    Index(u32),
    Uuid(&'a str),
}

/// The GPU that CUDA calls `index` where `CUDA_VISIBLE_DEVICES` is `visible`; all GPUs where that is
/// empty.
fn visible_device(visible: &str, index: usize) -> Option<Visible<'_>> {
    if visible.is_empty() {
        return u32::try_from(index).ok().map(Visible::Index);
    }
    let name = visible.split(',').map(str::trim).nth(index)?;
    match name.parse() {
        Ok(index) => Some(Visible::Index(index)),
        Err(_) if name.starts_with("GPU-") || name.starts_with("MIG-") => Some(Visible::Uuid(name)),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<RunEvent>>>);

    impl EventSink for Seen {
        fn emit(&mut self, event: &RunEvent) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    #[test]
    fn this_process_is_sampled() {
        let before = Counters::read();
        let start = Instant::now();
        let mut sum = 0u64;
        while start.elapsed() < Duration::from_millis(60) {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let telemetry = Counters::read().since(&before);
        assert!(telemetry.cpu_percent.unwrap() > 1.0, "{telemetry:?}");
        assert!(telemetry.memory_bytes.unwrap() > 1 << 20);
        assert!(telemetry.host_memory_available_bytes.unwrap() > 1 << 20);
        assert_eq!((telemetry.gpu_percent, telemetry.sm_percent), (None, None));
    }

    #[test]
    fn the_sampler_ends_at_once_when_it_is_dropped() {
        let seen = Seen::default();
        let start = Instant::now();
        drop(Sampler::start(seen.clone(), Some(0)));
        assert!(start.elapsed() < PERIOD);
        assert!(seen.0.lock().unwrap().is_empty());
    }

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let stat = "77 (a ) b) S 1 1 1 0 -1 4194560 9 8 7 6 1234 66 0 0 20 0";
        assert_eq!(busy(stat), Some(13.0));
        let dev = "Inter-|   Receive\n face |bytes packets\n    lo: 5 0 0 0 0 0 0 0 5 0\n  eth0: 70 1 0 0 0 0 0 0 8 1\n";
        assert_eq!(network(dev), Some([70, 8]));
        assert_eq!((busy("nothing"), network("eth0: x")), (None, None));
    }

    #[test]
    fn the_environment_says_which_gpu_is_meant() {
        assert_eq!(visible_device("", 3), Some(Visible::Index(3)));
        assert_eq!(visible_device("2, 5", 1), Some(Visible::Index(5)));
        assert_eq!(visible_device("GPU-ab,GPU-cd", 1), Some(Visible::Uuid("GPU-cd")));
        assert_eq!(visible_device("1", 1), None);
        assert_eq!(visible_device("none", 0), None);
    }
}
