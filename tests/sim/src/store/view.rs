//! The store as one incarnation of a process calls it. Not here: what becomes of a call (call.rs).

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryFutureExt, future::BoxFuture, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use parking_lot::Mutex;

use super::{Shared, call::Caller, upload::SimUpload};

#[derive(Debug)]
pub(super) struct View(Arc<Caller>);

impl View {
    pub(super) fn new(store: Arc<Shared>, process: &str, life: u64) -> Self {
        let chance = Some(Mutex::new(store.chance.part(&format!("{process} {life}"))));
        Self(Arc::new(Caller { store, process: process.to_owned(), life, chance }))
    }

    /// For those outside the simulation.
    pub(super) fn sound(store: Arc<Shared>) -> Self {
        Self(Arc::new(Caller { store, process: String::new(), life: 0, chance: None }))
    }

    fn store(&self) -> Arc<Shared> {
        self.0.store.clone()
    }
}

/// Sends a call that only reads.
async fn read<T>(
    caller: Arc<Caller>,
    op: &'static str,
    path: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match caller.call(op, path) {
        Some(call) => call.read(work).await,
        None => work.await,
    }
}

/// Sends a call that may change something.
async fn write<T: Send + 'static>(
    caller: Arc<Caller>,
    op: &'static str,
    path: &Path,
    work: BoxFuture<'static, Result<T>>,
) -> Result<T> {
    match caller.call(op, path.as_ref()) {
        Some(call) => call.write(work).await,
        None => work.await,
    }
}

/// What a list shows at one instant.
async fn listed(
    store: Arc<Shared>,
    prefix: Option<Path>,
    offset: Option<Path>,
) -> Result<Vec<Result<ObjectMeta>>> {
    let found: Vec<_> = match &offset {
        Some(offset) => store.memory.list_with_offset(prefix.as_ref(), offset).collect().await,
        None => store.memory.list(prefix.as_ref()).collect().await,
    };
    Ok(found.into_iter().map(|meta| meta.map(|meta| store.dated(meta))).collect())
}

fn list(
    caller: &Arc<Caller>,
    prefix: Option<&Path>,
    offset: Option<&Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let (caller, prefix, offset) = (caller.clone(), prefix.cloned(), offset.cloned());
    async move {
        let path = prefix.as_ref().map(ToString::to_string).unwrap_or_default();
        let work = listed(caller.store.clone(), prefix, offset);
        read(caller, "list", &path, work).await
    }
    .map_ok_or_else(|error| vec![Err(error)], |found| found)
    .map(stream::iter)
    .flatten_stream()
    .boxed()
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated({} {})", self.0.process, self.0.life)
    }
}

#[async_trait]
impl ObjectStore for View {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let (store, path) = (self.store(), location.clone());
        let work = async move {
            let done = store.memory.put_opts(&path, payload, opts).await?;
            store.note_written(&path);
            Ok(done)
        };
        write(self.0.clone(), "put", location, work.boxed()).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // An upload that nobody completes is never seen, so beginning one is no change.
        let upload = SimUpload::new(self.0.clone(), location.clone(), opts.attributes);
        let begun = async move { Ok(Box::new(upload) as Box<dyn MultipartUpload>) };
        read(self.0.clone(), "multipart", location.as_ref(), begun).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (store, path) = (self.store(), location.clone());
        let op = if options.head { "head" } else { "get" };
        let work = async move {
            // Times are compared with simulated ones, so not by the store in memory.
            let mut inner = options.clone();
            inner.if_modified_since = None;
            inner.if_unmodified_since = None;
            let mut found = store.memory.get_opts(&path, inner).await?;
            found.meta = store.dated(found.meta);
            options.check_preconditions(&found.meta)?;
            Ok(found)
        };
        read(self.0.clone(), op, location.as_ref(), work).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let caller = self.0.clone();
        let delete = move |location: Result<Path>| {
            let caller = caller.clone();
            async move {
                let location = location?;
                let (store, path) = (caller.store.clone(), location.clone());
                let work = async move {
                    let one = stream::once(async move { Ok(path) }).boxed();
                    let gone: Vec<Result<Path>> = store.memory.delete_stream(one).collect().await;
                    for path in gone {
                        store.note_deleted(&path?);
                    }
                    Ok(())
                };
                write(caller, "delete", &location, work.boxed()).await.map(|()| location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        list(&self.0, prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        list(&self.0, prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (store, within) = (self.store(), prefix.cloned());
        let work = async move {
            let mut found = store.memory.list_with_delimiter(within.as_ref()).await?;
            found.objects = found.objects.into_iter().map(|meta| store.dated(meta)).collect();
            Ok(found)
        };
        read(self.0.clone(), "list", prefix.map_or("", |path| path.as_ref()), work).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (store, source, target) = (self.store(), from.clone(), to.clone());
        let work = async move {
            store.memory.copy_opts(&source, &target, options).await?;
            store.note_written(&target);
            Ok(())
        };
        write(self.0.clone(), "copy", to, work.boxed()).await
    }
}
