//! Reads complete files again while the journal runs: do they still hold what was written?
//!
//! Invariant: nothing is written, and the current file is left alone, as its end moves. The file
//! before it may still be getting its seal; every older one has one.
//! Calls: parse.rs for the bytes. Not here: what is done about damage.

use std::io;

use crate::{Damage, DiskFile, Journal, JournalError, parse::parse};

impl Journal {
    /// Numbers of the files that no entry goes into any more, oldest first.
    #[must_use]
    pub fn complete_files(&self) -> Vec<u64> {
        self.shared().files.complete()
    }

    /// Reads a complete file; gives its length and what is wrong with it, or `None` where it was
    /// removed meanwhile.
    ///
    /// Blocking: reads the whole file into memory.
    ///
    /// # Errors
    /// `Io` where the disk does not give its bytes.
    pub fn check_file(&self, file: u64) -> Result<Option<(u64, Option<Damage>)>, JournalError> {
        let shared = self.shared();
        let Some(handle) = shared.files.handle(file) else { return Ok(None) };
        let bytes = match read_whole(handle.as_ref()) {
            Ok(bytes) => bytes,
            // A file that was trimmed meanwhile need not be readable.
            Err(_) if shared.files.handle(file).is_none() => return Ok(None),
            Err(error) => {
                return Err(JournalError::io("read", format!("journal file {file}"), error));
            }
        };
        let damage = |(offset, reason): (u64, String)| Damage { file, offset, reason };
        let found = match parse(&bytes, file, shared.options.cluster) {
            Err(reason) => Some(damage((0, reason))),
            Ok(parsed) => parsed.damage.map(damage).or_else(|| {
                let may_lack_it = shared.files.complete().last() == Some(&file);
                let unsealed = !parsed.sealed && !may_lack_it;
                unsealed.then(|| damage((parsed.end, "the file ends without a seal".to_owned())))
            }),
        };
        Ok(Some((bytes.len() as u64, found)))
    }
}

fn read_whole(handle: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(handle.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    handle.read_at(&mut bytes, 0)?;
    Ok(bytes)
}
