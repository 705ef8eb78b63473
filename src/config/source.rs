//! The text of a configuration: edited by overrides, deserialised, and searched for the place of a key.
//!
//! Types are read from the edited text, places are shown in the text as it was written. This module
//! does not know which keys exist.

use super::{shown, voice};
use crate::error::{Failure, Result};
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml_edit::{Document, DocumentMut, Item, Key, TableLike, Value};

/// The deepest table that an override reaches into.
const DEEPEST: usize = 32;

/// One configuration text and the overrides that were applied to it: of a run, or of a farm.
#[derive(Debug, Clone, Default)]
pub struct Source {
    name: String,
    written: String,
    edited: String,
    overrides: Vec<Override>,
}

/// Where a text came from says nothing about what it says.
impl PartialEq for Source {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// One `KEY=VALUE` of the command line.
#[derive(Debug, Clone)]
struct Override {
    text: String,
    path: Vec<Key>,
    value: Value,
}

impl Override {
    fn parse(text: &str) -> Result<Self> {
        let refuse = |what: &str| {
            Failure::usage(format!("`--set {}` {what}", shown::quoted(text)))
                .hint("write it as `--set train.total_steps=100`")
        };
        let (key, value) = text.split_once('=').ok_or_else(|| refuse("has no `=`"))?;
        let Ok(path) = Key::parse(key.trim()) else {
            return Err(refuse("does not begin with a key"));
        };
        if path.len() > DEEPEST {
            return Err(refuse("names a table in a table in a table, too deep to hold anything"));
        }
        let value = value.trim();
        // What TOML does not understand is a word: a path or a name, as it is typed in a shell.
        let value = value.parse::<Value>().unwrap_or_else(|_| Value::from(value));
        Ok(Self { text: text.to_owned(), path, value })
    }

    fn key(&self) -> String {
        self.path.iter().map(Key::get).collect::<Vec<_>>().join(".")
    }

    fn apply(&self, document: &mut DocumentMut) -> Result<()> {
        let Some((last, tables)) = self.path.split_last() else { return Ok(()) };
        let mut table: &mut dyn TableLike = document.as_table_mut();
        for key in tables {
            let item = table.entry_format(key).or_insert_with(toml_edit::table);
            table = item.as_table_like_mut().ok_or_else(|| {
                let text = shown::quoted(&self.text);
                let key = shown::quoted(key.get());
                Failure::usage(format!("`--set {text}` goes into `{key}`, which is not a table"))
            })?;
        }
        table.insert(last.get(), Item::Value(self.value.clone()));
        Ok(())
    }
}

impl Source {
    /// Checks the syntax of `text` and applies the overrides to it.
    pub fn new(text: &str, name: &str, overrides: &[String]) -> Result<Self> {
        let mut source = Self {
            name: name.to_owned(),
            written: text.to_owned(),
            edited: text.to_owned(),
            overrides: overrides.iter().map(|text| Override::parse(text)).collect::<Result<_>>()?,
        };
        let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            let place = source.excerpt(&error.span().unwrap_or_default());
            let name = shown::quoted(name);
            Failure::usage(shown::sentence(&format!("`{name}` is not TOML: {message}"))).at(place)
        })?;
        if !source.overrides.is_empty() {
            for change in &source.overrides {
                change.apply(&mut document)?;
            }
            source.edited = document.to_string();
        }
        Ok(source)
    }

    /// The whole edited text as a `T`.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.edited).map_err(|error| {
            // An empty span means the document as a whole.
            let span = error.span().filter(|span| !span.is_empty());
            let key = span.and_then(|span| key_at(&self.edited, &span));
            self.mistake(&error, &key.unwrap_or_default())
        })
    }

    /// An empty table, which the text does not hold at `key`, as a `T`.
    pub(super) fn empty_at<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        toml::from_str("").map_err(|error| self.mistake(&error, key))
    }

    /// Whether the edited text holds something at `key`.
    pub(super) fn holds(&self, key: &str) -> bool {
        spot(&self.edited, key, Part::Value).is_some()
    }

    /// The names in the table at `key`, in the order in which they were written.
    pub fn names_in(&self, key: &str) -> Vec<String> {
        let Ok(document) = Document::parse(self.written.as_str()) else { return Vec::new() };
        let mut table: &dyn TableLike = document.as_table();
        for name in key.split('.') {
            let Some(inner) = table.get(name).and_then(Item::as_table_like) else {
                return Vec::new();
            };
            table = inner;
        }
        table.iter().map(|(name, _)| name.to_owned()).collect()
    }

    /// The text as it was written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// A refusal of the value at `key`, with its place.
    pub fn refuse(&self, key: &str, message: &str) -> Failure {
        Failure::usage(shown::sentence(message)).at(self.place(key))
    }

    /// Where the value at `key` stands: the override that says something about it, else its line, else
    /// the file.
    pub fn place(&self, key: &str) -> String {
        self.place_of(key, Part::Value)
    }

    fn mistake(&self, error: &toml::de::Error, key: &str) -> Failure {
        let mistake = voice::translate(error.message(), key);
        let part = if mistake.is_key { Part::Key } else { Part::Value };
        let message = shown::sentence(&mistake.message);
        let failure = Failure::usage(message).at(self.place_of(&mistake.place, part));
        mistake.hints.iter().fold(failure, |failure, hint| failure.hint(shown::sentence(hint)))
    }

    fn place_of(&self, key: &str, part: Part) -> String {
        let says = |change: &&Override| {
            let prefix = change.key();
            key == prefix || key.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('.'))
        };
        if let Some(change) = self.overrides.iter().rev().find(says) {
            return format!("  --> --set {}", shown::quoted(&change.text));
        }
        match spot(&self.written, key, part) {
            Some(span) => self.excerpt(&span),
            None => format!("  --> {}", shown::quoted(&self.name)),
        }
    }

    /// `  --> FILE:LINE:COLUMN`, the line, and carets below the span (bytes of the written text).
    fn excerpt(&self, span: &Range<usize>) -> String {
        let start = self.written.floor_char_boundary(span.start);
        let end = self.written.floor_char_boundary(span.end.max(start));
        let before = &self.written[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.written[line_start..].lines().next().unwrap_or_default();
        let number = before.matches('\n').count() + 1;
        let column = self.written[line_start..start].chars().count() + 1;
        let width = self.written[start..end].lines().next().unwrap_or_default().chars().count();
        let margin = " ".repeat(number.to_string().len());
        let (line, marked) = shown::around(line, column - 1..column - 1 + width);
        let carets = " ".repeat(marked.start) + &"^".repeat(marked.len().max(1));
        let name = shown::quoted(&self.name);
        format!(
            "  --> {name}:{number}:{column}\n{margin} |\n{number} | {line}\n{margin} | {carets}"
        )
    }
}

/// Which half of `key = value` is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Value,
}

/// The bytes of `text` that hold the key or value at a dotted `key`.
fn spot(text: &str, key: &str, part: Part) -> Option<Range<usize>> {
    let document = Document::parse(text).ok()?;
    let mut table: &dyn TableLike = document.as_table();
    let mut parts = key.split('.').peekable();
    while let Some(name) = parts.next() {
        let (found, item) = table.get_key_value(name)?;
        if parts.peek().is_some() {
            table = item.as_table_like()?;
        } else {
            let key_span = found.span().or_else(|| item.span());
            return if item.is_value() && part == Part::Value { item.span() } else { key_span };
        }
    }
    None
}

/// The dotted key whose name or value stands at `span`; tables count where nothing inside them does.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    let document = Document::parse(text).ok()?;
    let mut best: Option<(usize, String)> = None;
    visit(document.as_table(), "", &mut |path, place| {
        let holds = place.start <= span.start && span.end <= place.end;
        if holds && best.as_ref().is_none_or(|(length, _)| place.len() <= *length) {
            best = Some((place.len(), path.to_owned()));
        }
    });
    best.map(|(_, path)| path)
}

/// Shows `seen` the dotted path and the place of every key and every value below `table`.
fn visit(table: &dyn TableLike, prefix: &str, seen: &mut dyn FnMut(&str, Range<usize>)) {
    for (name, item) in table.iter() {
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        let key_span = table.get_key_value(name).and_then(|(key, _)| key.span());
        for span in key_span.into_iter().chain(item.span()) {
            seen(&path, span);
        }
        if let Some(inner) = item.as_table_like() {
            visit(inner, &path, seen);
        }
    }
}
