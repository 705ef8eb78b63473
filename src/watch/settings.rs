//! The configuration of a run as the dashboard compares it: keys and values in words.

use crate::config;
use std::collections::BTreeMap;

/// A configuration as `table.key` and value.
pub type Settings = BTreeMap<String, String>;

/// The keys of a resolved configuration, tables flattened; empty for what is no TOML.
pub(super) fn settings(text: &str) -> Settings {
    let values = config::values(text).unwrap_or_default();
    values.into_iter().map(|(key, value)| (key, value.to_string())).collect()
}
