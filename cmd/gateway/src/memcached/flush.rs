//! `flush_all`: every value goes that is listed when it begins, one plain delete each.
//!
//! Only where the configuration allows it. What is written meanwhile may stay or go; a value that the
//! listing does not show yet (one `snapshot.interval` at most) stays. Bounded: a page of keys, and
//! `AT_ONCE` deletes; each call has its deadline, the whole has none, as long as it moves on.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tako_node_core::replication::{List, RequestError, Write};
use tako_types::{Key, Kind, NAMESPACE_VALUES, Version};

use super::{Port, execute::failed, request::Outcome};

/// Keys listed at one time.
const PAGE: usize = 1_000;
const AT_ONCE: usize = 64;
const REFUSED: &str = "flush_all is refused: it would delete every value of the cluster; \
                       memcached_flush_all in the configuration allows it";

pub(super) async fn flush(port: &Port) -> Outcome {
    let allowed = port.gateway.serving.links().config.current().config.cluster.memcached_flush_all;
    if !allowed {
        return Outcome::Refused(REFUSED);
    }
    match delete_all(port).await {
        Ok(()) => Outcome::Written { version: Version::ZERO, record: None },
        Err(error) => failed(port, &error),
    }
}

async fn delete_all(port: &Port) -> Result<(), RequestError> {
    let serving = &port.gateway.serving;
    let deadline = serving.links().config.current().config.cluster.request_deadline;
    let (prefix, after) = (Bytes::new(), None);
    let mut lister = serving.list(List { namespace: NAMESPACE_VALUES, prefix, after });
    loop {
        let page = lister.next(serving, PAGE, deadline).await?;
        let is_last = page.len() < PAGE;
        let keys = page.into_iter().filter_map(|(key, _)| Key::new(NAMESPACE_VALUES, key).ok());
        let deletes = stream::iter(keys).map(|key| {
            let write = Write {
                key: key.stored(),
                kind: Kind::Tombstone,
                value: Bytes::new(),
                content_type: None,
                flags: 0,
                expires_at_micros: 0,
                timestamp_micros: None,
                w: None,
            };
            async move { serving.put(write, deadline).await.map(drop) }
        });
        deletes.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        if is_last {
            return Ok(());
        }
    }
}
