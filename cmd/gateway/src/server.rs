//! Accepts connections, bounded in number; serves HTTP on them, with time-outs for slow clients, and
//! ends gracefully.
//!
//! The network is the caller's; streams are taken as they come (TCP's with `TCP_NODELAY`).

use std::{sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tako_flatbuf::{BoxStream, Listener};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Gateway, GatewayOptions, HEAD_BYTES_MAX, http, stream::ClientStream};

/// Open requests get this long when the process stops.
const FINISH: Duration = Duration::from_secs(15);

/// Serves HTTP until the shutdown; then finishes open requests and returns.
pub async fn serve(
    listener: Box<dyn Listener>,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
) {
    let routes = http::routes(gateway.clone());
    let GatewayOptions { connections_max, body_stall, head_timeout, .. } = gateway.options;
    accept(listener, connections_max, &shutdown, |stream| {
        let service = TowerToHyperService::new(routes.clone());
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            // A client that ends its side has gone: its request is cancelled, not worked at.
            .half_close(false);
        let stream = ClientStream::new(stream, body_stall);
        let shutdown = shutdown.clone();
        async move {
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                // A broken connection is the client's affair.
                _ = connection.as_mut() => {}
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(FINISH, connection).await;
                }
            }
        }
    })
    .await;
}

/// Serves so many connections at one time, each as `connection` says, until the shutdown; returns when
/// all have ended.
pub(crate) async fn accept<F>(
    listener: Box<dyn Listener>,
    connections_max: usize,
    shutdown: &CancellationToken,
    connection: impl Fn(BoxStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(connections_max));
    let connections = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream);
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must end first.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // New clients are refused from here on, not left to wait.
    drop(listener);
    connections.close();
    connections.wait().await;
}
