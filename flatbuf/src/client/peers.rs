//! The peers of a process, by address.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;

use super::{Peer, PeerOptions};
use crate::Network;

/// One [`Peer`] per address, made when first asked for.
pub struct Peers {
    network: Arc<dyn Network>,
    options: PeerOptions,
    peers: RwLock<BTreeMap<String, Arc<Peer>>>,
}

impl Peers {
    /// No peers yet; each will be made with these options.
    #[must_use]
    pub fn new(network: Arc<dyn Network>, options: PeerOptions) -> Self {
        Self { network, options, peers: RwLock::default() }
    }

    /// The peer at `address` (`host:port`); does not connect.
    #[must_use]
    pub fn get(&self, address: &str) -> Arc<Peer> {
        if let Some(peer) = self.peers.read().get(address) {
            return Arc::clone(peer);
        }
        let mut peers = self.peers.write();
        let peer = peers.entry(address.to_owned()).or_insert_with(|| {
            Arc::new(Peer::new(Arc::clone(&self.network), address, self.options.clone()))
        });
        Arc::clone(peer)
    }

    /// Forgets all peers but those at the given addresses; calls in flight on others go on.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.peers.write().retain(|address, _| keep(address));
    }
}
