//! TCP with `TCP_NODELAY`: frames are coalesced by their writers, not by the system.

use std::io;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};

use super::{BoxStream, Listener, Network};

/// The real network.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNetwork;

#[async_trait]
impl Network for TcpNetwork {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        Ok(Box::new(Tcp { listener, address }))
    }
}

struct Tcp {
    listener: TcpListener,
    address: String,
}

#[async_trait]
impl Listener for Tcp {
    async fn accept(&self) -> io::Result<(BoxStream, String)> {
        let (stream, from) = self.listener.accept().await?;
        // Where it fails, the other side has gone already: whoever reads is told.
        let _is_told_when_read = stream.set_nodelay(true);
        Ok((Box::new(stream), from.to_string()))
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
