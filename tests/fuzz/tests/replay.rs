//! Every corpus again, as it lies there and with seeded mutations.
//!
//! A failure prints the target, the file and the seed; `TAKO_FUZZ_SEED` repeats a seed or tries
//! others, `TAKO_FUZZ_MUTATIONS` says how many are made of each file.

use std::{fs, panic, path::PathBuf};

use tako_fuzz::{Mutator, TARGETS};

const SEED: u64 = 1;
const MUTATIONS: u64 = 4;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let entry = entry.expect("a file's name");
            let bytes = fs::read(entry.path()).expect("readable");
            (entry.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect();
    files.sort();
    files
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let (seed, mutations) =
        (number("TAKO_FUZZ_SEED", SEED), number("TAKO_FUZZ_MUTATIONS", MUTATIONS));
    let files = corpus(name);
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    for (at, (file, bytes)) in files.iter().enumerate() {
        let other = &files[(at * 7 + 1) % files.len()].1;
        let mut mutator = Mutator::new(seed ^ (at as u64) << 32);
        let mut input = bytes.clone();
        for round in 0..=mutations {
            if panic::catch_unwind(|| (target.holds)(&input)).is_err() {
                panic!(
                    "{name}: corpus/{name}/{file}, mutation {round} of TAKO_FUZZ_SEED={seed}: {:?}",
                    String::from_utf8_lossy(&input)
                );
            }
            input = mutator.mutate(bytes, other);
        }
    }
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_and_no_other_is_replayed_and_has_a_corpus() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(replayed.to_vec(), TARGETS.iter().map(|it| it.name).collect::<Vec<_>>());
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
            for entry in fs::read_dir(folder).expect("the corpora") {
                let name = entry.expect("a folder's name").file_name();
                assert!(replayed.contains(&&*name.to_string_lossy()), "{name:?} is no target");
            }
        }
    };
}

replayed! {
    frame stream record configuration quantity published snapshot_row journal_file journal_folder
    identity http_request memcached siblings store_context batch_line history
}
