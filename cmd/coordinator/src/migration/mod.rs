//! Live migration, carried out from what the operator's file says (docs/decisions/0008-migration.md).
//!
//! The file is the order: a `target_deployment` beside the active one takes the migration as far as
//! both sets being written; the two in each other's place let reads move and no more; the target
//! named as `active_deployment`, without a target, finishes it; the old one alone gives it up. [`order`] says what a file means while a document is in force,
//! [`phases`] which document comes next and what it still waits for, [`standings`] asks the nodes.
//! Nothing is kept but the documents: a coordinator that starts anew goes on from the one in force.

pub(crate) mod order;
pub(crate) mod phases;
pub(crate) mod standings;
