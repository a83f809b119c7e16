//! What becomes of a key's siblings when one more value is written, or some are deleted. Pure.
//!
//! Invariants: a value that nobody said to have seen stays; what was seen goes. A client's own earlier
//! values are seen by it, as it does one thing after the other. A delete that names nothing seen means
//! all there is: whoever sends it wants the key gone.

use bytes::Bytes;
use tako_flatbuf::{Misfit, Sibling, Siblings, StoreOrder};
use tako_types::{Version, limits::SIBLINGS_MAX};

/// The siblings after a change under this version, as a record's value; `None` where none is left.
pub(super) fn changed(
    there: Siblings,
    order: StoreOrder,
    dot: Version,
    value_bytes_max: usize,
) -> Result<Option<Bytes>, Misfit> {
    let StoreOrder { seen, client, is_delete, content_type, value } = order;
    let is_seen = |one: &Sibling| {
        let is_own = client.is_some() && one.client == client;
        seen.covers(one.dot) || (is_own && !is_delete)
    };
    let means_all = is_delete && seen == Default::default();
    let mut siblings = there.0;
    siblings.retain(|one| !means_all && !is_seen(one));
    if !is_delete {
        siblings.push(Sibling { dot, client: client.clone(), content_type, value });
    }
    if siblings.is_empty() {
        return Ok(None);
    }
    let bytes = (SIBLINGS_MAX >= siblings.len()).then(|| Siblings(siblings).encode());
    bytes.filter(|bytes| bytes.len() <= value_bytes_max).map(Some).ok_or(Misfit::TooLong)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use tako_flatbuf::Seen;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn dot(micros: u64) -> Version {
        Version { micros, origin: 1 }
    }

    fn put(seen: Seen, client: Option<&str>, value: &str) -> StoreOrder {
        StoreOrder {
            seen,
            client: client.map(str::to_owned),
            is_delete: false,
            content_type: None,
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    }

    fn delete(seen: Seen) -> StoreOrder {
        StoreOrder { is_delete: true, ..put(seen, None, "") }
    }

    fn upto(micros: u64) -> Seen {
        Seen { base: dot(micros), dots: Vec::new() }
    }

    fn values(bytes: Option<Bytes>) -> Vec<String> {
        let siblings = bytes
            .map_or_else(Siblings::default, |bytes| Siblings::decode(&bytes).expect("siblings"));
        siblings.0.iter().map(|one| String::from_utf8(one.value.to_vec()).expect("text")).collect()
    }

    /// Applies orders one after the other, under versions 1, 2, …
    fn after(orders: Vec<StoreOrder>) -> Vec<String> {
        let mut there = None;
        for (n, order) in orders.into_iter().enumerate() {
            let siblings = there
                .as_ref()
                .map_or_else(Siblings::default, |bytes| Siblings::decode(bytes).expect("siblings"));
            there = changed(siblings, order, dot(n as u64 + 1), LIMIT).expect("short");
        }
        values(there)
    }

    #[test]
    fn blind_values_stay_beside_each_other_and_a_context_resolves_them() {
        let blind = |value| put(Seen::default(), None, value);
        assert_eq!(after(vec![blind("a"), blind("b")]), ["a", "b"]);
        assert_eq!(after(vec![blind("a"), blind("b"), put(upto(2), None, "c")]), ["c"]);
        // One came since the context was given.
        let late = vec![blind("a"), blind("b"), put(upto(1), None, "c")];
        assert_eq!(after(late), ["b", "c"]);
        // Who knows the first and its own third one has not seen the second.
        let own = Seen { base: dot(1), dots: vec![dot(3)] };
        let orders = vec![blind("a"), blind("b"), blind("c"), put(own, None, "d")];
        assert_eq!(after(orders), ["b", "d"]);
    }

    #[test]
    fn a_named_client_knows_its_own_values_and_a_delete_what_it_says() {
        let by = |client, value| put(Seen::default(), Some(client), value);
        assert_eq!(after(vec![by("x", "a"), by("y", "b"), by("x", "c")]), ["b", "c"]);
        let both = || vec![by("x", "a"), by("y", "b")];
        let with = |order| both().into_iter().chain([order]).collect();
        assert_eq!(after(with(delete(Seen::default()))), [""; 0]);
        assert_eq!(after(with(delete(upto(1)))), ["b"]);
        assert_eq!(after(with(delete(upto(2)))), [""; 0]);
        // An old context covers nothing that came after a delete.
        let mut orders: Vec<_> = with(delete(upto(2)));
        orders.extend([by("z", "new"), put(upto(2), None, "late")]);
        assert_eq!(after(orders), ["new", "late"]);
    }

    #[test]
    fn too_many_or_too_long_are_refused() {
        let order = || put(Seen::default(), None, "value");
        let mut there = Siblings::default();
        for n in 0..SIBLINGS_MAX as u64 {
            let bytes = changed(there, order(), dot(n + 1), LIMIT).expect("short").expect("some");
            there = Siblings::decode(&bytes).expect("siblings");
        }
        let refused = changed(there.clone(), order(), dot(99), LIMIT);
        assert_eq!(refused, Err(Misfit::TooLong));
        let resolved = changed(there, put(upto(90), None, "one"), dot(99), LIMIT);
        assert_eq!(values(resolved.expect("short")), ["one"]);
        let long = changed(Siblings::default(), order(), dot(1), 8);
        assert_eq!(long, Err(Misfit::TooLong));
    }

    /// Against sets: each value carries which values its writer had seen.
    #[test]
    fn what_is_left_is_what_no_later_writer_had_seen() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut there = Siblings::default();
            let mut model = BTreeSet::new();
            let mut contexts = vec![(Seen::default(), BTreeSet::new())];
            for n in 1..40 {
                let (seen, known) = contexts[rng.random_range(0..contexts.len())].clone();
                let is_delete = seen != Seen::default() && rng.random_bool(0.2);
                let order = StoreOrder {
                    is_delete,
                    ..put(
                        seen.clone(),
                        None,
                        &if is_delete { String::new() } else { n.to_string() },
                    )
                };
                model = &model - &known;
                if !is_delete {
                    model.insert(n);
                }
                let bytes = changed(there, order, dot(n), LIMIT).expect("short");
                let expected: Vec<_> = model.iter().map(u64::to_string).collect();
                assert_eq!(values(bytes.clone()), expected, "seed {seed}, change {n}");
                there = bytes.map_or_else(Siblings::default, |bytes| {
                    Siblings::decode(&bytes).expect("siblings")
                });
                // A reader's context, and that of this writer.
                contexts.push((upto(n), (1..=n).collect()));
                let own = known.iter().copied().chain([n]).collect();
                contexts.push((seen.with(dot(n)), own));
                contexts.retain(|(seen, _)| seen.dots.len() < 16);
            }
        }
    }
}
