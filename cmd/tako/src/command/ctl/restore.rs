//! `tako ctl restore`: a whole cluster from the object store alone, into a new root.
//!
//! The configuration goes along, changed where it must: it is published in the new root under the
//! next number, so that nodes and coordinators that know the old one take it.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use serde_json::{Value, json};
use tako_coordinator::RECORDS;
use tako_snapshot::backup::{Backup, BackupName, Method, RestoreOptions, Restored, restore};
use tako_types::{
    ClusterId, SystemClock,
    config::{Config, Published},
    limits::PARTITIONS_MAX,
};

use super::{
    snapshot::{count_json, print_counts},
    source::{Source, SourceArgs, narrator, url_of},
};
use crate::{
    command::{
        check,
        output::{Output, print_json},
    },
    failure::Failure,
};

const AFTER_HELP: &str = "\
Examples:
  tako ctl restore --store s3://bucket/c1 --to s3://bucket/c2
  tako ctl restore --store s3://bucket/c1 --to s3://elsewhere/c1 --snapshot before-upgrade
  tako ctl restore --store s3://bucket/c1 --to s3://bucket/trial --new-config trial.yaml
  tako ctl restore --store s3://bucket/c1 --to s3://bucket/c1-128 --partitions 128 --clone

Restores the newest step of every partition, or a named backup, into a root that is empty, as a
cluster with an id of its own. Journals of the old cluster's nodes do not count: stop them in good
order before, and the newest steps hold all they acknowledged. Without --clone the new root needs
nothing of the old one; with it nothing is copied, both roots must lie in one bucket, and the old
one must be kept. Both sides are counted and compared, and only then the new root can be used. A
restore that was cut short is repeated with the same arguments. Exit codes: tako --help.";

/// Arguments of `tako ctl restore`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The new root: s3://BUCKET/PREFIX, file:///FOLDER or a folder
    #[arg(long, value_name = "URL")]
    to: String,
    /// Which backup, instead of the newest steps
    #[arg(long, value_name = "NAME", value_parser = |text: &str| BackupName::new(text).map_err(|e| e.to_string()))]
    snapshot: Option<BackupName>,
    /// Partitions of the new cluster, a power of two; as many as there are without
    #[arg(long, value_name = "N", value_parser = power_of_two)]
    partitions: Option<u32>,
    /// The configuration of the new cluster, where more changes than partitions and store: other
    /// addresses, while the old cluster runs on
    #[arg(long, value_name = "FILE")]
    new_config: Option<PathBuf>,
    /// Name the old root's files instead of copying the records
    #[arg(long)]
    clone: bool,
    /// Do not read both roots to compare them; only with --clone
    #[arg(long, requires = "clone")]
    no_verify: bool,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn power_of_two(text: &str) -> Result<u32, String> {
    let wrong = || format!("take a power of two, at most {PARTITIONS_MAX}");
    let number = text.parse::<u32>().map_err(|_| wrong())?;
    let is_right = number.is_power_of_two() && number <= PARTITIONS_MAX;
    if is_right { Ok(number) } else { Err(wrong()) }
}

pub(super) async fn run(args: RestoreArgs) -> Result<ExitCode, Failure> {
    let source = args.source.open().await?;
    let to = url_of(&args.to)?;
    let into = source.store.open_beside(&source.settings, &to)?;
    let backups = source.backups().await?;
    let backup = match &args.snapshot {
        Some(name) => Some(backups.find(name).await?),
        None => None,
    };
    let new_config = args.new_config.as_ref().map(check::load).transpose()?;
    let partitions = match (args.partitions, &new_config) {
        (Some(asked), Some(config)) if asked != config.partitions => {
            let what = format!("--partitions {asked}, but --new-config has {}", config.partitions);
            return Err(Failure::invalid(what));
        }
        (Some(asked), _) => asked,
        (None, Some(config)) => config.partitions,
        (None, None) => 1 << backups.partitions_log2(),
    };
    let old = known(&source, backup.as_ref())?;
    let restored_document = match (new_config, &old) {
        (Some(config), old) => Some(first_of(config, old.as_ref())?),
        (None, Some(old)) => Some(document_for(old, partitions, &to)?),
        (None, None) => None,
    };
    let options = RestoreOptions {
        partitions_log2: partitions.ilog2(),
        method: if args.clone { Method::Clone } else { Method::Copy },
        verify: !args.no_verify,
        cluster: drawn_id(),
        configuration: restored_document
            .as_ref()
            .map(|document| (document.epoch.number, document.encode().into())),
    };
    let clock = Arc::new(SystemClock);
    let outcome =
        restore(&backups, backup.as_ref(), into, &options, clock, RECORDS, &narrator()).await;
    backups.close().await;
    let restored = outcome?;
    let shown = Shown { args: &args, to: &to, partitions, document: restored_document.as_ref() };
    match args.output {
        Output::Json => print_json(&shown.json(&restored))?,
        Output::Text => shown.print(&restored),
    }
    Ok(ExitCode::SUCCESS)
}

/// The newest configuration that can be found: in the store, else in the backup.
fn known(source: &Source, backup: Option<&Backup>) -> Result<Option<Published>, Failure> {
    if source.document.is_some() {
        return Ok(source.document.clone());
    }
    let bytes = backup.and_then(|backup| backup.configuration.as_ref());
    let decoded = bytes.map(|bytes| Published::decode(bytes)).transpose();
    decoded.map_err(|error| Failure::new(error.kind(), format!("the backup's: {error}")))
}

/// The document for the new root: the same but for what must change, without a migration.
fn document_for(old: &Published, partitions: u32, to: &str) -> Result<Published, Failure> {
    let mut config = (*old.config).clone();
    config.epoch = None;
    config.target = None;
    config.partitions = partitions;
    if let Some(store) = &mut config.cluster.store {
        to.clone_into(&mut store.url);
    }
    // As a reader of it will see it.
    let config = Config::parse(&config.to_canonical_json()).map_err(|error| {
        Failure::invalid(format!("the configuration for the new root: {error}"))
    })?;
    let same = old.config.partitions == partitions;
    let number = old.epoch.number.saturating_add(1);
    laid_out(config, number, same.then_some(old))
}

/// The operator's configuration as the first document of the new root.
fn first_of(mut config: Config, old: Option<&Published>) -> Result<Published, Failure> {
    config.target = None;
    let after = old.map_or(1, |old| old.epoch.number.saturating_add(1));
    let number = config.epoch.take().unwrap_or(after).max(after);
    laid_out(config, number, None)
}

fn laid_out(config: Config, number: u64, before: Option<&Published>) -> Result<Published, Failure> {
    tako_ring::publish(Arc::new(config), number, before)
        .map_err(|error| Failure::new(error.kind(), error.to_string()))
}

/// An id unlike any other: both halves of randomness of their own.
fn drawn_id() -> ClusterId {
    let half = || u128::from(RandomState::new().hash_one(std::process::id()));
    ClusterId(half() << 64 | half())
}

/// What is told of a restore.
struct Shown<'a> {
    args: &'a RestoreArgs,
    to: &'a str,
    partitions: u32,
    document: Option<&'a Published>,
}

impl Shown<'_> {
    fn json(&self, restored: &Restored) -> Value {
        json!({
            "cluster": format!("{:032x}", restored.cluster.0),
            "root": self.to,
            "partitions_of_cluster": self.partitions,
            "snapshot": self.args.snapshot.as_ref().map(BackupName::as_str),
            "configuration": self.document.map(|document| document.epoch.number),
            "verified": restored.counts.is_some(),
            "partitions": restored.counts.iter().flatten().map(|(partition, count)| {
                let mut row = count_json(count);
                row["partition"] = partition.0.into();
                row
            }).collect::<Vec<_>>(),
        })
    }

    fn print(&self, restored: &Restored) {
        match &restored.counts {
            Some(counts) => {
                print_counts(counts.iter());
                println!("both roots hold the same records");
            }
            None => println!("not verified"),
        }
        println!(
            "restored as cluster {:032x} with {} partitions at {}",
            restored.cluster.0, self.partitions, self.to
        );
        if self.args.clone {
            println!(
                "the old root must be kept: the new one names its files (a backup of the new root \
                 restored by copy needs neither)"
            );
        }
        match self.document {
            Some(document) if self.args.new_config.is_some() => {
                println!("configuration {} is published there", document.epoch.number);
            }
            Some(document) => {
                let store = document.config.cluster.store.as_ref();
                let store = store.map(|store| format!(" and store.url: {}", store.url));
                println!(
                    "configuration {} is published there; before the coordinators start, write \
                     partitions: {}{} into their file",
                    document.epoch.number,
                    self.partitions,
                    store.as_deref().unwrap_or_default()
                );
            }
            None => println!(
                "the old root has no configuration: start with partitions: {}",
                self.partitions
            ),
        }
        println!("start every process with the new root as its store");
    }
}
