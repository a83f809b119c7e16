//! `GET /metrics`: the format is kept strictly, the numbers are those of what was done, docs say all.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Place, eventually};

/// Families and samples of a text; panics where the format is not kept.
fn parsed(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
    let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut helped = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a help");
            assert!(words.ends_with('.'), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a kind");
            assert_eq!(helped.as_deref(), Some(name), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().expect("a name");
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|base| kinds.contains_key(*base)))
                .unwrap_or(name);
            assert_eq!(helped.as_deref(), Some(family), "{line}");
            let value = value.parse().expect("a number");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
    }
    (kinds, samples)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_counted_and_every_name_is_documented() {
    let place = Place::one().await;
    for n in 0..3 {
        place.put(&format!("/values/{n}"), b"v").await;
    }
    place.get("/values/0").await;
    place.get("/values/none").await;
    place.ask("PUT", "/values/once", "If-None-Match: *\r\n", b"v").await;
    let answer = place.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    let (kinds, samples) = parsed(answer.text());
    let of = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("no {series}"));
    for (operation, count) in [("write", 3.0), ("read", 2.0), ("change", 1.0)] {
        let label = format!("operation=\"{operation}\"");
        assert_eq!(of(&format!("tako_request_seconds_count{{{label}}}")), count);
        assert_eq!(of(&format!("tako_request_seconds_bucket{{{label},le=\"+Inf\"}}")), count);
        assert!(0.0 < of(&format!("tako_request_seconds_sum{{{label}}}")));
        let mut buckets: Vec<_> = samples
            .iter()
            .filter_map(|(series, value)| {
                let bound =
                    series.strip_prefix(&format!("tako_request_seconds_bucket{{{label},le=\""))?;
                Some((bound.trim_end_matches("\"}").parse::<f64>().ok()?, *value))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
    }
    assert_eq!(of("tako_records_accepted_total"), 4.0);
    assert_eq!((of("tako_ready"), of("tako_partitions")), (1.0, 4.0));
    assert!(0.0 < of("tako_journal_bytes"));

    let page = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<&str> = page
        .lines()
        // A coordinator's are tested there.
        .filter(|line| !line.contains("| coordinator |"))
        .flat_map(|line| line.split('`'))
        .filter(|word| word.starts_with("tako_"))
        .collect();
    assert_eq!(documented, kinds.keys().map(String::as_str).collect());
    place.ask("PUT", "/metrics", "", b"").await.problem(405, "GET");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_snapshots_grows_from_a_write_until_a_step_covers_it() {
    let place = Place::one().await;
    let age = async || {
        let answer = place.get("/metrics").await;
        *parsed(answer.text()).1.get("tako_snapshot_age_seconds").expect("a gauge")
    };
    assert_eq!(age().await, 0.0);
    assert_eq!(place.put("/values/k", b"v").await.status, 200);
    eventually("the write waits for a step", async || 0.0 < age().await).await;
    eventually("a step covers it", async || age().await == 0.0).await;
}
