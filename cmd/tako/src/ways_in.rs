//! The ports at which a node or a proxy serves clients: opened together, served until the shutdown.

use std::{fmt, sync::Arc};

use tako_flatbuf::Listener;
use tako_gateway::{EventLog, Gateway, GatewayOptions};
use tako_node_core::replication::Serving;
use tokio_util::sync::CancellationToken;

use crate::{failure::Failure, trust::Trust};

/// See the module; without any, nobody is served.
#[derive(Default)]
pub(crate) struct WaysIn {
    http: Option<Box<dyn Listener>>,
    memcached: Option<Box<dyn Listener>>,
}

impl WaysIn {
    /// Opens the ports that there are, for HTTP and for memcached.
    pub(crate) async fn open(
        host: &str,
        (http, memcached): (Option<u16>, Option<u16>),
        trust: &Trust,
    ) -> Result<Self, Failure> {
        let mut opened = Self::default();
        if let Some(port) = http {
            opened.http = Some(trust.listen("HTTP", host, port).await?);
        }
        if let Some(port) = memcached {
            opened.memcached = Some(trust.listen("memcached", host, port).await?);
        }
        Ok(opened)
    }

    /// Serves until the shutdown, then finishes what is under way.
    pub(crate) async fn serve(
        self,
        serving: &Arc<Serving>,
        events: Arc<EventLog>,
        trust: &Trust,
        shutdown: &CancellationToken,
    ) {
        let options = GatewayOptions {
            events: events.clone(),
            access: trust.access.clone(),
            ..GatewayOptions::default()
        };
        let gateway = Gateway::new(serving.clone(), options);
        let http = async {
            match self.http {
                Some(listener) => {
                    tako_gateway::serve(listener, gateway.clone(), shutdown.clone()).await;
                }
                None => shutdown.cancelled().await,
            }
        };
        let memcached = async {
            if let Some(listener) = self.memcached {
                let (gateway, shutdown) = (gateway.clone(), shutdown.clone());
                tako_gateway::serve_memcached(listener, gateway, shutdown).await;
            }
        };
        let events = async {
            shutdown.cancelled().await;
            events.close();
        };
        tokio::join!(http, memcached, events);
    }
}

impl fmt::Display for WaysIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |listener: &Option<Box<dyn Listener>>| {
            listener.as_ref().map_or_else(|| "none".to_owned(), |it| it.address())
        };
        write!(f, "http={} memcached={}", of(&self.http), of(&self.memcached))
    }
}
