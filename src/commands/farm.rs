//! `scrimp farm`: runs the jobs of a farm file as room for them becomes free, or submits them to Slurm.
//!
//! What follows from the file is decided in `farm`; here it is read, checked, written down and set to work.

mod check;
mod inquiry;
mod ledger;
mod listing;
mod nodes;
mod outcome;
mod process;
mod recover;
mod running;
mod submit;
mod table;
mod taking_up;
mod wish;

use super::{print, print_json, run_directory, say};
use crate::cli;
use crate::error::{Context, Exit, Failure, Result};
use crate::farm::file::FarmFile;
use crate::farm::machine::{Machine, Room};
use crate::farm::nodes::FarmNode;
use crate::farm::plan::FarmPlan;
use crate::files;
use crate::runlog::farm::{FarmDirectory, Slots};
use serde::Serialize;
use std::fmt::Arguments;
use std::path::Path;

/// Slots without number, for farms whose jobs run elsewhere.
const ELSEWHERE: usize = 1 << 16;
/// The largest file of nodes that is read, 16 MiB.
const NODES_BYTES: u64 = 1 << 24;

/// Runs `scrimp farm`.
pub(super) fn run(arguments: &cli::Farm) -> Result<Exit> {
    let file = FarmFile::read(&arguments.file)?;
    let directory = run_directory(Some(&arguments.file), arguments.run.as_deref());
    let directory = FarmDirectory::new(directory.root());
    let name = arguments.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if arguments.submit {
        return submit::run(arguments, &file, &name, &directory);
    }
    let room = room(&file)?;
    let plan = FarmPlan::new(&file, &name, &directory, &room.nodes)?;
    if arguments.table {
        if !directory.holds_a_farm() {
            let root = directory.root().display();
            return Err(Failure::usage(format!("there is no farm in `{root}`"))
                .hint("name the farm directory with `--run DIR`"));
        }
        table::tell(&file, &plan, &directory, arguments.json)?;
        return Ok(Exit::Done);
    }
    refuse_missing_gpus(&file, &room)?;
    let plan = check::all(&file, plan)?;
    if arguments.print {
        listing::tell(&plan, &room.nodes, &directory, arguments.json)?;
        return Ok(Exit::Done);
    }
    check::refuse_missing_data(&plan)?;
    running::Farm::begin(&file, plan, room, directory, arguments)?.run()
}

/// The slots that the file names, or those of the allocation that this is in, or of this machine.
fn room(file: &FarmFile) -> Result<Room> {
    let variable = |name: &str| std::env::var(name).ok();
    let pbs_nodes = variable("PBS_NODEFILE")
        .and_then(|path| files::read_text(Path::new(&path), NODES_BYTES).ok());
    let machine = Machine {
        variable: &variable,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        gpus: gpus_of_the_machine(),
        pbs_nodes: pbs_nodes.as_deref(),
    };
    machine.room(&file.slots)
}

/// GPUs as NVIDIA's driver lists them.
fn gpus_of_the_machine() -> usize {
    std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count)
}

/// Slots without number where the file says none: what there is, Slurm knows.
fn room_elsewhere(file: &FarmFile, has_gpus: bool) -> FarmNode {
    let gpus = if has_gpus { ELSEWHERE } else { 0 };
    FarmNode::alone(Slots {
        processes: file.slots.processes.unwrap_or(ELSEWHERE),
        gpus: file.slots.gpus.unwrap_or(gpus),
    })
}

fn refuse_missing_gpus(file: &FarmFile, room: &Room) -> Result<()> {
    let wanted = room.nodes.iter().map(|node| node.gpus).max().unwrap_or(0);
    let found = room.gpu_names.len();
    if wanted <= found {
        return Ok(());
    }
    let total = file.slots.gpus.unwrap_or(wanted);
    let each = match room.nodes.len() {
        1 => String::new(),
        count => format!(", {wanted} on each of {count} nodes"),
    };
    let message = format!("`slots.gpus` is {total}{each}, and {found} GPUs may be used here");
    Err(file.refuse("slots.gpus", &message).hint("`CUDA_VISIBLE_DEVICES` says which may be used"))
}

/// Writes what was asked for to stdout: facts for a program, or text for a person.
fn show(is_json: bool, facts: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    if is_json { print_json(facts) } else { print(&text()) }
}

/// Tells a person what the farm does.
fn tell(line: Arguments<'_>) {
    say(format_args!("farm: {line}"));
}

/// Replaces `path`, which lies in the farm directory.
fn write(path: &Path, text: &str) -> Result<()> {
    files::replace_durably(path, text.as_bytes())
        .context(|| format!("cannot write `{}`", path.display()))
}
