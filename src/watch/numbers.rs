//! How the screen writes numbers: short, of steady width, without a locale.

/// A duration as `H:MM:SS`, or `D d HH:MM` from a day on.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours < 24 {
        return format!("{hours}:{minutes:02}:{seconds:02}");
    }
    format!("{} d {:02}:{minutes:02}", hours / 24, hours % 24)
}

/// A value in at most seven characters, with three digits that matter.
pub(super) fn value(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => "NaN".to_owned(),
        0.0 => "0".to_owned(),
        _ if !(1e-3..1e5).contains(&size) => format!("{value:.1e}"),
        _ if size < 1.0 => format!("{value:.4}"),
        _ if size < 10.0 => format!("{value:.3}"),
        _ if size < 100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// A number on an axis: round, so that no digits are needed that say nothing.
pub(super) fn tick(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        _ if size >= 1e9 => format!("{}G", short(value / 1e9)),
        _ if size >= 1e6 => format!("{}M", short(value / 1e6)),
        _ if size >= 1e4 => format!("{}k", short(value / 1e3)),
        _ if size < 1e-3 => format!("{value:.0e}"),
        _ => short(value),
    }
}

/// Up to four digits after the point, without zeros at the end.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.chars().take(7).collect()
}

/// How long ago something was, in its largest unit.
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", seconds / 60),
        6000..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A share of a hundred without digits after the point, or `n/a`.
pub(super) fn percent(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(absent, |value| format!("{value:.0}%"))
}

/// What stands for a value that is not known.
pub(super) fn absent() -> String {
    "n/a".to_owned()
}

/// Milliseconds with one digit after the point, none from 100 on.
pub(super) fn milliseconds(ms: f64) -> String {
    if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

/// Bytes in binary units.
pub(super) fn bytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 {
        format!("{mebibytes:.0} MiB")
    } else {
        format!("{:.1} GiB", mebibytes / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let values = [0.0, 0.41234, 2.71234, 27.1234, 60_000.0, 1.8e-5, 2.5e7, f64::NAN, -0.5];
        let written =
            ["0", "0.4123", "2.712", "27.12", "60000", "1.8e-5", "2.5e7", "NaN", "-0.5000"];
        assert_eq!(values.map(value), written);
        assert_eq!(
            [5_000, 3_723_000, 100_000_000].map(duration),
            ["0:00:05", "1:02:03", "1 d 03:46"]
        );
        assert_eq!([9.126e9, 3.1e8].map(|count| bytes(count as u64)), ["8.5 GiB", "296 MiB"]);
        assert_eq!([2.71, 271.0].map(milliseconds), ["2.7", "271"]);
        let ticks = [0.0, 0.5, 0.3 * 2.0, 2500.0, 12_000.0, 1e-5, 1.5e9];
        assert_eq!(ticks.map(tick), ["0", "0.5", "0.6", "2500", "12k", "1e-5", "1.5G"]);
        assert_eq!([9_999, 600_000, 7_200_000].map(age), ["9 s", "10 min", "2 h"]);
        assert_eq!([Some(97.6), None, Some(f64::NAN)].map(percent), ["98%", "n/a", "n/a"]);
    }
}
