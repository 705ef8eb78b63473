//! The table of faults in the documentation: every promise has a test, and the test exists.

use std::fs;
use std::path::Path;

/// Rows that the table has at least.
const ROWS: usize = 60;

/// Name and file of the test in the last column of a row.
fn test_of(row: &str) -> Option<(&str, &str)> {
    let (_, last) = row.trim_end_matches(" |").rsplit_once("| [`")?;
    let (name, file) = last.split_once("`](../../")?;
    Some((name, file.strip_suffix(')')?))
}

/// Whether the text of a file of tests has one of this name.
fn has_test(text: &str, name: &str) -> bool {
    let kinds = text.lines().filter(|line| line.trim_start().starts_with("kinds! {"));
    text.contains(&format!("fn {name}("))
        || kinds.flat_map(str::split_whitespace).any(|word| word == name)
}

#[test]
fn every_fault_of_the_documentation_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/concepts/faults.md")).unwrap();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| what goes wrong");
    let rows: Vec<&str> = page.lines().filter(is_row).collect();
    assert!(rows.len() >= ROWS, "{} rows", rows.len());
    for row in rows {
        assert_eq!(row.matches(" | ").count(), 4, "{row}");
        let (name, file) = test_of(row).expect(row);
        let text = fs::read_to_string(root.join(file)).expect(file);
        assert!(has_test(&text, name), "`{file}` has no test `{name}`: {row}");
    }
}

#[test]
fn a_row_without_a_test_is_found() {
    assert_eq!(test_of("| a | b | c | 1 | [`t`](../../src/a.rs) |"), Some(("t", "src/a.rs")));
    assert_eq!(test_of("| a | b | c | 1 | by hand |"), None);
    assert!(has_test("fn told() {}\nkinds! { run_log manifest }", "manifest"));
    assert!(!has_test("fn told() {}\nkinds! { run_log }", "tol"));
}
