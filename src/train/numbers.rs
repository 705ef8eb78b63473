//! What numbers the parameters of methods, learners and optimisers may be.
//!
//! Said where a field is declared, with serde's `deserialize_with`, so that a mistake has the line of its
//! key and nothing is compared anywhere else: a comparison that nobody thought of lets NaN through.
//! Knows no parameter.

use crate::limits::STEPS;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};
use std::ops::RangeInclusive;

/// What single precision holds beside 0: weights, losses and moments are computed in it.
const MAGNITUDES: RangeInclusive<f64> = f32::MIN_POSITIVE as f64..=f32::MAX as f64;
/// Most channels of a layer, or pixels of a window.
const MOST_WIDE: i64 = 1 << 12;

/// A number that `is_one` accepts; none is NaN.
fn number<'de, D: Deserializer<'de>>(
    from: D,
    expected: &str,
    is_one: impl Fn(f64) -> bool,
) -> Result<f64, D::Error> {
    let number = f64::deserialize(from)?;
    if is_one(number) {
        return Ok(number);
    }
    Err(D::Error::invalid_value(Unexpected::Float(number), &expected))
}

/// A finite number above 0.
pub fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number(from, "a finite number above 0", |number| MAGNITUDES.contains(&number))
}

/// A finite number of at least 0.
pub fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number(from, "a finite number of at least 0", is_weight)
}

/// What is kept of something: in [0, 1).
pub fn share<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number(from, "a number of at least 0 and below 1", |number| (0.0..1.0).contains(&number))
}

/// A part that is neither nothing nor everything: in (0, 1).
pub fn part<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    number(from, "a number above 0 and below 1", |number| number > 0.0 && number < 1.0)
}

/// Whether a number is finite and at least 0.
pub fn is_weight(number: f64) -> bool {
    number == 0.0 || MAGNITUDES.contains(&number)
}

/// How many steps, or units of steps, with 0.
pub fn steps<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    whole(from, 0..=STEPS)
}

/// How many steps, or units of steps, at least 1.
pub fn some_steps<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    whole(from, 1..=STEPS)
}

/// Channels or pixels across, 1 to 4096.
pub fn width<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let width = whole(from, 1..=MOST_WIDE.cast_unsigned())?;
    Ok(width.cast_signed())
}

/// How many pixels or slices something is away at most, 0 to 4096.
pub fn reach<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let reach = whole(from, 0..=MOST_WIDE.cast_unsigned())?;
    Ok(reach.cast_signed())
}

fn whole<'de, D: Deserializer<'de>>(
    from: D,
    allowed: RangeInclusive<u64>,
) -> Result<u64, D::Error> {
    let number = i64::deserialize(from)?;
    let whole = u64::try_from(number).ok().filter(|whole| allowed.contains(whole));
    whole.ok_or_else(|| {
        let expected = format!("a whole number from {} to {}", allowed.start(), allowed.end());
        D::Error::invalid_value(Unexpected::Signed(number), &expected.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Numbers {
        #[serde(deserialize_with = "positive")]
        positive: f64,
        #[serde(deserialize_with = "weight")]
        weight: f64,
        #[serde(deserialize_with = "share")]
        share: f64,
        #[serde(deserialize_with = "part")]
        part: f64,
        #[serde(deserialize_with = "steps")]
        steps: u64,
        #[serde(deserialize_with = "some_steps")]
        some_steps: u64,
        #[serde(deserialize_with = "width")]
        width: i64,
    }

    #[test]
    fn numbers_within_are_taken_as_they_are() {
        let text = "positive = 1e-8\nweight = 3\nshare = 0\npart = 0.5\nsteps = 0\nsome_steps = 1\nwidth = 4096";
        let found: Numbers = toml::from_str(text).unwrap();
        let floats = [found.positive, found.weight, found.share, found.part];
        assert_eq!(floats.map(f64::to_bits), [1e-8, 3.0, 0.0, 0.5].map(f64::to_bits));
        assert_eq!((found.steps, found.some_steps, found.width), (0, 1, 4096));
    }

    #[test]
    fn no_kind_of_number_takes_what_cannot_be_computed_with() {
        for (key, refused) in [
            ("positive", vec!["0", "-1", "0.0", "1e-60", "1e60"]),
            ("weight", vec!["-1e-9", "1e60", "1e-60"]),
            ("share", vec!["1", "1.0", "-0.1"]),
            ("part", vec!["0", "1", "1.5"]),
            ("steps", vec!["-1", "9223372036854775807"]),
            ("some_steps", vec!["0", "-1"]),
            ("width", vec!["0", "4097", "-3"]),
        ] {
            for value in refused.into_iter().chain(["nan", "-nan", "inf", "-inf", "'1'", "true"]) {
                let text = format!("{key} = {value}");
                assert!(toml::from_str::<Numbers>(&text).is_err(), "{text}");
            }
        }
        let refused = toml::from_str::<Numbers>("share = nan").unwrap_err();
        assert_eq!(
            refused.message(),
            "invalid value: floating point `NaN`, expected a number of at least 0 and below 1"
        );
    }
}
