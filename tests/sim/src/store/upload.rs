//! A multipart upload. Invariant: the object appears whole, at the completion, or never.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{
    Attributes, Error, MultipartUpload, ObjectStore, PutMode, PutOptions, PutPayload, PutResult,
    Result, UploadPart, path::Path,
};
use parking_lot::Mutex;

use super::call::{Call, Caller};

/// The parts in their order; `None` for one that is not there yet, or failed.
type Parts = Arc<Mutex<Vec<Option<PutPayload>>>>;

#[derive(Debug)]
pub(super) struct SimUpload {
    pub(super) caller: Arc<Caller>,
    pub(super) path: Path,
    pub(super) attributes: Attributes,
    parts: Parts,
}

impl SimUpload {
    pub(super) fn new(caller: Arc<Caller>, path: Path, attributes: Attributes) -> Self {
        Self { caller, path, attributes, parts: Parts::default() }
    }

    fn call(&self, op: &'static str) -> Option<Call> {
        self.caller.call(op, self.path.as_ref())
    }
}

#[async_trait]
impl MultipartUpload for SimUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let parts = self.parts.clone();
        let number = {
            let mut parts = parts.lock();
            parts.push(None);
            parts.len() - 1
        };
        let work = async move {
            parts.lock()[number] = Some(data);
            Ok(())
        };
        match self.call("part") {
            Some(call) => call.write(work.boxed()).boxed(),
            None => work.boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (store, path) = (self.caller.store.clone(), self.path.clone());
        let (parts, attributes) = (self.parts.clone(), self.attributes.clone());
        let work = async move {
            let parts: Option<Vec<PutPayload>> = parts.lock().iter().cloned().collect();
            let Some(parts) = parts else {
                let source = "a part of the upload is missing".into();
                return Err(Error::Generic { store: "simulated", source });
            };
            let whole: PutPayload = parts.iter().flat_map(|part| part.iter().cloned()).collect();
            let options =
                PutOptions { mode: PutMode::Overwrite, attributes, ..PutOptions::default() };
            let done = store.memory.put_opts(&path, whole, options).await?;
            store.note_written(&path);
            Ok(done)
        };
        match self.call("complete") {
            Some(call) => call.write(work.boxed()).await,
            None => work.await,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.lock().clear();
        Ok(())
    }
}
