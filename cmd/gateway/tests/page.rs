//! The status page: its files, the policy they come under, and what `/cluster` tells of the layout.

mod common;

use common::{Place, configuration};
use tako_gateway::GatewayOptions;

const PARTS: [(&str, &str); 10] = [
    ("/", "text/html; charset=utf-8"),
    ("/page/status.css", "text/css; charset=utf-8"),
    ("/page/status.js", "text/javascript; charset=utf-8"),
    ("/page/cluster.js", "text/javascript; charset=utf-8"),
    ("/page/process.js", "text/javascript; charset=utf-8"),
    ("/page/events.js", "text/javascript; charset=utf-8"),
    ("/page/dom.js", "text/javascript; charset=utf-8"),
    ("/page/metrics.js", "text/javascript; charset=utf-8"),
    ("/page/chart.js", "text/javascript; charset=utf-8"),
    ("/page/ring.js", "text/javascript; charset=utf-8"),
];
/// Of all files together.
const BYTES_MAX: usize = 60 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_its_parts_come_with_their_type_and_a_policy_that_lets_nothing_else_in() {
    let place = Place::started(&configuration(1), GatewayOptions::default()).await;
    let mut sum = 0;
    for (path, content_type) in PARTS {
        let answer = place.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
        ] {
            assert!(policy.split("; ").any(|own| own == rule), "{rule} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        sum += answer.body.len();

        let tag = answer.header("etag").expect("a tag").to_owned();
        let again = place.ask("GET", path, &format!("If-None-Match: \"x\", {tag}\r\n"), b"").await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
        let other = place.ask("GET", path, "If-None-Match: \"x\"\r\n", b"").await;
        assert_eq!(other.status, 200, "{path}");
        let head = place.ask("HEAD", path, "", b"").await;
        assert_eq!((head.status, head.header("content-type")), (200, Some(content_type)));
        for method in ["POST", "PUT", "DELETE"] {
            place.ask(method, path, "", b"").await.problem(405, "GET, HEAD");
        }
    }
    assert!(sum <= BYTES_MAX, "{sum} bytes");
    place.get("/page/other.js").await.problem(404, "other.js");
    place.get("/page/..%2Fpage.rs").await.problem(404, "no part");
}

/// The namespace of SVG is a name; no browser fetches it.
#[tokio::test(flavor = "multi_thread")]
async fn no_file_refers_to_another_host_or_makes_markup_of_data() {
    let place = Place::started(&configuration(1), GatewayOptions::default()).await;
    for (path, _) in PARTS {
        let answer = place.get(path).await;
        let text = answer.text().replace("http://www.w3.org/2000/svg", "");
        for not in ["http:", "https:", "@import", "url("] {
            assert!(!text.contains(not), "{not} in {path}");
        }
        for not in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text.contains(not), "{not} in {path}");
        }
        // What the policy forbids would be left out without a word.
        for not in ["<style", " style=", " onclick=", " onload=", "<script>"] {
            assert!(!text.contains(not), "{not} in {path}");
        }
        for loaded in text.split("from './").skip(1).filter_map(|rest| rest.split('\'').next()) {
            assert!(PARTS.iter().any(|(own, _)| *own == format!("/page/{loaded}")), "{loaded}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_page_tells_buckets_ring_and_how_far_nodes_are() {
    let mut place = Place::started(TWO_BUCKETS, GatewayOptions::default()).await;
    let cluster = place.get("/cluster").await.json();
    let buckets = cluster["buckets"].as_array().expect("a list");
    let of = |bucket: &serde_json::Value| (bucket["name"].clone(), bucket["nodes"].clone());
    assert_eq!(of(&buckets[0]), ("a".into(), serde_json::json!(["n1"])));
    assert_eq!(of(&buckets[1]), ("b".into(), serde_json::json!(["n2"])));
    assert_eq!((&buckets[0]["weight"], &buckets[1]["weight"]), (&1.0.into(), &3.0.into()));
    let ring: Vec<Vec<usize>> =
        serde_json::from_value(cluster["ring"].clone()).expect("lists of numbers");
    assert_eq!(ring.len(), 4);
    assert!(ring.iter().all(|row| matches!(row[..], [0 | 1])), "{ring:?}");
    let share = |n: usize| ring.iter().filter(|row| row[0] == n).count() as f64 / 4.0;
    for (n, bucket) in buckets.iter().enumerate() {
        assert_eq!(bucket["share"], share(n));
    }
    assert_eq!(cluster["migration"], serde_json::Value::Null);
    let [own, other] = &cluster["nodes"].as_array().expect("a list")[..] else { panic!("two") };
    assert_eq!((&own["deployment"], &own["zone"]), (&"d".into(), &serde_json::Value::Null));
    assert_eq!(own["partitions"], ring.iter().filter(|row| row[0] == 0).count());
    // Nothing was heard of it: nothing is said.
    assert_eq!(other["behind_partitions"], serde_json::Value::Null);
    assert_eq!(other.get("heard_millis"), None);

    place.start("n2").await;
    place.ready().await;
    let cluster = place.get("/cluster").await.json();
    let other = &cluster["nodes"][1];
    assert_eq!(other["live"], true);
    assert!(other["heard_millis"].as_u64().expect("a number") < 4_000, "{other}");
    assert!(other["behind_partitions"].is_u64(), "{other}");
}

const TWO_BUCKETS: &str = "\
partitions: 4
snapshot: {interval: 300ms}
active_deployment: d
deployments:
  d:
    hash: {buckets_per_key: 1}
    weights: {b: 3}
    buckets:
      a: {n1: [localhost, 4701]}
      b: {n2: [localhost, 4702]}
";
