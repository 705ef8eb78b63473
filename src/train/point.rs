//! Where in a run a step is, and the numbers of a step that follow from that alone.
//!
//! They come to the device as tensors, so that a step that was recorded finds new ones in their place
//! when it is replayed. Knows no methods and no batches.

use crate::native::cuda::upload;
use crate::random::Key;
use std::cell::{Cell, RefCell};
use tch::{Device, Kind, Tensor};

/// Where in a run a step is.
#[derive(Debug, Clone, Copy)]
pub struct StepPoint {
    /// Counts from 1.
    pub step: u64,
    /// Length of the run.
    pub total_steps: u64,
    /// Steps of one epoch, at least 1.
    pub epoch_steps: u64,
    /// By what learning rates are multiplied in this step.
    pub rate_share: f64,
    key: Key,
}

impl StepPoint {
    /// The same with another share of the learning rates.
    #[must_use]
    pub fn with_rate_share(self, rate_share: f64) -> Self {
        Self { rate_share, ..self }
    }

    /// The same in a run whose epochs have so many steps.
    #[must_use]
    pub fn in_epochs_of(self, steps: u64) -> Self {
        Self { epoch_steps: steps.max(1), ..self }
    }

    /// A step of a run with this key, which is one epoch.
    pub fn new(step: u64, total_steps: u64, key: Key) -> Self {
        let key = key.purpose("step").number(step);
        Self { step, total_steps, epoch_steps: total_steps.max(1), rate_share: 1.0, key }
    }

    /// The key of this step for one purpose, equal on all ranks.
    pub fn key(&self, purpose: &str) -> Key {
        self.key.purpose(purpose)
    }

    /// One key per sample, from its position in the global batch.
    pub fn sample_keys(&self, purpose: &str, positions: &[u64]) -> Vec<Key> {
        let key = self.key(purpose);
        positions.iter().map(|position| key.number(*position)).collect()
    }
}

/// Computes numbers of a step as 64 bits each, always equally many.
type Formula = Box<dyn Fn(&StepPoint) -> Vec<i64>>;

/// The numbers of a step that vary with the point.
pub struct StepNumbers {
    point: StepPoint,
    /// How many were asked for.
    used: Cell<usize>,
    kept: Option<Kept>,
}

/// Numbers in one place, with the formulas to compute them anew.
struct Kept {
    /// 64 bits each: `i64 [room]`.
    place: Tensor,
    /// In the order in which the step asks for their numbers, which is always the same.
    formulas: RefCell<Vec<Formula>>,
    /// How many of them were asked for again.
    asked: Cell<usize>,
}

impl StepNumbers {
    /// Numbers of `point` alone.
    pub fn of(point: StepPoint) -> Self {
        Self { point, used: Cell::new(0), kept: None }
    }

    /// Numbers that [`StepNumbers::renew`] replaces by those of another point, with room for so many. On a
    /// GPU they are not there before.
    pub(super) fn kept(point: StepPoint, room: usize, device: Device) -> Self {
        let place = Tensor::zeros([room as i64], (Kind::Int64, device));
        let kept = Kept { place, formulas: RefCell::default(), asked: Cell::new(0) };
        Self { point, used: Cell::new(0), kept: Some(kept) }
    }

    /// How many numbers were asked for.
    pub(super) fn used(&self) -> usize {
        self.used.get()
    }

    /// The point itself, for what does the same work in every step of its form.
    pub fn point(&self) -> &StepPoint {
        &self.point
    }

    /// Numbers on `device`: `f64 [count]`.
    pub fn numbers(&self, device: Device, of: impl Fn(&StepPoint) -> Vec<f64> + 'static) -> Tensor {
        let bits = move |point: &StepPoint| -> Vec<i64> {
            of(point).into_iter().map(|number| number.to_bits().cast_signed()).collect()
        };
        self.bits(device, Box::new(bits)).view_dtype(Kind::Double)
    }

    /// One number on `device`: 0-dimensional f64.
    pub fn number(&self, device: Device, of: impl Fn(&StepPoint) -> f64 + 'static) -> Tensor {
        self.numbers(device, move |point| vec![of(point)]).get(0)
    }

    /// Keys on `device`, as `random::Key::bits`: `i64 [count]`.
    pub fn keys(&self, device: Device, of: impl Fn(&StepPoint) -> Vec<Key> + 'static) -> Tensor {
        let bits = move |point: &StepPoint| -> Vec<i64> {
            of(point).into_iter().map(|key| key.bits().cast_signed()).collect()
        };
        self.bits(device, Box::new(bits))
    }

    fn bits(&self, device: Device, formula: Formula) -> Tensor {
        let now = Tensor::from_slice(&formula(&self.point));
        let start = self.used.replace(self.used.get() + now.numel());
        let Some(Kept { place, formulas, asked }) = &self.kept else {
            return upload(&now, device);
        };
        let place = place.narrow(0, start as i64, now.size()[0]);
        let mut formulas = formulas.borrow_mut();
        if asked.replace(asked.get() + 1) == formulas.len() {
            formulas.push(formula);
            if place.device() == Device::Cpu {
                // Past autograd, which may have kept other numbers of the same memory.
                place.data().copy_(&now);
            }
        }
        place
    }

    /// Puts the numbers of another point in place of those that were asked for, with one transfer, and
    /// lets the step ask for them again.
    pub(super) fn renew(&self, point: &StepPoint) {
        let Some(Kept { place, formulas, asked }) = &self.kept else { return };
        asked.set(0);
        self.used.set(0);
        let bits: Vec<i64> = formulas.borrow().iter().flat_map(|formula| formula(point)).collect();
        let mut target = place.narrow(0, 0, bits.len() as i64);
        target.copy_(&upload(&Tensor::from_slice(&bits), place.device()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_numbers_are_those_of_the_point_they_were_renewed_for() {
        let point = |step| StepPoint::new(step, 10, Key::new(3));
        let ask = |numbers: &StepNumbers| {
            let shares = |point: &StepPoint| vec![point.step as f64, 0.5];
            let given = numbers.numbers(Device::Cpu, shares);
            let keys = numbers.keys(Device::Cpu, |point| point.sample_keys("dropout", &[0, 7]));
            (given, keys)
        };
        let kept = StepNumbers::kept(point(2), 10, Device::Cpu);
        let (first, _) = ask(&kept);
        assert!(first.equal(&ask(&StepNumbers::of(point(2))).0) && kept.used() == 4);
        for step in [2, 5] {
            kept.renew(&point(step));
            let (numbers, keys) = ask(&kept);
            let (now, keys_now) = ask(&StepNumbers::of(point(step)));
            assert!(numbers.equal(&now) && keys.equal(&keys_now), "step {step}");
            assert!(first.equal(&now), "the place is the same");
        }
    }
}
