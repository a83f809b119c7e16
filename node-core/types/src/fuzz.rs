//! What must hold of any bytes that are read as a configuration, a published document, a duration or
//! size, or a stored key.
//!
//! The replay of the corpora calls these with seeded bytes, libFuzzer with its own (`tests/fuzz`).
//! A panic is a finding.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    StoredKey,
    config::{
        Config, Published, check_change, format_duration, format_size, parse_duration, parse_size,
        rehashed,
    },
    limits::{CONFIGURATION_BYTES_MAX, KEY_BYTES_MAX, PUBLISHED_BYTES_MAX},
};

/// Longest text of an error: it must not repeat the document.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// A configuration: refused with a short reason, or the same when read from either of its own
/// forms.
///
/// # Panics
/// When that does not hold.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let config = match Config::parse(text) {
        Ok(config) => config,
        Err(error) => {
            let told = error.to_string();
            assert!(!told.is_empty() && told.len() < ERROR_BYTES_MAX, "{} bytes", told.len());
            return;
        }
    };
    let _any_texts = config.warnings();
    // Aliases can stand for more than a document may hold.
    let canonical = config.to_canonical_json();
    if canonical.len() <= CONFIGURATION_BYTES_MAX {
        let again = Config::parse(&canonical).expect("its own words");
        assert_eq!(again, Config { epoch: None, accept_loss: BTreeSet::new(), ..config.clone() });
        assert_eq!(again.to_canonical_json(), canonical);
    }
    let yaml = config.effective_yaml();
    let secret = config.cluster.store.as_ref().and_then(|it| it.secret_access_key.as_ref());
    if yaml.len() <= CONFIGURATION_BYTES_MAX {
        match secret {
            None => assert_eq!(Config::parse(&yaml).expect("its own YAML"), config),
            // A short secret is found in other words by chance.
            Some(secret) if 16 <= secret.expose().len() => {
                let told: String = format!("{yaml}{config:?}");
                assert!(!told.contains(secret.expose()), "the secret is told");
            }
            Some(_) => {}
        }
    }
    assert_eq!(check_change(&config, &config), Ok(()), "nothing changed");
}

/// A published document: refused with a short reason, or the same after another encoding; also
/// with its hash put right, so that what lies behind the hash is reached.
///
/// # Panics
/// When that does not hold.
pub fn published(bytes: &[u8]) {
    decoded(bytes);
    if let Some(right) = rehashed(bytes) {
        decoded(&right);
    }
}

fn decoded(bytes: &[u8]) {
    let document = match Published::decode(bytes) {
        Ok(document) => document,
        Err(error) => {
            assert!(error.to_string().len() < ERROR_BYTES_MAX, "an endless error");
            return;
        }
    };
    let encoded = document.encode();
    assert!(encoded.len() <= PUBLISHED_BYTES_MAX, "it cannot be passed on");
    let again = Published::decode(&encoded).expect("its own words");
    assert_eq!(again.epoch, document.epoch);
    assert_eq!(again.config, document.config);
    assert_eq!(again.encode(), encoded);
    assert_eq!(1 << document.partitions_log2(), document.partitions().count());
    for partition in document.partitions() {
        let replicas = document.replicas(partition);
        assert_eq!(again.replicas(partition), replicas);
        assert_eq!(document.buckets(partition).count(), replicas_buckets(&document));
        let quorum = document.quorum(partition);
        assert!(quorum.r.clamp(1, replicas.len()) == quorum.r, "R of {}", replicas.len());
        assert!(quorum.w.clamp(1, replicas.len()) == quorum.w, "W of {}", replicas.len());
        for node in replicas {
            assert!(document.node(node).is_some() && document.bucket_of(node).is_some());
        }
    }
}

fn replicas_buckets(document: &Published) -> usize {
    document.config.active_deployment().buckets_per_key
}

/// A duration and a size: what is taken is written as a text that means the same.
///
/// # Panics
/// When that does not hold.
pub fn quantity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(duration) = parse_duration(text) {
        let written = format_duration(duration);
        assert_eq!(parse_duration(&written), Ok(duration), "{written}");
        assert_eq!(parse_duration(&format!(" {text}\n")), Ok(duration), "space around");
    }
    if let Ok(size) = parse_size(text) {
        let written = format_size(size);
        assert_eq!(parse_size(&written), Ok(size), "{written}");
        assert_eq!(parse_size(&format!("{size}")), Ok(size), "plain bytes");
    }
}

/// A stored key: it is one, and then that of its own client's key and in the one partition that its
/// bytes say at every number of partitions; or it is none.
///
/// # Panics
/// When that does not hold.
pub fn stored_key(bytes: &[u8]) {
    if let Some(stored) = StoredKey::from_bytes(Bytes::copy_from_slice(bytes)) {
        assert_eq!(stored.key().stored(), stored);
        assert!(stored.as_bytes() == bytes && stored.key().bytes().len() <= KEY_BYTES_MAX);
        assert_eq!(stored.detached().digest(), stored.digest());
        for log2 in 0..=12 {
            assert!(u32::from(stored.partition(log2).0) < 1 << log2);
            let halved = stored.partition(log2.max(1)).0 >> 1;
            assert!(log2 == 0 || stored.partition(log2 - 1).0 == halved);
        }
    }
    // Nothing but those bytes stands for the key.
    if let Ok(key) = crate::Key::new(0, Bytes::copy_from_slice(bytes)) {
        let stored = key.stored();
        assert_eq!(StoredKey::from_bytes(stored.as_bytes().clone()), Some(stored.clone()));
        let mut other = stored.as_bytes().to_vec();
        other[1] ^= 0x80;
        assert_eq!(StoredKey::from_bytes(Bytes::from(other)), None);
    }
}
