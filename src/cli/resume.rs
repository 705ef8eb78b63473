//! The command line of `scrimp resume`: types only.

use clap::Args;
use std::path::PathBuf;

/// Arguments of `scrimp resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The run directory
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Repeat the last STEPS logged steps from the newest checkpoint before them, and say whether their losses, rates
    /// and gradients are the same; nothing is written into the run. Exits with 1 where they are not
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub verify: Option<u64>,
    /// How far apart numbers may lie that count as the same, as a share of the larger one; with it, the number of
    /// processes and the device may be others than the run's [default: 0 on CPUs, bit for bit; on GPUs by the
    /// precision 1e-9 for fp64, 1e-3 for fp32, 1e-2 for tf32, 5e-2 for bf16]
    #[arg(long, value_name = "SHARE", requires = "verify", value_parser = share)]
    pub tolerance: Option<f64>,
    /// Print what came of it as JSON
    #[arg(long, requires = "verify")]
    pub json: bool,
}

/// Takes shares from 0 on.
fn share(word: &str) -> Result<f64, String> {
    let share = word.parse().ok().filter(|share: &f64| share.is_finite() && *share >= 0.0);
    share.ok_or_else(|| "expected a share from 0 on, for example `1e-6`".to_owned())
}
