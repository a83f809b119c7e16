//! Claims about messages: every one reads back, has golden bytes, and no damage panics.

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tako_types::{
    ClusterId, Epoch, ErrorKind, Incarnation, Key, Kind, Lsn, NodeId, PartitionId, RecordStat,
    StepNumber, StoredKey, Version,
};

use super::*;
use crate::{
    Record, RecordHead, RpcError, WireError, frame,
    frame::{Frame, PREFIX_BYTES},
    fuzz, golden,
};

fn key(name: &str) -> StoredKey {
    Key::new(1, Bytes::copy_from_slice(name.as_bytes())).expect("a short key").stored()
}

fn record(name: &str, value: &[u8]) -> Record {
    let version = Version { micros: 7, origin: 8 };
    let head = RecordHead { version, kind: Kind::Value, expires_at_micros: 0, flags: 0 };
    Record::encode(&key(name), head, Some("text/plain"), value)
}

fn gossip() -> GossipState {
    let row = |number: u16| PartitionGossip {
        partition: PartitionId(number),
        newest: Version { micros: 1_000 + u64::from(number), origin: 3 },
        last_lsn: Lsn(4),
        step: StepNumber(5),
        covered: number.is_multiple_of(2),
        snapshotter: number == 3,
    };
    GossipState {
        node: NodeId::new("n1"),
        incarnation: Incarnation(11),
        state: NodeState::Serving,
        clock_micros: 12,
        epoch: Epoch { number: 13, sha256: [14; 32] },
        load: 15,
        known: vec![(NodeId::new("n2"), Incarnation(16)), (NodeId::new("n3"), Incarnation(17))],
        partitions: (0..4).map(row).collect(),
    }
}

fn step(missed: Option<Vec<u64>>) -> StepAnnouncement {
    StepAnnouncement {
        partition: PartitionId(1),
        step: StepNumber(2),
        manifest: 3,
        checkpoint: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
        highest: Version { micros: 4, origin: 5 },
        coverage: vec![(NodeId::new("n1"), Incarnation(6), Lsn(7))],
        previous: StepNumber(1),
        missed,
    }
}

fn change(condition: Condition) -> Request {
    edited(condition, Edit::Write)
}

fn edited(condition: Condition, edit: Edit) -> Request {
    Request::Change { partition: PartitionId(9), condition, edit, record: record("k", b"value") }
}

/// Every request, and every shape of those that have several.
fn requests() -> Vec<(&'static str, Request)> {
    let partition = PartitionId(9);
    let keys = vec![key("a"), key("bb"), key("ccc")];
    let node = NodeId::new("n1");
    vec![
        (
            "hello",
            Request::Hello { cluster: Some(ClusterId(1 << 100)), node: node.clone(), protocol: 1 },
        ),
        ("hello-new", Request::Hello { cluster: None, node: node.clone(), protocol: 1 }),
        (
            "put",
            Request::Put {
                partition,
                record: record("k", b"value"),
                repair: true,
                until_micros: 0,
            },
        ),
        (
            "put-until",
            Request::Put {
                partition,
                record: record("k", b"value"),
                repair: false,
                until_micros: 1 << 50,
            },
        ),
        (
            "prepare",
            Request::Prepare { partition, key: key("k"), ballot: Version { micros: 3, origin: 4 } },
        ),
        (
            "accept",
            Request::Accept {
                partition,
                base: Version { micros: 5, origin: 6 },
                record: record("k", b"value"),
            },
        ),
        (
            "accept-first",
            Request::Accept { partition, base: Version::ZERO, record: record("k", b"value") },
        ),
        ("change-absent", change(Condition::Absent)),
        ("change-present", change(Condition::Present)),
        ("change-one-of", change(Condition::OneOf(vec![Version { micros: 5, origin: 6 }]))),
        ("change-none-of", change(Condition::NoneOf(vec![]))),
        ("change-token", change(Condition::Token(u64::MAX))),
        ("change-append", edited(Condition::Present, Edit::Append)),
        ("change-prepend", edited(Condition::Present, Edit::Prepend)),
        ("change-add", edited(Condition::Present, Edit::Add(7))),
        ("change-subtract", edited(Condition::Present, Edit::Subtract(7))),
        ("change-touch", edited(Condition::Present, Edit::Touch)),
        ("change-store", edited(Condition::Present, Edit::Store)),
        ("get", Request::Get { partition, key: key("k") }),
        ("stat", Request::Stat { partition, keys: keys.clone(), merged: true }),
        ("stat-none", Request::Stat { partition, keys: vec![], merged: false }),
        (
            "tail",
            Request::Tail {
                partition,
                after: Lsn(1),
                incarnation: Incarnation(2),
                puller: node,
                puller_incarnation: Incarnation(3),
            },
        ),
        ("fetch", Request::Fetch { partition, keys }),
        ("gossip", Request::Gossip(gossip())),
        ("step", Request::Step(step(Some(vec![1, u64::MAX])))),
        ("step-forget", Request::Step(step(None))),
        ("force-step", Request::ForceStep { partition }),
        ("configuration", Request::Configuration { above: 4 }),
        ("health", Request::Health),
        ("standing", Request::Standing { from: PartitionId(3) }),
        ("scrub", Request::Scrub(ScrubOrder::default())),
        (
            "scrub-start",
            Request::Scrub(ScrubOrder {
                start: true,
                partitions: vec![PartitionId(0), PartitionId(31)],
                journal: true,
                orphans: OrphanOrder::Find,
            }),
        ),
        (
            "audit",
            Request::Audit {
                partition,
                step: StepNumber(9),
                held: vec![(1, Version { micros: 2, origin: 3 }), (u64::MAX, Version::ZERO)],
            },
        ),
        ("list", Request::List { partition, query: listed(b"a/", Some(b"a/b")) }),
        ("list-all", Request::List { partition, query: listed(b"", None) }),
    ]
}

fn listed(prefix: &'static [u8], after: Option<&'static [u8]>) -> ListingQuery {
    let prefix = Bytes::from_static(prefix);
    ListingQuery { namespace: 1, prefix, after: after.map(Bytes::from_static), limit: 7 }
}

fn listing(upto: Option<&'static [u8]>) -> Listing {
    let stat = |micros, expires_at_micros| RecordStat {
        version: Version { micros, origin: 2 },
        is_tombstone: false,
        expires_at_micros,
        value_bytes: 3,
    };
    let entries = vec![
        (Bytes::from_static(b"a/b"), stat(4, 0)),
        (Bytes::from_static(b"a/\xff"), stat(u64::MAX, 5)),
    ];
    let upto = upto.map(Bytes::from_static);
    Listing { entries, upto, step: StepNumber(6), voting: true }
}

fn scrubbed() -> ScrubReport {
    let row = |partition: u16| PartitionScrub {
        partition: PartitionId(partition),
        running: partition == 1,
        whole: partition == 2,
        begun_micros: 3,
        ended_micros: 4,
        total_bytes: 5,
        bytes: 6,
        records: 7,
        bad: 8,
        healed: 9,
        unreadable: 10,
        stale: 11,
    };
    ScrubReport {
        waiting: vec![PartitionId(1), PartitionId(4)],
        journal_waiting: true,
        orphans_waiting: false,
        partitions: vec![row(1), row(2)],
        journal: JournalScrub { ended_micros: 1, files: 2, bad: 3, lost: 4 },
        orphans: OrphanReport {
            ended_micros: 12,
            found: 13,
            deleted: 14,
            listed: vec!["a database of 4 partitions: partitions/2-1".to_owned()],
            failed: Some("away".to_owned()),
        },
        findings: vec!["first".to_owned(), String::new()],
    }
}

fn standing() -> Standing {
    let row = |partition: u16, adopted_lsn, coverage: &[(&str, u64, u64)]| PartitionStanding {
        partition: PartitionId(partition),
        holder: adopted_lsn == Some(Lsn(0)),
        adopted_lsn,
        last_lsn: Lsn(7),
        step: StepNumber(8),
        uncovered: 9,
        recovered: true,
        voting: partition == 1,
        coverage: coverage
            .iter()
            .map(|(node, inc, lsn)| (NodeId::new(node), Incarnation(*inc), Lsn(*lsn)))
            .collect(),
    };
    Standing {
        cluster: Some(ClusterId(1 << 100 | 3)),
        epoch: 5,
        noted: 4,
        state: NodeState::Serving,
        incarnation: Incarnation(6),
        partitions: vec![
            row(1, Some(Lsn(0)), &[("n1", 1, 10), ("n2", 2, 20)]),
            row(2, None, &[]),
            row(3, Some(Lsn(6)), &[("n2", 2, 30)]),
        ],
        more: true,
    }
}

/// Every answer, and every shape of those that have several.
fn answers() -> Vec<(&'static str, Answer)> {
    let step = StepNumber(3);
    let version = Version { micros: 1, origin: 2 };
    let entry = |lsn: u64, name: &str| TailEntry { lsn: Lsn(lsn), key: key(name), version, crc: 6 };
    let accepted = PutOutcome::Accepted {
        incarnation: Incarnation(1),
        voting: true,
        known: vec![(NodeId::new("n2"), Incarnation(2))],
    };
    let promised = |record| PrepareOutcome::Promised {
        incarnation: Incarnation(1),
        known: vec![(NodeId::new("n2"), Incarnation(2))],
        record,
        step,
        covered: true,
        voting: true,
    };
    let tail = |promised| Response::Tail {
        incarnation: Incarnation(1),
        upto: Lsn(9),
        step,
        covered: true,
        state: NodeState::Recovering,
        entries: vec![entry(8, "a"), entry(9, "bb")],
        more: true,
        promised,
    };
    let some = StatAnswer { version: Some(version), crc: 7 };
    vec![
        (
            "hello",
            Ok(Response::Hello {
                cluster: Some(ClusterId(5)),
                node: NodeId::new("n2"),
                incarnation: Incarnation(6),
            }),
        ),
        ("put-accepted", Ok(Response::Put(accepted.clone()))),
        ("put-superseded", Ok(Response::Put(PutOutcome::Superseded { version }))),
        ("put-promised", Ok(Response::Put(PutOutcome::Promised { version }))),
        ("prepare", Ok(Response::Prepare(promised(Some(record("k", b"v")))))),
        ("prepare-none", Ok(Response::Prepare(promised(None)))),
        ("prepare-refused", Ok(Response::Prepare(PrepareOutcome::Refused { version }))),
        ("accept-accepted", Ok(Response::Accept(accepted.clone()))),
        ("accept-superseded", Ok(Response::Accept(PutOutcome::Superseded { version }))),
        ("accept-promised", Ok(Response::Accept(PutOutcome::Promised { version }))),
        ("change-done", Ok(Response::Change(ChangeOutcome::Done { version, record: None }))),
        (
            "change-done-record",
            Ok(Response::Change(ChangeOutcome::Done { version, record: Some(record("k", b"8")) })),
        ),
        ("change-no-number", Ok(Response::Change(ChangeOutcome::Cannot(Misfit::NoNumber)))),
        ("change-too-long", Ok(Response::Change(ChangeOutcome::Cannot(Misfit::TooLong)))),
        ("change-fails", Ok(Response::Change(ChangeOutcome::Fails { version: Some(version) }))),
        ("change-fails-none", Ok(Response::Change(ChangeOutcome::Fails { version: None }))),
        ("change-unknown", Ok(Response::Change(ChangeOutcome::Unknown { reason: "x".into() }))),
        (
            "get",
            Ok(Response::Get {
                record: Some(record("k", b"v")),
                step,
                covered: false,
                voting: true,
            }),
        ),
        (
            "get-covered",
            Ok(Response::Get {
                record: Some(record("k", b"v")),
                step,
                covered: true,
                voting: true,
            }),
        ),
        ("get-none", Ok(Response::Get { record: None, step, covered: false, voting: false })),
        (
            "stat",
            Ok(Response::Stat { answers: vec![some, StatAnswer::default()], step, voting: true }),
        ),
        ("tail", Ok(tail(Version::ZERO))),
        ("tail-promised", Ok(tail(version))),
        (
            "fetch",
            Ok(Response::Fetch { records: vec![record("a", b"1"), record("b", b"")], more: true }),
        ),
        ("fetch-none", Ok(Response::Fetch { records: vec![], more: false })),
        ("gossip", Ok(Response::Gossip(gossip()))),
        ("step", Ok(Response::Step { step })),
        ("force-step", Ok(Response::ForceStep { step })),
        (
            "configuration",
            Ok(Response::Configuration { document: Some(Bytes::from_static(b"a: 1")) }),
        ),
        ("configuration-none", Ok(Response::Configuration { document: None })),
        ("health", Ok(Response::Health { state: NodeState::Draining })),
        ("standing", Ok(Response::Standing(standing()))),
        ("scrub", Ok(Response::Scrub(scrubbed()))),
        ("scrub-none", Ok(Response::Scrub(ScrubReport::default()))),
        ("audit", Ok(Response::Audit(AuditAnswer { behind: true, checked: 1, stale: 2 }))),
        ("list", Ok(Response::List(listing(Some(b"a/c"))))),
        ("list-end", Ok(Response::List(Listing { entries: Vec::new(), ..listing(None) }))),
        ("error-epoch", Err(RpcError::stale_epoch(17))),
        ("error-nothing-done", Err(RpcError::nothing_done("it is leaving"))),
        ("error-busy", Err(RpcError::busy("too much", 20))),
    ]
}

fn call() -> CallHead {
    let trace_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
    CallHead { id: 1 << 40, epoch: 2, deadline_ms: 3, trace_parent: Some(trace_parent) }
}

fn wire(frame: &Frame) -> Bytes {
    let mut bytes = frame.prefix_bytes().to_vec();
    for piece in std::iter::once(&frame.head).chain(&frame.attachments) {
        bytes.extend_from_slice(piece);
    }
    assert_eq!(bytes.len(), frame.wire_bytes());
    Bytes::from(bytes)
}

/// The wire bytes of every request and answer.
fn all_wires() -> Vec<Bytes> {
    let requests = requests();
    let requests = requests.iter().map(|(_, it)| encode_request(&call(), it).expect("fits"));
    let answers = answers();
    let answers = answers.iter().map(|(_, it)| encode_response(5, it).expect("fits"));
    requests.chain(answers).map(|frame| wire(&frame)).collect()
}

#[test]
fn every_request_reads_back_and_its_bytes_are_fixed() {
    for (name, request) in requests() {
        let bytes = wire(&encode_request(&call(), &request).expect("fits"));
        golden::check(&format!("request-{name}.hex"), &bytes);
        let kept = Bytes::from(golden::read(&format!("request-{name}.hex")));
        let (head, read) = decode_request(&frame::parse(&kept).expect("a frame")).expect(name);
        assert_eq!((head, read), (call(), Ok(request)), "{name}");
    }
}

#[test]
fn every_answer_reads_back_and_its_bytes_are_fixed() {
    for (name, answer) in answers() {
        let bytes = wire(&encode_response(5, &answer).expect("fits"));
        golden::check(&format!("answer-{name}.hex"), &bytes);
        let kept = Bytes::from(golden::read(&format!("answer-{name}.hex")));
        let (id, read) = decode_response(&frame::parse(&kept).expect("a frame")).expect(name);
        assert_eq!((id, read), (5, Ok(answer)), "{name}");
    }
}

#[test]
fn an_untraced_call_has_no_trace_parent() {
    let head = CallHead { id: 1, epoch: 2, deadline_ms: 3, trace_parent: None };
    let bytes = wire(&encode_request(&head, &Request::Health).expect("fits"));
    let (read, _) = decode_request(&frame::parse(&bytes).expect("a frame")).expect("sound");
    assert_eq!(read, head);
}

#[test]
fn records_are_slices_of_the_received_frame() {
    let put = Request::Put {
        partition: PartitionId(1),
        record: record("k", b"v"),
        repair: false,
        until_micros: 0,
    };
    let bytes = wire(&encode_request(&call(), &put).expect("fits"));
    let (_, read) = decode_request(&frame::parse(&bytes).expect("a frame")).expect("sound");
    let Ok(Request::Put { record, .. }) = read else { panic!("a Put") };
    assert!(bytes.as_ptr_range().contains(&record.bytes().as_ptr()));
}

#[test]
fn a_damaged_record_fails_its_call_and_not_the_frame() {
    let put = Request::Put {
        partition: PartitionId(1),
        record: record("k", b"v"),
        repair: false,
        until_micros: 0,
    };
    let mut bytes = wire(&encode_request(&call(), &put).expect("fits")).to_vec();
    let at = bytes.windows(10).position(|it| it == b"text/plain").expect("the content type");
    bytes[at] ^= 1;
    let frame = frame::parse(&Bytes::from(bytes)).expect("a frame");
    let (head, read) = decode_request(&frame).expect("a sound frame");
    assert_eq!(head.id, call().id);
    assert_eq!(read.expect_err("damaged").kind(), ErrorKind::Corrupt);
}

#[test]
fn a_request_is_no_answer_and_an_answer_no_request() {
    for (name, request) in requests() {
        let bytes = wire(&encode_request(&call(), &request).expect("fits"));
        let read = decode_response(&frame::parse(&bytes).expect("a frame"));
        assert!(matches!(read, Err(WireError::Body { .. } | WireError::Lengths { .. })), "{name}");
    }
    for (name, answer) in answers() {
        let bytes = wire(&encode_response(1, &answer).expect("fits"));
        let read = decode_request(&frame::parse(&bytes).expect("a frame"));
        assert!(matches!(read, Err(WireError::Body { .. } | WireError::Lengths { .. })), "{name}");
    }
}

#[test]
fn a_refused_prepare_that_carries_a_record_is_a_bad_frame() {
    use crate::generated::rpc::{
        Body, Head, HeadArgs, PrepareAnswer, PrepareAnswerArgs, VersionPair,
    };
    let attachment = record("k", b"v").bytes().clone();
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let refused = VersionPair::new(1, 2);
    let args = PrepareAnswerArgs { refused: Some(&refused), ..Default::default() };
    let body = Some(PrepareAnswer::create(&mut builder, &args).as_union_value());
    let length = u32::try_from(attachment.len()).expect("short");
    let attachment_bytes = Some(builder.create_vector(&[length]));
    let body_type = Body::PrepareAnswer;
    let args = HeadArgs { body_type, body, attachment_bytes, ..Default::default() };
    let root = Head::create(&mut builder, &args);
    builder.finish(root, None);
    let head = Bytes::copy_from_slice(builder.finished_data());
    let bytes = wire(&Frame { head, attachments: vec![attachment] });
    let read = decode_response(&frame::parse(&bytes).expect("a frame"));
    assert!(matches!(read, Err(WireError::Lengths { .. })), "{read:?}");
}

#[test]
fn lengths_beyond_the_limits_or_each_other_are_refused() {
    let good = wire(&encode_request(&call(), &Request::Health).expect("fits"));
    let with = |body: u32, head: u32| {
        let mut bytes = good.to_vec();
        bytes[..4].copy_from_slice(&body.to_le_bytes());
        bytes[4..PREFIX_BYTES].copy_from_slice(&head.to_le_bytes());
        frame::parse(&Bytes::from(bytes)).map(|_| ())
    };
    let length = u32::try_from(good.len() - PREFIX_BYTES).expect("short");
    assert_eq!(with(length, length), Ok(()));
    assert!(matches!(with(u32::MAX, 8), Err(WireError::TooLong { what: "a frame", .. })));
    assert!(matches!(with(60 << 20, 9 << 20), Err(WireError::TooLong { .. })));
    assert!(matches!(with(length, length + 1), Err(WireError::Lengths { .. })));
    assert!(matches!(with(length, 0), Err(WireError::Lengths { .. })));
    assert!(matches!(with(length + 1, length), Err(WireError::Lengths { .. })));
}

#[test]
fn lists_above_their_limit_are_refused_by_the_reader() {
    let keys = vec![key("k"); tako_types::limits::TAIL_ENTRIES_MAX + 1];
    let stat = Request::Stat { partition: PartitionId(0), keys, merged: false };
    let bytes = wire(&encode_request(&call(), &stat).expect("fits"));
    let read = decode_request(&frame::parse(&bytes).expect("a frame"));
    assert!(matches!(read, Err(WireError::TooLong { what: "a list of keys", .. })));
}

#[test]
fn long_error_texts_are_cut_at_a_character() {
    let error = RpcError::new(ErrorKind::Internal, "ü".repeat(2_000) + "x");
    let bytes = wire(&encode_response(1, &Err(error)).expect("fits"));
    let (_, read) = decode_response(&frame::parse(&bytes).expect("a frame")).expect("sound");
    assert_eq!(read.expect("no record").expect_err("an error").message.len(), 1_024);
}

#[test]
fn every_cut_of_every_frame_is_refused() {
    for bytes in all_wires() {
        for length in 0..bytes.len() {
            assert!(frame::parse(&bytes.slice(..length)).is_err());
        }
        // The same with a prefix that agrees with what is left.
        for length in PREFIX_BYTES..bytes.len() {
            let mut cut = bytes[..length].to_vec();
            let body = u32::try_from(length - PREFIX_BYTES).expect("short");
            cut[..4].copy_from_slice(&body.to_le_bytes());
            fuzz::frame(&cut);
        }
    }
}

#[test]
fn every_flipped_bit_of_every_frame_is_survived() {
    for bytes in all_wires() {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fuzz::frame(&flipped);
        }
    }
}

#[test]
fn seeded_damage_and_garbage_never_panic() {
    let mut random = StdRng::seed_from_u64(3);
    let wires = all_wires();
    for _ in 0..20_000 {
        let mut bytes = wires[random.random_range(0..wires.len())].to_vec();
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        fuzz::frame(&bytes);
    }
    for length in 0..500 {
        let mut bytes = vec![0; length];
        random.fill_bytes(&mut bytes);
        fuzz::frame(&bytes);
    }
}
