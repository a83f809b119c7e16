//! The grammar: from values with lines to a [`Config`], every default filled in.
//!
//! In: the tree of `yaml.rs`. Out: a [`Config`] whose single values are right; whether they fit
//! each other is asked of `validate.rs` at the end of [`Config::parse`]. Every error names path,
//! line and column. Unknown keys are refused with the nearest known one. The spellings of the
//! older systems (`background_repair*`, tuples of two or three) are read here and nowhere else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Address, BackupRule, Bucket, CacheSettings, ClusterSettings, Config, ConfigError, Consistency,
    Deployment, Durability, JournalSettings, NodeConfig, Secret, SnapshotSettings, StoreSettings,
    fields::{
        Fields, TEXT_BYTES_MAX, boolean, duration, host, name, named, nearest, number, owned_text,
        port, size, text, with_hint, word,
    },
    format_duration,
    validate::{self, Positions},
    yaml::{self, Data, Entry, Value, shorten},
};
use crate::{
    NodeId,
    limits::{
        BUCKET_WEIGHT_MAX, BUCKETS_PER_KEY_MAX, PARTITIONS_MAX, POINTS_PER_BUCKET_MAX,
        VALUE_BYTES_MAX_LIMIT,
    },
};

const POINTS_PER_BUCKET_DEFAULT: usize = 120;
const BUCKETS_PER_KEY_DEFAULT: usize = 3;
const HEALING_INTERVAL_DEFAULT: Duration = Duration::from_secs(86_400);
/// Room above it for as many documents as anyone will ever publish.
const EPOCH_MAX: u64 = 999_999_999_999_999_999;

/// Each rule has a LIST at every start of a coordinator.
const BACKUP_RULES_MAX: usize = 16;
/// Below it one backup would begin before the one before has ended.
const BACKUP_EVERY_MIN: Duration = Duration::from_secs(60);
/// Each one stands in the manifest of every partition.
const BACKUPS_KEPT_MAX: u32 = 1_000;

const ROOT_KEYS: &[&str] = &[
    "epoch",
    "active_deployment",
    "target_deployment",
    "migration",
    "deployments",
    "coordinators",
    "master_coordinator",
    "partitions",
    "store",
    "durability",
    "journal",
    "cache",
    "snapshot",
    "tombstone_grace",
    "value_bytes_max",
    "request_deadline",
    "memcached_flush_all",
    "backups",
];
const DEPLOYMENT_KEYS: &[&str] = &[
    "read_repair",
    "background_healing",
    "background_healing_interval",
    "background_repair",
    "background_repair_interval",
    "consistency",
    "hash",
    "buckets",
    "weights",
];
const STORE_KEYS: &[&str] = &[
    "url",
    "endpoint",
    "region",
    "access_key_id",
    "secret_access_key",
    "path_style",
    "allow_http",
];

impl Config {
    /// Reads a document: YAML or JSON, in the form of docs/formats/configuration.md.
    ///
    /// # Errors
    /// [`ConfigError`] at the first thing that is wrong, with its path and line.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let root = yaml::parse(text)?;
        let config = read(&root)?;
        validate::check(&config, &Positions::of(&root))?;
        Ok(config)
    }
}

fn read(root: &Value) -> Result<Config, ConfigError> {
    let fields = Fields::new("", root, ROOT_KEYS)?;
    let deployments =
        fields.required("deployments", |path, value| named(path, value, deployment))?;
    let config = Config {
        epoch: fields.optional("epoch", |path, value| number(path, value, 1..=EPOCH_MAX))?,
        active: fields.required("active_deployment", name)?,
        target: fields.optional("target_deployment", name)?,
        accept_loss: fields.optional("migration", accept_loss)?.unwrap_or_default(),
        deployments,
        coordinators: fields
            .optional("coordinators", |path, value| {
                named(path, value, |path, entry| address(path, &entry.value))
            })?
            .unwrap_or_default(),
        master_coordinator: fields.optional("master_coordinator", name)?,
        partitions: fields
            .optional("partitions", |path, value| {
                let partitions = number(path, value, 1..=PARTITIONS_MAX)?;
                if partitions.is_power_of_two() {
                    return Ok(partitions);
                }
                Err(value.error(path, format!("{partitions} is not a power of two")).remedy(
                    format!(
                        "take {} or {}",
                        partitions.next_power_of_two() / 2,
                        partitions.next_power_of_two()
                    ),
                ))
            })?
            .unwrap_or(Config::PARTITIONS_DEFAULT),
        cluster: cluster(&fields)?,
    };
    Ok(config)
}

fn accept_loss(path: &str, value: &Value) -> Result<BTreeSet<NodeId>, ConfigError> {
    let fields = Fields::new(path, value, &["accept_loss"])?;
    let nodes = fields.optional("accept_loss", |path, value| {
        let Data::List(items) = &value.data else {
            let what = format!("a list of nodes is wanted, not {}", value.describe());
            return Err(value.error(path, what).remedy("write [n3], or [n3, n4]"));
        };
        items.iter().map(|item| Ok(NodeId::new(&name(path, item)?))).collect()
    })?;
    Ok(nodes.unwrap_or_default())
}

fn cluster(fields: &Fields<'_>) -> Result<ClusterSettings, ConfigError> {
    let default = ClusterSettings::default();
    let default_bytes = default.value_bytes_max as u64;
    let value_bytes_max = fields
        .optional("value_bytes_max", |path, value| {
            size(path, value, 1, VALUE_BYTES_MAX_LIMIT as u64)
        })?
        .unwrap_or(default_bytes);
    Ok(ClusterSettings {
        store: fields.optional("store", store)?,
        durability: fields
            .optional("durability", |path, value| {
                word(path, value, &[Durability::Fsync, Durability::Os, Durability::None], |d| {
                    d.as_str()
                })
            })?
            .unwrap_or_default(),
        journal: fields.optional("journal", journal)?.unwrap_or_default(),
        cache: fields.optional("cache", cache)?.unwrap_or_default(),
        snapshot: fields.optional("snapshot", snapshot)?.unwrap_or_default(),
        tombstone_grace: fields
            .optional("tombstone_grace", duration)?
            .unwrap_or(default.tombstone_grace),
        // At most VALUE_BYTES_MAX_LIMIT, which is a usize.
        value_bytes_max: value_bytes_max as usize,
        request_deadline: fields
            .optional("request_deadline", duration)?
            .unwrap_or(default.request_deadline),
        memcached_flush_all: fields.optional("memcached_flush_all", boolean)?.unwrap_or_default(),
        backups: fields.optional("backups", backups)?.unwrap_or_default(),
    })
}

fn backups(path: &str, value: &Value) -> Result<Vec<BackupRule>, ConfigError> {
    const FORM: &str = "write a list such as [{every: 1h, keep: 24}, {every: 1d, keep: 7}]";
    let Data::List(items) = &value.data else {
        let what = format!("a list is wanted, not {}", value.describe());
        return Err(value.error(path, what).remedy(FORM));
    };
    if BACKUP_RULES_MAX < items.len() {
        let what = format!("{} rules, the limit is {BACKUP_RULES_MAX}", items.len());
        return Err(value.error(path, what));
    }
    let mut rules: Vec<BackupRule> = Vec::new();
    for (item, at) in items.iter().zip(0..) {
        let path = format!("{path}[{at}]");
        let fields = Fields::new(&path, item, &["every", "keep"])?;
        let every = fields.required("every", |path, value| {
            let every = duration(path, value)?;
            if every < BACKUP_EVERY_MIN {
                let what = format!("{} is less than a minute", format_duration(every));
                return Err(value
                    .error(path, what)
                    .remedy("write 1m or more; 1h and 1d are usual"));
            }
            Ok(every)
        })?;
        // The backups of a rule are known by it.
        if rules.iter().any(|rule| rule.every == every) {
            let what = format!("there is a rule for {} already", format_duration(every));
            return Err(item.error(&path, what).remedy("keep one of them"));
        }
        let keep =
            fields.required("keep", |path, value| number(path, value, 1..=BACKUPS_KEPT_MAX))?;
        rules.push(BackupRule { every, keep });
    }
    rules.sort_by_key(|rule| rule.every);
    Ok(rules)
}

fn store(path: &str, value: &Value) -> Result<StoreSettings, ConfigError> {
    if matches!(value.data, Data::Scalar { .. }) {
        return Ok(StoreSettings { url: store_url(path, value)?, ..StoreSettings::default() });
    }
    let fields = Fields::new(path, value, STORE_KEYS)?;
    let flag = |key| Ok(fields.optional(key, boolean)?.unwrap_or(false));
    Ok(StoreSettings {
        url: fields.required("url", store_url)?,
        endpoint: fields.optional("endpoint", |path, value| {
            let url = text(path, value)?;
            if url.starts_with("http://") || url.starts_with("https://") {
                return Ok(url.trim_end_matches('/').to_owned());
            }
            Err(value
                .error(path, format!("`{}` is not an http address", shorten(url)))
                .remedy("write it as http://host:port or https://host"))
        })?,
        region: fields.optional("region", owned_text)?,
        access_key_id: fields.optional("access_key_id", owned_text)?,
        secret_access_key: fields.optional("secret_access_key", |path, value| {
            // Errors here must not show the text.
            let secret = match &value.data {
                Data::Scalar { text, .. } if text.len() <= TEXT_BYTES_MAX => text,
                _ => return Err(value.error(path, "a short text is wanted here")),
            };
            if secret == Secret::MASK {
                return Err(value
                    .error(path, "this is the mask that stands for a secret")
                    .remedy("put the secret itself here, or leave it to the environment"));
            }
            Ok(Secret::new(secret.as_str()))
        })?,
        path_style: flag("path_style")?,
        allow_http: flag("allow_http")?,
    })
}

fn store_url(path: &str, value: &Value) -> Result<String, ConfigError> {
    let url = text(path, value)?;
    let trimmed = url.trim_end_matches('/');
    let known = ["s3://", "file:///"]
        .iter()
        .any(|scheme| trimmed.strip_prefix(scheme).is_some_and(|rest| !rest.starts_with('/')));
    if url == "memory:///" || (known && !url.contains('@')) {
        return Ok(if known { trimmed } else { url }.to_owned());
    }
    // A URL may hold a password before an `@`: not shown.
    let shown = if url.contains('@') { "this".to_owned() } else { format!("`{}`", shorten(url)) };
    Err(value
        .error(path, format!("{shown} is not the address of a store"))
        .remedy("write s3://bucket/prefix, file:///folder or memory:///"))
}

fn journal(path: &str, value: &Value) -> Result<JournalSettings, ConfigError> {
    let fields = Fields::new(path, value, &["memory", "disk"])?;
    let default = JournalSettings::default();
    let bytes = |key, min, default| bytes(&fields, key, min, default);
    Ok(JournalSettings {
        memory_bytes: bytes("memory", 1 << 20, default.memory_bytes)?,
        disk_bytes: bytes("disk", 64 << 20, default.disk_bytes)?,
    })
}

fn cache(path: &str, value: &Value) -> Result<CacheSettings, ConfigError> {
    let fields = Fields::new(path, value, &["records", "memory", "disk"])?;
    let default = CacheSettings::default();
    let bytes = |key, min, default| bytes(&fields, key, min, default);
    Ok(CacheSettings {
        records_bytes: bytes("records", 1 << 20, default.records_bytes)?,
        memory_bytes: bytes("memory", 1 << 20, default.memory_bytes)?,
        disk_bytes: bytes("disk", 0, default.disk_bytes)?,
    })
}

fn snapshot(path: &str, value: &Value) -> Result<SnapshotSettings, ConfigError> {
    let fields = Fields::new(path, value, &["interval", "bytes"])?;
    let default = SnapshotSettings::default();
    Ok(SnapshotSettings {
        interval: fields.optional("interval", duration)?.unwrap_or(default.interval),
        bytes: bytes(&fields, "bytes", 64 << 10, default.bytes)?,
    })
}

fn bytes(
    fields: &Fields<'_>,
    key: &'static str,
    min: u64,
    default: u64,
) -> Result<u64, ConfigError> {
    Ok(fields.optional(key, |path, value| size(path, value, min, 1 << 50))?.unwrap_or(default))
}

fn deployment(path: &str, entry: &Entry) -> Result<Deployment, ConfigError> {
    let fields = Fields::new(path, &entry.value, DEPLOYMENT_KEYS)?;
    let flag = |key| fields.optional(key, boolean);
    let (mut buckets_per_key, mut points_per_bucket) = (None, None);
    fields.optional("hash", |path, value| {
        let hash = Fields::new(path, value, &["buckets_per_key", "points_per_bucket"])?;
        buckets_per_key = hash.optional("buckets_per_key", |path, value| {
            number(path, value, 1..=BUCKETS_PER_KEY_MAX)
        })?;
        points_per_bucket = hash.optional("points_per_bucket", |path, value| {
            number(path, value, 1..=POINTS_PER_BUCKET_MAX)
        })?;
        Ok(())
    })?;
    let weights = fields
        .optional("weights", |path, value| {
            named(path, value, |path, entry| weight(path, &entry.value))
        })?
        .unwrap_or_default();
    let buckets = fields.required("buckets", |path, value| named(path, value, bucket_nodes))?;
    if let Some(key) = weights.keys().find(|key| !buckets.contains_key(*key)) {
        let near = nearest(key, buckets.keys().map(String::as_str));
        let error = ConfigError::new(format!("{path}.weights.{key}"), "there is no such bucket");
        return Err(Positions::of_entry(path, entry).locate(with_hint(error, near)));
    }
    fields.exclusive("background_healing", "background_repair")?;
    fields.exclusive("background_healing_interval", "background_repair_interval")?;
    let healing = flag("background_healing")?.or(flag("background_repair")?);
    let interval = fields
        .optional("background_healing_interval", duration)?
        .or(fields.optional("background_repair_interval", duration)?);
    Ok(Deployment {
        name: entry.key.clone(),
        read_repair: flag("read_repair")?.unwrap_or(true),
        background_healing: healing.unwrap_or(true),
        background_healing_interval: interval.unwrap_or(HEALING_INTERVAL_DEFAULT),
        buckets_per_key: buckets_per_key.unwrap_or(BUCKETS_PER_KEY_DEFAULT),
        points_per_bucket: points_per_bucket.unwrap_or(POINTS_PER_BUCKET_DEFAULT),
        consistency: fields
            .optional("consistency", |path, value| {
                let levels = [Consistency::Quorum, Consistency::One, Consistency::All];
                word(path, value, &levels, |level| level.as_str())
            })?
            .unwrap_or_default(),
        buckets: buckets
            .into_iter()
            .map(|(name, nodes)| {
                let weight = weights.get(&name).copied().unwrap_or(1.0);
                Bucket { name, weight, nodes }
            })
            .collect(),
    })
}

fn weight(path: &str, value: &Value) -> Result<f64, ConfigError> {
    let least = 1.0 / BUCKET_WEIGHT_MAX;
    let weight =
        text(path, value)?.parse::<f64>().ok().filter(|w| (least..=BUCKET_WEIGHT_MAX).contains(w));
    weight.ok_or_else(|| {
        value
            .error(
                path,
                format!("{} is not a weight in {least}..={BUCKET_WEIGHT_MAX}", value.describe()),
            )
            .remedy("1 is the usual weight; remove a bucket that shall hold nothing")
    })
}

fn bucket_nodes(path: &str, entry: &Entry) -> Result<Vec<NodeConfig>, ConfigError> {
    let nodes =
        if entry.value.is_null() { BTreeMap::new() } else { named(path, &entry.value, node)? };
    if nodes.is_empty() {
        return Err(ConfigError::new(path, "the bucket has no nodes")
            .at(entry.line, entry.column)
            .remedy("give it at least one, or remove the bucket"));
    }
    Ok(nodes.into_values().collect())
}

const NODE_FORMS: &str = "write [host, http_port, rpc_port], [host, rpc_port] or {host, http_port, memcached_port, \
     rpc_port, zone}";

fn node(path: &str, entry: &Entry) -> Result<NodeConfig, ConfigError> {
    let (value, id) = (&entry.value, NodeId::new(&entry.key));
    match &value.data {
        Data::List(items) => {
            let (host_value, http_port, rpc_port) = match items.as_slice() {
                [host, rpc] => (host, None, port(path, rpc)?),
                [host, http, rpc] => (host, Some(port(path, http)?), port(path, rpc)?),
                _ => {
                    let what = format!("{} is not the address of a node", value.describe());
                    return Err(value.error(path, what).remedy(NODE_FORMS));
                }
            };
            let host = host(path, host_value)?;
            Ok(NodeConfig { id, host, http_port, memcached_port: None, rpc_port, zone: None })
        }
        Data::Map(_) => {
            let fields = Fields::new(
                path,
                value,
                &["host", "http_port", "memcached_port", "rpc_port", "zone"],
            )?;
            Ok(NodeConfig {
                id,
                host: fields.required("host", host)?,
                http_port: fields.optional("http_port", port)?,
                memcached_port: fields.optional("memcached_port", port)?,
                rpc_port: fields.required("rpc_port", port)?,
                zone: fields.optional("zone", name)?,
            })
        }
        Data::Scalar { .. } => {
            let what = format!("{} is not the address of a node", value.describe());
            Err(value.error(path, what).remedy(NODE_FORMS))
        }
    }
}

fn address(path: &str, value: &Value) -> Result<Address, ConfigError> {
    match &value.data {
        Data::List(items) if items.len() == 2 => {
            Ok(Address { host: host(path, &items[0])?, port: port(path, &items[1])? })
        }
        Data::Map(_) => {
            let fields = Fields::new(path, value, &["host", "port"])?;
            Ok(Address {
                host: fields.required("host", host)?,
                port: fields.required("port", port)?,
            })
        }
        _ => Err(value
            .error(path, format!("{} is not an address", value.describe()))
            .remedy("write [host, port]")),
    }
}
