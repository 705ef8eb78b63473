//! Files of JSON that people and programs write beside their data, read with a word about where one is damaged.
//!
//! Does not know what the files say.

use crate::error::{Context, Failure, Result};
use crate::files;
use crate::limits::JSON_BYTES;
use serde_json::Value;
use std::path::Path;

/// Reads a file of JSON. Refuses one that is not there, too long or damaged, the last with line and column.
pub(super) fn read(path: &Path) -> Result<Value> {
    let shown = path.display();
    let text = files::read_text(path, JSON_BYTES).context(|| format!("cannot read `{shown}`"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    serde_json::from_str(text).map_err(|error| {
        Failure::new(format!("`{shown}` is no JSON"))
            .at(format!("  --> {shown}:{}:{}", error.line(), error.column()))
            .because(&error)
            .hint(format!("`python3 -m json.tool {shown}` says the same of it once it is mended"))
    })
}

/// A whole number, which may be written as a text of digits.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_i64(),
    }
}

/// A value in a message, shortened where it is long.
pub(super) fn shown(value: &Value) -> String {
    /// Letters of the longest value that is shown whole.
    const WHOLE: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= WHOLE {
        return format!("`{text}`");
    }
    let start: String = text.chars().take(WHOLE).collect();
    format!("`{start}…`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).unwrap_err().to_string().replace(folder.path().to_str().unwrap(), "FOLDER")
        };
        insta::assert_snapshot!(refused(b"{\n  \"labels\": {\"background\": 0,}\n}"), @"");
        assert!(refused(b"{\"a\": \"\xff\"}").contains("it is no UTF-8 text"));
        assert!(refused(b"").contains("--> FOLDER/a.json:1:0"));
        // Deeper than anybody nests.
        assert!(refused(&vec![b'['; 100_000]).contains("recursion limit exceeded"));
        std::fs::write(&path, "\u{feff}{\"a\": \"7\"}").unwrap();
        let value = read(&path).unwrap();
        assert_eq!((whole(&value["a"]), whole(&value)), (Some(7), None));
        assert!(shown(&Value::from("x".repeat(100))).ends_with("x…`"));
    }
}
