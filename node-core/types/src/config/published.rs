//! The document that travels: the configuration, its epoch, the table of partitions, and how far a
//! migration has come.
//!
//! Shape: JSON `{"epoch": {"number", "sha256"}, "configuration": {…}, "table": {deployment: [[bucket
//! name, …] per partition]}, "migration": {…} while there is one}`. Invariant: `sha256` is the hash
//! of the very bytes of `configuration`, which are its canonical form, of `table` and of
//! `migration`; every row of the table names `buckets_per_key` different buckets. Immutable once
//! made; every look-up is a few array reads.
//! Not here: computing the table (`tako-ring`), keeping documents (nodes, coordinator, store).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    Config, ConfigError, Deployment, Migration, NodeConfig, Phase, Placement, Quorum, ReplicaSet,
};
use crate::{Epoch, ErrorKind, NodeId, PartitionId, limits::PUBLISHED_BYTES_MAX};

/// Per partition the buckets it falls on, as indices into [`Deployment::buckets`], in ring order.
pub type Table = Vec<Vec<u16>>;

/// Why bytes are no published document.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishedError {
    /// Longer than [`PUBLISHED_BYTES_MAX`].
    #[error("the document has {bytes} bytes, the limit is {PUBLISHED_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not JSON, or not of the shape.
    #[error("the document is damaged: {0}")]
    Json(#[from] serde_json::Error),
    /// The bytes are not those that were published.
    #[error("configuration and table have the hash {found}, the epoch says {expected}")]
    Hash {
        /// What the epoch says, hex.
        expected: String,
        /// What the bytes have, hex.
        found: String,
    },
    /// The table does not fit the configuration.
    #[error("the table of {deployment} is wrong: {what}")]
    Table {
        /// Whose table.
        deployment: String,
        /// What is wrong.
        what: String,
    },
    /// The migration does not fit the configuration.
    #[error("the migration is wrong: {0}")]
    Migration(String),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl PublishedError {
    /// [`ErrorKind::Invalid`] for a refused configuration, [`ErrorKind::Corrupt`] for the rest.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::Invalid,
            _ => ErrorKind::Corrupt,
        }
    }
}

/// A configuration in force: what nodes and proxies look things up in.
#[derive(Debug, Clone)]
pub struct Published {
    /// Which configuration this is.
    pub epoch: Epoch,
    /// The configuration.
    pub config: Arc<Config>,
    /// The migration under way, if there is one.
    pub migration: Option<Migration>,
    canonical: Arc<str>,
    /// The tables as they travel.
    table_text: Arc<str>,
    tables: BTreeMap<String, Table>,
    placements: Vec<Placement>,
    /// Where each node stands: deployment, bucket, place in it.
    node_index: BTreeMap<NodeId, (String, usize, usize)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochForm {
    number: u64,
    sha256: String,
}

#[derive(Serialize)]
struct Form<'a> {
    epoch: EpochForm,
    configuration: &'a RawValue,
    table: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    migration: Option<&'a Migration>,
}

#[derive(Deserialize)]
struct FormIn<'a> {
    epoch: EpochForm,
    #[serde(borrow)]
    configuration: &'a RawValue,
    #[serde(borrow)]
    table: &'a RawValue,
    #[serde(default)]
    migration: Option<Migration>,
}

/// The hash in the epoch. The table counts, because it depends on what was in force before.
fn sha256(canonical: &str, table_text: &str, migration: Option<&Migration>) -> [u8; 32] {
    let migration = migration.map(|migration| {
        serde_json::to_vec(migration).expect("numbers and texts always have a JSON form")
    });
    Sha256::new()
        .chain_update(canonical)
        .chain_update(table_text)
        .chain_update(migration.unwrap_or_default())
        .finalize()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Published {
    /// Puts epoch, configuration and tables together; `tako_ring::publish` makes the tables.
    ///
    /// # Errors
    /// [`PublishedError::Table`] unless `tables` holds exactly the active deployment, the target and
    /// the migration's other one, each with a row of `buckets_per_key` different buckets per
    /// partition; [`PublishedError::Migration`] when that does not fit.
    pub fn new(
        number: u64,
        config: Arc<Config>,
        tables: BTreeMap<String, Table>,
        migration: Option<Migration>,
    ) -> Result<Self, PublishedError> {
        let canonical = config.to_canonical_json();
        let mut named: BTreeMap<&str, Vec<Vec<&str>>> = BTreeMap::new();
        for (name, rows) in &tables {
            let wrong = |what: &str| PublishedError::Table {
                deployment: name.clone(),
                what: what.to_owned(),
            };
            let deployment =
                config.deployments.get(name).ok_or_else(|| wrong("there is no such deployment"))?;
            let bucket = |index: &u16| {
                let bucket = deployment.buckets.get(usize::from(*index));
                bucket.map(|b| b.name.as_str()).ok_or_else(|| wrong("it names no bucket"))
            };
            let rows = rows.iter().map(|row| row.iter().map(bucket).collect());
            named.insert(name, rows.collect::<Result<_, _>>()?);
        }
        let table_text = serde_json::to_string(&named)?;
        let texts = (canonical.into(), table_text.into());
        Self::assemble(number, texts, config, tables, migration)
    }

    fn assemble(
        number: u64,
        (canonical, table_text): (Arc<str>, Arc<str>),
        config: Arc<Config>,
        tables: BTreeMap<String, Table>,
        migration: Option<Migration>,
    ) -> Result<Self, PublishedError> {
        if let Some(migration) = &migration {
            check_migration(&config, migration).map_err(PublishedError::Migration)?;
        }
        let other = migration.as_ref().map(|migration| &migration.other);
        let known: Vec<&String> =
            std::iter::once(&config.active).chain(&config.target).chain(other).collect();
        for name in &known {
            let wrong = |what: String| PublishedError::Table { deployment: (*name).clone(), what };
            let table = tables.get(*name).ok_or_else(|| wrong("it is missing".into()))?;
            check_table(&config.deployments[*name], config.partitions, table).map_err(wrong)?;
        }
        if let Some(deployment) = tables.keys().find(|name| !known.contains(name)).cloned() {
            let what = "it is neither active nor target nor being left".into();
            return Err(PublishedError::Table { deployment, what });
        }
        let set = |name: &String, partition: usize| {
            ReplicaSet::of(&config.deployments[name], &tables[name][partition])
        };
        let placements = (0..config.partitions as usize)
            .map(|p| {
                let moving =
                    migration.as_ref().map(|migration| (migration, set(&migration.other, p)));
                Placement::new(set(&config.active, p), moving, p)
            })
            .collect();
        let mut node_index = BTreeMap::new();
        // Nodes of the active deployment go by their place in that.
        for name in other.into_iter().chain([&config.active]) {
            for (bucket_index, bucket) in config.deployments[name].buckets.iter().enumerate() {
                for (index, node) in bucket.nodes.iter().enumerate() {
                    node_index.insert(node.id.clone(), (name.clone(), bucket_index, index));
                }
            }
        }
        let epoch = Epoch { number, sha256: sha256(&canonical, &table_text, migration.as_ref()) };
        Ok(Self { epoch, config, migration, canonical, table_text, tables, placements, node_index })
    }

    /// The bytes that travel and are kept: always the same for the same document.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let configuration: &RawValue = serde_json::from_str(&self.canonical)
            .expect("the canonical form is JSON: it was written or parsed as such");
        let table: &RawValue = serde_json::from_str(&self.table_text)
            .expect("the tables are JSON: they were written or parsed as such");
        let epoch = EpochForm { number: self.epoch.number, sha256: hex(&self.epoch.sha256) };
        let migration = self.migration.as_ref();
        serde_json::to_vec(&Form { epoch, configuration, table, migration })
            .expect("maps with text keys and texts always have a JSON form")
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`PublishedError`] when the bytes are too long or damaged, the hash or the table does not
    /// fit, or the configuration is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, PublishedError> {
        if PUBLISHED_BYTES_MAX < bytes.len() {
            return Err(PublishedError::TooLong { bytes: bytes.len() });
        }
        let form: FormIn<'_> = serde_json::from_slice(bytes)?;
        let canonical = form.configuration.get();
        let table_text = form.table.get();
        let found = hex(&sha256(canonical, table_text, form.migration.as_ref()));
        if found != form.epoch.sha256 {
            return Err(PublishedError::Hash { expected: form.epoch.sha256, found });
        }
        let config = Config::parse(canonical)?;
        let named: BTreeMap<String, Vec<Vec<String>>> = serde_json::from_str(table_text)?;
        let mut tables = BTreeMap::new();
        for (name, rows) in named {
            let wrong = |what: String| PublishedError::Table { deployment: name.clone(), what };
            let deployment = config
                .deployments
                .get(&name)
                .ok_or_else(|| wrong("there is no such deployment".into()))?;
            let index_of: HashMap<&str, u16> = deployment
                .buckets
                .iter()
                .zip(0u16..)
                .map(|(bucket, index)| (bucket.name.as_str(), index))
                .collect();
            let index = |bucket: &String| {
                index_of
                    .get(bucket.as_str())
                    .copied()
                    .ok_or_else(|| wrong(format!("there is no bucket `{bucket}`")))
            };
            let table = rows
                .iter()
                .map(|row| row.iter().map(index).collect())
                .collect::<Result<Table, _>>()?;
            tables.insert(name, table);
        }
        let texts = (canonical.into(), table_text.into());
        Self::assemble(form.epoch.number, texts, Arc::new(config), tables, form.migration)
    }

    /// k, where the cluster has 2^k partitions.
    #[must_use]
    pub fn partitions_log2(&self) -> u32 {
        self.config.partitions_log2()
    }

    /// All partitions.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        // Partitions number at most 4,096.
        (0..self.config.partitions as u16).map(PartitionId)
    }

    /// Who does what for a partition.
    ///
    /// # Panics
    /// For a partition that does not exist; [`Self::has`] tells.
    #[must_use]
    pub fn placement(&self, partition: PartitionId) -> &Placement {
        &self.placements[usize::from(partition.0)]
    }

    /// Whether there is such a partition.
    #[must_use]
    pub fn has(&self, partition: PartitionId) -> bool {
        usize::from(partition.0) < self.placements.len()
    }

    /// The nodes that reads of a partition ask; none for one that does not exist.
    #[must_use]
    pub fn replicas(&self, partition: PartitionId) -> &[NodeId] {
        let placement = self.placements.get(usize::from(partition.0));
        placement.map_or(&[], |placement| &placement.read.nodes)
    }

    /// The buckets of a partition in the active deployment, in ring order.
    pub fn buckets(&self, partition: PartitionId) -> impl Iterator<Item = &super::Bucket> {
        let active = self.config.active_deployment();
        let row = self.table().get(usize::from(partition.0)).map_or(&[][..], Vec::as_slice);
        row.iter().map(|index| &active.buckets[usize::from(*index)])
    }

    /// A node of the active deployment, or of the migration's other one.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeConfig> {
        let (deployment, bucket, index) = self.node_index.get(id)?;
        Some(&self.config.deployments[deployment].buckets[*bucket].nodes[*index])
    }

    /// The name of the bucket a node is in.
    #[must_use]
    pub fn bucket_of(&self, id: &NodeId) -> Option<&str> {
        let (deployment, bucket, _) = self.node_index.get(id)?;
        Some(&self.config.deployments[deployment].buckets[*bucket].name)
    }

    /// All nodes of the active deployment and of the migration's other one, each once, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeConfig> {
        self.node_index.keys().filter_map(|id| self.node(id))
    }

    /// The partitions of which `node` may hold something, ascending.
    #[must_use]
    pub fn partitions_of(&self, node: &NodeId) -> Vec<PartitionId> {
        self.partitions().filter(|p| self.placement(*p).holders.contains(node)).collect()
    }

    /// What reads of a partition need where they do not say so themselves; for writes each set has
    /// its own ([`Placement::write_sets`]).
    #[must_use]
    pub fn quorum(&self, partition: PartitionId) -> Quorum {
        self.placement(partition).read.quorum
    }

    /// The table of the active deployment.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.tables[&self.config.active]
    }

    /// The nodes of a partition in a deployment that has a table.
    #[must_use]
    pub fn set_in(&self, deployment: &str, partition: PartitionId) -> Option<ReplicaSet> {
        let row = self.tables.get(deployment)?.get(usize::from(partition.0))?;
        Some(ReplicaSet::of(self.config.deployments.get(deployment)?, row))
    }

    /// The table of a deployment: there is one for the active and one for the target.
    #[must_use]
    pub fn table_of(&self, deployment: &str) -> Option<&Table> {
        self.tables.get(deployment)
    }
}

/// The same document with the hash that its bytes have, for the fuzzer; `None` where it has not the
/// shape.
pub(crate) fn rehashed(bytes: &[u8]) -> Option<Vec<u8>> {
    let FormIn { mut epoch, configuration, table, migration } =
        serde_json::from_slice(bytes).ok()?;
    epoch.sha256 = hex(&sha256(configuration.get(), table.get(), migration.as_ref()));
    serde_json::to_vec(&Form { epoch, configuration, table, migration: migration.as_ref() }).ok()
}

/// Whether the phase fits what the configuration names.
fn check_migration(config: &Config, migration: &Migration) -> Result<(), String> {
    let Migration { phase, other, barrier } = migration;
    if !config.deployments.contains_key(other) {
        return Err(format!("there is no deployment `{other}`"));
    }
    if *other == config.active {
        return Err(format!("`{other}` is the active deployment"));
    }
    let target = (*phase != Phase::Leave).then_some(other);
    if config.target.as_ref() != target {
        return Err(format!("{} with `{other}` does not fit the target", phase.as_str()));
    }
    let all = config.partitions as usize;
    let fits = match phase {
        Phase::ReadNew => barrier.len() == all,
        Phase::WriteBoth => barrier.is_empty() || barrier.len() == all,
        Phase::Join | Phase::Leave => barrier.is_empty(),
    };
    if !fits {
        let steps = barrier.len();
        return Err(format!(
            "{} with a barrier of {steps} steps for {all} partitions",
            phase.as_str()
        ));
    }
    Ok(())
}

fn check_table(deployment: &Deployment, partitions: u32, table: &Table) -> Result<(), String> {
    if table.len() != partitions as usize {
        return Err(format!("{} rows for {partitions} partitions", table.len()));
    }
    for (partition, row) in table.iter().enumerate() {
        let distinct = row.iter().enumerate().all(|(at, index)| {
            usize::from(*index) < deployment.buckets.len() && !row[..at].contains(index)
        });
        if row.len() != deployment.buckets_per_key || !distinct {
            return Err(format!(
                "partition {partition} does not fall on {} different buckets",
                deployment.buckets_per_key
            ));
        }
    }
    Ok(())
}
