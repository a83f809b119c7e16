//! The cluster's object store, which can be made unreachable.
//!
//! An S3 server behind a forwarder that hangs or refuses, where a server is found; else a folder,
//! in whose place a file is put, so that every call in it fails.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use crate::s3_server::S3Server;

/// Connections through the forwarder at once.
const CONNECTIONS_MAX: usize = 256;

/// What the forwarder does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Passes them on.
    Open,
    /// Keeps connections, and nothing moves.
    Hangs,
    /// Ends connections.
    Refuses,
}

/// See the module.
pub enum ObjectStore {
    /// A folder.
    Folder(PathBuf),
    /// A server.
    S3 {
        /// Behind the forwarder.
        server: S3Server,
        /// Such as `s3://bucket/prefix`.
        url: String,
        /// In front of the server.
        forwarder: Forwarder,
    },
}

impl std::fmt::Debug for ObjectStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl ObjectStore {
    /// A folder.
    #[must_use]
    pub fn folder(path: &Path) -> Self {
        Self::Folder(path.to_owned())
    }

    /// A server behind a forwarder that listens at `host`; `None` where no server is found.
    ///
    /// # Errors
    /// When the forwarder cannot listen.
    pub async fn s3(host: &str) -> io::Result<Option<Self>> {
        let Some(server) = S3Server::find() else { return Ok(None) };
        let Some(behind) = server.endpoint.strip_prefix("http://") else { return Ok(None) };
        let forwarder = Forwarder::start(host, behind).await?;
        let url = server.url("chaos");
        Ok(Some(Self::S3 { server, url, forwarder }))
    }

    /// In words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Folder(_) => "a folder (an outage puts a file in its place)",
            Self::S3 { .. } => "an S3 server behind a forwarder (an outage hangs or refuses)",
        }
    }

    /// As `--store` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::S3 { url, .. } => url.clone(),
        }
    }

    /// What processes need in their environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let Self::S3 { server, forwarder, .. } = self else { return Vec::new() };
        [
            ("AWS_ENDPOINT", format!("http://{}", forwarder.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", server.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", server.secret_access_key.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Makes it unreachable, or reachable again.
    ///
    /// # Errors
    /// Those of the folder.
    pub fn set(&self, way: Way) -> io::Result<()> {
        match self {
            Self::S3 { forwarder, .. } => {
                forwarder.way.send_replace(way);
                Ok(())
            }
            Self::Folder(path) => {
                let aside = path.with_extension("away");
                match (way, aside.exists()) {
                    (Way::Open, true) => {
                        std::fs::remove_file(path)?;
                        std::fs::rename(aside, path)
                    }
                    (Way::Hangs | Way::Refuses, false) => {
                        std::fs::rename(path, aside)?;
                        std::fs::write(path, b"the store is away")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Passes TCP connections on, or does not. Ends when dropped.
#[derive(Debug)]
pub struct Forwarder {
    /// Where it listens.
    pub address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Forwarder {
    /// Listens at a port of the system's choosing.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn start(host: &str, behind: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let (way, seen) = watch::channel(Way::Open);
        let task = tokio::spawn(accept(listener, behind.to_owned(), seen));
        Ok(Self { address, way, task })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, behind: String, way: watch::Receiver<Way>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (behind, way) = (behind.clone(), way.clone());
        tokio::spawn(async move {
            forward(client, &behind, way).await;
            drop(permit);
        });
    }
}

async fn forward(mut client: TcpStream, behind: &str, mut way: watch::Receiver<Way>) {
    let mut then = way.clone();
    tokio::select! {
        () = async {
            // A connection made while it hangs waits for the end of that.
            if then.wait_for(|way| *way != Way::Hangs).await.is_ok_and(|way| *way == Way::Open)
                && let Ok(mut server) = TcpStream::connect(behind).await
            {
                // Only slower without.
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                // Either side may end as it likes.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        } => return,
        _ = async { way.wait_for(|way| *way != Way::Open).await.map(|_| ()) } => {}
    }
    // What was under way never comes; the client learns it when the outage is over, or at once.
    let _ = way.wait_for(|way| *way != Way::Hangs).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_forwarder_passes_on_then_hangs_then_refuses_then_passes_on_again() {
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let behind = echo.local_addr().expect("its address").to_string();
        tokio::spawn(async move {
            while let Ok((mut one, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = one.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let forwarder = Forwarder::start("127.0.0.1", &behind).await.expect("it listens");
        let ask = async || -> io::Result<u8> {
            let mut stream = TcpStream::connect(forwarder.address).await?;
            stream.write_u8(7).await?;
            stream.read_u8().await
        };
        assert_eq!(ask().await.expect("passed on"), 7);
        forwarder.way.send_replace(Way::Refuses);
        assert!(ask().await.is_err(), "refused");
        forwarder.way.send_replace(Way::Hangs);
        let mut hanging = Box::pin(ask());
        let short = std::time::Duration::from_millis(100);
        assert!(tokio::time::timeout(short, &mut hanging).await.is_err(), "nothing moves");
        forwarder.way.send_replace(Way::Open);
        // It was cut or goes on, but it ends.
        let _ = hanging.await;
        assert_eq!(ask().await.expect("passed on again"), 7);
    }

    #[test]
    fn a_folder_that_is_away_fails_every_call_and_is_whole_when_it_is_back() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("store");
        std::fs::create_dir_all(path.join("a")).expect("made");
        let store = ObjectStore::folder(&path);
        store.set(Way::Hangs).expect("away");
        store.set(Way::Refuses).expect("still away");
        assert!(std::fs::create_dir_all(path.join("b")).is_err());
        assert!(std::fs::read_dir(path.join("a")).is_err());
        store.set(Way::Open).expect("back");
        store.set(Way::Open).expect("still back");
        assert!(path.join("a").is_dir());
    }
}
