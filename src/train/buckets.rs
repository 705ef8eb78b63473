//! Gradients summed over ranks in parts, while backward still computes the others.
//!
//! Parts are contiguous ranges of the flat gradients. All ranks sum them in the order in which the
//! first backward completed them, whatever a later one does. Knows no networks and no optimiser.

use crate::comm::{Communicator, Ranks};
use crate::error::{Failure, Result};
use crate::native::on_gradient;
use crate::parameters::{Flat, Leaves, Parameters, Role, Slot};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::Tensor;

/// Fewest elements of a part: 1 MiB in single precision. What takes a message its time is its way
/// below that, and the nets of this field have but 1 to 10 MiB to hide.
const ELEMENTS: i64 = 1 << 18;

/// The parts of one learner's gradients.
#[derive(Debug)]
pub(super) struct Buckets {
    state: Arc<Mutex<State>>,
}

struct State {
    gradients: Tensor,
    buckets: Vec<Bucket>,
    /// In which order they are summed; none before the first backward is over.
    order: Option<Vec<usize>>,
    backward: Option<Backward>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("buckets", &self.buckets)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    range: Range<i64>,
    slots: Range<usize>,
    /// How many gradients arrive in it.
    awaited: usize,
}

/// A backward under way.
struct Backward {
    communicator: Ranks,
    leaves: Leaves,
    /// Whether gradients are added to those of earlier micro-batches.
    adds: bool,
    /// Why gradients could not be gathered.
    failure: Option<Failure>,
    /// How many gradients each part still lacks.
    missing: Vec<usize>,
    /// The parts that are complete, in that order.
    complete: Vec<usize>,
    /// How many of the agreed order are being summed.
    started: usize,
}

impl Buckets {
    /// Watches the trainable tensors of `parameters`, whose gradients lie in `gradients` where their
    /// values do in `flat`.
    pub(super) fn new(parameters: &Parameters, flat: &Flat, gradients: &Tensor) -> Result<Self> {
        let mut buckets = cut(&flat.slots, gradients.size()[0]);
        let of_slot = buckets.iter().enumerate();
        let of_slot =
            of_slot.flat_map(|(index, bucket)| std::iter::repeat_n(index, bucket.slots.len()));
        let of_slot: Vec<usize> = of_slot.collect();
        let slots = parameters.trainable().zip(of_slot);
        let (absorbed, awaited): (Vec<_>, Vec<_>) =
            slots.partition(|(entry, _)| entry.role == Role::Absorbed);
        for (_, bucket) in absorbed {
            buckets[bucket].awaited -= 1;
        }
        let gradients = gradients.shallow_clone();
        let state = State { gradients, buckets, order: None, backward: None };
        let state = Arc::new(Mutex::new(state));
        for (entry, bucket) in awaited {
            // Only one of the two gets the gradient.
            for leaf in std::iter::once(&entry.tensor).chain(&entry.narrowed) {
                let state = Arc::clone(&state);
                on_gradient(leaf, Box::new(move || lock(&state).arrived(bucket)))?;
            }
        }
        Ok(Self { state })
    }

    /// To be called before a backward; parts that it completes are gathered, added to what is there or not, and
    /// summed over the ranks at once.
    pub(super) fn begin(&self, communicator: &Ranks, leaves: &Leaves, adds: bool) {
        let mut state = lock(&self.state);
        state.backward = Some(Backward {
            communicator: communicator.clone(),
            // Not kept by the state, which the leaves' own hooks keep.
            leaves: leaves.share(),
            adds,
            failure: None,
            missing: state.buckets.iter().map(|bucket| bucket.awaited).collect(),
            complete: Vec::new(),
            started: 0,
        });
    }

    /// To be called after it: everything is summed when this returns.
    ///
    /// Fails on all ranks where their first backwards completed the parts in different orders.
    pub(super) fn finish(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let Some(mut backward) = state.backward.take() else {
            return Err(Failure::new("gradients are summed before a backward"));
        };
        let communicator = backward.communicator.clone();
        let Some(order) = &state.order else {
            backward.leaves.gather_all(&state.gradients, backward.adds)?;
            communicator.tensors().sum(&state.gradients);
            let parts = 0..state.buckets.len();
            let rest: Vec<usize> = parts.filter(|part| !backward.complete.contains(part)).collect();
            backward.complete.extend(rest);
            agree_on(&backward.complete, &*communicator)?;
            state.order = Some(backward.complete);
            return Ok(());
        };
        // Parts with tensors that this backward did not reach.
        for &part in &order[backward.started..] {
            state.start(part, &mut backward);
        }
        drop(state);
        communicator.tensors().finish_sums();
        backward.failure.map_or(Ok(()), Err)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn part(&self, index: usize) -> Tensor {
        let Range { start, end } = self.buckets[index].range;
        self.gradients.narrow(0, start, end - start)
    }

    /// Gathers part `index` and starts its sum over the ranks, which all of them start whatever happens.
    fn start(&self, index: usize, backward: &mut Backward) {
        let slots = self.buckets[index].slots.clone();
        let gathered = backward.leaves.gather(slots, &self.gradients, backward.adds);
        backward.failure = backward.failure.take().or(gathered.err());
        backward.communicator.tensors().start_sum(self.part(index));
    }

    /// A gradient of part `index` is there.
    fn arrived(&mut self, index: usize) {
        let Some(mut backward) = self.backward.take() else { return };
        backward.missing[index] = backward.missing[index].saturating_sub(1);
        if backward.missing[index] == 0 {
            backward.complete.push(index);
        }
        let order = self.order.as_deref().unwrap_or_default();
        while order.get(backward.started).is_some_and(|&next| backward.missing[next] == 0) {
            self.start(order[backward.started], &mut backward);
            backward.started += 1;
        }
        self.backward = Some(backward);
    }
}

/// Cuts the flat tensor of `total` elements into parts. The first takes what is left over: backward
/// completes it last, and nothing hides its sum.
fn cut(slots: &[Slot], total: i64) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    let empty =
        |start: i64, slot: usize| Bucket { range: start..start, slots: slot..slot, awaited: 0 };
    let mut bucket = empty(total, slots.len());
    for (number, slot) in slots.iter().enumerate().rev() {
        bucket.range.start = slot.offset;
        bucket.slots.start = number;
        bucket.awaited += 1;
        if bucket.range.end - bucket.range.start >= ELEMENTS {
            buckets.push(std::mem::replace(&mut bucket, empty(slot.offset, number)));
        }
    }
    if !bucket.slots.is_empty() {
        buckets.push(bucket);
    }
    buckets.reverse();
    buckets
}

/// Fails on all ranks if their orders differ.
fn agree_on(order: &[usize], communicator: &dyn Communicator) -> Result<()> {
    let bytes: Vec<u8> = order.iter().flat_map(|&part| (part as u32).to_le_bytes()).collect();
    let orders = communicator.gather(&bytes)?;
    match orders.iter().position(|other| *other != orders[0]) {
        None => Ok(()),
        Some(rank) => Err(Failure::new(format!(
            "rank {rank} computed its gradients in another order than rank 0"
        ))
        .hint("start the same build of scrimp with the same configuration on all ranks")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use tch::{Device, Kind};

    fn slots(counts: &[i64]) -> Vec<Slot> {
        let mut offset = 0;
        let slot = |&count: &i64| {
            let slot = Slot { name: String::new(), shape: vec![count], offset };
            offset += count;
            slot
        };
        counts.iter().map(slot).collect()
    }

    #[test]
    fn nobody_waits_for_gradients_that_never_arrive() {
        let mut parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let mut root = parameters.root();
        let weight = root.uniform("weight", &[7], 1.0);
        let _bias = root.absorbed("bias", &[5], 1.0);
        let flat = Flat::new(&parameters);
        let (leaves, gradients) = (Leaves::of(&parameters, &flat), flat.gradients());
        let buckets = Buckets::new(&parameters, &flat, &gradients).unwrap();
        buckets.begin(&Ranks::alone(), &leaves, false);
        weight.sum(Kind::Float).backward();
        assert_eq!(lock(&buckets.state).backward.as_ref().unwrap().complete, [0]);
        buckets.finish().unwrap();
    }

    #[test]
    fn parts_are_large_cover_everything_and_the_rest_is_in_the_first() {
        let sizes = [5, 100_000, 200_000, 3, 300_000];
        let parts = cut(&slots(&sizes), sizes.iter().sum());
        let ranges: Vec<_> =
            parts.iter().map(|part| (part.range.clone(), part.slots.clone())).collect();
        assert_eq!(ranges, [(0..5, 0..1), (5..300_008, 1..4), (300_008..600_008, 4..5)]);
        assert!(cut(&[], 0).is_empty());
        assert_eq!(cut(&slots(&[7]), 7), [Bucket { range: 0..7, slots: 0..1, awaited: 1 }]);
    }
}
