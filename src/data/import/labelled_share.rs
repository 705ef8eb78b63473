//! Which cases of a data set keep their labels where only a share of them is to be labelled.
//!
//! Knows counts and keys, no cases.

use crate::error::{Failure, Result};
use crate::random::{Key, permutation};

/// Refuses a share that is not above 0 and up to 1.
pub(super) fn check_share(share: f64) -> Result<()> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "a share of {share} of the cases cannot be labelled, expected more than 0 and up to 1"
    ))
    .hint("give for example `--labelled-share 0.1`"))
}

/// Whether each of `count` cases is labelled: the nearest whole number to `share` of them, and at least one, as `key`
/// draws them. Of one key a larger share adds cases to those of a smaller one.
pub(super) fn labelled(key: Key, count: usize, share: f64) -> Vec<bool> {
    let wanted = ((share * count as f64).round() as usize).clamp(1.min(count), count);
    let mut is_labelled = vec![false; count];
    for index in permutation(key, count).into_iter().take(wanted) {
        is_labelled[index] = true;
    }
    is_labelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_share_adds_cases_and_one_is_always_labelled() {
        let count = |share: f64| {
            let found = labelled(Key::new(3), 40, share);
            found.into_iter().map(usize::from).sum::<usize>()
        };
        assert_eq!([0.001, 0.1, 0.2, 0.51, 1.0].map(count), [1, 4, 8, 20, 40]);
        let [few, more] = [0.1, 0.3].map(|share| labelled(Key::new(3), 40, share));
        assert!(few.iter().zip(&more).all(|(few, more)| !few || *more));
        assert_ne!(few, labelled(Key::new(4), 40, 0.1));
        assert!(labelled(Key::new(3), 0, 0.5).is_empty());
        for share in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(check_share(share).is_err());
        }
    }
}
