//! Published documents on a disk: `<folder>/<20 digits>.json`, the newest ten.
//!
//! Nodes, proxies and coordinators keep theirs in this way. Invariant: a file with its final name
//! is whole and durable. Blocking. Not here: which document is taken (the callers decide).

use std::{
    io,
    path::{Path, PathBuf},
};

use tako_journal::{Disk, read_up_to, replace_file};
use tako_types::{config::Published, limits::PUBLISHED_BYTES_MAX};

/// How many documents are kept.
const KEPT_COUNT: usize = 10;

/// Keeps a document durably, and drops the oldest beyond ten.
///
/// # Errors
/// What the disk says; the document may be there all the same.
pub fn keep(disk: &dyn Disk, folder: &Path, number: u64, bytes: &[u8]) -> io::Result<()> {
    replace_file(disk, folder, &name_of(number), bytes)?;
    let numbers = numbers(disk, folder)?;
    for old in &numbers[..numbers.len().saturating_sub(KEPT_COUNT)] {
        disk.remove(&path_of(folder, *old))?;
    }
    Ok(())
}

/// The newest document that makes sense; damaged ones are passed over with an error in the log.
///
/// # Errors
/// What the disk says: a document that cannot be read may be the newest.
pub fn newest(disk: &dyn Disk, folder: &Path) -> io::Result<Option<Published>> {
    let found = match numbers(disk, folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    for number in found.into_iter().rev() {
        let path = path_of(folder, number);
        // A byte more than allowed, so that too long a document is refused and not cut.
        let bytes = read_up_to(disk, &path, PUBLISHED_BYTES_MAX + 1)?;
        match Published::decode(&bytes) {
            Ok(document) if document.epoch.number == number => return Ok(Some(document)),
            Ok(document) => {
                let (path, epoch) = (path.display(), document.epoch);
                tracing::error!(%path, %epoch, "kept configuration under a foreign name");
            }
            Err(error) => tracing::error!(path = %path.display(), "kept configuration: {error}"),
        }
    }
    Ok(None)
}

/// As [`newest`], for who can ask others: what cannot be read is not there, with a warning.
#[must_use]
pub fn newest_kept(disk: &dyn Disk, folder: &Path) -> Option<Published> {
    newest(disk, folder).unwrap_or_else(|error| {
        tracing::warn!(folder = %folder.display(), "kept configurations: {error}");
        None
    })
}

/// The numbers of what is kept, ascending.
fn numbers(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<u64>> {
    let names = disk.list(folder)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn name_of(number: u64) -> String {
    format!("{number:020}.json")
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(name_of(number))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tako_journal::{
        fault::{Call, Fault, FaultDisk, MemDisk},
        write_all_at,
    };

    use super::*;

    fn document(number: u64) -> Published {
        let text = "active_deployment: d\ndeployments:\n  d:\n    hash: {buckets_per_key: 1}\n    \
                    buckets:\n      b1:\n        n1: [localhost, 4701]\n";
        let config = tako_types::config::Config::parse(text).expect("a valid configuration");
        tako_ring::publish(Arc::new(config), number, None).expect("it can be laid out")
    }

    fn write(disk: &dyn Disk, name: &str, bytes: &[u8]) {
        let file = disk.create(&Path::new("/etc").join(name)).expect("created");
        write_all_at(file.as_ref(), bytes, 0).expect("written");
    }

    #[test]
    fn the_newest_ten_are_kept_and_what_makes_no_sense_is_passed_over() {
        let (disk, folder) = (MemDisk::default(), Path::new("/etc"));
        assert!(newest(&disk, folder).expect("nothing yet").is_none());
        for number in 1..=12 {
            keep(&disk, folder, number, &document(number).encode()).expect("kept");
        }
        assert_eq!(numbers(&disk, folder).expect("a list"), (3..=12).collect::<Vec<_>>());
        write(&disk, "00000000000000000013.json", b"{\"epoch\"");
        write(&disk, "00000000000000000014.json", &document(4).encode());
        write(&disk, "99999999999999999999.json", b"no number of ours");
        write(&disk, "00000000000000000015.json.tmp", &document(15).encode());
        let found = newest(&disk, folder).expect("readable").expect("one");
        assert_eq!(found.epoch.number, 12);
    }

    #[test]
    fn a_document_that_cannot_be_read_is_not_passed_over_by_who_gives_numbers() {
        let (memory, folder) = (MemDisk::default(), Path::new("/etc"));
        keep(&memory, folder, 1, &document(1).encode()).expect("kept");
        let disk = FaultDisk::new(Arc::new(memory));
        disk.fail_always(Call::Open, Fault::Error(io::ErrorKind::Other));
        assert!(newest(&disk, folder).is_err());
        assert!(newest_kept(&disk, folder).is_none());
    }
}
