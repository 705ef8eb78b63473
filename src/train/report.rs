//! The numbers of one step: on the device while it is computed, fetched where somebody reads them.
//!
//! Knows neither who computes them nor where they are written.

use super::objective::Objective;
use crate::error::{Failure, Result};
use crate::native::flat::Norm;
use tch::{Kind, Tensor};

/// The numbers of one step, still on the device.
#[derive(Debug, Default)]
pub struct StepReport {
    losses: Vec<(String, Tensor)>,
    observations: Vec<(&'static str, Tensor)>,
    /// Name, learning rate, norm of the gradient.
    learners: Vec<(&'static str, Tensor, Tensor)>,
    finite: Option<Tensor>,
}

/// The numbers of one step, fetched.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FetchedNumbers {
    /// `learner/term` and its global, unweighted value.
    pub losses: Vec<(String, f64)>,
    /// What the method observed beside, by name.
    pub observations: Vec<(String, f64)>,
    /// Learner, learning rate, norm of its gradient before clipping.
    pub learners: Vec<(String, f64, f64)>,
}

/// Adds a number to that of the same name, or as the first of this name.
fn add_to<N: PartialEq>(numbers: &mut Vec<(N, Tensor)>, name: N, value: Tensor) {
    match numbers.iter_mut().find(|(known, _)| *known == name) {
        Some((_, sum)) => *sum = &*sum + value,
        None => numbers.push((name, value)),
    }
}

impl StepReport {
    /// Of a step without numbers whose gradients were finite, or not.
    #[cfg(test)]
    pub(super) fn of_gradients(finite: bool) -> Self {
        Self { finite: Some(Tensor::from(finite)), ..Self::default() }
    }

    /// Takes the terms of a micro-batch with its share of the step's samples.
    pub(super) fn take(&mut self, learner: &'static str, objective: Objective, share: f64) {
        for (name, value) in objective.into_terms() {
            add_to(&mut self.losses, format!("{learner}/{name}"), value.detach() * share);
        }
    }

    /// Adds a micro-batch's share of a number that nobody minimises.
    pub(super) fn observe(&mut self, name: &'static str, value: Tensor) {
        add_to(&mut self.observations, name, value);
    }

    /// Takes what an update was made with.
    pub(super) fn record(&mut self, learner: &'static str, learning_rate: Tensor, norm: Norm) {
        self.learners.push((learner, learning_rate, norm.value));
        self.finite = Some(match self.finite.take() {
            Some(before) => before.logical_and(&norm.finite),
            None => norm.finite,
        });
    }

    /// The same numbers in memory of their own, put together by a few operations on the device.
    pub(super) fn gathered(&self) -> Self {
        let numbers = self.tensors();
        if numbers.is_empty() {
            return Self { finite: self.finite.as_ref().map(Tensor::copy), ..Self::default() };
        }
        let all = Tensor::cat(&numbers, 0).unbind(0);
        let (losses, rest) = all.split_at(self.losses.len());
        let (observations, learners) = rest.split_at(self.observations.len());
        let losses = self.losses.iter().zip(losses);
        let observations = self.observations.iter().zip(observations);
        let learners = self.learners.iter().zip(learners.chunks_exact(2));
        let own = Tensor::shallow_clone;
        Self {
            losses: losses.map(|((name, _), value)| (name.clone(), own(value))).collect(),
            observations: observations.map(|((name, _), value)| (*name, own(value))).collect(),
            learners: learners
                .map(|((name, ..), pair)| (*name, own(&pair[0]), own(&pair[1])))
                .collect(),
            finite: self.finite.as_ref().map(Tensor::copy),
        }
    }

    /// All numbers, each `f64 [1]`.
    fn tensors(&self) -> Vec<Tensor> {
        (self.losses.iter().map(|(_, value)| value))
            .chain(self.observations.iter().map(|(_, value)| value))
            .chain(self.learners.iter().flat_map(|(_, rate, norm)| [rate, norm]))
            .map(|value| value.to_kind(Kind::Double).view([1]))
            .collect()
    }

    /// 0-dimensional boolean on the device: whether every gradient of the step was finite.
    pub fn finite(&self) -> Option<&Tensor> {
        self.finite.as_ref()
    }

    /// Fetches all numbers with one transfer.
    pub fn fetch(&self) -> Result<FetchedNumbers> {
        let tensors = self.tensors();
        if tensors.is_empty() {
            return Ok(FetchedNumbers::default());
        }
        let values: Vec<f64> = Vec::try_from(Tensor::cat(&tensors, 0))
            .map_err(|error| Failure::new("cannot fetch the losses").because(&error))?;
        let (losses, values) = values.split_at(self.losses.len());
        let (observations, learners) = values.split_at(self.observations.len());
        let names = self.losses.iter().map(|(name, _)| name.clone());
        let observed = self.observations.iter().map(|(name, _)| (*name).to_owned());
        let learners = self.learners.iter().zip(learners.chunks_exact(2));
        Ok(FetchedNumbers {
            losses: names.zip(losses.iter().copied()).collect(),
            observations: observed.zip(observations.iter().copied()).collect(),
            learners: learners
                .map(|((name, ..), pair)| ((*name).to_owned(), pair[0], pair[1]))
                .collect(),
        })
    }
}
