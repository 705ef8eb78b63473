//! Mistakes in a configuration, said in this program's words instead of the deserialiser's.
//!
//! Works on messages alone: it knows neither files nor which keys exist.

/// A mistake about the key at `place`.
pub(super) struct Mistake {
    pub(super) message: String,
    /// The dotted key to show.
    pub(super) place: String,
    /// Whether the key itself is wrong rather than its value.
    pub(super) is_key: bool,
    pub(super) hints: Vec<String>,
}

/// Turns serde's `message` about the thing at the dotted `key` into ours; other messages pass through.
pub(super) fn translate(message: &str, key: &str) -> Mistake {
    let plain =
        |message| Mistake { message, place: key.to_owned(), is_key: false, hints: Vec::new() };
    let message = message.lines().next().unwrap_or_default();
    if let Some(rest) = message.strip_prefix("unknown field `") {
        return unknown_key(rest, key);
    }
    if let Some(field) = message.strip_prefix("missing field `") {
        let field = field.trim_end_matches('`');
        let path = if key.is_empty() { field.to_owned() } else { format!("{key}.{field}") };
        return plain(format!("the key `{path}` is missing"));
    }
    let wrong = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: "));
    if let Some((found, expected)) = wrong.and_then(|rest| rest.split_once(", expected ")) {
        let (found, expected) = (thing(found), kind(expected));
        return plain(format!("`{key}` is {found}, expected {expected}"));
    }
    if let Some((found, expected)) =
        message.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", expected "))
    {
        return plain(format!("`{key}` is {found}, expected {expected}"));
    }
    plain(format!("`{key}`: {message}"))
}

/// `rest` is what serde says of an unknown field: its name in backticks and the names that it knows.
fn unknown_key(rest: &str, key: &str) -> Mistake {
    let (field, expected) = rest.split_once('`').unwrap_or((rest, ""));
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let hint = match nearest(field, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "this table has no keys".to_owned(),
        None => format!("the keys here are `{}`", known.join("`, `")),
    };
    Mistake {
        message: format!("unknown key `{key}`"),
        place: key.to_owned(),
        is_key: true,
        hints: vec![hint],
    }
}

/// What was found, from serde's words for it: a type and a value in quotes or backticks.
fn thing(found: &str) -> String {
    let (what, value) = found.split_once(' ').unwrap_or((found, ""));
    match what {
        "string" => format!("the string `{}`", value.trim_matches('"')),
        "integer" => format!("the number {}", value.trim_matches('`')),
        "floating" => {
            format!("the number {}", value.trim_start_matches("point ").trim_matches('`'))
        }
        "boolean" => format!("a boolean, {value}"),
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        _ => found.to_owned(),
    }
}

/// What was expected, from serde's name of a Rust type.
fn kind(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number",
        "i64" | "i32" => "an integer",
        "f64" | "f32" => "a number",
        "a map" => "a table",
        "a sequence" => "a list",
        "path string" => "a string",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    }
}

/// The known name that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = |candidate: &str| candidate.len().max(name.len()).div_ceil(3);
    known
        // Comparing takes as much memory as the product of the lengths.
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= most(candidate))
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= most(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_takes_typing_mistakes_and_nothing_else() {
        let known = ["total_steps", "seed", "precision"];
        assert_eq!(nearest("totl_steps", known.into_iter()), Some("total_steps"));
        assert_eq!(nearest("sede", known.into_iter()), Some("seed"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
