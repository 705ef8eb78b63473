//! How things are divided among ranks: one rule for samples, for parts of flat tensors and for files.

use std::ops::Range;

/// The part of `count` things that belongs to `rank` of `ranks`: contiguous, in rank order, sizes
/// differing by at most one, the first ranks holding the larger ones.
pub fn local_share(count: usize, ranks: usize, rank: usize) -> Range<usize> {
    let (size, larger) = (count / ranks, count % ranks);
    let start = rank * size + rank.min(larger);
    start..start + size + usize::from(rank < larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_cover_everything_in_order_and_differ_by_at_most_one(
            count in 0usize..200, ranks in 1usize..40,
        ) {
            let shares: Vec<_> = (0..ranks).map(|rank| local_share(count, ranks, rank)).collect();
            prop_assert!(shares.iter().cloned().flatten().eq(0..count));
            let sizes = shares.iter().map(ExactSizeIterator::len);
            prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
    }
}
