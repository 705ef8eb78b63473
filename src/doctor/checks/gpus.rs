//! Verdicts on GPUs: the driver, each GPU, and the way between them.

use super::said::{Said, of_all, of_each, of_hosts};
use crate::doctor::answer::Answer;
use crate::doctor::observation::{Access, Gpu, Observation, Wanted};
use crate::doctor::report::{Finding, few};
use crate::words::counted;
use indicatif::HumanBytes;

/// Memory that the driver itself takes of a GPU.
const OWN_BYTES: u64 = 1 << 30;

/// Whether there is a driver, and libtorch can use it.
pub(super) fn driver(seen: &[Observation]) -> Vec<Said> {
    of_hosts(seen, |ranks| {
        let one = ranks[0];
        let must = one.task.device == Wanted::Gpu;
        let grave = |evidence: String, hint| {
            if must { Finding::fails(evidence, hint) } else { Finding::warning(evidence, hint) }
        };
        let restart = "`nvidia-smi` says the same; after an update of the driver its host has to be restarted";
        let driver = match &one.driver {
            Some(Answer::Got(driver)) => driver,
            Some(Answer::Refused { why, .. }) => return grave(why.clone(), restart),
            Some(Answer::Late { seconds }) => {
                let evidence = format!("the driver did not answer within {seconds} s");
                return Finding::fails(evidence, restart);
            }
            None if one.usable_gpus() > 0 => {
                let words = "its management library is not installed, and libtorch works without";
                return Finding::ok(words);
            }
            None if must => {
                let evidence = "there is none of NVIDIA, and `train.device` is `cuda`";
                let hint = "start it on a host with GPUs, or use `--set train.device=auto`";
                return Finding::fails(evidence, hint);
            }
            None => return Finding::not_here("there is none of NVIDIA: it trains on CPUs"),
        };
        let words = format!("version {}, for CUDA up to {}", driver.version, driver.cuda);
        let has_half = one.libtorch.as_ref().is_some_and(|libtorch| libtorch.has_cuda_half);
        if has_half && one.usable_gpus() == 0 && !driver.gpus.is_empty() {
            let gpus = counted(driver.gpus.len(), "GPU");
            let evidence = format!("{words}: it has {gpus}, and libtorch can use none");
            let hint =
                "look at `CUDA_VISIBLE_DEVICES`; a libtorch for a newer CUDA needs a newer driver";
            return grave(evidence, hint);
        }
        Finding::ok(words)
    })
}

/// Whether each GPU is sound and idle, and whether there is one for each rank.
pub(super) fn gpus(seen: &[Observation]) -> Vec<Said> {
    of_hosts(seen, |ranks| {
        let (one, usable) = (ranks[0], ranks[0].usable_gpus());
        let gpus = one.gpus();
        let Some(first) = gpus.first() else {
            return match usable {
                0 => Finding::not_here("there are none"),
                count => Finding::ok(format!("libtorch can use {}", counted(count, "GPU"))),
            };
        };
        // Where a launcher shows each rank its own, each sees fewer than there are.
        let see_the_same = ranks.iter().all(|other| other.driver == one.driver);
        if ranks.len() > usable && usable > 1 && see_the_same && one.task.device == Wanted::Any {
            return Finding::fails(
                format!("{} share {}", counted(ranks.len(), "rank"), counted(usable, "GPU")),
                "start as many ranks on a host as it has GPUs, or use `--set train.device=cpu`",
            );
        }
        let odd = gpus.iter().enumerate().filter_map(|(index, gpu)| {
            let (is_grave, what, hint) = oddity(gpu)?;
            Some((is_grave, format!("GPU {index}, {}, {what}", gpu.name), hint))
        });
        let odd: Vec<_> = odd.collect();
        let grave = odd.iter().find(|(is_grave, ..)| *is_grave && one.computes_on_gpu());
        let Some((_, _, hint)) = grave.or(odd.first()) else {
            let memory = HumanBytes(first.memory_bytes);
            return Finding::ok(format!("{} x {}, {memory} each, idle", gpus.len(), first.name));
        };
        let all = few(odd.iter().map(|(_, what, _)| what.clone()));
        if grave.is_some() { Finding::fails(all, *hint) } else { Finding::warning(all, *hint) }
    })
}

/// What is odd about a GPU: whether nothing can be computed on it, what it is, and what to do.
fn oddity(gpu: &Gpu) -> Option<(bool, String, &'static str)> {
    let used = HumanBytes(gpu.used_bytes);
    let errors = gpu.uncorrected_errors.unwrap_or(0);
    if gpu.access == Access::Nobody {
        let hint = "ask an administrator for `nvidia-smi -c DEFAULT`, or hide it with `CUDA_VISIBLE_DEVICES`";
        return Some((true, "lets nobody compute".to_owned(), hint));
    }
    if gpu.access == Access::OneProcess && gpu.processes > 0 {
        let what = "lets one process compute, and there is one".to_owned();
        return Some((true, what, "wait for it, or hide that GPU with `CUDA_VISIBLE_DEVICES`"));
    }
    if errors > 0 || gpu.wants_reset {
        let what = if gpu.wants_reset {
            "wants to be reset".to_owned()
        } else {
            format!("has {} of its memory", counted(errors as usize, "uncorrected error"))
        };
        let hint =
            "ask an administrator for `nvidia-smi --gpu-reset`; `nvidia-smi -q -d ECC` shows it";
        return Some((false, what, hint));
    }
    if !gpu.slowed_by.is_empty() {
        let hint = "`nvidia-smi -q -d PERFORMANCE` shows it; ask an administrator to look at cooling and power";
        return Some((false, format!("is slowed down by {}", gpu.slowed_by.join(", ")), hint));
    }
    if gpu.processes > 0 || gpu.used_bytes > OWN_BYTES {
        let what = format!("is in use by {}, {used}", counted(gpu.processes, "process"));
        return Some((false, what, "`nvidia-smi` shows whose they are"));
    }
    None
}

/// Whether ranks with GPUs can sum over them, and by which way.
pub(super) fn nccl(seen: &[Observation]) -> Vec<Said> {
    if !seen.iter().any(Observation::computes_on_gpu) {
        return of_all(seen, Finding::not_here("no rank computes on a GPU"));
    }
    of_each(seen, |one| {
        let version = match &one.nccl {
            Answer::Got(version) => version,
            Answer::Refused { why, hint } if seen.len() > 1 => {
                let hint = hint.as_deref().unwrap_or("`SCRIMP_CUDA=1 launch/setup` brings it");
                return Some(Finding::fails(why, hint));
            }
            Answer::Refused { why, .. } => {
                let words = format!("{why}, and one rank needs none");
                return Some(Finding::ok(words));
            }
            Answer::Late { seconds } => {
                let evidence = format!("it could not be loaded within {seconds} s");
                return Some(Finding::fails(evidence, "look whether its file system answers"));
            }
        };
        let way = way(seen, one);
        Some(match &one.gpu_sum {
            None => Finding::ok(format!("{version}; {way}")),
            Some(Answer::Got(ms)) if seen.len() > 1 => {
                Finding::ok(format!("{version}; all ranks summed in {}; {way}", class_of(*ms)))
            }
            Some(Answer::Got(_)) => Finding::ok(format!("{version}; the GPU is opened")),
            Some(Answer::Refused { why, hint }) => {
                let debug = "set `NCCL_DEBUG=INFO` and run it again";
                Finding::fails(format!("{version}: {why}"), hint.as_deref().unwrap_or(debug))
            }
            Some(Answer::Late { seconds }) => Finding::fails(
                format!("{version}: ranks did not come together within {seconds} s"),
                "set `NCCL_DEBUG=INFO` and run it again; `NCCL_SOCKET_IFNAME` chooses the network card",
            ),
        })
    })
}

/// The order of a time, so that ranks say the same.
fn class_of(ms: f64) -> &'static str {
    match ms {
        ms if ms < 1.0 => "less than 1 ms",
        ms if ms < 10.0 => "less than 10 ms",
        _ => "more than 10 ms",
    }
}

/// What sums go over.
fn way(seen: &[Observation], one: &Observation) -> String {
    if seen.iter().all(|other| other.host == one.host) {
        return "all ranks are on one host".to_owned();
    }
    match &one.fast_network[..] {
        [] => "between hosts over sockets: there is no connected card for InfiniBand".to_owned(),
        cards => format!("between hosts over {}", few(cards.iter().cloned())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::doctor::checks::samples::{on_hosts, refused};
    use crate::doctor::observation::Driver;
    use crate::doctor::report::State;

    /// A GPU that nobody uses.
    pub(in crate::doctor::checks) fn idle() -> Gpu {
        Gpu {
            name: "NVIDIA H200".into(),
            memory_bytes: 139 << 30,
            used_bytes: 0,
            uncorrected_errors: Some(0),
            wants_reset: false,
            slowed_by: Vec::new(),
            processes: 0,
            access: Access::Shared,
        }
    }

    /// Ranks that each see two GPUs.
    fn with_gpus(hosts: &[&str]) -> Vec<Observation> {
        let mut seen = on_hosts(hosts);
        for one in &mut seen {
            let driver = Driver {
                version: "580.65".into(),
                cuda: "13.0".into(),
                gpus: vec![idle(), idle()],
            };
            one.driver = Some(Answer::Got(driver));
            one.nccl = Answer::Got("2.28.9".into());
            let libtorch = one.libtorch.as_mut().unwrap();
            (libtorch.has_cuda_half, libtorch.gpus) = (true, 2);
        }
        seen
    }

    fn states(said: &[Said]) -> Vec<State> {
        said.iter().map(|one| one.finding.state).collect()
    }

    fn evidence(said: &[Said]) -> &str {
        &said[0].finding.evidence
    }

    #[test]
    fn what_is_sound_is_told_in_short() {
        let seen = with_gpus(&["a", "a"]);
        assert_eq!(evidence(&driver(&seen)), "version 580.65, for CUDA up to 13.0");
        assert_eq!(evidence(&gpus(&seen)), "2 x NVIDIA H200, 139.00 GiB each, idle");
        assert_eq!(evidence(&nccl(&seen)), "2.28.9; all ranks are on one host");
    }

    #[test]
    fn a_driver_that_libtorch_cannot_use_or_that_hangs_is_told() {
        let mut seen = with_gpus(&["a"]);
        seen[0].libtorch.as_mut().unwrap().gpus = 0;
        assert_eq!(states(&driver(&seen)), [State::Warning]);
        seen[0].task.device = Wanted::Gpu;
        assert_eq!(states(&driver(&seen)), [State::Fails]);
        seen[0].driver = None;
        assert_eq!(states(&driver(&seen)), [State::Fails]);
        seen[0].driver = Some(Answer::Late { seconds: 30.0 });
        assert_eq!(evidence(&driver(&seen)), "the driver did not answer within 30 s");
        seen[0].driver = Some(refused("the driver of NVIDIA does not answer"));
        assert_eq!(states(&driver(&seen)), [State::Fails]);
        seen[0].task.device = Wanted::Any;
        assert_eq!(states(&driver(&seen)), [State::Warning]);
    }

    #[test]
    fn every_oddity_of_a_gpu_is_told() {
        use State::{Fails, Warning};
        let told = |change: fn(&mut Gpu)| {
            let mut seen = with_gpus(&["a"]);
            let Some(Answer::Got(driver)) = &mut seen[0].driver else { unreachable!() };
            change(&mut driver.gpus[1]);
            let said = gpus(&seen);
            (said[0].finding.state, said[0].finding.evidence.clone())
        };
        let of = |state, what: &str| (state, format!("GPU 1, NVIDIA H200, {what}"));
        let nobody = told(|gpu| gpu.access = Access::Nobody);
        assert_eq!(nobody, of(Fails, "lets nobody compute"));
        let one = told(|gpu| (gpu.access, gpu.processes) = (Access::OneProcess, 1));
        assert_eq!(one, of(Fails, "lets one process compute, and there is one"));
        let errors = told(|gpu| gpu.uncorrected_errors = Some(3));
        assert_eq!(errors, of(Warning, "has 3 uncorrected errors of its memory"));
        assert_eq!(told(|gpu| gpu.wants_reset = true), of(Warning, "wants to be reset"));
        let hot = told(|gpu| gpu.slowed_by = vec!["heat".into()]);
        assert_eq!(hot, of(Warning, "is slowed down by heat"));
        let used = told(|gpu| (gpu.processes, gpu.used_bytes) = (2, 5 << 30));
        assert_eq!(used, of(Warning, "is in use by 2 processes, 5.00 GiB"));
    }

    #[test]
    fn without_its_management_library_a_driver_is_used_all_the_same() {
        let mut seen = with_gpus(&["a"]);
        seen[0].driver = None;
        assert_eq!(states(&driver(&seen)), [State::Ok]);
        assert_eq!(evidence(&gpus(&seen)), "libtorch can use 2 GPUs");
        assert_eq!(states(&driver(&on_hosts(&["a"]))), [State::NotHere]);
    }

    #[test]
    fn ranks_need_a_gpu_each_unless_they_share_on_purpose() {
        let mut seen = with_gpus(&["a", "a", "a"]);
        assert_eq!(evidence(&gpus(&seen)), "3 ranks share 2 GPUs");
        for one in &mut seen {
            one.task.device = Wanted::Gpu;
        }
        assert_eq!(states(&gpus(&seen)), [State::Ok]);
    }

    #[test]
    fn ranks_that_cannot_sum_over_gpus_fail() {
        let mut seen = with_gpus(&["a", "b"]);
        let sockets = "between hosts over sockets: there is no connected card for InfiniBand";
        assert_eq!(evidence(&nccl(&seen)), format!("2.28.9; {sockets}"));
        for one in &mut seen {
            one.fast_network = vec!["mlx5_0".into()];
            one.gpu_sum = Some(Answer::Got(0.4));
        }
        let words = "2.28.9; all ranks summed in less than 1 ms; between hosts over mlx5_0";
        assert_eq!(evidence(&nccl(&seen)), words);
        seen[1].gpu_sum = Some(refused("NCCL could not join the ranks within 300 s"));
        assert_eq!(states(&nccl(&seen)), [State::Fails, State::Ok]);
        seen[1].nccl = refused("cannot load NCCL as `libnccl.so.2`");
        assert_eq!(states(&nccl(&seen)), [State::Fails, State::Ok]);
        assert_eq!(states(&nccl(&on_hosts(&["a", "b"]))), [State::NotHere]);
    }
}
