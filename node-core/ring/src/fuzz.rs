//! What must hold of any configuration that is taken: it can be laid out, and every node can read
//! the document.
//!
//! Called as `tako_types::fuzz` is. A panic is a finding.

use std::sync::Arc;

use tako_types::{
    config::{Config, Published},
    limits::{CONFIGURATION_BYTES_MAX, PUBLISHED_BYTES_MAX},
};

use crate::{fair_shares, publish, zone_warnings};

/// Most points on the ring and partitions that are laid out here; more only take longer.
const POINTS_MAX: usize = 4_096;
const PARTITIONS_MAX: u32 = 256;

/// A configuration and the document that is published for it.
///
/// # Panics
/// When that does not hold.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = Config::parse(text) else { return };
    let points = |deployment: &tako_types::config::Deployment| {
        let weights = deployment.buckets.iter().map(|bucket| bucket.weight.max(1.0));
        deployment.points_per_bucket as f64 * weights.sum::<f64>()
    };
    let deployments =
        || std::iter::once(config.active_deployment()).chain(config.target_deployment());
    if PARTITIONS_MAX < config.partitions
        || deployments().any(|deployment| POINTS_MAX as f64 <= points(deployment))
        || CONFIGURATION_BYTES_MAX < config.to_canonical_json().len()
    {
        return;
    }
    let active = config.active_deployment();
    let shares: f64 = fair_shares(active, config.partitions).iter().sum();
    let places = f64::from(config.partitions) * active.buckets_per_key as f64;
    assert!((shares - places).abs() < 1e-3, "shares of {shares} for {places} places");
    let config = Arc::new(config);
    let document = publish(config.clone(), 1, None).expect("what is taken can be laid out");
    let encoded = document.encode();
    assert!(encoded.len() <= PUBLISHED_BYTES_MAX, "no node would take {} bytes", encoded.len());
    let read = Published::decode(&encoded).expect("what is published can be read");
    assert_eq!(
        (read.epoch, &*read.config),
        (
            document.epoch,
            &Config { epoch: None, accept_loss: Default::default(), ..(*config).clone() }
        )
    );
    let again = publish(config, 1, Some(&read)).expect("laid out again");
    assert_eq!(again.encode(), encoded, "the same configuration moves nothing");
    let _any_texts = zone_warnings(&document);
}
