//! Ranks as threads and as MPI processes keep the same promises.
//!
//! The MPI tests start this test binary again under `mpirun`; each process then runs the one test
//! [`mpi_worker`], told by a variable what to do.

#![expect(clippy::print_stdout, reason = "a rank tells the test that started it how it went")]

use crate::skips::{gpu_is_there, skipped};
use crate::support::{Counted, Fault, Faulty};
use proptest::prelude::*;
use scrimp::comm::Placement;
use scrimp::comm::nccl::Nccl;
use scrimp::comm::{Host, Ranks, Solo, agree, connect, threads, with_device};
use scrimp::error::{Exit, Failure, Result};
use scrimp::launchers::Variables;
use scrimp::shares::local_share;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Tells [`mpi_worker`] its part.
const PART: &str = "SCRIMP_TEST_MPI_PART";

/// Three values that depend on the rank, exact in every kind.
fn ramp(rank: usize, kind: Kind) -> Tensor {
    let first = 10 * rank as i64;
    Tensor::from_slice(&[first, first + 1, -first]).to_kind(kind)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_device(Device::Cpu).to_kind(Kind::Double).view(-1)).unwrap()
}

/// What every communicator promises, whatever it is made of.
fn keeps_its_promises(comm: &Ranks, device: Device) -> Result<()> {
    let (rank, ranks) = (comm.rank(), comm.ranks());
    for kind in [Kind::Float, Kind::Double, Kind::Int64] {
        let ramp = |rank, kind| ramp(rank, kind).to_device(device);
        let tensor = ramp(rank, kind);
        comm.tensors().sum(&tensor);
        let total: f64 = (0..ranks).map(|other| 10.0 * other as f64).sum();
        assert_eq!(values(&tensor), [total, total + ranks as f64, -total], "{kind:?}");

        for root in 0..ranks {
            let tensor = ramp(rank, kind);
            comm.tensors().broadcast(root, &tensor)?;
            assert_eq!(tensor, ramp(root, kind), "{kind:?} from {root}");
        }

        let empty = Tensor::zeros([0, 4], (kind, device));
        comm.tensors().sum(&empty);
        comm.tensors().broadcast(ranks - 1, &empty)?;
        assert_eq!(empty.size(), [0, 4]);

        let scalar = Tensor::ones([1i64; 0], (kind, device));
        comm.tensors().sum(&scalar);
        assert_eq!(values(&scalar), [ranks as f64]);
    }
    let views = Tensor::zeros([3, 2], (Kind::Float, device));
    comm.tensors().sum(&views.get(1).fill_(1.0));
    assert_eq!(values(&views), [0.0, 0.0, ranks as f64, ranks as f64, 0.0, 0.0]);

    comm.barrier()?;
    let mut others = Vec::new();
    comm.assemble(&mut |rank| others.push(rank))?;
    others.sort_unstable();
    let expected = if rank == 0 { 1..ranks } else { 0..0 };
    assert_eq!(others, expected.collect::<Vec<_>>());
    assert_eq!(comm.max(-5 - rank as i64)?, -5);
    assert!(comm.any(rank == ranks - 1)?);
    assert!(!comm.any(false)?);
    let messages = comm.gather(&vec![rank as u8; rank * 3])?;
    let expected: Vec<Vec<u8>> = (0..ranks).map(|other| vec![other as u8; other * 3]).collect();
    assert_eq!(messages, expected);
    assert_eq!(comm.gather(&[])?, vec![Vec::<u8>::new(); ranks]);
    assert!(comm.tensors().broadcast(ranks, &views).is_err());
    Ok(())
}

/// Sums of values that do not add up exactly are still equal on every rank, to the last bit, also
/// where each rank gets its share of them alone and the shares are put together.
fn sums_are_equal_on_every_rank(comm: &Ranks, count: i64) -> Result<()> {
    let step = 1.0 / (3.0 + comm.rank() as f64);
    let own = Tensor::arange(count, (Kind::Float, Device::Cpu)) * step;
    let whole = own.copy();
    comm.tensors().sum(&whole);
    let mine: Vec<u8> =
        Vec::<f32>::try_from(&whole).unwrap().iter().flat_map(|x| x.to_le_bytes()).collect();
    let digest = xxhash_rust::xxh3::xxh3_64(&mine).to_le_bytes();
    assert!(comm.gather(&digest)?.iter().all(|other| *other == digest));
    let total: f64 = (0..comm.ranks()).map(|rank| 1.0 / (3.0 + rank as f64)).sum();
    let last = whole.double_value(&[count - 1]);
    let expected = total * (count - 1) as f64;
    assert!((last / expected - 1.0).abs() < 1e-6, "{last} {expected}");
    let beside = own.copy();
    comm.tensors().start_sum(beside.shallow_clone());
    comm.barrier()?;
    comm.tensors().finish_sums();
    assert!(beside == whole, "another sum in the background");
    let shared = own.copy();
    comm.tensors().sum_own_share(&shared);
    let share = local_share(count as usize, comm.ranks(), comm.rank());
    let of_share = |tensor: &Tensor| tensor.narrow(0, share.start as i64, share.len() as i64);
    assert!(of_share(&shared) == of_share(&whole), "another share than that of the sum");
    comm.tensors().gather_shares(&shared)?;
    assert!(shared == whole, "shares do not make the whole");
    Ok(())
}

fn all_well<T>(outcomes: Vec<Result<T>>) -> Vec<T> {
    outcomes.into_iter().map(|outcome| outcome.unwrap()).collect()
}

fn messages<T>(outcomes: Vec<Result<T>>) -> Vec<String> {
    outcomes
        .into_iter()
        .map(|outcome| outcome.err().map_or(String::new(), |failure| failure.message().to_owned()))
        .collect()
}

#[test]
fn threads_keep_the_promises() {
    for ranks in 1..=4 {
        all_well(threads::run(ranks, |comm| {
            keeps_its_promises(&comm, Device::Cpu)?;
            sums_are_equal_on_every_rank(&comm, 1000)?;
            sums_are_equal_on_every_rank(&comm, 2)
        }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Late ranks change nothing, not even the last bit: sums are added in rank order.
    #[test]
    fn threads_sum_in_rank_order_however_late_ranks_come(
        shares in prop::collection::vec(-1e3f32..1e3, 2..=4),
        late in 0usize..4,
        calls in 1usize..4,
    ) {
        let expected = shares.iter().skip(1).fold(shares[0], |sum, share| sum + share);
        let sums = all_well(threads::run(shares.len(), |comm| {
            let delay = Fault::Delays(Duration::from_millis(2));
            let bad_call = if comm.rank() == late { 0 } else { usize::MAX };
            let comm = Ranks::of(Arc::new(Faulty::new(comm, bad_call, delay)));
            let mut sums = Vec::new();
            for _ in 0..calls {
                let share = Tensor::from(shares[comm.rank()]);
                comm.tensors().sum(&share);
                sums.push(share.double_value(&[]) as f32);
            }
            Ok(sums)
        }));
        for rank_sums in sums {
            prop_assert_eq!(rank_sums, vec![expected; calls]);
        }
    }
}

#[test]
fn threads_fail_at_once_when_a_rank_panics_or_leaves() {
    let started = Instant::now();
    let outcomes = threads::run(3, |comm| {
        assert_ne!(comm.rank(), 1, "on purpose");
        comm.barrier()
    });
    let texts = messages(outcomes);
    assert_eq!(texts[0], "rank 0 waits in `barrier`, but rank 1 left");
    assert!(texts[1].starts_with("rank 1 panicked: ") && texts[1].contains("on purpose"));
    assert_eq!(texts[2], "rank 2 waits in `barrier`, but rank 1 left");

    let outcomes = threads::run(2, |comm| {
        if comm.rank() == 0 {
            comm.tensors().sum(&Tensor::from(1.0));
        }
        Ok(())
    });
    assert_eq!(messages(outcomes), ["rank 0 waits in `sum of Double []`, but rank 1 left", ""]);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn threads_name_both_ranks_whose_calls_differ() {
    let outcomes = threads::run(2, |comm| {
        if comm.rank() == 0 {
            comm.barrier()
        } else {
            comm.tensors().broadcast(0, &Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)))
        }
    });
    let texts = messages(outcomes);
    assert_eq!(texts[0], texts[1]);
    assert!(
        ["rank 0 calls `barrier`", "rank 1 calls `broadcast of Float [2, 3] from rank 0`"]
            .iter()
            .any(|first| texts[0].starts_with(&format!("ranks disagree: {first}, rank "))),
        "{texts:?}"
    );

    let outcomes = threads::run(2, |comm| {
        comm.tensors().sum(&Tensor::zeros([2 + comm.rank() as i64], (Kind::Float, Device::Cpu)));
        Ok(())
    });
    for text in messages(outcomes) {
        assert!(text.contains("sum of Float [2]") && text.contains("sum of Float [3]"), "{text}");
    }
}

#[test]
fn threads_abort_together_with_the_exit_code() {
    let outcomes: Vec<Result<()>> = threads::run(3, |comm| {
        if comm.rank() == 2 {
            comm.abort(Exit::Hung);
        }
        comm.barrier()
    });
    for outcome in outcomes {
        let failure = outcome.unwrap_err();
        assert_eq!((failure.message(), failure.exit()), ("rank 2 aborted the group", Exit::Hung));
    }
}

#[test]
fn agreeing_makes_one_failure_everybodys() {
    let outcomes = threads::run(3, |comm| {
        let mine = if comm.rank() == 1 {
            Err(Failure::usage("no file `a.h5`").hint("run `scrimp prepare`"))
        } else {
            Ok(comm.rank())
        };
        agree(&*comm, mine)
    });
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        let failure = outcome.unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        let expected = if rank == 1 { "no file `a.h5`" } else { "rank 1 failed: no file `a.h5`" };
        assert_eq!(failure.message(), expected);
    }
    let fine = threads::run(2, |comm| agree(&*comm, Ok(comm.rank())));
    assert_eq!(all_well(fine), [0, 1]);
}

#[test]
fn a_rank_whose_call_fails_does_not_hold_up_the_others() {
    let outcomes = threads::run(2, |comm| {
        let bad_call = if comm.rank() == 1 { 1 } else { usize::MAX };
        let comm = Ranks::of(Arc::new(Faulty::new(comm, bad_call, Fault::Fails)));
        comm.barrier()?;
        comm.max(1).map(|_| ())
    });
    assert_eq!(
        messages(outcomes),
        ["rank 0 waits in `max`, but rank 1 left", "call 1 of rank 1 fails on purpose"]
    );
}

#[test]
fn every_rank_makes_the_same_calls_to_find_its_place() {
    let places = all_well(threads::run(3, |comm| {
        let counted = Arc::new(Counted::new(comm));
        let host = Host::of(Ranks::of(Arc::clone(&counted)));
        let placement = Placement::find(&*host, &Variables::new())?;
        with_device(&host, Device::Cpu)?;
        Ok((placement, counted.calls()))
    }));
    for (rank, (placement, calls)) in places.into_iter().enumerate() {
        assert_eq!(placement, Placement { local_rank: rank, ranks_on_node: 3 });
        assert_eq!(calls, ["max", "gather", "gather", "gather"]);
    }
}

/// With one rank, since NCCL wants a GPU for each; its twin on the CPU is every test above.
#[test]
fn nccl_keeps_the_promises_where_there_is_a_gpu() {
    if !gpu_is_there() {
        return skipped("there is no GPU");
    }
    let comm = Ranks::of(Arc::new(Nccl::join(Arc::new(Solo), 0).unwrap()));
    keeps_its_promises(&comm, Device::Cuda(0)).unwrap();
    for kind in [Kind::Half, Kind::BFloat16] {
        let tensor = ramp(2, kind).to_device(Device::Cuda(0));
        comm.tensors().sum(&tensor);
        assert_eq!(values(&tensor), [20.0, 21.0, -20.0], "{kind:?}");
    }
}

/// One process of the tests below; without its variable this is an ordinary, idle test.
#[test]
fn mpi_worker() {
    let Ok(part) = std::env::var(PART) else { return };
    let variables: Variables = std::env::vars().collect();
    let connected = connect(&variables);
    if part == "stranger" {
        println!("{}", connected.err().unwrap());
        return;
    }
    let host = connected.unwrap();
    let comm = with_device(&host, Device::Cpu).unwrap();
    match part.as_str() {
        "promises" => {
            keeps_its_promises(&comm, Device::Cpu).unwrap();
            // More elements than one MPI call takes, and not a multiple of that.
            for count in [2, 1000, 4097, 5_000_001] {
                sums_are_equal_on_every_rank(&comm, count).unwrap();
            }
            let placement = Placement::find(&*host, &variables).unwrap();
            let expected = Placement { local_rank: comm.rank(), ranks_on_node: comm.ranks() };
            assert_eq!(placement, expected);
            if comm.rank() == 0 {
                println!("{} ranks kept their promises", comm.ranks());
            }
        }
        "abort" if comm.rank() == 1 => comm.abort(Exit::Hung),
        "panic" => assert_ne!(comm.rank(), 1, "on purpose"),
        "bad sum" if comm.rank() == 1 => comm.tensors().sum(&Tensor::from_slice(&[true])),
        "agree" => {
            let mine = if comm.rank() == 1 { Err(Failure::usage("bad luck")) } else { Ok(()) };
            let failure = agree(&*comm, mine).unwrap_err();
            let mine = if comm.rank() == 1 { "bad luck" } else { "rank 1 failed: bad luck" };
            assert_eq!((failure.message(), failure.exit()), (mine, Exit::Usage));
        }
        _ => {}
    }
    comm.barrier().unwrap();
}

/// This binary, as one process of [`mpi_worker`].
fn worker(mut launcher: Command, part: &str) -> Command {
    launcher
        .args(["--exact", "comm::mpi_worker", "--nocapture"])
        .env(PART, part)
        .env("OMP_NUM_THREADS", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    launcher
}

/// Runs [`mpi_worker`] on this many ranks and says how long it took.
fn mpirun(ranks: usize, part: &str) -> (Output, Duration) {
    let started = Instant::now();
    let mut launcher = Command::new("mpirun");
    launcher.args(["--oversubscribe", "-n", &ranks.to_string()]);
    launcher.arg(std::env::current_exe().unwrap());
    let output = worker(launcher, part).output().unwrap();
    (output, started.elapsed())
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

#[test]
fn mpi_processes_keep_the_promises() {
    for ranks in 1..=4 {
        let (output, _) = mpirun(ranks, "promises");
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.contains(&format!("{ranks} ranks kept their promises")), "{text}");
    }
}

#[test]
fn mpi_processes_end_together_when_one_aborts() {
    let (output, time) = mpirun(3, "abort");
    assert_eq!(output.status.code(), Some(76), "{}", text(&output));
    assert!(time < Duration::from_secs(20), "{time:?}");
}

#[test]
fn mpi_processes_end_together_when_one_panics() {
    let (output, time) = mpirun(3, "panic");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("on purpose"));
    assert!(time < Duration::from_secs(20), "{time:?}");
}

#[test]
fn mpi_processes_end_together_when_a_sum_is_impossible() {
    let (output, time) = mpirun(2, "bad sum");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let expected = "error: cannot sum a tensor of kind `Bool` over MPI\n  --> rank 1";
    assert!(text(&output).contains(expected), "{}", text(&output));
    assert!(time < Duration::from_secs(20), "{time:?}");
}

#[test]
fn mpi_processes_agree_on_a_failure() {
    let (output, _) = mpirun(3, "agree");
    assert!(output.status.success(), "{}", text(&output));
}

/// As when another MPI library's `mpiexec` started it, or Slurm without an interface in common.
#[test]
fn a_task_of_several_that_sees_a_world_of_one_is_refused() {
    let cases: [(&[(&str, &str)], &str); 3] = [
        (
            &[("PMI_SIZE", "2"), ("PMI_RANK", "0"), ("MPI_LOCALNRANKS", "2")],
            "2 processes were started, as `PMI_SIZE` says",
        ),
        (
            &[("PMI_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "0")],
            "2 processes were started, as `SLURM_STEP_NUM_TASKS` says",
        ),
        (&[("PALS_RANKID", "0")], "a launcher started this process, as `PALS_RANKID` says"),
    ];
    for (variables, expected) in cases {
        let output = worker(Command::new(std::env::current_exe().unwrap()), "stranger")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = text(&output);
        assert!(text.contains(&format!("error: {expected}")), "{text}");
        assert!(text.contains("does not understand the launcher's process management"), "{text}");
    }
}
