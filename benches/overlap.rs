//! Times training steps whose gradients are summed beside backward, and after it.
//!
//! `cargo bench --bench overlap`: two MPI ranks of one thread each train the U-Net by partial
//! cross-entropy on the CPU, on the machine's own link and on slow ones, which need 50 to 200 ms for all
//! gradients and in proportion for a part. Forms and links take turns in one process. What is hidden is
//! that share of the link's time that a step does not get longer by.
#![expect(clippy::print_stdout, reason = "a benchmark reports to its terminal")]

mod support;

use scrimp::comm::{self, Communicator, Ranks, TensorSums};
use scrimp::config;
use scrimp::config::sampling::Sampling;
use scrimp::data::augment::Resample;
use scrimp::data::batch::Batch;
use scrimp::data::import::phantom::{Difficulty, Phantom, generate};
use scrimp::data::loader::{Loader, LoaderPlan};
use scrimp::data::stream::ANNOTATED;
use scrimp::data::{IGNORE, SCRIBBLE};
use scrimp::error::{Context, Exit, Failure, Result};
use scrimp::methods::{self, Passes, Setup};
use scrimp::native::GroupSum;
use scrimp::random::Key;
use scrimp::train::learner::{LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{Method, StepContext};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const RANKS: &str = "2";
const BATCH_SIZE: usize = 12;
const SIZE: usize = 256;
/// How often all contestants take turns; the first turn warms up.
const TURNS: usize = 8;
/// What all gradients together need on a slow link.
const LINKS_MS: [u64; 4] = [0, 50, 100, 200];
/// Set by the benchmark for the processes that it starts.
const INSIDE: &str = "--inside";
const CONFIG: &str = "
[method]
name = \"partial-ce\"
[method.params.learner]
lr = 0.01
schedule = \"constant\"
optimizer = { sgd = { momentum = 0.9, weight_decay = 1e-4 } }
[train]
total_steps = 1000
";

/// Ranks on a slow link: what is summed arrives later, in proportion to its size.
struct Slow {
    inner: Ranks,
    overlaps: bool,
    /// The time of all gradients, and their number.
    whole: (Duration, usize),
    link: Option<Sender<Sent>>,
    thread: Option<JoinHandle<()>>,
}

enum Sent {
    Tensor(Tensor),
    /// Says when all before has arrived.
    Tell(Sender<()>),
}

impl Slow {
    fn new(inner: &Ranks, overlaps: bool, whole: (Duration, usize)) -> Self {
        let (link, sent) = mpsc::channel();
        let behind = Arc::clone(inner.tensors());
        let thread = std::thread::spawn(move || {
            for sent in sent {
                match sent {
                    Sent::Tensor(tensor) => {
                        std::thread::sleep(share(whole, &tensor));
                        behind.start_sum(tensor);
                    }
                    Sent::Tell(tell) => drop(tell.send(())),
                }
            }
        });
        Self { inner: inner.clone(), overlaps, whole, link: Some(link), thread: Some(thread) }
    }

    fn send(&self, sent: Sent) {
        if let Some(link) = &self.link {
            let _ = link.send(sent);
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        drop(self.link.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The time of a tensor on the link; only gradients count, which are large.
fn share((time, count): (Duration, usize), tensor: &Tensor) -> Duration {
    time.mul_f64(tensor.numel() as f64 / count as f64)
}

impl GroupSum for Slow {
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn sum(&self, tensor: &Tensor) {
        std::thread::sleep(share(self.whole, tensor));
        self.inner.tensors().sum(tensor);
    }
}

impl TensorSums for Slow {
    fn overlaps(&self) -> bool {
        self.overlaps
    }
    fn start_sum(&self, tensor: Tensor) {
        self.send(Sent::Tensor(tensor));
    }
    fn finish_sums(&self) {
        let (tell, told) = mpsc::channel();
        self.send(Sent::Tell(tell));
        let _ = told.recv();
        self.inner.tensors().finish_sums();
    }
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        self.inner.tensors().broadcast(root, tensor)
    }
}

impl Communicator for Slow {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn barrier(&self) -> Result<()> {
        self.inner.barrier()
    }
    fn max(&self, value: i64) -> Result<i64> {
        self.inner.max(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.inner.gather(message)
    }
    fn abort(&self, exit: Exit) -> ! {
        self.inner.abort(exit)
    }
}

/// One form of summing on one link.
struct Contestant {
    link_ms: u64,
    communicator: Ranks,
    method: Box<dyn Method>,
    step: u64,
    times_ms: Vec<f64>,
}

impl Contestant {
    fn new(comm: &Ranks, overlaps: bool, link_ms: u64) -> Result<Self> {
        let config = config::parse(CONFIG, "overlap.toml", &[])?;
        let definition = methods::find(&config.method.name)?;
        let key = Key::new(1).purpose("weights");
        let moments = Moments::Whole;
        let setup = Setup {
            learner: LearnerSetup {
                key,
                kind: Kind::Float,
                computed: Kind::Float,
                device: Device::Cpu,
                moments,
            },
            classes: 4,
            channels: 1,
            passes: Passes::new(false, None),
            slices: Vec::new(),
            sample: [1, SIZE, SIZE],
            spacing_mm: None,
            levels: Vec::new(),
        };
        let method = (definition.build)(&(definition.check)(&config)?, &setup)?;
        let count = method.learners().iter().map(|learner| learner.flat_parts()[0].total).sum();
        let communicator = Slow::new(comm, overlaps, (Duration::from_millis(link_ms), count));
        Ok(Self {
            link_ms,
            communicator: Ranks::of(Arc::new(communicator)),
            method,
            step: 0,
            times_ms: Vec::new(),
        })
    }

    fn train(&mut self, batch: &Batch) -> Result<()> {
        self.step += 1;
        self.communicator.barrier()?;
        let start = Instant::now();
        let mut cx =
            StepContext::new(StepPoint::new(self.step, 1000, Key::new(1)), &self.communicator);
        self.method.step(batch, &mut cx)?;
        cx.into_report().fetch()?;
        self.communicator.barrier()?;
        self.times_ms.push(1e3 * start.elapsed().as_secs_f64());
        Ok(())
    }

    fn median_ms(&mut self) -> f64 {
        let timed = &mut self.times_ms[1..];
        timed.sort_by(f64::total_cmp);
        timed[timed.len() / 2]
    }
}

fn inside() -> Result<()> {
    let host = comm::connect(&std::env::vars().collect())?;
    let comm = comm::with_device(&host, Device::Cpu)?;
    tch::set_num_threads(1);
    let phantom =
        Phantom { cases: 12, slices: 4, size: SIZE, difficulty: Difficulty::Easy, seed: 1 };
    let plan = LoaderPlan {
        fold: 1,
        annotation: SCRIBBLE.into(),
        batch_size: BATCH_SIZE,
        drop_last: true,
        streams: ANNOTATED,
        sampling: Sampling::Slices { size: SIZE },
        augment: Resample::None,
        outside: IGNORE,
        seed: 1,
    };
    let mut loader = Loader::new(&Arc::new(generate(&phantom)?), plan, comm.rank(), comm.ranks())?;
    let batch = loader.batch(1)?.to(Kind::Float, Device::Cpu);
    let forms = LINKS_MS.into_iter().flat_map(|link_ms| [(false, link_ms), (true, link_ms)]);
    let mut contestants = forms
        .map(|(overlaps, link_ms)| Contestant::new(&comm, overlaps, link_ms))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..TURNS {
        contestants.iter_mut().try_for_each(|contestant| contestant.train(&batch))?;
    }
    if comm.rank() == 0 {
        report(&mut contestants);
    }
    Ok(())
}

fn report(contestants: &mut [Contestant]) {
    println!(
        "{:>8} {:>10} {:>10} {:>7} {:>7}",
        "link ms", "after ms", "beside ms", "ratio", "hidden"
    );
    let base = contestants[0].median_ms();
    for pair in contestants.chunks_exact_mut(2) {
        let (after, beside) = (pair[0].median_ms(), pair[1].median_ms());
        let link = pair[0].link_ms;
        let hidden = match link {
            0 => String::new(),
            _ => format!("{:.0} %", 100.0 * (after - beside) / (after - base)),
        };
        println!("{link:>8} {after:>10.0} {beside:>10.0} {:>7.2} {hidden:>7}", beside / after);
    }
}

/// Starts this program again, once per rank.
fn launch() -> Result<()> {
    let program = std::env::current_exe().context(|| "cannot tell where this program lies")?;
    let status = support::mpirun(RANKS)
        .arg(program)
        .arg(INSIDE)
        .status()
        .context(|| "cannot start `mpirun`")
        .map_err(|failure| failure.hint("run `launch/setup`"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("the ranks failed: {status}")))
}

fn main() -> ExitCode {
    let is_rank = std::env::args().any(|argument| argument == INSIDE);
    support::end(if is_rank { inside() } else { launch() })
}
