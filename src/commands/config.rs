//! `scrimp config`: says whether a configuration is sound, or prints what it resolves to.

use super::print;
use crate::cli::{Config, ConfigSource};
use crate::config::plan::RunPlan;
use crate::error::{Exit, Result};

/// Runs `scrimp config check` or `scrimp config show`.
pub(super) fn run(command: &Config) -> Result<Exit> {
    match command {
        Config::Check(source) => {
            let plan = check(source)?;
            let name = source.config.display();
            print(&format!("`{name}` is sound\n{}\n", plan.summary().join("\n")))?;
        }
        Config::Show(source) => print(&check(source)?.to_toml()?)?,
    }
    Ok(Exit::Done)
}

/// The plan of a configuration for one process, refused where it is unsound.
fn check(source: &ConfigSource) -> Result<RunPlan> {
    let config = crate::config::read(&source.config, &source.overrides)?;
    #[cfg(feature = "torch")]
    return super::run::resolve(&config, 1);
    // Without libtorch there are no methods to ask about their parameters.
    #[cfg(not(feature = "torch"))]
    RunPlan::resolve(config, 1)
}
