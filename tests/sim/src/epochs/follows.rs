//! Which documents may follow each other: the phases of a migration as DESIGN section 9 has them.
//!
//! ```text
//! none ─► join ─► write-both ─► read-new ─► leave (active is the other one now) ─► none
//!   ▲──────┘ ▲───────┼────◄─── (barrier kept)  │
//!   leave ◄──────────┘ (active is the same) ◄──┘ by way of write-both only
//! ```
//! Pure; written from the document, not from the coordinator's code.

use tako_types::config::{Migration, Phase, Published};

/// What a document did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// Settings at most.
    Stayed,
    /// A move began.
    Began,
    /// Into the next phase, before anything is decided.
    WentOn,
    /// Reads moved to the other deployment, or writes are for it alone: somebody must have ordered it.
    Finishes,
    /// Back towards where the move began: somebody must have ordered it.
    GivesUp,
    /// The deployment that was left is dropped.
    Ended,
}

/// What `after` does, coming right after `before`.
///
/// # Errors
/// Why it must not come there.
pub(super) fn follows(before: &Published, after: &Published) -> Result<Done, String> {
    use Phase::{Join, Leave, ReadNew, WriteBoth};
    let (old, new) = (&before.config.active, &after.config.active);
    let partitions = before.partitions().count();
    let phase = |migration: &Option<Migration>| migration.as_ref().map(|it| it.phase);
    let refused = || {
        let text = |document: &Published| {
            let (active, target) = (&document.config.active, &document.config.target);
            format!("{active} (target {target:?}, {:?})", document.migration)
        };
        Err(format!("{} must not follow {}", text(after), text(before)))
    };
    let others = before.migration.as_ref().zip(after.migration.as_ref());
    let same_other = others.is_none_or(|(before, after)| before.other == after.other);
    let barrier = |document: &Published| {
        document.migration.as_ref().map(|migration| migration.barrier.clone()).unwrap_or_default()
    };
    let (steps, steps_after) = (barrier(before), barrier(after));
    let full = steps_after.len() == partitions;
    let rises = steps.iter().zip(&steps_after).all(|(before, after)| before <= after);
    let stays = old == new && same_other && steps == steps_after;
    match (phase(&before.migration), phase(&after.migration)) {
        (None, None) if old == new => Ok(Done::Stayed),
        (None, Some(Join)) if old == new => Ok(Done::Began),
        (Some(a), Some(b)) if a == b && stays => Ok(Done::Stayed),
        (Some(Join), Some(WriteBoth)) if stays && steps_after.is_empty() => Ok(Done::WentOn),
        (Some(Join), None) if old == new => Ok(Done::GivesUp),
        (Some(WriteBoth), Some(ReadNew)) if old == new && same_other && full && rises => {
            Ok(Done::Finishes)
        }
        (Some(WriteBoth), Some(Leave)) if old == new && same_other => Ok(Done::GivesUp),
        (Some(ReadNew), Some(WriteBoth)) if stays && full => Ok(Done::GivesUp),
        (Some(ReadNew), Some(Leave)) => match others {
            Some((before, after)) if before.other == *new && after.other == *old => {
                Ok(Done::Finishes)
            }
            _ => refused(),
        },
        (Some(Leave), None) if old == new => Ok(Done::Ended),
        _ => refused(),
    }
}
