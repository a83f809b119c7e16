//! How a process proves who it is, and whom it lets near: certificates for members, tokens for clients.
//!
//! Invariant: no port is opened beyond loopback unless what it speaks asks callers who they are, or the
//! operator said `--insecure`. Certificates and tokens are read again when their files change; what is
//! wrong in them is logged and changes nothing. Secrets come from files or the environment, never from
//! arguments, which every user of a machine can see.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use clap::Args;
use tako_flatbuf::{Certificates, Listener, Network, TlsError, TlsListener, TlsNetwork};
use tako_gateway::{Access, TokensError};
use tako_types::ErrorKind;
use tokio_util::sync::CancellationToken;

use crate::{
    failure::Failure,
    listen::{Guard, GuardedTcp, Instead, listen},
};

/// How often files are looked at for a change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Where the token of a command is when there is no file of it.
const TOKEN_VARIABLE: &str = "TAKO_TOKEN";

/// The certificates of a process.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TlsArgs {
    /// Folder with ca.pem, cert.pem and key.pem: everything goes by TLS, and members of the cluster
    /// are whom that authority has signed
    #[arg(long, value_name = "DIR", env = "TAKO_TLS")]
    pub(crate) tls: Option<PathBuf>,
}

impl TlsArgs {
    pub(crate) fn open(&self) -> Result<Option<Arc<Certificates>>, Failure> {
        let opened = self.tls.as_deref().map(Certificates::open).transpose();
        opened.map_err(|error: TlsError| Failure::new(ErrorKind::Invalid, error.to_string()))
    }
}

/// Who of the clients may do what.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AccessArgs {
    /// File of tokens: clients must show one of them, and may do what it says (tako token)
    #[arg(long, value_name = "FILE", env = "TAKO_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,
    /// Speak memcached's protocols without TLS although there is --tls: few clients know it
    #[arg(long, requires = "tokens")]
    pub(crate) memcached_plain: bool,
}

/// What a command shows to those it asks.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// File with the token to show to nodes and proxies; else TAKO_TOKEN is it
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

impl AskArgs {
    pub(crate) fn token(&self) -> Result<Option<String>, Failure> {
        let token = match &self.token_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                Failure::invalid(format!("cannot read the token in {}: {error}", path.display()))
            })?),
            None => std::env::var(TOKEN_VARIABLE).ok(),
        };
        Ok(token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
    }
}

/// What members speak with each other, as one that only calls them.
pub(crate) fn between_members(certificates: Option<Arc<Certificates>>) -> Arc<dyn Network> {
    let tcp = GuardedTcp::default();
    match certificates {
        Some(certificates) => Arc::new(TlsNetwork::new(tcp, certificates)),
        None => Arc::new(tcp),
    }
}

/// What a serving process was given.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    insecure: bool,
    certificates: Option<Arc<Certificates>>,
    pub(crate) access: Option<Arc<Access>>,
    memcached_plain: bool,
}

impl Trust {
    pub(crate) fn open(
        insecure: bool,
        tls: &TlsArgs,
        access: &AccessArgs,
    ) -> Result<Self, Failure> {
        let tokens = access.tokens.as_deref().map(Access::open).transpose();
        let tokens = tokens.map_err(|error: TokensError| Failure::invalid(error.to_string()))?;
        Ok(Self {
            insecure,
            certificates: tls.open()?,
            access: tokens,
            memcached_plain: access.memcached_plain,
        })
    }

    /// Whether ports between members may be reached from elsewhere.
    pub(crate) fn for_members(&self) -> Guard {
        Guard { is_open: self.insecure || self.certificates.is_some(), needs: "--tls" }
    }

    /// The same of HTTP, or of memcached's protocols.
    pub(crate) fn for_clients(&self, what: &str) -> Guard {
        let is_asked = self.access.is_some();
        let is_tls = self.certificates.is_some();
        match what {
            "memcached" => Guard {
                is_open: self.insecure || (is_asked && (is_tls || self.memcached_plain)),
                needs: "--tokens, and --tls or --memcached-plain",
            },
            _ => Guard {
                is_open: self.insecure || (is_asked && is_tls),
                needs: "--tls and --tokens",
            },
        }
    }

    /// Between the members of a cluster.
    pub(crate) fn network(&self, instead: Instead) -> Arc<dyn Network> {
        let tcp = GuardedTcp { guard: self.for_members(), instead };
        match &self.certificates {
            Some(certificates) => Arc::new(TlsNetwork::new(tcp, certificates.clone())),
            None => Arc::new(tcp),
        }
    }

    /// A port for clients of `what`: `HTTP` or `memcached`.
    pub(crate) async fn listen(
        &self,
        what: &str,
        host: &str,
        port: u16,
    ) -> Result<Box<dyn Listener>, Failure> {
        let listener = listen(what, host, port, self.for_clients(what)).await?;
        let is_plain = what == "memcached" && self.memcached_plain;
        Ok(match &self.certificates {
            Some(certificates) if !is_plain => {
                Box::new(TlsListener::for_clients(listener, certificates.clone()))
            }
            _ => listener,
        })
    }

    /// Reads what changes, until the shutdown.
    pub(crate) fn watch(&self, shutdown: CancellationToken) {
        let (certificates, access) = (self.certificates.clone(), self.access.clone());
        if certificates.is_none() && access.is_none() {
            return;
        }
        let tls_files = certificates.iter().flat_map(|it| it.files()).collect();
        let token_files = access.iter().map(|it| it.file().to_owned()).collect();
        let (mut tls_files, mut token_files) = (Watched::new(tls_files), Watched::new(token_files));
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = shutdown.cancelled() => return,
                }
                if let Some(certificates) = &certificates
                    && tls_files.changed()
                {
                    told("certificates", certificates.reload().map_err(|it| it.to_string()));
                }
                if let Some(access) = &access
                    && token_files.changed()
                {
                    told("tokens", access.reload().map_err(|it| it.to_string()));
                }
            }
        });
    }
}

fn told(what: &str, reloaded: Result<(), String>) {
    match reloaded {
        Ok(()) => tracing::info!("new {what} are in force"),
        Err(error) => tracing::warn!("the {what} in force stay: {error}"),
    }
}

/// Files, and how they were when last looked at.
struct Watched {
    paths: Vec<PathBuf>,
    seen: Vec<Option<(SystemTime, u64)>>,
}

impl Watched {
    fn new(paths: Vec<PathBuf>) -> Self {
        let seen = paths.iter().map(|path| state_of(path)).collect();
        Self { paths, seen }
    }

    /// Whether any is another than before.
    fn changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| state_of(path)).collect();
        let is_same = now == self.seen;
        self.seen = now;
        !is_same
    }
}

fn state_of(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
