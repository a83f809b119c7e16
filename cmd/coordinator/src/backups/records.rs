//! What the snapshot crate is told about records.

use bytes::Bytes;
use tako_flatbuf::{Record, merge_encoded};
use tako_snapshot::backup::RecordFns;
use tako_types::RecordStat;

/// The merge and the check of records.
pub const RECORDS: RecordFns = RecordFns { merge: merge_encoded, inspect };

fn inspect(key: &Bytes, record: &Bytes) -> Result<RecordStat, String> {
    let record = Record::decode(record.clone()).map_err(|error| error.to_string())?;
    if record.key().as_bytes() != key {
        return Err("it is the record of another key".to_owned());
    }
    Ok(record.stat())
}
