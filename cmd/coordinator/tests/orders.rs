//! Files that come over HTTP, orders that come too late, and who may give them.

mod common;

use std::{sync::atomic::Ordering, time::Duration};

use tako_types::{Epoch, config::Phase, limits::CONFIGURATION_BYTES_MAX};
use tokio::time::{Instant, sleep};

use common::{FILE, Machine, Running, World, file, until};

const PUT: &str = "PUT /configuration HTTP/1.1";
/// Longer than a file must be at rest.
const A_WHILE: Duration = Duration::from_secs(10);

fn kept() -> String {
    format!("{FILE}.before")
}

#[tokio::test(start_paused = true)]
async fn a_file_over_http_is_published_at_once_and_what_was_written_by_hand_is_kept() {
    let world = World::new().await;
    let by_hand = format!("# by hand\n{}", file("d", None, ""));
    let machine = world.machine("c1", &by_hand);
    let c1 = machine.start().await;
    let changed = file("d", None, "durability: os\n");
    let (status, head, body) = c1.request(PUT, changed.as_bytes()).await;
    assert_eq!(status, 200, "{head}");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["epoch"]["number"], 2);
    let epoch = world.newest().await.epoch;
    assert!(head.contains(&format!("etag: \"{}-", epoch.number)), "{head}");
    assert_eq!(c1.published().epoch, epoch);
    let written = machine.read(FILE).expect("it is there");
    assert!(written.starts_with("# Ordered over HTTP") && written.ends_with(&changed), "{written}");
    // A second one does not take the place of what was written by hand.
    c1.must_take(&file("d", None, "durability: none\n")).await;
    assert_eq!(machine.read(&kept()), Some(by_hand));
    // The same again changes nothing, and a start finds it in force.
    c1.must_take(&file("d", None, "durability: none\n")).await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch.number, 3);
    c1.kill().await;
    let c1 = machine.start().await;
    assert_eq!(c1.published().epoch.number, 3);
    c1.kill().await;
    // What is written by hand goes on as ever.
    machine.write(&file("d", None, "durability: os\n"));
    let c1 = machine.start().await;
    assert_eq!(c1.published().epoch.number, 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_over_http_changes_nothing_and_says_why() {
    let world = World::new().await;
    let text = file("d", None, "master_coordinator: c1\n");
    let machine = world.machine("c1", &text);
    let (c1, c2) = (machine.start().await, world.machine("c2", &text).start().await);
    let epoch = world.newest().await.epoch;
    let etag = c1.request("GET /configuration HTTP/1.1", b"").await.1;
    let etag = etag.lines().find_map(|line| line.strip_prefix("etag: ")).expect("one").to_owned();
    let changed = file("d", None, "master_coordinator: c1\ndurability: os\n");
    for (head, body, code, part) in [
        (PUT.to_owned(), text.replace("80]", "0]"), 400, "line 4, column"),
        (PUT.to_owned(), "\u{feff}[".to_owned(), 400, ""),
        (PUT.to_owned(), text.replace("n1: [n1, 47]", "n3: [n3, 47]"), 409, "only as a migration"),
        (PUT.to_owned(), file("t", None, ""), 409, "`d` became `t`"),
        (PUT.to_owned(), format!("{changed}epoch: 1\n"), 409, "epoch 1 has two"),
        (format!("{PUT}\r\nif-match: \"7-00\""), changed.clone(), 412, "is in force"),
        (PUT.to_owned(), "#".repeat(CONFIGURATION_BYTES_MAX), 413, ""),
    ] {
        let (status, head, body) = c1.request(&head, body.as_bytes()).await;
        let body = String::from_utf8_lossy(&body);
        assert_eq!(status, code, "{body}");
        assert!(body.contains(part), "{part}: {body}");
        assert!(head.contains("application/problem+json"), "{head}");
    }
    let (status, body) = c2.order(&changed).await;
    assert_eq!((status, body["master"].as_str()), (409, Some("c1")), "{body}");
    sleep(A_WHILE).await;
    assert_eq!((machine.read(FILE), machine.read(&kept())), (Some(text), None));
    assert_eq!(world.newest().await.epoch, epoch);
    c1.until_error(None).await;
    // For the document in force it is taken.
    let head = format!("{PUT}\r\nif-match: \"1-00\", {etag}");
    assert_eq!(c1.request(&head, changed.as_bytes()).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn during_a_move_only_the_master_takes_an_order_for_it() {
    const MASTER: &str = "master_coordinator: c1\n";
    let world = World::new().await;
    let text = file("d", None, MASTER);
    let machine = world.machine("c2", &text);
    let c1 = world.machine("c1", &text).start().await;
    let c2 = machine.start().await;
    c1.must_take(&file("d", Some("t"), MASTER)).await;
    // It changes no document by itself, so nobody would miss it in the file of another one.
    let (status, body) = c2.order(&file("t", None, MASTER)).await;
    assert_eq!((status, body["master"].as_str()), (409, Some("c1")), "{body}");
    assert_eq!(machine.read(FILE), Some(text));
    c1.must_take(&file("t", None, MASTER)).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_an_order_is_refused_and_not_taken_later() {
    let world = World::new().await;
    let text = file("d", None, "");
    let machine = world.machine("c1", &text);
    let c1 = machine.start().await;
    machine.set_store_away(true);
    let (status, body) = c1.order(&file("d", None, "durability: os\n")).await;
    assert_eq!(status, 503, "{body}");
    machine.set_store_away(false);
    sleep(A_WHILE).await;
    assert_eq!((machine.read(FILE), world.newest().await.epoch.number), (Some(text), 1));
}

/// A coordinator that leaves `d` for `t`, until the nodes are not stuck any more.
async fn leaving(world: &World, machine: &Machine) -> (Running, Epoch) {
    let c1 = machine.start().await;
    c1.must_take(&file("d", Some("t"), "")).await;
    world.until_phase(Some(Phase::WriteBoth)).await;
    *world.stuck_in.lock() = Some(Phase::Leave);
    c1.must_take(&file("t", None, "")).await;
    (c1, world.until_phase(Some(Phase::Leave)).await.epoch)
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_starts_with_an_order_that_came_too_late_serves_and_takes_the_next() {
    let world = World::new().await;
    let machine = world.machine("c1", &file("d", None, ""));
    let (c1, leaving) = leaving(&world, &machine).await;
    // Too late; and it dies.
    machine.write(&file("d", None, ""));
    c1.until_error(Some("`d` is still being left")).await;
    c1.kill().await;
    let c1 = machine.start().await;
    assert_eq!(c1.published().epoch, leaving);
    c1.until_error(Some("`d` is still being left")).await;
    // It goes on to the end all the same, and takes what is put right.
    *world.stuck_in.lock() = None;
    let end = world.until_phase(None).await.epoch;
    c1.until_error(Some("only as a migration")).await;
    machine.write(&file("t", None, ""));
    c1.until_error(None).await;
    sleep(A_WHILE).await;
    assert!(end.number <= world.newest().await.epoch.number);
    assert_eq!(world.newest().await.config.active, "t");
}

#[tokio::test(start_paused = true)]
async fn an_order_that_came_too_early_is_taken_when_it_may_be() {
    let world = World::new().await;
    let machine = world.machine("c1", &file("d", None, ""));
    let (c1, _) = leaving(&world, &machine).await;
    // Back again, before it has ended.
    machine.write(&file("t", Some("d"), ""));
    c1.until_error(Some("`d` is still being left")).await;
    *world.stuck_in.lock() = None;
    let back = world.until_phase(Some(Phase::WriteBoth)).await;
    assert_eq!((back.config.active.as_str(), back.config.target.as_deref()), ("t", Some("d")));
    c1.until_error(None).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_does_not_wait_for_all_the_steps_that_hang() {
    let wide = |text: String| text.replace("partitions: 2", "partitions: 64");
    let world = World::new().await;
    let c1 = world.machine("c1", &wide(file("d", None, ""))).start().await;
    c1.must_take(&wide(file("d", Some("t"), ""))).await;
    world.until_phase(Some(Phase::WriteBoth)).await;
    world.hangs.store(true, Ordering::SeqCst);
    c1.must_take(&wide(file("t", None, ""))).await;
    world.until_phase(Some(Phase::Leave)).await;
    until("it asks for steps", async || {
        let status = c1.status().await;
        status["migration"]["waits_for"].to_string().contains("a step of").then_some(())
    })
    .await;
    let asked = Instant::now();
    c1.must_take(&wide(file("t", None, "request_deadline: 7s\n"))).await;
    assert!(asked.elapsed() <= Duration::from_secs(11), "{:?}", asked.elapsed());
    world.hangs.store(false, Ordering::SeqCst);
    let end = world.until_phase(None).await;
    assert_eq!(end.config.cluster.request_deadline, Duration::from_secs(7));
}
