//! Names of hosts: looking them up, and reading lists of them.
//!
//! All are looked up at once, since a dead name service takes its time for each.

use crate::doctor::answer::{Question, ask};
use crate::doctor::observation::Name;
use crate::error::{Context, Failure, Result};
use crate::files;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long all names together may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How many names a host looks up: a name service of a large cluster bears no more from all hosts at once.
pub const MOST_NAMES: usize = 64;

/// Looks all of them up.
pub fn look_up(names: Vec<String>) -> Vec<Name> {
    let asked: Vec<_> = names.into_iter().map(|name| (question(name.clone()), name)).collect();
    asked
        .into_iter()
        .map(|(question, name)| {
            let start = Instant::now();
            let answer = question.within(LIMIT);
            let seconds = answer.got().map_or(start.elapsed(), |(_, time)| *time).as_secs_f64();
            Name { name, address: answer.map(|(address, _)| address), seconds }
        })
        .collect()
}

fn question(name: String) -> Question<(String, Duration)> {
    ask(move || {
        let start = Instant::now();
        let found = (name.as_str(), 0).to_socket_addrs().map_err(|error| {
            let error = error.to_string();
            // Behind what the library says of all its failures.
            let why = error.rsplit(": ").next().unwrap_or(&error);
            Failure::new(format!("`{name}` has no address ({why})"))
        });
        let address = found?.next().map(|address| address.ip().to_string());
        let none = || Failure::new(format!("`{name}` has no address"));
        Ok((address.ok_or_else(none)?, start.elapsed()))
    })
}

/// The names that host number `own` looks up, of all different ones: all, or those that follow it in a circle.
pub fn others(hosts: &[String], own: usize) -> Vec<String> {
    let count = hosts.len().min(MOST_NAMES);
    (0..count).map(|step| hosts[(own + step) % hosts.len()].clone()).collect()
}

/// The hosts of a list for `mpirun` or of a batch system, each once, in their order.
pub fn listed(path: &Path) -> Result<Vec<String>> {
    let text = files::read_text(path, files::SMALL_BYTES)
        .context(|| format!("cannot read the list of hosts `{}`", path.display()))?;
    let hosts = in_list(&text);
    if hosts.is_empty() {
        let message = format!("`{}` names no host, expected one a line", path.display());
        return Err(Failure::usage(message).hint("write lines as `node01 slots=8`"));
    }
    Ok(hosts)
}

fn in_list(text: &str) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(word) = line.split_whitespace().next() else { continue };
        // `user@host`, and `host:slots` of MPICH.
        let host = word.rsplit_once('@').map_or(word, |(_, host)| host);
        let host = host.split(':').next().unwrap_or(host).to_owned();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::answer::Answer;

    #[test]
    fn names_are_looked_up_and_those_without_address_are_told() {
        // A bare system knows no name at all, not even `localhost`.
        let found = look_up(vec!["127.0.0.1".into(), "no-such-host.invalid".into()]);
        assert!(matches!(&found[0].address, Answer::Got(_)), "{found:?}");
        // Where there is no name service at all it may be late.
        assert!(!matches!(&found[1].address, Answer::Got(_)), "{found:?}");
    }

    #[test]
    fn lists_of_all_launchers_are_read() {
        let list = "# ours\nnode01 slots=8\nnode02:4\n\nanna@node03 # hers\nnode01\n";
        assert_eq!(in_list(list), ["node01", "node02", "node03"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# none\n").unwrap();
        assert_eq!(listed(file.path()).unwrap_err().exit() as i32, 2);
        assert!(listed(Path::new("/no such list")).is_err());
    }

    #[test]
    fn of_many_hosts_each_looks_up_those_that_follow_it() {
        let hosts: Vec<String> = (0..100).map(|number| format!("n{number}")).collect();
        let own = others(&hosts, 90);
        assert_eq!((own.len(), &*own[0], &*own[10], &*own[63]), (64, "n90", "n0", "n53"));
        assert_eq!(others(&hosts[..2], 1), ["n1", "n0"]);
    }
}
