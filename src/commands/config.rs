//! `scrimp config`: says whether a configuration and its data are sound, or prints what it resolves to.

#[cfg(feature = "torch")]
use super::examine::{self, Found};
use super::print;
#[cfg(feature = "torch")]
use super::say;
use crate::cli::{Config, ConfigSource};
use crate::config::plan::RunPlan;
use crate::error::{Exit, Result};
use std::path::Path;

/// Runs `scrimp config check` or `scrimp config show`.
pub(super) fn run(command: &Config) -> Result<Exit> {
    match command {
        Config::Check(source) => {
            let plan = check(source)?;
            let verdict = verdict(&plan, &source.config.display().to_string())?;
            print(&format!("{verdict}\n{}\n", plan.summary().join("\n")))?;
        }
        Config::Show(source) => print(&check(source)?.to_toml()?)?,
    }
    Ok(Exit::Done)
}

/// The plan of a configuration for one process, refused where it is unsound.
fn check(source: &ConfigSource) -> Result<RunPlan> {
    resolve(&source.config, &source.overrides, 1)
}

/// The plan of the configuration at `path` for so many ranks, refused where it is unsound.
pub(super) fn resolve(path: &Path, overrides: &[String], ranks: usize) -> Result<RunPlan> {
    let config = crate::config::read(path, overrides)?;
    #[cfg(feature = "torch")]
    return super::run::resolve(&config, ranks);
    // Without libtorch there are no methods to ask about their parameters.
    #[cfg(not(feature = "torch"))]
    RunPlan::resolve(config, ranks)
}

/// What is said of a plan in which nothing is wrong, and of how much of it was looked at.
#[cfg(feature = "torch")]
fn verdict(plan: &RunPlan, name: &str) -> Result<String> {
    Ok(match examine::all(plan)? {
        Found::Sound(warnings) => {
            for warning in warnings {
                say(format_args!("warning: {warning}"));
            }
            format!("`{name}` is sound, and so are its data")
        }
        Found::Absent(path) => format!(
            "nothing is wrong in `{name}` itself; its data were not looked at, since there is no `{}`",
            path.display()
        ),
    })
}

#[cfg(not(feature = "torch"))]
#[expect(clippy::unnecessary_wraps, reason = "with libtorch it can fail")]
fn verdict(_plan: &RunPlan, name: &str) -> Result<String> {
    Ok(format!(
        "nothing is wrong in `{name}` itself; parameters of the method and data were not looked at: this \
         build has no `torch`"
    ))
}
