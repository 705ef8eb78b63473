//! The signed-rank test of Wilcoxon (1945): whether the differences of pairs lie around zero.
//!
//! Two-sided. Differences of zero are left out, and equally large ones share the mean of their ranks. For at most
//! fifty differences the probability is exact, over all ways to give them signs, else that of the normal distribution
//! with the same mean and variance. What the pairs are is not known here.

/// The most differences for which the probability is exact.
const EXACT: usize = 50;

/// The two-sided probability, 0 to 1, of ranks as unequal as those of `differences`, if they lay around zero; none
/// where none of them differs from zero or one is no number.
///
/// ```
/// use scrimp::metrics::signed_rank;
/// assert_eq!(signed_rank(&[1.0, 2.0, 3.0, 4.0, 5.0]), Some(0.0625));
/// ```
pub fn signed_rank(differences: &[f64]) -> Option<f64> {
    if differences.iter().any(|difference| difference.is_nan()) {
        return None;
    }
    let mut sorted: Vec<f64> =
        differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let count = sorted.len();
    if count == 0 {
        return None;
    }
    let (mut doubled_ranks, mut ties, mut positive) = (Vec::new(), 0.0, 0);
    while let Some(first) = sorted.get(doubled_ranks.len()) {
        let start = doubled_ranks.len();
        let is_equal = |other: &&f64| other.abs().to_bits() == first.abs().to_bits();
        let equal = sorted[start..].iter().take_while(is_equal).count();
        // Twice the mean of the ranks from `start + 1` on, so that it is a whole number.
        let doubled_rank = 2 * start + equal + 1;
        positive +=
            doubled_rank * sorted[start..start + equal].iter().filter(|d| **d > 0.0).count();
        ties += (equal as f64).powi(3) - equal as f64;
        doubled_ranks.extend(std::iter::repeat_n(doubled_rank, equal));
    }
    if count <= EXACT {
        let total: usize = doubled_ranks.iter().sum();
        return Some(exact(positive.min(total - positive), &doubled_ranks));
    }
    let n = count as f64;
    let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
    let z = (positive as f64 / 2.0 - n * (n + 1.0) / 4.0) / variance.sqrt();
    Some(two_sided(z))
}

/// Twice the probability that the ranks of the positive ones add up to `sum` or less, among all ways to give signs.
fn exact(sum: usize, ranks: &[usize]) -> f64 {
    let mut ways = vec![0.0; sum + 1];
    ways[0] = 1.0;
    for &rank in ranks {
        for reached in (rank..=sum).rev() {
            ways[reached] += ways[reached - rank];
        }
    }
    let share = ways.iter().sum::<f64>() / 2f64.powi(ranks.len() as i32);
    (2.0 * share).min(1.0)
}

/// The probability of a standard normal number that is further from zero than `z`: the complementary error function
/// of `|z| / sqrt(2)`, by its power series below 3 and by its continued fraction above.
fn two_sided(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if x < 3.0 {
        let (mut term, mut sum, mut k) = (2.0 * x, 2.0 * x, 0.0);
        while term > 1e-17 * sum {
            k += 1.0;
            term *= 2.0 * x * x / (2.0 * k + 1.0);
            sum += term;
        }
        return 1.0 - scale * sum;
    }
    let fraction = (1..=60).rev().fold(0.0, |below, k| f64::from(k) / 2.0 / (x + below));
    scale / (x + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences and what `scipy.stats.wilcoxon` 1.17 says of them.
    #[test]
    fn probabilities_are_those_of_scipy() {
        let long: Vec<f64> = (1..=60).map(|k| f64::from(k) * 0.37 - 8.0).collect();
        for (differences, expected) in [
            (vec![0.3, -0.1, 0.5, 0.7, 0.2, -0.4, 0.9], 0.15625),
            (vec![0.0, 0.0, 1.0, -2.0, 3.0, 4.0, 6.0, 5.0], 0.09375),
            (vec![1.0, 1.0, -1.0, 2.0, 2.0, 3.0, -4.0, 5.0, 6.0, 7.0], 0.064_453_125),
            (long.clone(), 0.000_853_588_783_144_218),
            ((1..=300).map(|k| f64::from(k) - 0.25).collect(), 6.083_559_849_691_437e-51),
        ] {
            let found = signed_rank(&differences).unwrap();
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        }
        let turned: Vec<f64> = long.iter().map(|difference| -difference).collect();
        assert!((signed_rank(&turned).unwrap() / 0.000_853_588_783_144_218 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_said_where_nothing_differs() {
        assert_eq!(signed_rank(&[]), None);
        assert_eq!(signed_rank(&[0.0, 0.0]), None);
        assert_eq!(signed_rank(&[1.0, f64::NAN]), None);
        assert_eq!(signed_rank(&[1.0]), Some(1.0));
        assert_eq!(signed_rank(&[1.0, -1.0]), Some(1.0));
    }
}
