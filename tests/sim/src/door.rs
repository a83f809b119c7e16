//! The way in by HTTP of one process: the production gateway on the process' host.
//!
//! Invariant: it ends with its process. A crash cuts its streams off at that instant (the network
//! does that) and its acceptor ends; one that leaves in good order finishes open requests first.

use std::{io, sync::Arc};

use tako_flatbuf::Network;
use tako_gateway::{Gateway, GatewayOptions};
use tako_node_core::replication::Serving;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::network::HostNetwork;

/// Where a process serves HTTP.
#[must_use]
pub fn address(process: &str) -> String {
    format!("{process}:5711")
}

/// See the module; clones are the same way in.
#[derive(Debug, Clone)]
pub struct Door {
    closing: CancellationToken,
    served: TaskTracker,
}

impl Door {
    /// Serves HTTP until the process is `dead` or the door is closed.
    ///
    /// # Errors
    /// The host crashed, or another life of it listens.
    pub async fn open(
        network: &HostNetwork,
        process: &str,
        serving: &Arc<Serving>,
        dead: &CancellationToken,
    ) -> io::Result<Self> {
        let listener = network.listen(&address(process)).await?;
        let gateway = Gateway::new(serving.clone(), GatewayOptions::default());
        let door = Self { closing: CancellationToken::new(), served: TaskTracker::new() };
        let (closing, dead) = (door.closing.clone(), dead.clone());
        door.served.spawn(async move {
            let serving = tako_gateway::serve(listener, gateway, closing);
            let _ended_by_either = dead.run_until_cancelled_owned(serving).await;
        });
        door.served.close();
        Ok(door)
    }

    /// Takes no further requests and waits until open ones have ended.
    pub async fn close(&self) {
        self.closing.cancel();
        self.served.wait().await;
    }
}
