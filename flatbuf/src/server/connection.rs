//! One connection of the server.
//!
//! Reading and writing share one task: answers that are ready at once gather while buffered requests
//! are read, and go out in one write when the reader must wait. Only calls that are not ready at
//! once get a task. Invariant: at most `calls_max` calls are in progress or unwritten.

use std::{pin::Pin, sync::Arc, task::Poll, time::Duration};

use tako_types::NodeId;
use tokio::{
    io::ReadHalf,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Caller, ServeOptions, Service, seen::Seen};
use crate::{
    BoxStream, CallHead, Request, RpcError, WireError,
    message::{Answer, decode_request, encode_response},
    metrics::{OpenConnection, RpcMetrics, add},
    stream::{FrameReader, Outbox, Outgoing, ReadEnd, Received, write_frames},
};

type CallFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Why the reader stopped.
enum End {
    /// Calls in progress are answered still.
    Graceful,
    /// Calls in progress are dropped.
    Broken,
}

/// Serves one connection to its end.
pub(super) async fn run<S: Service + ?Sized>(
    stream: BoxStream,
    address: String,
    service: Arc<S>,
    options: ServeOptions,
    budget: Arc<Semaphore>,
    shutdown: CancellationToken,
) {
    let _open = OpenConnection::new(&options.metrics);
    let (read_half, write_half) = tokio::io::split(stream);
    let outbox = Arc::new(Outbox::new(options.answer_bytes_max));
    let mut connection = Connection {
        reader: FrameReader::new(read_half, Some(budget), options.frame_max),
        service,
        outbox: Arc::clone(&outbox),
        calls: JoinSet::new(),
        seen: Seen::new(),
        slots: Arc::new(Semaphore::new(options.calls_max)),
        options: options.clone(),
    };
    let reading = async {
        let end = match connection.hello(address).await {
            Some(caller) => connection.read_calls(caller, shutdown).await,
            None => End::Graceful,
        };
        match end {
            End::Graceful => while connection.calls.join_next().await.is_some() {},
            End::Broken => connection.calls.shutdown().await,
        }
        outbox.close();
    };
    let writing = write_frames(&outbox, write_half, options.frame_max, &options.metrics);
    let mut writing = std::pin::pin!(writing);
    // The writer ends first only by failing: nobody is there to be answered any more.
    let wrote = tokio::select! {
        biased;
        () = reading => writing.await,
        wrote = &mut writing => wrote,
    };
    if let Err(error) = wrote {
        tracing::debug!(%error, "a connection broke while answers were written");
    }
}

struct Connection<S: ?Sized> {
    reader: FrameReader<ReadHalf<BoxStream>>,
    service: Arc<S>,
    outbox: Arc<Outbox>,
    calls: JoinSet<()>,
    seen: Seen,
    slots: Arc<Semaphore>,
    options: ServeOptions,
}

impl<S: Service + ?Sized> Connection<S> {
    /// Takes the first frame, which must be a Hello that the service accepts.
    async fn hello(&mut self, address: String) -> Option<Arc<Caller>> {
        let received = match self.reader.next(self.options.frame_max).await {
            Ok(received) => received,
            Err(end) => {
                self.count(&end, &address);
                return None;
            }
        };
        add(&self.options.metrics.frames_received, 1);
        let (head, node, request) = match decode_hello(&received) {
            Ok(hello) => hello,
            Err(error) => {
                self.count(&ReadEnd::Bad(error), &address);
                return None;
            }
        };
        let caller = Arc::new(Caller { node, address });
        let deadline = self.deadline(&head);
        let answer = timeout(deadline, self.service.call(&caller, &head, request)).await;
        let answer = answer.unwrap_or_else(|_| Err(RpcError::deadline()));
        let accepted = answer.is_ok();
        send(&self.outbox, &self.options.metrics, head.id, &answer, None);
        accepted.then_some(caller)
    }

    async fn read_calls(&mut self, caller: Arc<Caller>, shutdown: CancellationToken) -> End {
        let mut stopped = std::pin::pin!(shutdown.cancelled_owned());
        loop {
            while self.calls.try_join_next().is_some() {}
            let received = tokio::select! {
                biased;
                () = &mut stopped => return End::Graceful,
                received = self.next() => received,
            };
            let (received, slot) = match received {
                Ok(received) => received,
                Err(ReadEnd::Finished) => return End::Graceful,
                Err(ReadEnd::Idle) if self.calls.is_empty() => return End::Graceful,
                Err(ReadEnd::Idle) => continue,
                Err(end) => {
                    self.count(&end, &caller.address);
                    return End::Broken;
                }
            };
            if let Err(error) = self.start(&caller, received, slot) {
                self.count(&ReadEnd::Bad(error), &caller.address);
                return End::Broken;
            }
        }
    }

    /// The next frame, once there is room for its call and its answer.
    async fn next(&mut self) -> Result<(Received, OwnedSemaphorePermit), ReadEnd> {
        self.outbox.has_room().await;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| ReadEnd::Finished)?;
        Ok((self.reader.next(self.options.idle_max).await?, slot))
    }

    /// Polls the call once; answers it, or gives it a task.
    fn start(
        &mut self,
        caller: &Arc<Caller>,
        received: Received,
        slot: OwnedSemaphorePermit,
    ) -> Result<(), WireError> {
        let metrics = &self.options.metrics;
        add(&metrics.frames_received, 1);
        add(&metrics.bytes_received, received.frame.wire_bytes() as u64);
        let (head, request) = decode_request(&received.frame)?;
        let id = head.id;
        if !self.seen.is_new(id) {
            add(&metrics.frames_repeated, 1);
            return Ok(());
        }
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                add(&metrics.records_bad, 1);
                send(&self.outbox, metrics, id, &Err(error.into()), Some(slot));
                return Ok(());
            }
        };
        let deadline = self.deadline(&head);
        let (service, caller) = (Arc::clone(&self.service), Arc::clone(caller));
        let mut call: CallFuture =
            Box::pin(async move { service.call(&caller, &head, request).await });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
            send(&self.outbox, metrics, id, &answer, Some(slot));
            return Ok(());
        }
        add(&metrics.calls_spawned, 1);
        let (outbox, metrics) = (Arc::clone(&self.outbox), Arc::clone(metrics));
        self.calls.spawn(async move {
            let answer = timeout(deadline, call).await.unwrap_or_else(|_| {
                add(&metrics.calls_late, 1);
                Err(RpcError::deadline())
            });
            drop(received.budget);
            send(&outbox, &metrics, id, &answer, Some(slot));
        });
        Ok(())
    }

    fn deadline(&self, head: &CallHead) -> Duration {
        match head.deadline_ms {
            0 => self.options.call_max,
            ms => Duration::from_millis(ms.into()).min(self.options.call_max),
        }
    }

    fn count(&self, end: &ReadEnd, address: &str) {
        let metrics = &self.options.metrics;
        match end {
            ReadEnd::Bad(error) => {
                add(&metrics.frames_bad, 1);
                tracing::warn!(%error, address, "closing a connection after a bad frame");
            }
            ReadEnd::Torn => add(&metrics.frames_torn, 1),
            ReadEnd::Failed(error) => tracing::debug!(%error, address, "a connection broke"),
            ReadEnd::Finished | ReadEnd::Idle => {}
        }
    }
}

fn decode_hello(received: &Received) -> Result<(CallHead, NodeId, Request), WireError> {
    let (head, request) = decode_request(&received.frame)?;
    match request? {
        Request::Hello { cluster, node, protocol } => {
            let caller = node.clone();
            Ok((head, caller, Request::Hello { cluster, node, protocol }))
        }
        _ => Err(WireError::Field { field: "hello" }),
    }
}

/// Queues an answer; one that does not fit a frame becomes an error.
fn send(
    outbox: &Outbox,
    metrics: &RpcMetrics,
    id: u64,
    answer: &Answer,
    permit: Option<OwnedSemaphorePermit>,
) {
    let frame = encode_response(id, answer).or_else(|error| {
        tracing::error!(%error, "an answer does not fit a frame");
        add(&metrics.frames_bad, 1);
        let kind = tako_types::ErrorKind::Internal;
        encode_response(id, &Err(RpcError::new(kind, "the answer does not fit a frame")))
    });
    if let Ok(frame) = frame {
        // Closed only once the connection is over.
        let _closed = outbox.push_answer(Outgoing { id, frame, permit });
    }
}
