//! Which nodes of a farm answer: when each is asked, and what follows from its answers and from runs that fall silent.
//!
//! A node is asked where a run on it has failed or says nothing more, and nothing is put there until it has answered.
//! One that does not answer is lost, and is asked again at growing intervals. The first node is that of the farm itself
//! and is never asked. How a node is asked is not known here, and there is no clock: moments come in as times since the
//! farm began.

use super::nodes::FarmNode;
use crate::runlog::farm::JobHost;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// So many looks, a second apart, without a change of its sign of life make a run silent. It changes every 3 s.
const SILENT_LOOKS: u32 = 30;
/// Before a lost node is asked for the first time; each time twice as long passes.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Between two questions to a lost node at most.
const LONGEST_PAUSE: Duration = Duration::from_mins(2);
/// So long a farm waits for lost nodes in which nothing else is left to do: as long as machines take to start again.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// What is known of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers, as far as anybody knows.
    Answers,
    /// It is being asked, or will be next.
    InDoubt,
    /// It does not answer.
    Lost,
}

/// What is known of the nodes of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All of them answer.
    Answers,
    /// None is lost, and one at least is being asked.
    Open,
    /// The first of them that does not answer.
    Lost(String),
}

/// What is known of all nodes of a farm.
#[derive(Debug, Clone, Default)]
pub struct Outages {
    /// By what `mpirun` calls them; all but that of the farm itself.
    nodes: BTreeMap<String, AskedNode>,
    /// Since when nothing else is left to do than to wait for lost nodes.
    waiting_since: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct AskedNode {
    standing: Standing,
    /// Whether an answer is due.
    is_asked: bool,
    /// When it is asked again, where it is lost.
    ask_at: Duration,
    /// How long passes then until the next time.
    pause: Duration,
}

impl Outages {
    /// All of these nodes answer.
    pub fn none(nodes: &[FarmNode]) -> Self {
        let node = AskedNode {
            standing: Standing::Answers,
            is_asked: false,
            ask_at: Duration::ZERO,
            pause: FIRST_PAUSE,
        };
        let hosts = nodes.iter().skip(1).filter_map(|node| node.host.clone());
        Self { nodes: hosts.map(|host| (host, node)).collect(), waiting_since: None }
    }

    /// What is known of a node, by its name. The only node of a farm has none.
    pub fn standing(&self, host: Option<&str>) -> Standing {
        let node = host.and_then(|host| self.nodes.get(host));
        node.map_or(Standing::Answers, |node| node.standing)
    }

    /// Whether one of these nodes can be asked.
    pub fn can_ask(&self, hosts: &[JobHost]) -> bool {
        hosts.iter().any(|host| self.nodes.contains_key(&host.host))
    }

    /// Has these nodes asked, but for those that are lost already.
    pub fn doubt(&mut self, hosts: &[JobHost]) {
        for JobHost { host, .. } in hosts {
            if let Some(node) = self.nodes.get_mut(host)
                && node.standing == Standing::Answers
            {
                node.standing = Standing::InDoubt;
            }
        }
    }

    /// The nodes that are to be asked now, each once: an answer is due from here on.
    pub fn to_ask(&mut self, now: Duration) -> Vec<String> {
        let is_due = |node: &AskedNode| match node.standing {
            _ if node.is_asked => false,
            Standing::Answers => false,
            Standing::InDoubt => true,
            Standing::Lost => node.ask_at <= now,
        };
        let due = self.nodes.iter_mut().filter(|(_, node)| is_due(node));
        let asked = due.map(|(host, node)| {
            node.is_asked = true;
            host.clone()
        });
        asked.collect()
    }

    /// Notes whether a node has answered; gives what is known of it where that is another thing than before, a doubt not
    /// counted.
    pub fn answered(&mut self, host: &str, has_answered: bool, now: Duration) -> Option<Standing> {
        let node = self.nodes.get_mut(host)?;
        let was_lost = node.standing == Standing::Lost;
        node.is_asked = false;
        if has_answered {
            (node.standing, node.pause) = (Standing::Answers, FIRST_PAUSE);
        } else {
            (node.standing, node.ask_at) = (Standing::Lost, now + node.pause);
            node.pause = (2 * node.pause).min(LONGEST_PAUSE);
        }
        (was_lost == has_answered).then_some(node.standing)
    }

    /// What is known of the nodes of a job.
    pub fn verdict(&self, hosts: &[JobHost]) -> Verdict {
        let is = |host: &&JobHost, standing| self.standing(Some(&host.host)) == standing;
        match hosts.iter().find(|host| is(host, Standing::Lost)) {
            Some(lost) => Verdict::Lost(lost.host.clone()),
            None if hosts.iter().any(|host| is(&host, Standing::InDoubt)) => Verdict::Open,
            None => Verdict::Answers,
        }
    }

    /// Whether a node is being asked of which nothing else is known.
    pub fn has_doubts(&self) -> bool {
        self.nodes.values().any(|node| node.standing == Standing::InDoubt)
    }

    /// How long the farm has waited for lost nodes, where it `is_waiting` for nothing else; [`PATIENCE`] is enough.
    pub fn waited(&mut self, is_waiting: bool, now: Duration) -> Option<Duration> {
        if !is_waiting {
            self.waiting_since = None;
            return None;
        }
        Some(now.saturating_sub(*self.waiting_since.get_or_insert(now)))
    }
}

/// Looks at the sign of life of a run, one a second. Ages are counted in looks, so that neither clocks that differ nor a
/// file system that keeps the one who looks waiting make a run look dead.
#[derive(Debug, Clone)]
pub struct Silence {
    /// When the sign was changed last, by the clock of whoever keeps it.
    sign: Option<SystemTime>,
    /// Looks since it was seen to change.
    looks: u32,
    /// After so many looks the nodes of the run are asked; each time after twice as many.
    ask_after: u32,
    /// Whether it was seen to change.
    has_spoken: bool,
}

impl Default for Silence {
    fn default() -> Self {
        Self { sign: None, looks: 0, ask_after: SILENT_LOOKS, has_spoken: false }
    }
}

impl Silence {
    /// Notes what a look has seen; whether the nodes of the run are to be asked now.
    pub fn look(&mut self, sign: Option<SystemTime>) -> bool {
        if sign != self.sign {
            // What the first look finds may be of an earlier start.
            *self = Self { sign, has_spoken: self.looks > 0, ..Self::default() };
        }
        self.looks += 1;
        let is_due = self.looks == self.ask_after;
        if is_due {
            self.ask_after *= 2;
        }
        is_due
    }

    /// Whether the run has said nothing for long.
    pub fn is_long(&self) -> bool {
        self.looks >= SILENT_LOOKS
    }

    /// Whether the run was at work and has said nothing since for long.
    pub fn has_begun(&self) -> bool {
        self.has_spoken && self.is_long()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::farm::Slots;
    use std::time::UNIX_EPOCH;

    fn outages() -> Outages {
        let node = |host: &str| FarmNode { host: Some(host.to_owned()), processes: 1, gpus: 0 };
        Outages::none(&["a", "b", "c"].map(node))
    }

    fn hosts(names: &[&str]) -> Vec<JobHost> {
        let host = |name: &&str| JobHost { host: (*name).to_owned(), processes: 1 };
        names.iter().map(host).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn nodes_are_asked_once_where_there_is_doubt_and_that_of_the_farm_never() {
        let mut outages = outages();
        assert!(outages.to_ask(at(0)).is_empty());
        let all = hosts(&["a", "b", "c", "unknown"]);
        outages.doubt(&all);
        outages.doubt(&all);
        assert_eq!(outages.to_ask(at(1)), ["b", "c"]);
        assert!(outages.to_ask(at(100)).is_empty());
        assert_eq!(outages.verdict(&all), Verdict::Open);
        assert_eq!(outages.verdict(&hosts(&["a", "unknown"])), Verdict::Answers);
        assert_eq!(outages.answered("c", true, at(2)), None);
        assert_eq!(outages.verdict(&all), Verdict::Open);
        assert_eq!(outages.answered("b", true, at(2)), None);
        assert_eq!((outages.verdict(&all), outages.has_doubts()), (Verdict::Answers, false));
        assert_eq!(outages.answered("unknown", false, at(2)), None);
        assert!(!outages.can_ask(&hosts(&["a", "unknown"])) && outages.can_ask(&all));
        let alone = Outages::none(&[FarmNode::alone(Slots { processes: 1, gpus: 0 })]);
        assert_eq!(alone.standing(None), Standing::Answers);
    }

    #[test]
    fn a_lost_node_is_asked_again_at_growing_intervals_until_it_answers() {
        let mut outages = outages();
        let both = hosts(&["b", "c"]);
        outages.doubt(&hosts(&["c"]));
        outages.to_ask(at(0));
        let mut now = at(60);
        assert_eq!(outages.answered("c", false, now), Some(Standing::Lost));
        assert_eq!(outages.verdict(&both), Verdict::Lost("c".to_owned()));
        // A job that ends there now has its verdict at once.
        outages.doubt(&both);
        assert_eq!(outages.to_ask(now), ["b"]);
        assert_eq!(outages.verdict(&both), Verdict::Lost("c".to_owned()));
        for pause in [30, 60, 120, 120] {
            assert!(outages.to_ask(now + at(pause - 1)).is_empty(), "{pause}");
            now += at(pause);
            assert_eq!(outages.to_ask(now), ["c"], "{pause}");
            assert_eq!(outages.answered("c", false, now), None, "{pause}");
        }
        assert_eq!(outages.to_ask(now + at(120)), ["c"]);
        assert_eq!(outages.answered("c", true, now), Some(Standing::Answers));
        assert!(outages.to_ask(now + at(9999)).is_empty());
        // The next time it begins anew.
        outages.doubt(&both);
        outages.to_ask(now);
        outages.answered("c", false, now);
        assert_eq!(outages.to_ask(now + at(30)), ["c"]);
    }

    #[test]
    fn patience_begins_anew_with_whatever_else_there_is_to_do() {
        let mut outages = outages();
        assert_eq!(outages.waited(false, at(5)), None);
        assert_eq!(outages.waited(true, at(10)), Some(at(0)));
        assert_eq!(outages.waited(true, at(610)), Some(PATIENCE));
        assert_eq!(outages.waited(false, at(611)), None);
        assert_eq!(outages.waited(true, at(612)), Some(at(0)));
    }

    #[test]
    fn a_run_whose_sign_does_not_change_is_silent() {
        let sign = |number: u64| Some(UNIX_EPOCH + at(number));
        let due = |silence: &mut Silence, signs: &dyn Fn(u32) -> Option<SystemTime>| {
            (1..=300u32).filter(|&look| silence.look(signs(look))).collect::<Vec<_>>()
        };
        // As on a network file system, which shows changes late.
        let mut talks = Silence::default();
        assert!(due(&mut talks, &|look| sign(u64::from(look) / 20)).is_empty());
        assert!(!talks.is_long());
        // One that has left none yet, one that has fallen silent, and one that has begun again.
        let mut silent = Silence::default();
        assert_eq!(due(&mut silent, &|_| None), [30, 60, 120, 240]);
        assert!(silent.is_long() && !silent.has_begun());
        assert_eq!(due(&mut silent, &|_| sign(1)), [30, 60, 120, 240]);
        assert!(silent.has_begun());
        assert!(!silent.look(sign(2)) && !silent.is_long());
        // The sign of an earlier start is none of this one.
        let mut starting = Silence::default();
        assert_eq!(due(&mut starting, &|_| sign(1)), [30, 60, 120, 240]);
        assert!(starting.is_long() && !starting.has_begun());
    }
}
