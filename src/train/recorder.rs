//! The flight recorder of one rank: what it is busy with, and its last collective calls.
//!
//! The training thread notes numbers in memory here and never writes a file; the watchdog's thread
//! looks and writes. It does not judge.

use crate::comm::{Communicator, Ranks, TensorSums};
use crate::error::{Exit, Result};
use crate::native::GroupSum;
use crate::runlog::flight::{Call, Operation, Phase};
use crate::runlog::now_ms;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};

/// Collective calls that are remembered: those of about two steps of a U-Net.
const CALLS: usize = 128;
/// Steps whose durations are remembered.
const STEPS: usize = 63;

/// What one rank does, as far as it is remembered.
pub struct FlightRecorder {
    notes: Mutex<Notes>,
}

/// What the recorder remembers.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    pub(super) phase: Phase,
    /// The step under way; 0 before the first.
    pub(super) step: u64,
    /// The last step that is done.
    done: u64,
    /// Collective calls that were begun.
    pub(super) sequence: u64,
    /// Grows with everything that begins or ends.
    pub(super) moves: u64,
    /// The newest last.
    pub(super) calls: VecDeque<Call>,
    /// Durations of the last steps, the newest last.
    steps: VecDeque<Duration>,
    /// Time in sums since it was last asked for.
    sums: Duration,
}

impl Notes {
    /// The median duration of the last steps, once there are a few.
    pub(super) fn median_step(&self) -> Option<Duration> {
        let mut steps: Vec<Duration> = self.steps.iter().copied().collect();
        steps.sort_unstable();
        (steps.len() >= 3).then(|| steps[steps.len() / 2])
    }

    /// Whether it is in a collective call, which takes as long as the slowest rank.
    pub(super) fn is_waiting(&self) -> bool {
        self.calls.back().is_some_and(|call| call.end_ms.is_none())
    }

    pub(super) fn begin(&mut self, operation: Operation, bytes: u64) {
        self.sequence += 1;
        self.moves += 1;
        if self.calls.len() == CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(Call {
            sequence: self.sequence,
            operation,
            bytes,
            phase: self.phase,
            step: self.step,
            start_ms: now_ms(),
            end_ms: None,
        });
    }

    fn end(&mut self, took: Duration) {
        self.moves += 1;
        if let Some(call) = self.calls.back_mut() {
            call.end_ms = Some(now_ms());
            if call.operation == Operation::Sum {
                self.sums += took;
            }
        }
    }
}

impl FlightRecorder {
    /// Of a rank that is starting.
    pub fn new() -> Self {
        let notes = Notes {
            phase: Phase::Starting,
            step: 0,
            done: 0,
            sequence: 0,
            moves: 0,
            calls: VecDeque::with_capacity(CALLS),
            steps: VecDeque::with_capacity(STEPS),
            sums: Duration::ZERO,
        };
        Self { notes: Mutex::new(notes) }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rank is busy with something else from now on.
    pub fn enter(&self, phase: Phase) {
        let mut notes = self.notes();
        notes.phase = phase;
        notes.moves += 1;
    }

    /// The rank begins `step`.
    pub(super) fn begin_step(&self, step: u64) {
        let mut notes = self.notes();
        notes.step = step;
        notes.phase = Phase::WaitingForData;
        notes.moves += 1;
    }

    /// A step is over and took this long.
    pub(super) fn end_step(&self, took: Duration) {
        let mut notes = self.notes();
        notes.moves += 1;
        notes.done = notes.step;
        if notes.steps.len() == STEPS {
            notes.steps.pop_front();
        }
        notes.steps.push_back(took);
    }

    /// Whether a step has begun in this process.
    pub fn has_begun(&self) -> bool {
        self.notes().step > 0
    }

    /// The last step that is done.
    pub fn steps_done(&self) -> u64 {
        self.notes().done
    }

    /// The time in sums since the last call of this.
    pub(super) fn take_sum_time(&self) -> Duration {
        std::mem::take(&mut self.notes().sums)
    }

    pub(super) fn snapshot(&self) -> Notes {
        self.notes().clone()
    }
}

impl Default for FlightRecorder {
    fn default() -> Self {
        Self::new()
    }
}

/// Ranks whose calls a flight recorder notes.
pub struct Recorded {
    inner: Ranks,
    recorder: Arc<FlightRecorder>,
    /// Bytes of the sums that go on beside.
    started_bytes: AtomicU64,
}

impl Recorded {
    /// Passes every call on to `inner` and notes it in `recorder`.
    pub fn new(inner: Ranks, recorder: Arc<FlightRecorder>) -> Self {
        Self { inner, recorder, started_bytes: AtomicU64::new(0) }
    }

    fn noted<T>(&self, operation: Operation, bytes: u64, call: impl FnOnce() -> T) -> T {
        self.recorder.notes().begin(operation, bytes);
        let start = Instant::now();
        let outcome = call();
        self.recorder.notes().end(start.elapsed());
        outcome
    }
}

/// Bytes of a tensor's elements.
fn bytes_of(tensor: &Tensor) -> u64 {
    let each = match tensor.kind() {
        Kind::Double | Kind::Int64 => 8,
        Kind::Float | Kind::Int => 4,
        Kind::Half | Kind::BFloat16 => 2,
        _ => 1,
    };
    tensor.numel() as u64 * each
}

impl GroupSum for Recorded {
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }

    fn sum(&self, tensor: &Tensor) {
        self.noted(Operation::Sum, bytes_of(tensor), || self.inner.tensors().sum(tensor));
    }
}

impl TensorSums for Recorded {
    fn overlaps(&self) -> bool {
        self.inner.tensors().overlaps()
    }
    fn start_sum(&self, tensor: Tensor) {
        self.started_bytes.fetch_add(bytes_of(&tensor), Ordering::Relaxed);
        self.inner.tensors().start_sum(tensor);
    }
    fn finish_sums(&self) {
        let bytes = self.started_bytes.swap(0, Ordering::Relaxed);
        self.noted(Operation::Sum, bytes, || self.inner.tensors().finish_sums());
    }
    fn sum_own_share(&self, tensor: &Tensor) {
        let call = || self.inner.tensors().sum_own_share(tensor);
        self.noted(Operation::Sum, bytes_of(tensor), call);
    }
    fn gather_shares(&self, tensor: &Tensor) -> Result<()> {
        let call = || self.inner.tensors().gather_shares(tensor);
        self.noted(Operation::Gather, bytes_of(tensor), call)
    }
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        let call = || self.inner.tensors().broadcast(root, tensor);
        self.noted(Operation::Broadcast, bytes_of(tensor), call)
    }
}

impl Communicator for Recorded {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn ranks(&self) -> usize {
        self.inner.ranks()
    }
    fn barrier(&self) -> Result<()> {
        self.noted(Operation::Barrier, 0, || self.inner.barrier())
    }
    fn max(&self, value: i64) -> Result<i64> {
        self.noted(Operation::Max, 8, || self.inner.max(value))
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.noted(Operation::Gather, message.len() as u64, || self.inner.gather(message))
    }
    fn note_progress(&self) {
        self.recorder.notes().moves += 1;
    }
    fn abort(&self, exit: Exit) -> ! {
        self.inner.abort(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_calls_and_what_they_were_for() {
        let recorder = Arc::new(FlightRecorder::new());
        let comm = Recorded::new(Ranks::alone(), Arc::clone(&recorder));
        for _ in 0..CALLS {
            comm.barrier().unwrap();
        }
        recorder.begin_step(4);
        recorder.enter(Phase::Step);
        comm.sum(&Tensor::zeros([3, 5], (Kind::Double, tch::Device::Cpu)));
        let notes = recorder.snapshot();
        let call = *notes.calls.back().unwrap();
        assert_eq!((call.operation, call.bytes, call.phase), (Operation::Sum, 120, Phase::Step));
        assert_eq!((call.sequence, call.step), (CALLS as u64 + 1, 4));
        assert!(call.end_ms.is_some());
        assert_eq!(notes.calls.len(), CALLS);
        assert_eq!(notes.calls[0].sequence, 2);
    }

    #[test]
    fn every_note_moves_it_on() {
        let recorder = Arc::new(FlightRecorder::new());
        let comm = Recorded::new(Ranks::alone(), Arc::clone(&recorder));
        let mut before = recorder.snapshot().moves;
        let mut moved = || {
            let now = recorder.snapshot().moves;
            std::mem::replace(&mut before, now) < now
        };
        comm.max(3).unwrap();
        assert!(moved());
        comm.note_progress();
        assert!(moved());
        recorder.enter(Phase::Saving);
        assert!(moved());
        recorder.end_step(Duration::from_millis(5));
        assert!(moved() && !moved());
    }

    #[test]
    fn the_median_step_waits_for_three_and_forgets_old_ones() {
        let recorder = FlightRecorder::new();
        recorder.end_step(Duration::from_secs(9));
        recorder.end_step(Duration::from_secs(9));
        assert_eq!(recorder.snapshot().median_step(), None);
        recorder.end_step(Duration::from_secs(1));
        assert_eq!(recorder.snapshot().median_step(), Some(Duration::from_secs(9)));
        for _ in 0..STEPS {
            recorder.end_step(Duration::from_secs(2));
        }
        assert_eq!(recorder.snapshot().median_step(), Some(Duration::from_secs(2)));
    }
}
