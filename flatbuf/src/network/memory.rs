//! A network in memory, with faults a test can switch: cut one way or both, refuse, drop.
//!
//! Streams are tokio duplex pipes. A cut stalls bytes in its direction, as lost packets do to TCP,
//! and a heal lets them go on; opening a stream across a cut waits. Nothing here takes time or
//! chance: what a test switches is all that happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker, ready},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::{Notify, mpsc},
};

use super::{BoxStream, Listener, Network};

/// Bytes one direction of a stream holds before its writer waits.
const PIPE_BYTES: usize = 256 << 10;

/// Streams that wait to be accepted at one address.
const BACKLOG: usize = 128;

/// First port given out where port 0 is asked for.
const FIRST_PORT: u16 = 10_000;

/// A network in memory; a clone is another view of the same one.
#[derive(Clone)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
    /// The host that connects and listens through this view.
    host: Arc<str>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Woken when a cut or refusal changes.
    changed: Notify,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<String, Listening>,
    /// Directions (from host, to host) in which nothing moves.
    cuts: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Hosts that refuse new streams.
    refusing: BTreeSet<Arc<str>>,
    links: Vec<Weak<Link>>,
    ports: u16,
}

#[derive(Clone)]
struct Listening {
    host: Arc<str>,
    queue: mpsc::Sender<(BoxStream, String)>,
}

/// One direction of one stream.
struct Link {
    from: Arc<str>,
    to: Arc<str>,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    cut: bool,
    reset: bool,
    /// At most one per end: the writer's and the reader's.
    writer: Option<Waker>,
    reader: Option<Waker>,
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryNetwork").field("host", &self.host).finish_non_exhaustive()
    }
}

impl MemoryNetwork {
    /// An empty network; this view is the host `""`.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::default(), host: Arc::from("") }
    }

    /// The same network as `host` sees it: its streams start and end there.
    #[must_use]
    pub fn as_host(&self, host: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), host: Arc::from(host) }
    }

    /// Stops all bytes from host `from` to host `to`; the other direction goes on.
    pub fn cut(&self, from: &str, to: &str) {
        let pair = (Arc::from(from), Arc::from(to));
        self.change(|state| {
            state.cuts.insert(pair);
        });
    }

    /// Stops all bytes between two hosts.
    pub fn cut_both(&self, a: &str, b: &str) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Lets bytes move again from host `from` to host `to`, first those that waited.
    pub fn heal(&self, from: &str, to: &str) {
        let pair = (Arc::from(from), Arc::from(to));
        self.change(|state| {
            state.cuts.remove(&pair);
        });
    }

    /// Lets bytes move again between two hosts.
    pub fn heal_both(&self, a: &str, b: &str) {
        self.heal(a, b);
        self.heal(b, a);
    }

    /// Ends every cut and every refusal.
    pub fn heal_all(&self) {
        self.change(|state| {
            state.cuts.clear();
            state.refusing.clear();
        });
    }

    /// While `refuse` is true, new streams to `host` are refused.
    pub fn set_refusing(&self, host: &str, refuse: bool) {
        let host = Arc::from(host);
        self.change(|state| {
            if refuse {
                state.refusing.insert(host);
            } else {
                state.refusing.remove(&host);
            }
        });
    }

    /// Resets every open stream of `host`, with whomever.
    pub fn drop_connections(&self, host: &str) {
        self.reset(|link| *link.from == *host || *link.to == *host);
    }

    /// Resets every open stream between two hosts.
    pub fn drop_connections_between(&self, a: &str, b: &str) {
        self.reset(|link| {
            (*link.from == *a && *link.to == *b) || (*link.from == *b && *link.to == *a)
        });
    }

    fn reset(&self, concerns: impl Fn(&Link) -> bool) {
        let links = self.shared.state.lock().live_links();
        for link in links.iter().filter(|link| concerns(link)) {
            link.update(|state| state.reset = true);
        }
    }

    /// Changes the faults, then tells every open stream and everybody who waits to connect.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.state.lock();
        change(&mut state);
        for link in state.live_links() {
            let cut = state.is_cut(&link.from, &link.to);
            link.update(|it| it.cut = cut);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Makes both ends of a new stream to `listening`.
    fn open(&self, listening: &Listening) -> (End, End) {
        let mut state = self.shared.state.lock();
        let there = state.link(&self.host, &listening.host);
        let back = state.link(&listening.host, &self.host);
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        (
            End { pipe: near, outward: Arc::clone(&there), inward: Arc::clone(&back) },
            End { pipe: far, outward: back, inward: there },
        )
    }

    /// `None` while a cut lies between; an error where the stream is refused.
    fn reach(&self, address: &str) -> io::Result<Option<Listening>> {
        let state = self.shared.state.lock();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let host = match state.listeners.get(address) {
            Some(listening) => Arc::clone(&listening.host),
            None => Arc::from(host_of(address)),
        };
        if state.is_cut(&self.host, &host) || state.is_cut(&host, &self.host) {
            return Ok(None);
        }
        let listening = state.listeners.get(address).ok_or_else(refused)?;
        if state.refusing.contains(&host) {
            return Err(refused());
        }
        Ok(Some(listening.clone()))
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if let Some(listening) = self.reach(address)? {
                let (near, far) = self.open(&listening);
                return match listening.queue.send((Box::new(far), self.host.to_string())).await {
                    Ok(()) => Ok(Box::new(near)),
                    Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
                };
            }
            changed.await;
        }
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let mut state = self.shared.state.lock();
        let address = match address.strip_suffix(":0") {
            Some(host) => {
                state.ports += 1;
                format!("{host}:{}", FIRST_PORT + state.ports)
            }
            None => address.to_owned(),
        };
        if state.listeners.get(&address).is_some_and(|there| !there.queue.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (queue, streams) = mpsc::channel(BACKLOG);
        // The view of no host listens as the host its address names.
        let host = if self.host.is_empty() {
            Arc::from(host_of(&address))
        } else {
            Arc::clone(&self.host)
        };
        state.listeners.insert(address.clone(), Listening { host, queue });
        Ok(Box::new(MemoryListener { address, streams: tokio::sync::Mutex::new(streams) }))
    }
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

struct MemoryListener {
    address: String,
    streams: tokio::sync::Mutex<mpsc::Receiver<(BoxStream, String)>>,
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&self) -> io::Result<(BoxStream, String)> {
        // The network holds the sender as long as it lives.
        let stream = self.streams.lock().await.recv().await;
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

impl State {
    fn is_cut(&self, from: &Arc<str>, to: &Arc<str>) -> bool {
        self.cuts.contains(&(Arc::clone(from), Arc::clone(to)))
    }

    fn link(&mut self, from: &Arc<str>, to: &Arc<str>) -> Arc<Link> {
        let cut = self.is_cut(from, to);
        let state = Mutex::new(LinkState { cut, ..LinkState::default() });
        let link = Arc::new(Link { from: Arc::clone(from), to: Arc::clone(to), state });
        self.links.retain(|link| link.strong_count() != 0);
        self.links.push(Arc::downgrade(&link));
        link
    }

    fn live_links(&self) -> Vec<Arc<Link>> {
        self.links.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Link {
    fn update(&self, change: impl FnOnce(&mut LinkState)) {
        let mut state = self.state.lock();
        change(&mut state);
        let wakers = [state.writer.take(), state.reader.take()];
        drop(state);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }

    /// Ready when bytes may pass; else the writer's or the reader's waker is kept.
    fn poll_open(&self, cx: &Context<'_>, writing: bool) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let cut = state.cut;
        // Kept also when open: a reset must wake who waits in the pipe.
        let waker = if writing { &mut state.writer } else { &mut state.reader };
        match waker {
            Some(kept) => kept.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        if cut { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

/// One end of a stream.
struct End {
    pipe: DuplexStream,
    outward: Arc<Link>,
    inward: Arc<Link>,
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.inward.poll_open(cx, false))?;
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.outward.poll_open(cx, true))?;
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
