//! Intensities of a sample, all of them made brighter or darker alike.
//!
//! Knows numbers, and no places.

use crate::random::Draws;

/// How often intensities are scaled, and how often shifted.
const CHANCE: f64 = 0.1;

/// By how much at most, as a share and as a number.
const MOST: f64 = 0.1;

/// What becomes of every intensity `x` of a sample: `factor x + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Light {
    /// From 0.9 to 1.1.
    pub factor: f32,
    /// From -0.1 to 0.1.
    pub offset: f32,
}

impl Light {
    /// Draws as CMC does: one sample in ten is scaled, one in ten is shifted.
    ///
    /// Source: `med-air/CMC` at cb8dd116, `RandScaleIntensityd` and `RandShiftIntensityd` of MONAI.
    pub fn sample(draws: &mut Draws) -> Self {
        let mut drawn = || {
            let (chance, amount) = (draws.uniform(), draws.range(-MOST, MOST));
            if chance < CHANCE { amount } else { 0.0 }
        };
        Self { factor: (1.0 + drawn()) as f32, offset: drawn() as f32 }
    }

    /// Changes every intensity.
    pub fn apply(self, image: &mut [f32]) {
        if self == (Self { factor: 1.0, offset: 0.0 }) {
            return;
        }
        for value in image {
            *value = self.factor * *value + self.offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    #[test]
    fn a_tenth_is_scaled_a_tenth_is_shifted_and_the_others_stay() {
        let (mut scaled, mut shifted) = (0, 0);
        for number in 0..8000 {
            let light = Light::sample(&mut Key::new(4).number(number).draws());
            assert!((0.9..=1.1).contains(&light.factor) && light.offset.abs() <= 0.1);
            scaled += i32::from((light.factor - 1.0).abs() > 0.0);
            shifted += i32::from(light.offset.abs() > 0.0);
            let mut image = [0.25, -1.5];
            light.apply(&mut image);
            let expected = [0.25, -1.5].map(|value| light.factor * value + light.offset);
            assert!(image.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7));
        }
        assert!(
            (700..900).contains(&scaled) && (700..900).contains(&shifted),
            "{scaled} {shifted}"
        );
    }
}
