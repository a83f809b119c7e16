//! Every limit of Tako in one place, with the arithmetic beside it.
//!
//! What an operator may change is a default here and a key of the configuration; the rest is
//! fixed, because all processes of a cluster must agree on it.

use std::time::Duration;

/// Longest key, in bytes (before any encoding).
pub const KEY_BYTES_MAX: usize = 4 << 10;

/// Longest value, in bytes, where the configuration says nothing.
pub const VALUE_BYTES_MAX_DEFAULT: usize = 32 << 20;

/// Longest value an operator may allow: one value must fit a journal group and an RPC frame.
pub const VALUE_BYTES_MAX_LIMIT: usize = 64 << 20;

/// Longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// What a record adds to key, content type and value, at most (tables, vtables, padding).
pub const RECORD_OVERHEAD_BYTES_MAX: usize = 512;

/// Longest encoded record.
pub const RECORD_BYTES_MAX: usize =
    VALUE_BYTES_MAX_LIMIT + KEY_BYTES_MAX + CONTENT_TYPE_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX;

/// Longest RPC frame: the greatest record and a head of up to 8 MiB (lists of a Tail answer).
pub const FRAME_BYTES_MAX: usize = RECORD_BYTES_MAX + FRAME_HEAD_BYTES_MAX;

/// Longest head (FlatBuffers part) of an RPC frame.
pub const FRAME_HEAD_BYTES_MAX: usize = 8 << 20;

/// Partitions of a cluster: a power of two in this range.
pub const PARTITIONS_MAX: u32 = 4_096;

/// Partitions where the configuration says nothing.
pub const PARTITIONS_DEFAULT: u32 = 32;

/// How far a version may lie ahead of a clock before it is refused.
pub const CLOCK_DRIFT_MAX: Duration = Duration::from_secs(60);

/// Time a client request may take where the client says nothing.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Time one call to a peer may take before the peer is called unreachable for this request.
pub const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// How long a call waits at a replica for the newer configuration that its caller goes by: to fetch
/// it takes one call to a peer, and the caller waits [`CALL_DEADLINE`] in all.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// Time a replica waits for the object store within one read.
pub const STORE_DEADLINE: Duration = Duration::from_secs(8);

/// How long after its issue a ballot may be promised, or its record accepted: a request's time,
/// and the greatest offset between the clocks of who issued it and who is asked.
pub const PROMISE_LIFE: Duration =
    Duration::from_secs(CLOCK_DRIFT_MAX.as_secs() + REQUEST_DEADLINE.as_secs());

/// How long after a promise a replica takes no repair below it: the promised record is on its way, and
/// what is brought to a majority past the promise could be seen, and then lie below a record that was
/// decided without it. No longer, as whoever was promised may be gone, and reads wait for the repair.
pub const REPAIR_WAIT: Duration = Duration::from_secs(1);

/// Promises that one partition remembers: as many conditional writes under way on different keys.
/// With 100 byte keys 256 KiB, with the longest keys 4.3 MiB.
pub const PROMISES_MAX: usize = 1_024;

/// Entries in one Tail answer; more are asked for in another call.
pub const TAIL_ENTRIES_MAX: usize = 16_384;

/// Values of one key of `/store` that were written without knowing of each other.
pub const SIBLINGS_MAX: usize = 64;

/// Of its own writes a client's context names so many; of one more it may see a value again.
pub const DOTS_MAX: usize = 16;

/// Longest name of a client of `/store`.
pub const CLIENT_BYTES_MAX: usize = 64;

/// Keys in one answer of a listing: with the longest keys 4 MiB.
pub const LIST_ENTRIES_MAX: usize = 1_024;

/// Bytes of records in one Fetch answer; at least one record is always given.
pub const FETCH_BYTES_MAX: usize = 8 << 20;

/// Shortest interval of background healing: below it a partition that was written costs more than
/// some requests a minute for being looked at.
pub const HEALING_INTERVAL_MIN: Duration = Duration::from_secs(60);

/// Bytes of a snapshot read in the background before a pause: one at 256 KiB/s takes 4 s, so a
/// restart or an order waits no longer for it.
pub const HEALING_PAGE_BYTES: u64 = 1 << 20;

/// Least speed of background healing, in bytes per second: 64 MiB take some 4 minutes, well within
/// the 15 for which a checkpoint is leased.
pub const HEALING_BYTES_PER_SECOND_MIN: u64 = 256 << 10;

/// Greatest speed of background healing, in bytes per second: 67 Mbit/s of a node's network. In a
/// day that is 690 GB for each node; with more than that a pass takes longer than the interval.
pub const HEALING_BYTES_PER_SECOND_MAX: u64 = 8 << 20;

/// Speed of a scrub that an operator asked for, in bytes per second.
pub const SCRUB_BYTES_PER_SECOND: u64 = 64 << 20;

/// How long something in the store that belongs to nothing must have been unchanged before it may be
/// deleted: longer than any backup, restore or holiday of who knows what it is.
pub const ORPHAN_AGE_MIN: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Findings that a node remembers to tell them; all of them are counted and logged.
pub const FINDINGS_MAX: usize = 64;

/// Longest configuration document, in bytes: ten thousand nodes at about 80 bytes each.
pub const CONFIGURATION_BYTES_MAX: usize = 1 << 20;

/// Most values (scalars, lists, maps) in a configuration, aliases counted each time they are used.
pub const CONFIGURATION_VALUES_MAX: usize = 100_000;

/// Deepest nesting of a configuration; the grammar needs 6.
pub const CONFIGURATION_DEPTH_MAX: usize = 16;

/// Longest published document: the configuration, and two tables of 4,096 partitions with up to
/// 16 bucket names of 64 bytes each.
pub const PUBLISHED_BYTES_MAX: usize = 16 << 20;

/// Longest name of a node, bucket, deployment, coordinator or zone, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Most buckets of one deployment.
pub const BUCKETS_MAX: usize = 1_024;

/// Most buckets one partition may fall on.
pub const BUCKETS_PER_KEY_MAX: usize = 16;

/// Most replicas of one partition: every write goes to all of them.
pub const REPLICAS_MAX: usize = 64;

/// Most ring points of one bucket of weight 1.
pub const POINTS_PER_BUCKET_MAX: usize = 10_000;

/// Heaviest bucket; the lightest is one over this.
pub const BUCKET_WEIGHT_MAX: f64 = 1_000.0;

const _: () = assert!(CONFIGURATION_BYTES_MAX < PUBLISHED_BYTES_MAX);
const _: () = assert!(HEALING_BYTES_PER_SECOND_MIN < HEALING_BYTES_PER_SECOND_MAX);
const _: () = assert!(CATCH_UP_MAX.as_secs() < CALL_DEADLINE.as_secs());
const _: () = assert!(FETCH_BYTES_MAX < FRAME_BYTES_MAX);
// A listed key, and 32 bytes beside it.
const _: () = assert!(LIST_ENTRIES_MAX * (KEY_BYTES_MAX + 64) < FRAME_HEAD_BYTES_MAX);
// A Tail entry is at most a key, 16 bytes of version, 8 of LSN, 4 of crc and 4 of length; the
// count alone does not bound the bytes, so a Tail answer is cut by bytes as well.
const _: () = assert!(TAIL_ENTRIES_MAX * 64 < FRAME_HEAD_BYTES_MAX);

/// Versions that the condition of one change may name.
pub const CONDITION_VERSIONS_MAX: usize = 64;

/// Ballots of one change before its client is told that others keep winning.
pub const CHANGE_TRIES_MAX: usize = 24;
