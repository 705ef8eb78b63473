//! Where an axis has its numbers: round ones, at steps of 1, 2 or 5 times a power of ten.

/// At most `count` round values within `[low, high]`, in rising order.
pub(super) fn linear([low, high]: [f64; 2], count: usize) -> Vec<f64> {
    let range = high - low;
    if !(range.is_finite() && range > 0.0) || count == 0 {
        return Vec::new();
    }
    let mut size = 10f64.powf((range / count as f64).log10().floor());
    let fits = |size: f64| (high / size).floor() - (low / size).ceil() < count as f64;
    for factor in [2.0, 2.5, 2.0, 2.0, 2.5] {
        if fits(size) {
            break;
        }
        size *= factor;
    }
    let first = (low / size).ceil();
    let ticks = (0..count).map(|index| (first + index as f64) * size);
    // Never `-0` for what rounding left of nothing.
    ticks.filter(|tick| *tick <= high).map(|tick| if tick == 0.0 { 0.0 } else { tick }).collect()
}

/// The same for an axis of logarithms; `low` and `high` are logarithms to base ten, as is what comes
/// back. Powers of ten where there are several, values that are round on the plain scale otherwise.
pub(super) fn logarithmic([low, high]: [f64; 2], count: usize) -> Vec<f64> {
    if high - low < 2.0 {
        let plain = linear([10f64.powf(low), 10f64.powf(high)], count);
        return plain.into_iter().filter(|tick| *tick > 0.0).map(f64::log10).collect();
    }
    let powers = linear([low, high], count);
    powers.into_iter().filter(|power| power.fract() == 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(linear([0.03, 1.13], 4), [0.5, 1.0]);
        assert_eq!(linear([0.0, 1.0], 5), [0.0, 0.5, 1.0]);
        assert_eq!(linear([100.0, 12_000.0], 4), [5000.0, 10_000.0]);
        assert!(linear([1.0, 1.0], 4).is_empty());
        assert_eq!(logarithmic([-4.2, 1.3], 4), [-4.0, -2.0, 0.0]);
        assert_eq!(logarithmic([0.0, 0.5], 3), [0.0, 2f64.log10(), 3f64.log10()]);
    }

    proptest! {
        #[test]
        fn ticks_lie_within_and_are_few(low in -1e6..1e6f64, range in 1e-6..1e6f64, count in 1usize..12) {
            let ticks = linear([low, low + range], count);
            prop_assert!(ticks.len() <= count);
            let near = 1e-9 * range.max(f64::abs(low));
            prop_assert!(ticks.iter().all(|tick| *tick >= low - near && *tick <= low + range + near));
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
