//! Which rank looks at the reports of all: one that waits as well and still answers. The others look at
//! that one alone, so that a look of all ranks together reads about two reports for each of them.
//!
//! What follows from the reports is not known here.

use crate::runlog::flight::FlightReport;

/// Looks after which another one gets its turn, should the one before see less than it.
const STINT: u32 = 60;

/// The ranks that come into question, and whose turn it is in the eyes of one of them.
#[derive(Debug)]
pub(super) struct Judges {
    mine: usize,
    candidates: Vec<usize>,
    /// Position in `candidates`; behind the last one everybody judges alone.
    turn: usize,
    /// Looks in this turn.
    looks: u32,
    /// Looks since the candidate was last seen to wait and to answer.
    silent: u32,
    beat: Option<u64>,
}

/// What a rank that waits has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// To look at the reports of all.
    Judges,
    /// To look at the report of this rank.
    Follows(usize),
}

impl Judges {
    /// In the eyes of rank `mine` of `ranks`.
    pub(super) fn new(mine: usize, ranks: usize) -> Self {
        let candidates = candidates(ranks);
        Self { mine, candidates, turn: 0, looks: 0, silent: 0, beat: None }
    }

    /// What to do in the next look.
    pub(super) fn role(&self) -> Role {
        match self.candidates.get(self.turn) {
            Some(&rank) if rank != self.mine => Role::Follows(rank),
            _ => Role::Judges,
        }
    }

    /// Takes note of a look as the judge.
    pub(super) fn judged(&mut self) {
        self.looks += 1;
        if self.looks > STINT {
            self.pass_on(false);
        }
    }

    /// Takes note of the report of the one that is followed. Whether it still answers is sure after
    /// `sure` looks.
    pub(super) fn followed(&mut self, report: Option<&FlightReport>, sure: u32) {
        self.looks += 1;
        self.silent += 1;
        let beat = report.map(|report| report.beat);
        let answers = self.beat.is_some() && beat != self.beat;
        self.beat = beat;
        if answers && report.is_some_and(FlightReport::is_waiting_long) {
            self.silent = 0;
        }
        if self.silent > sure {
            self.pass_on(true);
        } else if self.looks > STINT {
            self.pass_on(false);
        }
    }

    /// The next one's turn; where nobody answered, behind the last one that of everybody.
    fn pass_on(&mut self, nobody_answered: bool) {
        let turns = self.candidates.len() + usize::from(nobody_answered);
        self.turn = if self.turn + 1 < turns { self.turn + 1 } else { 0 };
        (self.looks, self.silent, self.beat) = (0, 0, None);
    }
}

/// As many ranks as a thousand ranks have doublings, each far from those before: processes of one node
/// have neighbouring numbers and are lost together.
fn candidates(ranks: usize) -> Vec<usize> {
    let bits = usize::BITS - ranks.saturating_sub(1).leading_zeros();
    let spread = (0..1usize << bits)
        .map(|index| if bits == 0 { 0 } else { index.reverse_bits() >> (usize::BITS - bits) });
    let most = 2 + ranks.max(1).ilog2() as usize;
    spread.filter(|&rank| rank < ranks).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runlog::flight::Phase;

    fn report(beat: u64, idle_seconds: f64) -> FlightReport {
        FlightReport {
            rank: 0,
            host: String::new(),
            pid: 1,
            time_ms: 1,
            beat,
            phase: Phase::Step,
            step: 1,
            sequence: 1,
            idle_seconds,
            patience_seconds: Some(30.0),
            calls: Vec::new(),
            lost_links: Vec::new(),
        }
    }

    #[test]
    fn a_few_ranks_far_from_each_other_come_into_question() {
        assert_eq!(candidates(1), [0]);
        assert_eq!(candidates(2), [0, 1]);
        assert_eq!(candidates(3), [0, 2, 1]);
        assert_eq!(candidates(1024)[..4], [0, 512, 256, 768]);
        assert_eq!(candidates(1024).len(), 12);
    }

    #[test]
    fn one_that_waits_and_answers_is_followed() {
        let mut judges = Judges::new(3, 8);
        for beat in 0..STINT.into() {
            assert_eq!(judges.role(), Role::Follows(0));
            judges.followed(Some(&report(beat, 20.0)), 3);
        }
        judges.followed(Some(&report(99, 20.0)), 3);
        assert_eq!(judges.role(), Role::Follows(4), "another one gets its turn");
    }

    #[test]
    fn whoever_does_not_answer_or_does_not_wait_is_passed_over() {
        let mut judges = Judges::new(3, 8);
        for _ in 0..4 {
            assert_eq!(judges.role(), Role::Follows(0));
            judges.followed(Some(&report(7, 20.0)), 3);
        }
        for beat in 0..4 {
            assert_eq!(judges.role(), Role::Follows(4));
            judges.followed(Some(&report(beat, 0.1)), 3);
        }
        for rank in [2, 6, 1] {
            assert_eq!(judges.role(), Role::Follows(rank));
            (0..4).for_each(|_| judges.followed(None, 3));
        }
        // Nobody is left: this one, as long as a turn is.
        for _ in 0..=STINT {
            assert_eq!(judges.role(), Role::Judges);
            judges.judged();
        }
        assert_eq!(judges.role(), Role::Follows(0));
        assert_eq!(Judges::new(0, 1).role(), Role::Judges);
    }
}
