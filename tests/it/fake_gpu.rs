//! Runs programs on the fake GPUs of `tests/fake-cuda` and reads the reports of what they did there.
//!
//! Knows how to build that runtime and how to start and end what runs on it; what is right, the tests say.

use crate::skips::skipped;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use tempfile::TempDir;

/// What takes longer hangs. Processes run one after another; each takes seconds where nobody else computes.
const LIMIT_SECONDS: &str = "100";
/// The exit code of `timeout` for what it ended.
const TIMED_OUT: i32 = 124;

/// The fake runtime, compiled for a libtorch in its CUDA form.
pub(crate) struct FakeGpu {
    /// What `build` made.
    pub(crate) libraries: PathBuf,
    /// The folder with libtorch's libraries.
    pub(crate) torch: PathBuf,
}

impl FakeGpu {
    /// Compiles it on the first call; `None`, said as a skip, where no libtorch has a CUDA half.
    pub(crate) fn find() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<FakeGpu>> = OnceLock::new();
        let found = FOUND.get_or_init(|| libtorch().map(|folder| Self::build(&folder))).as_ref();
        if found.is_none() {
            let where_from = "run `SCRIMP_CUDA=1 launch/setup`, or set `SCRIMP_CUDA_TORCH=DIR`";
            skipped(&format!("no CUDA form of libtorch; {where_from}"));
        }
        found
    }

    fn build(libtorch: &Path) -> Self {
        let libraries = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-cuda");
        let output = Command::new(script("build")).arg(libtorch).arg(&libraries).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { libraries, torch: libtorch.join("torch/lib") }
    }
}

/// The folder that holds `torch` and `nvidia` of a CUDA form.
fn libtorch() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".libtorch");
    let named = std::env::var_os("SCRIMP_CUDA_TORCH").map(PathBuf::from);
    if let Some(named) = &named {
        assert!(has_cuda(named), "`SCRIMP_CUDA_TORCH` names no CUDA form: `{}`", named.display());
    }
    [Some(own), named].into_iter().flatten().find(|folder| has_cuda(folder))
}

fn has_cuda(folder: &Path) -> bool {
    folder.join("torch/lib/libtorch_cuda.so").exists()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-cuda").join(name)
}

/// A command that is to run on fake GPUs, one for each of its ranks.
pub(crate) struct OnFakeGpus {
    words: Vec<String>,
    ranks: usize,
    variables: Vec<(&'static str, String)>,
}

impl OnFakeGpus {
    /// `scrimp` with these arguments.
    pub(crate) fn scrimp(arguments: &[&str]) -> Self {
        Self::command(&[&[env!("CARGO_BIN_EXE_scrimp")], arguments].concat())
    }

    /// Any command.
    pub(crate) fn command(words: &[&str]) -> Self {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        Self { words, ranks: 1, variables: Vec::new() }
    }

    /// Adds `--set KEY=VALUE`.
    pub(crate) fn sets(mut self, settings: &[&str]) -> Self {
        self.words.extend(settings.iter().map(|setting| format!("--set={setting}")));
        self
    }

    /// Under `mpirun`, where this is more than one.
    pub(crate) fn ranks(self, ranks: usize) -> Self {
        Self { ranks, ..self }
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Runs it to its end, one command at a time.
    pub(crate) fn end(self, gpu: &FakeGpu) -> OnceThere {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = TempDir::new().unwrap();
        let report = folder.path().join("report");
        let ranks = self.ranks.to_string();
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", LIMIT_SECONDS]);
        if self.ranks > 1 {
            command.args(["mpirun", "--oversubscribe", "--bind-to", "none", "-n", &ranks]);
        }
        let output = command
            .arg(script("run"))
            .args(&self.words)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
            .env("SCRIMP_CACHE_DIR", gpu.libraries.join("cache"))
            .env("SCRIMP_FAKE_CUDA", &gpu.libraries)
            .env("SCRIMP_FAKE_TORCH", &gpu.torch)
            .env("SCRIMP_FAKE_GPUS", &ranks)
            .env("SCRIMP_FAKE_REPORT", &report)
            .envs(self.variables)
            .output()
            .unwrap();
        let read = |rank| {
            let text = std::fs::read(report.with_extension(format!("{rank}.json"))).ok()?;
            Some(serde_json::from_slice(&text).unwrap())
        };
        OnceThere {
            words: self.words.join(" "),
            ranks: self.ranks,
            code: output.status.code(),
            output: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
            reports: (0..self.ranks).filter_map(read).collect(),
        }
    }

    /// The same; it has to end well and to have done nothing that a GPU refuses.
    pub(crate) fn succeed(self, gpu: &FakeGpu) -> Vec<Report> {
        self.end(gpu).well()
    }
}

/// A command that is over.
pub(crate) struct OnceThere {
    words: String,
    ranks: usize,
    code: Option<i32>,
    /// What it wrote on stdout and on stderr.
    pub(crate) output: String,
    reports: Vec<Report>,
}

impl OnceThere {
    /// What its first rank did that no GPU takes, in alphabetical order.
    pub(crate) fn violations(&self) -> Vec<&str> {
        self.reports[0].violations.keys().map(String::as_str).collect()
    }

    /// The reports of its ranks, of which each used a GPU as one may.
    pub(crate) fn well(self) -> Vec<Report> {
        let ranks = self.ranks;
        let said = format!("`{}` on {ranks} ranks:\n{}", self.words, self.output);
        assert_ne!(self.code, Some(TIMED_OUT), "it hung: {said}");
        assert_eq!(self.code, Some(0), "{said}");
        assert_eq!(self.reports.len(), ranks, "not every rank has used a GPU: {said}");
        for report in &self.reports {
            assert!(report.violations.is_empty(), "{:#?}\n{said}", report.violations);
        }
        self.reports
    }
}

/// How often each thing of a name was done.
pub(crate) type Counts = BTreeMap<String, u64>;

/// What a process did on its GPUs; `tests/fake-cuda/README.md` explains it.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    violations: Counts,
    launches: BTreeMap<String, Counts>,
    copies: Counts,
    host_syncs: Counts,
    graphs: Vec<Graph>,
}

#[derive(Debug, Deserialize)]
struct Graph {
    nodes: u64,
    launches: u64,
    by_kind: BTreeMap<String, Counts>,
}

impl Report {
    /// Everything that was enqueued outside of captures.
    pub(crate) fn launches(&self) -> u64 {
        self.launches.values().flat_map(Counts::values).sum()
    }

    /// Copies from and to memory of the host that the device cannot reach by itself.
    pub(crate) fn pageable_copies(&self) -> u64 {
        self.copies
            .iter()
            .filter(|(what, _)| what.contains("pageable"))
            .map(|(_, count)| count)
            .sum()
    }

    /// How often the host waited for the device; looking for algorithms does not count.
    pub(crate) fn waits(&self) -> u64 {
        self.host_syncs.iter().filter(|(call, _)| call.starts_with("cuda")).map(|(_, n)| n).sum()
    }

    /// Sums and the like over ranks, outside of captures.
    pub(crate) fn collectives(&self) -> u64 {
        self.launches.get("collective").into_iter().flat_map(Counts::values).sum()
    }

    /// How many pieces of work were recorded.
    pub(crate) fn graphs(&self) -> usize {
        self.graphs.len()
    }

    /// How often recorded work was done again.
    pub(crate) fn replays(&self) -> u64 {
        self.graphs.iter().map(|graph| graph.launches).sum()
    }

    /// The nodes of the longest recorded work and how many of them are sums over ranks.
    pub(crate) fn longest_graph(&self) -> Option<(u64, u64)> {
        let longest = self.graphs.iter().max_by_key(|graph| graph.nodes)?;
        let collectives = longest.by_kind.get("collective").into_iter().flat_map(Counts::values);
        Some((longest.nodes, collectives.sum()))
    }
}
