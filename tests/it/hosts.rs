//! Trains over two hosts that are namespaces of this machine, where this user may make any.

use crate::skips::skipped;
use std::process::{Command, Output};

/// What a script of `tests/hosts` says.
fn cluster(trials: &[&str]) -> Output {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosts/cluster"))
        .args(trials)
        .env("SCRIMP", env!("CARGO_BIN_EXE_scrimp"))
        .output()
        .unwrap()
}

/// Whether network namespaces can be made, and an interface in one of them.
fn may_make_hosts() -> bool {
    let script = "ip link add name bridge type bridge && mount -t sysfs none /sys";
    let arguments = ["--net", "--uts", "--mount", "--ipc", "sh", "-c", script];
    Command::new("unshare").args(arguments).output().is_ok_and(|made| made.status.success())
}

#[test]
fn two_hosts_without_a_name_server_train_together_and_one_goes_on_alone() {
    if !may_make_hosts() {
        return skipped("hosts that are namespaces need root and `ip`");
    }
    let Output { status, stdout, stderr } = cluster(&["trains", "killed"]);
    let [said, complained] =
        [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success() && said.lines().count() == 8, "{status}: {said}{complained}");
}
