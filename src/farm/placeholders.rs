//! Placeholders in the words of a farm file: `{fold}`, `{run}` and names of rows.
//!
//! What stands between braces with a blank or a quote in it is no placeholder, so that tables of TOML may stand in an
//! override. What a name stands for, the caller says.

/// The names of all placeholders in `text`, in their order.
pub(super) fn names(text: &str) -> Vec<&str> {
    pieces(text).into_iter().filter_map(Piece::name).collect()
}

/// `text` with what `value` says in place of each placeholder; one of which it says nothing stays.
pub(super) fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let piece = |piece: Piece<'_>| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Placeholder(name) => value(name).unwrap_or_else(|| format!("{{{name}}}")),
    };
    pieces(text).into_iter().map(piece).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

impl<'a> Piece<'a> {
    fn name(self) -> Option<&'a str> {
        match self {
            Piece::Placeholder(name) => Some(name),
            Piece::Text(_) => None,
        }
    }
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(open) = rest.find('{') {
        let (before, behind) = (&rest[..open], &rest[open + 1..]);
        let length = behind.find(|letter: char| !is_of_a_name(letter)).unwrap_or(behind.len());
        let is_placeholder = length > 0 && behind[length..].starts_with('}');
        if is_placeholder {
            pieces.extend([Piece::Text(before), Piece::Placeholder(&behind[..length])]);
            rest = &behind[length + 1..];
        } else {
            pieces.push(Piece::Text(&rest[..=open]));
            rest = behind;
        }
    }
    pieces.push(Piece::Text(rest));
    pieces
}

/// Letters of which names of rows are made.
pub(super) fn is_of_a_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '-' || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_filled_and_tables_of_toml_stay() {
        let value = |name: &str| (name != "who").then(|| name.to_uppercase());
        for (text, expected) in [
            ("plain", "plain"),
            ("{fold}", "FOLD"),
            ("a/{run}/b-{stage-1}", "a/RUN/b-STAGE-1"),
            ("optimizer={ sgd = {} }", "optimizer={ sgd = {} }"),
            ("{a{fold}}", "{aFOLD}"),
            ("{who}", "{who}"),
            ("{", "{"),
            ("{größe}", "{größe}"),
        ] {
            assert_eq!(fill(text, value), expected);
        }
        assert_eq!(names("{a}{ b }{c_1}"), ["a", "c_1"]);
    }
}
