//! The nodes of a farm: has those asked that are in doubt, and keeps jobs whose end depends on the answer.
//!
//! When a node is asked and what its silence means is decided in `farm::outages`; what becomes of a job, elsewhere.

use super::inquiry::{Inquiry, Reply};
use super::outcome::{Outcome, dead_node, node_that_was_away};
use super::process::{Ended, Work};
use super::tell;
use super::wish::Wish;
use crate::farm::nodes::FarmNode;
use crate::farm::outages::{Outages, PATIENCE, Standing, Verdict};
use crate::farm::queue::Queue;
use crate::runlog::farm::{FarmDirectory, JobHost, JobReport};
use crate::signals::Signal;
use std::time::{Duration, Instant};

/// The nodes of a farm.
pub(super) struct Nodes {
    outages: Outages,
    inquiries: Vec<Inquiry>,
    /// Jobs that have failed on nodes that have not answered since.
    doubtful: Vec<Outcome>,
    began: Instant,
}

impl Nodes {
    /// All of these answer.
    pub(super) fn new(nodes: &[FarmNode]) -> Self {
        Self {
            outages: Outages::none(nodes),
            inquiries: Vec::new(),
            doubtful: Vec::new(),
            began: Instant::now(),
        }
    }

    /// What is known of them.
    pub(super) fn outages(&self) -> &Outages {
        &self.outages
    }

    /// Keeps a job that has failed until the nodes on which it ran have answered, and has them asked. Gives it back where
    /// that is known or nobody can be asked.
    pub(super) fn keep(&mut self, outcome: Outcome, hosts: &[JobHost]) -> Option<Outcome> {
        let is_clear = outcome.lost_with.is_some() || !outcome.may_be_a_loss();
        if is_clear || !self.outages.can_ask(hosts) {
            return Some(outcome);
        }
        self.outages.doubt(hosts);
        self.doubtful.push(outcome);
        None
    }

    /// The jobs among those kept of which is known by now why they have failed. Where there `is_no_time` to wait for
    /// answers, all of them, and nobody knows why.
    pub(super) fn decided(&mut self, reports: &[JobReport], is_no_time: bool) -> Vec<Outcome> {
        let mut decided = Vec::new();
        for outcome in std::mem::take(&mut self.doubtful) {
            let hosts = &reports[outcome.job].hosts;
            match self.outages.verdict(hosts) {
                Verdict::Answers => {
                    let lost_with = match &hosts[..] {
                        [only] if outcome.was_silent => Some(node_that_was_away(&only.host)),
                        _ => None,
                    };
                    decided.push(Outcome { lost_with, ..outcome });
                }
                Verdict::Lost(host) => {
                    decided.push(Outcome { lost_with: Some(dead_node(&host)), ..outcome });
                }
                Verdict::Open if is_no_time => {
                    decided.push(Outcome { ended: Ended::Unseen, asked: 0, ..outcome });
                }
                Verdict::Open => self.doubtful.push(outcome),
            }
        }
        decided
    }

    /// Begins to ask whoever is to be asked, and takes the answers that have come.
    pub(super) fn look(&mut self, directory: &FarmDirectory) {
        let now = self.began.elapsed();
        for host in self.outages.to_ask(now) {
            match Inquiry::start(&host, directory) {
                Ok(inquiry) => self.inquiries.push(inquiry),
                Err(failure) => {
                    // Nothing is known of a node that nobody could ask.
                    tell(format_args!("{}", failure.sentence()));
                    self.outages.answered(&host, true, now);
                }
            }
        }
        let mut answers = Vec::new();
        self.inquiries.retain_mut(|inquiry| {
            let answer = inquiry.answer();
            let is_open = answer.is_none();
            answers.extend(answer);
            is_open
        });
        for Reply { host, problem } in answers {
            match (self.outages.answered(&host, problem.is_none(), now), problem) {
                (Some(Standing::Lost), Some(problem)) => tell(format_args!(
                    "node `{host}` does not answer: {problem}; nothing more is put there"
                )),
                (Some(_), None) => tell(format_args!("node `{host}` answers again")),
                _ => {}
            }
        }
    }

    /// Listens to the run of a job, once a second. Where it is silent its nodes are asked, and where one of them is
    /// lost what is left of it is ended.
    pub(super) fn listen_to(&mut self, work: &mut Work, name: &str, hosts: &[JobHost]) {
        if !self.outages.can_ask(hosts) {
            return;
        }
        if work.listen() {
            self.outages.doubt(hosts);
        }
        if work.is_silent()
            && let Verdict::Lost(host) = self.outages.verdict(hosts)
            && work.lose(&dead_node(&host))
        {
            tell(format_args!("`{name}` is silent with node `{host}`: ends what is left of it"));
        }
        if work.lost_with().is_some() {
            work.ask(Wish::END, Signal::Terminate);
        }
    }

    /// Whether the farm has waited for lost nodes for long enough, with nothing else left to do.
    pub(super) fn have_stayed_away(&mut self, queue: &Queue) -> bool {
        let is_waiting = queue.waits_for_nodes(&self.outages);
        let minutes = PATIENCE.as_secs() / 60;
        match self.outages.waited(is_waiting, self.began.elapsed()) {
            Some(Duration::ZERO) => {
                tell(format_args!(
                    "nothing that is left has room on the nodes that answer: waits up to {minutes} minutes for the others"
                ));
                false
            }
            Some(waited) if waited >= PATIENCE => {
                tell(format_args!("no lost node has answered for {minutes} minutes: ends"));
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_judged_when_all_its_nodes_have_answered_or_one_is_lost() {
        let node = |host: &str| FarmNode { host: Some(host.to_owned()), processes: 1, gpus: 0 };
        let mut nodes = Nodes::new(&["a", "b", "c"].map(node));
        let on = |hosts: &[&str]| {
            let host = |host: &&str| JobHost { host: (*host).to_owned(), processes: 1 };
            JobReport { hosts: hosts.iter().map(host).collect(), ..JobReport::waiting() }
        };
        let reports = [on(&["a"]), on(&["b"]), on(&["a", "b", "c"]), on(&["c"])];
        let outcome = |job, code, was_silent| Outcome {
            job,
            ended: Ended::With(code),
            asked: 0,
            was_silent,
            lost_with: None,
        };
        let keep = |nodes: &mut Nodes, job: usize, code| {
            nodes.keep(outcome(job, code, code == 137), &reports[job].hosts)
        };
        // On the node of the farm, and an end that no lost node makes.
        assert!(keep(&mut nodes, 0, 1).is_some() && keep(&mut nodes, 1, 0).is_some());
        for job in [1, 2, 3] {
            assert!(keep(&mut nodes, job, 76).is_none());
        }
        let told = |outcomes: Vec<Outcome>| {
            let told = outcomes.into_iter().map(|of| (of.job, of.code(), of.lost_with));
            told.collect::<Vec<_>>()
        };
        assert_eq!(told(nodes.decided(&reports, false)), []);
        nodes.outages.to_ask(Duration::ZERO);
        nodes.outages.answered("b", true, Duration::ZERO);
        assert_eq!(told(nodes.decided(&reports, false)), [(1, Some(76), None)]);
        nodes.outages.answered("c", false, Duration::ZERO);
        let lost = Some("node `c`, which does not answer".to_owned());
        let decided = told(nodes.decided(&reports, false));
        assert_eq!(decided, [(2, Some(76), lost.clone()), (3, Some(76), lost)]);
        // A node that is back already.
        assert!(keep(&mut nodes, 1, 137).is_none());
        nodes.outages.answered("b", true, Duration::ZERO);
        let away = Some("node `b`, which was away for a while".to_owned());
        assert_eq!(told(nodes.decided(&reports, false)), [(1, Some(137), away)]);
        // Where everything ends, nobody waits for an answer.
        assert!(keep(&mut nodes, 1, 76).is_none());
        assert_eq!(told(nodes.decided(&reports, true)), [(1, None, None)]);
        assert_eq!(told(nodes.decided(&reports, true)), []);
    }
}
