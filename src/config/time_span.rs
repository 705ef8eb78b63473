//! Lengths of time as people write them: `90s`, `45m`, `2h30m`, or `none` for one without end.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// What is expected of a text that is none.
const EXPECTED: &str = "a time such as `90s`, `45m` or `2h30m`, up to 87600 hours, or `none`";
/// Ten years: what is longer is as good as `none`, and some is too long to be added to a time of day.
const LONGEST_S: u64 = 87_600 * 3600;

/// A length of time in whole seconds; none: without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSpan(pub Option<Duration>);

impl TimeSpan {
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self(None));
        }
        let (mut rest, mut seconds) = (text, 0u64);
        for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
            let Some((count, after)) = rest.split_once(unit) else { continue };
            // A sign would be understood by `parse`.
            let count: u64 = count.parse().ok().filter(|_| !count.starts_with('+'))?;
            seconds = seconds.checked_add(count.checked_mul(length)?)?;
            rest = after;
        }
        (rest.is_empty() && (1..=LONGEST_S).contains(&seconds))
            .then_some(Self(Some(Duration::from_secs(seconds))))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(span) = self.0 else { return f.write_str("none") };
        let seconds = span.as_secs();
        let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
        parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .try_for_each(|(n, unit)| write!(f, "{n}{unit}"))
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = TimeSpan;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<TimeSpan, E> {
                let refuse = || E::invalid_value(Unexpected::Str(text), &self);
                TimeSpan::parse(text).ok_or_else(refuse)
            }
        }
        from.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_minutes_and_seconds_add_up_and_are_written_the_same_way() {
        for (text, seconds, written) in [
            ("90s", 90, "1m30s"),
            ("2h30m", 9000, "2h30m"),
            ("1h1m1s", 3661, "1h1m1s"),
            ("100m", 6000, "1h40m"),
        ] {
            let span = TimeSpan::parse(text).unwrap();
            assert_eq!(span, TimeSpan(Some(Duration::from_secs(seconds))));
            assert_eq!(span.to_string(), written);
            assert_eq!(TimeSpan::parse(written), Some(span));
        }
        assert_eq!(TimeSpan::parse("none"), Some(TimeSpan(None)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "90",
            "s",
            "-5s",
            "+5s",
            "1.5h",
            "5s2h",
            "0s",
            "1d",
            "2 h",
            "99999999999999999999h",
            "87600h1s",
        ] {
            assert_eq!(TimeSpan::parse(text), None, "{text}");
        }
    }
}
