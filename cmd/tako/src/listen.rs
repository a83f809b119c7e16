//! Listening: this machine only, unless what a port speaks is guarded (`trust.rs`).
//!
//! Invariant: no port is opened beyond loopback without its [`Guard`].

use std::io;

use async_trait::async_trait;
use tako_flatbuf::{BoxStream, Listener, Network, TcpNetwork};
use tokio::net::lookup_host;

use crate::failure::{Failure, listen_kind};

/// Whether a port may be reached from other machines.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Guard {
    pub(crate) is_open: bool,
    /// The arguments that would open it.
    pub(crate) needs: &'static str,
}

/// Refuses an address that others can reach, unless it is guarded.
pub(crate) async fn check(address: &str, guard: Guard) -> io::Result<()> {
    if guard.is_open {
        return Ok(());
    }
    match lookup_host(address).await?.find(|found| !found.ip().is_loopback()) {
        None => Ok(()),
        Some(found) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} can be reached from other machines: give {}, or --insecure if the network \
                 keeps others out",
                found.ip(),
                guard.needs
            ),
        )),
    }
}

/// Opens a port for `what`, such as `HTTP`.
pub(crate) async fn listen(
    what: &str,
    host: &str,
    port: u16,
    guard: Guard,
) -> Result<Box<dyn Listener>, Failure> {
    let address = tako_types::config::Address { host: host.to_owned(), port }.to_string();
    let tcp = GuardedTcp { guard, ..GuardedTcp::default() };
    tcp.listen(&address).await.map_err(|error| {
        let text = format!("cannot listen at {address} for {what}: {error}");
        Failure::new(listen_kind(&error), text)
    })
}

/// TCP that listens only where it may.
#[derive(Debug, Default)]
pub(crate) struct GuardedTcp {
    pub(crate) guard: Guard,
    /// Where to listen instead of the address at which others reach this process.
    pub(crate) instead: Instead,
}

/// Another place to listen at than the configured one: behind NAT, in a container.
#[derive(Debug, Clone, Default)]
pub(crate) struct Instead {
    /// Host for every port of the process.
    pub(crate) host: Option<String>,
    /// Host and port for RPC.
    pub(crate) rpc: Option<String>,
}

impl Instead {
    /// Where to listen for RPC when others reach it at `address`, a host and a port.
    pub(crate) fn rpc_address(&self, address: &str) -> String {
        let port = address.rsplit_once(':').map_or("", |(_, port)| port);
        match (&self.rpc, &self.host) {
            (Some(rpc), _) => rpc.clone(),
            (None, Some(host)) if host.contains(':') => format!("[{host}]:{port}"),
            (None, Some(host)) => format!("{host}:{port}"),
            (None, None) => address.to_owned(),
        }
    }
}

#[async_trait]
impl Network for GuardedTcp {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        TcpNetwork.connect(address).await
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let address = self.instead.rpc_address(address);
        check(&address, self.guard).await?;
        TcpNetwork.listen(&address).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Guard = Guard { is_open: false, needs: "--tls" };
    const OPEN: Guard = Guard { is_open: true, needs: "" };

    #[test]
    fn the_place_to_listen_at_is_the_one_given_and_else_the_configured_one() {
        let at = |host: Option<&str>, rpc: Option<&str>| {
            let instead = Instead { host: host.map(Into::into), rpc: rpc.map(Into::into) };
            instead.rpc_address("node-1.domain:4711")
        };
        assert_eq!(at(None, None), "node-1.domain:4711");
        assert_eq!(at(Some("0.0.0.0"), None), "0.0.0.0:4711");
        assert_eq!(at(Some("::"), None), "[::]:4711");
        assert_eq!(at(Some("0.0.0.0"), Some("10.0.0.7:99")), "10.0.0.7:99");
    }

    #[tokio::test]
    async fn another_place_to_listen_at_is_guarded_as_well() {
        let rpc = Some("0.0.0.0:0".to_owned());
        let tcp = GuardedTcp { guard: CLOSED, instead: Instead { host: None, rpc } };
        assert!(tcp.listen("127.0.0.1:0").await.is_err());
        let tcp = GuardedTcp { guard: OPEN, ..tcp };
        assert!(tcp.listen("127.0.0.1:0").await.is_ok());
    }

    #[tokio::test]
    async fn only_this_machine_is_listened_to_without_the_word() {
        for address in ["127.0.0.1:1", "[::1]:1", "localhost:1"] {
            assert!(check(address, CLOSED).await.is_ok(), "{address}");
        }
        for address in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1"] {
            let error = check(address, CLOSED).await.expect_err(address);
            assert!(error.to_string().contains("give --tls, or --insecure"), "{error}");
            assert!(check(address, OPEN).await.is_ok(), "{address}");
        }
    }
}
