//! Namespaces of our own, where the system permits them: networks that can be cut, small disks.
//!
//! The program starts itself again under `unshare` with its own user, network, mount and process
//! namespaces; that needs no root where user namespaces are permitted. Invariant: nothing of it
//! outlives the program, however that ends: with the first process of the namespaces the kernel
//! ends all others and takes back networks and mounts. So nothing has to be cleaned up.
//!
//! ```text
//! this program, coordinator, S3 server   10.77.0.1 ─┬─ 10.77.1.2  n1, a network of its own
//! (forwards between the networks)                   ├─ 10.77.2.2  n2
//!                                                   └─ 10.77.9.2  the proxy
//! ```
//! A cut is a rule at the forwarding side that drops what goes from one address to another,
//! silently and one way.

use std::{
    env, io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

const MARK: &str = "TAKO_CHAOS_INSIDE";
/// Number of the proxy's network.
pub const PROXY: usize = 9;
/// Where this side listens.
pub const OUR_HOST: &str = "10.77.0.1";

/// Whether there are namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    /// This process is in namespaces of its own.
    Inside,
    /// They are not permitted, or their tools are not there; why.
    Denied(String),
}

/// What is tried before, in namespaces that end at once.
const PROBE: &str = "
mount -t tmpfs none /run
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
ip netns add probe
ip link add v1 type veth peer name eth0 netns probe
ip rule add prio 100 from 10.77.1.2 to 10.77.2.2 blackhole
nsenter --net=/run/netns/probe true
mkdir /run/small && mount -t tmpfs -o size=64k none /run/small
";

/// Goes into namespaces: on success this function does not return the first time, for the program
/// starts again inside. With `wanted` false it stays outside.
#[must_use]
pub fn enter(wanted: bool) -> Sandbox {
    if env::var_os(MARK).is_some() {
        return match set_up() {
            Ok(()) => Sandbox::Inside,
            Err(error) => Sandbox::Denied(format!("{error:#}")),
        };
    }
    if !wanted {
        return Sandbox::Denied("not wanted (--no-namespaces)".to_owned());
    }
    let probe = unshare().args(["sh", "-ec", PROBE]).stdin(Stdio::null()).output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            return Sandbox::Denied(text.lines().next().unwrap_or("unshare failed").to_owned());
        }
        Err(error) => return Sandbox::Denied(format!("unshare: {error}")),
    }
    let Ok(own) = env::current_exe() else {
        return Sandbox::Denied("this program cannot be found".to_owned());
    };
    // A server outside cannot be reached from inside.
    let error = unshare()
        .arg(own)
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .env_remove("TAKO_TEST_S3")
        .exec();
    Sandbox::Denied(format!("unshare: {error}"))
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command
}

fn set_up() -> anyhow::Result<()> {
    run(&format!(
        "mount -t tmpfs none /run
         ip link set lo up
         ip addr add {OUR_HOST}/32 dev lo
         echo 1 > /proc/sys/net/ipv4/ip_forward"
    ))
}

/// The address of a network's one host.
#[must_use]
pub fn host(number: usize) -> String {
    format!("10.77.{number}.2")
}

/// What runs a program in a network, before the program's own line.
#[must_use]
pub fn prefix(number: usize) -> Vec<String> {
    vec!["nsenter".to_owned(), format!("--net=/run/netns/h{number}"), "--".to_owned()]
}

/// Makes a network.
///
/// # Errors
/// What the tools say.
pub fn add_network(number: usize) -> anyhow::Result<()> {
    run(&format!(
        "ip netns add h{number}
         ip link add v{number} type veth peer name eth0 netns h{number}
         ip addr add 10.77.{number}.1/24 dev v{number}
         ip link set v{number} up
         ip -n h{number} addr add 10.77.{number}.2/24 dev eth0
         ip -n h{number} link set eth0 up
         ip -n h{number} link set lo up
         ip -n h{number} route add default via 10.77.{number}.1"
    ))
}

/// Drops what goes from one network to another, from now on.
///
/// # Errors
/// What the tools say.
pub fn cut(from: usize, to: usize) -> anyhow::Result<()> {
    run(&rule("add", from, to))
}

/// Lets through again what [`cut`] dropped.
///
/// # Errors
/// What the tools say.
pub fn mend(from: usize, to: usize) -> anyhow::Result<()> {
    run(&rule("del", from, to))
}

fn rule(what: &str, from: usize, to: usize) -> String {
    format!("ip rule {what} prio 100 from {} to {} blackhole", host(from), host(to))
}

/// Mounts a small disk, in memory, on a folder that it makes.
///
/// # Errors
/// What the tools say.
pub fn small_disk(folder: &Path, bytes: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let done = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"])
        .arg(folder)
        .stdin(Stdio::null())
        .output();
    check("mount", done)
}

fn run(script: &str) -> anyhow::Result<()> {
    check(script, Command::new("sh").args(["-ec", script]).stdin(Stdio::null()).output())
}

fn check(what: &str, done: io::Result<std::process::Output>) -> anyhow::Result<()> {
    let output = done.with_context(|| what.to_owned())?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
