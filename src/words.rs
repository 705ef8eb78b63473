//! Counts in words: `1 case`, `2 cases`. Knows nothing of what is counted.

/// A number of things whose plural ends in `s`: `counted(1, "case")` is `1 case`, of 0 and 2 `cases`, of `process`
/// `processes`.
pub fn counted(count: usize, thing: &str) -> String {
    let plural = if thing.ends_with('s') { "es" } else { "s" };
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}{plural}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "case")), ["0 cases", "1 case", "2 cases"]);
        assert_eq!([1, 2].map(|count| counted(count, "process")), ["1 process", "2 processes"]);
    }
}
