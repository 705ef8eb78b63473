//! What is said of ranks and hosts: once, where it is true of many.

use crate::doctor::observation::Observation;
use crate::doctor::report::Finding;

/// A finding and the ranks that it is true of, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) finding: Finding,
    pub(super) ranks: Vec<usize>,
}

/// How many different findings of one check are told; of large clusters the gravest.
const MOST: usize = 5;

/// A finding about all ranks.
pub(super) fn of_all(seen: &[Observation], finding: Finding) -> Vec<Said> {
    vec![Said { finding, ranks: (0..seen.len()).collect() }]
}

/// A finding about each rank, equal ones once; nothing where `find` says nothing.
pub(super) fn of_each(
    seen: &[Observation],
    find: impl Fn(&Observation) -> Option<Finding>,
) -> Vec<Said> {
    let found = seen.iter().enumerate();
    once(found.filter_map(|(rank, one)| Some((find(one)?, vec![rank]))))
}

/// A finding about the ranks of each host, equal ones once.
pub(super) fn of_hosts(
    seen: &[Observation],
    find: impl Fn(&[&Observation]) -> Finding,
) -> Vec<Said> {
    once(hosts(seen).into_iter().map(|ranks| {
        let on_host: Vec<&Observation> = ranks.iter().map(|&rank| &seen[rank]).collect();
        (find(&on_host), ranks)
    }))
}

/// The ranks of each host, in the order of their first ones.
pub(super) fn hosts(seen: &[Observation]) -> Vec<Vec<usize>> {
    let mut hosts: Vec<(&str, Vec<usize>)> = Vec::new();
    for (rank, one) in seen.iter().enumerate() {
        match hosts.iter_mut().find(|(host, _)| *host == one.host) {
            Some((_, ranks)) => ranks.push(rank),
            None => hosts.push((&one.host, vec![rank])),
        }
    }
    hosts.into_iter().map(|(_, ranks)| ranks).collect()
}

/// Equal findings once, the gravest first. Of many different ones, those that are not told hide behind the last.
fn once(found: impl Iterator<Item = (Finding, Vec<usize>)>) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    for (finding, ranks) in found {
        match all.iter_mut().find(|said| said.finding == finding) {
            Some(said) => said.ranks.extend(ranks),
            None => all.push(Said { finding, ranks }),
        }
    }
    all.sort_by_key(|said| said.finding.state);
    if all.len() > MOST {
        let rest = all.split_off(MOST);
        if let Some(last) = all.last_mut() {
            last.finding.evidence += ", for example; other numbers on the others";
            last.ranks.extend(rest.into_iter().flat_map(|said| said.ranks));
            last.ranks.sort_unstable();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::samples::on_hosts;
    use crate::doctor::report::State;

    #[test]
    fn equal_findings_are_said_once_and_the_gravest_first() {
        let seen = on_hosts(&["a", "b", "a"]);
        let said = of_each(&seen, |one| {
            Some(if one.rank == 1 { Finding::fails("bad", "mend it") } else { Finding::ok("good") })
        });
        let told: Vec<_> = said.iter().map(|one| (one.finding.state, &one.ranks[..])).collect();
        assert_eq!(told, [(State::Fails, &[1][..]), (State::Ok, &[0, 2])]);
        assert_eq!(hosts(&seen), [vec![0, 2], vec![1]]);
        let said = of_hosts(&seen, |ranks| Finding::ok(ranks.len().to_string()));
        assert_eq!((said[0].ranks.len(), said[1].ranks.len()), (2, 1));
        assert!(of_each(&seen, |_| None).is_empty());
    }

    #[test]
    fn of_many_different_findings_the_last_stands_for_the_rest() {
        let names: Vec<String> = (0..9).map(|rank| format!("n{rank}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let said = of_each(&on_hosts(&names), |one| Some(Finding::ok(format!("{} ms", one.rank))));
        assert_eq!(said.len(), MOST);
        assert_eq!(said[4].ranks, [4, 5, 6, 7, 8]);
        assert_eq!(said[4].finding.evidence, "4 ms, for example; other numbers on the others");
    }
}
