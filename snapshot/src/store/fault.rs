//! An object store that fails on demand; for tests and simulations.
//!
//! Invariant: without a rule it changes nothing. A failure *before* leaves the store untouched; a
//! failure *after* has taken effect and only the answer is lost, as with a broken connection.
//! Rules are looked at in the order in which they were added; the first that fires decides.

use std::{fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
    path::Path,
};
use parking_lot::Mutex;
use slatedb_common::retry::NonRetryable;

/// Kind of a store call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// PUT, parts and completion of a multipart upload, COPY.
    Put,
    /// GET and HEAD.
    Get,
    /// LIST.
    List,
    /// DELETE.
    Delete,
}

/// When a failing call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing reached the store.
    Before,
    /// The store did it; only the answer is lost. Reads fail all the same.
    After,
}

/// Which calls a rule is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Only this kind.
    pub op: Option<Op>,
    /// Only objects whose path contains this.
    pub path_part: Option<String>,
}

impl Match {
    /// Every call.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Calls of one kind.
    #[must_use]
    pub fn op(op: Op) -> Self {
        Self { op: Some(op), path_part: None }
    }

    /// The same, on objects whose path contains `part`.
    #[must_use]
    pub fn on(mut self, part: &str) -> Self {
        self.path_part = Some(part.to_owned());
        self
    }

    fn matches(&self, op: Op, path: &str) -> bool {
        self.op.is_none_or(|wanted| wanted == op)
            && self.path_part.as_ref().is_none_or(|part| path.contains(part.as_str()))
    }
}

#[derive(Debug)]
struct Rule {
    matching: Match,
    /// Matching calls still let through.
    pass: u64,
    /// Matching calls that fail after those.
    fail: u64,
    when: When,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    slow: Option<Duration>,
    retried: bool,
    calls: u64,
    failed: u64,
}

/// See the module; shared by everything that holds the store.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

impl FaultStore {
    /// Puts a fault injector without rules in front of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, state: Arc::default() })
    }

    /// Every call fails before it takes effect, until [`Self::clear`].
    pub fn refuse_all(&self) {
        self.fail_from(Match::any(), 0, When::Before);
    }

    /// The `n`th matching call from now (0 is the next) fails, once.
    pub fn fail_nth(&self, matching: Match, n: u64, when: When) {
        self.state.lock().rules.push(Rule { matching, pass: n, fail: 1, when });
    }

    /// The `n`th matching call from now and all later ones fail.
    pub fn fail_from(&self, matching: Match, n: u64, when: When) {
        self.state.lock().rules.push(Rule { matching, pass: n, fail: u64::MAX, when });
    }

    /// Matching calls follow the script one by one: `None` passes; after its end all pass.
    pub fn script(&self, matching: &Match, script: &[Option<When>]) {
        for (index, step) in script.iter().enumerate() {
            if let Some(when) = step {
                self.fail_nth(matching.clone(), index as u64, *when);
            }
        }
    }

    /// Every call first waits so long.
    pub fn slow(&self, delay: Option<Duration>) {
        self.state.lock().slow = delay;
    }

    /// Whether injected failures look like ones worth a retry (as a broken connection does);
    /// otherwise, the default, the engine gives up at once.
    pub fn retried(&self, retried: bool) {
        self.state.lock().retried = retried;
    }

    /// Forgets all rules and the delay.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.slow = None;
    }

    /// Calls seen so far, failed ones included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Calls that were made to fail so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.state.lock().failed
    }
}

/// What a call is to do.
struct Verdict {
    fail: Option<When>,
    slow: Option<Duration>,
    retried: bool,
}

impl Verdict {
    async fn before(&self) -> Result<()> {
        if let Some(delay) = self.slow {
            tokio::time::sleep(delay).await;
        }
        if self.fail == Some(When::Before) { Err(self.error()) } else { Ok(()) }
    }

    fn after<T>(&self, result: Result<T>) -> Result<T> {
        if self.fail == Some(When::After) { Err(self.error()) } else { result }
    }

    fn error(&self) -> Error {
        let cause = io::Error::other("injected fault");
        let source: Box<dyn std::error::Error + Send + Sync> =
            if self.retried { Box::new(cause) } else { Box::new(NonRetryable(Box::new(cause))) };
        Error::Generic { store: "fault", source }
    }
}

fn judge(state: &Mutex<State>, op: Op, path: &str) -> Verdict {
    let mut state = state.lock();
    state.calls += 1;
    let mut fail = None;
    for rule in state.rules.iter_mut().filter(|rule| rule.matching.matches(op, path)) {
        if rule.pass > 0 {
            rule.pass -= 1;
        } else if rule.fail > 0 && fail.is_none() {
            rule.fail -= 1;
            fail = Some(rule.when);
        }
    }
    state.failed += u64::from(fail.is_some());
    Verdict { fail, slow: state.slow, retried: state.retried }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let verdict = judge(&self.state, Op::Put, location.as_ref());
        verdict.before().await?;
        verdict.after(self.inner.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let verdict = judge(&self.state, Op::Put, location.as_ref());
        verdict.before().await?;
        let inner = verdict.after(self.inner.put_multipart_opts(location, opts).await)?;
        let path = location.to_string();
        Ok(Box::new(FaultUpload { inner, state: self.state.clone(), path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let verdict = judge(&self.state, Op::Get, location.as_ref());
        verdict.before().await?;
        verdict.after(self.inner.get_opts(location, options).await)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        locations
            .then(move |location| {
                let (inner, state) = (inner.clone(), state.clone());
                async move {
                    let location = location?;
                    let verdict = judge(&state, Op::Delete, location.as_ref());
                    verdict.before().await?;
                    let one = stream::once(async move { Ok(location) }).boxed();
                    let answer = inner.delete_stream(one).next().await;
                    verdict.after(answer.unwrap_or_else(|| Err(verdict.error())))
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let verdict = judge(&self.state, Op::List, prefix.map_or("", |path| path.as_ref()));
        faulty_list(verdict, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let verdict = judge(&self.state, Op::List, prefix.map_or("", |path| path.as_ref()));
        faulty_list(verdict, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let verdict = judge(&self.state, Op::List, prefix.map_or("", |path| path.as_ref()));
        verdict.before().await?;
        verdict.after(self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let verdict = judge(&self.state, Op::Put, to.as_ref());
        verdict.before().await?;
        verdict.after(self.inner.copy_opts(from, to, options).await)
    }
}

fn faulty_list(
    verdict: Verdict,
    inner: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let gate = async move {
        verdict.before().await?;
        verdict.after(Ok(()))
    };
    gate.map(|gate| match gate {
        Ok(()) => inner,
        Err(error) => stream::once(async move { Err(error) }).boxed(),
    })
    .flatten_stream()
    .boxed()
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<Mutex<State>>,
    path: String,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let verdict = judge(&self.state, Op::Put, &self.path);
        let part = self.inner.put_part(data);
        async move {
            verdict.before().await?;
            verdict.after(part.await)
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let verdict = judge(&self.state, Op::Put, &self.path);
        verdict.before().await?;
        verdict.after(self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
