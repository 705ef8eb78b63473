//! The rules of the source tree that no compiler checks: who may import whom, how a file opens, how
//! long it may be, and where unsafe code and unwrapping may stand.
//!
//! Reads the files under `src/` as text. Comments and strings are blanked first, so that prose may
//! say anything; tests inside a file count for imports and unsafe code, but not for its length.

mod circles;

use circles::Tree;
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module and what it may import, beside itself. A line names only modules of
/// earlier lines, so that there can be no cycle.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("files", &[]),
    ("launchers", &["error"]),
    ("limits", &[]),
    ("panics", &["error"]),
    ("random", &[]),
    ("shares", &[]),
    ("signals", &["error"]),
    ("words", &[]),
    ("native", &["error"]),
    ("scan", &["limits", "files", "words", "error"]),
    ("preparation", &["scan", "limits", "error"]),
    ("config", &["preparation", "shares", "limits", "files", "words", "error"]),
    ("runlog", &["limits", "files", "error"]),
    ("metrics", &["error"]),
    ("crf", &["error"]),
    ("pseudo_labels", &["crf", "scan", "limits", "error"]),
    ("gaze", &["crf", "random", "limits", "files", "error"]),
    ("cli", &["limits", "error"]),
    ("launch", &["runlog", "signals", "files", "error"]),
    ("farm", &["launch", "metrics", "runlog", "config", "limits", "files", "error"]),
    ("telemetry", &["runlog", "files", "error"]),
    ("watch", &["runlog", "config", "signals", "limits", "files", "words", "error"]),
    ("export", &["watch", "runlog", "limits", "files", "error"]),
    ("doctor", &["watch", "telemetry", "runlog", "signals", "files", "words", "error"]),
    ("parameters", &["native", "random", "error"]),
    ("comm", &["native", "launchers", "shares", "error"]),
    ("nets", &["native", "parameters", "random", "error"]),
    ("losses", &["native", "error"]),
    ("mixing", &["native", "random", "limits", "error"]),
    ("scribbles", &["random"]),
    (
        "data",
        &[
            "native",
            "config",
            "scan",
            "preparation",
            "pseudo_labels",
            "gaze",
            "crf",
            "scribbles",
            "shares",
            "random",
            "limits",
            "files",
            "words",
            "error",
        ],
    ),
    (
        "train",
        &[
            "config",
            "runlog",
            "comm",
            "native",
            "parameters",
            "data",
            "scan",
            "preparation",
            "metrics",
            "signals",
            "shares",
            "random",
            "launchers",
            "limits",
            "files",
            "panics",
            "error",
        ],
    ),
    // `config` for the list in `mod.rs`, which reads parameters; not for the method files.
    (
        "methods",
        &[
            "train",
            "data",
            "nets",
            "losses",
            "mixing",
            "pseudo_labels",
            "parameters",
            "native",
            "config",
            "random",
            "limits",
            "error",
        ],
    ),
    (
        "commands",
        &[
            "pseudo_labels",
            "methods",
            "train",
            "data",
            "scan",
            "preparation",
            "losses",
            "nets",
            "comm",
            "parameters",
            "export",
            "farm",
            "launch",
            "doctor",
            "watch",
            "telemetry",
            "cli",
            "metrics",
            "runlog",
            "config",
            "native",
            "signals",
            "words",
            "random",
            "launchers",
            "limits",
            "files",
            "panics",
            "error",
        ],
    ),
    ("main", &["cli", "commands", "error"]),
    // Declares the modules and imports none of them.
    ("lib", &[]),
];

/// Longest file, its tests not counted.
const MAX_LINES: usize = 500;

/// The only places with unsafe code.
const UNSAFE_FILES: &[&str] = &["native/"];

/// What is wrong with one file, `path` relative to `src/` with forward slashes.
fn violations(path: &str, text: &str) -> Vec<String> {
    let code = blank_prose(text);
    let shipped = blank_tests(&code);
    let mut found = import_violations(path, &code, &shipped);
    if !text.starts_with("//!") {
        found.push("does not open with `//!`".to_owned());
    }
    let blank_after = shipped.lines().filter(|line| line.starts_with(TEST_LINE)).count();
    let lines = text.lines().count() - blank_after;
    if lines > MAX_LINES {
        found.push(format!("has {lines} lines without its tests, at most {MAX_LINES} are allowed"));
    }
    if words(&code).any(|word| word == "unsafe")
        && !UNSAFE_FILES.iter().any(|allowed| path.starts_with(allowed))
    {
        found.push("has unsafe code".to_owned());
    }
    for call in [".unwrap()", ".expect("] {
        if shipped.contains(call) {
            found.push(format!("calls `{call}` outside its tests"));
        }
    }
    found
}

fn import_violations(path: &str, code: &str, shipped: &str) -> Vec<String> {
    let module = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("module `{module}` has no line in the layer table")];
    };
    let mut found: Vec<String> = imported_modules(code)
        .into_iter()
        .filter(|name| name != module && !allowed.contains(&name.as_str()))
        .map(|name| format!("imports `{name}`, which `{module}` may not"))
        .collect();
    if module == "methods"
        && path != "methods/mod.rs"
        && imported_modules(code).contains(&"config".into())
    {
        found.push("imports `config`: a method knows its parameters only".to_owned());
    }
    // Where `super` is the crate itself, it would pass by the table.
    let top = path.matches('/').count() == 0 || path == format!("{module}/mod.rs");
    if shipped.contains("super::super::") || (top && shipped.contains("super::")) {
        found.push("leaves its module through `super::`; say `crate::`".to_owned());
    }
    found
}

/// First segments of every path that starts at the crate, those inside groups included.
fn imported_modules(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for root in ["crate::", "scrimp::"] {
        for (start, _) in code.match_indices(root) {
            if !code[..start].ends_with(is_word) {
                modules.extend(first_segments(&code[start + root.len()..]));
            }
        }
    }
    modules.sort();
    modules.dedup();
    modules
}

/// `a::b` gives `a`; `{a, b::{c, d}, e::f}` gives `a`, `b`, `e`.
fn first_segments(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return words(path).next().map(str::to_owned).into_iter().collect();
    };
    let (mut depth, mut segments, mut at_start) = (0, Vec::new(), true);
    for (index, letter) in group.char_indices() {
        match letter {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            _ if at_start && is_word(letter) => {
                segments.extend(words(&group[index..]).next().map(str::to_owned));
                at_start = false;
            }
            _ => {}
        }
    }
    segments
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter| !is_word(letter)).filter(|word| !word.is_empty())
}

/// Replaces comments and the insides of literals by spaces, line breaks kept.
fn blank_prose(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = prose_length(rest, code.ends_with(is_word));
        let (taken, remaining) = rest.split_at(length.unwrap_or(first.len_utf8()));
        match length {
            None => code.push(first),
            Some(_) => code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = remaining;
    }
    code
}

/// Length in bytes of the comment or literal at the start of `text`, if there is one.
fn prose_length(text: &str, after_word: bool) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    if text.starts_with('"') {
        return Some(closing_quote(text, '"'));
    }
    if !after_word && text.starts_with('r') {
        let hashes = text[1..].chars().take_while(|&letter| letter == '#').count();
        if text[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            let end = text[body..].find(&close).map(|end| body + end + close.len());
            return Some(end.unwrap_or(text.len()));
        }
    }
    // A character literal and not a lifetime: escaped, or closed after one character.
    let mut letters = text.chars();
    let is_literal = letters.next() == Some('\'')
        && (letters.next() == Some('\\') || letters.next() == Some('\''));
    is_literal.then(|| closing_quote(text, '\''))
}

/// One past the quote that closes the literal at the start of `text`.
fn closing_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Stands for each line of a test in the output of [`blank_tests`].
const TEST_LINE: char = '\u{1}';

/// Replaces items under `#[cfg(test)]` by marked empty lines. `code` has no prose any more.
fn blank_tests(code: &str) -> String {
    let mut shipped = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(start);
        let (tests, after) = item.split_at(item_length(item));
        shipped.push_str(before);
        shipped.extend(tests.matches('\n').flat_map(|_| ['\n', TEST_LINE]));
        rest = after;
    }
    shipped + rest
}

/// Length of an item up to its `;`, or to the brace that closes its first one.
fn item_length(item: &str) -> usize {
    let mut depth = 0;
    for (index, letter) in item.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return index + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    item.len()
}

/// Every Rust file under `folder`, as absolute paths.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn the_source_tree_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > LAYERS.len(), "found only {} files under `src/`", files.len());
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        let text = fs::read_to_string(&file).unwrap();
        found.extend(violations(&path, &text).iter().map(|what| format!("src/{path} {what}")));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_layer_table_points_downwards_and_names_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (index, (module, allowed)) in LAYERS.iter().enumerate() {
        let exists = root.join(format!("{module}.rs")).exists() || root.join(module).is_dir();
        assert!(exists, "`{module}` has a line in the layer table, but no file");
        for name in *allowed {
            let below = LAYERS[..index].iter().any(|(earlier, _)| earlier == name);
            assert!(below, "`{module}` may import `{name}`, which is no earlier line");
        }
    }
}

#[test]
fn planted_import_violations_are_found() {
    let found = |path: &str, code: &str| violations(path, &format!("//! Head.\n{code}"));
    let upward = ["imports `train`, which `nets` may not"];
    assert_eq!(found("nets/unet.rs", "use crate::train::Learner;"), upward);
    assert_eq!(found("nets/unet.rs", "use crate::{error::{A, B}, train::{C, D}};"), upward);
    assert_eq!(found("nets/unet.rs", "fn f() { let x = crate::train::f(); }"), upward);
    assert_eq!(found("nets/unet.rs", "#[cfg(test)]\nmod tests { use crate::train; }"), upward);
    assert_eq!(found("main.rs", "use scrimp::nets;"), ["imports `nets`, which `main` may not"]);
    assert_eq!(
        found("helpers.rs", "use crate::error::Result;"),
        ["module `helpers` has no line in the layer table"]
    );
    let sideways = ["leaves its module through `super::`; say `crate::`"];
    assert_eq!(found("nets/mod.rs", "use super::train;"), sideways);
    assert_eq!(found("nets/unet.rs", "use super::super::train;"), sideways);
    let fine = "use crate::{error::Result, nets::Block, random};\nuse super::Block;\n\
                // use crate::train;\nconst A: &str = \"crate::train\";\nfn f<'a>(a: &'a str) {}";
    assert_eq!(found("nets/unet.rs", fine), [""; 0]);
}

#[test]
fn planted_violations_of_the_other_rules_are_found() {
    assert_eq!(violations("error.rs", "use std::fmt;"), ["does not open with `//!`"]);
    let found = |path: &str, code: &str| violations(path, &format!("//! Head.\n{code}"));
    assert_eq!(found("data/store.rs", "fn f() { unsafe { g() } }"), ["has unsafe code"]);
    assert_eq!(found("native/ffi.rs", "fn f() { unsafe { g() } }"), [""; 0]);
    assert_eq!(found("error.rs", "#![deny(unsafe_code)] // unsafe"), [""; 0]);
    assert_eq!(
        found("error.rs", "fn f() { g().unwrap(); }"),
        ["calls `.unwrap()` outside its tests"]
    );
    let after_tests = "#[cfg(test)]\nmod tests { fn f() { '{'; } }\nfn f() { g().expect(\"\"); }";
    assert_eq!(found("error.rs", after_tests), ["calls `.expect(` outside its tests"]);
    let in_tests = "#[cfg(test)]\nmod tests { use super::*; fn f() { g().unwrap(); } }";
    assert_eq!(found("error.rs", in_tests), [""; 0]);
    let long = "fn f() {}\n".repeat(MAX_LINES);
    assert_eq!(
        found("error.rs", &long),
        ["has 501 lines without its tests, at most 500 are allowed"]
    );
    let long_tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(found("error.rs", &long_tests), [""; 0]);
}

/// Every file of the source tree, its path below `src/`, and its code without prose and tests.
fn shipped_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        (path, blank_tests(&blank_prose(&fs::read_to_string(&file).unwrap())))
    };
    rust_files(&root).into_iter().map(read).collect()
}

#[test]
fn no_files_need_each_other() {
    let tree = Tree::of(shipped_files());
    let circles: Vec<String> =
        tree.circles().iter().map(|circle| tree.arrows(circle).join("\n")).collect();
    assert!(circles.is_empty(), "files need each other:\n{}\n", circles.join("\n\n"));
}

/// The circles of a tree of these files and the root.
fn circles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let files = files
        .iter()
        .chain(&[("lib.rs", "")])
        .map(|(path, code)| ((*path).to_owned(), (*code).to_owned()));
    let tree = Tree::of(files);
    let owned = |circle: Vec<&str>| circle.into_iter().map(str::to_owned).collect();
    tree.circles().into_iter().map(owned).collect()
}

#[test]
fn planted_circles_are_found() {
    let siblings = [["a/x.rs", "a/y.rs"]];
    let parent = ("a/mod.rs", "mod x;\nmod y;\npub use x::X;\npub use y::Y;");
    let of = |x, y| circles_of(&[parent, ("a/x.rs", x), ("a/y.rs", y)]);
    assert_eq!(of("use super::y::Y;", "use super::x::{self, X};"), siblings);
    assert_eq!(of("fn f() { super::y::g() }", "use crate::a::{x::X as Z};"), siblings);
    assert_eq!(of("use super::y;\nfn f() { y::g() }", "use super::x::*;"), siblings);
    // By way of the parent, which passes the names on.
    assert_eq!(of("use super::Y;", "use crate::{a::X, b::B};"), siblings);
    let cousins = [
        ("a/mod.rs", "pub mod x;\npub mod y;"),
        ("a/x/mod.rs", "mod inner;\npub use inner::X;"),
        ("a/x/inner.rs", "use crate::a::y::Y;"),
        ("a/y.rs", "use super::x;\nfn f(_: x::X) {}"),
    ];
    assert_eq!(circles_of(&cousins), [["a/x/inner.rs", "a/y.rs"]]);
    let three = [
        ("a/mod.rs", "mod x;\nmod y;\nmod z;"),
        ("a/x.rs", "pub(super) use super::y::Y;\nfn f(_: Y) {}"),
        ("a/y.rs", "use super::z::Z;"),
        ("a/z.rs", "use super::x::X;"),
    ];
    assert_eq!(circles_of(&three), [["a/x.rs", "a/y.rs", "a/z.rs"]]);
}

#[test]
fn what_is_no_circle_passes() {
    let parent = "mod x;\nmod y;\npub use x::X;\nuse y::Y;\npub trait T { fn f() { x::f(); } }";
    let fine = [
        // A part says the nouns of the whole, which composes it.
        ("a/mod.rs", parent),
        ("a/x.rs", "use super::T;\nuse super::y::Y;"),
        ("a/y.rs", "use super::T;\nuse crate::b;\nfn f<'a>() -> impl T + use<'a> { b::f() }"),
        // Said in a declaration that only passes it on.
        ("b.rs", "pub use crate::c::C;"),
        ("c.rs", "use crate::b::B;"),
    ];
    assert_eq!(circles_of(&fine), [[""; 0]; 0]);
}
