//! Gradients that are summed while backward still computes: the same numbers, whoever is late.

use crate::support::Counted;
use scrimp::comm::{Communicator, Ranks, TensorSums, threads};
use scrimp::error::{Exit, Result};
use scrimp::native::GroupSum;
use scrimp::parameters::Scope;
use scrimp::random::Key;
use scrimp::train::learner::{Learner, LearnerConfig, LearnerSetup, Moments};
use scrimp::train::point::StepPoint;
use scrimp::train::{Objective, StepContext};
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Rows and columns of a layer: each fills a part of its own.
const WIDTH: i64 = 520;
const LAYERS: usize = 3;
const STEPS: u64 = 4;

/// Layers one after another; what a rank computes depends on its data.
struct Chain {
    learner: Learner,
    layers: Vec<Tensor>,
}

impl Chain {
    fn new() -> Result<Self> {
        let config: LearnerConfig =
            toml::from_str("lr = 0.1\nschedule = \"constant\"\noptimizer = { sgd = {} }").unwrap();
        let setup = LearnerSetup {
            key: Key::new(1),
            kind: Kind::Float,
            computed: Kind::Float,
            device: Device::Cpu,
            moments: Moments::Whole,
        };
        let build = |scope: &mut Scope<'_>| {
            let layer = |index: usize| {
                scope.sub(&index.to_string()).uniform("weight", &[WIDTH, WIDTH], 0.05)
            };
            (0..LAYERS).map(layer).collect()
        };
        let (learner, layers) = Learner::new("chain", config, setup, build)?;
        Ok(Self { learner, layers })
    }

    /// One step through the layers in this order.
    fn step(&mut self, step: u64, order: &[usize], comm: &Ranks) -> Result<()> {
        let mut draws = Key::new(7).number(step).number(comm.rank() as u64).draws();
        let values: Vec<f32> = (0..WIDTH).map(|_| draws.range(-1.0, 1.0) as f32).collect();
        let mut x = Tensor::from_slice(&values).view([1, WIDTH]);
        for &layer in order {
            x = x.matmul(&self.layers[layer]).relu() + &x;
        }
        let mut cx = StepContext::new(StepPoint::new(step, STEPS, Key::new(1)), comm);
        let objective = Objective::new().term("square", 1.0, || x.square().mean(Kind::Float));
        self.learner.update(objective, &mut cx)
    }

    fn weights(&self) -> Vec<f32> {
        let parts = self.learner.flat_parts();
        Vec::try_from(&parts[0].tensor).unwrap()
    }
}

/// The weights of all ranks after training with communicators that `wrap` makes of theirs.
fn trained(ranks: usize, wrap: impl Fn(Ranks) -> Ranks + Sync) -> Vec<Vec<f32>> {
    let outcomes = threads::run(ranks, |comm| {
        let comm = wrap(comm);
        let mut chain = Chain::new()?;
        for step in 1..=STEPS {
            // The third step leaves a layer out, so that its part never completes.
            let order: &[usize] = if step == 3 { &[0, 2] } else { &[0, 1, 2] };
            chain.step(step, order, &comm)?;
        }
        Ok(chain.weights())
    });
    outcomes.into_iter().map(Result::unwrap).collect()
}

#[test]
fn sums_beside_backward_give_the_bits_of_one_sum_after_it() {
    for ranks in [2, 3] {
        let beside = trained(ranks, |comm| comm);
        // `Counted` knows nothing of sums that go on beside, so that there are none.
        let after = trained(ranks, |comm| Ranks::of(Arc::new(Counted::new(comm))));
        assert!(after[0].iter().any(|&weight| weight.abs() > 1e-3));
        for weights in &beside {
            assert!(*weights == after[0], "{ranks} ranks");
        }
    }
}

#[test]
fn a_late_rank_changes_nothing() {
    let late = |comm| Ranks::of(Arc::new(Late(comm)));
    assert!(trained(2, late) == trained(2, |comm| comm));
}

/// Passes everything on; the sums of rank 1 start late.
struct Late(Ranks);

impl GroupSum for Late {
    fn ranks(&self) -> usize {
        self.0.ranks()
    }
    fn sum(&self, tensor: &Tensor) {
        self.0.tensors().sum(tensor);
    }
}

impl TensorSums for Late {
    fn overlaps(&self) -> bool {
        true
    }
    fn start_sum(&self, tensor: Tensor) {
        if self.0.rank() == 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.tensors().start_sum(tensor);
    }
    fn finish_sums(&self) {
        self.0.tensors().finish_sums();
    }
    fn broadcast(&self, root: usize, tensor: &Tensor) -> Result<()> {
        self.0.tensors().broadcast(root, tensor)
    }
}

impl Communicator for Late {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn ranks(&self) -> usize {
        self.0.ranks()
    }
    fn barrier(&self) -> Result<()> {
        self.0.barrier()
    }
    fn max(&self, value: i64) -> Result<i64> {
        self.0.max(value)
    }
    fn gather(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.0.gather(message)
    }
    fn abort(&self, exit: Exit) -> ! {
        self.0.abort(exit)
    }
}

#[test]
fn ranks_that_compute_in_different_orders_are_told() {
    let outcomes = threads::run(2, |comm| {
        let order: &[usize] = if comm.rank() == 0 { &[0, 1, 2] } else { &[2, 1, 0] };
        Chain::new()?.step(1, order, &comm)
    });
    for outcome in outcomes {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.message(), "rank 1 computed its gradients in another order than rank 0");
    }
}
