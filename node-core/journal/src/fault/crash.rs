//! What a crash leaves of a disk in memory: any permitted loss of what was not synced.
//!
//! Invariants: names survive in the order in which they were changed (as with a journalling file
//! system). A write is durable when the first sync of its file behind it succeeded; after one that
//! failed the system may hold the bytes as clean, so that no later sync brings them to the disk.
//! Every other write survives sector by sector, as the caller says. Not here: chance.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{MemDisk, Op, memory::MemFile};

/// Disks write this much or nothing.
pub const SECTOR_BYTES: u64 = 512;

/// What survives of a change that was not synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Nothing; of names also no later change.
    Nothing,
    /// All.
    All,
    /// The first bytes of a write; all of another change.
    Prefix(usize),
    /// Those sectors of a write that are marked, in the order of [`Op::sectors`]; all of another
    /// change. What the marks do not reach is lost.
    Sectors(Vec<bool>),
}

impl Op {
    /// The numbers of the sectors that a write touches; none for another change.
    #[must_use]
    pub fn sectors(&self) -> std::ops::Range<u64> {
        match self {
            Self::Write(_, offset, bytes) => {
                offset / SECTOR_BYTES..(offset + bytes.len() as u64).div_ceil(SECTOR_BYTES)
            }
            _ => 0..0,
        }
    }

    fn changes_names(&self) -> bool {
        matches!(self, Self::Create(..) | Self::Rename(..) | Self::Remove(_) | Self::Link(..))
    }
}

/// Whether a crash after these changes could lose any of them.
#[must_use]
pub fn all_synced(ops: &[Op]) -> bool {
    let durable = durable(ops);
    ops.iter().zip(durable).all(|(op, durable)| match op {
        Op::CreateDir(_) | Op::Open(..) | Op::SyncDir(_) | Op::SyncData(_) | Op::SyncFailed(_) => {
            true
        }
        _ => durable,
    })
}

/// The disk after a crash that followed `ops`, which were recorded from the state `base`.
///
/// `keep` is asked in order about each change that was not synced. The records of several
/// processes, one after another on the same disk, may be joined.
#[must_use]
pub fn surviving(base: &MemDisk, ops: &[Op], mut keep: impl FnMut(&Op) -> Kept) -> MemDisk {
    let disk = base.deep_copy();
    // What the process saw, as opposed to what survives.
    let mut seen: BTreeMap<PathBuf, MemFile> = disk.tree().files.clone();
    let mut numbered: BTreeMap<u64, MemFile> = BTreeMap::new();
    let mut names_survive = true;
    for (op, durable) in ops.iter().zip(durable(ops)) {
        if op.changes_names() && !durable {
            names_survive = names_survive && keep(op) != Kept::Nothing;
        }
        let mut tree = disk.tree();
        match op {
            Op::CreateDir(path) => drop(tree.dirs.insert(path.clone())),
            Op::Create(path, file) => {
                let made = MemFile::default();
                numbered.insert(*file, made.clone());
                seen.insert(path.clone(), made.clone());
                if names_survive {
                    tree.files.insert(path.clone(), made);
                }
            }
            Op::Open(path, file) => {
                if let Some(found) = seen.get(path) {
                    numbered.insert(*file, found.clone());
                }
            }
            Op::Rename(from, to) => {
                rename(&mut seen, from, to);
                if names_survive {
                    tree.rename(from, to);
                }
            }
            Op::Link(from, to) => {
                if let Some(file) = seen.get(from).cloned() {
                    seen.insert(to.clone(), file);
                }
                if names_survive && let Some(file) = tree.files.get(from).cloned() {
                    tree.files.insert(to.clone(), file);
                }
            }
            Op::Remove(path) => {
                seen.remove(path);
                if names_survive {
                    tree.files.remove(path);
                }
            }
            Op::Allocate(file, bytes) => {
                if (durable || keep(op) != Kept::Nothing)
                    && let Some(file) = numbered.get(file)
                {
                    file.lengthen(*bytes);
                }
            }
            Op::Write(file, offset, bytes) => {
                let kept = if durable { Kept::All } else { keep(op) };
                if let Some(file) = numbered.get(file) {
                    write(file, op, (*offset, bytes), &kept);
                }
            }
            Op::SyncDir(_) | Op::SyncData(_) | Op::SyncFailed(_) => {}
        }
    }
    disk
}

/// Which changes a crash cannot lose.
fn durable(ops: &[Op]) -> Vec<bool> {
    let names_synced = ops.iter().rposition(|op| matches!(op, Op::SyncDir(_)));
    let inodes = inodes(ops);
    // The next sync of each file, and whether it succeeds; hence from the end.
    let mut next_sync: BTreeMap<usize, bool> = BTreeMap::new();
    let mut answer = vec![false; ops.len()];
    for (at, op) in ops.iter().enumerate().rev() {
        match op {
            Op::SyncData(_) => drop(next_sync.insert(inodes[at], true)),
            Op::SyncFailed(_) => drop(next_sync.insert(inodes[at], false)),
            Op::Allocate(..) | Op::Write(..) => {
                answer[at] = next_sync.get(&inodes[at]).copied().unwrap_or(false);
            }
            _ if op.changes_names() => answer[at] = names_synced.is_some_and(|synced| at < synced),
            _ => {}
        }
    }
    answer
}

/// Which file each change is about: numbers are given anew by each process, and a file opened
/// again is the same file. 0 where it is about none.
fn inodes(ops: &[Op]) -> Vec<usize> {
    let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut numbered: BTreeMap<u64, usize> = BTreeMap::new();
    let mut answer = Vec::with_capacity(ops.len());
    for (at, op) in ops.iter().enumerate() {
        let mut inode = 0;
        match op {
            Op::Create(path, file) => {
                names.insert(path.clone(), at + 1);
                numbered.insert(*file, at + 1);
            }
            Op::Open(path, file) => {
                let inode = *names.entry(path.clone()).or_insert(at + 1);
                numbered.insert(*file, inode);
            }
            Op::Rename(from, to) => rename(&mut names, from, to),
            Op::Link(from, to) => {
                let inode = *names.entry(from.clone()).or_insert(at + 1);
                names.insert(to.clone(), inode);
            }
            Op::Remove(path) => drop(names.remove(path)),
            Op::Allocate(file, _)
            | Op::Write(file, ..)
            | Op::SyncData(file)
            | Op::SyncFailed(file) => inode = numbered.get(file).copied().unwrap_or(0),
            Op::CreateDir(_) | Op::SyncDir(_) => {}
        }
        answer.push(inode);
    }
    answer
}

/// Moves a file, or all that is in a folder, within a table of names.
fn rename<T>(names: &mut BTreeMap<PathBuf, T>, from: &Path, to: &Path) {
    let paths: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
    for path in paths {
        let rest = path.strip_prefix(from).unwrap_or(&path);
        let new = to.join(rest).components().collect();
        if let Some(moved) = names.remove(&path) {
            names.insert(new, moved);
        }
    }
}

fn write(file: &MemFile, op: &Op, (offset, bytes): (u64, &[u8]), kept: &Kept) {
    match kept {
        Kept::Nothing => {}
        Kept::All => file.put(bytes, offset),
        Kept::Prefix(length) => file.put(&bytes[..(*length).min(bytes.len())], offset),
        Kept::Sectors(marks) => {
            let end = offset + bytes.len() as u64;
            for (sector, kept) in op.sectors().zip(marks) {
                let from = offset.max(sector * SECTOR_BYTES);
                let to = end.min((sector + 1) * SECTOR_BYTES);
                if *kept {
                    file.put(&bytes[(from - offset) as usize..(to - offset) as usize], from);
                }
            }
        }
    }
}
