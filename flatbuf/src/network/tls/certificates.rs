//! The files by which a process is known and knows others: `ca.pem`, `cert.pem`, `key.pem` in one folder.
//!
//! Invariant: what is in use is a whole set that fits together; a reload that fails changes nothing.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A process's certificate, and whom it believes.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    loaded: RwLock<Loaded>,
}

#[derive(Debug, Clone)]
struct Loaded {
    client: Arc<ClientConfig>,
    for_members: Arc<ServerConfig>,
    for_clients: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads the three files of `folder`.
    ///
    /// # Errors
    /// [`TlsError`], with the file and what is wrong with it.
    pub fn open(folder: &Path) -> Result<Arc<Self>, TlsError> {
        let loaded = RwLock::new(Loaded::read(folder)?);
        Ok(Arc::new(Self { folder: folder.to_owned(), loaded }))
    }

    /// Reads the files again; new connections use what they hold.
    ///
    /// # Errors
    /// As [`Certificates::open`]; what was in use stays so.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = Loaded::read(&self.folder)?;
        *self.loaded.write() = loaded;
        Ok(())
    }

    /// The files that are read.
    pub fn files(&self) -> [PathBuf; 3] {
        [AUTHORITY, CERTIFICATE, KEY].map(|name| self.folder.join(name))
    }

    /// To call other members, or any server that has a certificate of the same authority.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.loaded.read().client.clone()
    }

    pub(super) fn for_members(&self) -> Arc<ServerConfig> {
        self.loaded.read().for_members.clone()
    }

    pub(super) fn for_clients(&self) -> Arc<ServerConfig> {
        self.loaded.read().for_clients.clone()
    }
}

impl Loaded {
    fn read(folder: &Path) -> Result<Self, TlsError> {
        let (authority_path, certificate_path) = (folder.join(AUTHORITY), folder.join(CERTIFICATE));
        let key_path = folder.join(KEY);
        let mut roots = RootCertStore::empty();
        for authority in chain(&authority_path)? {
            roots.add(authority).map_err(|error| content(&authority_path, error))?;
        }
        let roots = Arc::new(roots);
        let chain = chain(&certificate_path)?;
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| match error {
            pem::Error::NoItemsFound => content(&key_path, "there is no private key in it"),
            error => unread(&key_path, error),
        })?;
        // The same for all processes, whatever else this one has installed.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unfit = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => {
                content(&key_path, format!("it is not the key of {}", certificate_path.display()))
            }
            error => content(&certificate_path, error),
        };
        Ok(Self {
            client: Arc::new(client(&provider, &roots, &chain, &key).map_err(unfit)?),
            for_members: Arc::new(server(&provider, Some(&roots), &chain, &key).map_err(unfit)?),
            for_clients: Arc::new(server(&provider, None, &chain, &key).map_err(unfit)?),
        })
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.to_vec(), key.clone_key())
}

/// With `members`, whoever comes shows a certificate of one of these authorities.
fn server(
    provider: &Arc<CryptoProvider>,
    members: Option<&Arc<RootCertStore>>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = match members {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
            let verifier = verifier.build().map_err(|error| {
                rustls::Error::General(format!("no authority to believe: {error}"))
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain.to_vec(), key.clone_key())
}

/// The certificates in a file, at least one.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unread(path, error))?;
    let chain: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unread(path, error))?;
    match chain.is_empty() {
        true => Err(content(path, "there is no certificate in it")),
        false => Ok(chain),
    }
}

fn unread(path: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::Io(source) => TlsError::File { path: path.to_owned(), source },
        error => content(path, format!("it is not in PEM: {error}")),
    }
}

fn content(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::Content { path: path.to_owned(), reason: reason.to_string() }
}
