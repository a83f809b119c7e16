//! How calls of other processes reach the replica: what a client waits for at once, and what belongs to
//! steps and healing behind it, with the rest of the upkeep.

use std::sync::Arc;

use async_trait::async_trait;
use tako_flatbuf::{CallHead, Caller, Request, Response, RpcError, Service};
use tako_types::ErrorKind;

use super::Replica;

/// See the module.
pub struct Calls(pub Arc<Replica>);

#[async_trait]
impl Service for Calls {
    async fn call(
        &self,
        caller: &Caller,
        head: &CallHead,
        request: Request,
    ) -> Result<Response, RpcError> {
        let replica = &self.0;
        let own = replica.config.epoch().number;
        if !is_of_a_client(&request) {
            if head.epoch > own {
                // No reason to wait, but to ask at once.
                replica.look.notify_one();
            }
            if !is_upkeep(&request) {
                return replica.handle(request).await;
            }
            let upkeep = replica.engine.snapshots().upkeep().clone();
            let replica = replica.clone();
            let answer = upkeep.run(async move { replica.handle(request).await }).await;
            return answer.unwrap_or_else(|ended| {
                Err(RpcError::new(ErrorKind::Unavailable, ended.to_string()))
            });
        }
        if head.epoch < own {
            return Err(RpcError::stale_epoch(own));
        }
        if head.epoch > own {
            replica.catch_up(&caller.node, head.epoch).await?;
        }
        replica.handle_at(head.epoch, request).await
    }
}

/// Whether a client waits for it: such calls go by the epoch of their caller.
fn is_of_a_client(request: &Request) -> bool {
    matches!(
        request,
        Request::Put { .. }
            | Request::Prepare { .. }
            | Request::Accept { .. }
            | Request::Get { .. }
            | Request::Stat { .. }
            | Request::List { .. }
    )
}

/// Whether it is part of a step or of healing, which take all the processor they get.
pub(crate) fn is_upkeep(request: &Request) -> bool {
    matches!(
        request,
        Request::Tail { .. }
            | Request::Fetch { .. }
            | Request::Step(_)
            | Request::ForceStep { .. }
            | Request::Scrub(_)
            | Request::Audit { .. }
    )
}
