//! The text of each page, from the command line's definition, doc comments, and resolved defaults.

use super::source::{Documented, Types, parts};
use clap::{Arg, ArgAction, Command, CommandFactory};
use scrimp::config::{parse, plan::RunPlan};
use scrimp::data::stream::by_masks;
use scrimp::methods::{METHODS, MethodDef};
use scrimp::runlog::{Record, RunEvent};
use scrimp::train::learner::LearnerConfig;
use scrimp::train::optimizer::{AdamConfig, SgdConfig};
use std::fmt::Write;
use std::path::Path;
use syn::Type;
use toml::Table;

/// What only `[train]`, `[method]` and one source of data say; everything else is a default.
const LEAST: &str = "[data]\npath = 'p'\n[method]\nname = 'm'\n[train]\ntotal_steps = 1\n";
const LEAST_OF_PHANTOM: &str = "[data.phantom]\n[method]\nname = 'm'\n[train]\ntotal_steps = 1\n";
const LEAST_OF_LESIONS: &str =
    "[data.lesion_phantom]\n[method]\nname = 'm'\n[train]\ntotal_steps = 1\n";
const LEAST_OF_GAZE: &str = "[data.gaze_phantom]\n[method]\nname = 'm'\n[train]\ntotal_steps = 1\n";
const LEAST_OF_MODALITIES: &str =
    "[data.two_modality_phantom]\n[method]\nname = 'm'\n[train]\ntotal_steps = 1\n";
const LEAST_OF_SHAPES: &str = "[data.shapes]\npath = 'm'\n";
const LEAST_OF_PATCHES: &str = "[data.patches]\nextent = [16, 96, 96]\n";
const LEAST_OF_LEARNER: &str = "lr = 1.0\noptimizer = { sgd = {} }";
const LEARNER_FILES: [&str; 3] = ["train/learner.rs", "train/optimizer.rs", "train/schedule.rs"];
/// Where parameters of methods find tables and names to choose from, beside their own file.
const CHOICE_FILES: [&str; 5] = [
    "methods/puzzle.rs",
    "nets/gan.rs",
    "losses/contour.rs",
    "losses/intensity_variance.rs",
    "losses/mumford_shah.rs",
];

fn page(title: &str, introduction: &str) -> String {
    format!(
        "<!-- Made from the code by `SCRIMP_BLESS=1 launch/test reference`; do not edit. -->\n\n\
         # {title}\n\n{introduction}\n"
    )
}

/// `scrimp`'s subcommands, from the definition of the command line.
pub(super) fn commands() -> String {
    let mut text = page(
        "Commands",
        "Every command exits with one of [these codes](exit-codes.md), and with `--json` tells facts\nas \
         [JSON](../guides/scripts.md).",
    );
    let mut root = scrimp::cli::Cli::command();
    root.build();
    command(&mut text, &mut root);
    text
}

fn command(text: &mut String, of: &mut Command) {
    let is_own = |a: &&Arg| !["help", "version"].contains(&a.get_id().as_str());
    // Some do something by themselves and have parts beside that.
    if !of.has_subcommands() || of.get_arguments().any(|a| is_own(&a)) {
        one_command(text, of);
    }
    of.get_subcommands_mut()
        .filter(|c| c.get_name() != "help" && !c.is_hide_set())
        .for_each(|c| command(text, c));
}

fn one_command(text: &mut String, of: &mut Command) {
    let usage = of.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = of.get_bin_name().unwrap_or_default().to_owned();
    let about = of.get_about().map(ToString::to_string).unwrap_or_default();
    write!(text, "\n## {name}\n\n{about}.\n\n```text\n{usage}\n```\n").unwrap();
    let own = of.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str()));
    let own: Vec<String> = own.map(argument).collect();
    if !own.is_empty() {
        write!(text, "\n{}", own.concat()).unwrap();
    }
    if name == "scrimp watch" {
        text.push_str("\nKeys of the dashboard:\n\n| key | what it does |\n|---|---|\n");
        for key in scrimp::watch::update::KEYS {
            writeln!(text, "| `{}` | {} |", key.name, key.help).unwrap();
        }
        text.push_str("\nKeys of the dashboard of a farm:\n\n| key | what it does |\n|---|---|\n");
        for key in scrimp::watch::farm::FARM_KEYS {
            writeln!(text, "| `{}` | {} |", key.name, key.help).unwrap();
        }
    }
}

fn argument(of: &Arg) -> String {
    let value = of.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    let takes_value = of.get_action().takes_values();
    let name = match of.get_long() {
        Some(long) if takes_value => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None => value,
    };
    let repeated =
        matches!(of.get_action(), ArgAction::Append) && of.get_value_delimiter().is_none();
    let repeated = if repeated { " (any number of times)" } else { "" };
    let help = of.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.replace(" [default: ", "; default ");
    let help = help.trim_end_matches(']');
    let default = of.get_default_values().first().filter(|_| takes_value);
    let default = default.map(|value| format!("; default `{}`", value.display()));
    let default = default.unwrap_or_default();
    let mut text = format!("- `{name}`{repeated}: {help}{default}\n");
    for value in of.get_possible_values().iter().filter(|_| takes_value) {
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "  - `{}`: {help}", value.get_name()).unwrap();
    }
    text
}

/// The tables of a configuration: their names, their types, and their keys as they are where nothing is said.
fn sections() -> Vec<(&'static str, &'static str, Table)> {
    let plan = |text: &str| {
        let plan = RunPlan::resolve(parse(text, "least", &[]).unwrap(), 1).unwrap();
        plan.to_toml().unwrap().parse::<Table>().unwrap()
    };
    let inner = |table: &Table, key: &str| table[key].as_table().unwrap().clone();
    let packed = plan(LEAST);
    let of_data = |text: &str, key: &str| inner(&inner(&plan(text), "data"), key);
    let with = |more: &str| format!("{LEAST}{more}");
    vec![
        ("data", "DataConfig", inner(&packed, "data")),
        ("data.patches", "PatchesConfig", of_data(&with(LEAST_OF_PATCHES), "patches")),
        ("data.phantom", "PhantomConfig", of_data(LEAST_OF_PHANTOM, "phantom")),
        ("data.lesion_phantom", "LesionPhantomConfig", of_data(LEAST_OF_LESIONS, "lesion_phantom")),
        ("data.gaze_phantom", "GazePhantomConfig", of_data(LEAST_OF_GAZE, "gaze_phantom")),
        (
            "data.two_modality_phantom",
            "TwoModalityPhantomConfig",
            of_data(LEAST_OF_MODALITIES, "two_modality_phantom"),
        ),
        ("data.shapes", "ShapesConfig", of_data(&with(LEAST_OF_SHAPES), "shapes")),
        ("net", "NetConfig", inner(&packed, "net")),
        ("method", "MethodConfig", inner(&packed, "method")),
        ("train", "TrainConfig", inner(&packed, "train")),
    ]
}

/// Tables and keys of a configuration.
pub(super) fn configuration() -> String {
    let types = Types::read(
        &[&["config/mod.rs", "config/phantom_tables.rs", "config/sampling.rs"][..], &LEARNER_FILES]
            .concat(),
    );
    let mut text = page(
        "Configuration",
        "A configuration is a TOML file; `configs/` holds complete ones. Unknown keys are refused. \
         `--set KEY=VALUE`\nchanges a key, `scrimp config show CONFIG` prints all of them with every \
         default filled in.",
    );
    for (table, name, mut defaults) in sections() {
        let of = types.find(name).unwrap();
        for written in ["path", "name", "params", "total_steps", "extent"] {
            defaults.remove(written);
        }
        let doc = of.doc.split_once(": ").unwrap().1;
        write!(text, "\n## `[{table}]`\n\n{}\n\n", sentence(doc)).unwrap();
        keys(&mut text, &types, of, &defaults);
    }
    text.push_str("\n## A learner\n\n");
    let of = types.find("LearnerConfig").unwrap();
    writeln!(text, "{}\n", of.doc).unwrap();
    let defaults: LearnerConfig = toml::from_str(LEAST_OF_LEARNER).unwrap();
    let mut defaults = Table::try_from(defaults).unwrap();
    defaults.retain(|key, _| key != "lr" && key != "optimizer");
    keys(&mut text, &types, of, &defaults);
    for variant in &types.find("OptimizerConfig").unwrap().members {
        let name = parts(variant.value.as_ref().unwrap()).0;
        let defaults = match variant.name.as_str() {
            "sgd" => Table::try_from(SgdConfig::default()),
            "adamw" | "adam" => Table::try_from(AdamConfig::default()),
            other => panic!("the defaults of the optimiser `{other}` are not known here"),
        };
        write!(text, "\n### `optimizer.{}`\n\n{}\n\n", variant.name, variant.doc).unwrap();
        keys(&mut text, &types, types.find(&name).unwrap(), &defaults.unwrap());
    }
    text
}

/// A table of the keys of `of`, and what the values of those that choose mean.
fn keys(text: &mut String, types: &Types, of: &Documented, defaults: &Table) {
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    let mut choices = String::new();
    for key in &of.members {
        let value = key.value.as_ref().unwrap();
        let default = match defaults.get(&key.name) {
            Some(value) => format!("`{}`", value.to_string().replace('"', "")),
            None if key.has_default || parts(value).0 == "Option" => "–".to_owned(),
            None => "required".to_owned(),
        };
        let (meaning, said) = match key.doc.split_once(" (default ") {
            Some((meaning, said)) => (format!("{meaning}."), said.trim_end_matches(").")),
            None => (key.doc.clone(), ""),
        };
        let agrees = said.is_empty() || said.trim_matches('`') == default.trim_matches('`');
        assert!(agrees, "the doc comment of `{}` says default {said}, it is {default}", key.name);
        let name = &key.name;
        let of_type = innermost(value, types).map_or("", |found| found.doc.as_str());
        let meaning = if meaning.is_empty() { of_type } else { &meaning };
        writeln!(text, "| `{name}` | {} | {default} | {meaning} |", words(value, types)).unwrap();
        if let Some(choice) = innermost(value, types).filter(|found| found.is_choice()) {
            write!(choices, "\n`{name}` is one of\n\n").unwrap();
            for value in &choice.members {
                writeln!(choices, "- `{}`: {}", value.name, value.doc).unwrap();
                if let Some(table) = value.value.as_ref().and_then(|of| innermost(of, types)) {
                    choices.push_str("  It is a table of\n");
                    for key in &table.members {
                        let takes = words(key.value.as_ref().unwrap(), types);
                        writeln!(choices, "  - `{}`, {takes}: {}", key.name, key.doc).unwrap();
                    }
                }
            }
        }
    }
    text.push_str(&choices);
}

/// The type of `value`, or what it is an option or a list of, if the code documents it.
fn innermost<'a>(value: &Type, types: &'a Types) -> Option<&'a Documented> {
    let (name, inner) = parts(value);
    types.find(&name).or_else(|| inner.first().and_then(|value| innermost(value, types)))
}

/// A type as somebody says it who writes TOML or reads JSON.
fn words(value: &Type, types: &Types) -> String {
    let (name, inner) = parts(value);
    match (name.as_str(), &inner[..]) {
        ("Option", [inner]) => words(inner, types),
        ("Vec", [inner]) => format!("list of: {}", words(inner, types)),
        ("BTreeMap", [_, inner]) => format!("by name: {}", words(inner, types)),
        ("bool", _) => "true or false".to_owned(),
        ("u8" | "u32" | "u64" | "usize" | "i64", _) => "whole number".to_owned(),
        ("f32" | "f64", _) => "number".to_owned(),
        ("String" | "PathBuf", _) => "string".to_owned(),
        ("GraphChoice", _) => "true, false or `auto`".to_owned(),
        ("TimeSpan", _) => "time, such as `2h30m`, or `none`".to_owned(),
        ("LearnerConfig", _) => "[learner](configuration.md#a-learner)".to_owned(),
        _ => match types.find(&name).filter(|found| found.is_choice()) {
            Some(choice) if choice.members.iter().all(Documented::is_name) => "a name".to_owned(),
            Some(_) => "a name or a table".to_owned(),
            None => "table".to_owned(),
        },
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The methods that can be trained, and the parameters of each.
pub(super) fn methods() -> String {
    let mut text = page(
        "Methods",
        "`method.name` chooses one; what stands under *parameters* goes to `[method.params]`.",
    );
    for method in METHODS {
        let MethodDef { name, summary, paper, streams, .. } = method;
        let own = parameter_file(name);
        let types = Types::read(&[&[own.as_str()][..], &CHOICE_FILES, &LEARNER_FILES].concat());
        let params = types.find("Params").unwrap();
        write!(text, "\n## `{name}`\n\n{}. {paper}. ", sentence(summary)).unwrap();
        let shapes = "Needs [`[data.shapes]`](configuration.md#datashapes). ";
        text.push_str(if by_masks(streams) { shapes } else { "" });
        writeln!(text, "[More](../methods/{name}.md)\n\nParameters:\n").unwrap();
        let defaults = defaults_of(method, params);
        keys(&mut text, &types, params, &defaults);
        for key in &params.members {
            // Learners have a section of their own among the configuration's.
            let (name, _) = parts(key.value.as_ref().unwrap());
            let table = types.find(&name).filter(|of| name != "LearnerConfig" && !of.is_choice());
            if let Some(of) = table {
                write!(text, "\nThe table `{}`:\n\n", key.name).unwrap();
                keys(&mut text, &types, of, defaults[&key.name].as_table().unwrap());
            }
        }
    }
    text
}

/// The file below `src` that defines the parameters of a method.
fn parameter_file(method: &str) -> String {
    let module = format!("methods/{}", method.replace('-', "_"));
    let folder = format!("{}/src/{module}", env!("CARGO_MANIFEST_DIR"));
    if std::path::Path::new(&folder).is_dir() {
        format!("{module}/params.rs")
    } else {
        format!("{module}.rs")
    }
}

/// What a method fills in where its smoke configuration says only what must be said.
fn defaults_of(method: &MethodDef, params: &Documented) -> Table {
    let path = format!("{}/configs/smoke/{}.toml", env!("CARGO_MANIFEST_DIR"), method.name);
    let mut config: Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let written = config["method"]["params"].as_table_mut().unwrap();
    let optional = |key: &str| params.members.iter().any(|p| p.name == key && p.has_default);
    written.retain(|key, _| !optional(key));
    // Networks as large as they are by default do not fit small images, and not all fit one size.
    let of_size = |size: i64| {
        let mut config = config.clone();
        config["data"].as_table_mut().unwrap().insert("size".to_owned(), size.into());
        (method.check)(&parse(&toml::to_string(&config).unwrap(), method.name, &[]).unwrap())
    };
    let mut defaults = of_size(256).or_else(|_| of_size(212)).unwrap();
    defaults.retain(|key, _| optional(key));
    defaults
}

/// The events of the run log with their fields, and a line of each.
pub(super) fn run_log() -> String {
    let types = Types::read(&["runlog/mod.rs"]);
    let mut text = page(
        "The run log",
        "`RUN/events/rank-0000.jsonl` and one such file for each further process: one JSON object \
         per line.\n[The run directory](../concepts/run-directory.md) says who writes what, and when. \
         This is schema 1.\nReaders ignore events and fields that they do not know. A number that is \
         not finite is `null`.\n\nEvery line has, beside the fields of its event:",
    );
    text = text.replace("schema 1", &format!("schema {}", scrimp::runlog::SCHEMA));
    text.push_str("\n| field | value | meaning |\n|---|---|---|\n");
    let record = types.find("Record").unwrap();
    fields(&mut text, &types, &record.members[..2]);
    text.push_str("| `event` | string | What happened: one of the following. |\n");
    for event in &types.find("RunEvent").unwrap().members {
        let named = format!("`{}`: ", event.name);
        let doc = event.doc.strip_prefix(&named).unwrap();
        write!(text, "\n## `{}`\n\n{}\n\n", event.name, sentence(doc)).unwrap();
        text.push_str("| field | value | meaning |\n|---|---|---|\n");
        let of = event.value.as_ref().map_or(event, |value| innermost(value, &types).unwrap());
        fields(&mut text, &types, &of.members);
        write!(text, "\n```json\n{}\n```\n", example(&event.name)).unwrap();
    }
    text
}

fn fields(text: &mut String, types: &Types, members: &[Documented]) {
    for field in members {
        let value = field.value.as_ref().unwrap();
        let mut meaning = field.doc.replace("[`SCHEMA`]", "Version of the run log");
        let found = innermost(value, types);
        if let Some(choice) = found.filter(|found| found.is_choice()) {
            for value in &choice.members {
                write!(meaning, " `{}`: {}", value.name, value.doc).unwrap();
            }
        }
        writeln!(text, "| `{}` | {} | {meaning} |", field.name, words(value, types)).unwrap();
        if let Some(table) = found.filter(|found| !found.is_choice()) {
            for inner in &table.members {
                let (name, of) = (&inner.name, words(inner.value.as_ref().unwrap(), types));
                writeln!(text, "| `{}[].{name}` | {of} | {} |", field.name, inner.doc).unwrap();
            }
        }
    }
}

/// The first record of an event in the recorded runs of the tests, written again.
fn example(event: &str) -> String {
    // None of them was continued.
    let resumed = RunEvent::Resumed { step: 3000, checkpoint: "checkpoints/step-00003000".into() };
    let resumed = Record { time_ms: 1_760_000_400_000, rank: 0, event: resumed };
    let files = [
        "schema-1/events/rank-0000",
        "schema-1/events/rank-0002",
        "failed/events/rank-0000",
        "telemetry/events/rank-0000",
    ];
    let recorded = files.map(|file| {
        let file = format!("tests/it/runs/{file}.jsonl");
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
    });
    let recorded = recorded.iter().flat_map(|text| text.lines());
    let records = recorded.filter_map(|line| serde_json::from_str(line).ok());
    let mut lines = records.chain([resumed]).map(|record| serde_json::to_string(&record).unwrap());
    let said = format!("\"event\":\"{event}\"");
    lines.find(|line| line.contains(&said)).unwrap_or_else(|| panic!("there is no `{event}`"))
}
