//! The verdict on the packed data set: whether every rank can read it, and all hosts read the same.

use super::said::{Said, of_all, of_each};
use crate::doctor::answer::Answer;
use crate::doctor::observation::{Data, Observation};
use crate::doctor::report::Finding;
use crate::words::counted;
use indicatif::HumanBytes;

/// Whether the file is whole wherever it is read.
pub(super) fn data(seen: &[Observation]) -> Vec<Said> {
    let first = seen.iter().find_map(|one| one.data.as_ref()?.got());
    let whole = seen.iter().find_map(|one| one.data.as_ref()?.got()?.whole);
    let again = "copy the file again, or write it again with `scrimp prepare`";
    let said = of_each(seen, |one| {
        Some(match one.data.as_ref()? {
            Answer::Refused { why, hint } => Finding::fails(why, hint.as_deref().unwrap_or(again)),
            Answer::Late { seconds } => Finding::fails(
                format!("it could not be read within {seconds} s"),
                "look whether its file system answers: `stat` on the file should do so at once",
            ),
            Answer::Got(data) => match first {
                Some(first) if (first.beginning, first.bytes) != (data.beginning, data.bytes) => {
                    Finding::fails(
                        format!(
                            "`{}` is another file than that of the first rank that read it",
                            data.path
                        ),
                        "copy one file to all hosts, or name one that all of them see",
                    )
                }
                _ => Finding::ok(words(data, whole.map(|whole| whole.cases))),
            },
        })
    });
    if said.is_empty() {
        let none = Finding::not_here("no packed file was named");
        return of_all(
            seen,
            none.hint("`scrimp doctor CONFIG` or `--data FILE` reads it to its end"),
        );
    }
    said
}

fn words(data: &Data, cases: Option<usize>) -> String {
    let size = HumanBytes(data.bytes);
    match cases {
        Some(cases) => {
            format!("`{}` of {size} has {} and good checksums", data.path, counted(cases, "case"))
        }
        None => format!("`{}` of {size} can be opened", data.path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::samples::{on_hosts, refused};
    use crate::doctor::observation::WholeData;
    use crate::doctor::report::State;

    fn file(whole: Option<WholeData>) -> Data {
        Data { path: "data/a.h5".into(), bytes: 4096, beginning: 9, whole }
    }

    #[test]
    fn data_are_whole_on_every_host_or_fail_there() {
        let mut seen = on_hosts(&["a", "a", "b"]);
        assert_eq!(data(&seen)[0].finding.state, State::NotHere);
        let whole = Some(WholeData { cases: 3, memory_bytes: 9000, seconds: 0.1 });
        for one in &mut seen {
            let whole = whole.filter(|_| one.rank != 1);
            one.data = Some(Answer::Got(file(whole)));
        }
        let said = data(&seen);
        let words = "`data/a.h5` of 4.00 KiB has 3 cases and good checksums";
        assert_eq!((said.len(), &*said[0].finding.evidence), (1, words));
        seen[2].data = Some(Answer::Got(Data { beginning: 8, ..file(whole) }));
        let said = data(&seen);
        assert_eq!((said[0].finding.state, &said[0].ranks[..]), (State::Fails, &[2][..]));
        seen[2].data = Some(refused("`data/a.h5` is damaged"));
        assert_eq!(data(&seen)[0].finding.evidence, "`data/a.h5` is damaged");
        seen[2].data = Some(Answer::Late { seconds: 30.0 });
        assert_eq!(data(&seen)[0].finding.evidence, "it could not be read within 30 s");
    }
}
