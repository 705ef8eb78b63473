//! `scrimp bench`: what this machine reaches, beside what its memory and its processors could.
//!
//! Prints tables and writes nothing else. Every rank takes part; times are those of the slowest.

mod checkpoint;
mod counting;
mod model;
mod scale;
mod steps;

use super::narrate::together;
use super::run::{self, Place};
use super::{print, print_json};
use crate::cli;
use crate::comm::{Communicator, Host, Ranks, agree, with_device};
use crate::config::{self, DeviceChoice, GraphChoice};
use crate::error::{Exit, Failure, Result};
use crate::launchers::Variables;
use crate::native;
use crate::panics::unwound_if_alone;
use crate::train::FetchedNumbers;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use steps::Steps;
use tch::{Device, Kind, Tensor};

/// Bytes of the shortest sum.
const SHORTEST: usize = 1 << 10;
/// Bytes of the longest one.
const LONGEST: [usize; 2] = [1 << 26, 1 << 22];
/// Bytes that are summed over and over for one line.
const VOLUME: usize = 1 << 26;
/// Steps between two looks at a loss.
const TOGETHER: usize = 5;
/// Measurements in front of those that count.
const WARM_UP: u64 = 2;
/// Timed looks or batches; the second number is that of a quick look, as above.
const TIMED: [u64; 2] = [10, 2];
/// Rows and columns of the matrices whose product is timed, on a CPU and on a GPU: large enough that starting
/// the work takes next to nothing of the time.
const MATRIX: [i64; 2] = [1 << 10, 1 << 13];
/// Elements that are copied, more than caches hold.
const COPIED: [i64; 2] = [1 << 24, 1 << 28];
/// How often between two waits for the device.
const REPEATED: [u32; 2] = [1, 5];

/// Measures what the arguments say.
pub(super) fn run(arguments: &cli::Bench) -> Result<Exit> {
    let (comm, variables) = run::connect()?;
    let told = together(&*comm, || match arguments {
        cli::Bench::Comm(arguments) => sums(&comm, &variables, arguments.quick),
        cli::Bench::Step(arguments) => {
            let bench = Bench::new(arguments, &comm, &variables)?;
            unwound_if_alone(bench.steps())
        }
        cli::Bench::Data(arguments) => {
            let bench = Bench::new(arguments, &comm, &variables)?;
            unwound_if_alone(bench.batches())
        }
        cli::Bench::Checkpoint(arguments) => {
            let bench = Bench::new(&arguments.of, &comm, &variables)?;
            unwound_if_alone(checkpoint::saves(&bench, &arguments.to))
        }
        cli::Bench::Scale(arguments) => scale::model(arguments, &comm, &variables),
    })?;
    let is_json = match arguments {
        cli::Bench::Comm(arguments) => arguments.json,
        cli::Bench::Checkpoint(arguments) => arguments.of.json,
        cli::Bench::Step(of) | cli::Bench::Data(of) | cli::Bench::Scale(of) => of.json,
    };
    match (comm.rank(), is_json) {
        (0, true) => print_json(&told.facts)?,
        (0, false) => print(&told.text)?,
        _ => {}
    }
    Ok(Exit::Done)
}

/// What was measured.
struct Told {
    /// For a person.
    text: String,
    /// For a program.
    facts: Value,
}

fn milliseconds(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

/// Sums over the ranks from short to long, on the GPUs where there are any.
fn sums(host: &Host, variables: &Variables, quick: bool) -> Result<Told> {
    let ranks = host.ranks();
    if ranks < 2 {
        return Err(Failure::usage("sums over ranks need at least 2 ranks, started on 1")
            .hint("run `mpirun -n 2 scrimp bench comm`"));
    }
    let (device, _) =
        run::own_device(DeviceChoice::Auto, &**host, variables).map_err(|failure| {
            failure.hint("`mpirun -x CUDA_VISIBLE_DEVICES= ...` measures sums between CPUs")
        })?;
    let comm = with_device(host, device)?;
    let mut text = format!(
        "sums over {ranks} ranks on {}; bus bandwidth is 2 (ranks - 1) / ranks of the bytes in a second\n\
         {:>12} {:>12} {:>12}\n",
        if device == Device::Cpu { "CPUs" } else { "GPUs" },
        "bytes",
        "time, us",
        "bus, GB/s"
    );
    let mut sums = Vec::new();
    for (bytes, time) in sum_times(&comm, device, quick)? {
        let bus = 2.0 * (ranks - 1) as f64 / ranks as f64 * bytes as f64 / time.as_secs_f64();
        let time_us = 1e6 * time.as_secs_f64();
        let _ = writeln!(text, "{bytes:>12} {time_us:>12.1} {:>12.2}", bus / 1e9);
        sums.push(json!({ "bytes": bytes, "time_us": time_us, "bus_bytes_per_second": bus }));
    }
    let facts = json!({ "ranks": ranks, "device": format!("{device:?}"), "sums": sums });
    Ok(Told { text, facts })
}

/// Bytes of sums on `device`, from short to long, and what each takes.
fn sum_times(ranks: &Ranks, device: Device, quick: bool) -> Result<Vec<(usize, Duration)>> {
    let lengths = std::iter::successors(Some(SHORTEST), |bytes| Some(bytes * 4));
    let lengths = lengths.take_while(|&bytes| bytes <= LONGEST[usize::from(quick)]);
    let timed = |bytes: usize| {
        let tensor = Tensor::zeros([(bytes / 4) as i64], (Kind::Float, device));
        let repeats = (VOLUME / bytes).clamp(5, if quick { 20 } else { 200 });
        let time = slowest(&**ranks, repeats, || {
            ranks.tensors().sum(&tensor);
            settle(&tensor);
            Ok(())
        })?;
        Ok((bytes, time))
    };
    lengths.map(timed).collect()
}

/// Waits until the device has made `tensor`.
fn settle(tensor: &Tensor) {
    if let Device::Cuda(index) = tensor.device() {
        tch::Cuda::synchronize(index as i64);
    }
}

/// The median time of `work` on the slowest rank; every rank begins each at the same moment.
fn slowest(
    comm: &dyn Communicator,
    repeats: usize,
    mut work: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let mut times = Vec::with_capacity(repeats);
    for _ in 0..=repeats {
        comm.barrier()?;
        let start = Instant::now();
        let done = work();
        times.push(start.elapsed());
        agree(comm, done)?;
    }
    // The first one takes memory and opens connections.
    let nanoseconds = comm.max(median(&mut times[1..]).as_nanos() as i64)?;
    Ok(Duration::from_nanos(nanoseconds.unsigned_abs()))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A configuration that is about to run.
struct Bench {
    plan: config::plan::RunPlan,
    place: Place,
    ranks: Ranks,
    dataset: Arc<crate::data::Dataset>,
    timed: u64,
}

impl Bench {
    fn new(arguments: &cli::BenchConfig, host_ranks: &Host, variables: &Variables) -> Result<Self> {
        let comm = &**host_ranks;
        let plan = config::read(&arguments.config, &arguments.overrides)
            .and_then(|config| run::resolve(&config, comm.ranks()));
        let mut plan = agree(comm, plan)?;
        // A last batch of fewer slices is another step.
        plan.data.drop_last = true;
        let place = Place::take(&plan, comm, variables)?;
        let ranks = place.join(host_ranks)?;
        let comm = &*ranks;
        let dataset = agree(comm, run::dataset(&plan))?;
        let dataset = run::labelled(&plan, dataset, comm, place.threads)?;
        Ok(Self { plan, place, ranks, dataset, timed: TIMED[usize::from(arguments.quick)] })
    }

    /// Steps of the method, with reading and augmentation, without a run directory.
    fn steps(&self) -> Result<Told> {
        let (plan, comm) = (&self.plan, &*self.ranks);
        let mut steps = Steps::new(self, &self.ranks, &self.ranks)?;
        steps.warm_up()?;
        let (mut times, mut waits) = (Vec::new(), Vec::new());
        let mut replayed = 0;
        for look in 0..WARM_UP + self.timed {
            comm.barrier()?;
            let (start, mut wait) = (Instant::now(), Duration::ZERO);
            let mut last = None;
            for _ in 0..TOGETHER {
                let advanced = steps.advance()?;
                wait += advanced.waited;
                replayed += u64::from(advanced.is_replayed && look >= WARM_UP);
                last = Some(advanced.report);
            }
            // Only a number that is read says when a GPU is done.
            agree(comm, last.map_or(Ok(FetchedNumbers::default()), |report| report.fetch()))?;
            times.push(start.elapsed() / TOGETHER as u32);
            waits.push(wait / TOGETHER as u32);
        }
        let [step, wait] = [times, waits].map(|mut times| median(&mut times[WARM_UP as usize..]));
        let step = Duration::from_nanos(comm.max(step.as_nanos() as i64)?.unsigned_abs());
        let images = plan.train.batch_size as f64 / step.as_secs_f64();
        let on_gpu = agree(comm, self.words_on_gpu())?;
        let Told { mut text, facts: machine } = self.machine()?;
        let facts = json!({
            "method": plan.method,
            "batch_size": plan.train.batch_size,
            "ranks": comm.ranks(),
            "step_ms": milliseconds(step),
            "images_per_second": images,
            "data_wait_ms": milliseconds(wait),
            "timed_steps": self.timed * TOGETHER as u64,
            "replayed_steps": replayed,
            "machine": machine,
        });
        let _ = writeln!(
            text,
            "a step of `{}`, {} {} of {} on {} ranks: {:.2} ms, {images:.1} images/s, \
             {:.1} ms of it waiting for data; median of {} times {TOGETHER} steps{}{}",
            plan.method,
            plan.train.batch_size,
            plan.data.sampling.items(),
            plan.data.sampling,
            comm.ranks(),
            milliseconds(step),
            milliseconds(wait),
            self.timed,
            self.words_on_replay(&steps, replayed),
            on_gpu
        );
        Ok(Told { text, facts })
    }

    /// How many of the timed steps were replayed, where that was to be.
    fn words_on_replay(&self, steps: &Steps<'_>, replayed: u64) -> String {
        let all = self.timed * TOGETHER as u64;
        let reason = || steps.reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
        match (self.plan.train.graph, self.place.device) {
            (GraphChoice::Never, _) | (GraphChoice::Auto, Device::Cpu) => String::new(),
            _ if replayed == all => ", replayed".to_owned(),
            _ if replayed == 0 => format!(", not replayed{}", reason()),
            _ => format!(", {replayed} of {all} replayed{}", reason()),
        }
    }

    /// Of a GPU whether it computes with kernels of our own, and the most that tensors held so far.
    fn words_on_gpu(&self) -> Result<String> {
        let Device::Cuda(index) = self.place.device else { return Ok(String::new()) };
        let kernels = if native::cuda::has_kernels() { "" } else { "out" };
        let held = native::cuda::memory(index)?.allocated_peak as f64 / 1e9;
        Ok(format!(", with{kernels} own kernels, at most {held:.2} GB in tensors"))
    }

    /// Batches as a rank reads and augments them, nobody training meanwhile.
    fn batches(&self) -> Result<Told> {
        let (plan, comm) = (&self.plan, &*self.ranks);
        let loader = run::loader(plan, &self.dataset, comm).and_then(|l| self.place.feed(l));
        let mut loader = agree(comm, loader)?;
        let (mut step, mut bytes) = (0, 0);
        let repeats = 10 * self.timed as usize;
        let time = slowest(comm, repeats, || {
            step += 1;
            let batches = loader.micro_batches(step)?;
            for batch in &batches {
                settle(&batch.main().image);
            }
            bytes = batches.iter().map(|batch| 4 * batch.main().image.numel()).sum();
            Ok(())
        })?;
        let images = plan.train.batch_size as f64 / time.as_secs_f64();
        let rate = bytes as f64 / time.as_secs_f64();
        let Told { mut text, facts: machine } = self.machine()?;
        let _ = writeln!(
            text,
            "a batch of {} {} of {} on {} ranks: {:.2} ms, {images:.0} images/s, {:.2} GB/s of \
             images a rank; median of {repeats} batches",
            plan.train.batch_size,
            plan.data.sampling.items(),
            plan.data.sampling,
            comm.ranks(),
            milliseconds(time),
            rate / 1e9
        );
        let facts = json!({
            "batch_size": plan.train.batch_size,
            "ranks": comm.ranks(),
            "batch_ms": milliseconds(time),
            "images_per_second": images,
            "image_bytes_per_second_of_a_rank": rate,
            "timed_batches": repeats,
            "machine": machine,
        });
        Ok(Told { text, facts })
    }

    /// What the memory and the processors of a rank reach, all ranks at once.
    fn machine(&self) -> Result<Told> {
        let options = (Kind::Float, self.place.device);
        let on_gpu = usize::from(self.place.device != Device::Cpu);
        let [elements, rows] = [COPIED, MATRIX].map(|of| of[on_gpu]);
        let repeated = REPEATED[on_gpu];
        let source = Tensor::rand([elements], options);
        let mut target = source.zeros_like();
        let copy = slowest(&*self.ranks, self.timed as usize, || {
            (0..repeated).for_each(|_| target.copy_(&source));
            settle(&target);
            Ok(())
        })?;
        drop((source, target));
        let matrix = Tensor::rand([rows, rows], options).to_kind(run::computed(&self.plan));
        let products = matrix.zeros_like();
        let product = slowest(&*self.ranks, self.timed as usize, || {
            (0..repeated).for_each(|_| drop(matrix.matmul_out(&products, &matrix)));
            settle(&products);
            Ok(())
        })?;
        let rate = |once: f64, time: Duration| f64::from(repeated) * once / time.as_secs_f64();
        let moved = rate(8.0 * elements as f64, copy);
        let multiplied = rate(2.0 * (rows as f64).powi(3), product);
        let facts = json!({
            "ranks": self.ranks.ranks(),
            "threads": self.place.threads,
            "device": format!("{:?}", self.place.device),
            "precision": self.plan.train.precision.name(),
            "copied_bytes_per_second": moved,
            "multiplied_flops_per_second": multiplied,
        });
        let text = format!(
            "{} ranks, {} threads each, on {:?}: a rank copies {:.1} GB/s (read and written) and multiplies \
             matrices at {:.0} GFLOP/s in {}\n",
            self.ranks.ranks(),
            self.place.threads,
            self.place.device,
            moved / 1e9,
            multiplied / 1e9,
            self.plan.train.precision.name()
        );
        Ok(Told { text, facts })
    }
}
