//! A node's write-ahead log and its identity file.
//!
//! ```text
//! append ─► queue ─► Writer::commit (one write, one fdatasync) ─► Sink ─► answers
//! open   ─► recover (files in order) ─► Sink
//! release ─► file not needed ─► said in a durable group ─► file removed
//! ```
//! Invariant: nothing reaches the sink or an appender before it is durable, and no LSN is given
//! twice. Byte layout and rules: docs/formats/journal.md.
//! Calls: tako-types. Called by: the engine. Not here: what a payload means.

mod blocking;
mod check;
mod disk;
mod entry;
mod error;
pub mod fault;
mod files;
mod format;
pub mod fuzz;
mod identity;
mod journal;
mod keeper;
mod lock;
mod parse;
mod recover;
mod writer;

pub use blocking::{Blocking, Pace};
pub use disk::{Disk, DiskFile, FsDisk, read_all, read_up_to, replace_file, write_all_at};
pub use entry::{Durable, Entry, EntryKind, Location, Sink};
pub use error::{IdentityError, JournalError};
pub use identity::{Adopted, Identity};
pub use journal::{Journal, JournalOptions};
pub use lock::{DirLock, lock_dir};
pub use recover::{Damage, Recovered};
pub use tako_types::config::Durability;
pub use writer::{Pending, Writer};
