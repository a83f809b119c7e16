//! Accepts HTTP connections from the listener given: bounded in number, ended gracefully.
//!
//! Invariant: no connection outlives [`serve`], none lasts for ever, and none is waited for longer
//! than the grace.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tako_flatbuf::{BoxStream, Listener};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long an open connection may take to finish at the end, its own or the coordinator's.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Connections at a time; more wait to be accepted. Processes ask every few seconds, each anew.
const CONNECTIONS_MAX: usize = 1_024;
/// Longest time for the head of a request, and between two of them.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest life of a connection; who wants more connects anew.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled; then finishes open requests and returns.
pub(crate) async fn serve(listener: Box<dyn Listener>, router: Router, stop: CancellationToken) {
    // Owned here: what is left when this ends, or is dropped, is cut.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(answer(stream, router.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    // New clients are refused from here on, not left to wait.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn answer(stream: BoxStream, router: Router, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A broken connection is the client's affair.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = sleep(CONNECTION_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    // What stays open beyond the grace is cut.
    let _ = timeout(SHUTDOWN_GRACE, connection).await;
}
