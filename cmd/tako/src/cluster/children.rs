//! The launcher's processes: started, watched, stopped; one task waits for each.
//!
//! Invariants: a process has a pid file while it lives; it is told to stop by a signal, and by the
//! end of its standard input if the launcher dies. Each is in a process group of its own, so that
//! Ctrl-C at the terminal reaches the launcher alone and the order of stopping holds.

use std::{
    fmt,
    fs::File,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tako_types::ErrorKind;
use tokio::{
    process::{ChildStdin, Command},
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{Folder, Plan, Planned, Role};
use crate::failure::Failure;

/// Beyond this time a process that was told to stop is killed; a drain takes 5 s of it.
const STOP: Duration = Duration::from_secs(25);

/// How a process ended.
#[derive(Debug)]
pub(super) struct End {
    role: Role,
    pub(super) id: String,
    status: ExitStatus,
}

impl End {
    /// Whether it ended by itself because something was wrong.
    pub(super) fn gave_up(&self) -> bool {
        self.status.code().is_some_and(|code| code != 0)
    }

    /// The kind of failure the launcher ends with.
    pub(super) fn kind(&self) -> ErrorKind {
        match self.status.code() {
            Some(2) => ErrorKind::Invalid,
            Some(4) => ErrorKind::Conflict,
            Some(7) => ErrorKind::Corrupt,
            Some(1) => ErrorKind::Internal,
            _ => ErrorKind::Unavailable,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.role, self.id)?;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "ended with code {code}"),
            (None, Some(signal)) => write!(f, "was killed by signal {signal}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

struct Living {
    role: Role,
    id: String,
    pid: Pid,
    /// Its end, when the launcher is gone, stops the process.
    _stdin: Option<ChildStdin>,
}

/// See the module.
pub(super) struct Children {
    living: Vec<Living>,
    ends: mpsc::Receiver<End>,
    folder_run: Vec<(String, std::path::PathBuf)>,
}

impl Children {
    /// Starts all processes of the plan.
    ///
    /// # Errors
    /// When the program or a file cannot be had; what was started stops by itself then.
    pub(super) fn start(plan: &Plan, folder: &Folder) -> Result<Self, Failure> {
        let (sender, ends) = mpsc::channel(plan.processes.len().max(1));
        let mut children = Self { living: Vec::new(), ends, folder_run: Vec::new() };
        for planned in &plan.processes {
            children.start_one(planned, folder, sender.clone()).map_err(|error| {
                Failure::unavailable(format!(
                    "cannot start {} {}: {error}",
                    planned.role, planned.id
                ))
            })?;
        }
        Ok(children)
    }

    fn start_one(
        &mut self,
        planned: &Planned,
        folder: &Folder,
        sender: mpsc::Sender<End>,
    ) -> std::io::Result<()> {
        let log = File::create(folder.log_path(&planned.id))?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(&planned.arguments)
            .args(&planned.hidden)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let number = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = number.ok_or_else(|| std::io::Error::other("it has no process id"))?;
        let pid_path = folder.pid_path(&planned.id);
        std::fs::write(&pid_path, format!("{}\n", pid.as_raw_nonzero()))?;
        self.folder_run.push((planned.id.clone(), pid_path));
        // Waiting closes the standard input of a child that still has it.
        let stdin = child.stdin.take();
        let (role, id) = (planned.role, planned.id.clone());
        self.living.push(Living { role, id: id.clone(), pid, _stdin: stdin });
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                // The launcher is past caring when nobody receives.
                let _ = sender.send(End { role, id, status }).await;
            }
        });
        Ok(())
    }

    /// How many live, as far as is known.
    pub(super) fn living(&self) -> usize {
        self.living.len()
    }

    /// Waits for the next process to end; for ever when there is none.
    pub(super) async fn next_end(&mut self) -> End {
        let Some(end) = self.ends.recv().await else { return std::future::pending().await };
        self.living.retain(|child| child.id != end.id);
        if let Some((_, path)) = self.folder_run.iter().find(|(id, _)| *id == end.id) {
            // Somebody may have removed it.
            let _ = std::fs::remove_file(path);
        }
        end
    }

    /// Stops all in order: proxies, then nodes, then coordinators.
    pub(super) async fn stop(&mut self) {
        for role in [Role::Proxy, Role::Node, Role::Coordinator] {
            self.signal(Some(role), Signal::TERM);
            if !self.wait(Some(role), Instant::now() + STOP).await {
                let ids: Vec<_> = self.of(Some(role)).map(|child| child.id.as_str()).collect();
                super::say(format_args!("killing what does not stop: {}", ids.join(", ")));
                self.signal(Some(role), Signal::KILL);
                self.wait(Some(role), Instant::now() + STOP).await;
            }
        }
    }

    /// Kills all.
    pub(super) async fn kill(&mut self) {
        self.signal(None, Signal::KILL);
        self.wait(None, Instant::now() + STOP).await;
    }

    fn of(&self, role: Option<Role>) -> impl Iterator<Item = &Living> {
        self.living.iter().filter(move |child| role.is_none_or(|role| child.role == role))
    }

    fn signal(&self, role: Option<Role>, signal: Signal) {
        for child in self.of(role) {
            // It may be gone already.
            let _ = kill_process(child.pid, signal);
        }
    }

    /// Whether all of the role ended in time.
    async fn wait(&mut self, role: Option<Role>, until: Instant) -> bool {
        while self.of(role).next().is_some() {
            if timeout_at(until, self.next_end()).await.is_err() {
                return false;
            }
        }
        true
    }
}
