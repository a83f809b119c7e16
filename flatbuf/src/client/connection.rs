//! One connection to a peer: ids, calls waiting for answers, and the loop that reads and writes.
//!
//! Invariant: a call waits in the map from before its frame is queued until it is answered, dropped
//! or the connection ends; when it ends, all that wait fail with `Unavailable`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tako_types::{ClusterId, Incarnation, NodeId};
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use super::PeerOptions;
use crate::{
    BoxStream, CallHead, Network, PROTOCOL, Request, Response, RpcError,
    frame::Frame,
    message::{Answer, decode_response, encode_request},
    metrics::{RpcMetrics, add},
    stream::{FrameReader, Outbox, Outgoing, PushError, ReadEnd, write_frames},
};

/// Answers may be as far apart as they like; calls have deadlines of their own.
const IDLE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Who answered a Hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its cluster, where it knows.
    pub cluster: Option<ClusterId>,
    /// Its id.
    pub node: NodeId,
    /// Its data folder.
    pub incarnation: Incarnation,
}

/// Why a call was not sent.
pub(super) enum SendError {
    /// Too much waits.
    Busy,
    /// The connection had ended; nothing was sent.
    Closed(RpcError),
}

/// The half that callers use.
pub(super) struct Connection {
    remote: Remote,
    ids: AtomicU64,
    outbox: Outbox,
    waiting: Mutex<Waiting>,
    calls_max: usize,
    silence: Silence,
    /// Ends the driver.
    give_up: Notify,
    metrics: Arc<RpcMetrics>,
}

#[derive(Default)]
struct Waiting {
    calls: BTreeMap<u64, oneshot::Sender<Answer>>,
    closed: Option<RpcError>,
}

/// How long calls have waited with nothing heard.
struct Silence {
    start: Instant,
    max: Duration,
    /// Milliseconds after `start` + 1 of the first call sent since something was heard; 0 = none.
    since_ms: AtomicU64,
}

/// The half that a task runs.
pub(super) struct Driver {
    connection: Arc<Connection>,
    reader: FrameReader<ReadHalf<BoxStream>>,
    writer: WriteHalf<BoxStream>,
    frame_max: Duration,
}

impl Connection {
    /// Connects and says Hello.
    pub(super) async fn open(
        network: &dyn Network,
        address: &str,
        options: &PeerOptions,
    ) -> Result<(Arc<Self>, Driver), RpcError> {
        let broken = |error: &dyn std::fmt::Display| {
            RpcError::unavailable(format!("cannot connect to {address}: {error}"))
        };
        let stream = network.connect(address).await.map_err(|error| broken(&error))?;
        let (read_half, mut writer) = tokio::io::split(stream);
        let mut reader = FrameReader::new(read_half, None, options.frame_max);
        let hello = Request::Hello {
            cluster: (options.cluster)(),
            node: options.node.clone(),
            protocol: PROTOCOL,
        };
        let wait = u32::try_from(options.connect_max.as_millis()).unwrap_or(u32::MAX);
        let head = CallHead { deadline_ms: wait.max(1), ..CallHead::default() };
        let frame = encode_request(&head, &hello)?;
        let mut bytes = frame.prefix_bytes().to_vec();
        bytes.extend_from_slice(&frame.head);
        writer.write_all(&bytes).await.map_err(|error| broken(&error))?;
        writer.flush().await.map_err(|error| broken(&error))?;
        let received = reader.next(options.connect_max).await;
        let received = received.map_err(|end| broken(&format_args!("{end:?}")))?;
        let (_, answer) = decode_response(&received.frame)?;
        let Response::Hello { cluster, node, incarnation } = answer?? else {
            return Err(broken(&"no answer to Hello"));
        };
        let connection = Arc::new(Self {
            remote: Remote { cluster, node, incarnation },
            ids: AtomicU64::new(1),
            outbox: Outbox::new(options.queued_bytes_max),
            waiting: Mutex::default(),
            calls_max: options.calls_max,
            silence: Silence {
                start: Instant::now(),
                max: options.silence_max,
                since_ms: AtomicU64::new(0),
            },
            give_up: Notify::new(),
            metrics: Arc::clone(&options.metrics),
        });
        let driver = Driver {
            connection: Arc::clone(&connection),
            reader,
            writer,
            frame_max: options.frame_max,
        };
        Ok((connection, driver))
    }

    pub(super) fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting.lock().closed.is_some()
    }

    /// An id for one call.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues a call's frame.
    pub(super) fn send(self: &Arc<Self>, id: u64, frame: Frame) -> Result<Call, SendError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if let Some(error) = &waiting.closed {
                return Err(SendError::Closed(error.clone()));
            }
            if self.calls_max <= waiting.calls.len() {
                return Err(SendError::Busy);
            }
            waiting.calls.insert(id, sender);
        }
        // From here on dropping the call cleans up.
        let call = Call { connection: Arc::clone(self), id, answer };
        match self.outbox.push(Outgoing { id, frame, permit: None }) {
            Ok(()) => {
                self.silence.on_sent();
                Ok(call)
            }
            Err(PushError::Full) => Err(SendError::Busy),
            Err(PushError::Closed) => {
                Err(SendError::Closed(RpcError::unavailable("the connection ended")))
            }
        }
    }

    fn close(&self, error: &RpcError) {
        let calls = {
            let mut waiting = self.waiting.lock();
            waiting.closed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut waiting.calls)
        };
        self.outbox.abandon();
        for (_, sender) in calls {
            // Who no longer waits needs no answer.
            let _gone = sender.send(Err(error.clone()));
        }
    }

    fn on_frame(&self, frame: &Frame) -> Result<(), crate::WireError> {
        self.silence.on_heard();
        add(&self.metrics.frames_received, 1);
        add(&self.metrics.bytes_received, frame.wire_bytes() as u64);
        let (id, answer) = decode_response(frame)?;
        let answer = answer.unwrap_or_else(|error| {
            add(&self.metrics.records_bad, 1);
            Err(error.into())
        });
        let sender = self.waiting.lock().calls.remove(&id);
        if let Some(sender) = sender {
            let _gone = sender.send(answer);
        }
        Ok(())
    }
}

impl Driver {
    /// Reads and writes until the connection ends; then all waiting calls fail.
    pub(super) async fn run(self) {
        let Self { connection, mut reader, writer, frame_max } = self;
        // Also when this future is dropped, the waiting calls must hear of it.
        let closing = Closing(Arc::clone(&connection));
        let reading = async {
            loop {
                match reader.next(IDLE_MAX).await {
                    Ok(received) => {
                        if let Err(error) = connection.on_frame(&received.frame) {
                            add(&connection.metrics.frames_bad, 1);
                            tracing::warn!(%error, node = %connection.remote.node, "bad frame");
                            return;
                        }
                    }
                    Err(ReadEnd::Bad(error)) => {
                        add(&connection.metrics.frames_bad, 1);
                        tracing::warn!(%error, node = %connection.remote.node, "bad frame");
                        return;
                    }
                    Err(ReadEnd::Torn) => {
                        add(&connection.metrics.frames_torn, 1);
                        return;
                    }
                    Err(ReadEnd::Finished | ReadEnd::Idle | ReadEnd::Failed(_)) => return,
                }
            }
        };
        let writing = write_frames(&connection.outbox, writer, frame_max, &connection.metrics);
        tokio::select! {
            biased;
            () = connection.give_up.notified() => {}
            () = reading => {}
            _ = writing => {}
        }
        drop(closing);
    }
}

/// Closes the connection when dropped.
struct Closing(Arc<Connection>);

impl Drop for Closing {
    fn drop(&mut self) {
        let node = &self.0.remote.node;
        self.0.close(&RpcError::unavailable(format!("the connection to {node} broke")));
    }
}

impl Silence {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn on_sent(&self) {
        if self.since_ms.load(Ordering::Relaxed) == 0 {
            self.since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    fn on_heard(&self) {
        self.since_ms.store(0, Ordering::Relaxed);
    }

    fn is_too_long(&self) -> bool {
        let since = self.since_ms.load(Ordering::Relaxed);
        since != 0 && self.max.as_millis() <= u128::from(self.now_ms().saturating_sub(since))
    }
}

/// A call on its way; dropping it forgets it.
pub(super) struct Call {
    connection: Arc<Connection>,
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Call {
    /// Waits for the answer.
    pub(super) async fn answer(mut self, until: Instant) -> Answer {
        match timeout_at(until, &mut self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RpcError::unavailable("the connection ended")),
            Err(_) => {
                add(&self.connection.metrics.calls_late, 1);
                if self.connection.silence.is_too_long() {
                    self.connection.give_up.notify_one();
                }
                Err(RpcError::deadline())
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.connection.waiting.lock().calls.remove(&self.id).is_some() {
            self.connection.outbox.forget(self.id);
        }
    }
}
