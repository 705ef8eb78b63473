//! A farm as jobs of Slurm that wait for each other: a script for each, made from a template.
//!
//! Makes texts alone; who writes and submits them is somebody else.

use super::plan::{FarmPlan, TaskKind};
use crate::error::{Failure, Result};
use crate::launch::CommandLine;
use crate::runlog::farm::{FarmDirectory, FarmJob};
use std::path::{Path, PathBuf};

/// Options of the template that a job says itself, as `sbatch` spells them.
const OWN_OPTIONS: [&str; 16] = [
    "--job-name",
    "-J",
    "--output",
    "-o",
    "--nodes",
    "-N",
    "--ntasks",
    "-n",
    "--ntasks-per-node",
    "--gpus",
    "-G",
    "--gpus-per-node",
    "--gpus-per-task",
    "--gres",
    "--array",
    "-a",
];
/// What a run asks for when its time is over.
const REQUEUE: &str = "scontrol requeue \"$SLURM_JOB_ID\"";

/// A template: a job script that ends by starting `scrimp launch` in its place.
#[derive(Debug)]
pub struct Template<'a> {
    /// Its first line.
    shell: &'a str,
    /// What it asks of Slurm, without what each job says itself.
    options: Vec<&'a str>,
    /// What it does before.
    body: Vec<&'a str>,
    /// Whether it asks for GPUs.
    pub has_gpus: bool,
}

impl<'a> Template<'a> {
    /// Takes a job script called `name` apart.
    pub fn parse(text: &'a str, name: &Path) -> Result<Self> {
        let mut lines = text.lines();
        let refuse = |why: &str| {
            Failure::usage(format!("`{}` is no template of a job: {why}", name.display()))
                .hint("write it like `launch/train.slurm`, or name that with `--template`")
        };
        let shell = lines.next().filter(|line| line.starts_with("#!"));
        let shell =
            shell.ok_or_else(|| refuse("its first line names no shell, as `#!/bin/bash` does"))?;
        let before: Vec<&str> =
            lines.clone().take_while(|line| !line.starts_with("exec ")).collect();
        if before.len() == lines.count() {
            return Err(refuse(
                "no line begins with `exec `, in whose place the command of a job comes",
            ));
        }
        let option = |line: &&&str| line.starts_with("#SBATCH");
        let has_gpus = before
            .iter()
            .filter(option)
            .any(|line| ["--gpus", "--gres", "-G"].iter().any(|asked| line.contains(asked)));
        let options = before.iter().filter(option).copied().filter(|line| !is_own(line)).collect();
        let body = before.iter().copied().filter(|line| !line.starts_with('#')).collect();
        Ok(Self { shell, options, body, has_gpus })
    }

    /// The script of one job; `program` is the folder in which `scrimp` lies.
    fn script(&self, job: &FarmJob, words: Vec<String>, log: &Path, program: &Path) -> String {
        let is_run = job.run.is_some();
        let FarmJob { name, ranks, gpus, .. } = job;
        let mut lines = vec![self.shell.to_owned()];
        // A signal before the end of the time is for `scrimp launch`; other commands would die of it.
        let kept = self.options.iter().filter(|line| is_run || !line.contains("--signal"));
        lines.extend(kept.map(|line| (*line).to_owned()));
        lines.push(format!("#SBATCH --job-name={name}"));
        lines.push(format!("#SBATCH --output={}", log.display()));
        lines.push("#SBATCH --nodes=1".to_owned());
        lines.push(format!("#SBATCH --ntasks-per-node={ranks}"));
        if *gpus > 0.0 {
            lines.push(format!("#SBATCH --gpus-per-node={}", gpus.ceil()));
        }
        lines.extend(self.body.iter().map(|line| (*line).to_owned()));
        lines.push(format!("export PATH={}:\"$PATH\"", quoted(&program.display().to_string())));
        lines.push(format!("exec {}", CommandLine { variables: Vec::new(), words }));
        lines.join("\n") + "\n"
    }
}

fn quoted(word: &str) -> String {
    CommandLine { variables: Vec::new(), words: vec![word.to_owned()] }.to_string()
}

/// Whether a line of a template says what each job says itself.
fn is_own(line: &str) -> bool {
    let option = line.trim_start_matches("#SBATCH").trim();
    let name = option.split(['=', ' ']).next().unwrap_or_default();
    OWN_OPTIONS.contains(&name)
}

/// A job to be submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The name of the job.
    pub name: String,
    /// Where its script is to be written.
    pub path: PathBuf,
    /// The script.
    pub script: String,
    /// The jobs whose good end it waits for.
    pub needs: Vec<String>,
}

impl Submission {
    /// The words that submit it, where `number` is what Slurm calls a job that was submitted before.
    pub fn words(&self, number: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let mut words = ["sbatch", "--parsable"].map(str::to_owned).to_vec();
        let needs: Vec<String> = self.needs.iter().filter_map(|need| number(need)).collect();
        if !needs.is_empty() {
            words.push(format!("--dependency=afterok:{}", needs.join(":")));
            words.push("--kill-on-invalid-dep=yes".to_owned());
        }
        words.push(self.path.display().to_string());
        words
    }
}

/// The jobs of a farm that `is_left`, each behind those that it needs.
pub fn submissions(
    plan: &FarmPlan,
    directory: &FarmDirectory,
    template: &Template<'_>,
    program: &Path,
    is_left: impl Fn(&str) -> bool,
) -> Vec<Submission> {
    let mut open: Vec<(&FarmJob, &super::plan::Task)> =
        plan.list.jobs.iter().zip(&plan.tasks).collect();
    open.retain(|(job, _)| is_left(&job.name));
    let mut made = Vec::new();
    while !open.is_empty() {
        let is_open = |need: &String| open.iter().any(|(job, _)| job.name == *need);
        // Nothing needs itself, so that there is one.
        let next = open.iter().position(|(job, _)| !job.needs.iter().any(is_open)).unwrap_or(0);
        let (job, task) = open.remove(next);
        let mut options = ["--requeue", REQUEUE].map(str::to_owned).to_vec();
        if task.restarts > 0 {
            options.extend(["--restarts".to_owned(), task.restarts.to_string()]);
        }
        let words = task.kind.words(job, directory, &options);
        let words = match task.kind {
            // A folder of its own, as it has where the farm runs it.
            TaskKind::Command(_) => {
                in_folder(words, &directory.run(&job.name).root().display().to_string())
            }
            TaskKind::Train { .. } => words,
        };
        made.push(Submission {
            name: job.name.clone(),
            path: directory.root().join("submit").join(format!("{}.sh", job.name)),
            script: template.script(job, words, &directory.log(&job.name), program),
            needs: job.needs.iter().filter(|need| is_left(need)).cloned().collect(),
        });
    }
    made
}

/// The words of a command that begins with an empty folder.
fn in_folder(words: Vec<String>, folder: &str) -> Vec<String> {
    let script = "rm -rf \"$0\"; mkdir -p \"$0\"; exec \"$@\"";
    let shell = ["sh", "-ec", script, folder].map(str::to_owned);
    shell.into_iter().chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::file::FarmFile;
    use crate::farm::nodes::FarmNode;
    use crate::runlog::farm::Slots;

    const FARM: &str = "\
ranks = 2

[rows.second]
config = \"b.toml\"
needs = [\"first\"]
set = [\"data.path={first}/it's.h5\"]

[rows.first]
command = [\"scrimp\", \"prepare\", \"phantom\", \"--to\", \"{run}/p.h5\"]
ranks = 1
";

    const TEMPLATE: &str = "\
#!/usr/bin/env bash
# A comment of the template.
#SBATCH --job-name=scrimp
#SBATCH --nodes=2
#SBATCH --mem=32G
#SBATCH --signal=B:USR1@180
#SBATCH --gpus-per-node=4
set -euo pipefail
cd \"$SLURM_SUBMIT_DIR\"
exec scrimp launch --ranks \"$SLURM_NTASKS\" \\
  --restarts 2 \"$@\"
";

    #[test]
    fn jobs_become_scripts_behind_those_that_they_need() {
        let file = FarmFile::parse(FARM, "farm.toml").unwrap();
        let directory = FarmDirectory::new("runs/farm");
        let nodes = [FarmNode::alone(Slots { processes: 8, gpus: 8 })];
        let plan = FarmPlan::new(&file, "farm", &directory, &nodes).unwrap();
        let template = Template::parse(TEMPLATE, Path::new("job.sh")).unwrap();
        assert!(template.has_gpus);
        let all = submissions(&plan, &directory, &template, Path::new("/opt/a b"), |_| true);
        let words = |one: &Submission| one.words(|name| Some(format!("<{name}>"))).join(" ");
        let shown: Vec<String> =
            all.iter().map(|one| format!("{}\n{}", words(one), one.script)).collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        sbatch --parsable runs/farm/submit/first.sh
        #!/usr/bin/env bash
        #SBATCH --mem=32G
        #SBATCH --job-name=first
        #SBATCH --output=runs/farm/logs/first.log
        #SBATCH --nodes=1
        #SBATCH --ntasks-per-node=1
        set -euo pipefail
        cd "$SLURM_SUBMIT_DIR"
        export PATH='/opt/a b':"$PATH"
        exec sh -ec 'rm -rf "$0"; mkdir -p "$0"; exec "$@"' runs/farm/jobs/first scrimp prepare phantom --to runs/farm/jobs/first/p.h5

        sbatch --parsable --dependency=afterok:<first> --kill-on-invalid-dep=yes runs/farm/submit/second.sh
        #!/usr/bin/env bash
        #SBATCH --mem=32G
        #SBATCH --signal=B:USR1@180
        #SBATCH --job-name=second
        #SBATCH --output=runs/farm/logs/second.log
        #SBATCH --nodes=1
        #SBATCH --ntasks-per-node=2
        #SBATCH --gpus-per-node=2
        set -euo pipefail
        cd "$SLURM_SUBMIT_DIR"
        export PATH='/opt/a b':"$PATH"
        exec scrimp launch b.toml -n 2 --run runs/farm/jobs/second --requeue 'scontrol requeue "$SLURM_JOB_ID"' --set 'data.path=runs/farm/jobs/first/it'\''s.h5'
        "#);
        let rest =
            submissions(&plan, &directory, &template, Path::new("/"), |name| name == "second");
        assert_eq!(rest[0].words(|_| None), ["sbatch", "--parsable", "runs/farm/submit/second.sh"]);
    }

    #[test]
    fn the_job_script_of_the_repository_is_a_template() {
        let text = include_str!("../../launch/train.slurm");
        let template = Template::parse(text, Path::new("train.slurm")).unwrap();
        assert!(template.has_gpus);
        assert!(template.body.contains(&"cd \"$SLURM_SUBMIT_DIR\""));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let refused = ["", "#!/bin/bash\n#SBATCH --nodes=1\nsrun scrimp train\n"]
            .map(|text| Template::parse(text, Path::new("job.sh")).unwrap_err().to_string());
        insta::assert_snapshot!(refused.join("\n\n"), @r"
        error: `job.sh` is no template of a job: its first line names no shell, as `#!/bin/bash` does

        hint: write it like `launch/train.slurm`, or name that with `--template`

        error: `job.sh` is no template of a job: no line begins with `exec `, in whose place the command of a job comes

        hint: write it like `launch/train.slurm`, or name that with `--template`
        ");
    }
}
