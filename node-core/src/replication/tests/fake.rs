//! A replica that answers as a test says and may know newer documents than its caller.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tako_flatbuf::{CallHead, Caller, Request, Response, RpcError, Service};
use tako_types::{Incarnation, Version, config::Published};

/// What a fake replica answers; `None`: it never does.
type Answers = Box<dyn Fn(&Request) -> Option<Result<Response, RpcError>> + Send + Sync>;

/// A replica that does as it is told and counts what it was asked.
#[derive(Default)]
pub(in crate::replication) struct Fake {
    answers: OnceLock<Answers>,
    /// Each answer takes this long.
    pub(super) delay: OnceLock<Duration>,
    asked: Mutex<BTreeMap<&'static str, usize>>,
    /// The documents it has, one after the other: the next one as soon as somebody calls under the
    /// first. It refuses older epochs; without any it takes every epoch.
    knows: Mutex<VecDeque<Published>>,
    /// Epoch and version of every record it was sent and did not refuse for its epoch.
    puts: Mutex<Vec<(u64, Version)>>,
}

#[async_trait]
impl Service for Fake {
    async fn call(
        &self,
        caller: &Caller,
        head: &CallHead,
        request: Request,
    ) -> Result<Response, RpcError> {
        if let Some(refusal) = self.judge(head.epoch, &request) {
            return refusal;
        }
        let name = match &request {
            Request::Hello { cluster, .. } => {
                let (node, incarnation) = (caller.node.clone(), Incarnation(1));
                return Ok(Response::Hello { cluster: *cluster, node, incarnation });
            }
            Request::Put { record, .. } => {
                let put = (head.epoch, record.version());
                self.puts.lock().expect("no test panics holding it").push(put);
                "put"
            }
            Request::Get { .. } => "get",
            Request::Stat { .. } => "stat",
            _ => "other",
        };
        *self.asked.lock().expect("no test panics holding it").entry(name).or_default() += 1;
        let answer = self.answers.get().and_then(|answers| answers(&request));
        if let Some(delay) = self.delay.get() {
            tokio::time::sleep(*delay).await;
        }
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

impl Fake {
    pub(super) fn knows(&self, documents: impl IntoIterator<Item = Published>) {
        self.knows.lock().expect("no test panics holding it").extend(documents);
    }

    /// What it says instead of an answer, by the document it has.
    fn judge(&self, epoch: u64, request: &Request) -> Option<Result<Response, RpcError>> {
        let judged =
            matches!(request, Request::Put { .. } | Request::Get { .. } | Request::Stat { .. });
        let mut knows = self.knows.lock().expect("no test panics holding it");
        while judged && knows.len() > 1 && knows[0].epoch.number <= epoch {
            knows.pop_front();
        }
        let known = knows.front()?;
        match request {
            Request::Configuration { .. } => {
                Some(Ok(Response::Configuration { document: Some(known.encode().into()) }))
            }
            _ if judged && epoch < known.epoch.number => {
                let mut asked = self.asked.lock().expect("no test panics holding it");
                *asked.entry("refused").or_default() += 1;
                Some(Err(RpcError::stale_epoch(known.epoch.number)))
            }
            _ => None,
        }
    }

    pub(super) fn puts(&self) -> Vec<(u64, Version)> {
        self.puts.lock().expect("no test panics holding it").clone()
    }

    pub(in crate::replication) fn answers(
        &self,
        answers: impl Fn(&Request) -> Option<Result<Response, RpcError>> + Send + Sync + 'static,
    ) {
        assert!(self.answers.set(Box::new(answers)).is_ok(), "told once");
    }

    pub(super) fn asked(&self, name: &str) -> usize {
        self.asked.lock().expect("no test panics holding it").get(name).copied().unwrap_or(0)
    }
}
