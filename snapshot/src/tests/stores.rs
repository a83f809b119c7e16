//! The probe and the shared documents, over good stores and bad ones.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use tako_types::{ClusterId, ErrorKind};

use super::*;
use crate::{
    Published, StoreError,
    fault::{Match, Op, When},
};

/// A store that accepts conditions and ignores them, as some servers do.
#[derive(Debug)]
struct Careless(Arc<dyn ObjectStore>);

impl fmt::Display for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("careless")
    }
}

#[async_trait]
impl ObjectStore for Careless {
    async fn put_opts(&self, at: &Path, data: PutPayload, _: PutOptions) -> Result<PutResult> {
        let options = PutOptions { mode: PutMode::Overwrite, ..PutOptions::default() };
        self.0.put_opts(at, data, options).await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(at, options).await
    }
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(at, options).await
    }
    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(at)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

async fn objects(store: &Store) -> usize {
    let listed = store.object_store().list_with_delimiter(Some(store.root())).await;
    listed.expect("a listing").common_prefixes.len()
}

#[tokio::test]
async fn good_stores_pass_the_probe_and_are_left_clean() {
    for world in World::all() {
        world.store.probe().await.expect("a good store");
        let cost = world.store.counts();
        println!("probe: {cost:?}");
        assert_eq!(cost.deletes, 4);
        assert!(cost.puts_and_lists() <= 28 && cost.gets <= 6, "{cost:?}");
        // A folder keeps the empty folders of what was deleted.
        assert!(world.store.is_local() || objects(&world.store).await == 0);
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_with_the_reason() {
    let inner = Arc::new(object_store::memory::InMemory::new());
    let store = Store::new(Arc::new(Careless(inner)), Path::from("root"), false);
    let error = store.probe().await.expect_err("careless");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(matches!(error, StoreError::Probe { check: "create-only", .. }), "{error}");
    assert!(error.to_string().contains("not refused"), "{error}");
    assert_eq!(objects(&store).await, 0, "cleaned up");
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_a_dead_or_silent_store_ends() {
    let world = World::memory();
    world.fault.refuse_all();
    let error = world.store.probe().await.expect_err("dead");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    world.fault.clear();
    world.fault.slow(Some(Duration::from_secs(3600)));
    let error = world.store.probe().await.expect_err("silent");
    assert_eq!(error.kind(), ErrorKind::Deadline);
}

#[tokio::test]
async fn the_first_cluster_id_stays() {
    for world in World::all() {
        assert_eq!(world.store.cluster_id(None).await.expect("a look"), None);
        let first = world.store.cluster_id(Some(ClusterId(7))).await.expect("created");
        assert_eq!(first, Some(ClusterId(7)));
        let second = world.store.cluster_id(Some(ClusterId(8))).await.expect("read");
        assert_eq!(second, Some(ClusterId(7)));
        assert_eq!(world.store.cluster_id(None).await.expect("read"), Some(ClusterId(7)));
    }
}

#[tokio::test]
async fn the_first_document_of_a_number_wins_and_the_highest_is_the_latest() {
    for world in World::all() {
        let store = &world.store;
        assert_eq!(store.latest_config().await.expect("a look"), None);
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        assert_eq!(store.publish_config(9, a.clone()).await.expect("first"), Published::Written);
        let lost = store.publish_config(9, b.clone()).await.expect("second");
        assert_eq!(lost, Published::Exists(a.clone()));
        let same = store.publish_config(9, a.clone()).await.expect("the same again");
        assert_eq!(same, Published::Written);
        store.publish_config(10, b.clone()).await.expect("next");
        assert_eq!(store.latest_config().await.expect("latest"), Some((10, b)));
        assert_eq!(store.config(9).await.expect("one"), Some(a));
        assert_eq!(store.config(11).await.expect("none"), None);
    }
}

#[tokio::test]
async fn what_is_no_document_or_cluster_id_is_not_taken_for_one() {
    for world in World::all() {
        let store = &world.store;
        let doc = Bytes::from_static(b"doc");
        store.publish_config(9, doc.clone()).await.expect("published");
        for name in ["+0000000000000000099", "99", "00000000000000000099.json"] {
            let path = store.path(&format!("config/{name}"));
            store.create(&path, Bytes::from_static(b"other")).await.expect("put");
        }
        assert_eq!(store.latest_config().await.expect("latest"), Some((9, doc.clone())));
        let text = Bytes::from_static(b"+000000000000000000000000000000f");
        store.create(&store.path("cluster"), text).await.expect("put");
        let error = store.cluster_id(None).await.expect_err("no id");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_no_lost_race() {
    for world in World::all() {
        world.fault.fail_nth(Match::op(Op::Put), 0, When::After);
        let ours = Bytes::from_static(b"ours");
        let outcome = world.store.publish_config(1, ours).await.expect("read back");
        assert_eq!(outcome, Published::Written);
        world.fault.fail_nth(Match::op(Op::Put), 0, When::After);
        let id = world.store.cluster_id(Some(ClusterId(5))).await.expect("read back");
        assert_eq!(id, Some(ClusterId(5)));
    }
}

#[tokio::test]
async fn memory_stores_are_shared_by_name_within_the_process() {
    let open = |url: &str| Store::open(&StoreSettings::url(url)).expect("a store");
    let (a, b) = (open("memory://shared-by-name/x"), open("memory://shared-by-name/x"));
    a.publish_config(1, Bytes::from_static(b"doc")).await.expect("published");
    assert!(b.latest_config().await.expect("a look").is_some());
    let elsewhere = open("memory://shared-by-name/y");
    assert!(elsewhere.latest_config().await.expect("a look").is_none());
    let other = open("memory://another-name/x");
    assert!(other.latest_config().await.expect("a look").is_none());
}
