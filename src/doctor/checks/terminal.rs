//! The verdict on the terminal: what the dashboard can show there.

use super::said::Said;
use crate::doctor::observation::Observation;
use crate::doctor::report::Finding;
use crate::watch::Abilities;

/// What the dashboard needs to be read.
const LEAST_SIZE: (u16, u16) = (60, 16);

/// What the dashboard can show on the terminal of rank 0.
pub(super) fn terminal(seen: &[Observation]) -> Vec<Said> {
    let finding = seen[0].terminal.as_ref().map_or_else(none, of);
    vec![Said { finding, ranks: (0..seen.len()).collect() }]
}

fn none() -> Finding {
    Finding::not_here("there is none")
}

fn of(terminal: &Abilities) -> Finding {
    let Abilities { is_terminal, kind, has_cursor, speaks_utf8, has_colour, is_remote, size } =
        terminal;
    if !is_terminal {
        return Finding::not_here("output goes elsewhere; the dashboard may run on another host")
            .hint("`scrimp watch RUN` from any terminal that sees the folder of the run");
    }
    let kind = kind.as_deref().unwrap_or("no kind");
    if !has_cursor {
        return Finding::warning(
            format!("`{kind}` cannot draw over what it has drawn: `scrimp watch` writes lines"),
            "`export TERM=xterm-256color`, if that is what it is",
        );
    }
    if !speaks_utf8 {
        return Finding::warning(
            format!("`{kind}`, and its locale has no UTF-8: the dashboard draws with ASCII"),
            "`export LC_ALL=C.UTF-8`",
        );
    }
    if let Some((columns, rows)) =
        size.filter(|size| size.0 < LEAST_SIZE.0 || size.1 < LEAST_SIZE.1)
    {
        return Finding::warning(
            format!("`{kind}` of {columns} x {rows} characters is small for the dashboard"),
            format!("make it at least {} x {}", LEAST_SIZE.0, LEAST_SIZE.1),
        );
    }
    let size = size.map_or_else(String::new, |(columns, rows)| format!(" of {columns} x {rows}"));
    let colour = if *has_colour { "with colours" } else { "without colours, as `NO_COLOR` says" };
    let place = if *is_remote { ", over SSH" } else { "" };
    Finding::ok(format!("`{kind}`{size}, UTF-8, {colour}{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::samples::on_hosts;
    use crate::doctor::report::State;

    #[test]
    fn what_the_dashboard_cannot_show_is_told() {
        let whole = Abilities {
            is_terminal: true,
            size: Some((120, 40)),
            ..Abilities::of(|name| match name {
                "TERM" => Some("xterm-256color".to_owned()),
                "LANG" => Some("C.UTF-8".to_owned()),
                _ => None,
            })
        };
        let words = "`xterm-256color` of 120 x 40, UTF-8, with colours";
        assert_eq!(of(&whole), Finding::ok(words));
        let state = |change: fn(&mut Abilities)| {
            let mut terminal = whole.clone();
            change(&mut terminal);
            of(&terminal).state
        };
        assert_eq!(state(|terminal| terminal.has_cursor = false), State::Warning);
        assert_eq!(state(|terminal| terminal.speaks_utf8 = false), State::Warning);
        assert_eq!(state(|terminal| terminal.size = Some((40, 10))), State::Warning);
        assert_eq!(state(|terminal| terminal.is_terminal = false), State::NotHere);
        assert_eq!(terminal(&on_hosts(&["a"]))[0].finding.state, State::NotHere);
    }
}
