//! Verdicts on what runs: the program, its configuration and its libtorch, on all hosts the same.

use super::said::{Said, of_all, of_each, of_hosts};
use crate::doctor::answer::Answer;
use crate::doctor::observation::{Libtorch, Observation, Program, Wanted};
use crate::doctor::report::Finding;
use crate::words::counted;

/// Whether it can train, and whether all hosts run one build of it.
pub(super) fn program(seen: &[Observation]) -> Vec<Said> {
    of_each(seen, |one| {
        let Program { version, bytes } = &one.program;
        Some(if one.libtorch.is_none() {
            Finding::fails(
                format!("scrimp {version} was built without libtorch, and cannot train"),
                "`cargo build --release` builds all of it; `launch/setup` brings libtorch",
            )
        } else if one.program == seen[0].program {
            Finding::ok(format!("scrimp {version}"))
        } else {
            Finding::warning(
                format!(
                    "scrimp {version} of {bytes} bytes, and rank 0 runs {} of {} bytes",
                    seen[0].program.version, seen[0].program.bytes
                ),
                "copy one build to all hosts, or build it in a folder that all of them see",
            )
        })
    })
}

/// Whether the configuration is sound for so many ranks; nothing where none is named.
pub(super) fn configuration(seen: &[Observation]) -> Vec<Said> {
    let correct = "correct it; `scrimp config check CONFIG` says the same, and where";
    let said = of_each(seen, |one| {
        Some(match one.task.configuration.as_ref()? {
            Answer::Got(words) => Finding::ok(words),
            Answer::Refused { why, hint } => {
                Finding::fails(why, hint.as_deref().unwrap_or(correct))
            }
            Answer::Late { seconds } => Finding::fails(
                format!("it could not be read within {seconds} s"),
                "look whether its file system answers: `stat CONFIG`",
            ),
        })
    });
    if said.is_empty() {
        let none = Finding::not_here("none was named");
        return of_all(seen, none.hint("`scrimp doctor CONFIG` looks at what it trains, too"));
    }
    said
}

/// Whether libtorch is there, is one on all hosts, and can use the GPUs that there are.
pub(super) fn libtorch(seen: &[Observation]) -> Vec<Said> {
    let first = seen[0].libtorch.as_ref();
    of_hosts(seen, |ranks| {
        let one = ranks[0];
        let Some(libtorch) = &one.libtorch else {
            return Finding::not_here("this build has none");
        };
        let gpus = one.gpus().len();
        let words = words(libtorch);
        if first.is_some_and(|first| {
            (&first.version, first.bytes) != (&libtorch.version, libtorch.bytes)
        }) {
            let other = first.map(self::words).unwrap_or_default();
            return Finding::warning(
                format!("{words}, and rank 0 has {other}: numbers differ between them"),
                "use one libtorch on all hosts: `LIBTORCH=DIR` when building, `LD_LIBRARY_PATH` when starting",
            );
        }
        let bring = "`SCRIMP_CUDA=1 launch/setup` brings the one with it, then build again";
        match (one.task.device, libtorch.has_cuda_half) {
            (Wanted::Gpu, false) => {
                Finding::fails(format!("{words}, and `train.device` is `cuda`"), bring)
            }
            (Wanted::Any, false) if gpus > 0 => Finding::warning(
                format!("{words}: it trains on the CPU, beside {}", counted(gpus, "GPU")),
                bring,
            ),
            _ => Finding::ok(words),
        }
    })
}

fn words(libtorch: &Libtorch) -> String {
    let version = libtorch.version.as_deref().unwrap_or("of no known version,");
    let half = if libtorch.has_cuda_half { "with its CUDA half" } else { "without a CUDA half" };
    format!("{version} {half}, in `{}`", libtorch.folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::checks::samples::{on_hosts, refused};
    use crate::doctor::observation::Driver;
    use crate::doctor::report::State;

    #[test]
    fn another_build_on_a_host_is_told_and_one_without_libtorch_cannot_train() {
        let mut seen = on_hosts(&["a", "b"]);
        seen[1].program.bytes = 8;
        let said = program(&seen);
        assert_eq!((said[0].finding.state, &said[0].ranks[..]), (State::Warning, &[1][..]));
        seen[1].libtorch = None;
        assert_eq!(program(&seen)[0].finding.state, State::Fails);
    }

    #[test]
    fn a_configuration_that_one_rank_cannot_read_fails() {
        let mut seen = on_hosts(&["a", "b"]);
        assert_eq!(configuration(&seen)[0].finding.state, State::NotHere);
        seen[0].task.configuration = Some(Answer::Got("`c.toml` is sound".into()));
        seen[1].task.configuration = Some(refused("cannot read the configuration `c.toml`"));
        let said = configuration(&seen);
        assert_eq!((said[0].finding.state, &said[0].ranks[..]), (State::Fails, &[1][..]));
        assert_eq!((said[1].finding.state, &said[1].ranks[..]), (State::Ok, &[0][..]));
        seen[1].task.configuration = Some(Answer::Late { seconds: 10.0 });
        assert_eq!(configuration(&seen)[0].finding.evidence, "it could not be read within 10 s");
    }

    #[test]
    fn another_libtorch_on_a_host_is_told() {
        let mut seen = on_hosts(&["a", "b"]);
        seen[1].libtorch.as_mut().unwrap().version = Some("2.9.1".into());
        let said = libtorch(&seen);
        assert_eq!(
            said[0].finding.evidence,
            "2.9.1 without a CUDA half, in `/opt/libtorch/lib`, and rank 0 has 2.11.0+cpu without a CUDA half, \
             in `/opt/libtorch/lib`: numbers differ between them"
        );
        assert_eq!((said[0].finding.state, &said[0].ranks[..]), (State::Warning, &[1][..]));
    }

    #[test]
    fn a_missing_cuda_half_matters_where_there_are_gpus() {
        let mut seen = on_hosts(&["a"]);
        let gpus = vec![crate::doctor::checks::gpus::tests::idle()];
        seen[0].driver =
            Some(Answer::Got(Driver { version: "580".into(), cuda: "13.0".into(), gpus }));
        let finding = libtorch(&seen).swap_remove(0).finding;
        assert_eq!(finding.state, State::Warning);
        assert!(finding.evidence.ends_with("beside 1 GPU"), "{}", finding.evidence);
        seen[0].task.device = Wanted::Cpu;
        assert_eq!(libtorch(&seen)[0].finding.state, State::Ok);
        seen[0].task.device = Wanted::Gpu;
        assert_eq!(libtorch(&seen)[0].finding.state, State::Fails);
    }
}
