//! Which job of a farm starts when: a function of the list of jobs, of the slots, of which nodes answer, and of how jobs
//! ended.
//!
//! Jobs start in the order of the list, each as soon as all that it needs is done and there is room for it; one that
//! waits for room keeps none behind it from starting. So where all nodes answer the order of starts depends on the order
//! of ends alone. There is no clock here, and there are no processes.

use super::free::FreeSlots;
use super::nodes::{FarmNode, Seats};
use super::outages::Outages;
use crate::error::Exit;
use crate::runlog::farm::{FarmJob, JobKind, JobList, JobState};
use std::collections::BTreeMap;

/// A job that is lost so often with its nodes, and has saved nothing new in between, takes them down itself.
const FRUITLESS_LOSSES: usize = 3;

/// The jobs of a farm on their way.
#[derive(Debug)]
pub struct Queue {
    jobs: Vec<FarmJob>,
    /// The jobs that each needs, by their numbers.
    needs: Vec<Vec<usize>>,
    states: Vec<JobState>,
    /// How often each command may still be started again after a failure.
    restarts_left: Vec<usize>,
    /// Of each job that was lost with a node.
    losses: BTreeMap<usize, Losses>,
    /// Where each job sits that runs.
    seats: Vec<Seats>,
    free: FreeSlots,
    is_closed: bool,
}

/// How a job was lost with nodes.
#[derive(Debug)]
struct Losses {
    /// The step of its newest checkpoint then, if it had one.
    newest: Option<u64>,
    /// How often since it has saved that.
    count: usize,
}

/// A job that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its number in the list.
    pub job: usize,
    /// Where.
    pub seats: Seats,
}

/// How a job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// It is done.
    Done,
    /// It has failed; running it again may help, or, for what is certain to fail again, not.
    Failed {
        /// Whether the command line or the configuration is wrong.
        is_final: bool,
    },
    /// It was stopped, and goes on when the farm is started again.
    Stopped,
    /// With a node that does not answer, which is no failure of its own: it is started again.
    Lost {
        /// The step of its newest checkpoint, if it has one.
        newest: Option<u64>,
    },
    /// Nobody knows: it is started again.
    Unknown,
}

impl Queue {
    /// The jobs of `list`, which is sound, on these nodes, where they were left: those that run have been found alive,
    /// and `restarts` says how often each may be started again.
    pub fn new(
        list: &JobList,
        nodes: &[FarmNode],
        states: Vec<JobState>,
        restarts: Vec<usize>,
    ) -> Self {
        let numbers: BTreeMap<&str, usize> =
            list.jobs.iter().enumerate().map(|(number, job)| (job.name.as_str(), number)).collect();
        let needs = |job: &FarmJob| {
            job.needs.iter().filter_map(|need| numbers.get(need.as_str()).copied()).collect()
        };
        let mut queue = Self {
            needs: list.jobs.iter().map(needs).collect(),
            jobs: list.jobs.clone(),
            seats: vec![Seats::default(); states.len()],
            states,
            restarts_left: restarts,
            losses: BTreeMap::new(),
            free: FreeSlots::all(nodes),
            is_closed: false,
        };
        for job in 0..queue.jobs.len() {
            match queue.states[job] {
                JobState::Stopped | JobState::Blocked => queue.states[job] = JobState::Waiting,
                JobState::Waiting | JobState::Running | JobState::Done | JobState::Failed => {}
            }
        }
        queue.block();
        queue
    }

    /// Notes that a job that was found alive sits there.
    pub fn occupy(&mut self, job: usize, seats: Seats) {
        self.free.occupy(&self.jobs[job], &seats);
        self.seats[job] = seats;
    }

    /// The state of a job.
    pub fn state(&self, job: usize) -> JobState {
        self.states[job]
    }

    /// The states of all jobs, in the order of the list.
    pub fn states(&self) -> &[JobState] {
        &self.states
    }

    /// The jobs that are to be started now, which run from here on.
    pub fn starts(&mut self, outages: &Outages) -> Vec<Start> {
        let mut starts = Vec::new();
        for job in 0..self.jobs.len() {
            if self.is_closed || !self.is_ready(job) {
                continue;
            }
            if let Some(seats) = self.free.take(&self.jobs[job], outages) {
                self.states[job] = JobState::Running;
                self.seats[job].clone_from(&seats);
                starts.push(Start { job, seats });
            }
        }
        starts
    }

    fn is_ready(&self, job: usize) -> bool {
        let is_done = |&need: &usize| self.states[need] == JobState::Done;
        self.states[job] == JobState::Waiting && self.needs[job].iter().all(is_done)
    }

    /// Notes how a job has ended; gives the jobs that cannot be started any more because of it.
    pub fn ended(&mut self, job: usize, end: JobEnd) -> Vec<usize> {
        let seats = std::mem::take(&mut self.seats[job]);
        self.free.give_back(&self.jobs[job], &seats);
        self.states[job] = match end {
            JobEnd::Done => JobState::Done,
            JobEnd::Stopped => JobState::Stopped,
            JobEnd::Lost { newest } if self.is_lost_in_vain(job, newest) => JobState::Failed,
            JobEnd::Lost { .. } | JobEnd::Unknown => JobState::Waiting,
            JobEnd::Failed { is_final } if !is_final && self.is_tried_again(job) => {
                self.restarts_left[job] -= 1;
                JobState::Waiting
            }
            JobEnd::Failed { .. } => JobState::Failed,
        };
        self.block()
    }

    /// `scrimp launch` starts runs again by itself.
    fn is_tried_again(&self, job: usize) -> bool {
        self.jobs[job].kind == JobKind::Command && self.restarts_left[job] > 0 && !self.is_closed
    }

    /// Notes that a job was lost with a node; whether starting it again would only lose more of them.
    fn is_lost_in_vain(&mut self, job: usize, newest: Option<u64>) -> bool {
        let losses = self.losses.entry(job).or_insert(Losses { newest, count: 0 });
        if newest > losses.newest {
            *losses = Losses { newest, count: 0 };
        }
        losses.count += 1;
        losses.count >= FRUITLESS_LOSSES
    }

    /// Blocks what needs a job that has failed, and what needs that; gives those that were not blocked before.
    fn block(&mut self) -> Vec<usize> {
        let mut blocked = Vec::new();
        loop {
            let is_lost =
                |&need: &usize| matches!(self.states[need], JobState::Failed | JobState::Blocked);
            let found = (0..self.jobs.len()).find(|&job| {
                self.states[job] == JobState::Waiting && self.needs[job].iter().any(is_lost)
            });
            let Some(job) = found else { return blocked };
            self.states[job] = JobState::Blocked;
            blocked.push(job);
        }
    }

    /// From now on nothing is started.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// The first job that `job` needs and that has failed or is blocked.
    pub fn blocked_by(&self, job: usize) -> Option<&str> {
        let is_lost = |state| matches!(state, JobState::Failed | JobState::Blocked);
        let need = self.needs[job].iter().find(|&&need| is_lost(self.states[need]))?;
        Some(&self.jobs[*need].name)
    }

    /// Whether nothing runs and nothing can be started.
    pub fn is_over(&self) -> bool {
        let is_running = self.states.contains(&JobState::Running);
        let can_start = !self.is_closed && (0..self.jobs.len()).any(|job| self.is_ready(job));
        !is_running && !can_start
    }

    /// Whether nothing else is left to do than to wait for nodes that are lost.
    pub fn waits_for_nodes(&self, outages: &Outages) -> bool {
        let has_room = |&job: &usize| self.free.choose(&self.jobs[job], outages).is_some();
        let mut ready = (0..self.jobs.len()).filter(|&job| self.is_ready(job)).peekable();
        let is_idle = !self.is_closed && !self.states.contains(&JobState::Running);
        is_idle
            && !outages.has_doubts()
            && ready.peek().is_some()
            && !ready.any(|job| has_room(&job))
    }

    /// How the farm has ended: 75 where the same command goes on, 1 where jobs have failed and nothing else is left.
    pub fn exit(&self) -> Exit {
        let has = |state| self.states.contains(&state);
        if has(JobState::Stopped) || has(JobState::Waiting) || has(JobState::Running) {
            Exit::Stopped
        } else if has(JobState::Failed) {
            Exit::Failed
        } else {
            Exit::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outages::{PATIENCE, Silence, Verdict};
    use super::*;
    use crate::runlog::farm::{FORMAT, JobHost, Slots};
    use std::fmt::Write as _;
    use std::time::Duration;

    fn job(name: &str, ranks: usize, gpus: f64, needs: &[&str]) -> FarmJob {
        FarmJob {
            name: name.to_owned(),
            row: name.to_owned(),
            kind: JobKind::Train,
            fold: None,
            seed: None,
            run: Some(format!("jobs/{name}")),
            needs: needs.iter().map(ToString::to_string).collect(),
            ranks,
            gpus,
            total_steps: None,
        }
    }

    fn list(slots: (usize, usize), jobs: Vec<FarmJob>) -> JobList {
        let slots = Slots { processes: slots.0, gpus: slots.1 };
        JobList { format: FORMAT, name: "test".to_owned(), slots, jobs }
    }

    fn fresh(list: &JobList) -> Queue {
        on(list, &[FarmNode::alone(list.slots)])
    }

    fn on(list: &JobList, nodes: &[FarmNode]) -> Queue {
        let count = list.jobs.len();
        Queue::new(list, nodes, vec![JobState::Waiting; count], vec![0; count])
    }

    /// `HOST: processes, gpus`.
    fn nodes(nodes: &[(&str, usize, usize)]) -> Vec<FarmNode> {
        let node = |&(host, processes, gpus): &(&str, usize, usize)| FarmNode {
            host: Some(host.to_owned()),
            processes,
            gpus,
        };
        nodes.iter().map(node).collect()
    }

    /// ` on a:2,b:1 [0, 1]`, as far as there is anything to say.
    fn place(Seats { hosts, gpus }: &Seats) -> String {
        let mut words: Vec<String> =
            hosts.iter().map(|JobHost { host, processes }| format!("{host}:{processes}")).collect();
        words.extend((!gpus.is_empty()).then(|| format!("{gpus:?}")));
        if words.is_empty() { String::new() } else { format!(" on {}", words.join(" ")) }
    }

    /// Plays a farm on a virtual clock: each job takes as long as it is told and ends as it is told. One line for each
    /// start and each end.
    fn play(queue: &mut Queue, list: &JobList, takes: impl Fn(&str) -> (u64, JobEnd)) -> String {
        let (mut now, mut running, mut told) = (0, Vec::new(), String::new());
        while !queue.is_over() {
            for Start { job, seats } in queue.starts(&Outages::default()) {
                let name = &list.jobs[job].name;
                let (time, end) = takes(name);
                writeln!(told, "{now}: {name} starts{}", place(&seats)).unwrap();
                running.push((now + time, job, end));
            }
            running.sort_by_key(|&(at, job, _)| (at, job));
            let (at, job, end) = running.remove(0);
            now = at;
            writeln!(told, "{now}: {} {end:?}", list.jobs[job].name).unwrap();
            for blocked in queue.ended(job, end) {
                let by = queue.blocked_by(blocked).unwrap();
                writeln!(told, "{now}: {} is blocked by {by}", list.jobs[blocked].name).unwrap();
            }
        }
        told
    }

    /// A run of a farm that is played, on nodes that can lose power.
    struct Played {
        hosts: Vec<JobHost>,
        /// Seconds until it is done, or until those of its processes that are left have noticed what they lost.
        left: u64,
        is_struck: bool,
        silence: Silence,
    }

    /// Plays a farm second by second: each run takes as long as it is told, and the node `b` is without power in some of
    /// these seconds. Who is asked there is heard after a second, or not at all, which takes a minute to notice. One
    /// line for each start, end and turn.
    fn play_without_power(
        list: &JobList,
        nodes: &[FarmNode],
        off: &[std::ops::Range<u64>],
        takes: impl Fn(&str) -> u64,
    ) -> (Queue, String) {
        let (mut queue, mut outages, mut told) =
            (on(list, nodes), Outages::none(nodes), String::new());
        let (mut running, mut asked) = (BTreeMap::<usize, Played>::new(), Vec::new());
        for now in 0..10_000 {
            let is_off = |host: &str| host == "b" && off.iter().any(|off| off.contains(&now));
            let clock = Duration::from_secs(now);
            for host in outages.to_ask(clock) {
                let answer = !is_off(&host);
                asked.push((now + if answer { 1 } else { 60 }, host, answer));
            }
            for (_, host, answer) in asked.extract_if(.., |(at, ..)| *at == now) {
                if let Some(standing) = outages.answered(&host, answer, clock) {
                    writeln!(told, "{now}: {host} {standing:?}").unwrap();
                }
            }
            let mut ends = Vec::new();
            for (&job, run) in &mut running {
                let struck = run.hosts.iter().filter(|host| is_off(&host.host)).count();
                if struck > 0 && !run.is_struck {
                    run.is_struck = true;
                    run.left = if struck < run.hosts.len() { now + 30 } else { u64::MAX };
                }
                let beat = (!run.is_struck).then_some(std::time::UNIX_EPOCH + clock);
                let is_over = run.left <= now;
                if run.silence.look(beat) || (is_over && run.is_struck) {
                    outages.doubt(&run.hosts);
                }
                if is_over && !run.is_struck {
                    ends.push((job, JobEnd::Done));
                } else if (is_over || run.silence.is_long())
                    && let Verdict::Lost(_) = outages.verdict(&run.hosts)
                {
                    ends.push((job, JobEnd::Lost { newest: Some(now) }));
                }
            }
            for (job, end) in ends {
                running.remove(&job);
                let said = if end == JobEnd::Done { "done" } else { "lost" };
                writeln!(told, "{now}: {} {said}", list.jobs[job].name).unwrap();
                queue.ended(job, end);
            }
            for Start { job, seats } in queue.starts(&outages) {
                let name = &list.jobs[job].name;
                writeln!(told, "{now}: {name} starts{}", place(&seats)).unwrap();
                let (hosts, left) = (seats.hosts, now + takes(name));
                let silence = Silence::default();
                running.insert(job, Played { hosts, left, is_struck: false, silence });
            }
            match outages.waited(queue.waits_for_nodes(&outages), clock) {
                Some(Duration::ZERO) => writeln!(told, "{now}: waits").unwrap(),
                Some(PATIENCE) => queue.close(),
                _ => {}
            }
            if queue.is_over() {
                writeln!(told, "{now}: over").unwrap();
                break;
            }
        }
        (queue, told)
    }

    #[test]
    fn what_a_lost_node_held_goes_elsewhere_and_a_node_that_is_back_gets_work_again() {
        let mut jobs: Vec<FarmJob> =
            ["s1", "s2", "s3", "s4"].map(|name| job(name, 1, 0.0, &[])).into_iter().collect();
        jobs.push(job("wide", 3, 0.0, &[]));
        let list = list((4, 0), jobs);
        let nodes = nodes(&[("a", 2, 0), ("b", 2, 0)]);
        let off = [50..400, 500..700];
        let (queue, told) =
            play_without_power(&list, &nodes, &off, |name| if name == "wide" { 60 } else { 120 });
        insta::assert_snapshot!(told, @r"
        0: s1 starts on a:1
        0: s2 starts on a:1
        0: s3 starts on b:1
        0: s4 starts on b:1
        120: s1 done
        120: s2 done
        140: b Lost
        140: s3 lost
        140: s4 lost
        140: s3 starts on a:1
        140: s4 starts on a:1
        260: s3 done
        260: s4 done
        260: waits
        471: b Answers
        471: wide starts on a:2 b:1
        590: b Lost
        590: wide lost
        590: waits
        741: b Answers
        741: wide starts on a:2 b:1
        801: wide done
        801: over
        ");
        assert_eq!(queue.exit(), Exit::Done);
    }

    #[test]
    fn a_farm_with_nothing_left_but_what_lost_nodes_would_hold_ends_to_go_on() {
        let jobs =
            vec![job("small", 1, 0.0, &[]), job("wide", 3, 0.0, &[]), job("c", 1, 0.0, &["wide"])];
        let list = list((4, 0), jobs);
        let nodes = nodes(&[("a", 2, 0), ("b", 2, 0)]);
        let for_good = std::slice::from_ref(&(40..u64::MAX));
        let (queue, told) =
            play_without_power(
                &list,
                &nodes,
                for_good,
                |name| {
                    if name == "small" { 10 } else { 60 }
                },
            );
        insta::assert_snapshot!(told, @r"
        0: small starts on a:1
        10: small done
        10: wide starts on a:2 b:1
        130: b Lost
        130: wide lost
        130: waits
        730: over
        ");
        assert_eq!(queue.exit(), Exit::Stopped);
        assert_eq!(queue.states(), [JobState::Done, JobState::Waiting, JobState::Waiting]);
    }

    #[test]
    fn a_job_goes_where_the_nodes_that_are_left_have_room_and_none_is_put_where_there_is_doubt() {
        let jobs = vec![job("big", 4, 0.0, &[]), job("small", 1, 0.0, &[])];
        let list = list((8, 0), jobs);
        let all = nodes(&[("a", 2, 0), ("b", 4, 0), ("c", 2, 0)]);
        let (mut queue, mut outages) = (on(&list, &all), Outages::none(&all));
        let host = |host: &str| [JobHost { host: host.to_owned(), processes: 1 }];
        outages.doubt(&host("b"));
        let places = |starts: Vec<Start>| {
            let place = |start: &Start| list.jobs[start.job].name.clone() + &place(&start.seats);
            starts.iter().map(place).collect::<Vec<_>>().join(", ")
        };
        // The node that could hold `big` is asked first: it is not spread over others for that.
        assert_eq!(places(queue.starts(&outages)), "small on a:1");
        queue.ended(1, JobEnd::Done);
        assert!(!queue.waits_for_nodes(&outages));
        outages.to_ask(Duration::ZERO);
        outages.answered("b", false, Duration::ZERO);
        assert_eq!(places(queue.starts(&outages)), "big on a:2 c:2");
    }

    #[test]
    fn a_job_that_takes_its_nodes_down_fails_and_one_that_gets_on_does_not() {
        let list = list((1, 0), vec![job("job", 1, 0.0, &[])]);
        for (steps, fails_at) in [([None; 6], 3), ([Some(5); 6], 3)] {
            let mut queue = fresh(&list);
            for (number, newest) in steps.into_iter().enumerate().take(fails_at) {
                assert_eq!(queue.starts(&Outages::default()).len(), 1, "{steps:?}, {number}");
                queue.ended(0, JobEnd::Lost { newest });
            }
            assert_eq!(queue.state(0), JobState::Failed, "{steps:?}");
        }
        let mut queue = fresh(&list);
        for newest in [None, None, Some(5), Some(5), Some(10), Some(10)] {
            assert_eq!(queue.starts(&Outages::default()).len(), 1);
            queue.ended(0, JobEnd::Lost { newest });
        }
        assert_eq!(queue.state(0), JobState::Waiting);
    }

    #[test]
    fn slots_are_refilled_at_once_and_one_failure_harms_only_what_needs_it() {
        let jobs = vec![
            job("a", 1, 0.0, &[]),
            job("wide", 2, 0.0, &[]),
            job("b", 1, 0.0, &["a"]),
            job("bad", 1, 0.0, &[]),
            job("c", 1, 0.0, &["bad"]),
            job("d", 1, 0.0, &["c"]),
        ];
        let list = list((2, 0), jobs);
        let mut queue = fresh(&list);
        let failed = JobEnd::Failed { is_final: false };
        let told = play(&mut queue, &list, |name| match name {
            "bad" => (3, failed),
            "a" => (5, JobEnd::Done),
            _ => (2, JobEnd::Done),
        });
        insta::assert_snapshot!(told, @r"
        0: a starts
        0: bad starts
        3: bad Failed { is_final: false }
        3: c is blocked by bad
        3: d is blocked by c
        5: a Done
        5: wide starts
        7: wide Done
        7: b starts
        9: b Done
        ");
        assert_eq!(queue.exit(), Exit::Failed);
    }

    #[test]
    fn shares_of_gpus_fill_one_after_the_other_and_whole_ones_stay_whole() {
        let mut jobs: Vec<FarmJob> =
            ["a", "b", "c"].map(|name| job(name, 1, 0.5, &[])).into_iter().collect();
        jobs.push(job("whole", 1, 1.0, &[]));
        jobs.extend(["x", "y", "z"].map(|name| job(name, 1, 1.0 / 3.0, &[])));
        let list = list((8, 3), jobs);
        let mut queue = fresh(&list);
        let told = play(&mut queue, &list, |_| (1, JobEnd::Done));
        insta::assert_snapshot!(told, @r"
        0: a starts on [0]
        0: b starts on [0]
        0: c starts on [1]
        0: whole starts on [2]
        0: x starts on [1]
        1: a Done
        1: y starts on [0]
        1: b Done
        1: z starts on [0]
        1: c Done
        1: whole Done
        1: x Done
        2: y Done
        2: z Done
        ");
        assert_eq!(queue.exit(), Exit::Done);
    }

    #[test]
    fn what_was_left_goes_on_and_what_is_done_or_failed_is_not_started_again() {
        let names = ["done", "failed", "needs-failed", "stopped", "running", "waits"];
        let mut jobs: Vec<FarmJob> = names.map(|name| job(name, 1, 0.0, &[])).into_iter().collect();
        jobs[2].needs = vec!["failed".to_owned()];
        jobs[5].needs = vec!["running".to_owned()];
        let list = list((2, 0), jobs);
        let states = vec![
            JobState::Done,
            JobState::Failed,
            JobState::Waiting,
            JobState::Stopped,
            JobState::Running,
            JobState::Blocked,
        ];
        let nodes = [FarmNode::alone(list.slots)];
        let mut queue = Queue::new(&list, &nodes, states, vec![0; 6]);
        queue.occupy(4, Seats::default());
        assert_eq!(queue.starts(&Outages::default()), [Start { job: 3, seats: Seats::default() }]);
        assert_eq!(queue.starts(&Outages::default()), []);
        assert!(queue.ended(4, JobEnd::Done).is_empty());
        assert_eq!(queue.starts(&Outages::default()), [Start { job: 5, seats: Seats::default() }]);
        assert_eq!(queue.state(2), JobState::Blocked);
        queue.close();
        queue.ended(3, JobEnd::Stopped);
        assert!(!queue.is_over());
        queue.ended(5, JobEnd::Unknown);
        assert!(queue.is_over() && queue.starts(&Outages::default()).is_empty());
        assert_eq!(queue.exit(), Exit::Stopped);
    }

    #[test]
    fn a_command_is_tried_again_as_often_as_allowed_and_never_after_a_wrong_command_line() {
        let mut command = job("prepare", 1, 0.0, &[]);
        (command.kind, command.run) = (JobKind::Command, None);
        let list = list((1, 0), vec![command]);
        for (is_final, expected) in [(false, 3), (true, 1)] {
            let nodes = [FarmNode::alone(list.slots)];
            let mut queue = Queue::new(&list, &nodes, vec![JobState::Waiting], vec![2]);
            let told = play(&mut queue, &list, |_| (1, JobEnd::Failed { is_final }));
            assert_eq!(told.matches("starts").count(), expected, "{told}");
            assert_eq!(queue.exit(), Exit::Failed);
        }
    }

    #[test]
    fn nodes_are_filled_one_after_the_other_and_one_failure_frees_its_seat_alone() {
        let mut jobs: Vec<FarmJob> =
            (0..17).map(|number| job(&format!("j{number:02}"), 1, 1.0, &[])).collect();
        jobs[16].needs = vec!["j05".to_owned()];
        let list = list((16, 16), jobs);
        let four = ["a", "b", "c", "d"].map(|host| (host, 4, 4));
        let mut queue = on(&list, &nodes(&four));
        let starts = queue.starts(&Outages::default());
        let told: Vec<String> =
            starts.iter().map(|start| place(&start.seats).replace(" on ", "")).collect();
        insta::assert_snapshot!(
            told.join("; "),
            @"a:1 [0]; a:1 [1]; a:1 [2]; a:1 [3]; b:1 [0]; b:1 [1]; b:1 [2]; b:1 [3]; c:1 [0]; c:1 [1]; c:1 [2]; c:1 [3]; d:1 [0]; d:1 [1]; d:1 [2]; d:1 [3]"
        );
        assert_eq!(queue.ended(5, JobEnd::Failed { is_final: false }), [16]);
        let running = queue.states().iter().filter(|state| **state == JobState::Running);
        assert_eq!(running.count(), 15);
    }

    #[test]
    fn a_job_sits_where_it_leaves_least_and_a_command_where_the_farm_does() {
        let mut command = job("command", 1, 0.0, &[]);
        (command.kind, command.run) = (JobKind::Command, None);
        let jobs = vec![
            job("three", 3, 3.0, &[]),
            job("half", 1, 0.5, &[]),
            job("two", 2, 2.0, &[]),
            job("other-half", 1, 0.5, &[]),
            job("without", 1, 0.0, &[]),
            command.clone(),
            FarmJob { name: "other-command".to_owned(), ..command },
        ];
        let list = list((10, 8), jobs);
        let mut queue = on(&list, &nodes(&[("a", 5, 4), ("b", 5, 4)]));
        let told = play(&mut queue, &list, |_| (1, JobEnd::Done));
        insta::assert_snapshot!(told, @r"
        0: three starts on a:3 [0, 1, 2]
        0: half starts on a:1 [3]
        0: two starts on b:2 [0, 1]
        0: other-half starts on a:1 [3]
        0: without starts on b:1
        1: three Done
        1: command starts on a:1
        1: other-command starts on a:1
        1: half Done
        1: two Done
        1: other-half Done
        1: without Done
        2: command Done
        2: other-command Done
        ");
    }

    #[test]
    fn a_run_wider_than_any_node_gets_whole_ones() {
        let jobs = vec![
            job("small", 1, 1.0, &[]),
            job("wide", 6, 6.0, &[]),
            job("late", 1, 1.0, &[]),
            job("whole", 4, 4.0, &[]),
        ];
        let list = list((12, 12), jobs);
        let mut queue = on(&list, &nodes(&[("a", 4, 4), ("b", 4, 4), ("c", 4, 4)]));
        let told = play(&mut queue, &list, |name| match name {
            "small" => (5, JobEnd::Done),
            _ => (2, JobEnd::Done),
        });
        insta::assert_snapshot!(told, @r"
        0: small starts on a:1 [0]
        0: wide starts on b:4 c:2 [0, 1, 2, 3]
        0: late starts on a:1 [1]
        2: wide Done
        2: whole starts on b:4 [0, 1, 2, 3]
        2: late Done
        4: whole Done
        5: small Done
        ");
    }

    #[test]
    fn a_job_that_was_found_alive_keeps_its_nodes() {
        let jobs = ["alive", "wide", "next"].map(|name| job(name, 2, 2.0, &[]));
        let list = list((4, 4), jobs.into_iter().collect());
        let seats = |hosts: &[&str], gpus: &[usize]| Seats {
            hosts: hosts
                .iter()
                .map(|host| JobHost { host: (*host).to_owned(), processes: 2 })
                .collect(),
            gpus: gpus.to_vec(),
        };
        let mut states = vec![JobState::Running, JobState::Done, JobState::Waiting];
        let all = nodes(&[("a", 2, 2), ("b", 2, 2)]);
        let mut queue = Queue::new(&list, &all, states.clone(), vec![0; 3]);
        queue.occupy(0, seats(&["a"], &[0, 1]));
        assert_eq!(
            queue.starts(&Outages::default()),
            [Start { job: 2, seats: seats(&["b"], &[0, 1]) }]
        );
        // Over both nodes, and on one that the farm has no more.
        states[1] = JobState::Running;
        let mut queue = Queue::new(&list, &all, states, vec![0; 3]);
        queue.occupy(0, seats(&["gone"], &[0, 1]));
        queue.occupy(1, seats(&["a", "b"], &[0, 1]));
        assert_eq!(queue.starts(&Outages::default()), []);
        queue.ended(1, JobEnd::Done);
        assert_eq!(
            queue.starts(&Outages::default()),
            [Start { job: 2, seats: seats(&["a"], &[0, 1]) }]
        );
    }
}
