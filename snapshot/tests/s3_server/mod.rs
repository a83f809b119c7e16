//! An S3 server for tests: one that is named, or one that is started here and stopped again.
//!
//! `TAKO_TEST_S3` names the URL of a running one (with `AWS_ACCESS_KEY_ID` and
//! `AWS_SECRET_ACCESS_KEY` where `minioadmin` is not right for both). Otherwise `minio` or
//! `moto_server`, from `target/tools` or the PATH, runs on a port of the system's choosing with its
//! data in a temporary folder; `TAKO_TEST_S3=minio` or `=moto` takes that one only. Without any of
//! them a test is skipped aloud, or fails where `TAKO_REQUIRE_S3` is set.
//!
//! Invariant: a server that was started here ends with the test process, however that ends, and its
//! folder is removed: when its shell's standard input closes, that kills it by its own process id.
//! It listens on loopback only.
//!
//! Used by `snapshot/tests/s3.rs` and, by path, by the suite in `snapshot/src/tests`, by
//! `cmd/tako/tests/process/` and by `tests/chaos`.
#![allow(dead_code, reason = "each package uses its own part")]

use std::{
    env, fs,
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// The bucket of all tests; each test takes a prefix of its own.
pub const BUCKET: &str = "tako-test";

const SKIPPED: &str = "SKIPPED: no S3 server found; to get one: examples/minio/get-minio.sh, or \
    TAKO_TEST_S3=http://HOST:PORT; docs/testing.md has more";
const MINIO: &str = "minio";
const MOTO: &str = "moto_server";
const DEFAULT_KEY: &str = "minioadmin";
const START_DEADLINE: Duration = Duration::from_secs(60);
const IO_DEADLINE: Duration = Duration::from_secs(10);

/// Kills the server when standard input ends, which it does with the test process, and removes the
/// folder, which is the first argument.
const KEEPER: &str = r#"folder=$1; shift; "$@" & server=$!; cat > /dev/null; kill -9 "$server"
    wait "$server"; rm -rf -- "$folder""#;

/// A server with [`BUCKET`] in it.
pub struct S3Server {
    /// Such as `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// Key id of whoever may do everything.
    pub access_key_id: String,
    /// And the secret.
    pub secret_access_key: String,
    /// The shell around a server that was started here.
    keeper: Option<Child>,
}

enum Program {
    Minio(PathBuf),
    Moto(PathBuf),
}

impl S3Server {
    /// The server to test with; `None`, and a line on standard error, where there is none.
    ///
    /// # Panics
    /// When there is none and there has to be one, or when one does not come up.
    pub fn find() -> Option<Self> {
        let named = env::var("TAKO_TEST_S3").unwrap_or_default();
        let programs: &[&str] = match named.as_str() {
            "" => &[MINIO, MOTO],
            "minio" => &[MINIO],
            "moto" => &[MOTO],
            _ => &[],
        };
        let server = match Program::find(programs) {
            _ if programs.is_empty() => Self::named(named.trim_end_matches('/')),
            Some(program) => program.start(),
            None => {
                assert!(env::var_os("TAKO_REQUIRE_S3").is_none(), "{SKIPPED}");
                // Past the capture of the test harness, which hides what passes.
                let _ = writeln!(io::stderr(), "\n{SKIPPED}\n");
                return None;
            }
        };
        server.make_bucket();
        Some(server)
    }

    /// One for all tests of this process.
    ///
    /// # Panics
    /// As [`Self::find`].
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<S3Server>> = OnceLock::new();
        SHARED.get_or_init(Self::find).as_ref()
    }

    /// Whether it ends when this is dropped.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.keeper.is_some()
    }

    /// URL of a root that no other test uses.
    #[must_use]
    pub fn url(&self, test: &str) -> String {
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = nanos.expect("after 1970").as_nanos();
        format!("s3://{BUCKET}/{test}-{}-{nanos}", std::process::id())
    }

    fn named(url: &str) -> Self {
        let key = |name| env::var(name).unwrap_or_else(|_| DEFAULT_KEY.to_owned());
        Self {
            endpoint: url.to_owned(),
            access_key_id: key("AWS_ACCESS_KEY_ID"),
            secret_access_key: key("AWS_SECRET_ACCESS_KEY"),
            keeper: None,
        }
    }

    /// Unsigned, so it is only tried: a server that wants signatures needs to have the bucket.
    fn make_bucket(&self) {
        let Some(address) = self.endpoint.strip_prefix("http://") else { return };
        let until = Instant::now() + START_DEADLINE;
        let mut status = 503;
        // MinIO says that it is ready a moment before it takes requests.
        while status == 503 && Instant::now() < until {
            let answer = request(address, "PUT", &format!("/{BUCKET}"));
            status = answer.expect("the S3 server answers");
            thread::sleep(Duration::from_millis(if status == 503 { 50 } else { 0 }));
        }
        assert!(matches!(status, 200 | 403 | 409), "PUT of the bucket was answered {status}");
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

impl Program {
    /// The first of the programs with these names.
    fn find(names: &[&str]) -> Option<Self> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|folder| folder.join("target/tools"))
            .find(|folder| folder.is_dir());
        let tools = tools.into_iter().flat_map(|tools| [tools.join("moto/bin"), tools]);
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = tools.chain(env::split_paths(&path)).collect();
        let (name, program) = names.iter().find_map(|name| {
            let mut programs = folders.iter().map(|folder| folder.join(name));
            Some((*name, programs.find(|program| program.is_file())?))
        })?;
        Some(if name == MINIO { Self::Minio(program) } else { Self::Moto(program) })
    }

    /// Starts it and waits until it answers.
    fn start(&self) -> S3Server {
        let folder = tempfile::tempdir().expect("a temp folder").keep();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let address = format!("127.0.0.1:{port}");
        let log_path = folder.join("log");
        let log = File::create(&log_path).expect("a log");

        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "s3-server"]).arg(&folder);
        let ready = match self {
            Self::Minio(program) => {
                // A folder in each drive is a bucket: no signed request is needed to make it.
                for drive in 1..=4 {
                    fs::create_dir_all(folder.join(format!("drive{drive}/{BUCKET}")))
                        .expect("a bucket");
                }
                command.arg(program).args(["server", "--quiet", "--address", &address]);
                command.arg(folder.join("drive{1...4}"));
                // Drives may be folders of one disk.
                command.env("MINIO_CI_CD", "on");
                command.env("MINIO_ROOT_USER", DEFAULT_KEY);
                command.env("MINIO_ROOT_PASSWORD", DEFAULT_KEY);
                // Else it serves a console at a port of all addresses, and looks for updates.
                command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off");
                "/minio/health/ready"
            }
            Self::Moto(program) => {
                command.arg(program).args(["-H", "127.0.0.1", "-p", &port.to_string()]);
                "/"
            }
        };
        let keeper = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a shell starts");
        let server = S3Server {
            endpoint: format!("http://{address}"),
            access_key_id: DEFAULT_KEY.to_owned(),
            secret_access_key: DEFAULT_KEY.to_owned(),
            keeper: Some(keeper),
        };
        let until = Instant::now() + START_DEADLINE;
        while !request(&address, "GET", ready).is_ok_and(|status| status == 200) {
            let log = || fs::read_to_string(&log_path).unwrap_or_default();
            assert!(Instant::now() < until, "the S3 server does not answer; it says:\n{}", log());
            thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

/// The status of one request without a body.
fn request(address: &str, method: &str, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(IO_DEADLINE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
