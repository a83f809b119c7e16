//! A client of the cluster within the process of its user: what a proxy is, without the hop to it.
//!
//! ```text
//! user ─► Client ─► replicas of the key (RPC), all of a batch at one time
//!            └─► knows the configuration (coordinators or a file) and who is there (gossip)
//! ```
//! In reading order: [`Client`] (single keys) · [`many`] (batches, listings) · [`value`] (what is
//! written and read) · [`error`]. Documented for users in docs/client.md. Calls: proxy (assembly),
//! replication. Called by: users of the library.
//!
//! Invariants:
//! - every call ends by its deadline; within it, whatever may help is tried again by its kind of error:
//!   reads and changes of which nothing was done begin anew, plain writes go on as the same write
//!   ([`Serving::put_patiently`]). So no repeat buries what somebody wrote in between;
//! - what may have happened is told as [`ClientError::Unknown`], and is never begun again here.

mod error;
mod many;
mod value;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
pub use error::{ClientError, ConnectError};
pub use many::{Entry, Listing};
use tako_flatbuf::{ChangeOutcome, Edit, Network, Record, RecordHead, TcpNetwork};
pub use tako_flatbuf::{Condition, Misfit};
use tako_journal::FsDisk;
use tako_types::{Clock, Key, Kind, NAMESPACE_VALUES, NodeId, StoredKey, SystemClock, Version};
use tokio::time::{Instant, sleep};
pub use value::{Put, Value};

use crate::{
    configuration::{ConfigSource, ConfigWatcher},
    proxy::{Proxy, ProxyOptions},
    replication::{Change, Read, RequestError, Serving, Write},
};

/// Time to find a configuration where nothing else is said.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks for a configuration.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// First pause before something is tried again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(640);

/// Everything a client is made of.
pub struct ClientOptions {
    /// Where configurations come from.
    pub source: ConfigSource,
    /// Byte streams to coordinators and nodes.
    pub network: Arc<dyn Network>,
    /// Time: versions are made of it, so it should be that of the cluster within seconds.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for the client's name and its versions' origin: no two clients may have the same.
    pub seed: u64,
    /// How long to look for the first configuration.
    pub connect_deadline: Duration,
    /// How long a call may take; `None`: `request_deadline` of the configuration.
    pub request_deadline: Option<Duration>,
}

impl ClientOptions {
    /// Over TCP, by the clock of this machine, with a seed from the operating system.
    #[must_use]
    pub fn new(source: ConfigSource) -> Self {
        Self {
            source,
            network: Arc::new(TcpNetwork),
            clock: Arc::new(SystemClock),
            seed: RandomState::new().hash_one(std::process::id()),
            connect_deadline: CONNECT_DEADLINE,
            request_deadline: None,
        }
    }
}

/// A connected client; share it behind an [`Arc`], one per process is enough.
pub struct Client {
    proxy: Proxy,
    deadline: Option<Duration>,
}

impl Client {
    /// A client of the cluster that these coordinators (`host:port`) serve.
    ///
    /// # Errors
    /// [`ConnectError`]: none gave a configuration within 10 seconds.
    pub async fn connect(
        coordinators: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, ConnectError> {
        let coordinators = coordinators.into_iter().map(Into::into).collect();
        Self::with(ClientOptions::new(ConfigSource::Coordinators(coordinators))).await
    }

    /// A client with options.
    ///
    /// # Errors
    /// [`ConnectError`]: no configuration could be had in time.
    pub async fn with(options: ClientOptions) -> Result<Self, ConnectError> {
        let ClientOptions { source, network, clock, seed, connect_deadline, request_deadline } =
            options;
        let watcher = ConfigWatcher::new(source.clone(), network.clone());
        let until = Instant::now() + connect_deadline;
        let first = loop {
            let error = match watcher.fetch(None).await {
                Ok(first) => break first,
                Err(error) => error,
            };
            if until <= Instant::now() + LOOK_PAUSE || matches!(source, ConfigSource::File(_)) {
                return Err(ConnectError::Configuration(error));
            }
            sleep(LOOK_PAUSE).await;
        };
        let id = NodeId::from(format!("client-{seed:016x}"));
        let disk = Arc::new(FsDisk);
        let options = ProxyOptions { id, var: None, source, clock, seed, network, disk };
        let proxy = Proxy::start_with(first, watcher, options).await?;
        Ok(Self { proxy, deadline: request_deadline })
    }

    /// Lets answered writes end at every replica, then closes every connection.
    pub async fn close(&self) {
        self.proxy.stop().await;
    }

    /// What serves the requests: for what has no method here.
    #[must_use]
    pub fn serving(&self) -> &Arc<Serving> {
        &self.proxy.serving
    }

    /// The value of a key, or that R replicas know of none.
    ///
    /// # Errors
    /// [`ClientError`]: it cannot be told.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, ClientError> {
        let read = Read { key: stored(key.as_ref())?, r: None };
        let mut tries = Tries::of(self);
        loop {
            match self.serving().get(&read, tries.left()).await {
                Ok(record) => return Ok(record.and_then(|record| self.live(&record))),
                Err(error) => tries.pause_after(error, self.now_micros()).await?,
            }
        }
    }

    /// Writes a value; W replicas have it on disk when this returns. Gives the version that holds
    /// then: the write's own, or a newer one that was written at the same time.
    ///
    /// # Errors
    /// [`ClientError`]; `Unknown` when it may have happened.
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        put: impl Into<Put>,
    ) -> Result<Version, ClientError> {
        let key = stored(key.as_ref())?;
        let put = put.into();
        self.check(&put)?;
        let write = Write {
            key,
            kind: Kind::Value,
            expires_at_micros: put.expires_at_micros(self.now_micros()),
            value: put.value,
            content_type: put.content_type,
            flags: put.flags,
            timestamp_micros: None,
            w: None,
        };
        self.write(write).await
    }

    /// Deletes a value, whether there is one or not.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Version, ClientError> {
        let write = Write {
            key: stored(key.as_ref())?,
            kind: Kind::Tombstone,
            value: Bytes::new(),
            content_type: None,
            flags: 0,
            expires_at_micros: 0,
            timestamp_micros: None,
            w: None,
        };
        self.write(write).await
    }

    /// Writes a value where `condition` holds, in one piece with looking at it.
    ///
    /// # Errors
    /// [`ClientError`]; `Condition` with the version that there is where it does not hold, `Unknown`
    /// when it may have happened.
    pub async fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        condition: Condition,
        put: impl Into<Put>,
    ) -> Result<Version, ClientError> {
        let put = put.into();
        self.change(key.as_ref(), condition, Edit::Write, Kind::Value, put).await.map(|done| done.0)
    }

    /// Deletes a value where `condition` holds.
    ///
    /// # Errors
    /// As [`Self::put_if`].
    pub async fn delete_if(
        &self,
        key: impl AsRef<[u8]>,
        condition: Condition,
    ) -> Result<Version, ClientError> {
        let (edit, kind, nothing) = (Edit::Write, Kind::Tombstone, Put::default());
        self.change(key.as_ref(), condition, edit, kind, nothing).await.map(|done| done.0)
    }

    /// Adds to a decimal number, modulo 2^64; gives the new one. There must be one: see [`Self::put_if`]
    /// with [`Condition::Absent`].
    ///
    /// # Errors
    /// As [`Self::put_if`]; `Misfit` where there is something else.
    pub async fn add(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<u64, ClientError> {
        self.count(key.as_ref(), Edit::Add(delta)).await
    }

    /// Subtracts from a decimal number, not below 0; gives the new one.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn subtract(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<u64, ClientError> {
        self.count(key.as_ref(), Edit::Subtract(delta)).await
    }

    /// Puts bytes behind those that are there.
    ///
    /// # Errors
    /// As [`Self::put_if`].
    pub async fn append(
        &self,
        key: impl AsRef<[u8]>,
        bytes: impl Into<Put>,
    ) -> Result<Version, ClientError> {
        let (condition, put) = (Condition::Present, bytes.into());
        let done = self.change(key.as_ref(), condition, Edit::Append, Kind::Value, put).await?;
        Ok(done.0)
    }

    async fn count(&self, key: &[u8], edit: Edit) -> Result<u64, ClientError> {
        let (condition, nothing) = (Condition::Present, Put::default());
        let (_, record) = self.change(key, condition, edit, Kind::Value, nothing).await?;
        let digits = record.map(|record| record.value()).unwrap_or_default();
        let number = std::str::from_utf8(&digits).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| ClientError::Unknown { reason: "no number was told".to_owned() })
    }

    async fn write(&self, write: Write) -> Result<Version, ClientError> {
        let written = self.serving().put_patiently(write, self.deadline()).await;
        written.map(|written| written.version).map_err(ClientError::of_write)
    }

    async fn change(
        &self,
        key: &[u8],
        condition: Condition,
        edit: Edit,
        kind: Kind,
        put: Put,
    ) -> Result<(Version, Option<Record>), ClientError> {
        let key = stored(key)?;
        self.check(&put)?;
        let expires_at_micros = put.expires_at_micros(self.now_micros());
        let head = RecordHead { version: Version::ZERO, kind, expires_at_micros, flags: put.flags };
        let template = Record::encode(&key, head, put.content_type.as_deref(), &put.value);
        let change = Change::new(condition, template).edited(edit);
        let mut tries = Tries::of(self);
        let outcome = loop {
            match self.serving().change(&change, tries.left()).await {
                Ok(outcome) => break outcome,
                Err(error) => tries.pause_after(error, self.now_micros()).await?,
            }
        };
        match outcome {
            ChangeOutcome::Done { version, record } => Ok((version, record)),
            ChangeOutcome::Cannot(misfit) => Err(ClientError::Misfit(misfit)),
            ChangeOutcome::Fails { version } => Err(ClientError::Condition { version }),
            ChangeOutcome::Unknown { reason } => Err(ClientError::Unknown { reason }),
        }
    }

    fn check(&self, put: &Put) -> Result<(), ClientError> {
        let limit = self.proxy.config.current().config.cluster.value_bytes_max;
        put.check(limit)
    }

    fn deadline(&self) -> Duration {
        let usual = || self.proxy.config.current().config.cluster.request_deadline;
        self.deadline.unwrap_or_else(usual)
    }

    fn now_micros(&self) -> u64 {
        self.serving().clock().now_micros()
    }

    fn live(&self, record: &Record) -> Option<Value> {
        record.is_live_at(self.now_micros()).then(|| Value::of(record))
    }
}

/// Tries until the deadline of what changed nothing when it failed.
struct Tries {
    until: Instant,
    pause: Duration,
}

impl Tries {
    fn of(client: &Client) -> Self {
        Self { until: Instant::now() + client.deadline(), pause: PAUSE_MIN }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits for the next try; an error where another one does not help or has no time.
    async fn pause_after(
        &mut self,
        error: RequestError,
        now_micros: u64,
    ) -> Result<(), ClientError> {
        // Clients that were put off together do not come back together.
        let part = u32::try_from(now_micros % 64).unwrap_or(0);
        let pause = self.pause + self.pause * part / 64;
        if !helps_to_repeat(&error) || self.left() <= pause {
            return Err(ClientError::of_nothing_done(error));
        }
        tracing::debug!("tried again after {pause:?}: {error}");
        sleep(pause).await;
        self.pause = (2 * self.pause).min(PAUSE_MAX);
        Ok(())
    }
}

/// Whether the same may be answered better in a moment.
fn helps_to_repeat(error: &RequestError) -> bool {
    use tako_types::ErrorKind::{Busy, Conflict, StaleEpoch, Unavailable};
    matches!(error.kind(), Busy | Conflict | StaleEpoch | Unavailable)
}

fn stored(key: &[u8]) -> Result<StoredKey, ClientError> {
    let key = Key::new(NAMESPACE_VALUES, Bytes::copy_from_slice(key));
    key.map(|key| key.stored()).map_err(|error| ClientError::Invalid(error.to_string()))
}
