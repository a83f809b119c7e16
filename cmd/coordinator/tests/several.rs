//! Several coordinators of one store: one dies, is cut off, comes back old; or all are gone.

mod common;

use std::time::Duration;

use tako_types::config::Phase;
use tokio::time::sleep;

use common::{World, file, until};

const BY_C1: &str = "master_coordinator: c1\n";
const BY_C2: &str = "master_coordinator: c2\n";

/// Longer than it takes to ask the store.
const A_WHILE: Duration = Duration::from_secs(65);

fn by_c2(epoch: u64) -> String {
    format!("master_coordinator: c2\nepoch: {epoch}\n")
}

/// The master dies in `phase` of a move; another finishes it; the first comes back.
async fn dies_in(phase: Phase) {
    let world = World::new().await;
    let machines = ["c1", "c2", "c3"].map(|id| world.machine(id, &file("d", None, BY_C1)));
    let c1 = machines[0].start().await;
    let (c2, c3) = (machines[1].start().await, machines[2].start().await);
    *world.stuck_in.lock() = Some(phase);
    c1.must_take(&file("d", Some("t"), BY_C1)).await;
    c1.must_take(&file("t", None, BY_C1)).await;
    let before = world.until_phase(Some(phase)).await.epoch;
    c1.kill().await;
    *world.stuck_in.lock() = None;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, before, "nobody else goes on unasked");
    // An order alone is not enough: c1 may be alive.
    let (status, body) = c2.order(&file("t", None, "master_coordinator: c2\n")).await;
    assert_eq!((status, body["master"].as_str()), (409, Some("c1")), "{body}");
    c2.must_take(&file("t", None, &by_c2(before.number + 1))).await;
    let end = world.until_phase(None).await;
    assert_eq!((end.config.active.as_str(), end.config.master()), ("t", Some("c2")));
    c3.until_epoch(end.epoch.number).await;
    // Back, with the file and the document of before.
    let c1 = machines[0].start().await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, end.epoch, "{phase:?}: an old file changed something");
    assert_eq!(c1.published().epoch, end.epoch);
    c1.until_error(Some("`c2` gives the numbers")).await;
}

#[tokio::test(start_paused = true)]
async fn whichever_phase_the_master_dies_in_another_finishes_the_move_and_it_follows_when_it_is_back()
 {
    for phase in [Phase::Join, Phase::WriteBoth, Phase::ReadNew, Phase::Leave] {
        dies_in(phase).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_master_that_was_cut_off_finds_that_others_went_on_and_changes_nothing() {
    let world = World::new().await;
    let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, BY_C1)));
    let (c1, c2) = (machines[0].start().await, machines[1].start().await);
    *world.stuck_in.lock() = Some(Phase::WriteBoth);
    c1.must_take(&file("d", Some("t"), BY_C1)).await;
    let both = world.until_phase(Some(Phase::WriteBoth)).await;
    c1.must_take(&file("t", None, BY_C1)).await;
    c2.until_epoch(both.epoch.number).await;
    // It runs on, with an order to finish, and reaches nobody.
    machines[0].set_store_away(true);
    for host in ["n1", "n2"] {
        world.network.cut_both("c1", host);
    }
    *world.stuck_in.lock() = None;
    c2.must_take(&file("d", None, &by_c2(both.epoch.number + 1))).await;
    let end = world.until_phase(None).await;
    assert_eq!(end.config.active, "d", "given up");
    // The nodes first: it sees them ready by the document that it has.
    world.network.heal_all();
    sleep(A_WHILE).await;
    assert_eq!(c1.published().epoch, both.epoch);
    machines[0].set_store_away(false);
    c1.until_epoch(end.epoch.number).await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, end.epoch);
}

#[tokio::test(start_paused = true)]
async fn of_two_documents_with_one_number_one_wins_and_all_have_that() {
    let world = World::new().await;
    let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, BY_C1)));
    let (c1, c2) = (machines[0].start().await, machines[1].start().await);
    // Both find the number free.
    machines.iter().for_each(|machine| machine.set_store_slow(true));
    let text =
        |by: &str, n: u64| file("d", None, &format!("{by}epoch: 2\nrequest_deadline: {n}s\n"));
    let (one, two) = (text(BY_C1, 1), text(BY_C2, 2));
    let (first, second) = tokio::join!(c1.order(&one), c2.order(&two));
    let mut codes = [first.0, second.0];
    codes.sort_unstable();
    assert_eq!(codes, [200, 409], "{first:?} {second:?}");
    let published = world.document(2).await;
    let (won, lost) = if first.0 == 200 { ("c1", &machines[1]) } else { ("c2", &machines[0]) };
    assert_eq!(c1.until_epoch(2).await.epoch, published.epoch, "{won} won");
    assert_eq!(c2.until_epoch(2).await.epoch, published.epoch, "{won} won");
    // Who lost has its file as it was, so that what was refused is not taken later.
    assert_eq!(lost.read(common::FILE), Some(file("d", None, BY_C1)));
    assert_eq!(world.newest().await.epoch.number, 2);
}

#[tokio::test(start_paused = true)]
async fn an_order_for_one_document_does_not_follow_another_that_came_while_it_was_published() {
    let world = World::new().await;
    let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, BY_C1)));
    let (c1, c2) = (machines[0].start().await, machines[1].start().await);
    let (_, head, _) = c1.request("GET /configuration HTTP/1.1", b"").await;
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("one");
    // c1 finds the number free, and c2 is faster.
    machines[0].set_store_slow(true);
    let one = file("d", None, &format!("{BY_C1}request_deadline: 1s\n"));
    let two = file("d", None, &format!("{BY_C2}epoch: 2\nrequest_deadline: 2s\n"));
    let put = format!("PUT /configuration HTTP/1.1\r\nif-match: {etag}");
    let (first, second) = tokio::join!(c1.request(&put, one.as_bytes()), c2.order(&two));
    assert_eq!(second.0, 200, "{second:?}");
    assert_eq!(first.0, 412, "{}", String::from_utf8_lossy(&first.2));
    assert_eq!(machines[0].read(common::FILE), Some(file("d", None, BY_C1)));
    assert_eq!(c1.until_epoch(2).await.config.cluster.request_deadline, Duration::from_secs(2));
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch.number, 2);
    c1.until_error(None).await;
}

#[tokio::test(start_paused = true)]
async fn who_becomes_master_by_anothers_document_goes_on_with_what_is_in_force() {
    let world = World::new().await;
    let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, BY_C1)));
    let (c1, c2) = (machines[0].start().await, machines[1].start().await);
    c1.must_take(&file("d", Some("t"), BY_C1)).await;
    world.until_phase(Some(Phase::WriteBoth)).await;
    // c2's file knows of no move, which by itself would be an order to give it up.
    c1.must_take(&file("d", Some("t"), BY_C2)).await;
    let handed_over = world.newest().await.epoch;
    c2.until_epoch(handed_over.number).await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, handed_over, "an older file changed something");
    c2.until_error(Some("the file is older than")).await;
    // Nor does it at a start.
    c2.kill().await;
    let c2 = machines[1].start().await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, handed_over, "an older file changed something");
    c2.until_error(Some("the file is older than")).await;
    // What is written from now on counts.
    machines[1].write(&file("t", None, BY_C2));
    assert_eq!(world.until_phase(None).await.config.active, "t");
    c2.until_error(None).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_refused_for_another_master_is_not_taken_when_mastery_comes() {
    let world = World::new().await;
    let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, BY_C1)));
    let (c1, c2) = (machines[0].start().await, machines[1].start().await);
    c1.must_take(&file("d", Some("t"), BY_C1)).await;
    let both = world.until_phase(Some(Phase::WriteBoth)).await;
    c2.until_epoch(both.epoch.number).await;
    let give_up = file("d", None, BY_C2);
    machines[1].write(&give_up);
    c2.until_error(Some("`c1` gives the numbers")).await;
    c1.must_take(&file("d", Some("t"), BY_C2)).await;
    let handed_over = world.newest().await.epoch;
    c2.until_epoch(handed_over.number).await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, handed_over, "what was refused was taken later");
    c2.until_error(Some("the file is older than")).await;
    // The same again, written now.
    machines[1].write(&format!("# again\n{give_up}"));
    assert_eq!(world.until_phase(None).await.config.active, "d");
}

#[tokio::test(start_paused = true)]
async fn who_was_away_while_another_began_a_move_and_is_master_again_does_not_give_it_up() {
    let world = World::new().await;
    let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, BY_C1)));
    let (c1, c2) = (machines[0].start().await, machines[1].start().await);
    c1.kill().await;
    c2.must_take(&file("d", Some("t"), &by_c2(2))).await;
    world.until_phase(Some(Phase::WriteBoth)).await;
    c2.must_take(&file("d", Some("t"), BY_C1)).await;
    let given_back = world.newest().await.epoch;
    let c1 = machines[0].start().await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, given_back, "an older file changed something");
    c1.until_error(Some("the file is older than")).await;
    // An order of the same text is a new one.
    c1.must_take(&file("d", None, BY_C1)).await;
    assert_eq!(world.until_phase(None).await.config.active, "d");
}

#[tokio::test(start_paused = true)]
async fn a_take_over_that_was_published_unheard_counts_also_after_a_restart() {
    for restarts in [false, true] {
        let world = World::new().await;
        let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, BY_C1)));
        let (c1, mut c2) = (machines[0].start().await, machines[1].start().await);
        c1.must_take(&file("d", Some("t"), BY_C1)).await;
        let both = world.until_phase(Some(Phase::WriteBoth)).await;
        c1.kill().await;
        c2.until_epoch(both.epoch.number).await;
        machines[1].lose_next_answer();
        let (status, body) = c2.order(&file("t", None, &by_c2(both.epoch.number + 1))).await;
        assert_eq!(status, 503, "{body}");
        if restarts {
            c2.kill().await;
            c2 = machines[1].start().await;
        }
        assert_eq!(world.until_phase(None).await.config.active, "t", "restarts: {restarts}");
        c2.until_error(None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_take_over_by_a_number_that_leaves_others_free_is_refused_with_the_one_to_take() {
    let world = World::new().await;
    let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, BY_C1)));
    let (c1, c2) = (machines[0].start().await, machines[1].start().await);
    c1.must_take(&file("d", Some("t"), BY_C1)).await;
    let both = world.until_phase(Some(Phase::WriteBoth)).await.epoch;
    let (status, body) = c2.order(&file("d", None, &by_c2(both.number + 7))).await;
    assert_eq!(status, 409, "{body}");
    let why = body["detail"].as_str().expect("a text");
    assert!(why.contains(&format!("say {}", both.number + 1)), "{why}");
    assert_eq!(world.newest().await.epoch, both);
    // The master was not disturbed.
    c1.must_take(&file("t", None, BY_C1)).await;
    assert_eq!(world.until_phase(None).await.config.active, "t");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_was_rolled_back_brings_no_older_file_into_force() {
    let world = World::new().await;
    let mut machine = world.machine("c1", &file("d", None, BY_C1));
    let c1 = machine.start().await;
    let before = machine.disk();
    for seconds in [7, 8] {
        c1.must_take(&file("d", None, &format!("{BY_C1}request_deadline: {seconds}s\n"))).await;
    }
    let newest = world.newest().await.epoch;
    c1.kill().await;
    machine.roll_back_to(before);
    let c1 = machine.start().await;
    c1.until_error(Some("the file is older than")).await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, newest, "an older file changed something");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_counted_no_more_does_not_count_again_when_a_crash_cuts_the_order_in_its_place()
{
    let world = World::new().await;
    let old = file("d", None, BY_C1);
    let mut c1_machine = world.machine("c1", &old);
    let c2_machine = world.machine("c2", &old);
    let (c1, c2) = (c1_machine.start().await, c2_machine.start().await);
    let by_c2 = |epoch, seconds| {
        file("d", None, &format!("{BY_C2}epoch: {epoch}\nrequest_deadline: {seconds}s\n"))
    };
    c2.must_take(&by_c2(2, 7)).await;
    c1.until_epoch(2).await;
    // An order to c1 that c2 is faster than. The file before it is put back, and c1 dies at that.
    let (_, head, _) = c1.request("GET /configuration HTTP/1.1", b"").await;
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("one");
    c1_machine.set_store_slow(true);
    let put = format!("PUT /configuration HTTP/1.1\r\nif-match: {etag}");
    let order = file("d", None, &format!("{BY_C1}epoch: 3\nrequest_deadline: 8s\n"));
    let copied = async {
        until("the order is on the disk", async || {
            c1_machine.read(common::FILE).filter(|text| text.contains("8s"))
        })
        .await;
        sleep(Duration::from_millis(500)).await;
        c1_machine.disk()
    };
    let faster = by_c2(3, 9);
    let (refused, taken, disk) =
        tokio::join!(c1.request(&put, order.as_bytes()), c2.order(&faster), copied);
    assert_eq!((refused.0, taken.0), (412, 200));
    c1.kill().await;
    c1_machine.roll_back_to(disk);
    c1_machine.write(&old);
    c1_machine.set_store_slow(false);
    // Made the master by another meanwhile, it goes on with what is in force.
    c2.must_take(&file("d", None, &format!("{BY_C1}request_deadline: 9s\n"))).await;
    let _c1 = c1_machine.start().await;
    sleep(A_WHILE).await;
    let newest = world.newest().await;
    assert_eq!(newest.config.cluster.request_deadline, Duration::from_secs(9), "the old file");
    assert_eq!(newest.epoch.number, 4);
}

#[tokio::test(start_paused = true)]
async fn with_all_coordinators_lost_a_new_one_takes_the_document_from_the_store_and_publishes() {
    let world = World::new().await;
    let machine = world.machine("c1", &file("d", None, BY_C1));
    let c1 = machine.start().await;
    c1.must_take(&file("d", None, &format!("{BY_C1}request_deadline: 7s\n"))).await;
    c1.kill().await;
    // Nothing of it is left; the file is a new one.
    let text = file("d", Some("t"), &format!("{BY_C1}request_deadline: 7s\n"));
    let new = world.machine("c1", &text).start().await;
    let newest = world.until_phase(Some(Phase::WriteBoth)).await;
    assert!(3 <= newest.epoch.number, "{}", newest.epoch);
    until("it serves that", async || (new.published().epoch == newest.epoch).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_named_master_the_first_of_several_drives_and_the_others_follow() {
    let world = World::new().await;
    let machines = ["c1", "c2"].map(|id| world.machine(id, &file("d", None, "")));
    let (c1, c2) = (machines[0].start().await, machines[1].start().await);
    // The other one's file is older: it must not give up what c1 is told to do.
    c1.must_take(&file("d", Some("t"), "")).await;
    let both = world.until_phase(Some(Phase::WriteBoth)).await;
    c2.until_epoch(both.epoch.number).await;
    sleep(A_WHILE).await;
    assert_eq!(world.newest().await.epoch, both.epoch, "c2 drove its own file");
    let (status, body) = c2.order(&file("d", None, "")).await;
    assert_eq!((status, body["master"].as_str()), (409, Some("c1")), "{body}");
    c1.must_take(&file("t", None, "")).await;
    assert_eq!(world.until_phase(None).await.config.active, "t");
}
