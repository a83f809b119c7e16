//! Rules for backups, with a clock set by hand and a store in memory.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::*;

const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3_600 * SECOND;
/// 2026-11-21 17:00:00.
const START: u64 = 1_795_280_400 * SECOND;

#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Memory {
    names: Mutex<Vec<String>>,
    listed: AtomicU64,
    away: AtomicBool,
}

impl Memory {
    fn answer(&self) -> Result<(), StoreError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(StoreError::new("away")),
            false => Ok(()),
        }
    }

    fn all(&self) -> Vec<String> {
        let mut names = self.names.lock().expect("nobody panics with it").clone();
        names.sort();
        names
    }
}

#[async_trait]
impl BackupStore for Memory {
    async fn names(&self) -> Result<Vec<String>, StoreError> {
        self.answer()?;
        self.listed.fetch_add(1, Ordering::Relaxed);
        Ok(self.all())
    }

    async fn create(&self, name: &str, _: &Published) -> Result<(), StoreError> {
        self.answer()?;
        self.names.lock().expect("nobody panics with it").push(name.to_owned());
        Ok(())
    }

    async fn delete(&self, name: &str, _: &Published) -> Result<(), StoreError> {
        self.answer()?;
        self.names.lock().expect("nobody panics with it").retain(|known| known != name);
        Ok(())
    }
}

struct World {
    store: Arc<Memory>,
    clock: Arc<Hand>,
    keeper: Keeper,
}

impl World {
    fn new() -> Self {
        Self::over(Arc::default(), START)
    }

    /// A coordinator that starts on a store that is there.
    fn over(store: Arc<Memory>, now: u64) -> Self {
        let clock = Arc::new(Hand(AtomicU64::new(now)));
        let keeper = Keeper { store: store.clone(), clock: clock.clone(), due: BTreeMap::new() };
        Self { store, clock, keeper }
    }

    /// Looks each minute until so many hours have passed.
    async fn pass(&mut self, hours: u64, document: &Published) {
        for _ in 0..hours * 60 {
            self.keeper.look("c1", document).await.expect("the store answers");
            self.clock.0.fetch_add(60 * SECOND, Ordering::Relaxed);
        }
    }
}

fn document(rules: &str, coordinators: &str) -> Published {
    let text = format!(
        "{coordinators}backups: {rules}\nactive_deployment: d\ndeployments:\n  d:\n    hash: \
         {{buckets_per_key: 1}}\n    buckets:\n      b1:\n        n1: [localhost, 4701]\n"
    );
    let config = Config::parse(&text).expect("a valid configuration");
    tako_ring::publish(Arc::new(config), 1, None).expect("it can be laid out")
}

#[tokio::test]
async fn each_rule_makes_its_backups_in_time_and_keeps_the_newest() {
    let mut world = World::new();
    world.store.names.lock().expect("free").push("by-hand".to_owned());
    let document = document("[{every: 1h, keep: 3}, {every: 1d, keep: 2}]", "");
    world.pass(50, &document).await;
    assert_eq!(
        world.store.all(),
        [
            "1d-20261122t170000z",
            "1d-20261123t170000z",
            "1h-20261123t160000z",
            "1h-20261123t170000z",
            "1h-20261123t180000z",
            "by-hand",
        ]
    );
    // The store is asked when something is due, not at each look.
    assert_eq!(world.store.listed.load(Ordering::Relaxed), 50 + 3);
}

#[tokio::test]
async fn a_backup_of_the_future_takes_the_place_of_none() {
    let mut world = World::new();
    let future = name_of(Duration::from_secs(3_600), START + 1_000 * 3_600 * SECOND);
    world.store.names.lock().expect("nobody panics with it").push(future.clone());
    world.pass(3, &document("[{every: 1h, keep: 1}]", "")).await;
    let newest = name_of(Duration::from_secs(3_600), START + 2 * 3_600 * SECOND);
    assert_eq!(world.store.all(), [newest, future]);
}

#[tokio::test]
async fn a_restart_repeats_no_backup_and_makes_one_that_is_overdue() {
    let mut world = World::new();
    let document = document("[{every: 1h, keep: 9}]", "");
    world.pass(1, &document).await;
    let mut again = World::over(world.store.clone(), START + HOUR / 2);
    again.keeper.look("c1", &document).await.expect("the store answers");
    assert_eq!(again.store.all().len(), 1, "made half an hour ago");
    let mut late = World::over(world.store, START + 5 * HOUR);
    late.keeper.look("c1", &document).await.expect("the store answers");
    assert_eq!(late.store.all(), ["1h-20261121t170000z", "1h-20261121t220000z"]);
}

#[tokio::test]
async fn what_fails_is_told_and_tried_again_soon() {
    let mut world = World::new();
    let document = document("[{every: 1h, keep: 9}]", "");
    world.store.away.store(true, Ordering::Relaxed);
    world.keeper.look("c1", &document).await.expect_err("it is away");
    world.store.away.store(false, Ordering::Relaxed);
    world.keeper.look("c1", &document).await.expect("too early");
    assert_eq!(world.store.all().len(), 0);
    world.clock.0.fetch_add(AGAIN_AFTER_MICROS, Ordering::Relaxed);
    world.keeper.look("c1", &document).await.expect("the store answers");
    assert_eq!(world.store.all(), ["1h-20261121t170015z"]);
}

#[tokio::test]
async fn one_coordinator_of_several_makes_the_backups() {
    let rules = "[{every: 1h, keep: 9}]";
    let two = "coordinators: {c1: [localhost, 4798], c2: [localhost, 4799]}\n";
    for (coordinators, ours) in [
        (format!("{two}master_coordinator: c2\n"), "c2"),
        (two.to_owned(), "c1"),
        (String::new(), "anybody"),
    ] {
        let document = document(rules, &coordinators);
        for id in ["c1", "c2", "anybody"] {
            let expected = id == ours || coordinators.is_empty();
            let mut world = World::new();
            world.keeper.look(id, &document).await.expect("the store answers");
            assert_eq!(world.store.all().len(), usize::from(expected), "{id}, {coordinators}");
        }
    }
}

#[test]
fn only_names_that_a_rule_gives_are_its_own() {
    let hour = Duration::from_secs(3_600);
    let name = name_of(hour, START + 999_999);
    assert_eq!((name.as_str(), made_at(hour, &name)), ("1h-20261121t170000z", Some(START)));
    for other in ["1d-20261121t170000z", "1h", "1h-", "1h-2026", "1h-20261121t170000z-x"] {
        assert_eq!(made_at(hour, other), None, "{other}");
    }
}
