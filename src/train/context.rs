//! What a method gets beside a batch: its point in the run, its micro-batch, the ranks, and the report.
//!
//! Knows no method and no learner.

use super::point::{StepNumbers, StepPoint};
use super::report::StepReport;
use crate::comm::Ranks;
use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::error::Result;
use crate::native::GroupSum;
use crate::native::flat::squares;
use crate::random::Key;
use std::rc::Rc;
use tch::{Kind, Tensor};

/// Where in the run a step is, and where its report is gathered.
pub struct StepContext<'a> {
    /// Whether the numbers of this step will be read, on all ranks alike.
    pub logged: bool,
    numbers: Rc<StepNumbers>,
    micro_batch: MicroBatch,
    /// The annotated pixels of a step in several micro-batches.
    annotated: Option<Tensor>,
    communicator: &'a Ranks,
    report: StepReport,
}

/// Which of a step's micro-batches is trained on: gradients add up over them, and weights move with
/// the last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MicroBatch {
    /// Its share of the samples of the step, in (0, 1].
    pub(super) share: f64,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl<'a> StepContext<'a> {
    /// The context of the step at `point`.
    pub fn new(point: StepPoint, communicator: &'a Ranks) -> Self {
        Self::with(Rc::new(StepNumbers::of(point)), communicator)
    }

    /// The context of a step whose numbers may be replaced.
    pub(super) fn with(numbers: Rc<StepNumbers>, communicator: &'a Ranks) -> Self {
        Self {
            logged: true,
            numbers,
            micro_batch: MicroBatch { share: 1.0, is_first: true, is_last: true },
            annotated: None,
            communicator,
            report: StepReport::default(),
        }
    }

    /// Counts the annotated pixels of a step, over all ranks, where it has several micro-batches.
    pub(super) fn count_annotated_pixels(&mut self, batches: &[Batch]) {
        self.annotated = None;
        if batches.len() < 2 {
            return;
        }
        let pixels = |batch: &Batch| batch.main().annotation.ne(i64::from(IGNORE)).sum(Kind::Int64);
        self.annotated = batches.iter().map(pixels).reduce(|sum, count| sum + count);
        if let Some(count) = &self.annotated {
            self.group().sum(count);
        }
    }

    /// Goes on with a micro-batch.
    pub(super) fn enter(&mut self, micro_batch: MicroBatch) {
        self.micro_batch = micro_batch;
    }

    /// The micro-batch that is trained on.
    pub(super) fn micro_batch(&self) -> MicroBatch {
        self.micro_batch
    }

    /// Where in the run this is. What a step computes from it on the host is the same in all steps of
    /// one form (`Method::form`).
    pub fn point(&self) -> &StepPoint {
        self.numbers.point()
    }

    /// For the numbers of a step that differ from those of others.
    pub fn numbers(&self) -> &Rc<StepNumbers> {
        &self.numbers
    }

    /// Whether this is the first micro-batch of the step, before which nothing has moved.
    pub fn is_first(&self) -> bool {
        self.micro_batch.is_first
    }

    /// The samples of the whole step over all ranks, where its micro-batch has so many.
    pub fn samples_of_step(&self, micro_batch: usize) -> usize {
        (micro_batch as f64 / self.micro_batch.share).round() as usize
    }

    /// The annotated pixels of the whole step over all ranks, 0-dimensional i64; `None` where it has one
    /// micro-batch, whose own these are.
    pub fn annotated_pixels(&self) -> Option<&Tensor> {
        self.annotated.as_ref()
    }

    /// The value of a term of which every micro-batch has a summand, as an objective takes it: what it
    /// makes of the micro-batches, each weighted with its share of the samples, is their sum.
    pub fn summand(&self, of_micro_batch: Tensor) -> Tensor {
        if self.micro_batch.share < 1.0 {
            of_micro_batch / self.micro_batch.share
        } else {
            of_micro_batch
        }
    }

    /// The ranks over which losses are normalised.
    pub fn group(&self) -> &dyn GroupSum {
        &**self.communicator.tensors()
    }

    /// The key of this step for one purpose, equal on all ranks.
    pub fn key(&self, purpose: &str) -> Key {
        self.point().key(purpose)
    }

    /// One key per sample, from its position in the global batch.
    pub fn sample_keys(&self, purpose: &str, positions: &[u64]) -> Vec<Key> {
        self.point().sample_keys(purpose, positions)
    }

    /// Reports a number that nobody minimises: 0-dimensional, equal on all ranks, and computed
    /// only where it will be read.
    pub fn observe(&mut self, name: &'static str, value: impl FnOnce(&dyn GroupSum) -> Tensor) {
        if self.logged {
            let value = tch::no_grad(|| value(self.group()) * self.micro_batch.share);
            self.report.observe(name, value);
        }
    }

    /// Says that a step that takes much longer than others gets on, so that nobody thinks it hangs.
    pub fn note_progress(&self) {
        self.communicator.note_progress();
    }

    /// Sums flat gradients over the ranks, on each rank at least its share of them, and returns the sum of
    /// the squares of all: 0-dimensional f64, of the same bits however much of them a rank gets.
    pub(super) fn sum_gradients(&self, gradients: &Tensor, own_share_only: bool) -> Result<Tensor> {
        let communicator = self.communicator;
        if !own_share_only {
            communicator.tensors().sum(gradients);
            return self.squares_of(gradients);
        }
        communicator.tensors().sum_own_share(gradients);
        let (rank, ranks) = (communicator.rank(), communicator.ranks());
        let own = squares(gradients, ranks, rank..rank + 1)?;
        let of_shares = Tensor::zeros([ranks as i64], (Kind::Double, gradients.device()));
        of_shares.narrow(0, rank as i64, 1).copy_(&own);
        communicator.tensors().sum(&of_shares);
        Ok(of_shares.sum(Kind::Double))
    }

    /// The sum of the squares of summed flat gradients, with the bits of [`Self::sum_gradients`].
    pub(super) fn squares_of(&self, gradients: &Tensor) -> Result<Tensor> {
        let ranks = self.communicator.ranks();
        let of_shares = squares(gradients, ranks, 0..ranks)?;
        Ok(if ranks == 1 { of_shares.squeeze() } else { of_shares.sum(Kind::Double) })
    }

    /// The ranks over which gradients are summed.
    pub(super) fn communicator(&self) -> &'a Ranks {
        self.communicator
    }

    /// Gives every rank all weights after each has changed its share of them.
    pub(super) fn gather_weights(&self, weights: &Tensor) -> Result<()> {
        self.communicator.tensors().gather_shares(weights)
    }

    /// 0-dimensional boolean: whether every gradient of the step so far was finite.
    pub(super) fn finite(&self) -> Option<&Tensor> {
        self.report.finite()
    }

    /// What the step has reported so far.
    pub(super) fn report(&mut self) -> &mut StepReport {
        &mut self.report
    }

    /// What the step reported.
    pub fn into_report(self) -> StepReport {
        self.report
    }
}
