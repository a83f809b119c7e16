//! One of a peer's connections: opened when needed, by one task, however many wait for it.
//!
//! After a failed attempt calls fail at once for a pause that doubles up to a second; the first
//! call after the pause tries again.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    PeerOptions,
    connection::{Connection, Remote},
};
use crate::{
    Network, RpcError,
    metrics::{OpenConnection, add},
};

/// First pause after a failed attempt.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

type Attempt = Option<Result<Arc<Connection>, RpcError>>;

/// See the module.
pub(super) struct Lane {
    shared: Arc<Shared>,
    /// The task of the present connection; aborted when the lane is dropped.
    tasks: Mutex<JoinSet<()>>,
}

struct Shared {
    network: Arc<dyn Network>,
    address: String,
    options: PeerOptions,
    slot: Mutex<Slot>,
}

struct Slot {
    state: State,
    /// Pause after the next failure.
    pause: Duration,
    remote: Option<Remote>,
}

enum State {
    Idle,
    Connecting(watch::Receiver<Attempt>),
    Open(Arc<Connection>),
    Failed { until: Instant, error: RpcError },
}

impl Lane {
    pub(super) fn new(network: Arc<dyn Network>, address: &str, options: PeerOptions) -> Self {
        let slot = Mutex::new(Slot { state: State::Idle, pause: PAUSE_MIN, remote: None });
        let shared = Shared { network, address: address.to_owned(), options, slot };
        Self { shared: Arc::new(shared), tasks: Mutex::default() }
    }

    pub(super) fn remote(&self) -> Option<Remote> {
        self.shared.slot.lock().remote.clone()
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(&self.shared.slot.lock().state, State::Open(it) if !it.is_closed())
    }

    /// The open connection, or a new one.
    pub(super) async fn connection(&self, until: Instant) -> Result<Arc<Connection>, RpcError> {
        let mut attempt = {
            let mut slot = self.shared.slot.lock();
            match &slot.state {
                State::Open(connection) if !connection.is_closed() => {
                    return Ok(Arc::clone(connection));
                }
                State::Failed { until, error } if Instant::now() < *until => {
                    return Err(error.clone());
                }
                State::Connecting(attempt) => attempt.clone(),
                State::Open(_) | State::Failed { .. } | State::Idle => {
                    let (done, attempt) = watch::channel(None);
                    slot.state = State::Connecting(attempt.clone());
                    let mut tasks = self.tasks.lock();
                    while tasks.try_join_next().is_some() {}
                    let serving = run(Arc::clone(&self.shared), done);
                    match &self.shared.options.runtime {
                        Some(runtime) => tasks.spawn_on(serving, runtime),
                        None => tasks.spawn(serving),
                    };
                    attempt
                }
            }
        };
        match timeout_at(until, attempt.wait_for(Option::is_some)).await {
            Err(_) => {
                add(&self.shared.options.metrics.calls_late, 1);
                Err(RpcError::deadline())
            }
            Ok(Ok(attempt)) => match &*attempt {
                Some(result) => result.clone(),
                None => Err(RpcError::unavailable("the connection attempt ended")),
            },
            Ok(Err(_)) => Err(RpcError::unavailable("the connection attempt was given up")),
        }
    }
}

/// Connects, tells all who wait, and serves the connection to its end.
async fn run(shared: Arc<Shared>, done: watch::Sender<Attempt>) {
    let options = &shared.options;
    let opened =
        timeout(options.connect_max, Connection::open(&*shared.network, &shared.address, options));
    let error = match opened.await {
        Ok(Ok((connection, driver))) => {
            let _open = OpenConnection::new(&options.metrics);
            {
                let mut slot = shared.slot.lock();
                slot.state = State::Open(Arc::clone(&connection));
                slot.pause = PAUSE_MIN;
                slot.remote = Some(connection.remote().clone());
            }
            done.send_replace(Some(Ok(connection)));
            driver.run().await;
            return;
        }
        Ok(Err(error)) => error,
        Err(_) => RpcError::unavailable(format!("the peer at {} is silent", shared.address)),
    };
    add(&options.metrics.connects_failed, 1);
    {
        let mut slot = shared.slot.lock();
        slot.state = State::Failed { until: Instant::now() + slot.pause, error: error.clone() };
        slot.pause = (slot.pause * 2).min(PAUSE_MAX);
    }
    done.send_replace(Some(Err(error)));
}
