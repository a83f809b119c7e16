//! Whether every port the cluster needs is free, before anything is started.

use std::io;

use tokio::net::TcpListener;

use super::{Plan, Planned};
use crate::{
    failure::{Failure, listen_kind},
    listen,
};

/// Tries every port once; all are closed again when this returns.
///
/// # Errors
/// The port, who needs it and why it cannot be had.
pub(super) async fn check(plan: &Plan, insecure: bool) -> Result<(), Failure> {
    // All are held to the end, so that a port that two need is found as well.
    let mut held = Vec::new();
    for process in &plan.processes {
        for (what, address) in &process.ports {
            let address = address.to_string();
            let tried = match listen::check(&address, insecure).await {
                Ok(()) => TcpListener::bind(&address).await,
                Err(error) => Err(error),
            };
            held.push(tried.map_err(|error| explain(process, what, &address, &error))?);
        }
    }
    Ok(())
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
