//! The counter-based random numbers of a run: pure functions of (seed, step, position, purpose).
//!
//! No state survives between calls, so a resumed run needs no generator state, and the numbers of
//! a sample do not depend on which rank or thread asks. This module knows no tensors.

/// Names a family of random numbers: a seed, refined by step, position and purpose.
///
/// Keys are values: refining one gives another, and equal refinements give equal keys on every
/// rank, thread and machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u64);

/// The finaliser of `SplitMix64` (Steele et al., OOPSLA 2014): a bijection that mixes all 64 bits.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The odd increment of `SplitMix64`, 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Key {
    /// The key of a whole run.
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed.wrapping_add(GOLDEN)))
    }

    /// The key for one value of a number: a step, an epoch, a position in the global batch.
    #[must_use]
    pub const fn number(self, number: u64) -> Self {
        Self(mix(self.0.rotate_left(23) ^ mix(number.wrapping_add(GOLDEN))))
    }

    /// The key for one purpose: `"augment"`, `"dropout"`, `"shuffle"`, a parameter's name.
    #[must_use]
    pub const fn purpose(self, name: &str) -> Self {
        // FNV-1a over the name, then mixed: short names must not give nearby keys.
        let bytes = name.as_bytes();
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut index = 0;
        while index < bytes.len() {
            hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            index += 1;
        }
        self.number(mix(hash))
    }

    /// The numbers of this key, in order.
    pub const fn draws(self) -> Draws {
        Draws { key: self.0, counter: 0 }
    }

    /// The 64 bits of the key, as the element-wise generators of tensors take them.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// The sequence of random numbers that belongs to one key.
#[derive(Debug, Clone)]
pub struct Draws {
    key: u64,
    counter: u64,
}

impl Draws {
    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(self.key ^ mix(self.counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform in `[0, 1)`, with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform over `0..count`; `count` must not be 0.
    pub fn below(&mut self, count: u64) -> u64 {
        debug_assert!(count > 0, "below(0) has no value to return");
        // Multiply-shift (Lemire 2019); its bias is below count / 2^64.
        ((u128::from(self.bits()) * u128::from(count)) >> 64) as u64
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Beta distributed with both parameters `concentration`, which is above 0: in `[0, 1]`, symmetric about
    /// one half; near it where the concentration is large, near the ends where it is small.
    ///
    /// Of 1/2 this is the arcsine law, sin²(π u / 2), and of 1 the uniform one, from one number each; else
    /// G / (G + G') of two gamma variates, from their logarithms, so that none is too small.
    pub fn beta(&mut self, concentration: f64) -> f64 {
        match concentration {
            0.5 => (std::f64::consts::FRAC_PI_2 * self.uniform()).sin().powi(2),
            1.0 => self.uniform(),
            _ => {
                let one = self.log_gamma(concentration);
                1.0 / (1.0 + (self.log_gamma(concentration) - one).exp())
            }
        }
    }

    /// The logarithm of a gamma variate (Marsaglia and Tsang, ACM Transactions on Mathematical Software 2000).
    fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let log = (1.0 - self.uniform()).ln() / shape;
            return log + self.log_gamma(shape + 1.0);
        }
        let third_less = shape - 1.0 / 3.0;
        let width = 1.0 / (9.0 * third_less).sqrt();
        loop {
            let normal = self.normal();
            let cube = (1.0 + width * normal).powi(3);
            let level = (1.0 - self.uniform()).ln();
            if cube > 0.0 && level < 0.5 * normal * normal + third_less * (1.0 - cube + cube.ln()) {
                return third_less.ln() + cube.ln();
            }
        }
    }
}

/// A uniformly random order of `0..count` (Fisher and Yates).
pub fn permutation(key: Key, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut draws = key.draws();
    for last in (1..count).rev() {
        order.swap(last, draws.below(last as u64 + 1) as usize);
    }
    order
}

/// Element `index` of a random order of `0..count`, which is never listed; `index` must be below `count`.
///
/// A Feistel network over the smallest even number of bits that hold `count` permutes more numbers than
/// that; what lies above is permuted again until it lies below (Black and Rogaway, CT-RSA 2002).
pub fn permuted(key: Key, count: u64, index: u64) -> u64 {
    debug_assert!(index < count, "an order has no element {index} of {count}");
    let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1 << half) - 1;
    let mut value = index;
    loop {
        let (mut left, mut right) = (value >> half, value & mask);
        for round in 0..6 {
            (left, right) = (right, left ^ (key.number(round).number(right).bits() & mask));
        }
        value = left << half | right;
        if value < count {
            return value;
        }
    }
}

/// 32 random bits for element `index` of a tensor, from the two halves of a key.
///
/// Uses 32-bit multiplications only, so that tensor code on any device can repeat it exactly
/// (constants: "lowbias32", C. Wellons' search for low-bias 32-bit mixers).
pub const fn element_bits(key: Key, index: u32) -> u32 {
    let mut x = index ^ key.0 as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x = (x ^ (x >> 16)) ^ (key.0 >> 32) as u32;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_never_listed_has_every_element_once_and_depends_on_its_key() {
        for count in [1, 2, 3, 7, 16, 17, 100, 1000] {
            let of = |key: u64| (0..count).map(move |index| permuted(Key::new(key), count, index));
            let mut seen: Vec<u64> = of(1).collect();
            assert!(count < 7 || seen.iter().copied().ne(of(2)));
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..count), "{count}");
        }
        let first: f64 = (0..2000).map(|key| permuted(Key::new(key), 11, 4) as f64).sum();
        assert!((first / 2000.0 - 5.0).abs() < 0.25, "{first}");
        assert!(permuted(Key::new(1), u64::from(u32::MAX), 5) < u64::from(u32::MAX));
    }

    #[test]
    fn the_same_key_gives_the_same_numbers_for_ever() {
        // Frozen: changing these values changes every run that was ever started with a seed.
        let mut draws = Key::new(2022).purpose("augment").number(7).draws();
        let frozen: Vec<u64> = (0..3).map(|_| draws.bits()).collect();
        assert_eq!(frozen, FROZEN_BITS);
        assert_eq!(permutation(Key::new(1), 6), FROZEN_ORDER);
    }
    const FROZEN_BITS: [u64; 3] =
        [13_414_003_188_026_626_159, 1_695_342_139_326_062_964, 14_255_356_562_835_350_500];
    const FROZEN_ORDER: [usize; 6] = [2, 5, 4, 0, 1, 3];

    #[test]
    fn numbers_are_spread_evenly() {
        let mut draws = Key::new(3).draws();
        let mut bins = [0usize; 16];
        for _ in 0..16_000 {
            bins[draws.below(16) as usize] += 1;
        }
        assert!(bins.iter().all(|&count| (850..1150).contains(&count)), "{bins:?}");
        let normals: Vec<f64> = (0..20_000).map(|_| draws.normal()).collect();
        let mean = normals.iter().sum::<f64>() / 20_000.0;
        let variance = normals.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
    }

    #[test]
    fn beta_variates_have_the_mean_and_variance_of_their_concentration() {
        for concentration in [0.02, 0.3, 0.5, 1.0, 2.5, 40.0] {
            let mut draws = Key::new(8).draws();
            let found: Vec<f64> = (0..20_000).map(|_| draws.beta(concentration)).collect();
            assert!(found.iter().all(|x| (0.0..=1.0).contains(x)), "{concentration}");
            let mean = found.iter().sum::<f64>() / 20_000.0;
            let variance = found.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
            let expected = 1.0 / (4.0 * (2.0 * concentration + 1.0));
            let of_all = format!("{concentration}: {mean} {variance}");
            assert!((mean - 0.5).abs() < 0.012, "{of_all}");
            assert!((variance / expected - 1.0).abs() < 0.04, "{of_all}");
        }
        let (mut plain, mut beta) = (Key::new(9).draws(), Key::new(9).draws());
        let angle = std::f64::consts::PI * plain.uniform() / 2.0;
        assert!((beta.beta(0.5) - angle.sin().powi(2)).abs() < 1e-15);
        for extreme in [1e-30, 1e30] {
            assert!((0.0..=1.0).contains(&Key::new(9).draws().beta(extreme)), "{extreme}");
        }
    }

    #[test]
    fn elements_of_neighbouring_keys_and_indices_are_unrelated() {
        let key = Key::new(5);
        let mut agreeing_bits = 0u32;
        for index in 0..4096u32 {
            let here = element_bits(key, index);
            agreeing_bits += (!(here ^ element_bits(key, index + 1))).count_ones();
            agreeing_bits += (!(here ^ element_bits(key.number(1), index))).count_ones();
        }
        let share = f64::from(agreeing_bits) / (4096.0 * 64.0);
        assert!((share - 0.5).abs() < 0.01, "{share}");
    }

    #[test]
    fn a_permutation_holds_each_index_once() {
        let mut order = permutation(Key::new(9), 1512);
        order.sort_unstable();
        assert!(order.iter().copied().eq(0..1512));
    }
}
