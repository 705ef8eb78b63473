//! `scrimp methods`: what can be trained.

use super::{print, print_json};
use crate::error::{Exit, Result};
use crate::methods::METHODS;
use serde_json::json;

/// Prints the list of methods.
pub(super) fn run(is_json: bool) -> Result<Exit> {
    if is_json {
        let methods = METHODS.iter().map(|method| {
            json!({ "name": method.name, "summary": method.summary, "paper": method.paper })
        });
        print_json(&json!({ "methods": methods.collect::<Vec<_>>() }))?;
        return Ok(Exit::Done);
    }
    for method in METHODS {
        let (name, summary, paper) = (method.name, method.summary, method.paper);
        print(&format!("{name:<16}{summary}\n{:<16}{paper}\n", ""))?;
    }
    Ok(Exit::Done)
}
