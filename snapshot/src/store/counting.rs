//! Counts requests and bytes of an object store; always on.
//!
//! Invariant: a request is counted whatever its outcome; each part of a
//! multipart upload, its start and its completion are one PUT each, as S3 bills them. Who asks again
//! and again gives way now and then, even where the store answers at once, as memory does: else no
//! deadline around it would ever be looked at.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
    path::Path,
};
use tokio::task::coop::consume_budget;

/// Requests and bytes since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// PUT, POST, COPY and multipart requests.
    pub puts: u64,
    /// GET and HEAD requests.
    pub gets: u64,
    /// LIST requests (a listing counts once).
    pub lists: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// Bytes sent.
    pub put_bytes: u64,
    /// Bytes asked for and promised in answers.
    pub get_bytes: u64,
}

impl Counts {
    /// What happened since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            puts: self.puts - earlier.puts,
            gets: self.gets - earlier.gets,
            lists: self.lists - earlier.lists,
            deletes: self.deletes - earlier.deletes,
            put_bytes: self.put_bytes - earlier.put_bytes,
            get_bytes: self.get_bytes - earlier.get_bytes,
        }
    }

    /// PUT and LIST requests: the dear ones.
    #[must_use]
    pub fn puts_and_lists(&self) -> u64 {
        self.puts + self.lists
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.puts + self.gets + self.lists + self.deletes
    }
}

#[derive(Debug, Default)]
struct Cells {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    put_bytes: AtomicU64,
    get_bytes: AtomicU64,
}

impl Cells {
    fn add(cell: &AtomicU64, count: u64) {
        cell.fetch_add(count, Ordering::Relaxed);
    }
}

/// An object store that counts; see [`Counts`].
#[derive(Debug)]
pub struct CountingStore {
    inner: Arc<dyn ObjectStore>,
    cells: Arc<Cells>,
}

impl CountingStore {
    /// Counts what goes to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, cells: Arc::default() }
    }

    /// The store below.
    #[must_use]
    pub fn inner(&self) -> Arc<dyn ObjectStore> {
        self.inner.clone()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Counts {
            puts: read(&self.cells.puts),
            gets: read(&self.cells.gets),
            lists: read(&self.cells.lists),
            deletes: read(&self.cells.deletes),
            put_bytes: read(&self.cells.put_bytes),
            get_bytes: read(&self.cells.get_bytes),
        }
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        let result = self.inner.put_opts(location, payload, opts).await;
        // A folder refuses attributes without touching the disk; the caller repeats without them.
        if !matches!(result, Err(Error::NotImplemented { .. } | Error::NotSupported { .. })) {
            Cells::add(&self.cells.puts, 1);
            Cells::add(&self.cells.put_bytes, bytes);
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Cells::add(&self.cells.puts, 1);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(CountingUpload { inner, cells: self.cells.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        Cells::add(&self.cells.gets, 1);
        consume_budget().await;
        let head = options.head;
        let result = self.inner.get_opts(location, options).await?;
        if !head {
            let bytes = result.range.end.saturating_sub(result.range.start);
            Cells::add(&self.cells.get_bytes, bytes);
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Cells::add(&self.cells.gets, ranges.len() as u64);
        let result = self.inner.get_ranges(location, ranges).await?;
        Cells::add(&self.cells.get_bytes, result.iter().map(|bytes| bytes.len() as u64).sum());
        Ok(result)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let cells = self.cells.clone();
        let counted = locations.inspect(move |_| Cells::add(&cells.deletes, 1)).boxed();
        self.inner.delete_stream(counted)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        Cells::add(&self.cells.lists, 1);
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        Cells::add(&self.cells.lists, 1);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        Cells::add(&self.cells.lists, 1);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        Cells::add(&self.cells.puts, 1);
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct CountingUpload {
    inner: Box<dyn MultipartUpload>,
    cells: Arc<Cells>,
}

#[async_trait]
impl MultipartUpload for CountingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        Cells::add(&self.cells.puts, 1);
        Cells::add(&self.cells.put_bytes, data.content_length() as u64);
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        Cells::add(&self.cells.puts, 1);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        Cells::add(&self.cells.deletes, 1);
        self.inner.abort().await
    }
}
