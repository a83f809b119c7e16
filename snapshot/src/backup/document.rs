//! The objects of backups and restores, as text. Layout: docs/formats/snapshot.md.
//!
//! Invariant: what is read has the shape and the format number that this program knows, or is
//! refused; what is written reads back as the same. No store is asked here.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tako_types::{ClusterId, PartitionId, StepNumber, limits::PARTITIONS_MAX};

use super::{BackupName, Count};
use crate::{
    Checkpoint,
    store::{cluster_of, cluster_text},
};

const FORMAT: u32 = 1;

/// A named backup: which checkpoint shows each partition as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its name.
    pub name: BackupName,
    /// Whose data it is.
    pub cluster: ClusterId,
    /// When it was made; microseconds since the Unix epoch.
    pub created_micros: u64,
    /// The cluster had `2^partitions_log2` partitions.
    pub partitions_log2: u32,
    /// Partitions that had a step; the others were empty.
    pub partitions: BTreeMap<PartitionId, Held>,
    /// Partitions of which no step was taken right before, though one was asked for: they are as
    /// of their last step.
    pub not_stepped: Vec<PartitionId>,
    /// The configuration document then, if the store had one.
    pub configuration: Option<Bytes>,
}

/// One partition of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// What shows it.
    pub checkpoint: Checkpoint,
    /// The step that this is.
    pub step: StepNumber,
}

/// What a verification found in a backup, to be compared with by later ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    /// Of which backup of that name: [`Backup::created_micros`].
    pub(super) created_micros: u64,
    pub(super) partitions: BTreeMap<PartitionId, Count>,
}

/// Where the data of a root came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The clusters it was restored from: the last one, the one that was restored from, and so on.
    pub clusters: Vec<ClusterId>,
    /// The root it was restored from.
    pub root: String,
    /// The backup; the newest steps without one.
    pub backup: Option<String>,
    /// When; microseconds since the Unix epoch.
    pub created_micros: u64,
}

/// A restore that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Underway {
    format: u32,
    /// What the new cluster will be called; unlike that of any other attempt.
    cluster: Hex,
}

impl Underway {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self { format: FORMAT, cluster: Hex(cluster.0) }
    }

    pub(super) fn cluster(&self) -> ClusterId {
        ClusterId(self.cluster.0)
    }

    pub(super) fn encode(&self) -> Bytes {
        text(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let read: Self = read(bytes)?;
        check_format(read.format)?;
        Ok(read)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupForm {
    format: u32,
    name: String,
    cluster: String,
    created_micros: u64,
    partitions_log2: u32,
    partitions: Vec<HeldForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    not_stepped: Vec<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configuration: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldForm {
    partition: u16,
    checkpoint: Hex,
    manifest: u64,
    step: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountsForm {
    format: u32,
    created_micros: u64,
    partitions: Vec<CountForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountForm {
    partition: u16,
    records: u64,
    bytes: u64,
    digest: Hex,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OriginForm {
    format: u32,
    clusters: Vec<String>,
    root: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    created_micros: u64,
}

/// 32 lowercase hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hex(u128);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let id = cluster_of(text.as_bytes());
        id.map(|id| Self(id.0)).ok_or_else(|| D::Error::custom("32 hexadecimal digits are wanted"))
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Backup {
    pub(crate) fn encode(&self) -> Bytes {
        let partitions = self.partitions.iter().map(|(partition, held)| HeldForm {
            partition: partition.0,
            checkpoint: Hex(held.checkpoint.id),
            manifest: held.checkpoint.manifest,
            step: held.step.0,
        });
        text(&BackupForm {
            format: FORMAT,
            name: self.name.to_string(),
            cluster: cluster_text(self.cluster),
            created_micros: self.created_micros,
            partitions_log2: self.partitions_log2,
            partitions: partitions.collect(),
            not_stepped: self.not_stepped.iter().map(|partition| partition.0).collect(),
            configuration: self
                .configuration
                .as_ref()
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        })
    }

    /// Reads what [`Self::encode`] wrote; the error says what is wrong with the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let form: BackupForm = read(bytes)?;
        check_format(form.format)?;
        if PARTITIONS_MAX.ilog2() < form.partitions_log2 {
            return Err(format!("2^{} partitions", form.partitions_log2));
        }
        let known = |partition: u16| {
            let there_is = u32::from(partition) < 1 << form.partitions_log2;
            if there_is {
                Ok(PartitionId(partition))
            } else {
                Err(format!("partition {partition}"))
            }
        };
        let mut partitions = BTreeMap::new();
        for held in &form.partitions {
            let checkpoint = Checkpoint { id: held.checkpoint.0, manifest: held.manifest };
            let row = Held { checkpoint, step: StepNumber(held.step) };
            if partitions.insert(known(held.partition)?, row).is_some() {
                return Err(format!("partition {} stands there twice", held.partition));
            }
        }
        let cluster = cluster_of(form.cluster.as_bytes()).ok_or("that is no cluster's id")?;
        Ok(Self {
            name: BackupName::new(form.name).map_err(|error| error.to_string())?,
            cluster,
            created_micros: form.created_micros,
            partitions_log2: form.partitions_log2,
            partitions,
            not_stepped: form.not_stepped.into_iter().map(known).collect::<Result<_, _>>()?,
            configuration: form.configuration.map(Bytes::from),
        })
    }
}

impl Counts {
    pub(super) fn encode(&self) -> Bytes {
        let partitions = self.partitions.iter().map(|(partition, count)| CountForm {
            partition: partition.0,
            records: count.records,
            bytes: count.bytes,
            digest: Hex(count.digest),
        });
        text(&CountsForm {
            format: FORMAT,
            created_micros: self.created_micros,
            partitions: partitions.collect(),
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let form: CountsForm = read(bytes)?;
        check_format(form.format)?;
        let row = |row: CountForm| {
            let count = Count { records: row.records, bytes: row.bytes, digest: row.digest.0 };
            (PartitionId(row.partition), count)
        };
        let partitions = form.partitions.into_iter().map(row).collect();
        Ok(Self { created_micros: form.created_micros, partitions })
    }
}

impl Origin {
    pub(crate) fn encode(&self) -> Bytes {
        text(&OriginForm {
            format: FORMAT,
            clusters: self.clusters.iter().map(|id| cluster_text(*id)).collect(),
            root: self.root.clone(),
            backup: self.backup.clone(),
            created_micros: self.created_micros,
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let form: OriginForm = read(bytes)?;
        check_format(form.format)?;
        let ids = form.clusters.iter().map(|id| cluster_of(id.as_bytes()));
        Ok(Self {
            clusters: ids.collect::<Option<_>>().ok_or("that is no cluster's id")?,
            root: form.root,
            backup: form.backup,
            created_micros: form.created_micros,
        })
    }
}

fn text(form: &impl Serialize) -> Bytes {
    let text = serde_json::to_vec(form);
    Bytes::from(text.expect("numbers, texts and lists always have a JSON form"))
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn check_format(format: u32) -> Result<(), String> {
    if format == FORMAT {
        return Ok(());
    }
    Err(format!("it has format {format}, this program knows {FORMAT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Backup {
        let checkpoint = Checkpoint { id: 0xabc, manifest: 7 };
        Backup {
            name: BackupName::new("daily-1").expect("a name"),
            cluster: ClusterId(5),
            created_micros: 1_000,
            partitions_log2: 1,
            partitions: BTreeMap::from([(
                PartitionId(1),
                Held { checkpoint, step: StepNumber(3) },
            )]),
            not_stepped: vec![PartitionId(0)],
            configuration: Some(Bytes::from_static(b"{\"epoch\":1}")),
        }
    }

    /// A changed golden is a format change.
    #[test]
    fn a_backups_document_has_this_text() {
        let golden = concat!(
            r#"{"format":1,"name":"daily-1","cluster":"00000000000000000000000000000005","#,
            r#""created_micros":1000,"partitions_log2":1,"partitions":[{"partition":1,"#,
            r#""checkpoint":"00000000000000000000000000000abc","manifest":7,"step":3}],"#,
            r#""not_stepped":[0],"configuration":"{\"epoch\":1}"}"#,
        );
        assert_eq!(sample().encode(), golden);
        assert_eq!(Backup::decode(golden.as_bytes()), Ok(sample()));
    }

    #[test]
    fn counts_and_origins_read_back() {
        let count = Count { records: 2, bytes: 30, digest: u128::MAX };
        let partitions = BTreeMap::from([(PartitionId(4), count)]);
        let counts = Counts { created_micros: 9, partitions };
        assert_eq!(Counts::decode(&counts.encode()), Ok(counts));
        let origin = Origin {
            clusters: vec![ClusterId(1), ClusterId(2)],
            root: "c1".to_owned(),
            backup: None,
            created_micros: 3,
        };
        assert_eq!(Origin::decode(&origin.encode()), Ok(origin));
        let underway = Underway::new(ClusterId(8));
        assert_eq!(Underway::decode(&underway.encode()), Ok(underway));
    }

    #[test]
    fn what_is_of_another_format_or_shape_is_refused() {
        let good = String::from_utf8(sample().encode().to_vec()).expect("text");
        for (from, to) in [
            ("\"format\":1", "\"format\":2"),
            ("\"partitions_log2\":1", "\"partitions_log2\":13"),
            ("\"partition\":1", "\"partition\":2"),
            ("daily-1", "Daily"),
            ("\"step\":3", "\"steps\":3"),
            ("0abc", "0ABC"),
            ("\"not_stepped\":[0]", "\"not_stepped\":[2]"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(Backup::decode(bad.as_bytes()).is_err(), "{bad}");
        }
        for cut in 0..good.len() {
            assert!(Backup::decode(&good.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
    }
}
