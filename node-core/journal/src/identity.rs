//! The identity file: which node, cluster and data folder this is, and the clock's ceiling.
//!
//! Shape: two lines at `<dir>/identity`: eight hexadecimal digits of crc32c, then JSON over which
//! the crc is taken. Written to a temporary file, synced, renamed, folder synced: a reader sees
//! the old or the new one. Blocking.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use serde::{Deserialize, Serialize};
use tako_types::{ClusterId, Incarnation, Lsn, NodeId, PartitionId};

use crate::{
    Disk, Durability, IdentityError,
    disk::{read_all, replace_file},
};

const FILE: &str = "identity";

/// What a data folder knows about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Whose data it is.
    #[serde(with = "cluster_hex")]
    pub cluster: ClusterId,
    /// Which node.
    pub node: NodeId,
    /// Which data folder of the node.
    pub incarnation: Incarnation,
    /// No version at or above this was ever issued; microseconds since the Unix epoch.
    pub clock_ceiling_micros: u64,
    /// No ballot at or above this was ever promised; 0 when none was.
    #[serde(default)]
    pub promise_ceiling_micros: u64,
    /// The machine's boot during which the folder was last opened.
    pub boot_id: String,
    /// True where the last owner closed the journal in good order.
    pub clean: bool,
    /// Under which promise the journal was last written.
    pub durability: Durability,
    /// False while the folder is being refilled after lost state; then it must not vote.
    #[serde(default)]
    pub recovered: bool,
    /// While `recovered` is false: the partitions that were refilled all the same.
    #[serde(default)]
    pub refilled: BTreeSet<PartitionId>,
    /// Journal entries up to here are of a folder that another came after: none of them counts.
    #[serde(default)]
    pub forgotten: Lsn,
    /// Which folders this one was before, each with the last LSN that it is known to have had as
    /// such: what the snapshot covers of them is covered.
    #[serde(default)]
    pub earlier: BTreeMap<Incarnation, Lsn>,
    /// Where the journal ended when the folder was opened first since it was last known to be what
    /// the snapshot speaks of; `None` while it is. Entries above prove nothing against a roll-back.
    #[serde(default)]
    pub untrusted_since: Option<Lsn>,
    /// Partitions that were left, each with the LSN up to which no entry of it counts any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left: BTreeMap<PartitionId, Lsn>,
    /// Where the journal stood when a migration's epoch was adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// Newest data folder known of each other node; an acknowledgement of an older one is void.
    #[serde(default)]
    pub known: BTreeMap<NodeId, Incarnation>,
}

/// Where the journal stood when an epoch was adopted: nothing of a lower one came after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The epoch's number.
    pub epoch: u64,
    /// Whose LSNs these are.
    pub incarnation: Incarnation,
    /// Per partition the last entry that no step had covered, 0 for none. A partition that is still
    /// being refilled is not there.
    pub lsns: BTreeMap<PartitionId, Lsn>,
}

/// JSON has no 128-bit numbers everybody can read.
mod cluster_hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tako_types::ClusterId;

    pub(super) fn serialize<S: Serializer>(id: &ClusterId, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format!("{:032x}", id.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<ClusterId, D::Error> {
        let text = String::deserialize(input)?;
        u128::from_str_radix(&text, 16).map(ClusterId).map_err(D::Error::custom)
    }
}

impl Identity {
    /// Reads the identity of a folder; `None` where there is none.
    ///
    /// # Errors
    /// [`IdentityError::Damaged`] when the file is there and not intact.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(FILE);
        let text = match read_all(disk, &path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IdentityError::io("read", path, error)),
        };
        parse(&text).map(Some).map_err(|reason| IdentityError::Damaged { path, reason })
    }

    /// Writes the identity in place of the one before.
    ///
    /// # Guarantee
    /// After `Ok` the new one is durable; after an error or a crash the old or the new one is.
    ///
    /// # Errors
    /// What the system says.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), IdentityError> {
        self.encode()
            .and_then(|text| replace_file(disk, dir, FILE, &text))
            .map_err(|e| IdentityError::io("write", dir.join(FILE), e))
    }

    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        Ok(with_checksum(&serde_json::to_vec(self)?))
    }
}

/// The file that holds `json`.
pub(crate) fn with_checksum(json: &[u8]) -> Vec<u8> {
    let mut text = format!("{:08x}\n", crc32c::crc32c(json)).into_bytes();
    text.extend_from_slice(json);
    text.push(b'\n');
    text
}

pub(crate) fn parse(text: &[u8]) -> Result<Identity, String> {
    let (crc, json) = text
        .split_at_checked(9)
        .filter(|(crc, _)| crc[8] == b'\n')
        .ok_or_else(|| format!("{} bytes without a checksum line", text.len()))?;
    let json = json.strip_suffix(b"\n").ok_or("the last line is cut")?;
    let crc = std::str::from_utf8(&crc[..8])
        .ok()
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or("the checksum is not a number")?;
    let found = crc32c::crc32c(json);
    if found != crc {
        return Err(format!("checksum {found:08x}, expected {crc:08x}"));
    }
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
