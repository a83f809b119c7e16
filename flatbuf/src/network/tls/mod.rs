//! TLS over any network: members of a cluster know each other by certificates of one authority.
//!
//! Owns who is believed to be a member. Invariants: between members both sides show a certificate
//! of the cluster's authority, and the one that was called one for the name that was called; a
//! connection without is ended before a byte of it is read. Clients need no certificate, and get
//! the process's. The handshake is made by whoever first reads or writes, under that one's
//! deadline, so that a slow client holds up nobody else. Connections live on over a reload.

mod certificates;
mod stream;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use async_trait::async_trait;
pub use certificates::{Certificates, TlsError};
use rustls::{ServerConfig, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use self::stream::Accepted;
use super::{BoxStream, Listener, Network};

/// A network between members: every stream is mutual TLS.
pub struct TlsNetwork<N> {
    inner: N,
    certificates: Arc<Certificates>,
}

impl<N> TlsNetwork<N> {
    /// Streams of `inner`, secured by `certificates`.
    pub fn new(inner: N, certificates: Arc<Certificates>) -> Self {
        Self { inner, certificates }
    }
}

#[async_trait]
impl<N: Network> Network for TlsNetwork<N> {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|_| {
            let text = format!("{host} is no name that a certificate can have");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let stream = self.inner.connect(address).await?;
        let connector = TlsConnector::from(self.certificates.client());
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(io::Error::new(error.kind(), format!("TLS with {host}: {error}"))),
        }
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = self.inner.listen(address).await?;
        Ok(Box::new(TlsListener::for_members(listener, self.certificates.clone())))
    }
}

/// Takes streams as the server's side of TLS.
pub struct TlsListener {
    inner: Box<dyn Listener>,
    certificates: Arc<Certificates>,
    config: fn(&Certificates) -> Arc<ServerConfig>,
}

impl TlsListener {
    /// Who comes must show a certificate of the cluster's authority.
    #[must_use]
    pub fn for_members(inner: Box<dyn Listener>, certificates: Arc<Certificates>) -> Self {
        Self { inner, certificates, config: Certificates::for_members }
    }

    /// Anybody may come; who they are is asked above.
    #[must_use]
    pub fn for_clients(inner: Box<dyn Listener>, certificates: Arc<Certificates>) -> Self {
        Self { inner, certificates, config: Certificates::for_clients }
    }
}

#[async_trait]
impl Listener for TlsListener {
    async fn accept(&self) -> io::Result<(BoxStream, String)> {
        let (stream, from) = self.inner.accept().await?;
        let config = (self.config)(&self.certificates);
        Ok((Box::new(Accepted::new(config, stream, from.clone())), from))
    }

    fn address(&self) -> String {
        self.inner.address()
    }
}
