//! Which checkpoints are kept: a list in, a list out, no file touched.

/// What is kept; what nothing keeps is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest, at least 1.
    pub last: usize,
    /// Those of every so many steps; 0: none for this reason.
    pub every: u64,
}

/// The steps of `steps` (ascending) that the retention gives up. Those in `best` are kept.
pub fn doomed(steps: &[u64], retention: Retention, best: &[u64]) -> Vec<u64> {
    let kept_from = steps.len().saturating_sub(retention.last.max(1));
    let is_milestone = |step: u64| retention.every > 0 && step.is_multiple_of(retention.every);
    let is_kept = |step: &u64| best.contains(step) || is_milestone(*step);
    steps[..kept_from].iter().copied().filter(|step| !is_kept(step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_the_best_and_the_milestones_are_kept() {
        let doomed = |steps: &[u64], last, every, best: &[u64]| {
            doomed(steps, Retention { last, every }, best)
        };
        assert_eq!(doomed(&[1, 2, 3, 4], 2, 0, &[1]), [2]);
        assert_eq!(doomed(&[1, 2, 3], 2, 0, &[]), [1]);
        assert_eq!(doomed(&[7], 0, 0, &[]), Vec::<u64>::new());
        assert_eq!(doomed(&[2, 4, 5, 6, 7, 8], 1, 4, &[7, 5]), [2, 6]);
    }

    proptest! {
        #[test]
        fn the_newest_and_the_best_are_never_given_up(
            steps in proptest::collection::btree_set(0u64..100, 0..20),
            best in proptest::collection::vec(0u64..100, 0..4),
            (last, every) in (0usize..5, 0u64..10),
        ) {
            let steps: Vec<u64> = steps.into_iter().collect();
            let gone = doomed(&steps, Retention { last, every }, &best);
            let kept: Vec<u64> = steps.iter().copied().filter(|s| !gone.contains(s)).collect();
            prop_assert!(gone.iter().all(|step| steps.contains(step) && !best.contains(step)));
            prop_assert_eq!(kept.last(), steps.last());
            prop_assert!(kept.len() >= last.max(1).min(steps.len()));
            prop_assert!(gone.len() + last.max(1) <= steps.len() || gone.is_empty());
        }
    }
}
