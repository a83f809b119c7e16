//! Listening: this machine only, unless the operator says `--insecure`.
//!
//! Invariant: no port is opened beyond loopback without that word. There is no TLS and no password
//! yet, so whoever reaches a port can read and write everything.

use std::io;

use async_trait::async_trait;
use tako_flatbuf::{BoxStream, Listener, Network, TcpNetwork};
use tokio::net::lookup_host;

use crate::failure::{Failure, listen_kind};

/// Refuses an address that others can reach, unless `insecure`.
pub(crate) async fn check(address: &str, insecure: bool) -> io::Result<()> {
    if insecure {
        return Ok(());
    }
    match lookup_host(address).await?.find(|found| !found.ip().is_loopback()) {
        None => Ok(()),
        Some(found) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} can be reached from other machines, and Tako has neither TLS nor passwords \
                 yet; give --insecure if the network keeps others out",
                found.ip()
            ),
        )),
    }
}

/// Opens a port for `what`, such as `HTTP`.
pub(crate) async fn listen(
    what: &str,
    host: &str,
    port: u16,
    insecure: bool,
) -> Result<Box<dyn Listener>, Failure> {
    let address = tako_types::config::Address { host: host.to_owned(), port }.to_string();
    GuardedTcp { insecure }.listen(&address).await.map_err(|error| {
        let text = format!("cannot listen at {address} for {what}: {error}");
        Failure::new(listen_kind(&error), text)
    })
}

/// TCP that listens only where it may.
pub(crate) struct GuardedTcp {
    pub(crate) insecure: bool,
}

#[async_trait]
impl Network for GuardedTcp {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        TcpNetwork.connect(address).await
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        check(address, self.insecure).await?;
        TcpNetwork.listen(address).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_machine_is_listened_to_without_the_word() {
        for address in ["127.0.0.1:1", "[::1]:1", "localhost:1"] {
            assert!(check(address, false).await.is_ok(), "{address}");
        }
        for address in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1"] {
            let error = check(address, false).await.expect_err(address);
            assert!(error.to_string().contains("--insecure"), "{error}");
            assert!(check(address, true).await.is_ok(), "{address}");
        }
    }
}
