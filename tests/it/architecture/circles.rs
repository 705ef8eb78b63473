//! Which file of the source tree needs which other, and where they need each other in a circle.
//!
//! A file needs the file that *defines* a name it says, by whatever path it says it. So
//!
//! - `super::X` needs the parent's `mod.rs` where that defines `X`; where it only passes `X` on
//!   (`pub use child::X`), it needs the file of `child`;
//! - `mod child;` is no need, and neither is `pub use child::X` of a file that says `X` nowhere else:
//!   a sign at the door does not need what stands in the room;
//! - `use super::x;` is a need where one of its names is said: `x::X`;
//! - what a file needs of the `mod.rs` of its own folder counts for nothing: that composes the files of
//!   the folder, and they may say the nouns that are common to them. Siblings have no such excuse.
//!
//! Knows only text whose prose and tests are blanked. It does not see names that macros make, nor
//! methods of types that are never named, and reads a module within a file as part of the file.

use super::{is_word, words};
use std::collections::{BTreeMap, BTreeSet};

/// The modules of the tree that have files of their own, by the path of the module: `watch/ui`;
/// the crate itself is the empty path.
pub(super) struct Tree {
    files: BTreeMap<String, SourceFile>,
}

/// A file as text, and what its `use` declarations say.
struct SourceFile {
    /// Its path below `src/`.
    path: String,
    /// The code without its `use` declarations.
    body: String,
    uses: Vec<Use>,
}

/// One name that a `use` declaration brings.
struct Use {
    /// As the file calls it.
    name: String,
    /// The path as it is written, from `crate`, `self`, `super` or a module at hand.
    path: Vec<String>,
    is_passed_on: bool,
}

impl Tree {
    /// Takes pairs of a path below `src/`, with forward slashes, and its code without prose and tests.
    pub(super) fn of(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let files = files.into_iter().filter(|(path, _)| path != "main.rs").map(|(path, code)| {
            let (body, uses) = split_uses(&code);
            (module_of(&path), SourceFile { path, body, uses })
        });
        Self { files: files.collect() }
    }

    /// Groups of files that need each other, directly or through others of the group; each sorted.
    pub(super) fn circles(&self) -> Vec<Vec<&str>> {
        let needs: BTreeMap<&str, BTreeSet<&str>> =
            self.files.keys().map(|module| (module.as_str(), self.needs(module))).collect();
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            needs.keys().map(|&module| (module, reachable(module, &needs))).collect();
        let mut circles: BTreeSet<Vec<&str>> = BTreeSet::new();
        for (&module, there) in &reached {
            let group = there.iter().filter(|other| reached[*other].contains(module));
            let mut group: Vec<&str> =
                group.map(|other| self.files[*other].path.as_str()).collect();
            group.sort_unstable();
            if !group.is_empty() {
                circles.insert(group);
            }
        }
        circles.into_iter().collect()
    }

    /// What the file of a circle needs of the other files of it, as `a.rs -> b.rs`.
    pub(super) fn arrows(&self, circle: &[&str]) -> Vec<String> {
        let inside = |module: &str| circle.contains(&self.files[module].path.as_str());
        let from = self.files.iter().filter(|(module, _)| inside(module));
        from.flat_map(|(module, file)| {
            let needs = self.needs(module).into_iter().filter(|other| inside(other));
            needs.map(|other| format!("{} -> {}", file.path, self.files[other].path))
        })
        .collect()
    }

    /// The modules whose names the file of `module` says.
    fn needs(&self, module: &str) -> BTreeSet<&str> {
        let file = &self.files[module];
        let said: BTreeSet<&str> = words(&file.body).collect();
        let imported = file.uses.iter().filter(|used| {
            !used.is_passed_on || used.name == "*" || said.contains(used.name.as_str())
        });
        let imported = imported.filter_map(|used| self.definer(module, &used.path));
        let imported = imported.filter(|found| !found.is_module).map(|found| found.module);
        let spoken = paths(&file.body).into_iter().filter(|path| path.len() > 1);
        let spoken = spoken.filter_map(|path| Some(self.definer(module, &path)?.module));
        let above = parent(module);
        let needed = imported.chain(spoken).filter(|other| *other != module && *other != above);
        // The root declares the modules and imports none of them.
        needed.filter(|other| !other.is_empty()).collect()
    }

    /// The module whose file defines what `path` names, seen from `module`.
    fn definer(&self, module: &str, path: &[String]) -> Option<Found<'_>> {
        let (start, rest) = self.start(module, path)?;
        let mut here = start;
        for (index, segment) in rest.iter().enumerate() {
            let inner = join(here, segment);
            if let Some((inner, _)) = self.files.get_key_value(&inner) {
                here = inner;
            } else if segment != "self" {
                return Some(self.passed_on(here, &rest[index..]));
            }
        }
        Some(Found { module: here, is_module: true })
    }

    /// Follows `use` declarations of a file that has a name from another one.
    fn passed_on(&self, module: &'_ str, rest: &[String]) -> Found<'_> {
        let (module, file) = self.files.get_key_value(module).expect("a module with a file");
        let known = file.uses.iter().find(|used| used.name == rest[0]);
        let path = known.map(|used| [&used.path[..], &rest[1..]].concat());
        // A declaration that names itself would never end.
        let path = path.filter(|path| path != rest);
        let found = path.and_then(|path| self.definer(module, &path));
        found.unwrap_or(Found { module, is_module: false })
    }

    /// Where a path begins, and the segments after that; none for what is of other crates.
    fn start<'p>(&self, module: &str, path: &'p [String]) -> Option<(&str, &'p [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut start = match first.as_str() {
            "crate" => String::new(),
            "self" => module.to_owned(),
            "super" => parent(module).to_owned(),
            name => {
                let child = join(module, name);
                if self.files.contains_key(&child) {
                    child
                } else {
                    let uses = &self.files[module].uses;
                    let used = uses.iter().find(|used| used.name == name && used.path != path)?;
                    let found = self.definer(module, &used.path)?;
                    if !found.is_module {
                        return None;
                    }
                    found.module.to_owned()
                }
            }
        };
        while rest.first().is_some_and(|segment| segment == "super") {
            start = parent(&start).to_owned();
            rest = &rest[1..];
        }
        let (start, _) = self.files.get_key_value(&start)?;
        Some((start, rest))
    }
}

/// What a path leads to: a module, or something that the file of a module defines.
struct Found<'t> {
    module: &'t str,
    is_module: bool,
}

fn module_of(path: &str) -> String {
    let path = path.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { String::new() } else { path.to_owned() }
}

fn parent(module: &str) -> &str {
    module.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}/{name}") }
}

fn reachable<'m>(from: &'m str, needs: &BTreeMap<&'m str, BTreeSet<&'m str>>) -> BTreeSet<&'m str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = needs[from].iter().copied().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(&needs[module]);
        }
    }
    reached
}

/// The code without its `use` declarations, and these.
fn split_uses(code: &str) -> (String, Vec<Use>) {
    let (mut body, mut uses, mut rest) = (String::new(), Vec::new(), code);
    while let Some(start) = find_word(rest, "use") {
        let (before, from) = rest.split_at(start);
        let end = from.find(';').unwrap_or(from.len());
        // `impl Trait + use<'a>` is none.
        if from["use".len()..].trim_start().starts_with('<') {
            body.push_str(before);
            body.push_str("use");
            rest = &from["use".len()..];
            continue;
        }
        let line = before.rfind(['\n', ';', '}']).map_or(before, |at| &before[at + 1..]);
        let is_passed_on = line.trim_start().starts_with("pub");
        let mut names = Vec::new();
        read_tree(&from["use".len()..end], &[], &mut names);
        uses.extend(names.into_iter().map(|(name, path)| Use { name, path, is_passed_on }));
        body.push_str(before);
        rest = &from[end..];
    }
    body.push_str(rest);
    (body, uses)
}

/// Where `word` stands as a word of its own.
fn find_word(code: &str, word: &str) -> Option<usize> {
    code.match_indices(word)
        .map(|(at, _)| at)
        .find(|&at| !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word))
}

/// Reads a tree of a `use` declaration below `stem`: `a::{b, c as d}` brings `b` and `d`.
fn read_tree(tree: &str, stem: &[String], names: &mut Vec<(String, Vec<String>)>) {
    let tree = tree.trim();
    if let Some(group) = tree.strip_prefix('{') {
        for branch in branches(group.strip_suffix('}').unwrap_or(group)) {
            read_tree(branch, stem, names);
        }
    } else if let Some((first, rest)) = tree.split_once("::") {
        let stem = [stem, &[first.trim().to_owned()]].concat();
        read_tree(rest, &stem, names);
    } else if !tree.is_empty() {
        let (last, name) = tree.split_once(" as ").unwrap_or((tree, tree));
        let (last, name) = (last.trim(), name.trim());
        let is_itself = last == "self" && !stem.is_empty();
        let path = if is_itself { stem.to_vec() } else { [stem, &[last.to_owned()]].concat() };
        let name = if name == "self" { path.last().map_or("", String::as_str) } else { name };
        names.push((name.to_owned(), path));
    }
}

/// The parts between the commas that stand in no braces.
fn branches(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (index, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    found.push(&group[start..]);
    found
}

/// Every path in the code, `a::b::c`, as its segments.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(is_word) {
        let follows = rest[..start].ends_with("::") || rest[..start].ends_with('.');
        rest = &rest[start..];
        let mut path = Vec::new();
        loop {
            let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
            path.push(rest[..end].to_owned());
            rest = &rest[end..];
            match rest.strip_prefix("::") {
                Some(next) if next.starts_with(is_word) => rest = next,
                _ => break,
            }
        }
        if !follows {
            found.push(path);
        }
    }
    found
}
