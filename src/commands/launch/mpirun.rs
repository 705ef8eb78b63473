//! The process of `mpirun`: how it is started, what it is sent, and where its output goes.
//!
//! Why it is started or sent anything is not known here.

use crate::error::{Context, Exit, Failure, Result};
use crate::launch::CommandLine;
use rustix::fs::{FileType, fstat};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the last lines of `mpirun` may take after its end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Between two looks at what ends soon.
const PAUSE: Duration = Duration::from_millis(10);

/// `mpirun`, while it runs.
#[derive(Default)]
pub(super) struct Mpirun {
    at_work: Mutex<Option<AtWork>>,
}

struct AtWork {
    child: Child,
    relays: Vec<JoinHandle<()>>,
}

impl Mpirun {
    fn at_work(&self) -> MutexGuard<'_, Option<AtWork>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it in a process group of its own: Ctrl-C reaches this process alone, which knows better what
    /// to do about it than `mpirun`.
    pub(super) fn start(&self, command: &CommandLine) -> Result<()> {
        let [program, arguments @ ..] = &command.words[..] else {
            return Err(Failure::new("there is nothing to start"));
        };
        let mut at_work = self.at_work();
        let mut child = Command::new(program)
            .args(arguments)
            .envs(command.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output(&std::io::stdout()))
            .stderr(output(&std::io::stderr()))
            .process_group(0)
            .spawn()
            .context(|| format!("cannot start `{program}`"))
            .map_err(|failure| {
                failure.hint("load Open MPI, for example with `module load openmpi`")
            })?;
        let stdout = child.stdout.take().map(|from| relay(from, std::io::stdout()));
        let stderr = child.stderr.take().map(|from| relay(from, std::io::stderr()));
        let relays = stdout.into_iter().chain(stderr).collect();
        *at_work = Some(AtWork { child, relays });
        Ok(())
    }

    /// How it has ended, as a shell says it; none while it runs.
    pub(super) fn ended(&self) -> Result<Option<i32>> {
        let mut at_work = self.at_work();
        let Some(AtWork { child, .. }) = &mut *at_work else { return Ok(None) };
        let Some(status) = child.try_wait().context(|| "cannot wait for `mpirun`")? else {
            return Ok(None);
        };
        let relays = at_work.take().map(|at_work| at_work.relays).unwrap_or_default();
        // A process that `mpirun` has left behind may keep its output open.
        let start = Instant::now();
        while !relays.iter().all(JoinHandle::is_finished) && start.elapsed() < LAST_LINES {
            std::thread::sleep(PAUSE);
        }
        Ok(Some(code(status)))
    }

    /// Sends it a signal, if it runs.
    pub(super) fn send(&self, signal: Signal) {
        if let Some(AtWork { child, .. }) = &*self.at_work() {
            // Until it is waited for, nobody else has its number.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

/// Where `mpirun` writes what is for `own`: into it, or into a pipe of this process where `own` is one, since
/// `mpirun` ends the run when its reader goes away.
fn output(own: &impl AsFd) -> Stdio {
    let kind = fstat(own).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if matches!(kind, Ok(FileType::Fifo | FileType::Socket)) {
        Stdio::piped()
    } else {
        Stdio::inherit()
    }
}

/// Passes on what comes, and goes on reading when nobody takes it any more.
fn relay(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        let mut is_read = true;
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            is_read = is_read && to.write_all(&bytes[..count]).and_then(|()| to.flush()).is_ok();
        }
    })
}

fn code(status: ExitStatus) -> i32 {
    let by_signal = status.signal().map_or(Exit::Failed as i32, |signal| 128 + signal);
    status.code().unwrap_or(by_signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(mpirun: &Mpirun) -> i32 {
        loop {
            if let Some(code) = mpirun.ended().unwrap() {
                return code;
            }
            std::thread::yield_now();
        }
    }

    fn shell(script: &str) -> CommandLine {
        CommandLine {
            variables: Vec::new(),
            words: ["sh", "-c", script].map(str::to_owned).to_vec(),
        }
    }

    #[test]
    fn its_end_is_told_as_a_shell_tells_it() {
        let mpirun = Mpirun::default();
        mpirun.send(Signal::KILL);
        mpirun.start(&shell("exit 75")).unwrap();
        assert_eq!(ended(&mpirun), 75);
        assert_eq!(mpirun.ended().unwrap(), None);
        mpirun.start(&shell("exec sleep 1000")).unwrap();
        mpirun.send(Signal::USR1);
        assert_eq!(ended(&mpirun), 138);
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let words = vec!["no-such-mpirun".to_owned()];
        let failure = Mpirun::default().start(&CommandLine { variables: Vec::new(), words });
        insta::assert_snapshot!(failure.unwrap_err(), @r"
        error: cannot start `no-such-mpirun`
          caused by: No such file or directory (os error 2)

        hint: load Open MPI, for example with `module load openmpi`
        ");
    }

    #[test]
    fn what_nobody_reads_any_more_is_read_on() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (reader, mut writer) = std::io::pipe().unwrap();
        let relay = relay(reader, Gone);
        for _ in 0..100 {
            writer.write_all(&[0; 4096]).unwrap();
        }
        drop(writer);
        relay.join().unwrap();
    }
}
