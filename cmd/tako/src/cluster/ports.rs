//! Whether every port the cluster needs is free, before anything is started.

use std::{io, time::Duration};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::{Plan, Planned, Role};
use crate::{
    failure::{Failure, listen_kind},
    listen,
    trust::Trust,
};

/// A process that was just killed holds its ports until the system has cleared it away.
const DYING: Duration = Duration::from_secs(3);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Tries every port; all are closed again when this returns.
///
/// # Errors
/// The port, who needs it and why it cannot be had.
pub(super) async fn check(plan: &Plan, trust: &Trust) -> Result<(), Failure> {
    // All are held to the end, so that a port that two need is found as well.
    let mut held = Vec::new();
    let until = Instant::now() + DYING;
    for process in &plan.processes {
        for (what, address) in &process.ports {
            let address = address.to_string();
            let guard = match (process.role, *what) {
                (Role::Coordinator, _) | (_, "RPC") => trust.for_members(),
                (_, what) => trust.for_clients(what),
            };
            let tried = match listen::check(&address, guard).await {
                Ok(()) => bind(&address, until).await,
                Err(error) => Err(error),
            };
            held.push(tried.map_err(|error| explain(process, what, &address, &error))?);
        }
    }
    Ok(())
}

/// Binds once the port is free; a port in use is tried again until the time is over.
async fn bind(address: &str, until: Instant) -> io::Result<TcpListener> {
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                sleep(AGAIN_AFTER).await;
            }
            bound => return bound,
        }
    }
}

fn explain(process: &Planned, what: &str, address: &str, error: &io::Error) -> Failure {
    let needs = format!("{} {} needs {address} for {what}", process.role, process.id);
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("the port is taken: {needs}; stop what uses it or choose another port")
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "{needs}, but that is not an address of this machine; `tako cluster` starts every \
             process here"
        ),
        io::ErrorKind::PermissionDenied => format!("{needs}, but: {error}"),
        _ => format!("{needs}: {error}"),
    };
    Failure::new(listen_kind(error), text)
}
