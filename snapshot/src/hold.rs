//! Compaction stands still for a while: what it would take of processor and store is needed elsewhere.
//!
//! In: somebody says that it shall, and that it need not any more. Out: a store whose reads wait
//! meanwhile, for compaction alone. Invariant: it never waits longer than [`HOLD_MAX`] after it was
//! first told to, so a hold that nobody takes back costs that much and no more.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// A move takes seconds; steps of two minutes are a dozen tables, which a compaction takes in one.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(120);

/// Whether compaction stands still, and until when at most.
#[derive(Debug)]
pub(crate) struct Hold(watch::Sender<Option<Instant>>);

impl Hold {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Said again while it is on, it changes nothing.
    pub(crate) fn set(&self, on: bool) {
        self.0.send_if_modified(|until| {
            let changes = until.is_some() != on;
            if changes {
                *until = on.then(|| Instant::now() + HOLD_MAX);
            }
            changes
        });
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// `inner`, whose reads wait while this is on.
    pub(crate) fn over(&self, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(HeldStore { inner, until: self.0.subscribe() })
    }
}

/// See [`Hold::over`]. Compaction writes only what it has read, so reads are enough.
#[derive(Debug)]
struct HeldStore {
    inner: Arc<dyn ObjectStore>,
    until: watch::Receiver<Option<Instant>>,
}

impl HeldStore {
    async fn released(&self) {
        let mut until = self.until.clone();
        loop {
            let end = *until.borrow_and_update();
            let Some(end) = end.filter(|end| Instant::now() < *end) else { return };
            tokio::select! {
                // Without a sender nobody could take it back: the node has ended.
                told = until.changed() => if told.is_err() { return },
                () = sleep_until(end) => {}
            }
        }
    }
}

impl fmt::Display for HeldStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for HeldStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.released().await;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.released().await;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
