//! What only several ranks see together: how far their clocks are apart, and whether one sees what another writes.
//!
//! Messages go over whatever joins the ranks; it is not known here. All ranks call everything here, in the same order.

use super::answer::{Answer, ask};
use super::look::folder::{self, TrialFile};
use super::observation::{Clock, Sight};
use crate::error::{Context, Failure, Result};
use crate::files;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often clocks are compared: the shortest exchange says most.
const ROUNDS: usize = 5;
/// How long a file may take to appear on another host; network file systems keep for a minute that there is none.
const APPEARS: Duration = Duration::from_secs(70);
/// How much longer looking for it may take.
const LOOKS: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// How long [`sight`] takes at most.
pub const LONGEST_SIGHT: Duration = Duration::from_mins(2);

/// The messages of all ranks in their order, on every rank.
type Gather<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<Vec<u8>>>;

/// The ranks that look.
#[derive(Clone, Copy)]
pub struct Company<'a> {
    /// This one.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// Passes messages on.
    pub gather: Gather<'a>,
}

impl Company<'_> {
    /// What each rank has, in their order, on every rank.
    pub fn share<T: Serialize + DeserializeOwned>(&self, own: &T) -> Result<Vec<T>> {
        let message = serde_json::to_vec(own).context(|| "cannot write what this rank sees")?;
        let read = |(rank, message): (usize, Vec<u8>)| {
            serde_json::from_slice(&message)
                .context(|| format!("cannot read what rank {rank} says"))
                .map_err(|failure| failure.hint("run the same build of scrimp on every host"))
        };
        (self.gather)(&message)?.into_iter().enumerate().map(read).collect()
    }
}

/// The moments before and after one exchange, of rank 0 and of this rank, seconds since 1970 by their own clocks.
#[derive(Debug, Clone, Copy)]
struct Round {
    first: [f64; 2],
    own: [f64; 2],
}

/// How far the own clock is ahead of the first one. In each round every rank arrives before any leaves, so that the
/// own arrival is no later than the first one's leaving, and the other way round.
fn ahead(rounds: &[Round]) -> Clock {
    let least = rounds.iter().map(|round| round.own[0] - round.first[1]);
    let most = rounds.iter().map(|round| round.own[1] - round.first[0]);
    Clock {
        at_least_seconds: least.fold(f64::NEG_INFINITY, f64::max),
        at_most_seconds: most.fold(f64::INFINITY, f64::min),
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// How far the clock of this rank is ahead of that of rank 0; none where there are no others.
pub fn clock(company: Company<'_>) -> Result<Option<Clock>> {
    if company.ranks == 1 {
        return Ok(None);
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let arrival = now();
        (company.gather)(&[])?;
        let moments = company.share(&[arrival, now()])?;
        rounds.push(Round { first: moments[0], own: moments[company.rank] });
    }
    Ok(Some(ahead(&rounds)))
}

/// What this rank sees of a file that rank 0 puts into `folder`, which is what rank 0 found, locks and removes again;
/// none where there are no others.
pub fn sight(company: Company<'_>, folder: &Path) -> Result<Option<Answer<Sight>>> {
    if company.ranks == 1 {
        return Ok(None);
    }
    let chosen = if company.rank == 0 { files::random_number().ok() } else { None };
    let numbers: Vec<Option<u64>> = company.share(&chosen)?;
    let number = numbers[0].ok_or_else(|| Failure::new("rank 0 has no random numbers"))?;
    let path = folder.join(TrialFile::name(number));
    // A file system that has said once that there is no such file may say so for a while.
    let missed = path.clone();
    let early = ask(move || Ok(missed.exists())).within(LOOKS);
    (company.gather)(&[])?;
    let mut file = None;
    let mut made = Answer::Got(());
    if company.rank == 0 {
        let path = path.clone();
        match ask(move || TrialFile::locked(path)).within(LOOKS) {
            Answer::Got(trial) => file = Some(trial),
            Answer::Refused { why, hint } => made = Answer::Refused { why, hint },
            Answer::Late { seconds } => made = Answer::Late { seconds },
        }
    }
    let made = company.share(&made)?.swap_remove(0);
    let seen = match (made, early) {
        (Answer::Refused { why, hint }, _) => Answer::Refused { why, hint },
        (Answer::Late { seconds }, _) | (_, Answer::Late { seconds }) => Answer::Late { seconds },
        (Answer::Got(()), _) => match &file {
            Some(file) => {
                Answer::Got(Sight { seen_after_seconds: Some(0.0), lock: Some(file.lock) })
            }
            None => ask(move || Ok(look_for(&path))).within(APPEARS + LOOKS),
        },
    };
    // It goes when all have looked.
    (company.gather)(&[])?;
    drop(file);
    Ok(Some(seen))
}

fn look_for(path: &Path) -> Sight {
    let start = Instant::now();
    loop {
        if let Ok(file) = files::open(path) {
            let seen_after_seconds = Some(start.elapsed().as_secs_f64());
            return Sight { seen_after_seconds, lock: Some(folder::try_lock(&file)) };
        }
        if start.elapsed() > APPEARS {
            return Sight { seen_after_seconds: None, lock: None };
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::observation::Lock;
    use std::sync::{Arc, Barrier, Mutex};

    /// Calls `body` on two threads that pass messages on to each other.
    fn on_two<T: Send>(body: impl Fn(Company<'_>) -> T + Sync) -> [T; 2] {
        let barrier = Barrier::new(2);
        let messages = Mutex::new([Vec::new(), Vec::new()]);
        let rank = |rank: usize| {
            let gather = |message: &[u8]| {
                messages.lock().unwrap()[rank] = message.to_vec();
                barrier.wait();
                let all = messages.lock().unwrap().to_vec();
                barrier.wait();
                Ok(all)
            };
            body(Company { rank, ranks: 2, gather: &gather })
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| rank(1));
            let first = rank(0);
            [first, other.join().unwrap()]
        })
    }

    #[test]
    fn bounds_hold_the_true_distance_and_the_shortest_exchange_says_most() {
        // Five seconds ahead; exchanges of 2 s and of 0.2 s.
        let rounds = [
            Round { first: [100.0, 102.0], own: [105.5, 107.0] },
            Round { first: [110.0, 110.2], own: [115.1, 115.2] },
        ];
        let clock = ahead(&rounds);
        assert!(clock.at_least_seconds <= 5.0 && 5.0 <= clock.at_most_seconds, "{clock:?}");
        let [least, most] = [clock.at_least_seconds, clock.at_most_seconds];
        assert!((least - 4.9).abs() < 1e-9 && (most - 5.2).abs() < 1e-9, "{clock:?}");
    }

    #[test]
    fn one_clock_is_not_ahead_of_itself() {
        for clock in on_two(|company| clock(company).unwrap().unwrap()) {
            assert!(clock.at_least_seconds <= 0.0 && clock.at_most_seconds >= 0.0, "{clock:?}");
            assert!(clock.at_most_seconds - clock.at_least_seconds < 5.0, "{clock:?}");
        }
        let alone = Company { rank: 0, ranks: 1, gather: &|message| Ok(vec![message.to_vec()]) };
        assert_eq!(clock(alone).unwrap(), None);
        assert_eq!(sight(alone, Path::new("/")).unwrap(), None);
    }

    #[test]
    fn a_file_appears_locked_and_is_gone_afterwards() {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let seen = on_two(|company| sight(company, folder.path()).unwrap().unwrap());
        let lock = |answer: &Answer<Sight>| answer.got().unwrap().lock;
        assert_eq!([lock(&seen[0]), lock(&seen[1])], [Some(Lock::Held), Some(Lock::Busy)]);
        assert!(seen[1].got().unwrap().seen_after_seconds.is_some());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_told_on_all_ranks() {
        let seen = on_two(|company| sight(company, Path::new("/proc")).unwrap().unwrap());
        assert!(seen.iter().all(|answer| matches!(answer, Answer::Refused { .. })), "{seen:?}");
    }

    #[test]
    fn what_another_build_says_is_not_understood() {
        let company =
            Company { rank: 0, ranks: 1, gather: &|_| Ok(vec![b"something else".to_vec()]) };
        let failure = company.share(&1.5f64).unwrap_err();
        assert_eq!(failure.message(), "cannot read what rank 0 says");
    }
}
