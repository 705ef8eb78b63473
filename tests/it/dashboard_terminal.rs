//! The dashboard on real terminals that go away, get signals or do not answer: the process ends with its
//! terminal, and gives back one that stays.

use crate::dashboard::recorded;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use scrimp::runlog::directory::RunDirectory;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take that takes far less than two seconds where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal of 100 x 30 characters: the side of the one who looks at it, and the side of programs.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let outer = openpt(flags).unwrap();
    grantpt(&outer).unwrap();
    unlockpt(&outer).unwrap();
    let name = ptsname(&outer, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inner = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&outer, size).unwrap();
    (outer, inner)
}

/// A process with the terminal, which kills it where a test fails.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.0.kill());
    }
}

impl Watching {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn end(mut self, why: &str) -> ExitStatus {
        let id = Pid::from_child(&self.0);
        let (sender, ended) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(self.0.wait().unwrap()).unwrap());
            ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                kill_process(id, Signal::KILL).unwrap();
                panic!("outlives its terminal: {why}")
            })
        })
    }
}

/// `scrimp watch` in a terminal, behind the words of another program.
fn watch(before: &[&str], inner: &OwnedFd) -> Watching {
    let run = recorded("schema-1");
    let scrimp = [env!("CARGO_BIN_EXE_scrimp"), "watch", run.root().to_str().unwrap()];
    let words = [before, &scrimp].concat();
    let side = || Stdio::from(inner.try_clone().unwrap());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(side()).stdout(side()).stderr(side());
    command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
    Watching(command.spawn().unwrap())
}

/// Reads what is shown until `expected` is.
fn read_until(outer: &OwnedFd, expected: &str) -> String {
    let (end, mut shown) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        let wait = end.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(outer, PollFlags::IN)], Some(&wait)).unwrap();
        let text = String::from_utf8_lossy(&shown).into_owned();
        assert!(ready > 0, "`{expected:?}` is not shown: {text:?}");
        let mut piece = [0; 4096];
        let read = rustix::io::read(outer, &mut piece).unwrap();
        shown.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&shown);
        if text.contains(expected) {
            return text.into_owned();
        }
    }
}

#[test]
fn the_dashboard_ends_with_its_terminal() {
    let ignoring = ["setsid", "--ctty", "sh", "-c", "trap '' HUP; exec \"$0\" \"$@\""];
    // Without a signal, with one, and with one that is ignored, as under nohup.
    for before in [&[][..], &["setsid", "--ctty"], &ignoring] {
        let (outer, inner) = terminal();
        let watching = watch(before, &inner);
        drop(inner);
        read_until(&outer, "silent");
        drop(outer);
        watching.end(&format!("{before:?}"));
    }
}

#[test]
fn a_signal_ends_the_dashboard_and_gives_the_terminal_back() {
    // Also while a library waits for the rest of a key, or for an answer of the terminal.
    let waits = [("", ""), ("\x1b[", ""), ("4", "\x1b[5n")];
    for (signal, (keys, shown)) in [Signal::TERM, Signal::INT, Signal::HUP].into_iter().zip(waits) {
        let (outer, inner) = terminal();
        let is_plain = || {
            let modes = tcgetattr(&inner).unwrap().local_modes;
            modes.contains(LocalModes::ICANON | LocalModes::ECHO)
        };
        assert!(is_plain());
        // Whoever runs tests in the background of a shell ignores some of them, and so would the dashboard.
        let heeding = ["env", "--default-signal=INT,HUP", "setsid", "--ctty"];
        let watching = watch(&heeding, &inner);
        read_until(&outer, "silent");
        assert!(!is_plain());
        rustix::io::write(&outer, keys.as_bytes()).unwrap();
        if !shown.is_empty() {
            read_until(&outer, shown);
        }
        watching.signal(signal);
        let farewell = read_until(&outer, "\x1b[?1049l\x1b[?25h");
        assert!(farewell.contains("\x1b[?1003l"), "{farewell:?}");
        assert_eq!(watching.end(keys).code(), Some(0));
        assert!(is_plain());
    }
}

#[test]
fn a_terminal_that_does_not_answer_shows_the_cases_all_the_same() {
    let (outer, inner) = terminal();
    let watching = watch(&[], &inner);
    read_until(&outer, "silent");
    rustix::io::write(&outer, b"4").unwrap();
    read_until(&outer, "\x1b[5n");
    // Somebody who types is no answer.
    rustix::io::write(&outer, b"x").unwrap();
    // The title of that view; where the former screen had the same character, none is sent.
    read_until(&outer, "held-out");
    rustix::io::write(&outer, b"q").unwrap();
    assert_eq!(watching.end("q").code(), Some(0));
}

#[test]
fn a_terminal_without_a_cursor_gets_lines() {
    let (outer, inner) = terminal();
    let watching = watch(&["env", "TERM=dumb"], &inner);
    let shown = read_until(&outer, "mean Dice");
    assert!(!shown.contains('\x1b'), "{shown:?}");
    drop((outer, inner));
    watching.end("dumb");
}

#[test]
fn lines_end_with_their_reader_although_nothing_is_to_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RunDirectory::new(folder.path());
    let _claim = directory.claim().unwrap();
    std::fs::create_dir_all(directory.events()).unwrap();
    std::fs::copy(recorded("schema-1").rank_events(0), directory.rank_events(0)).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scrimp"));
    command.args(["watch", "--plain", "--interval", "100000"]).arg(folder.path());
    let watching = Watching(command.stdin(Stdio::null()).stdout(writer).spawn().unwrap());
    drop(command);
    let mut first = [0; 8];
    reader.read_exact(&mut first).unwrap();
    drop(reader);
    assert_eq!(watching.end("a pipe").code(), Some(0));
}
