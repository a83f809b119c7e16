//! Connections between processes that can be cut, where networks of their own are not permitted.
//!
//! Nodes listen elsewhere than where the configuration says; there a forwarder of ours listens,
//! which learns from the first frame who calls. A cut pauses the bytes of one direction, as a
//! network that drops packets does to TCP: they arrive when it is mended, if anybody still waits.
//! Unlike with a real partition a new connection is accepted; but nothing is heard on it.

use std::{collections::BTreeSet, io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

/// Connections to one node at once.
const CONNECTIONS_MAX: usize = 256;
const CHUNK_BYTES: usize = 16 << 10;

type Cuts = BTreeSet<(String, String)>;

/// All forwarders of a cluster; they end when it is dropped.
#[derive(Debug)]
pub struct Lanes {
    cuts: watch::Sender<Cuts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { cuts: watch::channel(Cuts::new()).0, tasks: Vec::new() }
    }
}

impl Lanes {
    /// Forwards what comes to `listener` to the process `to`, which listens at `behind`.
    ///
    /// # Errors
    /// Those of the listener.
    pub fn add(
        &mut self,
        listener: std::net::TcpListener,
        to: &str,
        behind: String,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (to, cuts) = (to.to_owned(), self.cuts.subscribe());
        self.tasks.push(tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            while let Ok(permit) = room.clone().acquire_owned().await {
                let Ok((caller, _)) = listener.accept().await else { continue };
                let (to, behind, cuts) = (to.clone(), behind.clone(), cuts.clone());
                tokio::spawn(async move {
                    // Either side may end as it likes.
                    let _ = forward(caller, &to, &behind, cuts).await;
                    drop(permit);
                });
            }
        }));
        Ok(())
    }

    /// Pauses what goes from one process to another, or lets it go on.
    pub fn set(&self, from: &str, to: &str, cut: bool) {
        self.cuts.send_modify(|cuts| {
            let pair = (from.to_owned(), to.to_owned());
            if cut {
                cuts.insert(pair);
            } else {
                cuts.remove(&pair);
            }
        });
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn forward(
    mut caller: TcpStream,
    to: &str,
    behind: &str,
    cuts: watch::Receiver<Cuts>,
) -> io::Result<()> {
    let (from, hello) = tako_flatbuf::read_hello(&mut caller).await?;
    let there = (from.as_str().to_owned(), to.to_owned());
    let back = (there.1.clone(), there.0.clone());
    let mut callee = TcpStream::connect(behind).await?;
    caller.set_nodelay(true)?;
    callee.set_nodelay(true)?;
    let mut waits = cuts.clone();
    uncut(&mut waits, &there).await?;
    callee.write_all(&hello).await?;
    let (mut caller_reads, mut caller_writes) = caller.split();
    let (mut callee_reads, mut callee_writes) = callee.split();
    tokio::select! {
        done = pass(&mut caller_reads, &mut callee_writes, &there, waits) => done,
        done = pass(&mut callee_reads, &mut caller_writes, &back, cuts) => done,
    }
}

/// Passes bytes on while nothing cuts this direction; until either side ends.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    pair: &(String, String),
    mut cuts: watch::Receiver<Cuts>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        uncut(&mut cuts, pair).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..count]).await?;
    }
}

async fn uncut(cuts: &mut watch::Receiver<Cuts>, pair: &(String, String)) -> io::Result<()> {
    let open = cuts.wait_for(|cuts| !cuts.contains(pair)).await;
    open.map(|_| ()).map_err(|_| io::ErrorKind::ConnectionAborted.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tako_flatbuf::{Peer, PeerOptions, Request, TcpNetwork};
    use tako_types::NodeId;

    use super::*;

    /// What the callee saw of a call from n1 within a short time.
    async fn heard(callee: &TcpListener) -> Option<Vec<u8>> {
        let (mut stream, _) = callee.accept().await.expect("forwarded");
        let mut bytes = vec![0; 1_024];
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut bytes)).await;
        let count = read.ok()?.expect("open");
        bytes.truncate(count);
        Some(bytes)
    }

    #[tokio::test]
    async fn a_cut_holds_back_what_its_caller_sends_and_nobody_elses() {
        let callee = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let front = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = front.local_addr().expect("its address").to_string();
        let mut lanes = Lanes::default();
        let behind = callee.local_addr().expect("its address").to_string();
        lanes.add(front, "n2", behind).expect("it listens");
        let call = |from: &str| {
            let options = PeerOptions::new(NodeId::new(from));
            let peer = Peer::new(Arc::new(TcpNetwork), &address, options);
            tokio::spawn(async move { peer.call(0, Duration::from_secs(5), Request::Health).await })
        };
        lanes.set("n1", "n2", true);
        let first = call("n1");
        assert!(heard(&callee).await.is_none(), "n1 is cut off from n2");
        let other = call("n3");
        assert!(heard(&callee).await.is_some(), "n3 is not");
        lanes.set("n1", "n2", false);
        let again = call("n1");
        assert!(heard(&callee).await.is_some(), "it is mended");
        for call in [first, other, again] {
            call.abort();
        }
    }
}
