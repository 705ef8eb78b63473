//! `scrimp bench scale`: a model of the step on more ranks than there are.
//!
//! Measures what the model is made of on the ranks at hand, and says beside the numbers what they
//! assume. The arithmetic is in `model`.

use super::counting::Counting;
use super::model::{Alone, Link, StepModel, Traffic};
use super::steps::Steps;
use super::{Bench, TOGETHER, Told, milliseconds, sum_times};
use crate::cli;
use crate::comm::{Communicator, Host, Ranks, agree};
use crate::error::{Failure, Result};
use crate::launchers::Variables;
use crate::panics::unwound_if_alone;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Device;

/// Steps in front of those that count: libtorch chooses its algorithms, and steps are recorded.
const BEFORE: usize = 5;
/// The smallest number of ranks that is of interest, after one.
const FEWEST: usize = 8;
/// The largest one.
const MOST: usize = 1024;

/// What was measured, and on what.
struct Measured {
    link: Link,
    shortest: usize,
    longest: usize,
    alone: Vec<Alone>,
    traffic: Traffic,
    /// A step with its sums, on all ranks.
    together: Duration,
}

/// Measures, and predicts steps on up to [`MOST`] ranks.
pub(super) fn model(
    arguments: &cli::BenchConfig,
    host_ranks: &Host,
    variables: &Variables,
) -> Result<Told> {
    if host_ranks.ranks() < 2 {
        return Err(Failure::usage(
            "what sums cost is measured between at least 2 ranks, started on 1",
        )
        .hint("run `mpirun -n 2 scrimp bench scale CONFIG`"));
    }
    let bench = Bench::new(arguments, host_ranks, variables)?;
    unwound_if_alone(modelled(&bench, arguments.quick))
}

fn modelled(bench: &Bench, quick: bool) -> Result<Told> {
    let slices = agree(&*bench.ranks, share_of(bench))?;
    let comm = &*bench.ranks;
    let sums = sum_times(&bench.ranks, bench.place.device, quick)?;
    let seconds = |&(bytes, time): &(usize, Duration)| (bytes as f64, time.as_secs_f64());
    let link = Link::fit(comm.ranks(), &sums.iter().map(seconds).collect::<Vec<_>>());
    let link = agree(comm, link)?;
    let lengths = || sums.iter().map(|&(bytes, _)| bytes);
    let alone = alone(bench)?;
    let (traffic, together) = together(bench)?;
    let measured = Measured {
        link,
        shortest: lengths().min().unwrap_or_default(),
        longest: lengths().max().unwrap_or_default(),
        alone,
        traffic,
        together,
    };
    let model = StepModel::new(link, measured.traffic.clone(), &measured.alone);
    let model = agree(comm, model)?;
    let text = [table(bench, slices, &model), told(bench, &measured, &model), assumed()].concat();
    Ok(Told { text, facts: facts(bench, (slices, &model), &measured) })
}

/// One process, and how many more are of interest.
fn counts() -> impl Iterator<Item = usize> {
    let larger = std::iter::successors(Some(FEWEST), |ranks| Some(2 * ranks));
    std::iter::once(1).chain(larger.take_while(|&ranks| ranks <= MOST))
}

/// The model and what it is made of, as numbers.
fn facts(bench: &Bench, (slices, model): (usize, &StepModel), measured: &Measured) -> Value {
    let Measured { link, traffic, alone, together, .. } = measured;
    let ranks = bench.ranks.ranks();
    let modelled = counts().map(|ranks| {
        let seconds = model.seconds(ranks);
        json!({
            "ranks": ranks,
            "slices": ranks * slices,
            "step_ms": 1e3 * seconds,
            "images_per_second": (ranks * slices) as f64 / seconds,
            "efficiency": model.efficiency(ranks),
        })
    });
    let bytes = |lengths: &[usize]| lengths.iter().sum::<usize>();
    json!({
        "method": bench.plan.method,
        "slices_of_a_rank": slices,
        "modelled": modelled.collect::<Vec<_>>(),
        "measured": {
            "ranks": ranks,
            "steps": alone.len(),
            "step_without_sums_ms": 1e3 * model.seconds(1),
            "step_with_sums_ms": milliseconds(*together),
            "step_with_sums_by_the_model_ms": 1e3 * model.seconds(ranks),
            "waited_sums_bytes": bytes(&traffic.waited) + bytes(&traffic.halves),
            "sums_beside_backward_bytes": bytes(&traffic.beside),
            "hop_us": 1e6 * link.latency,
            "seconds_per_byte": link.seconds_per_byte,
            "largest_error_of_the_fit": link.error,
        },
    })
}

/// The slices of a rank, equal on all of them.
fn share_of(bench: &Bench) -> Result<usize> {
    let (batch_size, ranks) = (bench.plan.train.batch_size, bench.ranks.ranks());
    if batch_size.is_multiple_of(ranks) {
        return Ok(batch_size / ranks);
    }
    let message = format!("{batch_size} slices are not the same number on each of {ranks} ranks");
    let larger = batch_size.next_multiple_of(ranks);
    Err(Failure::usage(message).hint(format!("use `--set train.batch_size={larger}`")))
}

/// Steps of every rank's share, all ranks at once and none waiting for another.
fn alone(bench: &Bench) -> Result<Vec<Alone>> {
    let solo = Ranks::alone();
    let mut steps = Steps::new(bench, &solo, &solo)?;
    let own = agree(&*bench.ranks, timed(&mut steps, repeats(bench)))?;
    let numbers = own.iter().flat_map(|time| [time.step, time.wait]);
    let message: Vec<u8> = numbers.flat_map(f64::to_le_bytes).collect();
    let all = bench.ranks.gather(&message)?.concat();
    let numbers: Vec<f64> = all
        .chunks_exact(size_of::<f64>())
        .filter_map(|bytes| bytes.try_into().ok())
        .map(f64::from_le_bytes)
        .collect();
    let alone = |pair: &[f64]| Alone { step: pair[0], wait: pair[1] };
    Ok(numbers.chunks_exact(2).map(alone).collect())
}

/// What a step sums over the ranks, and what it takes with that.
fn together(bench: &Bench) -> Result<(Traffic, Duration)> {
    let comm = &*bench.ranks;
    let counting = Arc::new(Counting::new(bench.ranks.clone()));
    let sums = Ranks::of(Arc::clone(&counting));
    let mut steps = Steps::new(bench, &sums, &bench.ranks)?;
    // The first backward sums all gradients at once, and a step that is replayed calls nobody.
    steps.advance()?;
    counting.take();
    steps.advance()?;
    // Training votes with one number after every step.
    counting.max(0)?;
    let traffic = counting.take();
    let times = timed(&mut steps, repeats(bench))?;
    let mean = times.iter().map(|time| time.step).sum::<f64>() / times.len().max(1) as f64;
    let slowest = comm.max(Duration::from_secs_f64(mean).as_nanos() as i64)?;
    Ok((traffic, Duration::from_nanos(slowest.unsigned_abs())))
}

fn repeats(bench: &Bench) -> usize {
    bench.timed as usize * TOGETHER
}

/// The times of `count` steps, one by one.
fn timed(steps: &mut Steps<'_>, count: usize) -> Result<Vec<Alone>> {
    let mut times = Vec::with_capacity(count);
    for number in 0..BEFORE + count {
        steps.ranks().barrier()?;
        let start = Instant::now();
        let advanced = steps.advance()?;
        // Only a number that is read says when a GPU is done.
        agree(steps.ranks(), advanced.report.fetch())?;
        if number >= BEFORE {
            let step = start.elapsed().as_secs_f64();
            times.push(Alone { step, wait: advanced.waited.as_secs_f64() });
        }
    }
    Ok(times)
}

/// What the ranks are, for people.
fn kind_of_ranks(bench: &Bench) -> &'static str {
    if bench.place.device == Device::Cpu { "processes" } else { "GPUs" }
}

fn table(bench: &Bench, slices: usize, model: &StepModel) -> String {
    let mut text = format!(
        "a model, not a measurement: a step of `{}` on up to {MOST} {}, {slices} {} of {} on each\n\
         {:>10} {:>10} {:>12} {:>12} {:>12}\n",
        bench.plan.method,
        kind_of_ranks(bench),
        bench.plan.data.sampling.items(),
        bench.plan.data.sampling,
        kind_of_ranks(bench),
        "slices",
        "step, ms",
        "images/s",
        "efficiency",
    );
    for ranks in counts() {
        let (images, seconds) = (ranks * slices, model.seconds(ranks));
        let _ = writeln!(
            text,
            "{ranks:>10} {images:>10} {:>12.2} {:>12.1} {:>10.1} %",
            1e3 * seconds,
            images as f64 / seconds,
            100.0 * model.efficiency(ranks)
        );
    }
    text
}

/// What the model is made of.
fn told(bench: &Bench, measured: &Measured, model: &StepModel) -> String {
    let Measured { link, traffic, alone, together, .. } = measured;
    let (ranks, kind) = (bench.ranks.ranks(), kind_of_ranks(bench));
    let ms = |seconds: f64| 1e3 * seconds;
    let fastest = alone.iter().map(|time| time.step).fold(f64::INFINITY, f64::min);
    let longest = alone.iter().map(|time| time.step).fold(0.0, f64::max);
    let wait = alone.iter().map(|time| time.wait).sum::<f64>() / alone.len().max(1) as f64;
    let bytes = |lengths: &[usize]| lengths.iter().sum::<usize>() as f64 / 1e6;
    let waited = [&traffic.waited[..], &traffic.halves].concat();
    let bandwidth = if link.seconds_per_byte > 0.0 {
        format!("{:.2} GB/s", 1e-9 / link.seconds_per_byte)
    } else {
        "no limit of bandwidth".to_owned()
    };
    let note = link.note.map(|note| format!("; {note}")).unwrap_or_default();
    format!(
        "made of what {ranks} {kind} measured here:\n\
         - a step without sums: {:.2} ms on average, {:.2} to {:.2} ms in {} steps, {:.2} ms of it waiting for \
         data\n\
         - sums of a step: {} that it waits for, {:.4} MB; {} of gradients beside backward, {:.4} MB\n\
         - a sum: {:.1} us a hop and {bandwidth}, at most {:.0} % off from {} to {} bytes{note}\n\
         - a step with its sums on {ranks} {kind}: {:.2} ms measured, {:.2} ms by the model\n",
        ms(model.seconds(1)),
        ms(fastest),
        ms(longest),
        alone.len(),
        ms(wait),
        waited.len(),
        bytes(&waited),
        traffic.beside.len(),
        bytes(&traffic.beside),
        1e6 * link.latency,
        100.0 * link.error,
        measured.shortest,
        measured.longest,
        ms(together.as_secs_f64()),
        ms(model.seconds(ranks)),
    )
}

/// What the numbers rest on, in words.
fn assumed() -> String {
    "assumed:\n\
     - weak scaling: each has the same slices, and the batch grows; what that does to training is not asked\n\
     - all links are like those measured; a sum over P of them takes the shorter of a ring, 2 (P - 1) hops, and a \
     tree, 2 log2 P hops\n\
     - congestion, other jobs and the file system are left out\n\
     - computing takes as long as without sums; its jitter is independent between ranks, which wait for the \
     slowest once a step, and for none slower than the slowest step measured\n\
     - backward is two thirds of computing and hides as much of the gradients' sums, to the last part\n\
     - every step sums what the second one does; logging, scoring and saving are left out\n"
        .to_owned()
}
