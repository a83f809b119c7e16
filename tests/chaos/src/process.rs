//! One process of the cluster: started, killed, stopped, continued, started again.
//!
//! Invariant: it ends with this program, however that ends, even while it is stopped: a shell
//! beside it (the keeper) waits for the end of its own standard input and kills it then. The
//! keeper is gone before the process is waited for, so it never names a process of another.

use std::{
    fs::File,
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Waits for its standard input to end, then for nobody.
const KEEPER: &str = "cat > /dev/null; kill -KILL $1; kill -CONT $1";

/// How to run it.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its id in the configuration.
    pub id: String,
    /// Program and arguments.
    pub line: Vec<String>,
    /// What it says goes to the end of this file.
    pub log: PathBuf,
    /// Added to the environment.
    pub environment: Vec<(String, String)>,
}

/// See the module.
#[derive(Debug)]
pub struct Process {
    spec: Spec,
    running: Option<(Child, Child)>,
    /// Times it was started.
    pub starts: u64,
}

impl Process {
    /// Does not start it.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        Self { spec, running: None, starts: 0 }
    }

    /// Its id in the configuration.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.spec.id
    }

    /// Its system id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|(child, _)| child.id())
    }

    /// Starts it, if it does not run.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(&mut self) -> io::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.spec.log)?;
        let (program, arguments) = self.spec.line.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut child = Command::new(program)
            .args(arguments)
            .envs(self.spec.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let pid = child.id().to_string();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", &pid])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match keeper {
            Ok(keeper) => self.running = Some((child, keeper)),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        }
        self.starts += 1;
        Ok(())
    }

    /// How it ended, if it ended by itself since it was last looked at.
    ///
    /// # Errors
    /// What the system says.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some((child, keeper)) = &mut self.running else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        dismiss(keeper);
        self.running = None;
        Ok(Some(status))
    }

    /// Sends a signal; nothing happens when it does not run.
    pub fn signal(&self, signal: Signal) {
        let Some((child, _)) = &self.running else { return };
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            // It is a zombie at worst: nobody has waited for it.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it with -9 and waits for its end.
    pub fn kill(&mut self) {
        if let Some((mut child, mut keeper)) = self.running.take() {
            dismiss(&mut keeper);
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Tells it to end in good order; kills it when `patience` is over. How it ended.
    ///
    /// # Errors
    /// What the system says.
    pub async fn stop(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal(Signal::TERM);
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if self.running.is_none() {
                return Ok(None);
            }
            sleep(LOOK_EVERY).await;
        }
        self.kill();
        Ok(None)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn dismiss(keeper: &mut Child) {
    // It may have ended already.
    let _ = keeper.kill();
    let _ = keeper.wait();
}

/// A bug's way to end: a panic, an abort, a fault of memory.
#[must_use]
pub fn is_crash(status: ExitStatus) -> bool {
    matches!(status.code(), Some(1 | 101)) || matches!(status.signal(), Some(4 | 6 | 7 | 8 | 11))
}
