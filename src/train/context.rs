//! What a method gets beside a batch: its point in the run, its micro-batch, the ranks, and the report.
//!
//! Knows no method and no learner.

use super::point::{StepNumbers, StepPoint};
use super::report::StepReport;
use crate::comm::Ranks;
use crate::data::IGNORE;
use crate::data::batch::Batch;
use crate::error::{Context, Failure, Result};
use crate::native::GroupSum;
use crate::native::flat::squares;
use crate::random::Key;
use crate::shares::local_share;
use std::ops::Range;
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

    /// The samples of all ranks, `[global_size, …]` in the order of their positions and contiguous, of this rank's
    /// `[N, …]`; bit for bit the same on any number of ranks. Gradients flow to this rank's own rows alone.
    ///
    /// For terms of which a sample's part needs samples of other ranks: every rank computes the whole formula, on
    /// all samples, and takes no sum over the ranks of it. Its gradient then needs no way back, since that of the
    /// own rows is complete and gradients of parameters are summed over the ranks. All ranks call it, those
    /// without samples too. `positions` and `global_size` are the batch's, or those of its micro-batch.
    pub fn joined(&self, own: &Tensor, positions: &[u64], global_size: usize) -> Result<Tensor> {
        let (rank, ranks) = (self.communicator.rank(), self.communicator.ranks());
        let rows = local_share(global_size, ranks, rank);
        let follow = |pair: &[u64]| pair[0].checked_add(1) == Some(pair[1]);
        let held = own.size().first().map_or(0, |&rows| rows as usize);
        if [positions.len(), held] != [rows.len(); 2] || !positions.windows(2).all(follow) {
            return Err(Failure::new(format!(
                "rank {rank} of {ranks} joins {held} samples at positions {positions:?} of a batch of \
                 {global_size}, expected {} in a row",
                rows.len()
            )));
        }
        if ranks == 1 {
            return Ok(own.contiguous());
        }
        let (all, kind) = (tch::no_grad(|| among_others(own, &rows, global_size)), own.kind());
        self.group().sum(&all);
        let others = |range: Range<usize>| {
            all.narrow(0, range.start as i64, range.len() as i64).to_kind(kind)
        };
        let (before, after) = (others(0..rows.start), others(rows.end..global_size));
        Ok(Tensor::cat(&[&before, own, &after], 0).contiguous())
    }

    /// The gradient of a 0-dimensional `value` with regard to `image`, of its shape: where in the image the value
    /// comes from.
    ///
    /// No gradient of a parameter is computed or kept, and the graph stays for [`Objective`]s with the same value.
    /// The image has to record gradients, which that of a batch never does, whose memory replayed steps share:
    /// `let image = samples.image.detach().set_requires_grad(true)`, and the network sees `image`. All ranks call it
    /// where the network normalises over them.
    ///
    /// [`Objective`]: super::objective::Objective
    pub fn saliency(&self, value: &Tensor, image: &Tensor) -> Result<Tensor> {
        saliency(value, image)
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

/// Rows of a batch of `samples` with those of `own` in their places, of a kind that is summed over ranks; the
/// others are what changes nothing when it is added, a zero of either sign included.
fn among_others(own: &Tensor, rows: &Range<usize>, samples: usize) -> Tensor {
    let kind = match own.kind() {
        Kind::Int | Kind::Int64 => Kind::Int64,
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    };
    let size = [&[samples as i64], &own.size()[1..]].concat();
    let all = Tensor::full(size, -0.0, (kind, own.device()));
    all.narrow(0, rows.start as i64, rows.len() as i64).copy_(own);
    all
}

/// [`StepContext::saliency`] outside of steps, for pictures.
pub fn saliency(value: &Tensor, image: &Tensor) -> Result<Tensor> {
    if !value.requires_grad() || !image.requires_grad() {
        return Err(Failure::new("a saliency needs a value and an image that record gradients"));
    }
    let gradients = Tensor::f_run_backward(&[value], &[image], true, false);
    let gradients = gradients.context(|| "backward to an image failed")?;
    let gradient = gradients.into_iter().find(Tensor::defined);
    gradient.ok_or_else(|| Failure::new("a value does not depend on its image"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::native::{channels_last, with_bytes};
    use tch::Device;

    const SAMPLES: usize = 5;

    fn point() -> StepPoint {
        StepPoint::new(1, 10, Key::new(1))
    }

    fn share_of(ranks: &Ranks) -> Range<usize> {
        local_share(SAMPLES, ranks.ranks(), ranks.rank())
    }

    /// This rank's rows of samples of the whole batch, and their positions after those of an earlier micro-batch.
    fn own(all: &Tensor, ranks: &Ranks) -> (Tensor, Vec<u64>) {
        let share = share_of(ranks);
        let rows = all.narrow(0, share.start as i64, share.len() as i64).copy();
        (rows, share.map(|row| row as u64 + 7).collect())
    }

    fn bytes(tensor: &Tensor) -> Vec<u8> {
        with_bytes(tensor, <[u8]>::to_vec).unwrap()
    }

    /// Samples of the whole batch, two of them 0 with either sign.
    fn batch(kind: Kind) -> Tensor {
        let wave = Tensor::arange(SAMPLES as i64 * 6, (Kind::Double, Device::Cpu)).sin() * 100.0;
        let wave = wave.view([SAMPLES as i64, 2, 3]);
        let _ = wave.get(1).get(0).fill_(-0.0);
        let _ = wave.get(3).get(1).fill_(0.0);
        if kind == Kind::Uint8 { wave.abs() } else { wave }.to_kind(kind)
    }

    #[test]
    fn joined_samples_are_those_of_all_ranks_bit_for_bit() {
        for kind in [Kind::Double, Kind::Float, Kind::BFloat16, Kind::Int64, Kind::Uint8] {
            for count in [1, 2, 3, 4, 7] {
                let outcomes = threads::run(count, |ranks| {
                    let (own, positions) = own(&batch(kind), &ranks);
                    StepContext::new(point(), &ranks).joined(&own, &positions, SAMPLES)
                });
                for joined in outcomes {
                    let (joined, all) = (joined.unwrap(), batch(kind));
                    assert_eq!(bytes(&joined), bytes(&all), "{kind:?} on {count} ranks");
                    assert_eq!((joined.size(), joined.kind()), (all.size(), kind));
                }
            }
        }
    }

    /// A value in which every sample meets its neighbour, and the gradient of `own`, of which `joined` makes all
    /// samples.
    fn met(own: &Tensor, joined: impl Fn(&Tensor) -> Result<Tensor>) -> Result<[Tensor; 2]> {
        let own = own.copy().set_requires_grad(true);
        // As networks give them, with channels beside each other in memory.
        let samples = joined(&channels_last(&own.unsqueeze(-1))?)?;
        let value = (&samples * samples.roll([1], [0])).sin().mean(Kind::Double);
        value.backward();
        Ok([value.detach(), own.grad()])
    }

    #[test]
    fn a_formula_over_joined_samples_has_the_gradient_of_one_rank() {
        let [value, gradient] = met(&batch(Kind::Double), |all| Ok(all.contiguous())).unwrap();
        for count in [1, 2, 3, 4, 7] {
            let outcomes = threads::run(count, |ranks| {
                let (own, positions) = own(&batch(Kind::Double), &ranks);
                let cx = StepContext::new(point(), &ranks);
                met(&own, |own| cx.joined(own, &positions, SAMPLES))
            });
            let found: Vec<[Tensor; 2]> = outcomes.into_iter().map(Result::unwrap).collect();
            assert!(found.iter().all(|[found, _]| found.equal(&value)), "{count} ranks");
            let gradients: Vec<&Tensor> = found.iter().map(|[_, gradient]| gradient).collect();
            assert!(
                Tensor::cat(&gradients, 0).allclose(&gradient, 1e-14, 1e-14, false),
                "{count} ranks"
            );
        }
    }

    #[test]
    fn samples_that_are_not_the_share_of_a_rank_are_not_joined() {
        let (alone, rows) = (Ranks::alone(), Tensor::zeros([2, 1], (Kind::Float, Device::Cpu)));
        let cx = StepContext::new(point(), &alone);
        for (positions, samples) in
            [(vec![0, 1], 3), (vec![0], 2), (vec![1, 0], 2), (vec![0, 2], 2)]
        {
            let refused = cx.joined(&rows, &positions, samples).unwrap_err();
            assert!(refused.message().starts_with("rank 0 of 1 joins 2 samples at positions ["));
        }
        assert!(cx.joined(&rows, &[4, 5], 2).unwrap().equal(&rows));
    }

    #[test]
    fn a_saliency_needs_an_image_that_records_gradients_and_matters() {
        let (alone, options) = (Ranks::alone(), (Kind::Double, Device::Cpu));
        let cx = StepContext::new(point(), &alone);
        let still = Tensor::ones([2], options);
        let image = Tensor::ones([2], options).set_requires_grad(true);
        let value = (&image * &still * 3.0).sum(Kind::Double);
        for (value, image) in [(&value, &still), (&still.sum(Kind::Double), &image)] {
            let refused = cx.saliency(value, image).unwrap_err();
            assert!(refused.message().ends_with("that record gradients"));
        }
        let other = Tensor::ones([2], options).set_requires_grad(true);
        let refused = cx.saliency(&value, &other).unwrap_err();
        assert_eq!(refused.message(), "a value does not depend on its image");
        for _ in 0..2 {
            assert!(cx.saliency(&value, &image).unwrap().equal(&(&still * 3.0)));
        }
        assert!(!image.grad().defined());
    }
}
