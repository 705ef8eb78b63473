//! Counts in words: `1 case`, `2 cases`. Knows nothing of what is counted.

/// A number of things that have a plural in `s`: `counted(1, "case")` is `1 case`, of 0 and 2 `cases`.
pub fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "case")), ["0 cases", "1 case", "2 cases"]);
    }
}
