//! Ranks as threads of one process: for tests, and to try a run of several ranks without MPI.
//!
//! Every collective call is one meeting: the ranks put down what they bring, the last to arrive
//! combines it in rank order, and all take the outcome away. It knows no processes and no launcher.

use crate::comm::background::{Background, Sum};
use crate::comm::{Communicator, Ranks, TensorSums, check_root};
use crate::error::{Exit, Failure, Result};
use crate::native::GroupSum;
use std::any::Any;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

/// Runs `body` once per rank, each on a thread of its own; the outcomes come in rank order.
///
/// A rank that panics has failed, with the panic's message. Ranks that wait for a rank that
/// returned or panicked fail at once; so does everybody when ranks call different things.
pub fn run<T: Send>(ranks: usize, body: impl Fn(Ranks) -> Result<T> + Sync) -> Vec<Result<T>> {
    let meetings = [(); 2].map(|()| Arc::new(Meeting::new(ranks)));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ranks)
            .map(|rank| {
                let [meeting, behind] =
                    meetings.each_ref().map(|meeting| Seat { rank, meeting: Arc::clone(meeting) });
                let body = &body;
                scope.spawn(move || {
                    let background = Background::start(move || Ok(behind.sums()))?;
                    body(Ranks::of(Arc::new(Threads { ranks, seat: meeting, background })))
                })
            })
            .collect();
        threads
            .into_iter()
            .enumerate()
            .map(|(rank, thread)| match thread.join() {
                Ok(outcome) => outcome,
                Err(panic) => Err(panicked(rank, panic)),
            })
            .collect()
    })
}

/// What a rank failed with: a failure that it unwound with on purpose, or a panic's message.
fn panicked(rank: usize, panic: Box<dyn Any + Send>) -> Failure {
    match panic.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Failure::new(format!("rank {rank} panicked: {text}"))
        }
    }
}

/// One rank of [`run`]. Sums add in rank order, so they are equal on all ranks and in every run.
struct Threads {
    ranks: usize,
    seat: Seat,
    background: Background,
}

/// A rank at a meeting; it has left when this is dropped.
struct Seat {
    rank: usize,
    meeting: Arc<Meeting>,
}

/// A collective call as all ranks must make it.
#[derive(Debug, Clone, PartialEq)]
enum Call {
    Sum { kind: Kind, shape: Vec<i64> },
    Broadcast { root: usize, kind: Kind, shape: Vec<i64> },
    Barrier,
    Max,
    Gather,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sum { kind, shape } => write!(f, "sum of {kind:?} {shape:?}"),
            Self::Broadcast { root, kind, shape } => {
                write!(f, "broadcast of {kind:?} {shape:?} from rank {root}")
            }
            Self::Barrier => f.write_str("barrier"),
            Self::Max => f.write_str("max"),
            Self::Gather => f.write_str("gather"),
        }
    }
}

/// What a rank brings to a call; the call's outcome is made of the same.
enum Load {
    Nothing,
    Tensor(Tensor),
    Number(i64),
    Messages(Vec<Vec<u8>>),
}

impl Load {
    /// Another handle on the same outcome.
    fn share(&self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Tensor(tensor) => Self::Tensor(tensor.shallow_clone()),
            Self::Number(number) => Self::Number(*number),
            Self::Messages(messages) => Self::Messages(messages.clone()),
        }
    }
}

/// The place where ranks meet.
struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The current call, and the first rank that made it.
    call: Option<(usize, Call)>,
    /// What each rank brought to the current call.
    brought: Vec<Option<Load>>,
    /// The outcome and how many ranks have still to take it; no new call begins before.
    outcome: Option<(Load, usize)>,
    /// Ranks whose handle is gone, in the order of leaving: the first is the one to blame.
    left: Vec<usize>,
    /// Why no call can succeed any more, and the exit code that goes with it.
    broken: Option<(String, Exit)>,
}

impl Meeting {
    fn new(ranks: usize) -> Self {
        Self {
            state: Mutex::new(State {
                call: None,
                brought: (0..ranks).map(|_| None).collect(),
                outcome: None,
                left: Vec::new(),
                broken: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Usable also after a rank panicked in here: it has left, so every call after it fails.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Takes part in one call and returns its outcome.
    fn join(&self, rank: usize, call: &Call, load: Load) -> Result<Load> {
        let mut state = self.state();
        while state.outcome.is_some() {
            state.check(rank, call)?;
            state = self.wait(state);
        }
        state.check(rank, call)?;
        state.arrive(rank, call, load);
        if state.broken.is_none() && state.brought.iter().all(Option::is_some) {
            let ranks = state.brought.len();
            let loads = state.brought.iter_mut().filter_map(Option::take).collect();
            match combine(call, loads) {
                Ok(outcome) => state.outcome = Some((outcome, ranks)),
                Err(failure) => state.broken = Some((failure.to_string(), failure.exit())),
            }
        }
        self.changed.notify_all();
        while state.outcome.is_none() {
            state.check(rank, call)?;
            state = self.wait(state);
        }
        let taken = state.take();
        self.changed.notify_all();
        taken
    }
}

impl State {
    /// Whether the call can still succeed.
    fn check(&self, rank: usize, call: &Call) -> Result<()> {
        if let Some((reason, exit)) = &self.broken {
            return Err(Failure::new(reason.clone()).exit_with(*exit));
        }
        match self.left.iter().find(|&&other| self.brought[other].is_none()) {
            Some(other) if self.outcome.is_none() => {
                Err(Failure::new(format!("rank {rank} waits in `{call}`, but rank {other} left")))
            }
            _ => Ok(()),
        }
    }

    fn arrive(&mut self, rank: usize, call: &Call, load: Load) {
        let (first, expected) = self.call.get_or_insert_with(|| (rank, call.clone()));
        if expected != call {
            let reason =
                format!("ranks disagree: rank {rank} calls `{call}`, rank {first} `{expected}`");
            self.broken = Some((reason, Exit::Failed));
        } else if self.brought[rank].replace(load).is_some() {
            let reason = format!("two threads of rank {rank} called `{call}` at the same time");
            self.broken = Some((reason, Exit::Failed));
        }
    }

    fn take(&mut self) -> Result<Load> {
        let Some((outcome, remaining)) = &mut self.outcome else {
            return Err(Failure::new("a call of `Threads` ended without an outcome"));
        };
        let mine = outcome.share();
        *remaining -= 1;
        if *remaining == 0 {
            self.outcome = None;
            self.call = None;
        }
        Ok(mine)
    }
}

/// The outcome of a call from what all ranks brought, in rank order.
fn combine(call: &Call, mut loads: Vec<Load>) -> Result<Load> {
    Ok(match call {
        Call::Barrier => Load::Nothing,
        // A copy: the root may change its tensor before the others have taken it away.
        Call::Broadcast { root, .. } => match loads.swap_remove(*root) {
            Load::Tensor(tensor) => Load::Tensor(tensor.detach().copy()),
            other => other,
        },
        Call::Max => Load::Number(loads.iter().filter_map(number).max().unwrap_or_default()),
        Call::Gather => Load::Messages(loads.into_iter().flat_map(messages).collect()),
        Call::Sum { .. } => {
            let mut tensors = loads.iter().filter_map(tensor);
            let mut total = match tensors.next() {
                Some(first) => first.detach().copy(),
                None => return Ok(Load::Nothing),
            };
            for next in tensors {
                total = total.f_add_(&next.detach()).map_err(|error| {
                    Failure::new(format!("cannot add up a `{call}`")).because(&error)
                })?;
            }
            Load::Tensor(total)
        }
    })
}

fn tensor(load: &Load) -> Option<&Tensor> {
    if let Load::Tensor(tensor) = load { Some(tensor) } else { None }
}

fn number(load: &Load) -> Option<i64> {
    if let Load::Number(number) = load { Some(*number) } else { None }
}

fn messages(load: Load) -> Vec<Vec<u8>> {
    if let Load::Messages(messages) = load { messages } else { Vec::new() }
}

impl Seat {
    fn join(&self, call: &Call, load: Load) -> Result<Load> {
        self.meeting.join(self.rank, call, load)
    }

    /// A call that fills `tensor` with its outcome.
    fn fill(&self, call: &Call, tensor: &Tensor) -> Result<()> {
        if !tensor.is_contiguous() {
            return Err(Failure::new(format!("`{call}`: the tensor is not contiguous")));
        }
        let outcome = self.join(call, Load::Tensor(tensor.shallow_clone()))?;
        if let Load::Tensor(outcome) = outcome {
            tch::no_grad(|| tensor.shallow_clone().copy_(&outcome));
        }
        Ok(())
    }

    fn sum(&self, tensor: &Tensor) {
        let call = Call::Sum { kind: tensor.kind(), shape: tensor.size() };
        if let Err(failure) = self.fill(&call, tensor) {
            // A rank is a thread here, and unwinding is how it ends.
            resume_unwind(Box::new(failure));
        }
    }

    fn sums(self) -> Sum {
        Box::new(move |tensor| self.sum(tensor))
    }
}

impl GroupSum for Threads {
    fn ranks(&self) -> usize {
        self.ranks
    }

    fn sum(&self, tensor: &Tensor) {
        self.seat.sum(tensor);
    }
}

impl TensorSums for Threads {
    fn overlaps(&self) -> bool {
        true
    }

    fn start_sum(&self, tensor: Tensor) {
        self.background.sum(tensor);
    }

    fn finish_sums(&self) {
        self.background.finish();
    }

    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        check_root(root, self.ranks)?;
        self.seat.fill(&Call::Broadcast { root, kind: tensor.kind(), shape: tensor.size() }, tensor)
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.seat.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn barrier(&self) -> Result<()> {
        self.seat.join(&Call::Barrier, Load::Nothing).map(|_| ())
    }

    fn max(&self, value: i64) -> Result<i64> {
        let largest = self.seat.join(&Call::Max, Load::Number(value))?;
        Ok(number(&largest).unwrap_or(value))
    }

    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.seat.join(&Call::Gather, Load::Messages(vec![message.to_vec()])).map(messages)
    }

    fn abort(&self, exit: Exit) -> ! {
        let reason = format!("rank {} aborted the group", self.seat.rank);
        self.seat.meeting.end(|state| state.broken = Some((reason.clone(), exit)));
        resume_unwind(Box::new(Failure::new(reason).exit_with(exit)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.meeting.end(|state| state.left.push(self.rank));
    }
}
