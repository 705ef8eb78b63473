//! `scrimp methods`: what can be trained.

use crate::error::{Exit, Result};
use crate::methods::METHODS;

/// Prints the list of methods.
pub(super) fn run() -> Result<Exit> {
    for method in METHODS {
        let (name, summary, paper) = (method.name, method.summary, method.paper);
        super::print(&format!("{name:<16}{summary}\n{:<16}{paper}\n", ""))?;
    }
    Ok(Exit::Done)
}
