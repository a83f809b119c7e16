//! The launcher's folder: one launcher at a time, process ids, logs.
//!
//! ```text
//! VAR/run/cluster.lock   held while a launcher runs; holds its process id
//! VAR/run/<id>.pid       one per process, removed when it ended
//! VAR/log/<id>.log       one per process, from its last start
//! ```
//! A file in `run` proves nothing by itself: the lock does, and the living process does.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tako_types::{ErrorKind, config::Config};

use super::{Plan, say};
use crate::{failure::Failure, signals::Stops};

const BUILT_IN: &str = include_str!("built_in.yaml");
/// Lines shown of the log of a process that died.
const TAIL_LINES: usize = 8;
/// Bytes read for them.
const TAIL_BYTES: u64 = 8 << 10;
/// How long processes of a killed launcher get to stop by themselves.
const EARLIER: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Folder {
    var: PathBuf,
    /// Held until the launcher ends; the system lets go of it in any case.
    _lock: File,
}

impl Folder {
    /// Makes the folder and locks it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another launcher runs on it.
    pub(super) fn open(var: &Path) -> Result<Self, Failure> {
        let run = var.join("run");
        let path = run.join("cluster.lock");
        let failed = |error: io::Error| {
            Failure::unavailable(format!("cannot use the folder {}: {error}", var.display()))
        };
        for folder in [&run, &var.join("log")] {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                return Err(Failure::new(
                    ErrorKind::Conflict,
                    format!(
                        "another `tako cluster` (process {}) runs in {}; stop it, or give --var \
                         another folder",
                        holder.trim(),
                        var.display()
                    ),
                ));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { var: var.to_owned(), _lock: lock })
    }

    /// `VAR/cluster.yaml`, which is written if it is not there.
    pub(super) fn built_in_configuration(&self) -> Result<PathBuf, Failure> {
        debug_assert!(Config::parse(BUILT_IN).is_ok());
        let path = self.var.join("cluster.yaml");
        let failed =
            |error: io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
        match File::create_new(&path) {
            Ok(mut file) => file.write_all(BUILT_IN.as_bytes()).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(path)
    }

    /// Waits for processes that a killed launcher left behind: they are about to stop.
    pub(super) async fn wait_for_earlier(
        &self,
        plan: &Plan,
        stops: &mut Stops,
    ) -> Result<(), Failure> {
        let left = || -> Vec<String> {
            let living = plan.processes.iter().filter_map(|process| {
                let pid = fs::read_to_string(self.pid_path(&process.id)).ok()?;
                is_child_of_launcher(pid.trim(), &process.id)
                    .then(|| format!("{} (process {})", process.id, pid.trim()))
            });
            living.collect()
        };
        if left().is_empty() {
            return Ok(());
        }
        say(format_args!("waiting for an earlier cluster to stop: {}", left().join(", ")));
        let until = tokio::time::Instant::now() + EARLIER;
        while !left().is_empty() {
            if until < tokio::time::Instant::now() {
                return Err(Failure::new(
                    ErrorKind::Conflict,
                    format!("an earlier cluster does not stop: {}; kill it", left().join(", ")),
                ));
            }
            tokio::select! {
                () = stops.next() => return Err(Failure::new(ErrorKind::Closed, "stopped")),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        Ok(())
    }

    /// Where everything lies.
    pub(super) fn var(&self) -> &Path {
        &self.var
    }

    pub(super) fn pid_path(&self, id: &str) -> PathBuf {
        self.var.join("run").join(format!("{id}.pid"))
    }

    pub(super) fn log_path(&self, id: &str) -> PathBuf {
        self.var.join("log").join(format!("{id}.log"))
    }

    /// The last lines of a process's log, indented.
    pub(super) fn log_tail(&self, id: &str) -> String {
        let path = self.log_path(id);
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = match read() {
            Ok(bytes) => bytes,
            Err(error) => return format!("  {}: {error}", path.display()),
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        match last {
            [] => format!("  nothing; its log {} is empty", path.display()),
            last => last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"),
        }
    }
}

/// Whether the process lives and was started by a launcher under that id.
///
/// Where the system does not show command lines, the answer is no, and the check of the ports
/// tells what is still there.
fn is_child_of_launcher(pid: &str, id: &str) -> bool {
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    words.contains(&&b"--stop-with-parent"[..]) && words.contains(&id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_configuration_is_valid_and_can_be_started() {
        let config = Config::parse(BUILT_IN).expect("valid");
        tako_types::config::check_startable(&config).expect("startable");
        assert_eq!(config.active_deployment().nodes().count(), 3);
    }

    #[test]
    fn a_second_lock_names_the_holder_and_a_dropped_one_is_free() {
        let var = tempfile::tempdir().expect("a temp folder");
        let first = Folder::open(var.path()).expect("the first");
        let error = Folder::open(var.path()).err().expect("refused").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(Folder::open(var.path()).is_ok());
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let var = tempfile::tempdir().expect("a temp folder");
        let folder = Folder::open(var.path()).expect("a folder");
        assert!(folder.log_tail("n1").contains("n1.log"));
        let text: String = (0..2000).map(|n| format!("line {n}\n")).collect();
        fs::write(folder.log_path("n1"), text).expect("written");
        let tail = folder.log_tail("n1");
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 1999"), "{tail}");
    }
}
