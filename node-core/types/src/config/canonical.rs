//! A configuration back to text: the canonical bytes that are hashed, and YAML for people.
//!
//! Invariant: reading either form gives an equal [`Config`] (the YAML form hides the secret, so
//! only where there is none; the canonical form leaves out the epoch, which stands beside it, and
//! what is part of an order only).
//! Canonical: JSON, keys sorted, no spaces, every default written out; a function of the
//! [`Config`] alone, so documents that say the same have the same hash.

use sha2::{Digest, Sha256};

use super::{
    BackupRule, ClusterSettings, Config, Deployment, NodeConfig, Secret, StoreSettings,
    format_duration, format_size, scalar::parse_bool,
};

/// A value to be written.
enum Tree {
    Map(Vec<(String, Tree)>),
    /// A map that stands on one line.
    Row(Vec<(String, Tree)>),
    List(Vec<Tree>),
    Text(String),
    /// Numbers and booleans.
    Word(String),
}

impl Config {
    /// The canonical form, without the epoch.
    ///
    /// Shape: JSON with sorted keys and no spaces. Holds the store's secret, if the document does.
    #[must_use]
    pub fn to_canonical_json(&self) -> String {
        let mut out = String::new();
        json(&tree(self, false, false), &mut out);
        out
    }

    /// SHA-256 of the canonical form: the hash in this configuration's epoch.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.to_canonical_json().as_bytes()).into()
    }

    /// Everything with its defaults, as YAML; reads back as it is, with the store's secret.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        yaml(&tree(self, true, false), 0, &mut out);
        out
    }

    /// Everything with its defaults, as YAML for people; the store's secret is masked.
    #[must_use]
    pub fn effective_yaml(&self) -> String {
        let mut out = String::new();
        yaml(&tree(self, true, true), 0, &mut out);
        out
    }
}

fn text(text: impl Into<String>) -> Tree {
    Tree::Text(text.into())
}

fn word(word: impl ToString) -> Tree {
    Tree::Word(word.to_string())
}

fn map<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    Tree::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// With `whole` also what is not published: the number that it claims, and the order.
fn tree(config: &Config, whole: bool, mask: bool) -> Tree {
    let mut out = Vec::new();
    let mut add = |key: &str, value: Tree| out.push((key.to_owned(), value));
    if let Some(epoch) = config.epoch.filter(|_| whole) {
        add("epoch", word(epoch));
    }
    add("active_deployment", text(&config.active));
    if let Some(target) = &config.target {
        add("target_deployment", text(target));
    }
    if whole && !config.accept_loss.is_empty() {
        let nodes = config.accept_loss.iter().map(|node| text(node.as_str()));
        add("migration", Tree::Row(vec![("accept_loss".into(), Tree::List(nodes.collect()))]));
    }
    if let Some(id) = &config.master_coordinator {
        add("master_coordinator", text(id));
    }
    if !config.coordinators.is_empty() {
        let coordinators = config.coordinators.iter().map(|(id, address)| {
            (id.clone(), Tree::List(vec![text(&address.host), word(address.port)]))
        });
        add("coordinators", Tree::Map(coordinators.collect()));
    }
    add("partitions", word(config.partitions));
    cluster(&config.cluster, mask, &mut add);
    let deployments = config.deployments.values().map(|item| (item.name.clone(), deployment(item)));
    add("deployments", Tree::Map(deployments.collect()));
    Tree::Map(out)
}

fn cluster(settings: &ClusterSettings, mask: bool, add: &mut impl FnMut(&str, Tree)) {
    let size = |bytes: u64| text(format_size(bytes));
    let time = |duration| text(format_duration(duration));
    if let Some(settings) = &settings.store {
        add("store", store(settings, mask));
    }
    add("durability", text(settings.durability.as_str()));
    add(
        "journal",
        map([
            ("memory", size(settings.journal.memory_bytes)),
            ("disk", size(settings.journal.disk_bytes)),
        ]),
    );
    add(
        "cache",
        map([
            ("records", size(settings.cache.records_bytes)),
            ("memory", size(settings.cache.memory_bytes)),
            ("disk", size(settings.cache.disk_bytes)),
        ]),
    );
    add(
        "snapshot",
        map([
            ("interval", time(settings.snapshot.interval)),
            ("bytes", size(settings.snapshot.bytes)),
        ]),
    );
    add("tombstone_grace", time(settings.tombstone_grace));
    add("value_bytes_max", size(settings.value_bytes_max as u64));
    add("request_deadline", time(settings.request_deadline));
    // Documents of before there was this keep their hash, and so below.
    if settings.memcached_flush_all {
        add("memcached_flush_all", word(true));
    }
    if !settings.backups.is_empty() {
        let rule = |rule: &BackupRule| {
            Tree::Row(vec![
                ("every".to_owned(), time(rule.every)),
                ("keep".to_owned(), word(rule.keep)),
            ])
        };
        add("backups", Tree::List(settings.backups.iter().map(rule).collect()));
    }
}

fn store(settings: &StoreSettings, mask: bool) -> Tree {
    let mut out = vec![("url".to_owned(), text(&settings.url))];
    let mut add = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.push((key.to_owned(), text(value)));
        }
    };
    add("endpoint", settings.endpoint.as_deref());
    add("region", settings.region.as_deref());
    add("access_key_id", settings.access_key_id.as_deref());
    let secret = settings.secret_access_key.as_ref();
    add("secret_access_key", secret.map(|s| if mask { Secret::MASK } else { s.expose() }));
    out.push(("path_style".into(), word(settings.path_style)));
    out.push(("allow_http".into(), word(settings.allow_http)));
    Tree::Map(out)
}

fn deployment(deployment: &Deployment) -> Tree {
    let weights = deployment.buckets.iter().map(|b| (b.name.clone(), word(b.weight)));
    let buckets = deployment.buckets.iter().map(|bucket| {
        let nodes = bucket.nodes.iter().map(|item| (item.id.to_string(), node(item)));
        (bucket.name.clone(), Tree::Map(nodes.collect()))
    });
    map([
        ("read_repair", word(deployment.read_repair)),
        ("background_healing", word(deployment.background_healing)),
        (
            "background_healing_interval",
            text(format_duration(deployment.background_healing_interval)),
        ),
        ("consistency", text(deployment.consistency.as_str())),
        (
            "hash",
            map([
                ("buckets_per_key", word(deployment.buckets_per_key)),
                ("points_per_bucket", word(deployment.points_per_bucket)),
            ]),
        ),
        ("weights", Tree::Row(weights.collect())),
        ("buckets", Tree::Map(buckets.collect())),
    ])
}

fn node(node: &NodeConfig) -> Tree {
    let mut out = vec![("host".to_owned(), text(&node.host))];
    if let Some(port) = node.http_port {
        out.push(("http_port".into(), word(port)));
    }
    if let Some(port) = node.memcached_port {
        out.push(("memcached_port".into(), word(port)));
    }
    out.push(("rpc_port".into(), word(node.rpc_port)));
    if let Some(zone) = &node.zone {
        out.push(("zone".into(), text(zone)));
    }
    Tree::Row(out)
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json(tree: &Tree, out: &mut String) {
    match tree {
        Tree::Text(text) => out.push_str(&quote(text)),
        Tree::Word(word) => out.push_str(word),
        Tree::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at != 0 {
                    out.push(',');
                }
                json(item, out);
            }
            out.push(']');
        }
        Tree::Map(entries) | Tree::Row(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at != 0 {
                    out.push(',');
                }
                out.push_str(&quote(key));
                out.push(':');
                json(value, out);
            }
            out.push('}');
        }
    }
}

/// Plain where every YAML reader would take it for the same text, else quoted.
fn plain_or_quoted(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let reserved = parse_bool(text).is_some()
        || matches!(text, "null" | "Null" | "NULL" | "y" | "Y" | "n" | "N");
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    // `10s` and `64MiB`: digits, then letters other than an exponent's or a hexadecimal's.
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let quantity = unit.len() < text.len()
        && ["d", "h", "m", "s", "ms", "B", "KiB", "MiB", "GiB", "TiB"].contains(&unit);
    if quantity || (begins && !reserved && text.chars().all(safe)) {
        text.to_owned()
    } else {
        quote(text)
    }
}

fn inline(tree: &Tree, out: &mut String) {
    match tree {
        Tree::Text(text) => out.push_str(&plain_or_quoted(text)),
        Tree::Word(word) => out.push_str(word),
        Tree::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                inline(item, out);
            }
            out.push(']');
        }
        Tree::Map(entries) | Tree::Row(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { ", " });
                out.push_str(&plain_or_quoted(key));
                out.push_str(": ");
                inline(value, out);
            }
            out.push('}');
        }
    }
}

fn yaml(tree: &Tree, depth: usize, out: &mut String) {
    let Tree::Map(entries) = tree else { return inline(tree, out) };
    for (key, value) in entries {
        out.push_str(&"    ".repeat(depth));
        out.push_str(&plain_or_quoted(key));
        out.push(':');
        if let Tree::Map(_) = value {
            out.push('\n');
            yaml(value, depth + 1, out);
        } else {
            out.push(' ');
            inline(value, out);
            out.push('\n');
        }
    }
}
