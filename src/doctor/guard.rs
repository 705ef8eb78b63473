//! Ends a process that waits in vain for other ranks, and names them: a rank that stands still answers nobody.
//!
//! Knows how long each part may take and who has come, and nothing of what is done in it.

use crate::error::{Context, Exit, Failure, Result};
use crate::signals::exit_at_once;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many ranks are named.
const NAMED: usize = 8;

/// What is done together.
struct Part {
    /// The end of the sentence "… did not answer while …".
    what: &'static str,
    limit: Duration,
}

/// What a process knows of who is late.
#[derive(Default)]
struct Roll {
    /// This rank, once it knows its number.
    own: usize,
    /// The host of each rank; none before they are known.
    hosts: Vec<String>,
    /// Who has still to come; none while this rank does something by itself.
    missing: Option<BTreeSet<usize>>,
}

/// Watches over this process until it is dropped.
#[derive(Debug)]
pub struct Guard {
    parts: Sender<Part>,
    roll: SharedRoll,
}

#[derive(Clone, Default)]
struct SharedRoll(Arc<Mutex<Roll>>);

impl SharedRoll {
    fn lock(&self) -> MutexGuard<'_, Roll> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SharedRoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedRoll")
    }
}

impl Guard {
    /// Watches over the first part, which all ranks do together: `what`, the end of "rank 1 did not answer while …", may
    /// take so long.
    pub fn over(what: &'static str, limit: Duration) -> Result<Self> {
        Self::start(Part { what, limit }, |failure| {
            // Where stderr is closed, the exit code says it.
            let _ = writeln!(std::io::stderr(), "{failure}");
            exit_at_once(Exit::Failed);
        })
    }

    fn start(first: Part, end: impl FnOnce(Failure) + Send + 'static) -> Result<Self> {
        let (parts, next) = mpsc::channel();
        // All others are waited for until something else is said.
        let roll = SharedRoll::default();
        roll.lock().missing = Some(BTreeSet::new());
        let seen = roll.clone();
        let watch = move || {
            let mut part = first;
            loop {
                match next.recv_timeout(part.limit) {
                    Ok(following) => part = following,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => return end(late(&part, &seen.lock())),
                }
            }
        };
        std::thread::Builder::new()
            .name("guard".into())
            .spawn(watch)
            .context(|| "cannot start the thread that watches over this process")?;
        Ok(Self { parts, roll })
    }

    /// The part before has ended in time; from now on this one is watched over.
    pub fn next(&self, what: &'static str, limit: Duration) {
        // The thread ends no sooner than this.
        let _ = self.parts.send(Part { what, limit });
    }

    /// This is rank `own`, on the one of `hosts` with its number, where these are known.
    pub fn introduce(&self, own: usize, hosts: &[String]) {
        let mut roll = self.roll.lock();
        (roll.own, roll.hosts) = (own, hosts.to_vec());
    }

    /// This rank does nothing before all of these have come.
    pub fn wait_for(&self, ranks: impl Iterator<Item = usize>) {
        self.roll.lock().missing = Some(ranks.collect());
    }

    /// One of those that are waited for has come.
    pub fn note_arrival(&self, rank: usize) {
        if let Some(missing) = &mut self.roll.lock().missing {
            missing.remove(&rank);
        }
    }

    /// Nobody is waited for: this rank does something by itself.
    pub fn go_on(&self) {
        self.roll.lock().missing = None;
    }
}

impl Roll {
    fn name(&self, rank: usize) -> String {
        match self.hosts.get(rank) {
            Some(host) => format!("rank {rank} on `{host}`"),
            None => format!("rank {rank}"),
        }
    }

    /// The ranks that are late, all or the first of them; none where nobody knows.
    fn culprits(&self) -> Option<String> {
        let Some(missing) = &self.missing else { return Some(self.name(self.own)) };
        let named: Vec<String> = missing.iter().take(NAMED).map(|rank| self.name(*rank)).collect();
        let others = match missing.len().saturating_sub(NAMED) {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        (!named.is_empty()).then(|| named.join(", ") + &others)
    }

    /// The host of the first rank that is late, where it is known.
    fn host(&self) -> Option<&String> {
        let missing = self.missing.as_ref();
        self.hosts.get(missing.map_or(Some(self.own), |ranks| ranks.first().copied())?)
    }
}

fn late(part: &Part, roll: &Roll) -> Failure {
    let Part { what, limit } = part;
    let who = roll.culprits().unwrap_or_else(|| "some rank".to_owned());
    let failure =
        Failure::new(format!("{who} did not answer within {} s while {what}", limit.as_secs()));
    match roll.host() {
        Some(host) => failure
            .hint(format!("`mpirun -n 1 --host {host} scrimp doctor` looks at that host alone"))
            .hint("or start it without that host"),
        None => failure.hint(
            "start it on fewer hosts, for example `mpirun -n 1 --host NAME scrimp doctor`, to find the one that does not answer",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: &str = "clocks are compared";

    /// What a guard says whose time is over at once, after `before` was done with it.
    fn said(before: impl FnOnce(&Guard)) -> Failure {
        let (tell, told) = mpsc::channel();
        let first = Part { what: "all begin", limit: Duration::from_hours(1) };
        let guard = Guard::start(first, move |failure| tell.send(failure).unwrap()).unwrap();
        before(&guard);
        guard.next(WHAT, Duration::ZERO);
        told.recv().unwrap()
    }

    fn hosts() -> Vec<String> {
        ["a", "a", "b", "b"].map(str::to_owned).to_vec()
    }

    #[test]
    fn those_who_have_not_come_are_named_with_their_hosts() {
        let failure = said(|guard| {
            guard.introduce(0, &hosts());
            guard.wait_for(1..4);
            guard.note_arrival(2);
        });
        insta::assert_snapshot!(failure, @r"
        error: rank 1 on `a`, rank 3 on `b` did not answer within 0 s while clocks are compared

        hint: `mpirun -n 1 --host a scrimp doctor` looks at that host alone
        hint: or start it without that host
        ");
        let failure = said(|guard| {
            guard.introduce(0, &[]);
            guard.wait_for(1..12);
        });
        let message = failure.message();
        assert!(message.starts_with("rank 1, rank 2, "), "{message}");
        assert!(message.contains("rank 8 and 3 more did not answer"), "{message}");
    }

    #[test]
    fn a_rank_that_keeps_the_others_waiting_names_itself() {
        let failure = said(|guard| {
            guard.introduce(3, &hosts());
            guard.wait_for(0..1);
            guard.note_arrival(0);
            guard.go_on();
        });
        assert_eq!(
            failure.message(),
            "rank 3 on `b` did not answer within 0 s while clocks are compared"
        );
        assert!(failure.hints()[0].contains("--host b"), "{failure}");
    }

    #[test]
    fn nobody_is_named_whom_nobody_knows() {
        for failure in [said(|_| ()), said(|guard| guard.wait_for(0..0))] {
            assert_eq!(
                failure.message(),
                "some rank did not answer within 0 s while clocks are compared"
            );
            assert!(failure.hints()[0].contains("--host NAME"), "{failure}");
        }
    }

    #[test]
    fn parts_that_end_in_time_end_nobody() {
        let guard = Guard::over("all begin", Duration::from_hours(1)).unwrap();
        guard.next("all answer", Duration::from_hours(1));
    }
}
