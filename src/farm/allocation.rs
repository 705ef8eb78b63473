//! The nodes of an allocation, as Slurm and PBS write them down.
//!
//! Text in, names and numbers out; where the text comes from is not known here.

use crate::limits::FARM_NODES;
use crate::runlog::farm::JobHost;

/// The names in a list of nodes of Slurm: `a[01-03,7]-ib,b` is `a01-ib`, `a02-ib`, `a03-ib`, `a7-ib` and `b`. None for
/// what is no such list.
pub(super) fn hosts_of_slurm(list: &str) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for item in outside_brackets(list) {
        let (mut names, mut rest) = (vec![String::new()], item);
        while let Some((before, behind)) = rest.split_once('[') {
            let (ranges, behind) = behind.split_once(']')?;
            let numbers = numbers(ranges)?;
            if names.len() * numbers.len() > FARM_NODES {
                return None;
            }
            let with_numbers =
                |name: &String| numbers.iter().map(|n| format!("{name}{before}{n}")).collect();
            names = names.iter().flat_map::<Vec<String>, _>(with_numbers).collect();
            rest = behind;
        }
        hosts.extend(names.into_iter().map(|name| name + rest));
        if hosts.len() > FARM_NODES {
            return None;
        }
    }
    hosts.iter().all(|host| is_host(host)).then_some(hosts)
}

/// Whether this can be the name or the address of a host, and is nothing else for `mpirun`.
pub(super) fn is_host(name: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !name.is_empty() && !name.starts_with('-') && name.chars().all(fits)
}

/// The items of a list; commas in brackets part none.
fn outside_brackets(list: &str) -> Vec<&str> {
    let mut is_inside = false;
    let ends = move |letter: char| {
        is_inside = (is_inside || letter == '[') && letter != ']';
        letter == ',' && !is_inside
    };
    list.trim().split(ends).collect()
}

/// `01-03,7` as `01`, `02`, `03` and `7`.
fn numbers(ranges: &str) -> Option<Vec<String>> {
    let mut numbers = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (from, to) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if from > to || to - from >= FARM_NODES || numbers.len() > FARM_NODES {
            return None;
        }
        let width = first.len();
        numbers.extend((from..=to).map(|number| format!("{number:0width$}")));
    }
    Some(numbers)
}

/// Numbers for each node as Slurm writes them: `4(x2),3` is 4, 4 and 3. None for what is nothing of the kind.
pub(super) fn per_node(text: &str) -> Option<Vec<usize>> {
    let mut counts = Vec::new();
    for item in text.trim().split(',') {
        let (count, times) = match item.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (item, 1),
        };
        let count: usize = count.parse().ok()?;
        if times > FARM_NODES || counts.len() + times > FARM_NODES {
            return None;
        }
        counts.extend(std::iter::repeat_n(count, times));
    }
    Some(counts)
}

/// The nodes in the file that `PBS_NODEFILE` names, which has a line for each process.
pub(super) fn hosts_of_pbs(text: &str) -> Vec<JobHost> {
    let mut hosts: Vec<JobHost> = Vec::new();
    for name in text.lines().map(str::trim).filter(|line| !line.is_empty()).take(FARM_NODES) {
        match hosts.iter_mut().find(|host| host.host == name) {
            Some(host) => host.processes += 1,
            None => hosts.push(JobHost { host: name.to_owned(), processes: 1 }),
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_slurm_are_names() {
        for (list, expected) in [
            ("b", "b"),
            ("a[01-03,7],b", "a01 a02 a03 a7 b"),
            ("node[9-11]", "node9 node10 node11"),
            ("node[098-100]-ib,c.d", "node098-ib node099-ib node100-ib c.d"),
            ("r[1-2]n[0,3]", "r1n0 r1n3 r2n0 r2n3"),
        ] {
            assert_eq!(hosts_of_slurm(list).unwrap().join(" "), expected);
        }
        for list in [
            "",
            ",",
            "a,",
            "a[1",
            "a[]",
            "a[1-]",
            "a[3-1]",
            "a[x]",
            "a1]",
            "a[-1]",
            "a b",
            "-a",
            "a[0-99999999999]",
            "a[0-9999]b[0-9999]",
            "a[1-99999999999999999999]",
        ] {
            assert_eq!(hosts_of_slurm(list), None, "{list}");
        }
    }

    #[test]
    fn numbers_of_slurm_are_one_for_each_node() {
        assert_eq!(per_node("4(x2),3"), Some(vec![4, 4, 3]));
        assert_eq!(per_node("16"), Some(vec![16]));
        for text in ["", "4(x", "4(x2", "4x2", "-1", "4(x99999999)", "4,,4"] {
            assert_eq!(per_node(text), None, "{text}");
        }
    }

    #[test]
    fn lines_of_pbs_are_counted_by_host() {
        let hosts = hosts_of_pbs("n2\nn1\n\nn2\n n1 \nn2\n");
        let shown: Vec<String> =
            hosts.iter().map(|host| format!("{}:{}", host.host, host.processes)).collect();
        assert_eq!(shown, ["n2:3", "n1:2"]);
    }
}
