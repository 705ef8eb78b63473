//! Verdicts on hosts beside each other: whether they find each other by name, and whether their clocks agree.

use super::ranks::no_others;
use super::said::{Said, of_all, of_hosts};
use crate::doctor::answer::Answer;
use crate::doctor::observation::{Clock, Name, Observation};
use crate::doctor::report::Finding;
use crate::words::counted;

/// A name that takes longer to look up holds up whatever asks for it.
const SLOW_SECONDS: f64 = 1.0;
/// How far clocks may be apart before times in logs mislead.
const APART_SECONDS: f64 = 1.0;

/// Whether names of hosts have addresses, wherever they are looked up. Ranks that run found each other without; a
/// launcher that is given a list needs them.
pub(super) fn names(seen: &[Observation]) -> Vec<Said> {
    // One rank of each host has looked names up.
    of_hosts(seen, |ranks| {
        let asked = ranks.iter().find(|one| !one.names.is_empty());
        asked.map_or_else(|| Finding::not_here("nobody looked them up"), |one| of_host(one))
    })
}

fn of_host(one: &Observation) -> Finding {
    let missing = |names: &[Name]| names.iter().find(|name| name.address.got().is_none()).cloned();
    if let Some(name) = missing(&one.listed) {
        let (evidence, hint) = refusal(&name, &one.host);
        return Finding::fails(format!("{evidence}, and `mpirun` cannot start there"), hint);
    }
    if let Some(name) = missing(&one.names) {
        let (evidence, hint) = refusal(&name, &one.host);
        return Finding::warning(evidence, hint);
    }
    let all = || one.names.iter().chain(&one.listed);
    let slow = all().max_by(|a, b| a.seconds.total_cmp(&b.seconds));
    if let Some(slow) = slow.filter(|slow| slow.seconds > SLOW_SECONDS) {
        return Finding::warning(
            format!("looking up `{}` took {:.1} s", slow.name, slow.seconds),
            "write hosts into `/etc/hosts`, or look at the servers in `/etc/resolv.conf`",
        );
    }
    let have = if all().count() == 1 { "has an address" } else { "have addresses" };
    Finding::ok(format!("{} {have}", counted(all().count(), "name")))
}

/// What to say of a name without address that was looked up on `host`.
fn refusal(name: &Name, host: &str) -> (String, String) {
    let hint = format!(
        "`getent hosts {}` on `{host}` should print an address; write it into `/etc/hosts`",
        name.name
    );
    let evidence = match &name.address {
        Answer::Late { seconds } => {
            format!("looking up `{}` took more than {seconds} s", name.name)
        }
        Answer::Refused { why, .. } => why.clone(),
        Answer::Got(address) => format!("`{}` has the address {address}", name.name),
    };
    (evidence, hint)
}

/// Whether clocks agree. No decision of a run compares clocks of two hosts; people who read logs do.
pub(super) fn clocks(seen: &[Observation]) -> Vec<Said> {
    if let Some(said) = no_others(seen) {
        return said;
    }
    let furthest = seen.iter().filter_map(|one| Some((one, certain(one.clock?))));
    let Some((one, apart)) = furthest.max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs())) else {
        return of_all(seen, Finding::not_here("nobody compared them"));
    };
    if apart.abs() > APART_SECONDS {
        let way = if apart > 0.0 { "ahead of" } else { "behind" };
        let finding = Finding::warning(
            format!("its clock is {:.1} s {way} that of rank 0 on `{}`", apart.abs(), seen[0].host),
            format!(
                "times in logs mislead: `timedatectl` on `{}` and `{}` shows which is wrong",
                one.host, seen[0].host
            ),
        );
        return vec![Said { finding, ranks: vec![one.rank] }];
    }
    let bounds = seen.iter().filter_map(|one| one.clock);
    let most = bounds.map(|clock| clock.at_least_seconds.abs().max(clock.at_most_seconds.abs()));
    let most = most.fold(0.0, f64::max);
    let words = if most < 0.01 { "within 10 ms".to_owned() } else { format!("within {most:.2} s") };
    of_all(seen, Finding::ok(format!("they agree {words}")))
}

/// How far a clock is ahead for certain.
fn certain(clock: Clock) -> f64 {
    if clock.at_least_seconds > 0.0 {
        clock.at_least_seconds
    } else {
        clock.at_most_seconds.min(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::samples::{name, on_hosts, refused};
    use crate::doctor::report::State;

    fn missing(of: &str) -> Name {
        Name { address: refused(&format!("`{of}` has no address")), ..name(of) }
    }

    #[test]
    fn a_name_without_address_is_told_by_the_host_that_asked() {
        let mut seen = on_hosts(&["a", "b"]);
        seen[0].names[1] = missing("b");
        let said = names(&seen);
        assert_eq!((said[0].finding.state, &said[0].ranks[..]), (State::Warning, &[0][..]));
        assert_eq!(said[0].finding.evidence, "`b` has no address");
        assert!(said[0].finding.hint.as_ref().unwrap().starts_with("`getent hosts b` on `a`"));
        assert_eq!(said[1].finding.evidence, "2 names have addresses");
        seen[0].listed = vec![missing("c")];
        let finding = names(&seen).swap_remove(0).finding;
        assert_eq!(finding.state, State::Fails);
        assert_eq!(finding.evidence, "`c` has no address, and `mpirun` cannot start there");
        seen[1].names.clear();
        assert_eq!(names(&seen)[1].finding.state, State::NotHere);
    }

    #[test]
    fn a_name_service_that_hangs_or_is_slow_is_told() {
        let mut seen = on_hosts(&["a"]);
        seen[0].names[0].address = Answer::Late { seconds: 10.0 };
        let finding = names(&seen).swap_remove(0).finding;
        assert_eq!(finding.evidence, "looking up `a` took more than 10 s");
        seen[0].names[0] = Name { seconds: 4.0, ..name("a") };
        let finding = names(&seen).swap_remove(0).finding;
        assert_eq!(
            (finding.state, &*finding.evidence),
            (State::Warning, "looking up `a` took 4.0 s")
        );
    }

    #[test]
    fn a_clock_that_is_certainly_off_is_told_with_its_rank() {
        let mut seen = on_hosts(&["a", "b"]);
        assert_eq!(clocks(&seen)[0].finding.evidence, "they agree within 10 ms");
        seen[1].clock = Some(Clock { at_least_seconds: -3601.0, at_most_seconds: -3600.0 });
        let said = clocks(&seen);
        let words = "its clock is 3600.0 s behind that of rank 0 on `a`";
        assert_eq!((&*said[0].finding.evidence, &said[0].ranks[..]), (words, &[1][..]));
        // Not known well enough to be blamed.
        seen[1].clock = Some(Clock { at_least_seconds: -2.0, at_most_seconds: 2.0 });
        assert_eq!(clocks(&seen)[0].finding.evidence, "they agree within 2.00 s");
        assert_eq!(clocks(&on_hosts(&["a"]))[0].finding.state, State::NotHere);
    }
}
