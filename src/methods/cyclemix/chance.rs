//! What is random in one step of CycleMix, as a function of the step's key: equal on all ranks.
//!
//! Knows no image and no network.

use super::params::Params;
use crate::mixing::boxes;
use crate::mixing::puzzle::Draw;
use crate::random::permutation;
use crate::train::point::StepPoint;
use std::ops::Range;

/// The numbers of blocks along a side, each as likely as the others.
const BLOCKS: [usize; 4] = [2, 4, 8, 16];

/// What is random in one iteration, beside dropout: of the whole batch of all ranks, in the order of positions.
#[derive(Debug, Clone)]
pub struct Chance {
    /// What is added to all intensities.
    pub shift: f64,
    /// How pairs are mixed.
    pub draw: Draw,
    /// The position of each sample's partner, which may be its own: a permutation.
    pub partners: Vec<usize>,
    /// Rows and columns that are hidden of each mixed image.
    pub holes: Vec<[Range<usize>; 2]>,
    /// By how many degrees each mixed image is turned, where images are turned.
    pub angles: Option<Vec<f64>>,
}

impl Chance {
    /// Of a step with `global_size` samples of so many rows and columns.
    pub(super) fn drawn(
        params: &Params,
        extents: [usize; 2],
        global_size: usize,
        point: &StepPoint,
    ) -> Self {
        let mut noise = point.key("noise").draws();
        let noisy = [(); 2].map(|()| noise.uniform() < params.noise.probability);
        let blocks = BLOCKS[point.key("blocks").draws().below(BLOCKS.len() as u64) as usize];
        let share = point.key("share").draws().beta(params.puzzle.alpha);
        let positions: Vec<u64> = (0..global_size as u64).collect();
        let half_side = params.occlusion as usize;
        let holes = point.sample_keys("hole", &positions);
        let angles = point.sample_keys("angle", &positions);
        let angles = angles.into_iter().map(|key| key.draws().range(0.0, 360.0));
        Self {
            shift: if noisy.contains(&true) { params.noise.shift } else { 0.0 },
            draw: Draw { blocks, share },
            partners: permutation(point.key("partners"), global_size),
            holes: holes.into_iter().map(|key| boxes::hole(key, extents, half_side)).collect(),
            angles: params.rotation.then(|| angles.collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn what_is_drawn_has_the_published_shares() {
        let learner = "learner = { lr = 0.01, optimizer = { sgd = {} } }";
        let params: Params = toml::from_str(learner).unwrap();
        let of =
            |step| Chance::drawn(&params, [212, 212], 4, &StepPoint::new(step, 9, Key::new(1)));
        let all: Vec<Chance> = (1..=4000).map(of).collect();
        let share = |is: &dyn Fn(&Chance) -> bool| {
            all.iter().filter(|chance| is(chance)).count() as f64 / all.len() as f64
        };
        let near = |found: f64, expected: f64| (found - expected).abs() < 0.03;
        assert!(near(share(&|chance| chance.shift > 0.0), 0.19));
        for blocks in BLOCKS {
            assert!(near(share(&|chance| chance.draw.blocks == blocks), 0.25), "{blocks}");
        }
        // Of the arcsine law two thirds lie within a quarter of an end.
        assert!(near(share(&|chance| (chance.draw.share - 0.5).abs() > 0.25), 2.0 / 3.0));
        assert!(near(share(&|chance| chance.partners[3] == 3), 0.25));
        let turned =
            |chance: &Chance| chance.angles.as_ref().is_some_and(|angles| angles[0] > 90.0);
        assert!(near(share(&turned), 0.75));
        let whole = |chance: &Chance| chance.holes[2].iter().all(|along| along.len() == 32);
        assert!(near(share(&whole), (181.0f64 / 212.0).powi(2)));
        assert!(all.iter().all(|chance| chance.holes.len() == 4 && chance.partners.len() == 4));
    }
}
