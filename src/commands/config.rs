//! `scrimp config`: says whether a configuration and its data are sound, or prints what it resolves to.

#[cfg(feature = "torch")]
use super::examine::{self, Found};
use super::{print, print_json, say};
use crate::cli::{Config, ConfigSource};
use crate::config::plan::RunPlan;
use crate::error::{Context, Exit, Result};
use serde_json::json;
use std::path::Path;

/// Runs `scrimp config check` or `scrimp config show`.
pub(super) fn run(command: &Config) -> Result<Exit> {
    match command {
        Config::Check(source) => {
            let plan = check(source)?;
            let verdict = verdict(&plan, &source.config.display().to_string())?;
            if source.json {
                print_json(&json!({
                    "config": source.config,
                    "verdict": verdict.sentence,
                    "were_data_looked_at": verdict.were_data_looked_at,
                    "warnings": verdict.warnings,
                    "plan": plan.summary(),
                }))?;
            } else {
                verdict.warnings.iter().for_each(|warning| say(format_args!("warning: {warning}")));
                print(&format!("{}\n{}\n", verdict.sentence, plan.summary().join("\n")))?;
            }
        }
        Config::Show(source) => {
            let text = check(source)?.to_toml()?;
            if source.json {
                let values: toml::Table =
                    text.parse().context(|| "cannot read the resolved configuration")?;
                print_json(&values)?;
            } else {
                print(&text)?;
            }
        }
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

/// What is said of a plan in which nothing is wrong, and how much of it was looked at.
struct Verdict {
    sentence: String,
    were_data_looked_at: bool,
    warnings: Vec<String>,
}

#[cfg(feature = "torch")]
fn verdict(plan: &RunPlan, name: &str) -> Result<Verdict> {
    Ok(match examine::all(plan)? {
        Found::Sound(warnings) => Verdict {
            sentence: format!("`{name}` is sound, and so are its data"),
            were_data_looked_at: true,
            warnings,
        },
        Found::Absent(path) => Verdict {
            sentence: format!(
                "nothing is wrong in `{name}` itself; its data were not looked at, since there is no `{}`",
                path.display()
            ),
            were_data_looked_at: false,
            warnings: Vec::new(),
        },
    })
}

#[cfg(not(feature = "torch"))]
#[expect(clippy::unnecessary_wraps, reason = "with libtorch it can fail")]
fn verdict(_plan: &RunPlan, name: &str) -> Result<Verdict> {
    let sentence = format!(
        "nothing is wrong in `{name}` itself; parameters of the method and data were not looked at: this \
         build has no `torch`"
    );
    Ok(Verdict { sentence, were_data_looked_at: false, warnings: Vec::new() })
}
