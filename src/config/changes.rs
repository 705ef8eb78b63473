//! What distinguishes two configurations, key by key.
//!
//! Compares what they say, not how they are written. Which keys may change is not known here.

use crate::error::{Context, Result};
use std::collections::BTreeMap;
use std::fmt;
use toml::{Table, Value};

/// One key that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key, for example `train.batch_size`.
    pub key: String,
    /// What it said; `None` where it was absent.
    pub before: Option<Value>,
    /// What it says; `None` where it is absent.
    pub after: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |value: &Option<Value>| value.as_ref().map_or("absent".into(), Value::to_string);
        write!(f, "`{}` was {}, is {}", self.key, said(&self.before), said(&self.after))
    }
}

/// Every key in which two configurations differ, in the order of the keys. Both are TOML with every
/// default filled in.
pub fn changes(before: &str, after: &str) -> Result<Vec<Change>> {
    let (before, after) = (values(before)?, values(after)?);
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let change = |key: &String| Change {
        key: key.clone(),
        before: before.get(key).cloned(),
        after: after.get(key).cloned(),
    };
    Ok(keys.into_iter().map(change).filter(|change| change.before != change.after).collect())
}

/// The values of a resolved configuration by their keys, for example `train.batch_size`.
pub fn values(resolved: &str) -> Result<BTreeMap<String, Value>> {
    let table: Table = resolved.parse().context(|| "cannot read a resolved configuration")?;
    let mut values = BTreeMap::new();
    flatten("", &table, &mut values);
    Ok(values)
}

fn flatten(prefix: &str, table: &Table, values: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(table) => flatten(&key, table, values),
            value => drop(values.insert(key, value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_come_and_go_are_named_with_both_values() {
        let before = "[a]\nx = 1\ny = \"same\"\ngone = true\n[a.b]\nz = 0.5\n";
        let after = "[a]\ny = \"same\"\nx = 2\n[a.b]\nz = 0.25\nnew = [1, 2]\n";
        let lines: Vec<String> =
            changes(before, after).unwrap().iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        `a.b.new` was absent, is [1, 2]
        `a.b.z` was 0.5, is 0.25
        `a.gone` was true, is absent
        `a.x` was 1, is 2
        ");
        assert_eq!(changes(before, before).unwrap(), []);
    }
}
